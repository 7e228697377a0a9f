//! The options that all writers share, and the deadline of their retries.

use std::time::Instant;

use crate::error::{Error, Kind, Result};
use crate::lock::Fence;

/// The purpose of a writer, which decides what must exist beforehand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockPurpose {
    /// Create a state where there may be none.
    Initialize,
    /// Change or restore an existing state.
    Write,
    /// Restore a checkpoint; nothing else need exist.
    Restore,
    /// Abort an interrupted restore, which is therefore not finished first.
    Abort,
    /// Work on `config/` for a state on other machines, which decides what becomes of an
    /// interrupted restore.
    Host,
}

/// Whether a change is committed or only shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// The change is committed.
    #[default]
    Commit,
    /// The change is shown, and no file is changed.
    DryRun,
}

/// The source of a document's growth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Author {
    /// Contents that the user adds.
    #[default]
    User,
    /// Contents that this program adds: it has [`OWN_ROOM`](crate::document::OWN_ROOM) more.
    Program,
}

/// The options that all writers share.
#[derive(Clone, Debug, Default)]
pub struct WriteOptions {
    /// The command group, for the audit log.
    pub group: &'static str,
    /// The command, for the audit log and the backup's name.
    pub action: &'static str,
    /// The reason, in the user's words.
    pub reason: Option<String>,
    /// The required current revision (0: a document that was never sealed).
    pub if_revision: Option<u64>,
    /// Grants that must be on record at the moment of the commit.
    pub fences: Vec<Fence>,
    /// Whether to commit.
    pub mode: Mode,
    /// The source of the document's growth.
    pub author: Author,
    /// The guard for which the command puts changes back.
    pub guard: Option<String>,
}

impl WriteOptions {
    /// The command as it is logged: `state set`.
    pub fn command(&self) -> String {
        format!("{} {}", self.group, self.action)
    }

    /// An order without options.
    pub fn of(action: &'static str) -> Self {
        Self { group: "state", action, ..Self::default() }
    }

    /// The order of a restore, without options.
    pub fn of_restore() -> Self {
        Self { group: "recover", ..Self::of("restore") }
    }
}

/// The error of a writer that lost a race.
pub fn conflict(message: &str, revision: u64) -> Error {
    Error::new(Kind::Conflict, message)
        .hint_command("state read", "read it again, redo the change and write that")
        .detail("revision", revision)
}

/// Fails once `deadline` has passed. Ends a retry loop that only other writers can prolong.
pub(super) fn check_deadline(deadline: Instant) -> Result<()> {
    if Instant::now() < deadline {
        return Ok(());
    }
    let message = "something else keeps changing the state file or its lock; nothing was written";
    Err(Error::new(Kind::Conflict, message).hint_command("state status", "see what state it is in"))
}
