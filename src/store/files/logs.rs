//! What commands note in the audit log and the error log of a root.

use super::FileStore;
use super::events::EventLog;
use crate::audit::{Audit, AuditEntry, ErrorLogEntry, Level};
use crate::error::{Error, ExitCode};
use crate::fs::FileKind;
use crate::journal::Event;
use crate::journal::event::{Failure, RetryEvent, RetryStep, action_of};
use crate::store::layout::BACKUPS;
use crate::store::logged;
use crate::user;

/// The logs of a root.
#[derive(Clone, Copy, Debug)]
pub struct Logs<'s> {
    pub(in crate::store) store: &'s FileStore,
}

impl<'s> Logs<'s> {
    /// The audit log.
    pub fn audit(&self) -> &'s Audit {
        &self.store.audit
    }

    /// The last entries of the error log, oldest first.
    pub fn errors(&self) -> Vec<ErrorLogEntry> {
        self.store.errors.last()
    }

    /// Adds an entry to the error log with an exit code that need not be this program's, if this
    /// user owns the root.
    pub fn note_error(&self, level: Level, component: &str, message: &str, code: u8) {
        if self.root_owner() == Some(user::current()) {
            self.store.errors.note(level, component, message, code);
        }
    }

    /// Records in the error log how a wrapped command ended. The exit code is the command's own,
    /// not an error of this program.
    pub fn note_command(&self, component: &str, message: &str) {
        self.note_error(Level::Warn, component, message, ExitCode::Success as u8);
    }

    /// Records in the audit log that a recovery strategy was run.
    pub fn record_handling(&self, code: u8, outlook: &str) {
        if self.is_initialized() {
            let entry = self
                .recovery_entry(Level::Info, "handle", "handled")
                .with("code", code)
                .with("outlook", outlook);
            self.store
                .audit
                .record(&entry.with("pid", std::process::id()).with("path", self.store.shown()));
        }
    }

    /// Creates an empty error log where it is missing and this user owns the root.
    pub fn make_error_log(&self) {
        if self.root_owner() == Some(user::current()) {
            self.store.errors.make();
        }
    }

    /// Records in the journal a step of `recover retry`: `attempts` and `code` where it ended.
    pub fn record_retry(&self, program: &str, step: RetryStep, ended: Option<(u32, u8)>) {
        let program = program.rsplit('/').next().unwrap_or_default().to_owned();
        let (attempts, code) = ended.unzip();
        EventLog::of(self.store)
            .record(|origin| Event::Retry(RetryEvent { origin, step, program, attempts, code }));
    }

    /// Records in the audit log how often a command was retried, and its last exit code.
    pub fn record_retries(&self, program: &str, times: u32, code: u8) {
        if times > 0 && self.is_initialized() {
            let entry = self
                .recovery_entry(Level::Info, "retry", "retried")
                .with("times", times)
                .with("code", code);
            let entry = entry.with("program", program).with("pid", std::process::id());
            self.store.audit.record(&entry.with("path", self.store.shown()));
        }
    }

    /// Records in the audit log that a command was guarded, and its exit code.
    pub fn record_guard(&self, operation: &str, code: u8) {
        let entry =
            self.recovery_entry(Level::Info, "guard", "guarded").with("operation", operation);
        let entry = entry.with("code", code).with("pid", std::process::id());
        self.store.audit.record(&entry.with("path", self.store.shown()));
    }

    /// Records in the audit log what the doctor repaired, by the subjects of its findings.
    pub fn record_repairs(&self, subjects: &[&str], left: usize) {
        if self.is_initialized() {
            let entry = self
                .recovery_entry(Level::Info, "doctor", "mended")
                .with("fixed", subjects.join(","));
            let entry = entry.with("left", left).with("pid", std::process::id());
            self.store.audit.record(&entry.with("path", self.store.shown()));
        }
    }

    fn is_initialized(&self) -> bool {
        self.root_owner().is_some()
    }

    /// The owner of the root, if it is one. Files that root leaves in another user's root lock that
    /// user out.
    fn root_owner(&self) -> Option<u32> {
        let root = self.store.disk.open_root(&self.store.settings.directory).ok()?;
        let stat = self.store.disk.stat(&root, BACKUPS).ok()??;
        (stat.kind == FileKind::Directory).then_some(stat.uid)
    }

    /// Records a writer's failure in the journal and the logs, if this user owns the root. Invalid
    /// input is not recorded in the error log.
    pub fn record_refusal(&self, command: &str, error: &Error) {
        if !self.is_initialized() {
            return;
        }
        let action = action_of(command);
        EventLog::of(self.store)
            .record(|origin| Event::Failure(Failure::of(origin, command, error)));
        let entry = logged::refusal(action, error);
        self.store.audit.record(&entry.with("path", self.store.shown()));
        if !logged::is_of_input(error) {
            self.note_error(Level::Error, action, &error.message, error.code() as u8);
        }
    }

    pub(super) fn recovery_entry(&self, level: Level, action: &str, text: &str) -> AuditEntry {
        logged::recovery(level, action, text)
    }
}
