//! Locks on an etcd cluster, for owners on any host.
//!
//! What callers may rely on:
//!
//! 1. A grant is a key that ends with a lease of its owner, and its token follows from the revision
//!    that created the key. Without a living lease there is no grant: such a transaction does
//!    nothing.
//! 2. A grant's guard is that no other was made since the snapshot on which it was decided. So of
//!    two requests that saw a lock free, one is granted and the other looks again.
//! 3. A waiter is a key that ends with a lease of the waiting command. The order of the queue is
//!    that of their creation. A waiter watches the one key that blocks it, and looks again every
//!    few seconds, whatever it hears.
//! 4. The request that closes a cycle leaves in a transaction that requires all others of the
//!    cycle to be there still, so exactly one is refused.
//! 5. Each change has a random id, which shows what became of one that lost its answer.
//! 6. A grant is decided on a snapshot that shows the state to be here, and requires that to be so
//!    still: while the state moves, and where it is elsewhere, no lock is granted.
//!
//! The decisions are those of the modules above: this one reads and changes keys.

mod acquire;
mod commit;
mod cycle;
mod encoding;
mod ground;
mod keeper;
mod keeper_process;
mod keys;
mod lost;
mod mark;
mod notes;
mod operator;
mod oracle;
mod order;
mod owner;
mod release;
mod report;
mod run;
mod stand_in;
mod taken;
mod tokens;
mod wait;

use std::cell::RefCell;
use std::path::Path;
use std::process::ExitStatus;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use self::keeper_process::Keeping;
use super::edit::{Acquired, BreakTarget};
use super::lifeline::Lifeline;
use super::log::LockLog;
use super::process::owner::LockEnv;
use super::record::{Grant, Token};
use super::release::Released;
use super::report::{LockEntry, LockSummary, Standing};
use super::request::{Request, Requester};
use super::run::RunSpec;
use super::{BrokenWait, describe};
use crate::audit::Audit;
use crate::error::{Error, ExitCode, Kind, Result};
use crate::etcd::client::Client;
use crate::etcd::failure::Failure;
use crate::etcd::fate::Fate;
use crate::name::Name;

pub use self::commit::{Ahead, Committer, Obstacle};
pub use self::encoding::Held;
pub use self::keeper_process::{Host, KEEP, main as keep};
pub use self::keys::{Entry, LockKeys};
pub use self::lost::Loss;
pub use self::mark::StateMark;
pub use self::tokens::Tokens;

/// How long a grant outlives the last sign of its owner's host, unless a request says otherwise.
pub const TTL: Duration = Duration::from_secs(30);

/// The callback that reports what blocks a request that waits long.
type WaitCallback = Rc<dyn Fn(&str)>;

/// What locks take from their surroundings.
pub struct Surroundings {
    /// The time.
    pub now: Box<dyn Fn() -> SystemTime>,
    /// The audit log.
    pub audit: Rc<Audit>,
    /// The host of the owners; without it no lease is kept.
    pub host: Option<Host>,
    /// The key that says where the state is.
    pub mark: StateMark,
}

impl std::fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Surroundings").finish_non_exhaustive()
    }
}

/// The locks of a store on a cluster.
pub struct RemoteLocks {
    client: Client,
    keys: LockKeys,
    /// The address, as it is shown.
    shown: String,
    env: LockEnv,
    log: LockLog,
    now: Box<dyn Fn() -> SystemTime>,
    host: Option<Host>,
    mark: StateMark,
    warnings: RefCell<Vec<String>>,
    on_wait: RefCell<Option<WaitCallback>>,
}

impl std::fmt::Debug for RemoteLocks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RemoteLocks").field("shown", &self.shown).finish_non_exhaustive()
    }
}

impl RemoteLocks {
    /// The locks with keys below `prefix`. `shown` is the store's address, for messages;
    /// `env` holds the owner and tokens that the environment names.
    pub fn new(
        client: Client,
        prefix: &str,
        shown: &str,
        env: LockEnv,
        surroundings: Surroundings,
    ) -> Self {
        let Surroundings { now, audit, host, mark } = surroundings;
        Self {
            client,
            keys: LockKeys::new(prefix),
            shown: shown.to_owned(),
            env,
            log: LockLog { audit, root: Path::new(shown).to_owned() },
            now,
            host,
            mark,
            warnings: RefCell::default(),
            on_wait: RefCell::default(),
        }
    }

    /// The owner and tokens that the environment names.
    pub fn env(&self) -> &LockEnv {
        &self.env
    }

    /// Warnings for the user that do not stop the command; the call empties the list.
    pub fn take_warnings(&self) -> Vec<String> {
        self.warnings.take()
    }

