//! The audit log of the locks of one root.

use std::path::PathBuf;
use std::rc::Rc;

use serde_json::Value;

use super::record::Grant;
use crate::audit::{Audit, AuditEntry, Level};
use crate::error::Error;
use crate::name::Name;

/// Writes what happens to locks into the audit log.
#[derive(Debug)]
pub(super) struct LockLog {
    pub audit: Rc<Audit>,
    pub root: PathBuf,
}

impl LockLog {
    /// Writes an entry, with the root.
    pub fn record(&self, entry: AuditEntry) {
        self.audit.record(&entry.with("root", self.root.display()));
    }

    /// An entry about locks.
    pub fn entry(&self, level: Level, action: &str, text: &str) -> AuditEntry {
        AuditEntry::new(level, &format!("lock-manager/{action}"), text)
    }

    /// An entry about one grant.
    pub fn grant(&self, action: &str, text: &str, name: &Name, grant: &Grant) -> AuditEntry {
        let owner = grant.owner.as_ref().map(|owner| owner.pid.to_string());
        self.entry(Level::Info, action, text)
            .with("lock", name)
            .with("token", grant.token)
            .with("mode", grant.mode)
            .with("owner", owner.as_deref().unwrap_or("unknown"))
            .with("pid", std::process::id())
    }

    /// Writes that a command was refused.
    pub fn refused(&self, action: &str, error: &Error) {
        let entry = self
            .entry(Level::Warn, action, "refused")
            .with("code", error.code() as u8)
            .with("kind", error.kind.name())
            .with("pid", std::process::id());
        let locks = error.details.get("lock").or_else(|| error.details.get("locks"));
        self.record(match locks {
            Some(Value::String(name)) => entry.with("lock", name),
            Some(names) => entry.with("lock", names),
            None => entry,
        });
    }
}
