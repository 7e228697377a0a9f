//! The store of a command: files below a root, or keys on a cluster. Both arms keep the same
//! promises; what each does is in [`files`](super::files) and `remote`.

mod checkpoints;

use std::time::SystemTime;

use super::backups::Listed;
use super::change::{Change, Outcome};
use super::fresh::{InitMode, Initialized};
use super::guard::OnRecord;
use super::heal::{Healing, Recovered};
use super::options::WriteOptions;
#[cfg(feature = "etcd")]
use super::remote::RemoteStore;
use super::report::{Remembered, Status, Validation};
use super::undo::Undone;
use super::{FileStore, Served, Settings, Wanted};
use serde_json::Value;

use crate::audit::{Audit, ErrorLogEntry};
use crate::document::diff::Difference;
use crate::document::lazy::LazyDocument;
use crate::document::schema::OldForm;
use crate::error::{Error, Kind, Result};
use crate::journal::Events;
use crate::name::Name;
use crate::time::Since;

/// The state that a command works with.
#[derive(Debug)]
pub enum Store {
    /// Files below a root.
    Files(Box<FileStore>),
    /// Keys on an etcd cluster.
    #[cfg(feature = "etcd")]
    Remote(Box<RemoteStore>),
}

/// The same call of both arms.
macro_rules! either {
    ($store:expr, $one:ident => $call:expr) => {
        match $store {
            Store::Files($one) => $call,
            #[cfg(feature = "etcd")]
            Store::Remote($one) => $call,
        }
    };
}

