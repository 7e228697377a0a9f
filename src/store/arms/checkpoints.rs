//! Checkpoints and restores of either arm.

use std::time::Duration;

use super::Store;
use crate::error::Result;
use crate::store::checkpoint::catalog::{Found, Listed, Made, Snapshot, Which};
use crate::store::options::{Mode, WriteOptions};
use crate::store::restore::{Aborted, Interrupted, Planned, Restored};

/// The checkpoints of a store.
#[derive(Clone, Copy, Debug)]
pub struct Checkpoints<'s> {
    store: &'s Store,
}

impl Store {
    /// The checkpoints of this store.
    pub fn checkpoints(&self) -> Checkpoints<'_> {
        Checkpoints { store: self }
    }

    /// Restores a checkpoint.
    pub fn restore(&self, which: &Which, options: &WriteOptions) -> Result<Restored> {
        match self {
            Self::Files(store) => store.restores().restore(which, options),
            #[cfg(feature = "etcd")]
            Self::Remote(store) => store.restore(which, options),
        }
    }

    /// Verifies a checkpoint and returns the changes that restoring it would make.
    pub fn plan_restore(&self, which: &Which) -> Result<Planned> {
        match self {
            Self::Files(store) => store.restores().plan(which),
            #[cfg(feature = "etcd")]
            Self::Remote(store) => store.plan_restore(which),
        }
    }

    /// Aborts an interrupted restore.
    pub fn abort_restore(&self) -> Result<Aborted> {
        match self {
            Self::Files(store) => store.restores().abort(),
            #[cfg(feature = "etcd")]
            Self::Remote(store) => store.abort_restore(),
        }
    }

    /// The restore that is decided and not carried out yet.
    pub fn interrupted_restore(&self) -> Result<Option<Interrupted>> {
        match self {
            Self::Files(store) => store.intents().interrupted(),
            #[cfg(feature = "etcd")]
            Self::Remote(store) => store.interrupted_restore(),
        }
    }
}

impl Checkpoints<'_> {
    /// Makes a checkpoint. A damaged state is healed first.
    pub fn create(&self, snapshot: &Snapshot) -> Result<Made> {
        match self.store {
            Store::Files(store) => store.checkpoints().create(snapshot),
            #[cfg(feature = "etcd")]
            Store::Remote(store) => store.checkpoints().create(snapshot),
        }
    }

    /// The names of all checkpoints, oldest first.
    pub fn ids(&self) -> Result<Vec<String>> {
        match self.store {
            Store::Files(store) => store.checkpoints().ids(),
            #[cfg(feature = "etcd")]
            Store::Remote(store) => store.checkpoints().ids(),
        }
    }

    /// All checkpoints, newest first.
    pub fn list(&self) -> Result<Vec<Listed>> {
        match self.store {
            Store::Files(store) => store.checkpoints().list(),
            #[cfg(feature = "etcd")]
            Store::Remote(store) => store.checkpoints().list(),
        }
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
        match self.store {
            Store::Files(store) => store.checkpoints().verify(id),
            #[cfg(feature = "etcd")]
            Store::Remote(store) => store.checkpoints().verify(id),
        }
    }

    /// Removes old checkpoints, except the newest `kept`, and returns their ids; a dry run only
    /// returns them.
    pub fn clean(&self, older_than: Duration, kept: usize, mode: Mode) -> Result<Vec<String>> {
        match self.store {
            Store::Files(store) => store.checkpoints().clean(older_than, kept, mode),
            #[cfg(feature = "etcd")]
            Store::Remote(store) => store.checkpoints().clean(older_than, kept, mode),
        }
    }

    /// Removes the checkpoints that are named, and returns their ids.
    pub fn remove(&self, words: &[String]) -> Result<Vec<String>> {
        match self.store {
            Store::Files(store) => store.checkpoints().remove(words),
            #[cfg(feature = "etcd")]
            Store::Remote(store) => store.checkpoints().remove(words),
        }
    }
}
