//! The store on a local file system: everything here touches files.
//!
//! [`Store::read`] takes no lock unless it has to heal, or to finish an interrupted restore. Every
//! replacement of the state file is one call of `Store::publish` in `commit`. Its callers hold the
//! state lock from their read to that call, and differ in the document that they publish:
//!
//! - [`change`]: the read-modify-write of ordinary writers,
//! - [`fresh`] and `new_lineage`: the first document, a new lineage, an adopted foreign edit,
//! - [`heal`]: the newest valid copy,
//! - [`restore`] and [`guard`]: the state of a checkpoint, or the document without a guard's
//!   changes.

pub mod absence;
mod adopt;
pub mod backup_dir;
pub mod backups;
mod belongs;
mod candidate;
pub mod change;
pub mod checkpoint;
mod commit;
mod events;
pub mod fresh;
pub mod guard;
pub mod heal;
pub mod logs;
mod new_lineage;
mod next_revision;
mod observe;
mod preserve;
mod read;
mod record;
pub mod report;
pub mod restore;
pub mod signal;
mod staging;
pub mod state_file;
mod state_lock;
mod transaction;
pub mod undo;
pub mod writable;

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;

use self::absence::Absence;
use self::backup_dir::BackupDir;
use self::belongs::Ownership;
use self::checkpoint::catalog::Checkpoints;
use self::fresh::Lineages;
use self::guard::Guards;
use self::logs::Logs;
use self::observe::{Depth, Observation};
pub use self::read::Served;
use self::read::{READER_PATIENCE, written};
use self::report::Report;
use self::restore::{Intents, Probe, Restores};
use self::staging::Staging;
use self::state_file::StateFile;
use self::writable::Obstacles;
use crate::audit::{Audit, ErrorLog, ErrorLogEntry};
use crate::document::Reading;
use crate::error::Result;
use crate::fs::{Dir, Disk};
use crate::lock::Locks;
use crate::side;
use crate::store::Settings;
use crate::store::copies::Copies;
use crate::store::diagnosis::{Health, Mirror, diagnose};
use crate::store::layout::BACKUPS;

/// The state of one root.
#[derive(Debug)]
pub struct Store {
    disk: Disk,
    settings: Settings,
    audit: Rc<Audit>,
    locks: Locks,
    errors: ErrorLog,
    warnings: RefCell<Vec<String>>,
    last_warnings: RefCell<Vec<String>>,
    absence: Absence,
}

impl Store {
    /// The store that `settings` describe, on `disk`.
    pub fn new(disk: Disk, settings: Settings, audit: Audit) -> Self {
        let audit = Rc::new(audit);
        let locks =
            Locks::new(disk.clone(), &settings.directory, settings.lock_env.clone(), audit.clone());
        let errors = ErrorLog::new(disk.clone(), &settings.directory);
        Self {
            disk,
            settings,
            audit,
            locks,
            errors,
            warnings: RefCell::default(),
            last_warnings: RefCell::default(),
            absence: Absence::WaitedOut,
        }
    }

    /// The state file's path.
    pub fn path(&self) -> PathBuf {
        self.settings.path()
    }

    /// The options that this store is kept with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The audit log.
    pub fn audit(&self) -> &Audit {
        &self.audit
    }

    /// The locks of this root.
    pub fn locks(&self) -> &Locks {
        &self.locks
    }