/// A call of each arm.
macro_rules! each {
    ($store:expr, $files:ident => $call:expr, $remote:ident => $other:expr) => {
        match $store {
            Store::Files($files) => $call,
            #[cfg(feature = "etcd")]
            Store::Remote($remote) => $other,
        }
    };
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

    /// Returns whether a reader would find no restore to finish, as far as this host shows; of files
    /// also that the document is there.
    pub fn is_at_rest(&self) -> bool {
        each!(self, store => store.is_at_rest(),
            store => matches!(store.interrupted_restore(), Ok(None)))
    }

    /// The document that is there, valid or not, for reports; nothing is healed.
    pub fn read_as_it_is(&self) -> Result<Option<Value>> {
        each!(self, store => store.report().read_as_it_is(), store => store.read_as_it_is())
    }

    /// Reads the document. Damage is healed first, where that is allowed.
    pub fn read(&self) -> Result<Served> {
        either!(self, store => store.read())
    }

    /// Creates the document, unless there is one.
    pub fn init(&self, mode: InitMode, options: &WriteOptions) -> Result<Initialized> {
        either!(self, store => store.init(mode, options))
    }

    /// Changes the document.
    pub fn change(&self, options: &WriteOptions, make: &mut Change<'_>) -> Result<Outcome> {
        either!(self, store => store.change(options, make))
    }

    /// Brings back the document that was current before the newest change.
    pub fn undo(&self, options: &WriteOptions) -> Result<Undone> {
        either!(self, store => store.undo(options))
    }

    /// Brings back a valid copy of the document.
    pub fn recover(&self, wanted: &Wanted, options: &WriteOptions) -> Result<Recovered> {
        either!(self, store => store.recover(wanted, options))
    }

    /// The copy that a recovery would restore, and the differences it would make; `None` if there
    /// is nothing to recover.
    pub fn plan_recovery(&self, wanted: &Wanted) -> Result<Option<(String, Vec<Difference>)>> {
        each!(self, store => Healing::of(store).plan(wanted), store => store.plan_recovery(wanted))
    }

    /// Makes a foreign edit the next revision.
    pub fn adopt(&self, options: &WriteOptions) -> Result<Outcome> {
        either!(self, store => store.adopt(options))
    }

    /// Commits the document without changes: seals a legacy one, persists a migration.
    pub fn seal_as_it_is(&self, options: &WriteOptions) -> Result<Outcome> {
        each!(self, store => store.lineages().seal_as_it_is(options), store => store.seal_as_it_is(options))
    }

    /// The form that the document would be migrated from; `None` if it has the current form.
    pub fn pending_migration(&self) -> Result<Option<OldForm>> {
        each!(self, store => store.report().pending_migration(), store => store.pending_migration())
    }

    /// Backs the document up, and returns the copy's path or name.
    pub fn backup(&self, name: Option<&Name>) -> Result<String> {
        each!(self, store => Ok(store.backup(name)?.display().to_string()), store => store.backup(name))
    }

    /// The backups, newest first.
    pub fn backups(&self) -> Result<Vec<Listed>> {
        each!(self, store => store.report().backups(), store => store.backups())
    }

    /// The revisions that are remembered, newest first; at most `limit`.
    pub fn history(&self, limit: Option<usize>, since: Option<Since>) -> Result<Vec<Remembered>> {
        each!(self, store => store.report().history(limit, since), store => store.history(limit, since))
    }

    /// The differences between two revisions or backups; by default between the previous revision
    /// and the current document.
    pub fn differences(&self, old: Option<&str>, new: Option<&str>) -> Result<Vec<Difference>> {
        each!(self, store => store.report().differences(old, new), store => store.differences(old, new))
    }

    /// The remaining copies of the revisions between two that a watcher saw, oldest first.
    pub fn between(&self, seen: u64, current: u64) -> Result<Vec<LazyDocument>> {
        each!(self, store => {
                let found = store.report().between(seen, current);
                Ok(found.into_iter().map(|(_, document)| document).collect())
            }, store => store.between(seen, current))
    }

    /// The state's condition, and the error that other commands would end with.
    pub fn status(&self) -> Result<(Status, Option<Error>)> {
        each!(self, store => store.report().status(), store => store.status())
    }

    /// The events on record.
    pub fn events(&self) -> Result<Events> {
        each!(self, store => store.report().events(), store => store.events())
    }

    /// The guards on record; those of a cluster are with their checkpoints.
    pub fn guards(&self) -> Result<Vec<OnRecord>> {
        each!(self, store => store.guards().list(), _store => Ok(Vec::new()))
    }

    /// This host's log of what was done.
    pub fn audit(&self) -> &Audit {
        either!(self, store => store.audit())
    }

    /// The last entries of this host's error log, oldest first.
    pub fn logged_errors(&self) -> Vec<ErrorLogEntry> {
        each!(self, store => store.logged_errors(), _store => Vec::new())
    }

    /// The reason why an interrupted restore cannot be finished here.
    pub fn restore_obstacle(&self) -> Option<Error> {
        each!(self, store => store.obstacles().interrupted_restore().ok().flatten(), _store => None)
    }

    /// Checks the document as every command would.
    pub fn validate(&self) -> Result<Validation> {
        each!(self, store => store.report().validate(), store => store.validate())
    }

    /// The document that `state read` would serve, in words; `None` if there is none.
    pub fn served(&self) -> Option<String> {
        each!(self, store => store.lineages().served(), store => store.served())
    }

    /// The time of this store's records.
    pub fn now(&self) -> SystemTime {
        each!(self, store => store.disk().now(), store => store.now())
    }

    /// The options that it is kept with.
    pub fn settings(&self) -> &Settings {
        either!(self, store => store.settings())
    }

    /// Its path or address, as it is shown.
    pub fn place(&self) -> String {
        each!(self, store => store.path().display().to_string(), store => store.place())
    }

    /// Takes the warnings of this command: conditions that need attention but do not stop it.
    pub fn take_warnings(&self) -> Vec<String> {
        either!(self, store => store.take_warnings())
    }

    /// Notes that a command was refused.
    pub fn record_refusal(&self, command: &str, error: &Error) {
        each!(self, store => store.logs().record_refusal(command, error), store => store.record_refusal(command, error))
    }

    /// Notes that a recovery strategy was run.
    pub fn record_handling(&self, code: u8, outlook: &str) {
        match self {
            Self::Files(store) => store.logs().record_handling(code, outlook),
            #[cfg(feature = "etcd")]
            Self::Remote(store) => store.record_handling(code, outlook),
        }
    }

    /// Notes how often a command was retried, and its last exit code.
    pub fn record_retries(&self, program: &str, times: u32, code: u8) {
        match self {
            Self::Files(store) => store.logs().record_retries(program, times, code),
            #[cfg(feature = "etcd")]
            Self::Remote(store) => store.record_retries(program, times, code),
        }
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
