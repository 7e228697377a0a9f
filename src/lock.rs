//! Locks that belong to a script, not to the command that acquired them.
//!
//! [`Locks`] is the door. The modules beside it decide and touch no file; `process` reads the
//! kernel's processes; everything that touches files is in [`files`].
//!
//! # The protocol
//!
//! 1. An owner is a process: pid, start time, boot, pid namespace (`identity`). By default a
//!    command acts for its parent, and the locks of its ancestors count as its own ([`owner`]).
//! 2. A lock's record lists its holders in one JSON file, which is replaced by rename and never
//!    written in place (`record`). Its queue is a directory with a file for each waiter
//!    ([`queue_entry`]). Both change only while the gate is held, one short flock for the root; a
//!    change of several records goes through a journal ([`files::gate`]).
//! 3. A requester enqueues itself while it holds the gate, unless nothing blocks it ([`queue`]). No
//!    process grants a lock to another: a waiter re-checks the records, and once nothing blocks it
//!    any more it takes the gate, checks again and acquires the lock ([`admission`]).
//! 4. Between checks a waiter sleeps until a process that removed a grant or a waiter wakes it, or
//!    until an owner or the waiter before it ends ([`files::park`]).
//! 5. A record names its owner; each reader decides for itself whether that owner lives
//!    ([`liveness`]). So a death needs no clean-up: the next request drops dead owners and waiters
//!    from the record. Across pid namespaces an flock proves that a waiter lives (`lifeline`); a
//!    living waiter that does not take its free lock is passed over ([`idle`]).
//! 6. A request asks for locks in order ([`hierarchy`]). Once it has joined the queues it searches
//!    for a cycle, without the gate, and confirms with it what it found ([`deadlock`]).
//! 7. Every grant has a number that was never used before in this root ([`files::tokens`]); a
//!    writer may be required to commit only while that grant is on record ([`Fence`]).
//! 8. The state itself is committed under an flock that needs no record ([`files::commit`]). A new
//!    holder of `state` takes that flock once, after its record is in place: commits under way have
//!    then finished, and later commits read the record.
//! 9. Lock order: the flock of the state, then the gate; the flock of the tokens, then the gate;
//!    never the reverse.
//!
//! # Limitations
//!
//! Locks are advisory. `rm -rf .locks` frees them all. A process that was cloned with its whole
//! machine (the same boot id and pids twice on one network disk) is mistaken for the original. On a
//! network file system flock and inotify may be unreliable.

pub mod admission;
mod author;
pub mod deadlock;
mod describe;
pub mod edit;
mod fence;
pub mod files;
pub mod hierarchy;
mod identity;
pub mod idle;
pub mod layout;
mod lifeline;
mod limits;
pub mod liveness;
mod log;
mod process;
pub mod queue;
pub mod queue_entry;
mod record;
mod refusal;
pub mod release;
#[cfg(feature = "etcd")]
pub mod remote;
mod report;
mod request;
mod run;

use std::process::ExitStatus;
use std::time::{Duration, Instant};

pub use self::author::origin;
pub use self::describe::{describe_process, shorten};
pub use self::edit::{Acquired, BreakTarget};
pub use self::fence::Fence;
pub use self::files::FileLocks;
pub use self::files::break_lock::BrokenWait;
pub use self::files::commit::CommitTurn;
pub use self::files::flock::FileLock;
pub use self::files::flock_holder::{FlockHolder, flock_holder};
pub use self::files::gate::Gate;
pub use self::files::guard_lifeline::GuardLifeline;
pub use self::files::implicit::ImplicitLocks;
pub use self::files::slot::QueueSlot;
pub use self::identity::{BootMatch, Identity, Namespace};
pub use self::layout::{COUNTER, GATE, LOCK_FILES, LOCKS, STATE_LOCK};
pub use self::lifeline::Lifeline;
pub use self::liveness::Liveness;
pub use self::process::launch::{LAUNCH, LOCK_TOKEN, OWNER_PID, become_command};
pub use self::process::owner::{self, LEASE_TTL, LockEnv};
pub use self::process::{ancestry, command_of, process_name};
pub use self::record::{Grant, Mode, Place, Purpose, Record, Token, Waiter};
pub use self::refusal::AlreadyHeld;
use self::release::Released;
pub use self::report::{EntryStatus, LockEntry, LockSummary, Standing};
pub use self::request::{
    Deadline, Deadlocks, MAX_LOCKS, Reentrancy, Request, RequestSpec, Requester, STATE,
};
pub use self::run::{KeeperPlace, OnLost, RunSpec};
use crate::arms::each;
use crate::error::{Error, Result};
use crate::name::Name;

