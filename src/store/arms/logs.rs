//! What is noted about the store of either arm in the logs of this host.

use super::Store;
use crate::arms::each;
use crate::audit::{Audit, ErrorLogEntry};
use crate::error::Error;

/// The logs about a store.
#[derive(Clone, Copy, Debug)]
pub struct Logs<'s> {
    pub(super) store: &'s Store,
}

impl<'s> Logs<'s> {
    /// This host's log of what was done.
    pub fn audit(&self) -> &'s Audit {
        each!(Store: self.store, store => store.logs().audit())
    }

    /// The last entries of this host's error log, oldest first.
    pub fn errors(&self) -> Vec<ErrorLogEntry> {
        each!(Store: self.store, store => store.logs().errors(), _store => Vec::new())
    }

    /// Notes that a command was refused.
    pub fn record_refusal(&self, command: &str, error: &Error) {
        each!(Store: self.store, store => store.logs().record_refusal(command, error))
    }

    /// Notes that a recovery strategy was run.
    pub fn record_handling(&self, code: u8, outlook: &str) {
        each!(Store: self.store, store => store.logs().record_handling(code, outlook))
    }

    /// Notes how often a command was retried, and its last exit code.
    pub fn record_retries(&self, program: &str, times: u32, code: u8) {
        each!(Store: self.store, store => store.logs().record_retries(program, times, code))
    }
}
