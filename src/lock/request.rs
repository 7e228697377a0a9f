//! A request for locks, as it is handed from one to the next.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::lifeline::Lifeline;
use super::queue::{Ask, Asker};
use crate::name::Name;

/// After this long somebody who waits is told for whom.
pub(super) const SILENCE: Duration = Duration::from_millis(400);
/// How long it may take to give something back that is not wanted after all.
pub(super) const LEAVING: Duration = Duration::from_secs(1);
/// More locks than this are not taken at once.
pub const MOST_AT_ONCE: usize = 64;

/// Until when to wait, and how long that is.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    /// The moment.
    pub at: Instant,
    /// What was asked for.
    pub patience: Duration,
}

impl Deadline {
    /// A deadline that is so far away.
    #[must_use]
    pub fn after(patience: Duration) -> Self {
        let now = Instant::now();
        Self { at: now.checked_add(patience).unwrap_or(now + Duration::from_secs(86400 * 365)), patience }
    }

    pub(super) fn is_over(&self) -> bool {
        Instant::now() >= self.at
    }
}

/// Whether the one who would close a circle of waiters is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deadlocks {
    /// It is.
    Refused,
    /// It waits, come what may.
    Risked,
}

/// A request for locks.
#[derive(Clone, Debug)]
pub struct Request {
    /// Which ones; all are granted or none.
    pub names: Vec<Name>,
    /// How.
    pub ask: Ask,
    /// Who asks.
    pub asker: Asker,
    /// The command line of the owner.
    pub command: String,
    /// For how long to wait.
    pub deadline: Deadline,
    /// What becomes of a deadlock.
    pub deadlocks: Deadlocks,
    /// What the owner notes.
    pub metadata: Option<Value>,
    /// For how long to hold it where nobody can tell whether the owner lives.
    pub ttl: Option<Duration>,
    /// The file that the owner holds locked while it lives.
    pub live_file: Option<Lifeline>,
}
