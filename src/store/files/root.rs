//! The root directory: its state file and its backup directory, as they are now.

use super::FileStore;
use super::backup_dir::BackupDir;
use super::belongs::Ownership;
use super::state_file::StateFile;
use crate::document::Reading;
use crate::error::Result;
use crate::fs::{Dir, FileKind, Stat};
use crate::side;
use crate::store::layout::{BACKUPS, SIDE_DIRECTORIES};

/// The root directory of a store, and its files.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct Root<'s> {
    pub(in crate::store) store: &'s FileStore,
}

impl<'s> Root<'s> {
    /// Of `store`.
    pub(in crate::store) fn of(store: &'s FileStore) -> Self {
        Self { store }
    }

    /// The live file, read without opening its directory first.
    pub(in crate::store) fn live(&self) -> Result<Option<StateFile>> {
        StateFile::read(&self.store.disk, &Dir::working(), self.store.settings.path().as_os_str())
    }

    /// Returns whether the live file is still the one that was found. Checks the path that the user
    /// gave, not the opened directory, which may have been moved.
    pub(in crate::store) fn is_still(&self, found: Option<&StateFile>) -> Result<bool> {
        let now = self.store.disk.stat(&Dir::working(), self.store.settings.path())?;
        Ok(match (now, found) {
            (Some(now), Some(found)) => now.unchanged(&found.stat),
            (now, found) => now.is_none() && found.is_none(),
        })
    }

    /// Opens the backup directory without changing anything, and checks that it belongs to this
    /// state file.
    pub(in crate::store) fn backup_dir_to_read(&self) -> Result<BackupDir> {
        self.backup_dir_of(&self.open()?)
    }

    pub(in crate::store) fn backup_dir_of(&self, root: &Dir) -> Result<BackupDir> {
        let backup_dir = BackupDir::open(&self.store.disk, root)
            .map_err(|error| side::refusal(root, BACKUPS, error))?;
        Ownership::of(self.store).check_dir(&backup_dir)?;
        Ok(backup_dir)
    }

    pub(in crate::store) fn open(&self) -> Result<Dir> {
        side::open_root(&self.store.disk, &self.store.settings.directory)
    }

    /// Warns of what the next write corrects. Does not warn about another tool's document.
    pub(in crate::store) fn warn_of_file(&self, live: &Option<StateFile>) {
        let is_other_tools = |found: &&StateFile| match &found.reading {
            Reading::Unsealed(value) => value.get("phase").is_none(),
            _ => false,
        };
        let live = live.as_ref().filter(|found| !is_other_tools(found));
        if let Some(conversion) = live.and_then(|found| found.conversion) {
            let (shown, what) = (self.store.shown(), conversion.words());
            self.store.warn(format!(
                "{shown} has {what}, which this program did not write; the next write removes them"
            ));
        }
        if let Some(found) = live.filter(|found| found.stat.mode & 0o077 != 0) {
            let mode = found.stat.mode;
            self.store.warn(format!(
                "{} has mode {mode:04o}, looser than 0600; the next write tightens it",
                self.store.shown()
            ));
        }
    }

    /// Opens a side directory that belongs to this user, and creates it where it is missing.
    pub(in crate::store) fn side_directory(&self, root: &Dir, name: &str) -> Result<Dir> {
        side::open(&self.store.disk, root, name)
    }

    /// Removes the access of other users to what an earlier tool left in a side directory.
    pub(in crate::store) fn tighten(&self, root: &Dir, name: &str, dir: &Dir) -> Result<()> {
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
    pub(in crate::store) fn warn_of_side_directories(&self, root: &Dir) -> Result<()> {
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
