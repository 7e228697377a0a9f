//! Standing in line: a place in the queues, kept while one sleeps until nobody is in the way any more.

use std::time::{Duration, Instant};

use super::Locks;
use super::deadlock::{Waits, is_waited_for};
use super::gate::{Draft, Gate, Seen};
use super::hierarchy;
use super::liveness::{Judge, Liveness, epoch};
use super::process::Identity;
use super::queue::{Answer, Blocker, answer, blockers, enqueue, prune};
use super::record::{Grant, Purpose, Record, Waiter};
use super::request::{Deadlocks, LEAVING, Request, SILENCE};
use super::wait::{Sleeper, Watchfulness};
use super::words::{InTheWay, already_held, owner_ended, sentence, timed_out};
use crate::error::Result;
use crate::name::Name;
use crate::time::rfc3339;

/// A place in the queues of some locks; left when dropped.
#[must_use]
#[derive(Debug)]
pub struct Place<'a> {
    locks: &'a Locks,
    names: Vec<Name>,
    process: Identity,
    taken: bool,
}

impl<'a> Place<'a> {
    /// No place yet.
    pub(super) fn none(locks: &'a Locks, request: &Request) -> Self {
        Self { locks, names: request.names.clone(), process: request.asker.process.clone(), taken: false }
    }

    /// The place is given up by other means.
    pub(super) fn leave_to_others(&mut self) {
        self.taken = false;
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if self.taken {
            let leave = || -> Result<()> {
                let gate = self.locks.gate(Instant::now() + LEAVING)?;
                let mut drafts = gate.load_all(&self.names)?;
                for draft in &mut drafts {
                    draft.record.waiters.retain(|waiter| !waiter.process.is(&self.process));
                }
                gate.store(&drafts)
            };
            let _ = leave(); // then this process's death says it
        }
    }
}

impl Gate<'_> {
    pub(super) fn load_all(&self, names: &[Name]) -> Result<Vec<Draft>> {
        names.iter().map(|name| self.load(name)).collect()
    }
}

