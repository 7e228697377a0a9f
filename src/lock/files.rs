//! The locks of a root on a local file system: everything here touches files, and decides nothing
//! that the modules beside it decide.

pub mod acquire;
pub mod break_lock;
pub mod case;
pub mod clean;
pub mod commit;
pub mod encoding;
pub mod events;
pub mod flock;
pub mod flock_holder;
pub mod gate;
pub mod guard_lifeline;
pub mod implicit;
pub mod journal;
pub mod load;
pub mod park;
pub mod probe;
mod queue_dir;
pub mod records;
pub mod release;
pub mod report;
pub mod reservation;
pub mod root;
pub mod run;
pub mod slot;
pub mod tokens;
pub mod wait;

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::process::ExitStatus;
use std::rc::Rc;
use std::time::{Duration, Instant};

use self::break_lock::BrokenWait;
use self::commit::CommitTurn;
use self::gate::Gate;
use self::root::LockRoot;
use super::edit::{Acquired, BreakTarget};
use super::fence::Fence;
use super::lifeline::Lifeline;
use super::log::LockLog;
use super::process::owner::LockEnv;
use super::record::{Grant, Token};
use super::release::Released;
use super::report::{LockEntry, LockSummary, Standing};
use super::request::{Request, Requester};
use super::run::RunSpec;
use crate::audit::Audit;
use crate::error::{Error, ExitCode, Kind, Result};
use crate::fs::{Dir, Disk};
use crate::name::Name;

/// The locks of one root.
#[derive(Debug)]
pub struct FileLocks {
    root: LockRoot,
}

impl FileLocks {
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
            refusal: RefCell::default(),
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
        then_rotate(&self.root, acquire::acquire(&self.root, request))
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
        then_rotate(&self.root, release::release(&self.root, names, token, requester, deadline))
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
        release::renew(&self.root, name, ttl, token, requester, deadline)
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
        then_rotate(&self.root, run::run(&self.root, spec))
    }

    /// The state of a lock.
    pub fn check(&self, name: &Name) -> Result<Standing> {
        report::check(&self.root, name)
    }

    /// All holders and waiters, by lock; holders first, waiters in their order.
    pub fn list(&self) -> Result<Vec<LockEntry>> {
        report::list(&self.root)
    }

    /// The number of entries of each kind.
    pub fn summary(&self) -> Result<LockSummary> {
        report::summary(&self.root)
    }

    /// The lifelines that records name.
    pub fn lifelines(&self) -> Result<Vec<Lifeline>> {
        let dir = records::open(&self.root)?;
        dir.map_or(Ok(Vec::new()), |dir| {
            records::Records { locks: &self.root, dir: &dir }.lifelines()
        })
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

    /// Sets what refuses reservations of tokens, and with them grants.
    pub fn refuse_grants(&self, refusal: impl Fn() -> Result<()> + 'static) {
        *self.root.refusal.borrow_mut() = Some(Rc::new(refusal));
    }

    /// Lets the next grant need a reservation of tokens, which may be refused. Returns the locks
    /// that are held; then nothing was changed.
    pub fn forget_tokens(&self, deadline: Instant) -> Result<Vec<String>> {
        tokens::forget(&self.root, deadline)
    }

    /// A number above every token handed out so far; 0 where there is no lock.
    pub fn tokens_end(&self) -> Result<u64> {
        tokens::end(&self.root)
    }

    /// Lets tokens go on from `end`, durably: lower ones were given out elsewhere.
    pub fn raise_tokens(&self, end: u64, deadline: Instant) -> Result<()> {
        tokens::raise(&self.root, end, deadline)
    }

    /// Checks the same while holding the gate; none of these grants can be removed until it is
    /// released.
    pub fn pass_fences(&self, fences: &[Fence], deadline: Instant) -> Result<Option<Gate<'_>>> {
        commit::pass_fences(&self.root, fences, deadline)
    }
}

/// Rotates the journal if a line of this command filled it.
fn then_rotate<T>(root: &LockRoot, result: T) -> T {
    events::rotate_full_journal(root);
    result
}
