//! The line of a commit.

use serde_json::{Map, Value, json};

use super::{Blocker, GUARDS_LIMIT, seconds};
use crate::document::seal::{Digest, Lineage, Revision};
use crate::journal::changes::{Change, Changes};
use crate::journal::line::cut;
use crate::journal::origin::{NAME_LIMIT, Origin};

/// The longest reason, in bytes; a longer one is cut.
pub const REASON_LIMIT: usize = 1 << 10;

/// The command of a restore.
pub const RESTORE: &str = "recover restore";

/// A committed revision.
#[derive(Clone, Debug, PartialEq)]
pub struct Commit {
    /// Its time and author.
    pub origin: Origin,
    /// The document it is a revision of.
    pub lineage: Lineage,
    /// The revision.
    pub revision: Revision,
    /// The digest of the document.
    pub digest: Digest,
    /// The command: `state set`.
    pub command: String,
    /// The reason as it was given.
    pub reason: Option<String>,
    /// The time the commit waited for the state lock, in seconds.
    pub waited: f64,
    /// What it waited for first, as far as it is known.
    pub blockers: Vec<Blocker>,
    /// The size of the document in bytes.
    pub bytes: u64,
    /// The earlier revision that it repeats, if an undo or a healing committed it.
    pub repeats: Option<Revision>,
    /// The changes; `None` where the previous document could not be read.
    pub changes: Option<Changes>,
    /// The guards that enclose the commit, outermost first.
    pub guards: Vec<String>,
}

/// The action of a command: the last word of its name.
pub fn action_of(command: &str) -> &str {
    command.rsplit(' ').next().unwrap_or_default()
}

impl Commit {
    /// Returns whether it is a restored checkpoint.
    pub fn is_restore(&self) -> bool {
        self.command == RESTORE
    }

    /// The reason of a commit without one: the effect of the command.
    pub fn default_reason(&self) -> &str {
        action_of(&self.command)
    }

    /// Drops a change, or half of the reason; false if neither is left.
    pub(super) fn shorten(&mut self) -> bool {
        if self.changes.as_mut().is_some_and(Changes::drop_last) {
            return true;
        }
        let Some(reason) = self.reason.as_mut().filter(|reason| !reason.is_empty()) else {
            return false;
        };
        *reason = cut(cut(reason, REASON_LIMIT), reason.len().min(REASON_LIMIT) / 2).to_owned();
        true
    }

    pub(super) fn to_fields(&self) -> Option<Map<String, Value>> {
        let Value::Object(mut fields) = serde_json::to_value(&self.origin).ok()? else {
            return None;
        };
        let Value::Object(own) = json!({
            "lineage": self.lineage.as_str(),
            "revision": self.revision.get(),
            "digest": self.digest.as_str(),
            "command": cut(&self.command, NAME_LIMIT),
            "reason": self.reason.as_deref().map(|reason| cut(reason, REASON_LIMIT)),
            "waited": format!("{:.6}", self.waited),
            "bytes": self.bytes,
        }) else {
            return None;
        };
        fields.extend(own);
        if !self.blockers.is_empty() {
            fields.insert("blockers".into(), serde_json::to_value(&self.blockers).ok()?);
        }
        if let Some(revision) = self.repeats {
            fields.insert("repeats".into(), revision.get().into());
        }
        if let Some(changes) = &self.changes {
            changes.write(&mut fields);
        }
        if !self.guards.is_empty() {
            let named = self.guards.iter().take(GUARDS_LIMIT);
            fields.insert("guards".into(), named.map(String::as_str).collect());
        }
        Some(fields)
    }

    pub(super) fn of(value: &Value) -> Option<Self> {
        let text = |field: &str| value.get(field)?.as_str().map(str::to_owned);
        let list = |field: &str| value.get(field).cloned().unwrap_or_else(|| json!([]));
        Some(Self {
            origin: serde_json::from_value(value.clone()).ok()?,
            lineage: Lineage::from_value(value.get("lineage")?)?,
            revision: Revision::from_value(value.get("revision")?)?,
            digest: Digest::from_value(value.get("digest")?)?,
            command: text("command")?,
            reason: text("reason"),
            waited: seconds::parse(&text("waited")?)?,
            blockers: serde_json::from_value(list("blockers")).ok()?,
            bytes: value.get("bytes")?.as_u64()?,
            repeats: value.get("repeats").and_then(Revision::from_value),
            changes: Changes::read(value)?,
            guards: serde_json::from_value(list("guards")).ok()?,
        })
    }
}

impl Changes {
    fn write(&self, fields: &mut Map<String, Value>) {
        fields.insert("changes".into(), self.list.iter().map(Change::to_value).collect());
        if self.more > 0 {
            fields.insert("more".into(), self.more.into());
        }
    }

    /// `Some(None)` where the line has no changes, `None` where they are invalid.
    #[allow(clippy::option_option)]
    fn read(value: &Value) -> Option<Option<Self>> {
        let Some(list) = value.get("changes") else { return Some(None) };
        let list = list.as_array()?.iter().map(Change::read).collect::<Option<_>>()?;
        let more =
            value.get("more").map_or(Some(0), |more| usize::try_from(more.as_u64()?).ok())?;
        Some(Some(Self { list, more }))
    }
}

impl Change {
    /// The change as a JSON object.
    pub fn to_value(&self) -> Value {
        match self {
            Self::Path(path) => json!({"path": path}),
            Self::Phase { old, new } => json!({"path": ".phase", "old": old, "new": new}),
            Self::Task { name, is_added: true } => {
                json!({"path": ".completedTasks", "added": name})
            }
            Self::Task { name, is_added: false } => {
                json!({"path": ".completedTasks", "removed": name})
            }
        }
    }

    fn read(change: &Value) -> Option<Self> {
        let text = |field: &str| change.get(field).and_then(Value::as_str).map(str::to_owned);
        Some(match (text("path")?, text("added"), text("removed")) {
            (path, None, None) if path == ".phase" => {
                Self::Phase { old: text("old"), new: text("new") }
            }
            (_, Some(name), _) => Self::Task { name, is_added: true },
            (_, None, Some(name)) => Self::Task { name, is_added: false },
            (path, None, None) => Self::Path(path),
        })
    }
}
