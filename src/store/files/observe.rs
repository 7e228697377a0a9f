//! The files of a root as one command observed them, and their diagnosis.

use std::ffi::OsString;

use bytes::Bytes;
use serde_json::Value;

use super::FileStore;
use super::backup_dir::BackupDir;
use super::belongs::{Ownership, record_owner};
use super::guard::settle::settle_guards;
use super::root::Root;
use super::signal::settle_signals;
use super::state_file::StateFile;
use super::state_lock::{StateLock, StateLocks};
use crate::error::{Error, Kind, Result};
use crate::fs::stage::is_temporary;
use crate::fs::{Dir, FileKind, Origin, Stat};
use crate::side;
use crate::store::diagnosis::{Health, known};
use crate::store::layout::{BACKUPS, SIDE_DIRECTORIES, is_staged_signal};

/// The depth of a diagnosis. A file with a valid seal may still be an old copy that was put back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Compare with the mirror: writers, `validate`, `status`.
    WithMirror,
    /// Trust the digest: plain reads.
    DigestOnly,
}

/// The state file and the backup directory as they were read, and their diagnosis. Under the state
/// lock no other writer changes them; without it they are a report.
#[derive(Debug)]
pub(super) struct Observation<'s> {
    pub store: &'s FileStore,
    pub backup_dir: BackupDir,
    pub live: Option<StateFile>,
    pub health: Health,
}

impl Observation<'_> {
    /// Returns whether the next write commits even without a change: the file has an older form, or
    /// was converted.
    pub(super) fn is_rewritten(&self) -> bool {
        let is_converted = self.live.as_ref().is_some_and(|found| found.conversion.is_some());
        is_converted || self.health.migrates_from().is_some()
    }

    /// The text of the live document.
    pub(super) fn text(&self) -> Option<&Bytes> {
        self.live.as_ref().map(|found| &found.bytes)
    }

    /// The document as far as it is readable.
    pub(super) fn known(&self) -> Option<&Value> {
        known(&self.health, self.live.as_ref().map(|found| &found.reading))
    }

    /// The current revision as users see it; 0 where there is none.
    pub(super) fn revision(&self) -> u64 {
        match &self.health {
            Health::Healthy(document) => document.seal.revision.get(),
            Health::Foreign(edit) => edit.revision(),
            _ => 0,
        }
    }

    /// The error of a command that cannot work with this state; `None` where it can.
    pub(super) fn refusal_if_unusable(&self) -> Option<Error> {
        self.refusal_for(&self.health)
    }

    /// The error of a command that cannot work with this state.
    pub(super) fn refusal(&self) -> Error {
        self.refusal_of(&self.health)
    }

    /// The error about a document that was found to be unusable.
    pub(super) fn refusal_of(&self, health: &Health) -> Error {
        self.refusal_for(health).unwrap_or_else(|| {
            let (shown, name) = (self.store.shown(), health.kind());
            Error::new(Kind::Internal, format!("{shown} cannot be used: {name}"))
        })
    }

    fn refusal_for(&self, health: &Health) -> Option<Error> {
        let restoring = match health {
            Health::Missing | Health::Damaged(_) | Health::Invalid(_) => {
                self.store.checkpoints().restoring()
            }
            Health::Foreign(edit) if edit.reference.is_none() => {
                self.store.checkpoints().restoring()
            }
            _ => None,
        };
        health.refusal(&self.store.shown(), &self.backup_dir, restoring.as_deref())
    }
}

impl Root<'_> {
    /// Opens a side directory that belongs to this user, and creates it where it is missing.
    pub(super) fn side_directory(&self, root: &Dir, name: &str) -> Result<Dir> {
        side::open(&self.store.disk, root, name)
    }

    /// Removes the access of other users to what an earlier tool left in a side directory.
    pub(super) fn tighten(&self, root: &Dir, name: &str, dir: &Dir) -> Result<()> {
        let Some(stat) = self.store.disk.stat(root, name)?.filter(|stat| stat.mode & 0o077 != 0)
        else {
            return Ok(());
        };
        let tighten = || -> Result<()> {
            self.store.disk.set_mode(root, name, &stat, 0o700)?;
            for inner in self.store.disk.list(dir)? {
                // A hard link may be the name of a file outside this root.
                let is_ours = |stat: &Stat| stat.kind == FileKind::Regular && stat.nlink == 1;
                let found = self.store.disk.stat(dir, &inner)?.filter(is_ours);
                if let Some(stat) = found.filter(|stat| stat.mode & 0o077 != 0) {
                    self.store.disk.set_mode(dir, &inner, &stat, 0o600)?;
                }
            }
            Ok(())
        };
        let (shown, mode) = (dir.path().display(), stat.mode);
        self.store.warn(match tighten() {
            Ok(()) => {
                format!(
                    "{shown} had mode {mode:04o}, looser than 0700; \
                         it and the files in it are yours alone now"
                )
            }
            Err(error) => format!(
                "{shown} has mode {mode:04o}, looser than 0700, and that stays: \
                                   {error}"
            ),
        });
        Ok(())
    }

    /// Warns of anything in the side directories that stops the next writer.
    pub(super) fn warn_of_side_directories(&self, root: &Dir) -> Result<()> {
        if let Some(why) = side::open_to_others(&self.store.disk, root)? {
            self.store.warn(format!("the root {} {why}", root.path().display()));
        }
        let user = crate::user::current();
        for name in SIDE_DIRECTORIES {
            let path = root.path_of(name);
            match self.store.disk.stat(root, name)? {
                Some(stat) if stat.kind != FileKind::Directory => {
                    self.store.warn(format!(
                        "{} is not a directory of its own; writers refuse to work with it",
                        path.display()
                    ));
                }
                Some(stat) if stat.uid != user => {
                    self.store.warn(format!(
                        "{} belongs to user {}; writers refuse to work with it",
                        path.display(),
                        stat.uid
                    ));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

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
        let mut seen = Root::of(self.store).diagnose(live, backup_dir, Depth::WithMirror)?;
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
