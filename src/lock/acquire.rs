//! Acquires locks: several at once or none.

use std::time::{Instant, SystemTime};

use super::draft::Draft;
use super::line::Place;
use super::liveness::epoch;
use super::queue::{Again, Answer, Eyes, answer, leave};
use super::record::{Grant, Token};
use super::request::{LEAVING, Request};
use super::words::held_all_the_same;
use super::{Locks, STATE};
use crate::error::{Kind, Result};
use crate::name::Name;
use crate::time::rfc3339;

/// A lock that was granted.
#[derive(Clone, Debug)]
pub struct Acquired {
    /// Its name.
    pub name: Name,
    /// The grant.
    pub grant: Grant,
    /// The grant that this one changed or counted; `None` if it is new.
    pub before: Option<Grant>,
}

impl Locks {
    /// Acquires all of the requested locks, waiting until the deadline.
    pub fn acquire(&self, request: &Request) -> Result<Vec<Acquired>> {
        let started = Instant::now();
        let mut place = Place::none(self, request);
        let wants_state = request.names.iter().any(|name| name.as_str() == STATE);
        let acquired = loop {
            let (gate, mut drafts) = match self.when_free(request, &mut place) {
                // The existing grant may be that of a command that was killed before it drained the
                // commits.
                Err(error) if error.kind == Kind::AlreadyHeld && wants_state => {
                    return Err(match self.drain_commits(request.deadline.at) {
                        Ok(()) => error,
                        Err(late) => held_all_the_same(late, error),
                    });
                }
                result => result?,
            };
            let Some(tokens) = gate.take_tokens(drafts.len())? else {
                drop(gate);
                self.reserve(request.deadline.at)?;
                continue;
            };
            let (judge, now) = (gate.judge()?, self.disk.now());
            let grants = drafts.iter_mut().zip(tokens);
            let acquired: Vec<Acquired> =
                grants.map(|(draft, token)| grant(draft, request, (token, now), &judge)).collect();
            gate.store(&drafts)?;
            place.leave_to_others();
            gate.keep_spares();
            break acquired;
        };
        if wants_state && let Err(error) = self.drain_commits(request.deadline.at) {
            self.give_back(&acquired);
            return Err(error);
        }
        for Acquired { name, grant, .. } in &acquired {
            let waited = format!("{:.6}", started.elapsed().as_secs_f64());
            self.audit.record(
                &self.grant_entry("acquire", "granted", name, grant).with("waited", waited),
            );
        }
        Ok(acquired)
    }

    /// Gives back grants that were made a moment ago.
    pub fn give_back(&self, acquired: &[Acquired]) {
        self.give_back_as(acquired, ("acquire", "given back"));
    }

    /// Gives back all of these at once or none; `action` and `words` go into the audit log.
    pub(super) fn give_back_as(&self, acquired: &[Acquired], (action, words): (&str, &str)) {
        let names: Vec<Name> = acquired.iter().map(|acquired| acquired.name.clone()).collect();
        let undo = || -> Result<()> {
            let gate = self.gate(Instant::now() + LEAVING)?;
            let mut drafts = gate.load_all(&names)?;
            for (draft, acquired) in drafts.iter_mut().zip(acquired) {
                take_back(draft, acquired);
            }
            gate.store(&drafts)?;
            drop(gate);
            for Acquired { name, grant, .. } in acquired {
                self.audit_grant(action, words, name, grant);
            }
            Ok(())
        };
        if let Err(error) = undo() {
            self.warn(format!(
                "what was granted could not be given back: {error}; see `lock list`"
            ));
        }
    }
}

/// Writes a grant with this token, given now, into a record that does not block the request.
pub fn grant(
    draft: &mut Draft,
    request: &Request,
    (token, now): (Token, SystemTime),
    eyes: &dyn Eyes,
) -> Acquired {
    let name = draft.name.clone();
    let record = &mut draft.record;
    leave(record, &request.asker.process);
    let ttl = request.ttl.map(|ttl| ttl.as_secs_f64());
    let mut new = Grant {
        token,
        mode: request.ask.mode,
        owner: Some(request.asker.owner.clone()),
        command: request.command.clone(),
        since: rfc3339(now),
        count: 1,
        metadata: request.metadata.clone(),
        ttl,
        expires: ttl.map(|ttl| epoch(now) + ttl),
        live_file: request.live_file.clone(),
        quarantined: None,
    };
    let answered = match answer(&name, record, &request.asker, request.ask, eyes) {
        Answer::Count(own) => Some((own.token, Again::Counted)),
        Answer::Change(own) => Some((own.token, Again::Refused)),
        _ => None,
    };
    let own = answered
        .and_then(|(token, _)| record.holders.iter_mut().find(|grant| grant.token == token));
    let before = own.as_deref().cloned();
    let grant = match (own, answered) {
        (Some(own), Some((_, Again::Counted))) => {
            own.count = own.count.saturating_add(1);
            own.clone()
        }
        (Some(own), Some((_, Again::Refused))) => {
            new.count = own.count;
            new.metadata = new.metadata.or_else(|| own.metadata.clone());
            new.ttl = new.ttl.or(own.ttl);
            new.expires = new.expires.or(own.expires);
            new.live_file = new.live_file.or_else(|| own.live_file.clone());
            *own = new.clone();
            new
        }
        _ => {
            record.holders.push(new.clone());
            new
        }
    };
    Acquired { name, grant, before }
}

/// Removes a grant from the record; the grant that it replaced is restored.
pub fn take_back(draft: &mut Draft, Acquired { grant, before, .. }: &Acquired) {
    if let Some(place) = draft.record.holders.iter().position(|held| held.token == grant.token) {
        draft.record.holders.splice(place..=place, before.clone());
    }
}
