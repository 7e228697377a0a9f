//! The store of a command: files below a root, or keys on a cluster. Both arms keep the same
//! promises; what each does is in [`files`](super::files) and `remote`.

mod checkpoints;
mod guards;
mod logs;
mod report;

use std::time::SystemTime;

use self::checkpoints::{Checkpoints, Restores};
use self::guards::Guards;
use self::logs::Logs;
use self::report::Report;
use super::change::{Change, Outcome};
use super::fresh::{InitMode, Initialized};
use super::heal::Recovered;
use super::options::WriteOptions;
#[cfg(feature = "etcd")]
use super::remote::{self, RemoteStore};
use super::undo::Undone;
use super::{FileStore, Healing, Served, Settings, Wanted};
use crate::arms::each;
use crate::document::diff::Difference;
use crate::error::{Error, Kind, Result};
use crate::name::Name;

/// The state that a command works with.
#[derive(Debug)]
pub enum Store {
    /// Files below a root.
    Files(Box<FileStore>),
    /// Keys on an etcd cluster.
    #[cfg(feature = "etcd")]
    Remote(Box<RemoteStore>),
}

impl Store {
    /// The same store for a command that must not wait for a missing state file.
    pub fn reporting_absence(self) -> Self {
        match self {
            Self::Files(store) => Self::Files(Box::new(store.reporting_absence())),
            #[cfg(feature = "etcd")]
            remote @ Self::Remote(_) => remote,
        }
    }

    /// Calls this with what a command waits for, where that takes long.
    pub fn on_wait(&self, notify: impl Fn(&str) + 'static) {
        each!(Self: self,
            store => store.locks().on_wait(notify),
            store => store.on_wait(Box::new(notify)));
    }

    /// The guards of this store.
    pub fn guards(&self) -> Guards<'_> {
        Guards { store: self }
    }

    /// Returns whether a reader would find no restore to finish, as far as this host shows; of
    /// files also that the document is there.
    pub fn is_at_rest(&self) -> bool {
        each!(Self: self, store => store.report().is_at_rest())
    }

    /// Reads the document. Damage is healed first, where that is allowed.
    pub fn read(&self) -> Result<Served> {
        each!(Self: self, store => store.read())
    }

    /// Creates the document, unless there is one.
    pub fn init(&self, mode: InitMode, options: &WriteOptions) -> Result<Initialized> {
        each!(Self: self, store => store.init(mode, options))
    }

    /// Changes the document.
    pub fn change(&self, options: &WriteOptions, make: &mut Change<'_>) -> Result<Outcome> {
        each!(Self: self, store => store.change(options, make))
    }

    /// Brings back the document that was current before the newest change.
    pub fn undo(&self, options: &WriteOptions) -> Result<Undone> {
        each!(Self: self, store => store.undo(options))
    }

    /// Brings back a valid copy of the document.
    pub fn recover(&self, wanted: &Wanted, options: &WriteOptions) -> Result<Recovered> {
        each!(Self: self, store => store.recover(wanted, options))
    }

    /// The copy that a recovery would restore, and the differences it would make; `None` if there
    /// is nothing to recover.
    pub fn plan_recovery(&self, wanted: &Wanted) -> Result<Option<(String, Vec<Difference>)>> {
        each!(Self: self,
            store => Healing::of(store).plan(wanted),
            store => remote::Healing::of(store).plan(wanted))
    }

    /// Makes a foreign edit the next revision.
    pub fn adopt(&self, options: &WriteOptions) -> Result<Outcome> {
        each!(Self: self, store => store.adopt(options))
    }

    /// Commits the document without changes: seals a legacy one, persists a migration.
    pub fn seal_as_it_is(&self, options: &WriteOptions) -> Result<Outcome> {
        each!(Self: self, store => store.lineages().seal_as_it_is(options))
    }

    /// Backs the document up, and returns the copy's path or name.
    pub fn backup(&self, name: Option<&Name>) -> Result<String> {
        each!(Self: self,
            store => Ok(store.backup(name)?.display().to_string()),
            store => store.backup(name))
    }

    /// The time of this store's records.
    pub fn now(&self) -> SystemTime {
        each!(Self: self, store => store.disk().now(), store => store.now())
    }

    /// The options that it is kept with.
    pub fn settings(&self) -> &Settings {
        each!(Self: self, store => store.settings())
    }

    /// Its path or address, as it is shown.
    pub fn place(&self) -> String {
        each!(Self: self, store => store.shown())
    }

    /// Takes the warnings of this command: conditions that need attention but do not stop it.
    pub fn take_warnings(&self) -> Vec<String> {
        each!(Self: self, store => store.take_warnings())
    }

    /// Its checkpoints.
    pub fn checkpoints(&self) -> Checkpoints<'_> {
        Checkpoints { store: self }
    }

    /// Restores of its checkpoints.
    pub fn restores(&self) -> Restores<'_> {
        Restores { store: self }
    }

    /// Reports on it.
    pub fn report(&self) -> Report<'_> {
        Report { store: self }
    }

    /// What is noted about it on this host.
    pub fn logs(&self) -> Logs<'_> {
        Logs { store: self }
    }

    /// The files, if it is kept in files.
    pub fn as_files(&self) -> Option<&FileStore> {
        match self {
            Self::Files(store) => Some(store),
            #[cfg(feature = "etcd")]
            Self::Remote(_) => None,
        }
    }

    /// The files, for a command that works with nothing else.
    pub fn files(&self) -> Result<&FileStore> {
        self.as_files().ok_or_else(|| works_on_files_only(&self.place()))
    }
}

/// The refusal of a command that cannot work with the store at `place`.
pub fn works_on_files_only(place: &str) -> Error {
    let message = format!("this command works on files, and the state is kept by {place}");
    Error::new(Kind::Usage, message)
        .hint_command("config", "see all settings, and where each is from")
        .detail("store", place)
}
