//! A commit's turn: `state` is a lock like any other, but a commit that nothing blocks needs no
//! record.
//!
//! It takes the flock on `state.lock` and *then* reads the record of `state`. If the record has a
//! holder that is not an ancestor, or another waiter, the commit releases the flock and queues like
//! any request; it keeps its place in the queue until it has committed. A grant of an ancestor does
//! not block it, and lets it pass the queue too, but it takes the flock all the same.

use std::time::{Duration, Instant};

use super::flock::FileLock;
use super::gate::{Gate, StoredRecord};
use super::line::QueueSlot;
use super::liveness::LivenessProbe;
use super::owner;
use super::process::command_of;
use super::queue::{Reentrancy, RequestSpec, blockers};
use super::record::{Mode, Purpose};
use super::request::{Deadline, Deadlocks, Request};
use super::token::Fence;
use super::{LOCKS, Locks, STATE, STATE_LOCK, check_deadline};
use crate::error::{Error, Kind, Result};
use crate::fs::Dir;
use crate::name::Name;
use crate::side;

const WHAT: &str = "the state";

/// A commit's turn: nothing else commits, and no script holds `state`, until it is dropped.
#[derive(Debug)]
pub struct CommitTurn<'a> {
    /// The flock of the state.
    pub lock: FileLock,
    /// The place in the queue of `state`, if the commit had to wait. It is given up after the
    /// flock, so that the next waiter finds the flock free.
    pub slot: Option<QueueSlot<'a>>,
}

impl Locks {
    /// Waits for a commit's turn: the flock, and the place in the queue if one was needed. `None`
    /// if the flock's file was removed during the wait.
    pub fn commit_turn(
        &self,
        (root, dir): (&Dir, &Dir),
        deadline: Instant,
    ) -> Result<Option<CommitTurn<'_>>> {
        let name = Name::parse("lock", STATE)?;
        let mut slot = None;
        loop {
            let Some(lock) = self.flock((root, dir), STATE_LOCK, deadline, WHAT)? else {
                return Ok(None);
            };
            // The usual case needs nothing else: `state` has no holder and no waiter.
            let record = match self.read_record(dir, &name)? {
                StoredRecord::Record(record) if record.is_empty() => {
                    return Ok(Some(CommitTurn { lock, slot }));
                }
                StoredRecord::Record(record) => Some(record),
                StoredRecord::Damaged(_) => None, // handled while holding the gate
            };
            let request = self.commit_request(&name, deadline)?;
            if let Some(record) = &record {
                let judge = LivenessProbe::new(&self.disk, dir)?;
                if blockers(&name, record, &request.requester, request.spec, &judge)
                    .next()
                    .is_none()
                {
                    return Ok(Some(CommitTurn { lock, slot }));
                }
            }
            drop(lock);
            let slot = slot.get_or_insert_with(|| QueueSlot::none(self, &request));
            let (gate, edits) = self.wait_until_grantable(&request, slot)?;
            // Its passed-over mark is cleared before it waits for the flock, so no later waiter
            // goes first.
            gate.store(&edits)?;
        }
    }

    fn commit_request(&self, name: &Name, at: Instant) -> Result<Request> {
        let requester = owner::self_and_ancestors(None, &self.env)?;
        let command = command_of(requester.process.pid);
        Ok(Request {
            names: vec![name.clone()],
            spec: RequestSpec {
                mode: Mode::Exclusive,
                purpose: Purpose::Commit,
                reentrancy: Reentrancy::Refused,
            },
            requester,
            command,
            deadline: Deadline { at, waiter_state: Duration::ZERO },
            deadlocks: Deadlocks::Refused,
            metadata: None,
            ttl: None,
            live_file: None,
        })
    }

    /// Waits for commits that read the record before `state` was granted.
    pub(super) fn drain_commits(&self, deadline: Instant) -> Result<()> {
        loop {
            let root = side::open_root(&self.disk, &self.directory)?;
            let dir = side::open(&self.disk, &root, LOCKS)?;
            if self.flock((&root, &dir), STATE_LOCK, deadline, WHAT)?.is_some() {
                return Ok(());
            }
            check_deadline(deadline)?;
        }
    }

    /// Returns an error unless all of these grants are on record.
    pub fn check_fences(&self, fences: &[Fence]) -> Result<()> {
        for fence in fences {
            let seen = match self.dir()? {
                Some(dir) => self.read_record(&dir, &fence.name)?,
                None => StoredRecord::Record(Default::default()),
            };
            if !matches!(&seen, StoredRecord::Record(record) if record.grant(fence.token).is_some())
            {
                return Err(fenced(fence));
            }
        }
        Ok(())
    }

    /// Checks the same while holding the gate; none of these grants can be removed until it is
    /// released.
    pub fn pass_fences(&self, fences: &[Fence], deadline: Instant) -> Result<Option<Gate<'_>>> {
        if fences.is_empty() {
            return Ok(None);
        }
        let gate = self.gate(deadline)?;
        for fence in fences {
            if gate.load(&fence.name)?.record.grant(fence.token).is_none() {
                return Err(fenced(fence));
            }
        }
        Ok(Some(gate))
    }
}

fn fenced(fence: &Fence) -> Error {
    let Fence { name, token } = fence;
    Error::new(
        Kind::Fenced,
        format!("the grant {fence} is no longer on record, so nothing was written"),
    )
    .hint_command(
        "lock list",
        format!("see who has {name} now; take it again, read the state again and redo the change"),
    )
    .detail("lock", name.as_str())
    .detail("token", token.get())
}
