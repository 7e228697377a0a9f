//! A place in the queues of some locks, kept while the process sleeps until nothing blocks it.

use std::fs::File;
use std::time::{Duration, Instant};

use super::deadlock::circle;
use super::draft::Draft;
use super::gate::{Gate, Glimpse, Seen};
use super::hierarchy;
use super::idle::{self, Idle, is_next_everywhere, next_up};
use super::lifeline::Lifeline;
use super::liveness::{Judge, epoch};
use super::look::{Line, Verdict, ask, ends_to_await, look};
use super::process::{Family, Identity};
use super::queue::{Blocker, blockers, leave};
use super::record::{Grant, Purpose, Record, Waiter};
use super::request::{Deadlocks, LEAVING, Request, SILENCE};
use super::wait::{Sleeper, Watchfulness};
use super::words::{InTheWay, already_held, broken, owner_ended, sentence, timed_out};
use super::{Locks, STATE_LOCK};
use crate::audit::Level;
use crate::error::Result;
use crate::fs::Dir;
use crate::fs::probe::Probe;
use crate::name::Name;

/// A place in the queues of some locks; left when dropped.
#[derive(Debug)]
pub struct Place<'a> {
    locks: &'a Locks,
    names: Vec<Name>,
    process: Identity,
    taken: bool,
    /// Locked while this process waits; closing it ends the last trace of the wait.
    lifeline: Option<File>,
}

/// The reason why a sleeper woke.
enum Woken {
    /// Nothing seems to block it, or the gate must be taken for another reason.
    Look,
    /// Its time to sleep is up; what blocks it.
    Blocked(Vec<InTheWay>),
    /// An earlier waiter left its free lock untaken for too long.
    Idle(Idle),
}

impl<'a> Place<'a> {
    /// No place yet.
    pub(super) fn none(locks: &'a Locks, request: &Request) -> Self {
        Self {
            locks,
            names: request.names.clone(),
            process: request.asker.process.clone(),
            taken: false,
            lifeline: None,
        }
    }

    /// Stores the records in which this process is queued, then creates its lifeline. In this order
    /// a process killed in between leaves no file that no record names. Without the file, if
    /// descriptors or inodes have run out, other pid namespaces wait for this process until its
    /// deadline.
    fn take(&mut self, gate: &Gate<'_>, drafts: &mut [Draft]) -> Result<()> {
        let process = self.process.clone();
        let name = |drafts: &mut [Draft], lifeline: Option<&Lifeline>| {
            for waiter in drafts.iter_mut().filter_map(|draft| draft.record.waiter_mut(&process)) {
                waiter.lifeline = lifeline.cloned();
            }
        };
        let lifeline = Lifeline::random()?;
        name(drafts, Some(&lifeline));
        gate.store(drafts)?;
        self.taken = true;
        self.lifeline = lifeline.create(&self.locks.disk, gate.dir()).ok();
        if self.lifeline.is_none() {
            name(drafts, None);
            gate.store(drafts)?;
            let _ = self.locks.disk.unlink(gate.dir(), lifeline.as_str());
        }
        Ok(())
    }

    /// Disarms the drop: the place is given up by other means.
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
            let _ = go(); // on failure this process's death ends its place
        }
    }
}

impl Gate<'_> {
    pub(super) fn load_all(&self, names: &[Name]) -> Result<Vec<Draft>> {
        names.iter().map(|name| self.load(name)).collect()
    }
}