    /// The seam this store works through.
    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    /// The checkpoints of this root.
    pub fn checkpoints(&self) -> Checkpoints<'_> {
        Checkpoints { store: self }
    }

    /// The logs of this root.
    pub fn logs(&self) -> Logs<'_> {
        Logs { store: self }
    }

    /// Reports of this root.
    pub fn report(&self) -> Report<'_> {
        Report { store: self }
    }

    /// The state file that this root's side directories belong to.
    pub fn ownership(&self) -> Ownership<'_> {
        Ownership { store: self }
    }

    /// What the next command would meet.
    pub fn obstacles(&self) -> Obstacles<'_> {
        Obstacles { store: self }
    }

    /// The record of an interrupted restore.
    pub fn intents(&self) -> Intents<'_> {
        Intents { store: self }
    }

    /// The guards of this root.
    pub fn guards(&self) -> Guards<'_> {
        Guards { store: self }
    }

    fn staging_area(&self) -> Staging<'_> {
        Staging { store: self }
    }

    fn restores(&self) -> Restores<'_> {
        Restores { store: self }
    }

    fn probe(&self) -> Probe<'_> {
        Probe { store: self }
    }

    /// Lineages of this root.
    pub fn lineages(&self) -> Lineages<'_> {
        Lineages { store: self }
    }

    /// Takes the warnings of this command: conditions that need attention but do not stop it.
    pub fn take_warnings(&self) -> Vec<String> {
        let mut warnings = std::mem::take(&mut *self.warnings.borrow_mut());
        warnings.extend(self.locks.take_warnings());
        warnings.extend(self.audit.warning().map(str::to_owned));
        warnings.append(&mut self.last_warnings.borrow_mut());
        warnings
    }

    fn warn(&self, warning: impl Into<String>) {
        let warning = warning.into();
        let mut warnings = self.warnings.borrow_mut();
        if !warnings.contains(&warning) {
            warnings.push(warning);
        }
    }

    /// Warns after all other warnings, at the end of the output, where it is seen first.
    fn warn_last(&self, warning: String) {
        let mut warnings = self.last_warnings.borrow_mut();
        if !warnings.contains(&warning) {
            warnings.push(warning);
        }
    }

    /// The live file, read without opening its directory first.
    fn live(&self) -> Result<Option<StateFile>> {
        StateFile::read(&self.disk, &Dir::working(), self.path().as_os_str())
    }

    fn shown(&self) -> String {
        self.path().display().to_string()
    }

    /// Returns whether the live file is still the one that was found. Checks the path that the user
    /// gave, not the opened directory, which may have been moved.
    fn is_still(&self, found: Option<&StateFile>) -> Result<bool> {
        let now = self.disk.stat(&Dir::working(), self.path())?;
        Ok(match (now, found) {
            (Some(now), Some(found)) => now.unchanged(&found.stat),
            (now, found) => now.is_none() && found.is_none(),
        })
    }

    /// Returns whether the root has a history: a copy of the document, or a checkpoint.
    fn has_history(&self, backup_dir: &BackupDir) -> bool {
        backup_dir.has_history() || self.checkpoints().ids().is_ok_and(|ids| !ids.is_empty())
    }

    /// Diagnoses a live file. Checkpoints are examined only where nothing else is left.
    fn diagnose(
        &self,
        live: Option<StateFile>,
        backup_dir: BackupDir,
        depth: Depth,
    ) -> Result<Observation<'_>> {
        let mirror = || match (&live, depth) {
            (Some(found), Depth::WithMirror) => Ok(backup_dir.mirror_of(found)?),
            _ => Ok(Mirror::Same),
        };
        let reading = live.as_ref().map(|found| &found.reading);
        let health = match diagnose(reading, &backup_dir, mirror)? {
            Health::NotInitialized if self.has_history(&backup_dir) => Health::Missing,
            Health::Foreign(edit) => match live.as_ref().map(|found| &found.reading) {
                Some(Reading::Sealed(document)) if self.intents().is_fresh(document) => {
                    Health::Healthy(document.clone())
                }
                _ => Health::Foreign(edit),
            },
            health => health,
        };
        Ok(Observation { store: self, live, backup_dir, health })
    }

    /// Observes the root without a lock and without changing anything.
    fn observe(&self, depth: Depth) -> Result<Observation<'_>> {
        self.diagnose(self.live()?, self.backup_dir_to_read()?, depth)
    }

    /// Observes and compares with the mirror.
    fn examine(&self) -> Result<Observation<'_>> {
        self.observe(Depth::WithMirror)
    }

    /// Opens the backup directory without changing anything, and checks that it belongs to this
    /// state file.
    fn backup_dir_to_read(&self) -> Result<BackupDir> {
        self.backup_dir_of(&self.open_root()?)
    }

    fn backup_dir_of(&self, root: &Dir) -> Result<BackupDir> {
        let backup_dir = BackupDir::open(&self.disk, root)
            .map_err(|error| side::refusal(root, BACKUPS, error))?;
        self.ownership().check_dir(&backup_dir)?;
        Ok(backup_dir)
    }

    fn open_root(&self) -> Result<Dir> {
        side::open_root(&self.disk, &self.settings.directory)
    }

    /// Warns of what the next write corrects. Does not warn about another tool's document.
    fn warn_of_file(&self, live: &Option<StateFile>) {
        let is_other_tools = |found: &&StateFile| match &found.reading {
            Reading::Unsealed(value) => value.get("phase").is_none(),
            _ => false,
        };
        let live = live.as_ref().filter(|found| !is_other_tools(found));
        if let Some(conversion) = live.and_then(|found| found.conversion) {
            let (shown, what) = (self.shown(), conversion.words());
            self.warn(format!(
                "{shown} has {what}, which this program did not write; the next write removes them"
            ));
        }
        if let Some(found) = live.filter(|found| found.stat.mode & 0o077 != 0) {
            let mode = found.stat.mode;
            self.warn(format!(
                "{} has mode {mode:04o}, looser than 0600; the next write tightens it",
                self.shown()
            ));
        }
    }

    /// The last entries of the error log, oldest first.
    pub fn logged_errors(&self) -> Vec<ErrorLogEntry> {
        self.errors.last()
    }
}
