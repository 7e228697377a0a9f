//! The root whose locks these are, as its files show them.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::path::PathBuf;
use std::rc::Rc;

use crate::error::Result;
use crate::fs::Disk;
use crate::journal::Origin;
use crate::lock::author::origin;
use crate::lock::log::LockLog;
use crate::lock::process::owner::LockEnv;

/// The callback that reports what blocks a request that waits long.
type WaitCallback = Rc<dyn Fn(&str)>;

/// Refuses what a root is no longer for.
type Refusal = Rc<dyn Fn() -> Result<()>>;

/// A root on a local file system.
pub(in crate::lock) struct LockRoot {
    pub disk: Disk,
    /// The directory that `.locks` is in.
    pub directory: PathBuf,
    pub env: LockEnv,
    pub log: LockLog,
    pub warnings: RefCell<Vec<String>>,
    pub on_wait: RefCell<Option<WaitCallback>>,
    /// Refuses reservations of tokens, and with them grants: the state was moved away.
    pub refusal: RefCell<Option<Refusal>>,
    /// A line of this command filled the root's journal.
    pub is_journal_full: Cell<bool>,
}

impl fmt::Debug for LockRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockRoot").field("directory", &self.directory).finish_non_exhaustive()
    }
}

impl LockRoot {
    /// The author of an event that no request causes: the named owner, else the parent process.
    pub fn author(&self) -> Origin {
        origin(self.disk.now(), self.env.owner.unwrap_or_else(std::os::unix::process::parent_id))
    }

    /// Refuses a reservation of tokens where the root is no longer for grants.
    pub fn check_refusal(&self) -> Result<()> {
        let refusal = self.refusal.borrow().clone();
        refusal.map_or(Ok(()), |refusal| refusal())
    }

    /// Reports what a request waits for.
    pub fn notify(&self, blockers: &str) {
        let callback = self.on_wait.borrow().clone();
        if let Some(notify) = callback {
            notify(blockers);
        }
    }

    /// Warns the user, once, of what does not stop the command.
    pub fn warn(&self, warning: impl Into<String>) {
        let warning = warning.into();
        let mut warnings = self.warnings.borrow_mut();
        if !warnings.contains(&warning) {
            warnings.push(warning);
        }
    }
}
