//! The store on an etcd cluster: the document, its log, its backups and signals are keys below one
//! prefix.
//!
//! What callers may rely on:
//!
//! 1. A commit is one transaction. Its guards are that the document is still the one that was read,
//!    that the revision has no record yet, that the lock `state` was granted to no owner since, and that
//!    each fence still holds.
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
mod commit;
mod ground;
mod guard;
mod heal;
mod history;
mod init;
mod keys;
mod log;
mod meta;
mod moving;
mod neighbours;
mod oddities;
mod queue;
mod read;
mod report;
mod restore;
mod source;
mod status;
mod trees;
mod undo;
mod versions;
mod watch;

pub use self::checkpoint::{Checkpoint, Checkpoints};
pub use self::guard::Guards;
pub use self::moving::mark_of_state;

use std::cell::{Cell, OnceCell, RefCell};
use std::time::{Duration, Instant, SystemTime};

use self::keys::KeySpace;
pub use self::oddities::{OddKey, Oddity};
pub use self::status::Condition;
pub use self::watch::KeyWatch;
use crate::audit::{Audit, AuditEntry, Level};
use crate::error::{Error, Result};
use crate::etcd::client::{Client, OnWait};
use crate::etcd::messages::KeyValue;
use crate::journal::Origin;
use crate::lock::remote::Committer;
use crate::lock::{self, Fence};
use crate::store::host::Host;
use crate::store::options::check_deadline;
use crate::store::{Settings, logged};

/// The largest document, in bytes, counted as if its revision had the most digits: etcd takes
/// requests of 1.5 MiB, and its database is shared with others.
pub const DOCUMENT_LIMIT: usize = 1 << 20;

/// The pause of a writer that lost a race, at most; a random part of it.
const PAUSE: Duration = Duration::from_millis(20);

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
    warnings: RefCell<Vec<String>>,
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
            warnings: RefCell::default(),
            cut_off: Cell::new(None),
        }
    }

    /// The same store with what owners have noted on this host of their grants.
    #[must_use]
    pub fn with_grants(self, grants: lock::remote::Host) -> Self {
        Self { grants: Some(grants), ..self }
    }

    fn committer(&self) -> Result<&Committer> {
        if let Some(known) = self.committer.get() {
            return Ok(known);
        }
        let committer = Committer::new(&self.settings.lock_env)?;
        Ok(self.committer.get_or_init(|| committer))
    }

    /// Refuses a commit of a script that held the lock `state` and has lost it.
    fn check_lost(&self, holders: &[KeyValue]) -> Result<()> {
        match self.noted_grants() {
            Some(grants) => self.committer()?.check_lost(grants, holders, &self.client),
            None => Ok(()),
        }
    }

    /// What owners have noted on this host, if they have noted anything.
    fn noted_grants(&self) -> Option<&lock::remote::Host> {
        self.grants.as_ref().filter(|grants| !grants.notes().is_empty())
    }

    /// What became of the grant of a fence, as far as its script has noted it on this host.
    fn loss_of(&self, fence: &Fence) -> Option<lock::remote::Loss> {
        self.committer().ok()?.loss_of(self.noted_grants()?, fence, &self.client)
    }

    /// Starts the keepers again that were killed, of leases of the script that runs this command.
    fn revive_keepers(&self) {
        if let (Some(grants), Ok(committer)) = (self.noted_grants(), self.committer()) {
            committer.revive(grants);
        }
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
    pub fn place(&self) -> String {
        self.shown.clone()
    }

    /// The options that it is kept with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Takes the warnings of this command: conditions that need attention but do not stop it.
    pub fn take_warnings(&self) -> Vec<String> {
        let mut warnings = std::mem::take(&mut *self.warnings.borrow_mut());
        warnings.extend(self.surroundings.audit.warning().map(str::to_owned));
        warnings.extend(self.host.iter().flat_map(Host::take_warnings));
        warnings
    }

    /// Notes that a command was refused.
    pub fn record_refusal(&self, command: &str, error: &Error) {
        let action = command.rsplit(' ').next().unwrap_or_default();
        self.log(logged::refusal(action, error));
    }

    /// Notes that a recovery strategy was run.
    pub fn record_handling(&self, code: u8, outlook: &str) {
        let entry = logged::recovery(Level::Info, "handle", "handled").with("code", code);
        self.log(entry.with("outlook", outlook).with("pid", std::process::id()));
    }

    /// Notes how often a command was retried, and its last exit code.
    pub fn record_retries(&self, program: &str, times: u32, code: u8) {
        if times > 0 {
            let entry = logged::recovery(Level::Info, "retry", "retried").with("times", times);
            let entry = entry.with("code", code).with("program", program);
            self.log(entry.with("pid", std::process::id()));
        }
    }

    /// This host's log of what was done.
    pub fn audit(&self) -> &Audit {
        &self.surroundings.audit
    }

    fn log(&self, entry: AuditEntry) {
        self.surroundings.audit.record(&entry.with("store", &self.shown));
    }

    fn warn(&self, warning: impl Into<String>) {
        self.warnings.borrow_mut().push(warning.into());
    }

    fn warn_once(&self, warning: String) {
        let is_known = self.warnings.borrow().contains(&warning);
        if !is_known {
            self.warn(warning);
        }
    }

    /// The time of its records.
    pub fn now(&self) -> SystemTime {
        (self.surroundings.now)()
    }

    /// A random number for a lease.
    fn random_lease(&self) -> Result<i64> {
        let [a, b, c, d, e, f, g, h, ..] = super::next_revision::random()?;
        Ok((i64::from_be_bytes([a, b, c, d, e, f, g, h]) & i64::MAX).max(1))
    }

    /// Runs `attempt` until it has a result. One without a result was overtaken by another writer.
    fn retry<T>(&self, mut attempt: impl FnMut() -> Result<Option<T>>) -> Result<T> {
        let deadline = Instant::now() + self.settings.lock_timeout;
        loop {
            if let Some(done) = attempt()? {
                return Ok(done);
            }
            check_deadline(deadline)?;
            let [random, ..] = super::next_revision::random()?;
            std::thread::sleep(PAUSE * u32::from(random) / u32::from(u8::MAX));
        }
    }
}
