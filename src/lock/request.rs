//! A request for locks: which, how, for which owner, and until when.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::identity::Identity;
use super::lifeline::Lifeline;
use super::record::{Grant, Mode, Purpose, Record, Token};
use crate::name::Name;

/// The wait after which a waiter reports what blocks it.
pub(super) const NOTICE_AFTER: Duration = Duration::from_millis(400);
/// The time that giving back an unused place or grant may take.
pub(super) const CLEANUP_TIMEOUT: Duration = Duration::from_secs(1);
/// The name of the lock that protects the state.
pub const STATE: &str = "state";
/// The most locks that one request may name.
pub const MAX_LOCKS: usize = 64;

/// The end of a wait, and its length.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    /// The moment.
    pub at: Instant,
    /// The requested length of the wait.
    pub timeout: Duration,
}

impl Deadline {
    /// A deadline this far away.
    pub fn after(timeout: Duration) -> Self {
        let now = Instant::now();
        let longest = now + Duration::from_secs(86400 * 365);
        Self { at: now.checked_add(timeout).unwrap_or(longest), timeout }
    }

    /// The deadline at this moment.
    pub fn at(at: Instant) -> Self {
        Self { at, timeout: at.saturating_duration_since(Instant::now()) }
    }

    /// The time that is left.
    pub fn left(&self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }

    pub(super) fn is_over(&self) -> bool {
        self.left().is_zero()
    }
}

/// True if a request that would close a cycle of waiters is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deadlocks {
    /// It is.
    Refused,
    /// It waits, deadlock or not.
    Risked,
}

/// The requester: the owner that a grant will name, and its kin: their grants count as its own.
#[derive(Clone, Debug)]
pub struct Requester {
    /// The owner that will hold the lock.
    pub owner: Identity,
    /// The owner and its ancestors, nearest first.
    pub ancestry: Vec<Identity>,
    /// True if the owner was named; then it and its ancestors follow those of the requesting
    /// process.
    pub explicit: bool,
    /// The process that requests the lock, and waits if it has to.
    pub process: Identity,
    /// Grants that the environment shows: they prove descent where pids cannot.
    pub env_tokens: Vec<(Name, Token)>,
}

impl Requester {
    /// Returns whether a grant is held by the owner or one of its ancestors.
    pub fn covers(&self, name: &Name, grant: &Grant) -> bool {
        let descends = |owner: &Identity| self.ancestry.iter().any(|ancestor| ancestor.is(owner));
        grant.owner.as_ref().is_some_and(descends)
            || self.env_tokens.contains(&(name.clone(), grant.token))
    }

    /// The grant of the owner or its nearest ancestor.
    pub fn own_grant<'a>(&self, name: &Name, record: &'a Record) -> Option<&'a Grant> {
        let kin = record.holders.iter().filter(|grant| self.covers(name, grant));
        kin.min_by_key(|grant| {
            let position =
                |owner: &Identity| self.ancestry.iter().position(|ancestor| ancestor.is(owner));
            grant.owner.as_ref().and_then(position).unwrap_or(usize::MAX)
        })
    }
}

/// True if a lock that is held already may be acquired again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reentrancy {
    /// The grant is counted up, and takes as many releases.
    Counted,
    /// The owner's own grant is counted up; an ancestor's is refused.
    OwnCounted,
    /// The request is refused.
    Refused,
}

/// The terms on which a lock is requested.
#[derive(Clone, Copy, Debug)]
pub struct RequestSpec {
    /// The mode in which it is to be held.
    pub mode: Mode,
    /// The purpose of the request.
    pub purpose: Purpose,
    /// True if the lock may be held already.
    pub reentrancy: Reentrancy,
}

impl RequestSpec {
    /// To hold a lock that the owner does not hold yet.
    pub fn hold(mode: Mode) -> Self {
        Self { mode, purpose: Purpose::Hold, reentrancy: Reentrancy::Refused }
    }

    /// To commit the state once.
    pub fn commit() -> Self {
        Self { purpose: Purpose::Commit, ..Self::hold(Mode::Exclusive) }
    }
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
    /// The time that the grant lasts if the liveness of its owner is unknown.
    pub ttl: Option<Duration>,
    /// The file that the owner holds locked while it lives.
    pub live_file: Option<Lifeline>,
}

impl Request {
    /// A request without notes and without a time to live, which deadlock detection may refuse.
    pub fn new(
        names: Vec<Name>,
        spec: RequestSpec,
        requester: Requester,
        deadline: Deadline,
    ) -> Self {
        Self {
            names,
            spec,
            requester,
            command: String::new(),
            deadline,
            deadlocks: Deadlocks::Refused,
            metadata: None,
            ttl: None,
            live_file: None,
        }
    }

    /// Returns whether it is for the lock of the state, among others.
    pub fn wants_state(&self) -> bool {
        self.names.iter().any(|name| name.as_str() == STATE)
    }
}
