//! The record of a lock: its holders and its waiters.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::identity::Identity;
use super::lifeline::Lifeline;
use crate::document::json;

/// The version of the records that this program writes.
pub(super) const VERSION: u32 = 1;

/// The mode of a grant or a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// By one owner alone.
    Exclusive,
    /// Together with others that share it.
    Shared,
}

impl Mode {
    /// The mode's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Exclusive => "exclusive",
            Self::Shared => "shared",
        }
    }

    /// Returns whether two owners cannot hold a lock in these modes together.
    pub fn conflicts(self, other: Self) -> bool {
        self == Self::Exclusive || other == Self::Exclusive
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The number of a grant: of two grants in one root the later has the higher ("fencing token":
/// Kleppmann, "How to do distributed locking", 2016).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Token(u64);

impl Token {
    /// In place of the number of a grant that is about to be made.
    #[cfg(feature = "etcd")]
    pub(super) const UNKNOWN: Self = Self(u64::MAX);

    /// The token of this number; tokens begin at 1.
    pub fn new(number: u64) -> Option<Self> {
        (number > 0).then_some(Self(number))
    }

    /// Its number.
    pub fn get(self) -> u64 {
        self.0
    }
}

impl std::str::FromStr for Token {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse()
            .ok()
            .and_then(Self::new)
            .ok_or_else(|| format!("{text:?} is not a token: that is a number from 1 up"))
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An owner's hold on a lock.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Grant {
    /// Its number.
    pub token: Token,
    /// Its mode.
    pub mode: Mode,
    /// The owner; `None` if the record was damaged, since then it is unknown.
    pub owner: Option<Identity>,
    /// The owner's command line.
    pub command: String,
    /// The time of the grant, RFC 3339.
    pub since: String,
    /// The number of releases it takes: `--reentrant`.
    pub count: u32,
    /// The owner's notes.
    #[serde(skip_serializing_if = "Option::is_none", default, with = "json_text")]
    pub metadata: Option<Value>,
    /// The seconds that the grant lasts if the liveness of its owner is unknown.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ttl: Option<f64>,
    /// The end of that time: seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub expires: Option<f64>,
    /// The file in `.locks` that the command of `lock run` holds locked while it lives.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub live_file: Option<Lifeline>,
    /// Where the bytes of a damaged record are kept.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub quarantined: Option<String>,
}

impl Grant {
    /// The grant that stands for a damaged record, whose bytes the file `kept` has.
    pub fn of_unknown_owner(token: Token, since: String, kept: String) -> Self {
        Self {
            token,
            mode: Mode::Exclusive,
            owner: None,
            command: String::new(),
            since,
            count: 1,
            metadata: None,
            ttl: None,
            expires: None,
            live_file: None,
            quarantined: Some(kept),
        }
    }
}

/// An entry in a lock's queue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Waiter {
    /// The requested mode.
    pub mode: Mode,
    /// The owner that will hold the lock.
    pub owner: Identity,
    /// The process that waits; its identity is the place in the queue.
    pub process: Identity,
    /// The owner's command line. This, the start and the notes are empty where the name of its file
    /// alone was read: [`LivenessOracle::detailed`](super::liveness::LivenessOracle::detailed).
    pub command: String,
    /// The start of the wait, RFC 3339.
    pub since: String,
    /// The end of the wait: seconds since 1970.
    pub until: f64,
    /// The waiter's own grant on the same lock: it upgrades that from shared to exclusive, or
    /// commits under it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub own: Option<Token>,
    /// The purpose of the request.
    pub purpose: Purpose,
    /// The owner's notes.
    #[serde(skip_serializing_if = "Option::is_none", default, with = "json_text")]
    pub metadata: Option<Value>,
    /// The file in `.locks` that the process holds locked while it waits; its name holds the
    /// waiter's ID. `None` if an earlier version wrote the entry, or if the file could not be
    /// created.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub lifeline: Option<Lifeline>,
    /// The number of locks in the request.
    #[serde(skip_serializing_if = "is_one", default = "one")]
    pub locks: u32,
    /// Later waiters may go first, since this one did not take a free lock in time. It clears this
    /// itself when it runs again.
    #[serde(skip_serializing_if = "is_false", default)]
    pub passed_over: bool,
    /// An operator ended the wait; the process has yet to see it.
    #[serde(skip_serializing_if = "is_false", default)]
    pub broken: bool,
    /// Where it stands.
    #[serde(skip)]
    pub place: Place,
}

/// Where a waiter stands in a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// In the record: an earlier version put it there. It comes before all others.
    #[default]
    Record,
    /// In a file of its own.
    File {
        /// Its number: the order of arrival.
        ticket: u64,
        /// The bytes that its grant may need in the record.
        size: u32,
    },
}

