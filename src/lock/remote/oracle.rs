//! The liveness of owners and waiters: a key that is there is alive, because a lease keeps it. The
//! exception is a process of this boot and pid namespace that the system shows to be dead: its key
//! waits for no lease.

use std::cell::RefCell;
use std::collections::HashMap;

use crate::error::Result;
use crate::lock::identity::{BootMatch, Identity, Namespace};
use crate::lock::liveness::{Liveness, LivenessOracle, Lookup, RunState, WaiterState};
use crate::lock::process::lookup;
use crate::lock::record::{Grant, Waiter};

/// This host, as the oracle of one check: it looks each process up once.
#[derive(Debug)]
pub struct ClusterOracle {
    here: &'static Namespace,
    processes: RefCell<HashMap<u32, Lookup>>,
}

impl ClusterOracle {
    /// An oracle that has looked up nothing yet.
    pub fn new() -> Result<Self> {
        Ok(Self { here: Namespace::here()?, processes: RefCell::default() })
    }

    fn is_here(&self, there: &Namespace) -> bool {
        let scope = |one: &Namespace| (one.pid_namespace, one.time_namespace, one.machine.clone());
        self.here.compare_boot(&there.boot) == BootMatch::Same && scope(self.here) == scope(there)
    }

    fn lookup(&self, process: &Identity) -> Option<Lookup> {
        let known = || lookup(process.pid);
        self.is_here(&process.namespace)
            .then(|| *self.processes.borrow_mut().entry(process.pid).or_insert_with(known))
    }
}

impl LivenessOracle for ClusterOracle {
    fn process(&self, process: &Identity) -> Liveness {
        match self.lookup(process) {
            None => Liveness::Unknown,
            Some(Lookup::Hidden) => Liveness::Alive,
            Some(Lookup::Visible { start, state })
                if start == process.start && state != RunState::Ended =>
            {
                Liveness::Alive
            }
            Some(Lookup::Visible { .. } | Lookup::Missing) => Liveness::Dead,
        }
    }

    fn grant(&self, grant: &Grant) -> Liveness {
        match &grant.owner {
            Some(owner) if self.process(owner) == Liveness::Dead => Liveness::Dead,
            Some(_) => Liveness::Alive,
            None => Liveness::Unknown,
        }
    }

    fn waiter(&self, waiter: &Waiter) -> WaiterState {
        let is_stopped =
            |lookup| matches!(lookup, Lookup::Visible { state: RunState::Stopped, .. });
        if self.is_dead_waiter(waiter) {
            WaiterState::Dead
        } else if self.lookup(&waiter.process).is_some_and(is_stopped) {
            WaiterState::Skipped
        } else {
            WaiterState::Waiting
        }
    }

    fn waiting_process(&self, waiter: &Waiter) -> Liveness {
        match self.process(&waiter.process) {
            Liveness::Unknown => Liveness::Alive,
            known => known,
        }
    }

    fn is_dead_waiter(&self, waiter: &Waiter) -> bool {
        [&waiter.process, &waiter.owner]
            .iter()
            .any(|process| self.process(process) == Liveness::Dead)
    }

    fn describe_namespace(&self, process: &Identity) -> String {
        process.namespace.describe_from(self.here)
    }
}
