//! A commit's turn: `state` is a lock like any other, but a commit that nothing blocks needs no
//! record.
//!
//! It takes the flock on `state.lock` and *then* reads the record of `state`. If the record has a
//! holder that is not an ancestor, or another waiter, the commit releases the flock and queues like
//! any request; it keeps its place in the queue until it has committed. A grant of an ancestor does
//! not block it, and lets it pass the queue too, but it takes the flock all the same.

use std::time::Instant;

use super::flock::{FileLock, ShortLock, flock};
use super::flock_holder::FlockHolder;
use super::gate::Gate;
use super::load::load;
use super::records::{self, Records, StoredRecord};
use super::root::LockRoot;
use super::slot::QueueSlot;
use super::wait::{Grantable, Wait};
use crate::error::Result;
use crate::fs::Dir;
use crate::journal::event::Blocker;
use crate::lock::author::origin_of;
use crate::lock::fence::Fence;
use crate::lock::process::{command_of, owner};
use crate::lock::queue::blockers;
use crate::lock::request::{Deadline, Request, RequestSpec, STATE};

use crate::name::Name;

/// A commit's turn: nothing else commits, and no script holds `state`, until it is dropped.
#[derive(Debug)]
pub struct CommitTurn<'a> {
    /// The flock of the state.
    pub lock: FileLock,
    /// The place in the queue of `state`, if the commit had to wait. It is given up after the
    /// flock, so that the next waiter finds the flock free.
    pub slot: Option<QueueSlot<'a>>,
    /// What the commit waited for, as far as it is known.
    pub blockers: Vec<Blocker>,
}

/// Waits for a commit's turn, in `dir` (`.locks` in `root`). `None` if the flock's file was removed
/// during the wait.
pub(in crate::lock) fn commit_turn<'a>(
    locks: &'a LockRoot,
    root: &Dir,
    dir: &Dir,
    deadline: Instant,
) -> Result<Option<CommitTurn<'a>>> {
    let name = Name::parse("lock", STATE)?;
    let (mut slot, mut blockers_met) = (None, Vec::new());
    loop {
        let Some(lock) = flock(locks, root, dir, ShortLock::State, deadline)? else {
            return Ok(None);
        };
        blockers_met.extend(lock.waited_for().map(FlockHolder::to_blocker));
        // The usual case needs nothing else: `state` has no holder and no waiter.
        let records = Records { locks, dir };
        let record = match records.read(&name)? {
            StoredRecord::Valid(record) if record.is_empty() => {
                return Ok(Some(CommitTurn { lock, slot, blockers: blockers_met }));
            }
            StoredRecord::Valid(record) => Some(record),
            StoredRecord::Damaged(_) => None, // handled while holding the gate
        };
        let request = request(locks, &name, deadline)?;
        if let Some(record) = &record {
            let probe = records.probe()?;
            if blockers(&name, record, &request.requester, request.spec, &probe).next().is_none() {
                return Ok(Some(CommitTurn { lock, slot, blockers: blockers_met }));
            }
        }
        drop(lock);
        let granted = Wait::new(locks, &request).until_grantable(&mut slot)?;
        let Grantable { gate, edits, waits } = granted;
        // Its passed-over mark is cleared before it waits for the flock, so no later waiter goes
        // first.
        let author = || origin_of(locks.disk.now(), &request);
        gate.commit(&edits, author, Vec::new(), &waits)?;
        blockers_met.extend(waits.into_blockers());
    }
}

fn request(locks: &LockRoot, name: &Name, at: Instant) -> Result<Request> {
    let requester = owner::self_and_ancestors(None, &locks.env)?;
    let deadline = Deadline::at(at);
    let command = command_of(requester.process.pid);
    let request = Request::new(vec![name.clone()], RequestSpec::commit(), requester, deadline);
    Ok(Request { command, ..request })
}

/// Refuses a writer unless all of these grants are on record.
pub(in crate::lock) fn check_fences(locks: &LockRoot, fences: &[Fence]) -> Result<()> {
    for fence in fences {
        let record = match records::open(locks)? {
            Some(dir) => Some(Records { locks, dir: &dir }.read(&fence.name)?),
            None => None,
        };
        fence.check(match &record {
            Some(StoredRecord::Valid(record)) => Some(record),
            Some(StoredRecord::Damaged(_)) | None => None,
        })?;
    }
    Ok(())
}

/// Checks the same while holding the gate; none of these grants can be removed until it is
/// released.
pub(in crate::lock) fn pass_fences<'a>(
    locks: &'a LockRoot,
    fences: &[Fence],
    deadline: Instant,
) -> Result<Option<Gate<'a>>> {
    if fences.is_empty() {
        return Ok(None);
    }
    let gate = Gate::enter(locks, deadline)?;
    for fence in fences {
        fence.check(Some(&load(&gate, &fence.name)?.record))?;
    }
    Ok(Some(gate))
}
