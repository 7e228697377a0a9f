//! Standing in line: a place in the queues, kept while one sleeps until nobody is in the way any more.

use std::time::{Duration, Instant};

use super::Locks;
use super::deadlock::circle;
use super::draft::Draft;
use super::gate::{Gate, Glimpse, Seen};
use super::hierarchy;
use super::liveness::{Judge, epoch};
use super::look::{Line, Verdict, ask, ends_to_await, look};
use super::process::{Family, Identity};
use super::queue::{Blocker, blockers, leave};
use super::record::{Grant, Record};
use super::request::{Deadlocks, LEAVING, Request, SILENCE};
use super::wait::{Sleeper, Watchfulness};
use super::words::{InTheWay, already_held, owner_ended, sentence, timed_out};
use crate::error::Result;
use crate::fs::Dir;
use crate::name::Name;

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
            let go = || -> Result<()> {
                let gate = self.locks.gate(Instant::now() + LEAVING)?;
                let mut drafts = gate.load_all(&self.names)?;
                for draft in &mut drafts {
                    leave(&mut draft.record, &self.process);
                }
                gate.store(&drafts)
            };
            let _ = go(); // then this process's death says it
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
        let (mut told, mut sleeper) = (false, Sleeper::awake());
        loop {
            let gate = self.gate(request.deadline.at)?;
            let mut drafts = gate.load_all(&request.names)?;
            let judge = gate.judge()?;
            let now = (self.disk.now(), request.deadline.at.saturating_duration_since(Instant::now()));
            let verdict = ask(&mut drafts, request, now, &judge);
            match &verdict {
                Verdict::OwnerEnded => return Err(owner_ended(&request.asker.owner, &request.names)),
                Verdict::AlreadyHeld(name, own) => return Err(already_held(name, own, request)),
                Verdict::Free | Verdict::Waits(_) => self.refuse_out_of_order(request, &drafts)?,
            }
            let joins = match verdict {
                Verdict::Waits(line) => line == Line::Joined,
                _ => return Ok((gate, drafts)),
            };
            if request.deadline.is_over() {
                let drafts = drafts.iter().map(|draft| (&draft.name, &draft.record));
                return Err(timed_out(request, &in_the_way(drafts, request, &judge), started.elapsed()));
            }
            // Looked for again when the wait turns out to be long: the others may have moved on into a circle.
            if joins || told {
                self.refuse_deadlock(request, &gate, &drafts, &judge)?;
            }
            if joins {
                sleeper.attend();
                gate.store(&drafts)?;
                place.taken = true;
            }
            let dir = gate.leave();
            if joins {
                self.reserve_ahead(&dir, request.deadline.at); // while there is time
            }
            let until = if told { request.deadline.at } else { (started + SILENCE).min(request.deadline.at) };
            let still_in_the_way = self.sleep(request, &mut sleeper, until)?;
            if !told && !still_in_the_way.is_empty() && !request.deadline.is_over() {
                told = true;
                self.tell(&sentence(&still_in_the_way));
            }
        }
    }

    /// Refuses what is asked for out of order.
    fn refuse_out_of_order(&self, request: &Request, drafts: &[Draft]) -> Result<()> {
        hierarchy::check(drafts, &request.asker, |name| match self.dir()? {
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
        circle(&request.asker.process, &records, judge, &mut Family::default()).map_or(Ok(()), Err)
    }

    fn glimpses(&self, dir: &Dir, names: &[Name]) -> Result<Vec<Glimpse>> {
        names.iter().map(|name| self.glimpse(dir, name)).collect()
    }

    /// What is on record for each of these; `None` if one of them must be dealt with behind the gate.
    fn all_made_out(&self, dir: &Dir, names: &[Name], glimpses: &[Glimpse]) -> Result<Option<Vec<(Name, Record)>>> {
        let mut records = Vec::new();
        for (name, glimpse) in names.iter().zip(glimpses) {
            match self.made_out(dir, name, glimpse)? {
                Seen::Record(record) => records.push((name.clone(), record)),
                Seen::Damaged(_) => return Ok(None),
            }
        }
        Ok(Some(records))
    }

    /// Sleeps until nobody seems to be in the way any more, or something is amiss that is dealt with behind the gate; or until a
    /// moment, and then comes back with those that are in the way.
    fn sleep(&self, request: &Request, sleeper: &mut Sleeper, until: Instant) -> Result<Vec<InTheWay>> {
        let look_behind_the_gate = Ok(Vec::new());
        let (mut glimpses, mut records) = (Vec::new(), Vec::new());
        loop {
            sleeper.listen_anew();
            let Some(dir) = self.dir()? else { return look_behind_the_gate };
            let judge = Judge::new(&self.disk, &dir)?;
            let now = self.glimpses(&dir, &request.names)?;
            if now != glimpses {
                let made_out = self.all_made_out(&dir, &request.names, &now)?;
                let Some(made_out) = made_out else { return look_behind_the_gate };
                (glimpses, records) = (now, made_out);
            }
            let Some(blocker) = look(&records, request, &judge) else { return look_behind_the_gate };
            if Instant::now() >= until {
                let records = records.iter().map(|(name, record)| (name, record));
                return Ok(in_the_way(records, request, &judge));
            }
            let known = ends_to_await(&blocker, &judge);
            let (mut wake, mut watchfulness) = (until, Watchfulness::Heartbeat);
            if let Blocker::Holder(grant) = blocker
                && known.is_empty()
            {
                watchfulness = Watchfulness::Intervals;
                wake = wake.min(expiry(grant, epoch(self.disk.now())).unwrap_or(wake));
            }
            // Who frees a lock wakes those that it judges to be next. If one of them died after that, and we saw its death but not
            // yet the change, nobody would wake us: what was judged must still be on record.
            if self.glimpses(&dir, &request.names)? != glimpses {
                continue;
            }
            let awaited: Vec<&Identity> = known.into_iter().chain([&request.asker.owner]).collect();
            sleeper.sleep(&awaited, watchfulness, wake);
        }
    }
}

fn expiry(grant: &Grant, now: f64) -> Option<Instant> {
    let left = Duration::try_from_secs_f64((grant.expires? - now).max(0.0)).ok()?;
    Instant::now().checked_add(left)
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
