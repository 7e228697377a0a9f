//! The locks as one snapshot shows them: the ground of every decision.

use std::collections::BTreeMap;

use super::RemoteLocks;
use super::encoding::{Held, Waiting};
use super::keys::{Entry, LockKeys};
use super::tokens::Tokens;
use crate::error::Result;
use crate::etcd::messages::{KeyValue, RangeRequest, TxnResponse};
use crate::etcd::txn::{Keys, snapshot};
use crate::lock::deadlock::Ancestry;
use crate::lock::edit::RecordEdit;
use crate::lock::identity::Identity;
use crate::lock::record::{Record, Token};
use crate::name::Name;

/// From so many locks on, all are read: a transaction has 128 operations.
const MANY: usize = 32;

/// The locks at one revision of the cluster: some, or all of them.
#[derive(Debug, Default)]
pub struct Ground {
    /// The cluster's revision.
    pub at: i64,
    /// How tokens follow from revisions.
    pub tokens: Tokens,
    locks: BTreeMap<String, Lock>,
    /// Keys in queues that are no places.
    pub strays: Vec<KeyValue>,
    others: Vec<KeyValue>,
}

/// The holders and waiters of a lock.
#[derive(Debug, Default)]
struct Lock {
    held: Vec<Held>,
    waiting: Vec<Waiting>,
}

impl LockKeys {
    /// The ranges with these locks, as far as they matter to the waiter whose place was created at
    /// this revision: those that came later do not. So a turn of a long queue reads little.
    pub fn ranges_until(&self, names: &[Name], created: i64) -> Vec<RangeRequest> {
        let mut ranges = self.ranges(names);
        // Grants and waiters take turns.
        for waiters in ranges.iter_mut().skip(1).step_by(2) {
            waiters.max_create_revision = created;
        }
        ranges
    }

    /// The ranges with all that is known of these locks.
    pub fn ranges(&self, names: &[Name]) -> Vec<RangeRequest> {
        match names.len() {
            ..MANY => names
                .iter()
                .flat_map(|name| [self.grants(name.as_str()), self.waiters(name.as_str())])
                .chain([Keys::one(self.tokens())])
                .map(|keys| keys.read())
                .collect(),
            _ => self.everything(),
        }
    }

    /// The range of what is added to the tokens of grants.
    pub fn read_tokens(&self) -> RangeRequest {
        Keys::one(self.tokens()).read()
    }

    /// The ranges with all that is known of all locks.
    pub fn everything(&self) -> Vec<RangeRequest> {
        vec![self.all_grants().read(), self.all_waiters().read(), self.read_tokens()]
    }
}

impl Ground {
    /// Reads these locks, and another key.
    pub(super) fn observe(
        locks: &RemoteLocks,
        names: &[Name],
        other: Option<&str>,
    ) -> Result<Self> {
        let other = other.map(|key| Keys::one(key.to_owned()).read());
        Self::read(locks, locks.keys.ranges(names).into_iter().chain(other).chain([mark(locks)]))
    }

    /// Reads what a grant of these locks depends on; for a waiter only what is before its place,
    /// which was created at this revision.
    pub(super) fn to_grant(
        locks: &RemoteLocks,
        names: &[Name],
        place: Option<i64>,
        owner: &str,
    ) -> Result<Self> {
        let ranges = match place {
            Some(created) => locks.keys.ranges_until(names, created),
            None => locks.keys.ranges(names),
        };
        Self::read(locks, ranges.into_iter().chain(beside(locks, owner)))
    }

    /// Reads the grants of all locks.
    pub(super) fn of_grants(locks: &RemoteLocks) -> Result<Self> {
        Self::read(locks, [locks.keys.all_grants().read(), locks.keys.read_tokens(), mark(locks)])
    }

    /// Reads all locks.
    pub(super) fn of_all(locks: &RemoteLocks) -> Result<Self> {
        Self::read(locks, locks.keys.everything().into_iter().chain([mark(locks)]))
    }

    /// Reads these ranges, of which one is that of the mark.
    fn read(locks: &RemoteLocks, ranges: impl IntoIterator<Item = RangeRequest>) -> Result<Self> {
        let ground = Self::of(&locks.keys, locks.client.snapshot(&snapshot(ranges))?)?;
        locks.mark.check_format(&ground)?;
        Ok(ground)
    }

