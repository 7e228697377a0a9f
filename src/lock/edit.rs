//! A record under change: the original, the new content, and the changes that grants make.

use std::time::SystemTime;

use super::identity::Identity;
use super::lifeline::Lifeline;
use super::liveness::{LivenessOracle, unix_seconds};
use super::queue::{Answer, answer, dequeue};
use super::record::{Grant, Record, Token, Waiter};
use super::request::Request;
use crate::name::Name;
use crate::time::rfc3339_millis;

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

/// Selects the grants that an operator removes.
#[derive(Clone, Copy, Debug)]
pub enum BreakTarget {
    /// The grant with this token.
    Token(Token),
    /// All grants, regardless of their holders.
    All,
}

/// A record that is being changed.
#[derive(Clone, Debug)]
pub struct RecordEdit {
    /// The lock's name.
    pub name: Name,
    /// The new content.
    pub record: Record,
    original: Record,
}

impl RecordEdit {
    /// A change of `record`, as it was read.
    pub fn new(name: &Name, record: Record) -> Self {
        Self { name: name.clone(), original: record.clone(), record }
    }

    /// The record as it was read.
    pub fn original(&self) -> &Record {
        &self.original
    }

    /// Returns whether it differs from the record as it was read.
    pub fn is_changed(&self) -> bool {
        self.record != self.original
    }

    /// The queue entry of a process, as it is now.
    pub fn waiter(&self, process: &Identity) -> Option<&Waiter> {
        self.record.waiters.iter().find(|waiter| waiter.process.is(process))
    }

    /// Grants the lock to a request that nothing blocks.
    pub fn grant(
        &mut self,
        request: &Request,
        token: Token,
        now: SystemTime,
        oracle: &dyn LivenessOracle,
    ) -> Acquired {
        dequeue(&mut self.record, &request.requester.process);
        let new = new_grant(request, token, now);
        let (before, grant) =
            match answer(&self.name, &self.record, &request.requester, request.spec, oracle) {
                Answer::Count(own) => {
                    let count = own.count.saturating_add(1);
                    (Some(own.clone()), Grant { count, ..own.clone() })
                }
                Answer::Change(own) => (Some(own.clone()), inherit(new, own)),
                Answer::Free | Answer::AlreadyHeld(_) | Answer::Blocked => (None, new),
            };
        match &before {
            Some(before) => self.replace_grant(before.token, Some(grant.clone())),
            None => self.record.holders.push(grant.clone()),
        }
        Acquired { name: self.name.clone(), grant, before }
    }

    /// Undoes a grant: the one that it replaced is restored.
    pub fn take_back(&mut self, acquired: &Acquired) {
        self.replace_grant(acquired.grant.token, acquired.before.clone());
    }

    fn replace_grant(&mut self, token: Token, with: Option<Grant>) {
        let holders = &mut self.record.holders;
        if let Some(position) = holders.iter().position(|held| held.token == token) {
            holders.splice(position..=position, with);
        }
    }

    /// Removes the grants that an operator breaks; returns them.
    pub fn remove_grants(&mut self, target: BreakTarget) -> Vec<Grant> {
        let is_hit = |grant: &mut Grant| match target {
            BreakTarget::Token(token) => grant.token == token,
            BreakTarget::All => true,
        };
        self.record.holders.extract_if(.., is_hit).collect()
    }

    /// Returns whether the change may unblock a waiter: a grant or a waiter goes, or a waiter lets
    /// others pass from now on.
    pub fn unblocks_someone(&self) -> bool {
        let Record { holders, waiters, .. } = &self.original;
        let grants_gone = holders.iter().any(|grant| self.record.grant(grant.token).is_none());
        let lets_pass = |before: &Waiter| match self.waiter(&before.process) {
            None => true,
            Some(now) => now.lets_others_pass() && !before.lets_others_pass(),
        };
        grants_gone || waiters.iter().any(lets_pass)
    }

    /// The lifelines of commands that no grant names any more.
    pub fn dropped_command_lifelines(&self) -> impl Iterator<Item = &Lifeline> {
        dropped(&self.original, &self.record, |record| {
            record.holders.iter().filter_map(|grant| grant.live_file.as_ref())
        })
    }

    /// The lifelines of waiters that are gone from the queue.
    pub fn dropped_waiter_lifelines(&self) -> impl Iterator<Item = &Lifeline> {
        dropped(&self.original, &self.record, |record| {
            record.waiters.iter().filter_map(|one| one.lifeline.as_ref())
        })
    }
}

/// The lifelines that the first record names and the second does not.
fn dropped<'a, I: Iterator<Item = &'a Lifeline>>(
    before: &'a Record,
    now: &'a Record,
    named: impl Fn(&'a Record) -> I + 'a,
) -> impl Iterator<Item = &'a Lifeline> {
    named(before).filter(move |file| !named(now).any(|other| other == *file))
}

fn new_grant(request: &Request, token: Token, now: SystemTime) -> Grant {
    let ttl = request.ttl.map(|ttl| ttl.as_secs_f64());
    Grant {
        token,
        mode: request.spec.mode,
        owner: Some(request.requester.owner.clone()),
        command: request.command.clone(),
        since: rfc3339_millis(now),
        count: 1,
        metadata: request.metadata.clone(),
        ttl,
        expires: ttl.map(|ttl| unix_seconds(now) + ttl),
        live_file: request.live_file.clone(),
        quarantined: None,
    }
}

/// A grant that changes the mode of the owner's grant, and keeps what the request does not say.
fn inherit(new: Grant, own: &Grant) -> Grant {
    Grant {
        count: own.count,
        metadata: new.metadata.or_else(|| own.metadata.clone()),
        ttl: new.ttl.or(own.ttl),
        expires: new.expires.or(own.expires),
        live_file: new.live_file.or_else(|| own.live_file.clone()),
        ..new
    }
}
