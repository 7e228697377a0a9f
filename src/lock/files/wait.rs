//! A request that waits: it is checked while holding the gate, queued, and sleeps until nothing
//! seems to block it.

use std::time::{Duration, Instant};

use super::events::{Happened, Waits};
use super::gate::Gate;
use super::load::{load, load_all};
use super::park::{Parker, PollMode};
use super::records::{self, Records, StoredRecord};
use super::root::LockRoot;
use super::slot::QueueSlot;
use crate::audit::Level;
use crate::error::{Error, Result};
use crate::fs::probe::Probe;
use crate::journal::Origin;
use crate::journal::event::LockStep;
use crate::lock::admission::{Admission, Now, Queued, admit, first_blocker, processes_to_watch};
use crate::lock::author::origin_of;
use crate::lock::deadlock::{find_cycle, may_close_cycle};
use crate::lock::describe::Blockers;
use crate::lock::edit::RecordEdit;
use crate::lock::hierarchy;
use crate::lock::identity::Identity;
use crate::lock::idle::{self, IdleWaiter, is_next_for_all, next_waiter};
use crate::lock::layout::STATE_LOCK;
use crate::lock::lifeline::Lifeline;
use crate::lock::liveness::{LivenessOracle, unix_seconds};
use crate::lock::process::ProcessTree;
use crate::lock::queue::Blocker;
use crate::lock::record::{Grant, Place, Purpose, Record, Waiter};
use crate::lock::refusal::{already_held, broken, owner_ended, timed_out};
use crate::lock::request::{Deadlocks, NOTICE_AFTER, Request};
use crate::name::Name;

/// The gate, and the records of a request that nothing blocks, without their dead. They need not be
/// stored.
pub(super) struct Grantable<'a> {
    pub gate: Gate<'a>,
    pub edits: Vec<RecordEdit>,
    /// How long it waited, and what for.
    pub waits: Waits,
}

/// A request until it is granted or refused.
pub(super) struct Wait<'a, 'r> {
    locks: &'a LockRoot,
    request: &'r Request,
    started: Instant,
    notice: Notice,
    /// When to search for a cycle again, once the wait is long.
    next_search: Instant,
    parker: Parker,
    /// The waiter that was next at the last check.
    watched: Option<IdleWaiter>,
    /// What blocked it when it joined the queues.
    waits: Waits,
    /// A search without the gate found a cycle.
    seems_deadlocked: bool,
}

/// The longest time between two searches for a cycle: each doubles the wait until then.
const LONGEST_BETWEEN_SEARCHES: Duration = Duration::from_secs(10);

/// The notice of what blocks a long wait.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Notice {
    Due,
    Given,
}

/// The answer to a request that was checked while holding the gate.
enum Checked {
    /// Nothing blocks it.
    Grantable,
    /// It is in the queues.
    Queued(Queued),
    /// It is blocked, and its time is up.
    Late(Blockers),
}

/// The reason why a sleeper woke.
enum Woken {
    /// Nothing seems to block it, or the gate must be taken for another reason.
    Recheck,
    /// Its time to sleep is up; what blocks it.
    Blocked(Blockers),
    /// An earlier waiter left its free lock untaken for too long.
    Idle(IdleWaiter),
}

impl<'a, 'r> Wait<'a, 'r> {
    pub(super) fn new(locks: &'a LockRoot, request: &'r Request) -> Self {
        let started = Instant::now();
        Self {
            locks,
            request,
            started,
            notice: Notice::Due,
            next_search: started + NOTICE_AFTER,
            parker: Parker::new(),
            watched: None,
            waits: Waits::default(),
            seems_deadlocked: false,
        }
    }

