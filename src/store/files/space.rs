//! The space that commits need, and what backups take of it.

use super::FileStore;
use super::begin::Transactions;
use super::root::Root;
use super::state_lock::StateLocks;
use crate::error::Result;
use crate::fs::stage::{Durability, temporary};
use crate::store::diagnosis::Health;
use crate::store::layout::BACKUPS;
use crate::store::options::LockPurpose;

/// The space that backups take.
#[derive(Clone, Copy, Debug)]
pub struct Space<'s> {
    pub(in crate::store) store: &'s FileStore,
}

impl<'s> Space<'s> {
    /// Of `store`.
    pub fn of(store: &'s FileStore) -> Self {
        Self { store }
    }

    /// Frees space before a command fails for lack of it; returns how many backups were removed.
    pub fn free_space_now(&self) -> Result<usize> {
        let tx = Transactions::of(self.store)
            .begin(LockPurpose::Write, StateLocks::of(self.store).deadline())?;
        if let Health::TooNew(_) = tx.seen.health {
            return Err(tx.seen.refusal());
        }
        tx.free_space()
    }

    /// Checks that a commit would have room: writes as much as a commit and its mirror need under
    /// temporary names, syncs it, and removes it.
    pub fn test_space(&self) -> Result<()> {
        const SPARE: u64 = 4 << 10; // growth that a change may cause
        let lock = Transactions::of(self.store)
            .lock_state(LockPurpose::Write, StateLocks::of(self.store).deadline())?;
        let live = self.store.disk.stat(&lock.root, &self.store.settings.file_name)?;
        let size = live.map_or(0, |stat| stat.size).saturating_add(SPARE);
        let zeros = vec![0; usize::try_from(size).unwrap_or(0)];
        // Uses a commit's temporary names, which the next writer removes if this process is killed.
        let backup_dir = Root::of(self.store).side_directory(&lock.root, BACKUPS)?;
        let name = |purpose| temporary(lock.flock.inode(), purpose);
        let _document =
            self.store.disk.stage(&lock.root, &name("state"), &zeros, Durability::Fsync)?;
        let _mirror =
            self.store.disk.stage(&backup_dir, &name("mirror"), &zeros, Durability::Fsync)?;
        Ok(())
    }
}
