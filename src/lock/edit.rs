//! A record under change: the original, the new content, and the changes that grants make.

use std::collections::{HashMap, HashSet};
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
        // Now: in its place it was judged by the waiters before it, and not by those after it.
        dequeue(&mut self.record, &request.requester.process);
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

    /// Takes what was stored as the original of a further change.
    pub fn settle(&mut self) {
        self.original = self.record.clone();
    }

    /// Returns whether the record's file changes.
    pub fn changes_record(&self) -> bool {
        self.record.stored() != self.original.stored()
    }

    /// The waiters with files that join the queue or change, and those that leave it.
    pub fn moves(&self) -> (Vec<Joining<'_>>, Vec<&Waiter>) {
        let Record { waiters: then, .. } = &self.original;
        let Record { waiters: now, .. } = &self.record;
        if then == now {
            return Default::default();
        }
        let (before, after) = (by_process(then), by_process(now));
        let in_file = |waiter: &&Waiter| waiter.ticket().is_some();
        let joining = now.iter().filter(in_file).filter_map(|waiter| {
            let before = before.get(&key(waiter)).copied().filter(in_file);
            (before != Some(waiter)).then_some(Joining { before, waiter })
        });
        let leaving = then
            .iter()
            .filter(in_file)
            .filter(|waiter| after.get(&key(waiter)).is_none_or(|after| after.ticket().is_none()));
        (joining.collect(), leaving.collect())
    }

    /// Returns whether the change may unblock a waiter: a grant or a waiter goes, or a waiter lets
    /// others pass from now on. A waiter that goes because it was granted the lock unblocks none:
    /// it blocks the others as before, and those that wait for its process see that end.
    pub fn unblocks_someone(&self) -> bool {
        let (then, now) = (&self.original, &self.record);
        let is_gone = |grant: &Grant| now.grant(grant.token).is_none();
        if then.holders.iter().any(is_gone) {
            return true;
        }
        if then.waiters == now.waiters {
            return false;
        }
        let is_granted = now.holders.iter().any(|grant| then.grant(grant.token).is_none());
        let after = by_process(&now.waiters);
        then.waiters.iter().any(|before| match after.get(&key(before)) {
            None => !is_granted,
            Some(now) => now.lets_others_pass() && !before.lets_others_pass(),
        })
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

/// A waiter that joins a queue, or one that changes there.
#[derive(Clone, Copy, Debug)]
pub struct Joining<'a> {
    /// As it was, if it was there.
    pub before: Option<&'a Waiter>,
    /// As it is from now on.
    pub waiter: &'a Waiter,
}

/// What distinguishes waiters of one queue.
fn key(waiter: &Waiter) -> (u32, u64, u64) {
    (waiter.process.pid, waiter.process.start, waiter.process.namespace.pid_namespace)
}

fn by_process(waiters: &[Waiter]) -> HashMap<(u32, u64, u64), &Waiter> {
    waiters.iter().map(|waiter| (key(waiter), waiter)).collect()
}

/// The lifelines that the first record names and the second does not.
fn dropped<'a, I: Iterator<Item = &'a Lifeline>>(
    before: &'a Record,
    now: &'a Record,
    named: impl Fn(&'a Record) -> I + 'a,
) -> impl Iterator<Item = &'a Lifeline> {
    let kept: HashSet<&Lifeline> = named(now).collect();
    named(before).filter(move |file| !kept.contains(file))
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
