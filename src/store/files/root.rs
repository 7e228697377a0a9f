//! The root directory: its state file and its backup directory, as they are now.

use super::FileStore;
use super::backup_dir::BackupDir;
use super::belongs::Ownership;
use super::observe::{Depth, Observation};
use super::state_file::StateFile;
use crate::document::Reading;
use crate::error::Result;
use crate::fs::Dir;
use crate::side;
use crate::store::copies::Copies;
use crate::store::diagnosis::{Health, Mirror, diagnose};
use crate::store::layout::BACKUPS;

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

    /// Returns whether the root has a history: a copy of the document, or a checkpoint.
    pub(in crate::store) fn has_history(&self, backup_dir: &BackupDir) -> bool {
        backup_dir.has_history() || self.store.checkpoints().ids().is_ok_and(|ids| !ids.is_empty())
    }

    /// Diagnoses a live file. Checkpoints are examined only where nothing else is left.
    pub(in crate::store) fn diagnose(
        &self,
        live: Option<StateFile>,
        backup_dir: BackupDir,
        depth: Depth,
    ) -> Result<Observation<'s>> {
        // The file of a state that was moved is away, so commands with a file pay nothing.
        if live.is_none()
            && let Some(mark) = self.mark()?
        {
            return Err(mark.refusal(&self.store.shown()));
        }
        let mirror = || match (&live, depth) {
            (Some(found), Depth::WithMirror) => Ok(backup_dir.mirror_of(found)?),
            _ => Ok(Mirror::Same),
        };
        let reading = live.as_ref().map(|found| &found.reading);
        let health = match diagnose(reading, &backup_dir, mirror)? {
            Health::NotInitialized if self.has_history(&backup_dir) => Health::Missing,
            Health::Foreign(edit) => match live.as_ref().map(|found| &found.reading) {
                Some(Reading::Sealed(document)) if self.store.intents().is_fresh(document) => {
                    Health::Healthy(document.clone())
                }
                _ => Health::Foreign(edit),
            },
            health => health,
        };
        Ok(Observation { store: self.store, live, backup_dir, health })
    }

    /// Observes the root without a lock and without changing anything.
    pub(in crate::store) fn observe(&self, depth: Depth) -> Result<Observation<'s>> {
        self.diagnose(self.live()?, self.backup_dir_to_read()?, depth)
    }

    /// Observes and compares with the mirror.
    pub(in crate::store) fn examine(&self) -> Result<Observation<'s>> {
        self.observe(Depth::WithMirror)
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
}
