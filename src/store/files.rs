//! The store on a local file system: everything here touches files.
//!
//! [`FileStore::read`] takes no lock unless it has to heal, or to finish an interrupted restore.
//! Every replacement of the state file is one call of `FileStore::publish` in `commit`. Its callers
//! hold the state lock from their read to that call, and differ in the document that they publish:
//!
//! - [`change`]: the read-modify-write of ordinary writers,
//! - [`fresh`] and `new_lineage`: the first document, a new lineage, an adopted foreign edit,
//! - [`heal`]: the newest valid copy,
//! - [`restore`] and [`guard`]: the state of a checkpoint, or the document without a guard's
//!   changes.

pub mod absence;
mod adopt;
pub mod backup_dir;
mod backups;
mod begin;
mod belongs;
mod candidate;
pub mod change;
pub mod checkpoint;
mod commit;
mod events;
pub mod fresh;
pub mod guard;
pub mod heal;
#[cfg(feature = "etcd")]
pub mod host;
mod leftovers;
pub mod logs;
pub mod moving;
mod new_lineage;
mod next_revision;
mod observe;
mod preserve;
mod read;
mod record;
pub mod report;
pub mod restore;
mod root;
pub mod signal;
mod space;
mod staging;
pub mod state_file;
mod state_lock;
mod transaction;
mod undo;
pub mod writable;

use std::path::PathBuf;
use std::rc::Rc;

use self::absence::Absence;
use self::checkpoint::catalog::Checkpoints;
use self::fresh::Lineages;
use self::guard::Guards;
use self::logs::Logs;
use self::moving::Moves;
use self::read::READER_PATIENCE;
use self::report::Report;
use self::restore::{Intents, Restores};
use self::root::Root;
use self::writable::Obstacles;
use crate::audit::{Audit, ErrorLog};
use crate::error::Result;
use crate::fs::Disk;
use crate::lock::FileLocks;
use crate::name::Name;
use crate::store::change::{Change, Outcome};
use crate::store::files::adopt::Adoption;
use crate::store::files::change::Changes;
use crate::store::files::read::Reader;
use crate::store::fresh::{InitMode, Initialized};
use crate::store::heal::Recovered;
use crate::store::options::WriteOptions;
use crate::store::undo::Undone;
use crate::store::warnings::Warnings;
use crate::store::{Served, Settings, Wanted};

pub use self::events::EventLog;
pub use self::heal::Healing;
pub use self::restore::Probe;
pub use self::signal::SignalFiles;
pub use self::space::Space;

/// The state of one root.
#[derive(Debug)]
pub struct FileStore {
    disk: Disk,
    settings: Settings,
    audit: Rc<Audit>,
    locks: FileLocks,
    errors: ErrorLog,
    warnings: Warnings,
    absence: Absence,
}

impl FileStore {
    /// The store that `settings` describe, on `disk`.
    pub fn new(disk: Disk, settings: Settings, audit: Audit) -> Self {
        let audit = Rc::new(audit);
        let locks = FileLocks::new(
            disk.clone(),
            &settings.directory,
            settings.lock_env.clone(),
            audit.clone(),
        );
        let errors = ErrorLog::new(disk.clone(), &settings.directory);
        locks.refuse_grants(moving::refusal_of_grants(&disk, &settings));
        Self {
            disk,
            settings,
            audit,
            locks,
            errors,
            warnings: Warnings::default(),
            absence: Absence::WaitedOut,
        }
    }

    /// The same store for a command that must not wait for a missing state file.
    pub fn reporting_absence(self) -> Self {
        Self { absence: Absence::Reported, ..self }
    }

    /// The options that this store is kept with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The locks of this root.
    pub fn locks(&self) -> &FileLocks {
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

    /// Restores of checkpoints.
    pub fn restores(&self) -> Restores<'_> {
        Restores { store: self }
    }

    /// Moves of this state.
    pub fn moves(&self) -> Moves<'_> {
        Moves { store: self }
    }

    /// Lineages of this root.
    pub fn lineages(&self) -> Lineages<'_> {
        Lineages { store: self }
    }

    /// Reads the document. Damage is healed first; where that is impossible, the copy that healing
    /// would restore is served with a warning and nothing is changed.
    pub fn read(&self) -> Result<Served> {
        Reader::of(self).read()
    }

    /// Creates the document, unless the root has one.
    pub fn init(&self, mode: InitMode, options: &WriteOptions) -> Result<Initialized> {
        self.lineages().init(mode, options)
    }

    /// Changes the document.
    pub fn change(&self, options: &WriteOptions, make: &mut Change<'_>) -> Result<Outcome> {
        Changes::of(self).change(options, make)
    }

    /// Brings back the document that was current before the newest change.
    pub fn undo(&self, options: &WriteOptions) -> Result<Undone> {
        Changes::of(self).undo(options)
    }

    /// Backs the document up and returns the copy's path.
    pub fn backup(&self, name: Option<&Name>) -> Result<PathBuf> {
        Changes::of(self).backup(name)
    }

    /// Brings back a valid copy of the document.
    pub fn recover(&self, wanted: &Wanted, options: &WriteOptions) -> Result<Recovered> {
        Healing::of(self).recover(wanted, options)
    }

    /// Makes a foreign edit the next revision.
    pub fn adopt(&self, options: &WriteOptions) -> Result<Outcome> {
        Adoption::of(self).adopt(options)
    }

    /// Refuses a root whose side directories belong to another state file.
    pub fn check_ownership(&self) -> Result<()> {
        Root::of(self).backup_dir_to_read().map(drop)
    }

    /// Takes the warnings of this command: conditions that need attention but do not stop it.
    pub fn take_warnings(&self) -> Vec<String> {
        let logged = self.audit.warning().map(str::to_owned);
        self.warnings.take_with(self.locks.take_warnings().into_iter().chain(logged))
    }

    fn warn(&self, warning: impl Into<String>) {
        self.warnings.add(warning.into());
    }

    /// Its path, as it is shown.
    pub(in crate::store) fn shown(&self) -> String {
        self.settings.path().display().to_string()
    }
}
