//! Locks that a command acquires implicitly while it works, besides its turn at the state. Grants
//! of its ancestors are used as they are; a grant made here is given back.
//!
//! A command that holds the flock of the state must not wait for a lock, since that lock's holder
//! may be about to commit. So the first attempt does not wait (`ImplicitLocks::try_acquire`); if
//! it fails, the caller releases everything and waits (`ImplicitLocks::acquire`) while it holds
//! nothing else and thus blocks no other command.

use std::time::{Duration, Instant};

use super::FileLocks;
use super::acquire::{GiveBack, acquire, give_back};
use super::root::LockRoot;
use crate::error::{Kind, Result};
use crate::lock::edit::Acquired;
use crate::lock::identity::same_ancestry;
use crate::lock::process::{command_of, owner};
use crate::lock::record::Mode;
use crate::lock::refusal::AlreadyHeld;
use crate::lock::request::{Deadline, Request, RequestSpec};
use crate::name::Name;

/// Implicit locks, held until this is dropped.
#[derive(Debug)]
pub struct ImplicitLocks<'a> {
    locks: &'a LockRoot,
    acquired: Vec<Acquired>,
}

impl<'a> ImplicitLocks<'a> {
    /// Acquires these locks if nothing blocks them; `None` if something does.
    pub fn try_acquire(locks: &'a FileLocks, names: &[&str]) -> Result<Option<Self>> {
        match Self::acquire_until(&locks.root, names, Deadline::after(Duration::ZERO)) {
            Ok(implicit) => Ok(Some(implicit)),
            Err(error) if matches!(error.kind, Kind::LockTimeout | Kind::Deadlock) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Acquires these locks, waiting until nothing blocks them. The caller must hold nothing.
    pub fn acquire(locks: &'a FileLocks, names: &[&str], deadline: Instant) -> Result<Self> {
        Self::acquire_until(&locks.root, names, Deadline::at(deadline))
    }

    fn acquire_until(locks: &'a LockRoot, names: &[&str], deadline: Deadline) -> Result<Self> {
        let mut names =
            names.iter().map(|name| Name::parse("lock", name)).collect::<Result<Vec<_>>>()?;
        let mut requester = owner::self_and_ancestors(None, &locks.env)?;
        while !names.is_empty() {
            let spec = RequestSpec::hold(Mode::Exclusive);
            let command = command_of(requester.process.pid);
            let request = Request::new(names.clone(), spec, requester.clone(), deadline);
            let error = match acquire(locks, &Request { command, ..request }) {
                Ok(acquired) => return Ok(Self { locks, acquired }),
                Err(error) => error,
            };
            let Some(held) = error.cause::<AlreadyHeld>() else { return Err(error) };
            // If the script in between was killed, the holder is no longer an ancestor.
            let now = owner::self_and_ancestors(None, &locks.env)?;
            let before = std::mem::replace(&mut requester, now);
            if same_ancestry(&before.ancestry, &requester.ancestry) {
                names.retain(|name| *name != held.lock);
            }
        }
        Ok(Self { locks, acquired: Vec::new() })
    }
}

impl Drop for ImplicitLocks<'_> {
    /// Gives back all locks at once: giving back one and not the other could let the next request
    /// for both wait for itself.
    fn drop(&mut self) {
        if !self.acquired.is_empty() {
            give_back(self.locks, &self.acquired, GiveBack::Finished);
        }
    }
}
