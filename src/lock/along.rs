//! Locks that a command acquires implicitly while it works, besides its turn at the state. Grants
//! of its ancestors are used as they are; a grant made here is given back.
//!
//! A command that holds the flock of the state must not wait for a lock, since that lock's holder
//! may be about to commit. So the first attempt does not wait ([`Locks::try_acquire_implicit`]); if it fails,
//! the caller releases everything and waits ([`Locks::acquire_implicit`]) while it holds nothing else and
//! thus blocks no other command.

use std::time::{Duration, Instant};

use super::Locks;
use super::acquire::Acquired;
use super::owner;
use super::process::{command_of, same_ancestry};
use super::queue::{Reentrancy, RequestSpec};
use super::record::{Mode, Purpose};
use super::request::{Deadline, Deadlocks, Request};
use super::words::AlreadyHeld;
use crate::error::{Kind, Result};
use crate::name::Name;

/// Implicit locks, held until this is dropped.
#[derive(Debug)]
pub struct ImplicitLocks<'a> {
    locks: &'a Locks,
    acquired: Vec<Acquired>,
}

impl Locks {
    /// Acquires these locks if nothing blocks them; `None` if something does.
    pub fn try_acquire_implicit(&self, names: &[&str]) -> Result<Option<ImplicitLocks<'_>>> {
        match self.along(names, Deadline::after(Duration::ZERO)) {
            Ok(along) => Ok(Some(along)),
            Err(error) if matches!(error.kind, Kind::LockTimeout | Kind::Deadlock) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Acquires these locks, waiting until nothing blocks them. The caller must hold nothing.
    pub fn acquire_implicit(&self, names: &[&str], deadline: Instant) -> Result<ImplicitLocks<'_>> {
        let waiter_state = deadline.saturating_duration_since(Instant::now());
        self.along(names, Deadline { at: deadline, waiter_state })
    }

    fn along(&self, names: &[&str], deadline: Deadline) -> Result<ImplicitLocks<'_>> {
        let mut names =
            names.iter().map(|name| Name::parse("lock", name)).collect::<Result<Vec<_>>>()?;
        let mut requester = owner::self_and_ancestors(None, &self.env)?;
        loop {
            if names.is_empty() {
                return Ok(ImplicitLocks { locks: self, acquired: Vec::new() });
            }
            let request = Request {
                names: names.clone(),
                spec: RequestSpec {
                    mode: Mode::Exclusive,
                    purpose: Purpose::Hold,
                    reentrancy: Reentrancy::Refused,
                },
                command: command_of(requester.process.pid),
                requester: requester.clone(),
                deadline,
                deadlocks: Deadlocks::Refused,
                metadata: None,
                ttl: None,
                live_file: None,
            };
            match self.acquire(&request) {
                Ok(acquired) => return Ok(ImplicitLocks { locks: self, acquired }),
                Err(error) if error.kind == Kind::AlreadyHeld => {
                    // If the script in between was killed, the holder is no longer an ancestor.
                    let before = std::mem::replace(
                        &mut requester,
                        owner::self_and_ancestors(None, &self.env)?,
                    );
                    if !same_ancestry(&before.ancestry, &requester.ancestry) {
                        continue;
                    }
                    let Some(AlreadyHeld { lock, .. }) = error.cause() else { return Err(error) };
                    names.retain(|name| name != lock);
                }
                Err(error) => return Err(error),
            }
        }
    }
}

impl Drop for ImplicitLocks<'_> {
    /// Gives back all locks at once: giving back one and not the other could let the next request
    /// for both wait for itself.
    fn drop(&mut self) {
        if !self.acquired.is_empty() {
            self.locks.give_back_as(&self.acquired, ("release", "released"));
        }
    }
}
