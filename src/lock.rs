//! Locks that belong to a script, not to the command that acquired them.
//!
//! # The protocol
//!
//! 1. An owner is a process: pid, start time, boot, pid namespace ([`process`]). By default a
//!    command acts for its parent, and the locks of its ancestors count as its own ([`owner`]).
//! 2. A lock's record lists its holders and waiters in one JSON file, which is replaced by rename
//!    and never written in place ([`record`]). A record changes only while the gate is held, one
//!    short flock for the root; a change of several records goes through a journal ([`gate`]).
//! 3. A requester enqueues itself while it holds the gate, unless nothing blocks it ([`queue`]). No
//!    process grants a lock to another: a waiter re-checks the records, and once nothing blocks it
//!    any more it takes the gate, checks again and acquires the lock ([`acquire`]).
//! 4. Between checks a waiter sleeps until a process that removed an entry from the record wakes
//!    it, or until an owner ends ([`wait`]).
//! 5. A record names its owner; each reader decides for itself whether that owner lives
//!    ([`liveness`]). So a death needs no clean-up: the next request drops dead owners and waiters
//!    from the record. Across pid namespaces an flock proves that a waiter lives ([`lifeline`]); a
//!    living waiter that does not take its free lock is passed over ([`idle`]).
//! 6. Before a waiter sleeps it checks that the wait closes no cycle ([`deadlock`]) and that it
//!    requests locks in order ([`hierarchy`]).
//! 7. Every grant has a number that was never used before in this root ([`token`]); a writer may be
//!    required to commit only while that grant is on record.
//! 8. The state itself is committed under an flock that needs no record ([`commit`]). A new holder
//!    of `state` takes that flock once, after its record is in place: commits under way have then
//!    finished, and later commits read the record.
//! 9. Lock order: the flock of the state, then the gate; the flock of the tokens, then the gate;
//!    never the reverse.
//!
//! # Limitations
//!
//! Locks are advisory. `rm -rf .locks` frees them all. A process that was cloned with its whole
//! machine (the same boot id and pids twice on one network disk) is mistaken for the original. On a
//! network file system flock and inotify may be unreliable.

pub mod acquire;
pub mod along;
pub mod break_up;
pub mod commit;
pub mod deadlock;
pub mod edit;
pub mod flock;
pub mod gate;
pub mod hierarchy;
pub mod holder;
pub mod idle;
pub mod journal;
pub mod launch;
pub mod lifeline;
pub mod limits;
pub mod line;
pub mod liveness;
pub mod look;
#[cfg(test)]
mod model;
pub mod owner;
pub mod process;
pub mod queue;
pub mod record;
pub mod release;
pub mod report;
pub mod request;
pub mod run;
pub mod token;
pub mod wait;
pub mod words;

pub use self::acquire::Acquired;
pub use self::along::ImplicitLocks;
pub use self::break_up::{BreakTarget, BrokenWait};
pub use self::commit::CommitTurn;
pub use self::flock::FileLock;
pub use self::gate::GATE;
pub use self::holder::{FlockHolder, flock_holder};
pub use self::launch::{LAUNCH, LOCK_TOKEN, OWNER_PID, become_command};
pub use self::lifeline::Lifeline;
pub use self::line::QueueSlot;
pub use self::owner::LockEnv;
pub use self::process::{Identity, Namespace, ancestry, command_of, process_name, watch_process};
pub use self::queue::{Reentrancy, RequestSpec};
pub use self::record::{Grant, Mode, Purpose, Record, Token, Waiter};
pub use self::report::{LockEntry, LockSummary, Standing};
pub use self::request::{Deadline, Deadlocks, MAX_LOCKS, Request};
pub use self::run::RunSpec;
pub use self::token::{COUNTER, Fence};
pub use self::words::{AlreadyHeld, describe_process, shorten};

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Instant;

use serde_json::Value;

use crate::audit::{Audit, AuditEntry, Level};
use crate::error::{Error, ExitCode, Kind, Result};
use crate::fs::Disk;

/// The directory of locks, beside the state file.
pub const LOCKS: &str = ".locks";
/// The lock file in [`LOCKS`] that every commit takes.
pub const STATE_LOCK: &str = "state.lock";
/// The files of `.locks` that have a fixed name.
pub const LOCK_FILES: [&str; 6] =
    [STATE_LOCK, gate::GATE, gate::PENDING, token::COUNTER, token::RESERVED, token::RESERVING];