impl Locks {
    /// Waits in the queues until nothing blocks the request; returns the gate and the records as
    /// loaded under it, without their dead. The caller need not store them.
    pub(super) fn when_free<'a>(
        &'a self,
        request: &Request,
        place: &mut Place<'a>,
    ) -> Result<(Gate<'a>, Vec<Draft>)> {
        let started = Instant::now();
        let (mut told, mut sleeper) = (false, Sleeper::awake());
        let (mut idle, mut watched) = (None, None);
        loop {
            let gate = self.gate(request.deadline.at)?;
            if let Some(idle) = idle.take() {
                self.pass_over(&gate, request, &idle)?;
            }
            let mut drafts = gate.load_all(&request.names)?;
            let judge = gate.judge()?;
            let now =
                (self.disk.now(), request.deadline.at.saturating_duration_since(Instant::now()));
            let verdict = ask(&mut drafts, request, now, &judge);
            match &verdict {
                Verdict::OwnerEnded => {
                    return Err(owner_ended(&request.asker.owner, &request.names));
                }
                Verdict::AlreadyHeld(name, own) => return Err(already_held(name, own, request)),
                Verdict::Broken => return Err(broken(request)),
                Verdict::Free | Verdict::Waits(_) => self.refuse_out_of_order(request, &drafts)?,
            }
            let Verdict::Waits(line) = verdict else { return Ok((gate, drafts)) };
            let joins = line == Line::Joined;
            if request.deadline.is_over() {
                let drafts = drafts.iter().map(|draft| (&draft.name, &draft.record));
                return Err(timed_out(
                    request,
                    &in_the_way(drafts, request, &judge),
                    started.elapsed(),
                ));
            }
            // Checked again when the wait turns out to be long: the other waiters may have closed a
            // cycle since.
            if joins || told {
                self.refuse_deadlock(request, &gate, &drafts, &judge)?;
            }
            match line {
                Line::Joined => {
                    sleeper.attend();
                    place.take(&gate, &mut drafts)?;
                }
                Line::Resumed => gate.store(&drafts)?,
                Line::Kept => {}
            }
            let dir = gate.leave();
            if joins {
                self.reserve_ahead(&dir, request.deadline.at); // while there is time
            }
            let until = if told {
                request.deadline.at
            } else {
                (started + SILENCE).min(request.deadline.at)
            };
            match self.sleep(request, &mut sleeper, &mut watched, until)? {
                Woken::Blocked(by) if !told && !request.deadline.is_over() => {
                    told = true;
                    self.tell(&sentence(&by));
                }
                Woken::Idle(waiter) => idle = Some(waiter),
                Woken::Look | Woken::Blocked(_) => {}
            }
        }
    }

    /// Marks a waiter as passed over that left its free lock untaken for too long, if that is still
    /// so.
    fn pass_over(&self, gate: &Gate<'_>, request: &Request, idle: &Idle) -> Result<()> {
        let (mut draft, judge) = (gate.load(&idle.lock)?, gate.judge()?);
        let Some(place) = draft.record.place_of(&request.asker.process) else { return Ok(()) };
        let waiter =
            draft.record.waiters.iter().find(|waiter| waiter.process.is(&idle.process)).cloned();
        let Some(waiter) = waiter else { return Ok(()) };
        if !self.is_next(gate.dir(), &waiter, &judge)?
            || !idle::mark(&mut draft.record, place, &idle.process, &judge)
        {
            return Ok(());
        }
        gate.store(std::slice::from_ref(&draft))?;
        let entry = self.entry(
            Level::Info,
            "acquire",
            "a waiter that did not take its lock was passed over",
        );
        let entry = entry
            .with("lock", &idle.lock)
            .with("waiter", waiter.lifeline.as_ref().map_or("-", Lifeline::id));
        self.audit
            .record(&entry.with("pid", std::process::id()).with("root", self.directory.display()));
        Ok(())
    }

    /// Whether a waiter that is next for one lock could acquire all locks it waits for. The state
    /// is not free for a commit while a process holds its flock: that may be the commit of this
    /// waiter, or one that needed no place.
    fn is_next(&self, dir: &Dir, waiter: &Waiter, judge: &Judge<'_>) -> Result<bool> {
        if waiter.purpose == Purpose::Commit
            && matches!(self.disk.probe(dir, STATE_LOCK), Ok(Probe::Locked))
        {
            return Ok(false);
        }
        if waiter.locks <= 1 {
            return Ok(true);
        }
        let mut records = Vec::new();
        for name in self.names(dir)? {
            match self.peek(dir, &name)? {
                Seen::Record(record) if record.place_of(&waiter.process).is_some() => {
                    records.push(record)
                }
                _ => {}
            }
        }
        Ok(is_next_everywhere(&waiter.process, &records, judge))
    }

    /// The waiter before this request that could acquire its lock now.
    fn next_before<'a>(
        &self,
        (dir, records): (&Dir, &'a [(Name, Record)]),
        request: &Request,
        judge: &'a Judge<'_>,
    ) -> Result<Option<(&'a Name, &'a Waiter)>> {
        for (name, record) in records {
            let place = record.place_of(&request.asker.process).unwrap_or_default();
            if let Some(waiter) = next_up(record, place, judge)
                && self.is_next(dir, waiter, judge)?
            {
                return Ok(Some((name, waiter)));
            }
        }
        Ok(None)
    }

    /// Refuses a request that is out of order.
    fn refuse_out_of_order(&self, request: &Request, drafts: &[Draft]) -> Result<()> {
        hierarchy::check(drafts, &request.asker, |name| match self.dir()? {
            Some(dir) => match self.peek(&dir, name)? {
                Seen::Record(record) => Ok(record),
                Seen::Damaged(_) => Ok(Record::default()),
            },
            None => Ok(Record::default()),
        })
    }

    fn refuse_deadlock(
        &self,
        request: &Request,
        gate: &Gate<'_>,
        drafts: &[Draft],
        judge: &Judge<'_>,
    ) -> Result<()> {
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

    /// The record of each of these locks; `None` if one of them must be handled while holding the
    /// gate.
    fn all_made_out(
        &self,
        dir: &Dir,
        names: &[Name],
        glimpses: &[Glimpse],
    ) -> Result<Option<Vec<(Name, Record)>>> {
        let mut records = Vec::new();
        for (name, glimpse) in names.iter().zip(glimpses) {
            match self.made_out(dir, name, glimpse)? {
                Seen::Record(record) => records.push((name.clone(), record)),
                Seen::Damaged(_) => return Ok(None),
            }
        }
        Ok(Some(records))
    }

    /// Sleeps until nothing seems to block the request, the gate must be taken, or `until`.
    /// `watched`: the waiter that was next at this process's last check.
    fn sleep(
        &self,
        request: &Request,
        sleeper: &mut Sleeper,
        watched: &mut Option<Idle>,
        until: Instant,
    ) -> Result<Woken> {
        let (mut glimpses, mut records) = (Vec::new(), Vec::new());
        loop {
            sleeper.listen_anew();
            let Some(dir) = self.dir()? else { return Ok(Woken::Look) };
            let judge = Judge::new(&self.disk, &dir)?;
            let now = self.glimpses(&dir, &request.names)?;
            if now != glimpses {
                let made_out = self.all_made_out(&dir, &request.names, &now)?;
                let Some(made_out) = made_out else { return Ok(Woken::Look) };
                (glimpses, records) = (now, made_out);
            }
            let Some(blocker) = look(&records, request, &judge) else { return Ok(Woken::Look) };
            let now = Instant::now();
            let next = match blocker {
                Blocker::Waiter(_) => self.next_before((&dir, &records), request, &judge)?,
                Blocker::Holder(_) => None,
            };
            *watched = Idle::seen(watched.take(), next, now);
            if let Some(idle) = watched.take_if(|idle| idle.until() <= now) {
                return Ok(Woken::Idle(idle));
            }
            if now >= until {
                let records = records.iter().map(|(name, record)| (name, record));
                return Ok(Woken::Blocked(in_the_way(records, request, &judge)));
            }
            let known = ends_to_await(&blocker, &judge);
            let grace = watched.as_ref().map_or(until, Idle::until);
            let (mut wake, mut watchfulness) = (until.min(grace), Watchfulness::Heartbeat);
            if let Blocker::Holder(grant) = blocker
                && known.is_empty()
            {
                watchfulness = Watchfulness::Intervals;
                wake = wake.min(expiry(grant, epoch(self.disk.now())).unwrap_or(wake));
            }
            // A process that frees a lock wakes the waiters that it judges to be next. If one of
            // them then dies, and this process saw its death but not yet the change, no wakeup
            // would come: the judged records must still be in place.
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
        let (holders, waiters): (Vec<_>, Vec<_>) =
            blockers.partition(|blocker| matches!(blocker, Blocker::Holder(_)));
        all.extend(
            holders.iter().chain(&waiters).map(|blocker| InTheWay::new(name, blocker, judge)),
        );
    }
    all
}
