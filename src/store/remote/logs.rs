//! What commands note in this host's log.

use super::RemoteStore;
use crate::audit::{Audit, Level};
use crate::error::Error;
use crate::journal::event::action_of;
use crate::store::logged::{self, recovery};

/// The log of this host.
#[derive(Clone, Copy, Debug)]
pub struct Logs<'s> {
    pub(in crate::store) store: &'s RemoteStore,
}

impl<'s> Logs<'s> {
    /// This host's log of what was done.
    pub fn audit(&self) -> &'s Audit {
        &self.store.surroundings.audit
    }

    /// Notes that a command was refused.
    pub fn record_refusal(&self, command: &str, error: &Error) {
        self.store.log(logged::refusal(action_of(command), error));
    }

    /// Notes that a recovery strategy was run.
    pub fn record_handling(&self, code: u8, outlook: &str) {
        let entry = recovery(Level::Info, "handle", "handled").with("code", code);
        self.store.log(entry.with("outlook", outlook).with("pid", std::process::id()));
    }

    /// Notes how often a command was retried, and its last exit code.
    pub fn record_retries(&self, program: &str, times: u32, code: u8) {
        if times > 0 {
            let entry = recovery(Level::Info, "retry", "retried").with("times", times);
            let entry = entry.with("code", code).with("program", program);
            self.store.log(entry.with("pid", std::process::id()));
        }
    }

    /// Notes that a command was guarded, and its exit code.
    pub fn record_guard(&self, operation: &str, code: u8) {
        let entry = recovery(Level::Info, "guard", "guarded").with("operation", operation);
        self.store.log(entry.with("code", code).with("pid", std::process::id()));
    }
}