    /// Waits in the queues until nothing blocks the request.
    pub(super) fn until_grantable(
        mut self,
        slot: &mut Option<QueueSlot<'a>>,
    ) -> Result<Grantable<'a>> {
        let deadline = self.request.deadline;
        let mut idle = None;
        loop {
            let gate = Gate::enter(self.locks, deadline.at)?;
            if let Some(idle) = idle.take() {
                self.pass_over(&gate, &idle)?;
            }
            let mut edits = load_all(&gate, &self.request.names)?;
            let queued = match self.admit(&gate, &mut edits)? {
                Checked::Grantable => {
                    let waits = Waits { seconds: self.elapsed(), ..self.waits };
                    return Ok(Grantable { gate, edits, waits });
                }
                Checked::Queued(queued) => queued,
                Checked::Late(blockers) => {
                    self.record_timeout(&gate, &blockers);
                    drop(gate); // the error looks up users
                    return Err(timed_out(self.request, &blockers, self.started.elapsed()));
                }
            };
            match queued {
                Queued::Newly => {
                    self.parker.register();
                    QueueSlot::take(slot, self.locks, self.request, &gate, &mut edits)?;
                }
                Queued::Resumed => {
                    gate.commit(&edits, || self.author(), Vec::new(), &self.waits)?;
                }
                Queued::Already => {}
            }
            let dir = gate.leave();
            if queued == Queued::Newly {
                // While there is time.
                let records = Records { locks: self.locks, dir: &dir };
                super::tokens::reserve_ahead(records, deadline.at);
            }
            if queued == Queued::Newly {
                self.seems_deadlocked = self.seems_to_close_cycle()?;
            }
            if !self.seems_deadlocked {
                idle = self.rest()?;
            }
        }
    }

    /// Sleeps until the gate must be taken, and reports once what blocks a long wait. Returns the
    /// waiter to pass over, if that is why.
    ///
    /// A grant to an owner that waits for another lock may close a cycle, too. It stays closed, so
    /// a search that is repeated finds it.
    fn rest(&mut self) -> Result<Option<IdleWaiter>> {
        let deadline = self.request.deadline;
        loop {
            match self.sleep(self.next_search.min(deadline.at))? {
                Woken::Blocked(by) if !deadline.is_over() => {
                    if self.notice == Notice::Due {
                        self.notice = Notice::Given;
                        self.locks.notify(&by.to_string());
                    }
                    let pause = self.started.elapsed().min(LONGEST_BETWEEN_SEARCHES);
                    self.next_search = Instant::now() + pause;
                    self.seems_deadlocked = self.seems_to_close_cycle()?;
                    if self.seems_deadlocked {
                        return Ok(None);
                    }
                }
                Woken::Idle(waiter) => return Ok(Some(waiter)),
                Woken::Recheck | Woken::Blocked(_) => return Ok(None),
            }
        }
    }

    /// Checks the request while holding the gate.
    fn admit(&mut self, gate: &Gate<'_>, edits: &mut [RecordEdit]) -> Result<Checked> {
        let (request, probe) = (self.request, gate.records().probe()?);
        let now = Now { time: self.locks.disk.now(), left: request.deadline.left() };
        let admission = admit(edits, request, now, &probe);
        match &admission {
            Admission::OwnerEnded => return Err(owner_ended(request)),
            Admission::AlreadyHeld(name, own) => return Err(already_held(name, own, request)),
            Admission::Broken => return Err(broken(request)),
            Admission::Grantable | Admission::Queued(_) => {
                hierarchy::check(edits, &request.requester, |name| self.held(gate, name))?;
            }
        }
        let Admission::Queued(queued) = admission else { return Ok(Checked::Grantable) };
        if queued == Queued::Newly {
            self.waits = Waits::for_locks(edits, request, &probe);
        }
        if request.deadline.is_over() {
            let records = edits.iter().map(|edit| (&edit.name, &edit.record));
            return Ok(Checked::Late(Blockers::of(records, request, &probe)));
        }
        if std::mem::take(&mut self.seems_deadlocked)
            && let Some(deadlock) = self.cycle(gate.records(), &probe)?
        {
            return Err(deadlock);
        }
        Ok(Checked::Queued(queued))
    }

    /// The seconds since the request was made.
    fn elapsed(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    fn author(&self) -> Origin {
        origin_of(self.locks.disk.now(), self.request)
    }

    /// Appends to the journal that the locks with these blockers were not granted in time.
    fn record_timeout(&self, gate: &Gate<'_>, blockers: &Blockers) {
        let is_blocked = |name: &&Name| blockers.named.iter().any(|blocker| blocker.lock == **name);
        let blocked = self.request.names.iter().filter(is_blocked).map(|name| Happened {
            lock: name.clone(),
            step: LockStep::TimedOut,
            mode: Some(self.request.spec.mode),
            token: None,
            subject: None,
        });
        let waits = Waits { seconds: self.elapsed(), ..self.waits.clone() };
        gate.append(|| self.author(), blocked.collect(), &waits);
    }

    /// The record of another lock, for the order of locks.
    fn held(&self, gate: &Gate<'_>, name: &Name) -> Result<Record> {
        Ok(match gate.records().read(name)? {
            StoredRecord::Valid(record) => record,
            StoredRecord::Damaged(_) => Record::default(),
        })
    }

    /// Returns whether this request seems to wait for itself. The records are read without the
    /// gate: a closed cycle stays, so the request that closed it finds it; but they may show one
    /// that never was.
    fn seems_to_close_cycle(&self) -> Result<bool> {
        let Some(dir) = records::open(self.locks)? else { return Ok(false) };
        let records = Records { locks: self.locks, dir: &dir };
        Ok(self.cycle(records, &records.probe()?)?.is_some())
    }

    /// The cycle in which this request waits for itself, as an error.
    fn cycle(&self, records: Records<'_>, oracle: &dyn LivenessOracle) -> Result<Option<Error>> {
        if self.request.deadlocks == Deadlocks::Risked {
            return Ok(None);
        }
        let requester = &self.request.requester;
        let names = records.waited_for()?;
        let holders = records.valid_without_queues(&names)?;
        if !may_close_cycle(requester, &holders) {
            return Ok(None);
        }
        let all = records.valid_of(names)?;
        let tree = &mut ProcessTree::default();
        Ok(find_cycle(&requester.process, &all, oracle, tree).map(|cycle| cycle.error))
    }

    /// Marks a waiter as passed over that left its free lock untaken for too long, if that is still
    /// so.
    fn pass_over(&self, gate: &Gate<'_>, idle: &IdleWaiter) -> Result<()> {
        let (mut edit, probe) = (load(gate, &idle.lock)?, gate.records().probe()?);
        let position = edit.record.position_of(&self.request.requester.process);
        let waiter = edit.waiter(&idle.process).cloned();
        let (Some(position), Some(waiter)) = (position, waiter) else { return Ok(()) };
        if !is_next(gate.records(), &waiter, &probe)?
            || !idle::mark(&mut edit.record, position, &idle.process, &probe)
        {
            return Ok(());
        }
        gate.store(std::slice::from_ref(&edit))?;
        let text = "a waiter that did not take its lock was passed over";
        let entry = self.locks.log.entry(Level::Info, "acquire", text).with("lock", &idle.lock);
        let id = waiter.lifeline.as_ref().map_or("-", Lifeline::id);
        self.locks.log.record(entry.with("waiter", id).with("pid", std::process::id()));
        Ok(())
    }

    /// Sleeps until nothing seems to block the request, the gate must be taken, or `until`.
    fn sleep(&mut self, until: Instant) -> Result<Woken> {
        let (request, disk) = (self.request, &self.locks.disk);
        loop {
            self.parker.drain();
            let Some(dir) = records::open(self.locks)? else { return Ok(Woken::Recheck) };
            let records = Records { locks: self.locks, dir: &dir };
            let probe = records.probe()?;
            let queues = records.queues(&request.names)?; // before the records: [`Records::read`]
            let judged = records.raw_all(&request.names)?;
            let Some(decoded) = records.decode_all(&request.names, &judged, queues)? else {
                return Ok(Woken::Recheck);
            };
            let Some(blocker) = first_blocker(&decoded, request, &probe) else {
                return Ok(Woken::Recheck);
            };
            let now = Instant::now();
            let next = match blocker {
                Blocker::Waiter(_) => next_before(records, &decoded, request, &probe)?,
                Blocker::Holder(_) => None,
            };
            self.watched = IdleWaiter::seen(self.watched.take(), next, now);
            if let Some(idle) = self.watched.take_if(|idle| idle.until() <= now) {
                return Ok(Woken::Idle(idle));
            }
            if now >= until {
                let records = decoded.iter().map(|(name, record)| (name, record));
                return Ok(Woken::Blocked(Blockers::of(records, request, &probe)));
            }
            let known = processes_to_watch(&blocker, &probe);
            let grace = self.watched.as_ref().map_or(until, IdleWaiter::until);
            let (mut wake, mut mode) = (until.min(grace), PollMode::Heartbeat);
            if let Blocker::Holder(grant) = blocker
                && known.is_empty()
            {
                mode = PollMode::Intervals;
                wake = wake.min(expiry(grant, unix_seconds(disk.now())).unwrap_or(wake));
            }
            // A process that frees a lock wakes the waiters that it judges to be next. If one of
            // them then dies, and this process saw its death but not yet the change, no wakeup
            // would come: the judged records must still be in place. Where a living waiter comes
            // first, its end wakes this process, whatever the records say.
            let is_in_queue =
                matches!(&blocker, Blocker::Waiter(waiter) if waiter.ticket().is_some());
            if !is_in_queue && records.raw_all(&request.names)? != judged {
                continue;
            }
            let awaited: Vec<&Identity> =
                known.into_iter().chain([&request.requester.owner]).collect();
            self.parker.park(&awaited, mode, wake);
        }
    }
}

