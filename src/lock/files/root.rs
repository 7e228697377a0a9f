//! The root whose locks these are, as its files show them.

use std::cell::RefCell;
use std::fmt;
use std::path::PathBuf;
use std::rc::Rc;

use crate::fs::Disk;
use crate::lock::log::LockLog;
use crate::lock::process::owner::LockEnv;

/// The callback that reports what blocks a request that waits long.
type WaitCallback = Rc<dyn Fn(&str)>;

/// A root on a local file system.
pub(in crate::lock) struct LockRoot {
    pub disk: Disk,
    /// The directory that `.locks` is in.
    pub directory: PathBuf,
    pub env: LockEnv,
    pub log: LockLog,
    pub warnings: RefCell<Vec<String>>,
    pub on_wait: RefCell<Option<WaitCallback>>,
}

impl fmt::Debug for LockRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockRoot").field("directory", &self.directory).finish_non_exhaustive()
    }
}

impl LockRoot {
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
