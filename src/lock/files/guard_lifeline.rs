//! The lifeline of a guard: it proves in any pid namespace that the guard runs.

use std::fs::File;
use std::time::Instant;

use super::FileLocks;
use super::gate::Gate;
use super::probe::LivenessProbe;
use super::root::LockRoot;
use super::{records, slot};
use crate::error::Result;
use crate::lock::identity::Identity;
use crate::lock::lifeline::Lifeline;
use crate::lock::liveness::{Liveness, process_or_lifeline};
use crate::side;

/// A guard's lifeline, held by this process until it is dropped.
#[derive(Debug)]
pub struct GuardLifeline<'a> {
    locks: &'a LockRoot,
    name: Lifeline,
    _file: File,
}

impl<'a> GuardLifeline<'a> {
    /// Takes a lifeline for a guard of this process.
    pub fn create(locks: &'a FileLocks, deadline: Instant) -> Result<Self> {
        let locks = &locks.root;
        let name = Lifeline::of_guard()?;
        let gate = Gate::enter(locks, deadline)?; // so that no clean-up finds it unlocked
        let _file = slot::create(&name, &locks.disk, gate.records().dir)?;
        Ok(Self { locks, name, _file })
    }

    /// Its name.
    pub fn name(&self) -> &Lifeline {
        &self.name
    }

    /// The liveness of a guard's process; its lifeline proves it where its pid does not.
    pub fn liveness(
        locks: &FileLocks,
        process: &Identity,
        lifeline: Option<&Lifeline>,
    ) -> Result<Liveness> {
        let locks = &locks.root;
        let dir = match records::open(locks).ok().flatten() {
            Some(dir) => dir,
            None => side::open_root(&locks.disk, &locks.directory)?,
        };
        // A missing lifeline proves nothing: the guard's command may have cleaned `.locks/`.
        let is_there =
            |name: &&Lifeline| locks.disk.stat(&dir, name.as_str()).is_ok_and(|f| f.is_some());
        let lifeline = lifeline.filter(is_there);
        Ok(process_or_lifeline(&LivenessProbe::new(&locks.disk, &dir)?, process, lifeline))
    }
}

impl Drop for GuardLifeline<'_> {
    fn drop(&mut self) {
        if let Ok(Some(dir)) = records::open(self.locks) {
            let _ = self.locks.disk.unlink(&dir, self.name.as_str()); // `lock clean` finds it
        }
    }
}
