//! Locks that belong to the script, not to the command that took them.
//!
//! # The protocol
//!
//! 1. An owner is a process: pid, start time, boot, pid namespace ([`process`]). A command acts for its parent by default,
//!    and what its ancestors hold counts as its own ([`owner`]).
//! 2. What is on record for a lock, holders and waiters, is one JSON file, replaced by rename, never written in place
//!    ([`record`]); changed only under the gate, one short flock for the root, several by way of a journal ([`gate`]).
//! 3. Who asks puts itself into the queue under the gate, unless nobody is in the way ([`queue`]). Nobody grants a lock to
//!    another: a waiter looks, and when nobody is in its way any more it passes the gate, looks again and takes it ([`acquire`]).
//! 4. Between looks it sleeps until whoever takes something off the record wakes it, or an owner ends ([`wait`]).
//! 5. A record names its owner; whether that lives is judged anew by whoever looks ([`liveness`]). So a death needs no
//!    clean-up: the next who looks takes the dead off the record, owner or waiter. Across pid namespaces an flock proves
//!    a waiter's life ([`lifeline`]); a waiter that lives and leaves its free lock is passed over ([`idle`]).
//! 6. Before it sleeps it looks whether it would wait for itself ([`deadlock`]), and asks in order ([`hierarchy`]).
//! 7. Every grant has a number that was never used before in this root ([`token`]); a writer may be told to commit only
//!    while that grant is on record.
//! 8. The state itself is committed under an flock that needs no record ([`commit`]). Who is granted `state` takes that
//!    flock once, after the record is in place: what was committing has committed, and who comes later reads the record.
//! 9. Order of locks: the flock of the state, then the gate; of the tokens, then the gate; never the other way.
//!
//! # Limitations
//!
//! Locks are advisory. `rm -rf .locks` frees them all. A process that was cloned with its whole machine (the same boot id
//! and pids twice on one network disk) is taken for itself. On a network file system flock and inotify may lie.

pub mod acquire;
pub mod along;
pub mod break_up;
pub mod commit;
pub mod deadlock;
pub mod draft;
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

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Instant;

use self::owner::Claim;
use self::process::Identity;
use serde_json::Value;

use crate::audit::{Audit, Entry, Level};
use crate::error::{Error, ExitCode, Kind, Result};
use crate::fs::Disk;

/// The directory of locks, beside the state file.
pub const LOCKS: &str = ".locks";
/// The flock of every commit, in [`LOCKS`].
pub const STATE_LOCK: &str = "state.lock";
/// The files of `.locks` that have one place.
pub const FILES: [&str; 6] = [STATE_LOCK, gate::GATE, gate::PENDING, token::COUNTER, token::RESERVED, token::RESERVING];
/// The lock that stands for the state.
pub const STATE: &str = "state";

/// The locks of one root.
#[derive(Debug)]
pub struct Locks {
    disk: Disk,
    directory: PathBuf,
    claim: Claim,
    audit: Rc<Audit>,
    warnings: RefCell<Vec<String>>,
    teller: RefCell<Option<Teller>>,
}

/// Told once of who is in the way, when a wait takes long.
#[derive(Clone)]
struct Teller(Rc<dyn Fn(&str)>);

impl std::fmt::Debug for Teller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Teller")
    }
}

impl Locks {
    /// The locks beside the state file in `directory`; `claim` is what the environment says about who asks.
    #[must_use]
    pub fn new(disk: Disk, directory: &Path, claim: Claim, audit: Rc<Audit>) -> Self {
        Self {
            disk,
            directory: directory.to_owned(),
            claim,
            audit,
            warnings: RefCell::default(),
            teller: RefCell::default(),
        }
    }

    /// What the environment says about who asks.
    #[must_use]
    pub fn claim(&self) -> &Claim {
        &self.claim
    }

    /// What deserves the user's attention although the command goes on; emptied by the call.
    pub fn take_warnings(&self) -> Vec<String> {
        std::mem::take(&mut *self.warnings.borrow_mut())
    }

    /// Has `teller` told who is in the way when a wait takes long.
    pub fn tell_by(&self, teller: impl Fn(&str) + 'static) {
        *self.teller.borrow_mut() = Some(Teller(Rc::new(teller)));
    }

    fn tell(&self, who: &str) {
        let teller = self.teller.borrow().clone();
        if let Some(Teller(tell)) = teller {
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

    fn entry(&self, level: Level, action: &str, text: &str) -> Entry {
        Entry::new(level, &format!("lock-manager/{action}"), text)
    }

    /// Notes in the audit log that a command was refused.
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

    /// A line about one grant in the audit log.
    fn audit_grant(&self, action: &str, text: &str, name: &crate::name::Name, grant: &record::Grant) {
        self.audit.record(&self.grant_entry(action, text, name, grant));
    }

    fn grant_entry(&self, action: &str, text: &str, name: &crate::name::Name, grant: &record::Grant) -> Entry {
        let owner = grant.owner.as_ref().map_or_else(|| "unknown".to_owned(), |owner: &Identity| owner.pid.to_string());
        let entry = self.entry(Level::Info, action, text).with("lock", name).with("token", grant.token);
        let entry = entry.with("mode", grant.mode).with("owner", owner).with("pid", std::process::id());
        entry.with("root", self.directory.display())
    }
}

/// Ends a loop of starting over, which only somebody who keeps removing `.locks` can keep going.
fn give_up_after(deadline: Instant) -> Result<()> {
    if Instant::now() < deadline {
        return Ok(());
    }
    let message = format!("something else keeps removing {LOCKS}; nothing was changed");
    Err(Error::new(Kind::Conflict, message).try_command("lock status", "see how the locks are"))
}