    /// Sets the callback that reports, once, what blocks a request that waits long.
    pub fn on_wait(&self, callback: impl Fn(&str) + 'static) {
        *self.on_wait.borrow_mut() = Some(Rc::new(callback));
    }

    /// Logs in the audit log that a command was refused.
    pub fn audit_refusal(&self, action: &str, error: &Error) {
        if error.code() != ExitCode::Usage {
            self.log.refused(action, error);
        }
    }

    /// Acquires all of the requested locks, waiting until the deadline.
    pub fn acquire(&self, request: &Request) -> Result<Vec<Acquired>> {
        keeper_process::revive(self, &request.requester);
        acquire::acquire(self, request, Keeping::Apart).map(|(acquired, _)| acquired)
    }

    /// Gives back grants that were made a moment ago and cannot be used.
    pub fn give_back(&self, acquired: &[Acquired]) {
        if let Err(error) = release::give_back(self, acquired) {
            self.warn(format!(
                "what was granted could not be given back: {error}; see `lock list`"
            ));
        }
    }

    /// Gives locks back, all or none: the grants of the requester or its nearest ancestor, or the
    /// one with this token.
    pub fn release(
        &self,
        names: &[Name],
        token: Option<Token>,
        requester: &Requester,
    ) -> Result<Vec<Released>> {
        let released = release::release(self, names, token, requester);
        keeper_process::revive(self, requester); // not before: what was lost is said
        released
    }

    /// Renews a grant's lease; returns its end if nothing renews it again, in seconds since 1970.
    pub fn renew(
        &self,
        name: &Name,
        ttl: Option<Duration>,
        token: Option<Token>,
        requester: &Requester,
    ) -> Result<f64> {
        keeper_process::revive(self, requester);
        release::renew(self, name, ttl, token, requester)
    }

    /// Takes a lock away from its holders, alive or not. Waiters keep their places in the queue.
    pub fn break_lock(&self, name: &Name, target: BreakTarget) -> Result<Vec<Grant>> {
        operator::break_lock(self, name, target)
    }

    /// Ends the wait of the waiter with this id, in all its queues.
    pub fn break_waiter(&self, lifeline: &Lifeline) -> Result<BrokenWait> {
        operator::break_waiter(self, lifeline)
    }

    /// Deletes the keys of owners and waiters that have ended on this host; returns how many.
    pub fn clean(&self) -> Result<usize> {
        operator::clean(self)
    }

    /// Runs a command while its locks are held; returns its exit status.
    pub fn run(&self, spec: &RunSpec) -> Result<ExitStatus> {
        run::run(self, spec)
    }

    /// The state of a lock.
    pub fn check(&self, name: &Name) -> Result<Standing> {
        report::check(self, name)
    }

    /// All holders and waiters, by lock; holders first, waiters in their order.
    pub fn list(&self) -> Result<Vec<LockEntry>> {
        report::list(self)
    }

    /// The number of entries of each kind.
    pub fn summary(&self) -> Result<LockSummary> {
        report::summary(self)
    }

    fn now(&self) -> SystemTime {
        (self.now)()
    }

    fn warn(&self, warning: impl Into<String>) {
        self.warnings.borrow_mut().push(warning.into());
    }

    /// Reports what a request waits for.
    fn notify(&self, blockers: &str) {
        let callback = self.on_wait.borrow().clone();
        if let Some(notify) = callback {
            notify(blockers);
        }
    }
}

/// A random number above 0: the id of a lease.
fn new_lease() -> Result<i64> {
    Ok((i64::from_be_bytes(random()?) & i64::MAX).max(1))
}

/// A random id of a change.
fn new_change() -> Result<String> {
    Ok(format!("{:016x}", u64::from_be_bytes(random()?)))
}

fn random() -> Result<[u8; 8]> {
    let mut bytes = [0; 8];
    crate::os::fill_random(&mut bytes).map_err(|errno| {
        Error::new(Kind::Io, format!("the kernel has no random bytes: {errno}"))
    })?;
    Ok(bytes)
}

/// The error of a change of locks: `what` may have happened if no answer says what became of it.
fn failed(failure: Failure, names: &[Name], what: &str) -> Error {
    if failure.fate != Fate::Unknown {
        return failure.into();
    }
    let message = format!("{} may be {what}: {failure}", describe::join(names));
    Error::new(Kind::DurabilityUnknown, message)
        .hint_command("lock list", "see whether it is")
        .detail("locks", names.iter().map(Name::as_str).collect::<Vec<_>>())
        .caused_by(failure)
}
