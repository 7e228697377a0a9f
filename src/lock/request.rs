//! A request for locks, as the functions of this module pass it on.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::lifeline::Lifeline;
use super::queue::{RequestSpec, Requester};
use crate::name::Name;

/// The wait after which a waiter reports what blocks it.
pub(super) const NOTICE_AFTER: Duration = Duration::from_millis(400);
/// How long giving back an unused place or grant may take.
pub(super) const CLEANUP_TIMEOUT: Duration = Duration::from_secs(1);
/// The most locks that one request may name.
pub const MAX_LOCKS: usize = 64;

/// The end of a wait, and its length.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    /// The moment.
    pub at: Instant,
    /// The requested length of the wait.
    pub waiter_state: Duration,
}

impl Deadline {
    /// A deadline this far away.
    pub fn after(waiter_state: Duration) -> Self {
        let now = Instant::now();
        Self {
            at: now.checked_add(waiter_state).unwrap_or(now + Duration::from_secs(86400 * 365)),
            waiter_state,
        }
    }

    pub(super) fn is_over(&self) -> bool {
        Instant::now() >= self.at
    }
}

/// Whether a request that would close a cycle of waiters is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deadlocks {
    /// It is.
    Refused,
    /// It waits, deadlock or not.
    Risked,
}

/// A request for locks.
#[derive(Clone, Debug)]
pub struct Request {
    /// The locks; all are granted or none.
    pub names: Vec<Name>,
    /// The terms on which they are requested.
    pub spec: RequestSpec,
    /// The requester.
    pub requester: Requester,
    /// The command line of the owner.
    pub command: String,
    /// The end of the wait.
    pub deadline: Deadline,
    /// The handling of deadlocks.
    pub deadlocks: Deadlocks,
    /// The owner's notes.
    pub metadata: Option<Value>,
    /// How long the grant lasts if the liveness of its owner is unknown.
    pub ttl: Option<Duration>,
    /// The file that the owner holds locked while it lives.
    pub live_file: Option<Lifeline>,
}
