//! A place in the queues of some locks, kept while the process sleeps until nothing blocks it.

use std::fs::File;
use std::time::{Duration, Instant};

use super::deadlock::circle;
use super::edit::RecordEdit;
use super::gate::{Gate, RawRecord, StoredRecord};
use super::hierarchy;
use super::idle::{self, IdleWaiter, is_next_for_all, next_waiter};
use super::lifeline::Lifeline;
use super::liveness::{LivenessProbe, unix_seconds};
use super::look::{Admission, Queued, admit, first_blocker, processes_to_watch};
use super::process::{Identity, ProcessTree};
use super::queue::{Blocker, blockers, dequeue};
use super::record::{Grant, Purpose, Record, Waiter};
use super::request::{CLEANUP_TIMEOUT, Deadlocks, NOTICE_AFTER, Request};
use super::wait::{Parker, PollMode};
use super::words::{BlockerInfo, already_held, broken, describe_blockers, owner_ended, timed_out};
use super::{Locks, STATE_LOCK};
use crate::audit::Level;
use crate::error::Result;
use crate::fs::Dir;
use crate::fs::probe::Probe;
use crate::name::Name;

/// A place in the queues of some locks; left when dropped.
#[derive(Debug)]
pub struct QueueSlot<'a> {
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
    Blocked(Vec<BlockerInfo>),
    /// An earlier waiter left its free lock untaken for too long.
    IdleWaiter(IdleWaiter),
}

impl<'a> QueueSlot<'a> {
    /// No place yet.
    pub(super) fn none(locks: &'a Locks, request: &Request) -> Self {
        Self {
            locks,
            names: request.names.clone(),
            process: request.requester.process.clone(),
            taken: false,
            lifeline: None,
        }
    }

    /// Stores the records in which this process is queued, then creates its lifeline. In this order
    /// a process killed in between leaves no file that no record names. Without the file, if
    /// descriptors or inodes have run out, other pid namespaces wait for this process until its
    /// deadline.
    fn take(&mut self, gate: &Gate<'_>, edits: &mut [RecordEdit]) -> Result<()> {
        let process = self.process.clone();
        let name = |edits: &mut [RecordEdit], lifeline: Option<&Lifeline>| {
            for waiter in edits.iter_mut().filter_map(|edit| edit.record.waiter_mut(&process)) {
                waiter.lifeline = lifeline.cloned();
            }
        };
        let lifeline = Lifeline::random()?;
        name(edits, Some(&lifeline));
        gate.store(edits)?;
        self.taken = true;
        self.lifeline = lifeline.create(&self.locks.disk, gate.dir()).ok();
        if self.lifeline.is_none() {
            name(edits, None);
            gate.store(edits)?;
            let _ = self.locks.disk.unlink(gate.dir(), lifeline.as_str());
        }
        Ok(())
    }

    /// Disarms the drop: the place is given up by other means.
    pub(super) fn disarm(&mut self) {
        self.taken = false;
    }
}

impl Drop for QueueSlot<'_> {
    fn drop(&mut self) {
        if self.taken {
            let go = || -> Result<()> {
                let gate = self.locks.gate(Instant::now() + CLEANUP_TIMEOUT)?;
                let mut edits = gate.load_all(&self.names)?;
                for edit in &mut edits {
                    dequeue(&mut edit.record, &self.process);
                }
                gate.store(&edits)
            };
            let _ = go(); // on failure this process's death ends its place
        }
    }
}

impl Gate<'_> {
    pub(super) fn load_all(&self, names: &[Name]) -> Result<Vec<RecordEdit>> {
        names.iter().map(|name| self.load(name)).collect()
    }
}

