//! A writer's turn: it holds the lock, has observed the files, and commits.

use std::rc::Rc;

use super::FileStore;
use super::observe::Observation;
use super::state_lock::StateLock;
use crate::error::Result;
use crate::store::options::{WriteOptions, conflict};

/// The state lock, and the files as observed under it.
#[derive(Debug)]
pub(super) struct Transaction<'s> {
    pub store: &'s FileStore,
    pub seen: Observation<'s>,
    pub lock: Rc<StateLock<'s>>,
}

impl<'s> StateLock<'s> {
    /// Observes the files under this lock.
    pub(super) fn begin(self: &Rc<Self>) -> Result<Transaction<'s>> {
        Ok(Transaction { store: self.store, seen: self.observe()?, lock: self.clone() })
    }
}

/// Refuses to continue unless the current revision is the required one and the fences hold. The
/// fences are checked again at the moment of the commit.
pub(super) fn check_conditions(
    store: &FileStore,
    options: &WriteOptions,
    current: u64,
) -> Result<()> {
    if let Some(wanted) = options.if_revision.filter(|wanted| *wanted != current) {
        return Err(conflict(
            &format!("the state is at revision {current}, not {wanted}"),
            current,
        ));
    }
    store.locks.check_fences(&options.fences)
}
