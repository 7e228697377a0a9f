//! The lines of writers in the audit log.

use std::time::Duration;

use super::layout::automatic_reason;
use super::options::WriteOptions;
use crate::audit::{AuditEntry, Level};
use crate::document::seal::Sealed;
use crate::error::{Error, ExitCode, Kind};

/// A line of what the action of a `state` command did.
pub(super) fn entry(level: Level, action: &str, text: &str) -> AuditEntry {
    AuditEntry::new(level, &format!("state-manager/{action}"), text)
}

/// A line of what the action of a `recover` command did.
pub(super) fn recovery(level: Level, action: &str, text: &str) -> AuditEntry {
    AuditEntry::new(level, &format!("error-recovery/{action}"), text)
}

/// The line of a commit, after the writer waited that long for its turn.
pub(super) fn commit(options: &WriteOptions, sealed: &Sealed, waited: Duration) -> AuditEntry {
    let seal = &sealed.document.seal;
    let reason = options.reason.as_deref().unwrap_or(options.action);
    entry(Level::Info, options.action, "committed")
        .with("revision", seal.revision)
        .with("reason", automatic_reason(reason, options.action))
        .with("pid", std::process::id())
        .with("command", options.command())
        .with("lineage", &seal.lineage)
        .with("bytes", sealed.text.size())
        .with("waited", format!("{:.6}", waited.as_secs_f64()))
}

/// The line of a refusal of `action`.
pub(super) fn refusal(action: &str, error: &Error) -> AuditEntry {
    let level = if is_of_input(error) { Level::Warn } else { Level::Error };
    let entry = entry(level, action, "refused").with("code", error.code() as u8);
    entry.with("kind", error.kind.name()).with("pid", std::process::id())
}

/// Returns whether an error is about what the command was given, not about the state.
pub(super) fn is_of_input(error: &Error) -> bool {
    match error.code() {
        ExitCode::General => {
            !matches!(error.kind, Kind::Io | Kind::DurabilityUnknown | Kind::Internal)
        }
        code => matches!(code, ExitCode::ValidationFailed | ExitCode::Conflict),
    }
}