/// Returns whether a waiter that is next for one lock could acquire all locks it waits for. The
/// state is not free for a commit while a process holds its flock: that may be the commit of this
/// waiter, or one that needed no place.
fn is_next(records: Records<'_>, waiter: &Waiter, oracle: &dyn LivenessOracle) -> Result<bool> {
    if waiter.purpose == Purpose::Commit
        && matches!(records.locks.disk.probe(records.dir, STATE_LOCK), Ok(Probe::Locked))
    {
        return Ok(false);
    }
    if waiter.locks <= 1 {
        return Ok(true);
    }
    let records = match waiter.place {
        Place::File { .. } => records.with_waiters()?,
        Place::Record => records.valid()?,
    };
    Ok(is_next_for_all(&waiter.process, records.iter().map(|(_, record)| record), oracle))
}

/// The waiter before this request that could acquire its lock now.
fn next_before<'a>(
    records: Records<'_>,
    decoded: &'a [(Name, Record)],
    request: &Request,
    oracle: &'a dyn LivenessOracle,
) -> Result<Option<(&'a Name, &'a Waiter)>> {
    for (name, record) in decoded {
        let position = record.position_of(&request.requester.process).unwrap_or_default();
        if let Some(waiter) = next_waiter(record, position, oracle)
            && is_next(records, waiter, oracle)?
        {
            return Ok(Some((name, waiter)));
        }
    }
    Ok(None)
}

fn expiry(grant: &Grant, now: f64) -> Option<Instant> {
    let left = Duration::try_from_secs_f64((grant.expires? - now).max(0.0)).ok()?;
    Instant::now().checked_add(left)
}
