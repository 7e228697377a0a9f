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

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::process::ExitStatus;
use std::rc::Rc;
use std::time::{Duration, Instant};

pub use self::author::origin;
pub use self::describe::{describe_process, shorten};
pub use self::edit::{Acquired, BreakTarget};
pub use self::fence::Fence;
pub use self::files::break_lock::BrokenWait;
pub use self::files::commit::CommitTurn;
pub use self::files::flock::FileLock;
pub use self::files::flock_holder::{FlockHolder, flock_holder};
pub use self::files::gate::Gate;
pub use self::files::guard_lifeline::GuardLifeline;
pub use self::files::implicit::ImplicitLocks;
use self::files::root::LockRoot;
pub use self::files::run::RunSpec;
pub use self::files::slot::QueueSlot;
use self::files::{
    acquire, break_lock, clean, commit, events, guard_lifeline, records, release as giving_back,
    report as reading, run,
};
pub use self::identity::{BootMatch, Identity, Namespace};
pub use self::layout::{COUNTER, GATE, LOCK_FILES, LOCKS, STATE_LOCK};
pub use self::lifeline::Lifeline;
pub use self::liveness::Liveness;
use self::log::LockLog;
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
use crate::audit::Audit;
use crate::error::{Error, ExitCode, Kind, Result};
use crate::fs::{Dir, Disk};
use crate::name::Name;

/// The locks of one root. A second arm, for locks that are not files, would stand beside the root.
#[derive(Debug)]
pub struct Locks {
    root: LockRoot,
}

impl Locks {
    /// The locks beside the state file in `directory`; `env` holds the owner and tokens that the
    /// environment names.
    pub fn new(disk: Disk, directory: &Path, env: LockEnv, audit: Rc<Audit>) -> Self {
        let root = LockRoot {
            disk,
            directory: directory.to_owned(),
            env,
            log: LockLog { audit, root: directory.to_owned() },
            warnings: RefCell::default(),
            on_wait: RefCell::default(),
            is_journal_full: Cell::default(),
        };
        Self { root }
    }

    /// The owner and tokens that the environment names.
    pub fn env(&self) -> &LockEnv {
        &self.root.env
    }

    /// Warnings for the user that do not stop the command; the call empties the list.
    pub fn take_warnings(&self) -> Vec<String> {
        self.root.warnings.take()
    }

    /// Sets the callback that reports, once, what blocks a request that waits long.
    pub fn on_wait(&self, callback: impl Fn(&str) + 'static) {
        *self.root.on_wait.borrow_mut() = Some(Rc::new(callback));
    }

    /// Logs in the audit log that a command was refused.
    pub fn audit_refusal(&self, action: &str, error: &Error) {
        let is_initialized = records::open(&self.root).is_ok_and(|dir| dir.is_some());
        if is_initialized && error.code() != ExitCode::Usage {
            // These are on record: their lines were appended while holding the gate.
            if !matches!(error.kind, Kind::LockTimeout | Kind::Broken) {
                events::record_failure(&self.root, action, error);
            }
            self.root.log.refused(action, error);
        }
    }

    /// Acquires all of the requested locks, waiting until the deadline.
    pub fn acquire(&self, request: &Request) -> Result<Vec<Acquired>> {
        self.then_rotate(acquire::acquire(&self.root, request))
    }

    /// Rotates the journal if a line of this command filled it.
    fn then_rotate<T>(&self, result: T) -> T {
        events::rotate_full_journal(&self.root);
        result
    }

    /// Gives back grants that were made a moment ago and cannot be used.
    pub fn give_back(&self, acquired: &[Acquired]) {
        acquire::give_back(&self.root, acquired, acquire::GiveBack::Unused);
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
        self.then_rotate(giving_back::release(&self.root, names, token, requester, deadline))
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
        giving_back::renew(&self.root, name, ttl, token, requester, deadline)
    }