impl Locks {
    /// Stands in line until nobody is in the way, and comes back behind the gate with the records as they are there, the dead
    /// taken off them. What is there need not be stored.
    pub(super) fn when_free<'a>(&'a self, request: &Request, place: &mut Place<'a>) -> Result<(Gate<'a>, Vec<Draft>)> {
        let started = Instant::now();
        let (mut told, mut sleeper) = (false, Sleeper::attentive());
        loop {
            let gate = self.gate(request.deadline.at)?;
            let mut drafts = gate.load_all(&request.names)?;
            let judge = gate.judge()?;
            for Draft { record, .. } in &mut drafts {
                let place = record.place_of(&request.asker.process).unwrap_or(record.waiters.len());
                prune(record, place, &judge);
            }
            if request.ask.purpose == Purpose::Hold && judge.process(&request.asker.owner) == Liveness::Dead {
                return Err(owner_ended(&request.asker.owner));
            }
            self.refuse_what_is_held(request, &drafts, &judge)?;
            if !drafts.iter().any(|draft| is_blocked(draft, request, &judge)) {
                return Ok((gate, drafts));
            }
            if request.deadline.is_over() {
                let drafts = drafts.iter().map(|draft| (&draft.name, &draft.record));
                return Err(timed_out(request, &in_the_way(drafts, request, &judge), started.elapsed()));
            }
            let in_queue = drafts.iter().all(|draft| draft.record.place_of(&request.asker.process).is_some());
            if !in_queue {
                for draft in &mut drafts {
                    draft.record.waiters.retain(|waiter| !waiter.process.is(&request.asker.process));
                    let waiter = self.waiter(request, draft);
                    enqueue(&mut draft.record, waiter);
                }
            }
            // Looked for again when the wait turns out to be long: the others may have moved on into a circle.
            if !in_queue || told {
                self.refuse_deadlock(request, &gate, &drafts, &judge)?;
            }
            if !in_queue {
                gate.store(&drafts)?;
                place.taken = true;
            }
            drop(gate);
            if !in_queue {
                self.reserve_ahead(request.deadline.at); // while there is time
            }
            let until = if told { request.deadline.at } else { (started + SILENCE).min(request.deadline.at) };
            let still_in_the_way = self.sleep(request, &mut sleeper, until)?;
            if !told && !still_in_the_way.is_empty() && !request.deadline.is_over() {
                told = true;
                self.tell(&sentence(&still_in_the_way));
            }
        }
    }

    fn waiter(&self, request: &Request, draft: &Draft) -> Waiter {
        let now = self.disk.now();
        let left = request.deadline.at.saturating_duration_since(Instant::now());
        Waiter {
            mode: request.ask.mode,
            owner: request.asker.owner.clone(),
            process: request.asker.process.clone(),
            command: request.command.clone(),
            since: rfc3339(now),
            until: epoch(now) + left.as_secs_f64(),
            own: request.asker.own_grant(&draft.name, &draft.record).map(|grant| grant.token),
            purpose: request.ask.purpose,
            metadata: request.metadata.clone(),
        }
    }

    /// Refuses what the owner or an ancestor holds already, and what is asked for out of order.
    fn refuse_what_is_held(&self, request: &Request, drafts: &[Draft], judge: &Judge<'_>) -> Result<()> {
        if request.ask.purpose == Purpose::Commit {
            return Ok(());
        }
        let mut new = Vec::new();
        for Draft { name, record, .. } in drafts {
            match answer(name, record, &request.asker, request.ask, judge) {
                Answer::AlreadyHeld(own) => return Err(already_held(name, own, request)),
                Answer::Free => new.push(name.clone()),
                Answer::Blocked if request.asker.own_grant(name, record).is_none() => new.push(name.clone()),
                _ => {}
            }
        }
        // What a command takes for itself it takes in whatever order its caller's locks require.
        if request.asker.owner.is(&request.asker.process) {
            return Ok(());
        }
        hierarchy::check(&new, &request.asker, |name| match self.dir()? {
            Some(dir) => match self.peek(&dir, name)? {
                Seen::Record(record) => Ok(record),
                Seen::Damaged(_) => Ok(Record::default()),
            },
            None => Ok(Record::default()),
        })
    }

    fn refuse_deadlock(&self, request: &Request, gate: &Gate<'_>, drafts: &[Draft], judge: &Judge<'_>) -> Result<()> {
        if request.deadlocks == Deadlocks::Risked {
            return Ok(());
        }
        let mut records: Vec<(Name, Record)> =
            drafts.iter().map(|draft| (draft.name.clone(), draft.record.clone())).collect();
        for name in self.names(gate.dir())? {
            if !request.names.contains(&name)
                && let Seen::Record(record) = self.peek(gate.dir(), &name)?
                && !record.waiters.is_empty()
            {
                records.push((name, record));
            }
        }
        if !is_waited_for(&request.asker.process, &records) {
            return Ok(());
        }
        Waits::new(&records, judge).circle_of(&request.asker.process).map_or(Ok(()), Err)
    }

    /// Sleeps until nobody seems to be in the way any more, or something is amiss that is dealt with behind the gate; or until a
    /// moment, and then comes back with those that are in the way.
    fn sleep(&self, request: &Request, sleeper: &mut Sleeper, until: Instant) -> Result<Vec<InTheWay>> {
        let look_behind_the_gate = Ok(Vec::new());
        loop {
            sleeper.listen_anew();
            let Some(dir) = self.dir()? else { return look_behind_the_gate };
            let judge = Judge::new(&self.disk, &dir)?;
            if judge.process(&request.asker.owner) == Liveness::Dead {
                return look_behind_the_gate;
            }
            let mut records = Vec::new();
            for name in &request.names {
                match self.peek(&dir, name)? {
                    Seen::Record(record) if record.place_of(&request.asker.process).is_some() => {
                        records.push((name, record));
                    }
                    _ => return look_behind_the_gate,
                }
            }
            let records = || records.iter().map(|(name, record)| (*name, record));
            let Some(blocker) = foremost(records(), request, &judge) else { return look_behind_the_gate };
            if Instant::now() >= until {
                return Ok(in_the_way(records(), request, &judge));
            }
            let others: &[&Identity] = match blocker {
                Blocker::Holder(Grant { owner: Some(owner), .. }) => &[owner],
                Blocker::Holder(Grant { owner: None, .. }) => &[],
                Blocker::Waiter(waiter) => &[&waiter.process, &waiter.owner],
            };
            // The pid of one that cannot be judged from here is somebody else's.
            let is_alive = |other: &&&Identity| judge.process(other) == Liveness::Alive;
            let known: Vec<&Identity> = others.iter().filter(is_alive).copied().collect();
            let (mut wake, mut watchfulness) = (until, Watchfulness::Heartbeat);
            if let Blocker::Holder(grant) = blocker
                && known.is_empty()
            {
                watchfulness = Watchfulness::Intervals;
                wake = wake.min(expiry(grant, epoch(self.disk.now())).unwrap_or(wake));
            }
            let awaited: Vec<&Identity> = known.into_iter().chain([&request.asker.owner]).collect();
            sleeper.sleep(&awaited, watchfulness, wake);
        }
    }
}

/// The one to sleep for: the nearest of those that stand in line before, or else a holder. One is enough; who else is in
/// the way shows when that one is gone.
fn foremost<'a>(
    records: impl Iterator<Item = (&'a Name, &'a Record)>,
    request: &Request,
    judge: &'a Judge<'a>,
) -> Option<Blocker<'a>> {
    let mut holder = None;
    for (name, record) in records {
        match blockers(name, record, &request.asker, request.ask, judge).next() {
            Some(waiter @ Blocker::Waiter(_)) => return Some(waiter),
            other => holder = holder.or(other),
        }
    }
    holder
}

fn expiry(grant: &Grant, now: f64) -> Option<Instant> {
    let left = Duration::try_from_secs_f64((grant.expires? - now).max(0.0)).ok()?;
    Instant::now().checked_add(left)
}

fn is_blocked(draft: &Draft, request: &Request, judge: &Judge<'_>) -> bool {
    matches!(answer(&draft.name, &draft.record, &request.asker, request.ask, judge), Answer::Blocked)
}

fn in_the_way<'a>(
    records: impl Iterator<Item = (&'a Name, &'a Record)>,
    request: &Request,
    judge: &Judge<'_>,
) -> Vec<InTheWay> {
    let mut all = Vec::new();
    for (name, record) in records {
        let blockers = blockers(name, record, &request.asker, request.ask, judge);
        let (holders, waiters): (Vec<_>, Vec<_>) = blockers.partition(|blocker| matches!(blocker, Blocker::Holder(_)));
        all.extend(holders.iter().chain(&waiters).map(|blocker| InTheWay::new(name, blocker, judge)));
    }
    all
}