#[allow(clippy::trivially_copy_pass_by_ref)] // as serde calls them
fn is_false(flag: &bool) -> bool {
    !flag
}

#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_one(number: &u32) -> bool {
    *number == 1
}

fn one() -> u32 {
    1
}

/// The owner's notes may be any JSON, and are stored in the record as a text of their own. As a
/// part of the record, serde_json would not read back deep nesting, nor an object with its own
/// token for numbers as a key; and an unreadable record stands for a lock that no process can
/// acquire.
mod json_text {
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer, de::Error as _};
    use serde_json::Value;

    pub fn serialize<S: Serializer>(
        metadata: &Option<Value>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        metadata.as_ref().map(Value::to_string).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Value>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| super::json::parse(text.as_bytes())).transpose().map_err(D::Error::custom)
    }
}

impl Waiter {
    /// Its number, if it stands in a file of its own.
    pub fn ticket(&self) -> Option<u64> {
        match self.place {
            Place::Record => None,
            Place::File { ticket, .. } => Some(ticket),
        }
    }

    /// The order in a queue: those in the record, those that have a grant already, the others.
    fn order(&self) -> (bool, bool, Option<u64>) {
        let ticket = self.ticket();
        (ticket.is_some(), ticket.is_some() && self.own.is_none(), ticket)
    }

    /// Returns whether later waiters may go first, by what the record says.
    pub fn lets_others_pass(&self) -> bool {
        self.passed_over || self.broken
    }
}

/// The purpose of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Purpose {
    /// To hold it until it is released.
    Hold,
    /// To commit the state once, on the strength of its place in the queue.
    Commit,
}

/// The holders and waiters of one lock. The holders are in its record, the waiters in files of
/// their own; a lock without holders has no record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub(super) version: u32,
    /// The grants.
    pub holders: Vec<Grant>,
    /// The queue, in order of arrival.
    pub waiters: Vec<Waiter>,
}

impl Default for Record {
    fn default() -> Self {
        Self { version: VERSION, holders: Vec::new(), waiters: Vec::new() }
    }
}

impl Record {
    /// The record with the waiters that have files.
    pub fn with_queue(mut self, queue: Vec<Waiter>) -> Self {
        self.waiters.extend(queue);
        self.waiters.sort_by_key(Waiter::order);
        self
    }

    /// What the record's file holds.
    pub fn stored(&self) -> Self {
        let in_record = |waiter: &&Waiter| waiter.place == Place::Record;
        Self {
            version: self.version,
            holders: self.holders.clone(),
            waiters: self.waiters.iter().filter(in_record).cloned().collect(),
        }
    }

    /// The ticket of the next waiter.
    pub fn next_ticket(&self) -> u64 {
        let last = self.waiters.iter().filter_map(Waiter::ticket).max();
        last.unwrap_or_default().saturating_add(1)
    }

    /// Returns whether nothing is on record.
    pub fn is_empty(&self) -> bool {
        self.holders.is_empty() && self.waiters.is_empty()
    }

    /// The grant of this token.
    pub fn grant(&self, token: Token) -> Option<&Grant> {
        self.holders.iter().find(|grant| grant.token == token)
    }

    /// The position of a process in the queue.
    pub fn position_of(&self, process: &Identity) -> Option<usize> {
        self.waiters.iter().position(|waiter| waiter.process.is(process))
    }

    /// The queue entry of a process.
    pub fn waiter_mut(&mut self, process: &Identity) -> Option<&mut Waiter> {
        self.waiters.iter_mut().find(|waiter| waiter.process.is(process))
    }
}
