//! A commit's turn: `state` is a lock like any other, but a commit that nothing blocks needs no
//! record.
//!
//! It takes the flock on `state.lock` and *then* reads the record of `state`. If the record has a
//! holder that is not an ancestor, or another waiter, the commit releases the flock and queues like
//! any request; it keeps its place in the queue until it has committed. A grant of an ancestor does
//! not block it, and lets it pass the queue too, but it takes the flock all the same.

use std::time::{Duration, Instant};

use super::flock::FileLock;
use super::gate::{Gate, Seen};
use super::line::Place;
use super::liveness::Judge;
use super::owner;
use super::process::command_of;
use super::queue::{Again, Ask, blockers};
use super::record::{Mode, Purpose};
use super::request::{Deadline, Deadlocks, Request};
use super::token::Fence;
use super::{LOCKS, Locks, STATE, STATE_LOCK, give_up_after};
use crate::error::{Error, Kind, Result};
use crate::fs::Dir;
use crate::name::Name;
use crate::side;

const WHAT: &str = "the state";

impl Locks {
    /// Waits for a commit's turn: the flock, and the place in the queue if one was needed. `None`
    /// if the flock's file was removed during the wait.
    pub fn turn(
        &self,
        (root, dir): (&Dir, &Dir),
        deadline: Instant,
    ) -> Result<Option<(FileLock, Option<Place<'_>>)>> {
        let name = Name::parse("lock", STATE)?;
        let mut place = None;
        loop {
            let Some(lock) = self.flock((root, dir), STATE_LOCK, deadline, WHAT)? else {
                return Ok(None);
            };
            // The usual case needs nothing else: `state` has no holder and no waiter.
            let record = match self.peek(dir, &name)? {
                Seen::Record(record) if record.is_empty() => return Ok(Some((lock, place))),
                Seen::Record(record) => Some(record),
                Seen::Damaged(_) => None, // handled while holding the gate
            };
            let request = self.commit_request(&name, deadline)?;
            if let Some(record) = &record {
                let judge = Judge::new(&self.disk, dir)?;
                if blockers(&name, record, &request.asker, request.ask, &judge).next().is_none() {
                    return Ok(Some((lock, place)));
                }
            }
            drop(lock);
            let place = place.get_or_insert_with(|| Place::none(self, &request));
            let (gate, drafts) = self.when_free(&request, place)?;
            // Its passed-over mark is cleared before it waits for the flock, so no later waiter
            // goes first.
            gate.store(&drafts)?;
        }
    }

    fn commit_request(&self, name: &Name, at: Instant) -> Result<Request> {
        let asker = owner::anybody(None, &self.claim)?;
        let command = command_of(asker.process.pid);
        Ok(Request {
            names: vec![name.clone()],
            ask: Ask { mode: Mode::Exclusive, purpose: Purpose::Commit, again: Again::Refused },
            asker,
            command,
            deadline: Deadline { at, patience: Duration::ZERO },
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
            give_up_after(deadline)?;
        }
    }

    /// Returns an error unless all of these grants are on record.
    pub fn check_fences(&self, fences: &[Fence]) -> Result<()> {
        for fence in fences {
            let seen = match self.dir()? {
                Some(dir) => self.peek(&dir, &fence.name)?,
                None => Seen::Record(Default::default()),
            };
            if !matches!(&seen, Seen::Record(record) if record.grant(fence.token).is_some()) {
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
    .try_command(
        "lock list",
        format!("see who has {name} now; take it again, read the state again and redo the change"),
    )
    .detail("lock", name.as_str())
    .detail("token", token.get())
}
