//! Looks up processes and lifelines for [`crate::lock::liveness`].

use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::time::SystemTime;

use crate::digest;
use crate::error::Result;
use crate::fs::probe::Probe;
use crate::fs::{Dir, Disk};
use crate::lock::identity::Namespace;
use crate::lock::lifeline::Lifeline;
use crate::lock::limits::RECORD;
use crate::lock::liveness::{Host, LifelineState, Lookup};
use crate::lock::process::lookup;
use crate::lock::record::Waiter;
use crate::os::files::file_system;

/// This host, as the oracle of one check of the records. It looks each process up once, since in a
/// long queue each waiter blocks many; so it serves one check and no longer.
#[derive(Debug)]
pub struct LivenessProbe<'a> {
    disk: &'a Disk,
    locks: &'a Dir,
    here: &'static Namespace,
    local: OnceCell<bool>,
    processes: RefCell<HashMap<u32, Lookup>>,
    lifelines: RefCell<HashMap<Lifeline, LifelineState>>,
}

impl<'a> LivenessProbe<'a> {
    /// A probe for the locks in the directory `locks`.
    pub fn new(disk: &'a Disk, locks: &'a Dir) -> Result<Self> {
        Ok(Self {
            disk,
            locks,
            here: Namespace::here()?,
            local: OnceCell::new(),
            processes: RefCell::default(),
            lifelines: RefCell::default(),
        })
    }
}

impl Host for LivenessProbe<'_> {
    fn namespace(&self) -> &Namespace {
        self.here
    }

    fn is_local(&self) -> bool {
        *self.local.get_or_init(|| file_system(self.locks.at()).is_local())
    }

    fn lookup(&self, pid: u32) -> Lookup {
        *self.processes.borrow_mut().entry(pid).or_insert_with(|| lookup(pid))
    }

    fn lifeline(&self, file: &Lifeline) -> LifelineState {
        let probe = || match self.disk.probe(self.locks, file.as_str()) {
            Ok(Probe::Locked) => LifelineState::Locked,
            Ok(Probe::Free) => LifelineState::Free,
            Ok(Probe::Missing) => LifelineState::Missing,
            Ok(Probe::NotRegular) | Err(_) => LifelineState::Unknown,
        };
        *self.lifelines.borrow_mut().entry(file.clone()).or_insert_with(probe)
    }

    fn details(&self, file: &Lifeline) -> Option<Waiter> {
        let content = self.disk.read(self.locks, file.as_str(), RECORD as u64).ok()??;
        digest::decode(&content.bytes)
    }

    fn now(&self) -> SystemTime {
        self.disk.now()
    }

    fn booted(&self) -> Option<SystemTime> {
        crate::os::booted()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::lock::identity::Identity;
    use crate::lock::liveness::{Liveness, LivenessOracle as _};
    use crate::lock::process::Process;

    #[test]
    fn this_and_the_first_process_are_alive() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::real();
        let locks = disk.open_root(dir.path()).unwrap();
        let host = LivenessProbe::new(&disk, &locks).unwrap();
        let me = Identity::of(std::process::id()).unwrap().unwrap();
        assert_eq!(host.process(&me), Liveness::Alive);
        // The first process is root's, and may not be signalled by other users.
        let first = Identity { pid: 1, start: Process::of(1).unwrap().start, ..me };
        assert_eq!(host.process(&first), Liveness::Alive);
    }
}