/// The name of the lock that protects the state.
pub const STATE: &str = "state";

/// The locks of one root.
#[derive(Debug)]
pub struct Locks {
    disk: Disk,
    directory: PathBuf,
    env: LockEnv,
    audit: Rc<Audit>,
    warnings: RefCell<Vec<String>>,
    callback: RefCell<Option<WaitCallback>>,
}

/// The callback that reports, once, what blocks a request that waits long.
#[derive(Clone)]
struct WaitCallback(Rc<dyn Fn(&str)>);

impl std::fmt::Debug for WaitCallback {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Teller")
    }
}

impl Locks {
    /// The locks beside the state file in `directory`; `claim` holds the owner and tokens that the
    /// environment names.
    pub fn new(disk: Disk, directory: &Path, env: LockEnv, audit: Rc<Audit>) -> Self {
        Self {
            disk,
            directory: directory.to_owned(),
            env,
            audit,
            warnings: RefCell::default(),
            callback: RefCell::default(),
        }
    }

    /// The owner and tokens that the environment names.
    pub fn env(&self) -> &LockEnv {
        &self.env
    }

    /// Warnings for the user that do not stop the command; the call empties the list.
    pub fn take_warnings(&self) -> Vec<String> {
        std::mem::take(&mut *self.warnings.borrow_mut())
    }

    /// Sets the callback that reports what blocks a request that waits long.
    pub fn on_wait(&self, callback: impl Fn(&str) + 'static) {
        *self.callback.borrow_mut() = Some(WaitCallback(Rc::new(callback)));
    }

    fn tell(&self, who: &str) {
        let callback = self.callback.borrow().clone();
        if let Some(WaitCallback(tell)) = callback {
            tell(who);
        }
    }

    fn warn(&self, warning: impl Into<String>) {
        let warning = warning.into();
        let mut warnings = self.warnings.borrow_mut();
        if !warnings.contains(&warning) {
            warnings.push(warning);
        }
    }

    fn entry(&self, level: Level, action: &str, text: &str) -> AuditEntry {
        AuditEntry::new(level, &format!("lock-manager/{action}"), text)
    }

    /// Logs in the audit log that a command was refused.
    pub fn audit_refusal(&self, action: &str, error: &Error) {
        let is_initialized = self.dir().is_ok_and(|dir| dir.is_some());
        if is_initialized && error.code() != ExitCode::Usage {
            let entry = self.entry(Level::Warn, action, "refused").with("code", error.code() as u8);
            let entry = entry.with("kind", error.kind.name()).with("pid", std::process::id());
            let locks = error.details.get("lock").or_else(|| error.details.get("locks"));
            let entry = match locks {
                Some(Value::String(name)) => entry.with("lock", name),
                Some(names) => entry.with("lock", names),
                None => entry,
            };
            self.audit.record(&entry.with("root", self.directory.display()));
        }
    }

    /// Writes a line about one grant to the audit log.
    fn audit_grant(
        &self,
        action: &str,
        text: &str,
        name: &crate::name::Name,
        grant: &record::Grant,
    ) {
        self.audit.record(&self.grant_entry(action, text, name, grant));
    }

    fn grant_entry(
        &self,
        action: &str,
        text: &str,
        name: &crate::name::Name,
        grant: &record::Grant,
    ) -> AuditEntry {
        let owner = grant
            .owner
            .as_ref()
            .map_or_else(|| "unknown".to_owned(), |owner: &Identity| owner.pid.to_string());
        let entry =
            self.entry(Level::Info, action, text).with("lock", name).with("token", grant.token);
        let entry =
            entry.with("mode", grant.mode).with("owner", owner).with("pid", std::process::id());
        entry.with("root", self.directory.display())
    }
}

/// Ends a loop that starts over, once the deadline has passed; only repeated removal of `.locks`
/// keeps such a loop going.
fn check_deadline(deadline: Instant) -> Result<()> {
    if Instant::now() < deadline {
        return Ok(());
    }
    let message = format!("something else keeps removing {LOCKS}; nothing was changed");
    Err(Error::new(Kind::Conflict, message).hint_command("lock status", "see how the locks are"))
}