    /// Takes a lock away from its holders, alive or not. Waiters keep their places in the queue.
    pub fn break_lock(
        &self,
        name: &Name,
        target: BreakTarget,
        deadline: Instant,
    ) -> Result<Vec<Grant>> {
        break_lock::break_lock(&self.root, name, target, deadline)
    }

    /// Ends the wait of the waiter with this lifeline, in all its queues.
    pub fn break_waiter(&self, lifeline: &Lifeline, deadline: Instant) -> Result<BrokenWait> {
        break_lock::break_waiter(&self.root, lifeline, deadline)
    }

    /// Drops the records of dead owners and waiters, and the files they left; returns how many.
    pub fn clean(&self, deadline: Instant) -> Result<usize> {
        clean::clean(&self.root, deadline)
    }

    /// Runs a command while its locks are held; returns its exit status.
    pub fn run(&self, spec: &RunSpec) -> Result<ExitStatus> {
        self.then_rotate(run::run(&self.root, spec))
    }

    /// The state of a lock.
    pub fn check(&self, name: &Name) -> Result<Standing> {
        reading::check(&self.root, name)
    }

    /// All holders and waiters, by lock; holders first, waiters in their order.
    pub fn list(&self) -> Result<Vec<LockEntry>> {
        reading::list(&self.root)
    }

    /// The number of entries of each kind.
    pub fn summary(&self) -> Result<LockSummary> {
        reading::summary(&self.root)
    }

    /// The lifelines that records name.
    pub fn lifelines(&self) -> Result<Vec<Lifeline>> {
        let dir = records::open(&self.root)?;
        dir.map_or(Ok(Vec::new()), |dir| {
            records::Records { locks: &self.root, dir: &dir }.lifelines()
        })
    }

    /// Takes a lifeline for a guard of this process.
    pub fn guard_lifeline(&self, deadline: Instant) -> Result<GuardLifeline<'_>> {
        GuardLifeline::create(&self.root, deadline)
    }

    /// The liveness of a guard's process; its lifeline proves it where its pid does not.
    pub fn guard_liveness(
        &self,
        process: &Identity,
        lifeline: Option<&Lifeline>,
    ) -> Result<Liveness> {
        guard_lifeline::liveness(&self.root, process, lifeline)
    }

    /// Acquires these locks for the command itself if nothing blocks them; `None` if something
    /// does.
    pub fn try_acquire_implicit(&self, names: &[&str]) -> Result<Option<ImplicitLocks<'_>>> {
        ImplicitLocks::try_acquire(&self.root, names)
    }

    /// Acquires these locks for the command itself, waiting until nothing blocks them. The caller
    /// must hold nothing.
    pub fn acquire_implicit(&self, names: &[&str], deadline: Instant) -> Result<ImplicitLocks<'_>> {
        ImplicitLocks::acquire(&self.root, names, Deadline::at(deadline))
    }

    /// Waits for a commit's turn, in `dir` (`.locks` in `root`): the flock, and a place in the
    /// queue if one is needed. `None` if the flock's file was removed during the wait.
    pub fn commit_turn(
        &self,
        root: &Dir,
        dir: &Dir,
        deadline: Instant,
    ) -> Result<Option<CommitTurn<'_>>> {
        commit::commit_turn(&self.root, root, dir, deadline)
    }

    /// Takes the gate: no lock changes until it is dropped.
    pub fn enter_gate(&self, deadline: Instant) -> Result<Gate<'_>> {
        Gate::enter(&self.root, deadline)
    }

    /// Refuses a writer unless all of these grants are on record.
    pub fn check_fences(&self, fences: &[Fence]) -> Result<()> {
        commit::check_fences(&self.root, fences)
    }

    /// Checks the same while holding the gate; none of these grants can be removed until it is
    /// released.
    pub fn pass_fences(&self, fences: &[Fence], deadline: Instant) -> Result<Option<Gate<'_>>> {
        commit::pass_fences(&self.root, fences, deadline)
    }
}