impl Locks {
    /// Waits in the queues until nothing blocks the request; returns the gate and the records as
    /// loaded under it, without their dead. The caller need not store them.
    pub(super) fn wait_until_grantable<'a>(
        &'a self,
        request: &Request,
        slot: &mut QueueSlot<'a>,
    ) -> Result<(Gate<'a>, Vec<RecordEdit>)> {
        let started = Instant::now();
        let (mut told, mut parker) = (false, Parker::awake());
        let (mut idle, mut watched) = (None, None);
        loop {
            let gate = self.gate(request.deadline.at)?;
            if let Some(idle) = idle.take() {
                self.pass_over(&gate, request, &idle)?;
            }
            let mut edits = gate.load_all(&request.names)?;
            let judge = gate.judge()?;
            let now =
                (self.disk.now(), request.deadline.at.saturating_duration_since(Instant::now()));
            let admission = admit(&mut edits, request, now, &judge);
            match &admission {
                Admission::OwnerEnded => {
                    return Err(owner_ended(&request.requester.owner, &request.names));
                }
                Admission::AlreadyHeld(name, own) => return Err(already_held(name, own, request)),
                Admission::Broken => return Err(broken(request)),
                Admission::Grantable | Admission::WaitGraph(_) => {
                    self.refuse_out_of_order(request, &edits)?
                }
            }
            let Admission::WaitGraph(line) = admission else { return Ok((gate, edits)) };
            let joins = line == Queued::Newly;
            if request.deadline.is_over() {
                let edits = edits.iter().map(|edit| (&edit.name, &edit.record));
                return Err(timed_out(
                    request,
                    &in_the_way(edits, request, &judge),
                    started.elapsed(),
                ));
            }
            // Checked again when the wait turns out to be long: the other waiters may have closed a
            // cycle since.
            if joins || told {
                self.refuse_deadlock(request, &gate, &edits, &judge)?;
            }
            match line {
                Queued::Newly => {
                    parker.register();
                    slot.take(&gate, &mut edits)?;
                }
                Queued::Resumed => gate.store(&edits)?,
                Queued::Already => {}
            }
            let dir = gate.leave();
            if joins {
                self.reserve_ahead(&dir, request.deadline.at); // while there is time
            }
            let until = if told {
                request.deadline.at
            } else {
                (started + NOTICE_AFTER).min(request.deadline.at)
            };
            match self.sleep(request, &mut parker, &mut watched, until)? {
                Woken::Blocked(by) if !told && !request.deadline.is_over() => {
                    told = true;
                    self.tell(&describe_blockers(&by));
                }
                Woken::IdleWaiter(waiter) => idle = Some(waiter),
                Woken::Look | Woken::Blocked(_) => {}
            }
        }
    }

    /// Marks a waiter as passed over that left its free lock untaken for too long, if that is still
    /// so.
    fn pass_over(&self, gate: &Gate<'_>, request: &Request, idle: &IdleWaiter) -> Result<()> {
        let (mut edit, judge) = (gate.load(&idle.lock)?, gate.judge()?);
        let Some(place) = edit.record.position_of(&request.requester.process) else {
            return Ok(());
        };
        let waiter =
            edit.record.waiters.iter().find(|waiter| waiter.process.is(&idle.process)).cloned();
        let Some(waiter) = waiter else { return Ok(()) };
        if !self.is_next(gate.dir(), &waiter, &judge)?
            || !idle::mark(&mut edit.record, place, &idle.process, &judge)
        {
            return Ok(());
        }
        gate.store(std::slice::from_ref(&edit))?;
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
    fn is_next(&self, dir: &Dir, waiter: &Waiter, judge: &LivenessProbe<'_>) -> Result<bool> {
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
            match self.read_record(dir, &name)? {
                StoredRecord::Record(record) if record.position_of(&waiter.process).is_some() => {
                    records.push(record)
                }
                _ => {}
            }
        }
        Ok(is_next_for_all(&waiter.process, &records, judge))
    }

    /// The waiter before this request that could acquire its lock now.
    fn next_before<'a>(
        &self,
        (dir, records): (&Dir, &'a [(Name, Record)]),
        request: &Request,
        judge: &'a LivenessProbe<'_>,
    ) -> Result<Option<(&'a Name, &'a Waiter)>> {
        for (name, record) in records {
            let place = record.position_of(&request.requester.process).unwrap_or_default();
            if let Some(waiter) = next_waiter(record, place, judge)
                && self.is_next(dir, waiter, judge)?
            {
                return Ok(Some((name, waiter)));
            }
        }
        Ok(None)
    }

    /// Refuses a request that is out of order.
    fn refuse_out_of_order(&self, request: &Request, edits: &[RecordEdit]) -> Result<()> {
        hierarchy::check(edits, &request.requester, |name| match self.dir()? {
            Some(dir) => match self.read_record(&dir, name)? {
                StoredRecord::Record(record) => Ok(record),
                StoredRecord::Damaged(_) => Ok(Record::default()),
            },
            None => Ok(Record::default()),
        })
    }

    fn refuse_deadlock(
        &self,
        request: &Request,
        gate: &Gate<'_>,
        edits: &[RecordEdit],
        judge: &LivenessProbe<'_>,
    ) -> Result<()> {
        if request.deadlocks == Deadlocks::Risked {
            return Ok(());
        }
        let mut records: Vec<(Name, Record)> =
            edits.iter().map(|edit| (edit.name.clone(), edit.record.clone())).collect();
        for name in self.names(gate.dir())? {
            if !request.names.contains(&name)
                && let StoredRecord::Record(record) = self.read_record(gate.dir(), &name)?
                && !record.waiters.is_empty()
            {
                records.push((name, record));
            }
        }
        circle(&request.requester.process, &records, judge, &mut ProcessTree::default())
            .map_or(Ok(()), Err)
    }

    fn raw_records(&self, dir: &Dir, names: &[Name]) -> Result<Vec<RawRecord>> {
        names.iter().map(|name| self.raw_record(dir, name)).collect()
    }

    /// The record of each of these locks; `None` if one of them must be handled while holding the
    /// gate.
    fn decode_all(
        &self,
        dir: &Dir,
        names: &[Name],
        raw_records: &[RawRecord],
    ) -> Result<Option<Vec<(Name, Record)>>> {
        let mut records = Vec::new();
        for (name, raw_record) in names.iter().zip(raw_records) {
            match self.decode(dir, name, raw_record)? {
                StoredRecord::Record(record) => records.push((name.clone(), record)),
                StoredRecord::Damaged(_) => return Ok(None),
            }
        }
        Ok(Some(records))
    }

    /// Sleeps until nothing seems to block the request, the gate must be taken, or `until`.
    /// `watched`: the waiter that was next at this process's last check.
    fn sleep(
        &self,
        request: &Request,
        parker: &mut Parker,
        watched: &mut Option<IdleWaiter>,
        until: Instant,
    ) -> Result<Woken> {
        let (mut raw_records, mut records) = (Vec::new(), Vec::new());
        loop {
            parker.drain();
            let Some(dir) = self.dir()? else { return Ok(Woken::Look) };
            let judge = LivenessProbe::new(&self.disk, &dir)?;
            let now = self.raw_records(&dir, &request.names)?;
            if now != raw_records {
                let decode = self.decode_all(&dir, &request.names, &now)?;
                let Some(decode) = decode else { return Ok(Woken::Look) };
                (raw_records, records) = (now, decode);
            }
            let Some(blocker) = first_blocker(&records, request, &judge) else {
                return Ok(Woken::Look);
            };
            let now = Instant::now();
            let next = match blocker {
                Blocker::Waiter(_) => self.next_before((&dir, &records), request, &judge)?,
                Blocker::Holder(_) => None,
            };
            *watched = IdleWaiter::seen(watched.take(), next, now);
            if let Some(idle) = watched.take_if(|idle| idle.until() <= now) {
                return Ok(Woken::IdleWaiter(idle));
            }
            if now >= until {
                let records = records.iter().map(|(name, record)| (name, record));
                return Ok(Woken::Blocked(in_the_way(records, request, &judge)));
            }
            let known = processes_to_watch(&blocker, &judge);
            let grace = watched.as_ref().map_or(until, IdleWaiter::until);
            let (mut wake, mut poll_mode) = (until.min(grace), PollMode::Heartbeat);
            if let Blocker::Holder(grant) = blocker
                && known.is_empty()
            {
                poll_mode = PollMode::Intervals;
                wake = wake.min(expiry(grant, unix_seconds(self.disk.now())).unwrap_or(wake));
            }
            // A process that frees a lock wakes the waiters that it judges to be next. If one of
            // them then dies, and this process saw its death but not yet the change, no wakeup
            // would come: the judged records must still be in place.
            if self.raw_records(&dir, &request.names)? != raw_records {
                continue;
            }
            let awaited: Vec<&Identity> =
                known.into_iter().chain([&request.requester.owner]).collect();
            parker.sleep(&awaited, poll_mode, wake);
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
    judge: &LivenessProbe<'_>,
) -> Vec<BlockerInfo> {
    let mut all = Vec::new();
    for (name, record) in records {
        let blockers = blockers(name, record, &request.requester, request.spec, judge);
        let (holders, waiters): (Vec<_>, Vec<_>) =
            blockers.partition(|blocker| matches!(blocker, Blocker::Holder(_)));
        all.extend(
            holders.iter().chain(&waiters).map(|blocker| BlockerInfo::new(name, blocker, judge)),
        );
    }
    all
}
