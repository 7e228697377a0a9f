//! The store on an etcd cluster: the document, its log, its backups and signals are keys below one
//! prefix.
//!
//! What callers may rely on:
//!
//! 1. A commit is one transaction. Its guards are that the document is still the one that was
//!    read, that the revision has no record yet, that the lock `state` was granted to no owner
//!    since, and that each fence still holds.
//! 2. An acknowledged commit was carried out once, and is durable on a quorum. The transaction is
//!    sent again until its fate is known; the record of its revision names the commit.
//! 3. An error with code 8 means that the command's change was not made and never will be; damage
//!    may have been healed before. A commit of unknown fate is `durability_unknown`.
//! 4. A reader gets an answer of the cluster or an error; what a member remembers only with
//!    [`StaleReads::Accept`], and a warning.

mod adopt;
mod ahead;
mod backups;
mod change;
mod checkpoint;
mod claim;
mod commit;
mod condition;
mod conditions;
mod edits;
mod ground;
mod guard;
mod heal;
mod init;
mod intents;
mod keys;
mod lease;
mod log;
mod logs;
mod meta;
mod moving;
mod neighbours;
mod oddities;
mod preserve;
mod prune;
mod queue;
mod read;
mod report;
mod restore;
mod signals;
mod source;
mod trees;
mod undo;
mod watch;
mod writer;

use std::cell::{Cell, OnceCell};
use std::time::{Instant, SystemTime};

use self::adopt::Adoption;
use self::change::Changes;
pub use self::checkpoint::{Checkpoint, Checkpoints};
pub use self::condition::Condition;
pub use self::guard::Guards;
pub use self::heal::Healing;
use self::init::Lineages;
use self::intents::Intents;
use self::keys::KeySpace;
use self::logs::Logs;
use self::moving::Moves;
pub use self::moving::mark_of_state;
pub use self::oddities::{OddKey, Oddity, oddities};
use self::read::Reader;
use self::report::Report;
use self::restore::Restores;
pub use self::watch::KeyWatch;
use crate::audit::{Audit, AuditEntry};
use crate::error::Result;
use crate::etcd::client::{Client, OnWait};
use crate::journal::Origin;
use crate::lock;
use crate::lock::remote::Committer;
use crate::name::Name;
use crate::store::change::{Change, Outcome};
use crate::store::fresh::{InitMode, Initialized};
use crate::store::heal::Recovered;
use crate::store::host::Host;
use crate::store::options::WriteOptions;
use crate::store::undo::Undone;
use crate::store::warnings::Warnings;
use crate::store::{Served, Settings, Wanted};

/// The largest document, in bytes, counted as if its revision had the most digits: etcd takes
/// requests of 1.5 MiB, and its database is shared with others.
pub const DOCUMENT_LIMIT: usize = 1 << 20;

/// Whether a reader takes what a single member has where the cluster cannot answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StaleReads {
    /// It ends with the error.
    #[default]
    Refuse,
    /// It takes that, with a warning.
    Accept,
}

/// What a store takes from its surroundings.
pub struct Surroundings {
    /// The time.
    pub now: Box<dyn Fn() -> SystemTime>,
    /// The author of what happens at a time.
    pub origin: Box<dyn Fn(SystemTime) -> Origin>,
    /// How readers go on where the cluster cannot answer.
    pub stale_reads: StaleReads,
    /// This host's log of what was done.
    pub audit: Audit,
}

impl std::fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Surroundings").finish_non_exhaustive()
    }
}

/// A state on an etcd cluster.
#[derive(Debug)]
pub struct RemoteStore {
    client: Client,
    keys: KeySpace,
    /// The address, as it is shown.
    shown: String,
    settings: Settings,
    surroundings: Surroundings,
    /// What is on this host; none where only the document is worked with.
    host: Option<Host>,
    /// What owners have noted on this host of their grants.
    grants: Option<lock::remote::Host>,
    /// This command as a writer.
    committer: OnceCell<Committer>,
    warnings: Warnings,
    /// Until when reports ask a member at once.
    cut_off: Cell<Option<Instant>>,
}

impl RemoteStore {
    /// The store with keys below `prefix`. `shown` is its address, for messages.
    pub fn new(
        client: Client,
        prefix: &str,
        shown: &str,
        settings: Settings,
        surroundings: Surroundings,
    ) -> Self {
        let keys = KeySpace::new(prefix);
        let shown = shown.to_owned();
        Self {
            client,
            keys,
            shown,
            settings,
            surroundings,
            host: None,
            grants: None,
            committer: OnceCell::new(),
            warnings: Warnings::default(),
            cut_off: Cell::new(None),
        }
    }

    /// The same store with what owners have noted on this host of their grants.
    #[must_use]
    pub fn with_grants(self, grants: lock::remote::Host) -> Self {
        Self { grants: Some(grants), ..self }
    }

    /// The same store with what is on this host: `config/`.
    #[must_use]
    pub fn with_host(self, host: Host) -> Self {
        Self { host: Some(host), ..self }
    }

    /// Calls this once for each request that waits to learn whether it was carried out.
    pub fn on_wait(&self, notify: OnWait) {
        self.client.on_wait(notify);
    }

    /// Its address, as it is shown.
    pub(in crate::store) fn shown(&self) -> String {
        self.shown.clone()
    }

    /// The options that it is kept with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The time of its records.
    pub fn now(&self) -> SystemTime {
        (self.surroundings.now)()
    }

    /// The checkpoints of this store.
    pub fn checkpoints(&self) -> Checkpoints<'_> {
        Checkpoints { store: self }
    }

    /// The log of this host.
    pub fn logs(&self) -> Logs<'_> {
        Logs { store: self }
    }

    /// Reports of this store.
    pub fn report(&self) -> Report<'_> {
        Report { store: self }
    }

    /// The record of an interrupted restore.
    pub fn intents(&self) -> Intents<'_> {
        Intents { store: self }
    }

    /// The guards of this store.
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

    /// Lineages of this store.
    pub fn lineages(&self) -> Lineages<'_> {
        Lineages { store: self }
    }

    /// Reads the document. Damage is healed first, where that is allowed.
    pub fn read(&self) -> Result<Served> {
        Reader::of(self).read()
    }

    /// Makes the first document where there is no history; heals and migrates where needed.
    pub fn init(&self, mode: InitMode, options: &WriteOptions) -> Result<Initialized> {
        self.lineages().init(mode, options)
    }

    /// Changes the document: one atomic read-modify-write.
    pub fn change(&self, options: &WriteOptions, make: &mut Change<'_>) -> Result<Outcome> {
        Changes::of(self).change(options, make)
    }

    /// Brings back the document that was current before the newest change.
    pub fn undo(&self, options: &WriteOptions) -> Result<Undone> {
        Changes::of(self).undo(options)
    }

    /// Makes a pinned copy of the current document, and returns its name.
    pub fn backup(&self, name: Option<&Name>) -> Result<String> {
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

    /// Takes the warnings of this command: conditions that need attention but do not stop it.
    pub fn take_warnings(&self) -> Vec<String> {
        let logged = self.surroundings.audit.warning().map(str::to_owned);
        let of_host = self.host.iter().flat_map(Host::take_warnings);
        self.warnings.take_with(logged.into_iter().chain(of_host))
    }

    fn log(&self, entry: AuditEntry) {
        self.surroundings.audit.record(&entry.with("store", &self.shown));
    }

    fn warn(&self, warning: impl Into<String>) {
        self.warnings.add(warning.into());
    }
}
