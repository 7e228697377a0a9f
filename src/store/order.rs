//! What all writers are told alike, and how long they try.

use std::time::Instant;

use super::Store;
use crate::error::{Error, Kind, Result};
use crate::lock::token::Fence;

/// What a writer is about to do, as far as it decides what must exist beforehand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To make a state where there may be none.
    Initialize,
    /// To change or restore the one that is there.
    Write,
    /// To restore a checkpoint, of which nothing else need be there.
    Restore,
    /// To abort an interrupted restore, which therefore is not finished first.
    Abort,
}

/// Whether a change is made or only shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// It is made.
    #[default]
    Commit,
    /// It is shown, and nothing is touched.
    DryRun,
}

/// What makes a document larger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Author {
    /// What the user puts into it.
    #[default]
    User,
    /// What this program adds: it has [`OWN_ROOM`](crate::document::OWN_ROOM) more.
    Program,
}

/// What all writers are told alike.
#[derive(Clone, Debug, Default)]
pub struct Order {
    /// The group of the command, for the audit log.
    pub group: &'static str,
    /// The command in it, for the audit log and the backup's name.
    pub action: &'static str,
    /// Why, in the user's words.
    pub reason: Option<String>,
    /// The revision that must be the current one (0: a document that was never sealed).
    pub if_revision: Option<u64>,
    /// Grants that must be on record at the moment of the commit.
    pub fences: Vec<Fence>,
    /// Whether to commit.
    pub mode: Mode,
    /// Whose contents make the document larger.
    pub author: Author,
    /// The guard that the command puts things back for.
    pub guard: Option<String>,
}

impl Store {
    /// Refuses to go on unless the current revision is the one that was asked for and the fences stand. They are looked at
    /// once more at the moment of the commit.
    pub(super) fn check_conditions(&self, order: &Order, current: u64) -> Result<()> {
        if let Some(wanted) = order.if_revision.filter(|wanted| *wanted != current) {
            return Err(conflict(&format!("the state is at revision {current}, not {wanted}"), current));
        }
        self.locks.check_fences(&order.fences)
    }
}

impl Order {
    /// The command as records have it: `state set`.
    #[must_use]
    pub fn command(&self) -> String {
        format!("{} {}", self.group, self.action)
    }

    /// An order without options.
    #[must_use]
    pub fn of(action: &'static str) -> Self {
        Self { group: "state", action, ..Self::default() }
    }
}

/// The error of a writer that lost a race.
pub fn conflict(message: &str, revision: u64) -> Error {
    Error::new(Kind::Conflict, message)
        .try_command("state read", "read it again, redo the change and write that")
        .detail("revision", revision)
}

/// Ends a loop of starting over, which only somebody else can keep going.
pub(super) fn give_up_after(deadline: Instant) -> Result<()> {
    if Instant::now() < deadline {
        return Ok(());
    }
    let message = "something else keeps changing the state file or its lock; nothing was written";
    Err(Error::new(Kind::Conflict, message).try_command("state status", "see what state it is in"))
}
