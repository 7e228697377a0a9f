//! Acquires locks: several at once or none.

use std::time::{Instant, SystemTime};

use super::edit::RecordEdit;
use super::line::QueueSlot;
use super::liveness::unix_seconds;
use super::queue::{Answer, LivenessOracle, Reentrancy, answer, dequeue};
use super::record::{Grant, Token};
use super::request::{CLEANUP_TIMEOUT, Request};
use super::words::with_late_drain;
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
        let mut slot = QueueSlot::none(self, request);
        let wants_state = request.names.iter().any(|name| name.as_str() == STATE);
        let acquired = loop {
            let (gate, mut edits) = match self.wait_until_grantable(request, &mut slot) {
                // The existing grant may be that of a command that was killed before it drained the
                // commits.
                Err(error) if error.kind == Kind::AlreadyHeld && wants_state => {
                    return Err(match self.drain_commits(request.deadline.at) {
                        Ok(()) => error,
                        Err(late) => with_late_drain(late, error),
                    });
                }
                result => result?,
            };
            let Some(tokens) = gate.take_tokens(edits.len())? else {
                drop(gate);
                self.reserve(request.deadline.at)?;
                continue;
            };
            let (judge, now) = (gate.judge()?, self.disk.now());
            let grants = edits.iter_mut().zip(tokens);
            let acquired: Vec<Acquired> =
                grants.map(|(edit, token)| grant(edit, request, (token, now), &judge)).collect();
            gate.store(&edits)?;
            slot.disarm();
            gate.reserve_space();
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
            let gate = self.gate(Instant::now() + CLEANUP_TIMEOUT)?;
            let mut edits = gate.load_all(&names)?;
            for (edit, acquired) in edits.iter_mut().zip(acquired) {
                take_back(edit, acquired);
            }
            gate.store(&edits)?;
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
    edit: &mut RecordEdit,
    request: &Request,
    (token, now): (Token, SystemTime),
    oracle: &dyn LivenessOracle,
) -> Acquired {
    let name = edit.name.clone();
    let record = &mut edit.record;
    dequeue(record, &request.requester.process);
    let ttl = request.ttl.map(|ttl| ttl.as_secs_f64());
    let mut new = Grant {
        token,
        mode: request.spec.mode,
        owner: Some(request.requester.owner.clone()),
        command: request.command.clone(),
        since: rfc3339(now),
        count: 1,
        metadata: request.metadata.clone(),
        ttl,
        expires: ttl.map(|ttl| unix_seconds(now) + ttl),
        live_file: request.live_file.clone(),
        quarantined: None,
    };
    let answered = match answer(&name, record, &request.requester, request.spec, oracle) {
        Answer::Count(own) => Some((own.token, Reentrancy::Counted)),
        Answer::Change(own) => Some((own.token, Reentrancy::Refused)),
        _ => None,
    };
    let own = answered
        .and_then(|(token, _)| record.holders.iter_mut().find(|grant| grant.token == token));
    let before = own.as_deref().cloned();
    let grant = match (own, answered) {
        (Some(own), Some((_, Reentrancy::Counted))) => {
            own.count = own.count.saturating_add(1);
            own.clone()
        }
        (Some(own), Some((_, Reentrancy::Refused))) => {
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
pub fn take_back(edit: &mut RecordEdit, Acquired { grant, before, .. }: &Acquired) {
    if let Some(position) = edit.record.holders.iter().position(|held| held.token == grant.token) {
        edit.record.holders.splice(position..=position, before.clone());
    }
}
