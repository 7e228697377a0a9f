//! Checkpoints and restores of either arm.

use std::time::Duration;

use super::Store;
use crate::arms::each;
use crate::error::{Error, Result};
use crate::store::checkpoint::catalog::{Found, Listed, Made, Snapshot, Which};
use crate::store::options::{Mode, WriteOptions};
use crate::store::restore::{Aborted, Interrupted, Planned, Restored};

/// The checkpoints of a store.
#[derive(Clone, Copy, Debug)]
pub struct Checkpoints<'s> {
    pub(super) store: &'s Store,
}

/// The restores of a store.
#[derive(Clone, Copy, Debug)]
pub struct Restores<'s> {
    pub(super) store: &'s Store,
}

impl Checkpoints<'_> {
    /// Makes a checkpoint. A damaged state is healed first.
    pub fn create(&self, snapshot: &Snapshot) -> Result<Made> {
        each!(Store: self.store, store => store.checkpoints().create(snapshot))
    }

    /// The names of all checkpoints, oldest first.
    pub fn ids(&self) -> Result<Vec<String>> {
        each!(Store: self.store, store => store.checkpoints().ids())
    }

    /// All checkpoints, newest first.
    pub fn list(&self) -> Result<Vec<Listed>> {
        each!(Store: self.store, store => store.checkpoints().list())
    }

    /// Finds the chosen checkpoint.
    pub fn find(&self, which: &Which) -> Result<Found> {
        match self.store {
            Store::Files(store) => {
                let found = store.checkpoints().find(which)?;
                Ok(Found { id: found.id, metadata: found.metadata, listing: found.listing })
            }
            #[cfg(feature = "etcd")]
            Store::Remote(store) => {
                let found = store.checkpoints().find(which)?;
                let listing = found.listing().clone();
                Ok(Found { id: found.id, metadata: found.metadata, listing })
            }
        }
    }

    /// Reads a checkpoint whole and reports its defects.
    pub fn verify(&self, id: &str) -> Result<()> {
        each!(Store: self.store, store => store.checkpoints().verify(id))
    }

    /// Removes old checkpoints, except the newest `kept`, and returns their ids; a dry run only
    /// returns them.
    pub fn clean(&self, older_than: Duration, kept: usize, mode: Mode) -> Result<Vec<String>> {
        each!(Store: self.store, store => store.checkpoints().clean(older_than, kept, mode))
    }

    /// Removes the checkpoints that are named, and returns their ids.
    pub fn remove(&self, words: &[String]) -> Result<Vec<String>> {
        each!(Store: self.store, store => store.checkpoints().remove(words))
    }
}

impl Restores<'_> {
    /// Restores a checkpoint.
    pub fn restore(&self, which: &Which, options: &WriteOptions) -> Result<Restored> {
        each!(Store: self.store, store => store.restores().restore(which, options))
    }

    /// Verifies a checkpoint and returns the changes that restoring it would make.
    pub fn plan(&self, which: &Which) -> Result<Planned> {
        each!(Store: self.store, store => store.restores().plan(which))
    }

    /// Aborts an interrupted restore.
    pub fn abort(&self) -> Result<Aborted> {
        each!(Store: self.store, store => store.restores().abort())
    }

    /// The restore that is decided and not carried out yet.
    pub fn interrupted(&self) -> Result<Option<Interrupted>> {
        each!(Store: self.store, store => store.intents().interrupted())
    }

    /// The reason why an interrupted restore cannot be finished here.
    pub fn obstacle(&self) -> Option<Error> {
        each!(Store: self.store,
            store => store.obstacles().interrupted_restore().ok().flatten(),
            _store => None)
    }
}
