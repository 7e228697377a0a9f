//! Reading all files under the state lock, after removing what dead writers left.

use std::ffi::OsString;

use super::backup_dir::BackupDir;
use super::belongs::{Ownership, Record};
use super::guard::settle::settle_guards;
use super::observe::{Depth, Observation};
use super::root::Root;
use super::signal::settle_signals;
use super::state_file::StateFile;
use super::state_lock::{StateLock, StateLocks};
use crate::error::Result;
use crate::fs::Origin;
use crate::fs::stage::{Durability, is_temporary, temporary};
use crate::side;
use crate::store::layout::{BACKUPS, OWNER, is_staged_signal};

impl<'s> StateLock<'s> {
    /// Reads all files under the lock, after removing what dead writers left.
    pub(super) fn observe(&self) -> Result<Observation<'s>> {
        let dir = side::open_unless(&self.store.disk, &self.root, BACKUPS, || {
            StateLocks::of(self.store).refuse_other_tools_file(&self.root)
        })?;
        let mut backup_dir = BackupDir::list(&self.store.disk, dir)?;
        let record = Ownership::of(self.store).check_dir(&backup_dir)?;
        record_owner(self, &backup_dir, record)?;
        let live = StateFile::read(&self.store.disk, &self.root, &self.store.settings.file_name)?;
        let cleared = self.clear_leftovers(&backup_dir, &live)?;
        if cleared {
            backup_dir = BackupDir::list(
                &self.store.disk,
                Root::of(self.store).side_directory(&self.root, BACKUPS)?,
            )?;
        }
        let mut seen = Observation::diagnose(self.store, live, backup_dir, Depth::WithMirror)?;
        settle_signals(self, &seen.backup_dir, &seen.health);
        settle_guards(self, &mut seen.backup_dir, seen.live.as_ref());
        Ok(seen)
    }

    /// Removes temporary files of dead writers, and backups that are still the live inode because
    /// their commit died between its link and its rename. Returns true if the backup directory
    /// changed.
    pub(super) fn clear_leftovers(
        &self,
        backup_dir: &BackupDir,
        live: &Option<StateFile>,
    ) -> Result<bool> {
        let Some(dir) = backup_dir.dir() else {
            return Ok(false);
        };
        // A staged signal file may belong to a commit that happened, which only the state shows.
        let is_signal = |name: &&OsString| name.to_str().is_some_and(is_staged_signal);
        for name in backup_dir.temporaries.iter().filter(|name| !is_signal(name)) {
            self.store.disk.unlink(dir, name)?;
        }
        if self.flock.origin() == Origin::Made {
            for name in self.store.disk.list(&self.root)? {
                if name.to_str().is_some_and(is_temporary) {
                    self.store.disk.unlink(&self.root, name)?;
                }
            }
        }
        let mut cleared = false;
        if let Some(found) = live.as_ref().filter(|found| found.stat.nlink > 1) {
            for name in backup_dir.links_to(&found.stat)? {
                self.store.disk.unlink(dir, name)?;
                cleared = true;
            }
        }
        Ok(cleared)
    }
}

/// Records which state file the side directories belong to, if it has an unusual name or the
/// record is damaged.
fn record_owner(lock: &StateLock<'_>, backup_dir: &BackupDir, record: Record) -> Result<()> {
    let is_due = match record {
        Record::Whole => false,
        Record::Absent => !Ownership::of(lock.store).is_usual(),
        Record::Damaged => true,
    };
    let Some(dir) = backup_dir.dir().filter(|_| is_due) else { return Ok(()) };
    let name = temporary(lock.flock.inode(), "owner");
    let mut line = lock.store.settings.file_name.as_encoded_bytes().to_vec();
    line.push(b'\n');
    let staged = lock.store.disk.stage(dir, &name, &line, Durability::Fsync)?;
    lock.store.disk.rename(dir.entry(&name), dir.entry(OWNER))?;
    staged.keep();
    Ok(())
}
