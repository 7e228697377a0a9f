//! Where the state is, as far as grants are concerned: no lock is granted where the state is not.

use std::fmt;

use super::ground::Ground;
use crate::error::Result;
use crate::etcd::messages::{Compare, KeyValue};
use crate::etcd::txn::put_at;

/// Refuses because of the mark's value.
type Check = Box<dyn Fn(&KeyValue) -> Result<()>>;

/// The key that marks a state which moves or is elsewhere. The store above decides what it says.
pub struct StateMark {
    /// The key.
    pub key: String,
    /// The refusal of grants that its value demands.
    pub check: Check,
    /// The refusal of everything: a newer program keeps this store.
    pub check_format: Check,
}

impl fmt::Debug for StateMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateMark").field("key", &self.key).finish_non_exhaustive()
    }
}

impl StateMark {
    /// Refuses to grant a lock where the state is not here.
    pub(super) fn check(&self, ground: &Ground) -> Result<()> {
        ground.other(&self.key).map_or(Ok(()), |found| (self.check)(found))
    }

    /// Refuses a store of a later format.
    pub(super) fn check_format(&self, ground: &Ground) -> Result<()> {
        ground.other(&self.key).map_or(Ok(()), |found| (self.check_format)(found))
    }

    /// A guard that the mark is as on this ground.
    pub(super) fn is_as_in(&self, ground: &Ground) -> Compare {
        put_at(self.key.clone(), ground.other(&self.key).map_or(0, |found| found.mod_revision))
    }
}