    /// The ground in the answers to some ranges.
    pub fn of(keys: &LockKeys, answer: TxnResponse) -> Result<Self> {
        let at = answer.revision();
        let found: Vec<KeyValue> = answer.ranges().flat_map(|range| range.kvs).collect();
        let tokens = Tokens::of(found.iter().find(|kv| kv.key == keys.tokens()))?;
        let mut ground = Self { at, tokens, ..Self::default() };
        for kv in found {
            match keys.parse(&kv.key) {
                Some(Entry::Grant(name)) => ground.lock(&name).held.extend(Held::of(&kv, tokens)),
                Some(Entry::Waiter(name)) => match Waiting::of(&kv) {
                    Some(waiting) => ground.lock(&name).waiting.push(waiting),
                    None => ground.strays.push(kv),
                },
                None => ground.others.push(kv),
            }
        }
        for lock in ground.locks.values_mut() {
            lock.held.sort_by_key(|held| held.grant.token);
        }
        Ok(ground)
    }

    fn lock(&mut self, name: &Name) -> &mut Lock {
        self.locks.entry(name.to_string()).or_default()
    }

    /// A key that is none of a lock.
    pub fn other(&self, key: &str) -> Option<&KeyValue> {
        self.others.iter().find(|kv| kv.key == key)
    }

    /// The record of a lock.
    pub fn record(&self, name: &str) -> Record {
        let Some(lock) = self.locks.get(name) else { return Record::default() };
        let holders = lock.held.iter().map(|held| held.grant.clone()).collect();
        let waiters = lock.waiting.iter().map(|waiting| waiting.waiter.clone()).collect();
        Record { holders, ..Record::default() }.with_queue(waiters)
    }

    /// The records of these locks.
    pub fn records(&self, names: &[Name]) -> Vec<(Name, Record)> {
        names.iter().map(|name| (name.clone(), self.record(name.as_str()))).collect()
    }

    /// The records of all locks that have any holder or waiter.
    pub fn all_records(&self) -> Vec<(Name, Record)> {
        let names = self.locks.keys().filter_map(|name| Name::parse("lock", name).ok());
        names.map(|name| (name.clone(), self.record(name.as_str()))).collect()
    }

    /// The records of these locks, to be changed.
    pub fn edits(&self, names: &[Name]) -> Vec<RecordEdit> {
        names.iter().map(|name| RecordEdit::new(name, self.record(name.as_str()))).collect()
    }

    /// The key of a grant.
    pub fn held(&self, name: &Name, token: Token) -> Option<&Held> {
        self.locks.get(name.as_str())?.held.iter().find(|held| held.grant.token == token)
    }

    /// The grants of a lock.
    pub fn all_held(&self, name: &Name) -> &[Held] {
        self.locks.get(name.as_str()).map_or(&[], |lock| &lock.held)
    }

    /// All grants, with their locks.
    pub fn everything_held(&self) -> impl Iterator<Item = (&str, &Held)> {
        self.locks
            .iter()
            .flat_map(|(name, lock)| lock.held.iter().map(move |held| (name.as_str(), held)))
    }

    /// The place of a process in the queue of a lock.
    pub fn waiting(&self, name: &Name, process: &Identity) -> Option<&Waiting> {
        let lock = self.locks.get(name.as_str())?;
        lock.waiting.iter().find(|waiting| waiting.waiter.process.is(process))
    }

    /// All places in queues, with their locks.
    pub fn all_waiting(&self) -> impl Iterator<Item = (&str, &Waiting)> {
        self.locks.iter().flat_map(|(name, lock)| {
            lock.waiting.iter().map(move |waiting| (name.as_str(), waiting))
        })
    }

    /// The ancestors of waiters, as each wrote them down when it joined.
    pub fn lines(&self) -> Lines<'_> {
        Lines(self)
    }
}

/// What a grant depends on besides locks: its owner's lease, and where the state is.
pub(super) fn beside(locks: &RemoteLocks, owner: &str) -> [RangeRequest; 2] {
    [Keys::one(owner.to_owned()).read(), mark(locks)]
}

/// Where the state is.
fn mark(locks: &RemoteLocks) -> RangeRequest {
    Keys::one(locks.mark.key.clone()).read()
}

/// The ancestors of waiters.
#[derive(Debug)]
pub struct Lines<'a>(&'a Ground);

impl Ancestry for Lines<'_> {
    fn ancestry_of(&mut self, process: &Identity) -> Vec<Identity> {
        let mut waiting = self.0.all_waiting().map(|(_, waiting)| waiting);
        let own = waiting.find(|waiting| waiting.waiter.process.is(process));
        own.map_or_else(Vec::new, |waiting| waiting.line.clone())
    }
}