/// The locks of a state: in files beside it, or on a cluster.
#[derive(Debug)]
pub enum Locks {
    /// In files.
    Files(Box<FileLocks>),
    /// On an etcd cluster.
    #[cfg(feature = "etcd")]
    Remote(Box<remote::RemoteLocks>),
}

impl Locks {
    /// The owner and tokens that the environment names.
    pub fn env(&self) -> &LockEnv {
        each!(Self: self, locks => locks.env())
    }

    /// Warnings for the user that do not stop the command; the call empties the list.
    pub fn take_warnings(&self) -> Vec<String> {
        each!(Self: self, locks => locks.take_warnings())
    }

    /// Sets the callback that reports, once, what blocks a request that waits long.
    pub fn on_wait(&self, callback: impl Fn(&str) + 'static) {
        each!(Self: self, locks => locks.on_wait(callback));
    }

    /// Logs in the audit log that a command was refused.
    pub fn audit_refusal(&self, action: &str, error: &Error) {
        each!(Self: self, locks => locks.audit_refusal(action, error));
    }

    /// Acquires all of the requested locks, waiting until the deadline.
    pub fn acquire(&self, request: &Request) -> Result<Vec<Acquired>> {
        each!(Self: self, locks => locks.acquire(request))
    }

    /// Gives back grants that were made a moment ago and cannot be used.
    pub fn give_back(&self, acquired: &[Acquired]) {
        each!(Self: self, locks => locks.give_back(acquired));
    }

    /// Gives locks back, all or none: the grants of the requester or its nearest ancestor, or the
    /// one with this token.
    pub fn release(
        &self,
        names: &[Name],
        token: Option<Token>,
        requester: &Requester,
        deadline: Instant,
    ) -> Result<Vec<Released>> {
        each!(Self: self, locks => locks.release(names, token, requester, deadline),
            locks => locks.release(names, token, requester))
    }

    /// Renews a grant's time to live, counted from now; returns its end, in seconds since 1970.
    pub fn renew(
        &self,
        name: &Name,
        ttl: Option<Duration>,
        token: Option<Token>,
        requester: &Requester,
        deadline: Instant,
    ) -> Result<f64> {
        each!(Self: self, locks => locks.renew(name, ttl, token, requester, deadline),
            locks => locks.renew(name, ttl, token, requester))
    }

    /// Takes a lock away from its holders, alive or not. Waiters keep their places in the queue.
    pub fn break_lock(
        &self,
        name: &Name,
        target: BreakTarget,
        deadline: Instant,
    ) -> Result<Vec<Grant>> {
        each!(Self: self, locks => locks.break_lock(name, target, deadline),
            locks => locks.break_lock(name, target))
    }

    /// Ends the wait of the waiter with this lifeline, in all its queues.
    pub fn break_waiter(&self, lifeline: &Lifeline, deadline: Instant) -> Result<BrokenWait> {
        each!(Self: self, locks => locks.break_waiter(lifeline, deadline),
            locks => locks.break_waiter(lifeline))
    }

    /// Drops the records of dead owners and waiters; returns how many.
    pub fn clean(&self, deadline: Instant) -> Result<usize> {
        each!(Self: self, locks => locks.clean(deadline), locks => locks.clean())
    }

    /// Runs a command while its locks are held; returns its exit status.
    pub fn run(&self, spec: &RunSpec) -> Result<ExitStatus> {
        each!(Self: self, locks => locks.run(spec))
    }

    /// The state of a lock.
    pub fn check(&self, name: &Name) -> Result<Standing> {
        each!(Self: self, locks => locks.check(name))
    }

    /// All holders and waiters, by lock; holders first, waiters in their order.
    pub fn list(&self) -> Result<Vec<LockEntry>> {
        each!(Self: self, locks => locks.list())
    }

    /// The number of entries of each kind.
    pub fn summary(&self) -> Result<LockSummary> {
        each!(Self: self, locks => locks.summary())
    }
}
