//! The line of a lock.

use serde::{Deserialize, Serialize};

use super::super::origin::{self, Origin};
use super::seconds;

/// A change of a lock's holders, or the end of a wait for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LockEvent {
    /// Its time and author: the script that was granted the lock, gave it back or broke it, or
    /// the one whose request found a dead holder.
    #[serde(flatten)]
    pub origin: Origin,
    /// The lock.
    #[serde(serialize_with = "origin::name")]
    pub lock: String,
    /// What happened.
    pub step: LockStep,
    /// The mode of the grant or the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<LockMode>,
    /// The grant's number; none of a request without a grant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<u64>,
    /// The length of the wait, in seconds.
    #[serde(default, with = "seconds", skip_serializing_if = "seconds::is_zero")]
    pub waited: f64,
    /// What the request waited for first: holders, then earlier waiters; at most
    /// [`super::BLOCKERS_LIMIT`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blockers: Vec<Blocker>,
    /// The holder or waiter that lost its place, if it is not the author.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Party>,
}

/// What happened to a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LockStep {
    /// It was granted.
    Granted,
    /// A grant was given back.
    Released,
    /// A request was not granted in time.
    TimedOut,
    /// An operator took a grant away.
    Broken,
    /// An operator ended a wait.
    WaitBroken,
    /// A grant ended since its owner is dead.
    OwnerDied,
}

/// The mode of a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LockMode {
    /// By one owner alone.
    Exclusive,
    /// Together with others that share it.
    Shared,
}

/// A process that a request waited for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blocker {
    /// How it blocked the request.
    pub role: Role,
    /// The process.
    #[serde(flatten)]
    pub party: Party,
}

/// How a process blocks a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// It holds the lock.
    Holder,
    /// It waits for the lock, and came first.
    Waiter,
}

/// Another process than the author, as a lock's record names it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Party {
    /// The pid of the owner; `None` if the record was damaged.
    pub pid: Option<u32>,
    /// The name of its program, never with arguments.
    #[serde(serialize_with = "origin::name")]
    pub program: String,
    /// Its machine.
    #[serde(default, skip_serializing_if = "String::is_empty", serialize_with = "origin::name")]
    pub host: String,
    /// The number of its grant, if it is a holder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<u64>,
}
