//! A writer's turn: it locks, observes, proposes, commits and records.

use std::rc::Rc;
use std::time::Instant;

use super::FileStore;
use super::observe::Observation;
use super::state_lock::{StateLock, StateLocks};
use crate::error::Result;
use crate::store::options::{LockPurpose, check_deadline};

/// The state lock, and the files as observed under it.
#[derive(Debug)]
pub(super) struct Transaction<'s> {
    pub store: &'s FileStore,
    pub seen: Observation<'s>,
    pub lock: Rc<StateLock<'s>>,
}

/// Begins transactions.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct Transactions<'s> {
    pub(in crate::store) store: &'s FileStore,
}

impl<'s> Transactions<'s> {
    /// Of `store`.
    pub(in crate::store) fn of(store: &'s FileStore) -> Self {
        Self { store }
    }

    /// Takes the state lock and observes the files under it.
    pub(super) fn begin(&self, purpose: LockPurpose, deadline: Instant) -> Result<Transaction<'s>> {
        StateLocks::of(self.store).lock_state(purpose, deadline)?.begin()
    }

    /// Runs `attempt` until it has a result. An attempt without one was overtaken by another
    /// writer, and begins again; `None` only until the lock timeout passes.
    pub(super) fn retry<T>(
        &self,
        mut attempt: impl FnMut(Instant) -> Result<Option<T>>,
    ) -> Result<T> {
        let deadline = StateLocks::of(self.store).deadline();
        loop {
            if let Some(done) = attempt(deadline)? {
                return Ok(done);
            }
            check_deadline(deadline)?;
        }
    }
}

impl<'s> StateLock<'s> {
    /// Observes the files under this lock.
    pub(super) fn begin(self: &Rc<Self>) -> Result<Transaction<'s>> {
        Ok(Transaction { store: self.store, seen: self.observe()?, lock: self.clone() })
    }
}
