//! Keys of the store with values that this program did not write, for the doctor. Commands leave
//! them out or go around them; keys that stop commands are reported by these.

use serde_json::Value;

use super::RemoteStore;
use super::keys::name_in;
use super::log::Record;
use super::source::Source;
use crate::document::json;
use crate::error::Result;
use crate::etcd::messages::KeyValue;
use crate::etcd::txn::Keys;
use crate::lock::Token;
use crate::lock::remote::{Entry, Tokens};
use crate::name::Name;

/// A key that is not what this program wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Oddity {
    /// The key.
    pub key: String,
    /// What it would be.
    pub of: OddKey,
    /// What is wrong with it.
    pub why: String,
}

/// What a key would be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OddKey {
    /// The file of a signal that the document has.
    Signal(Name),
    /// The file of a signal that it does not have.
    UnknownSignal,
    /// A backup.
    Backup,
    /// The record of a revision.
    Record,
    /// A grant of this lock.
    Grant(Name, Token),
}

/// The keys that are not what this program wrote.
pub fn oddities(store: &RemoteStore) -> Result<Vec<Oddity>> {
    let mut found = odd_signals(store)?;
    for backup in store.report().backups()? {
        if let Some(why) = backup.problem {
            let key = store.keys.backup(&backup.name);
            found.push(Oddity { key, of: OddKey::Backup, why });
        }
    }
    found.extend(odd_grants(store)?);
    let answer = Source::Cluster.snapshot(store, [store.keys.logs().read()])?;
    let records = answer.ranges().next().unwrap_or_default().kvs;
    for kv in records.iter().filter(|kv| Record::of(kv).is_none()) {
        let key = String::from_utf8_lossy(&kv.key).into_owned();
        let why = "it is not the record of a commit".to_owned();
        found.push(Oddity { key, of: OddKey::Record, why });
    }
    Ok(found)
}

/// Grants that end with no lease.
fn odd_grants(store: &RemoteStore) -> Result<Vec<Oddity>> {
    let locks = &store.keys.locks;
    let answer =
        Source::Cluster.snapshot(store, [locks.read_tokens(), locks.all_grants().list()])?;
    let mut ranges = answer.ranges().map(|range| range.kvs);
    let tokens = Tokens::of(ranges.next().unwrap_or_default().first())?;
    let odd = |kv: KeyValue| match locks.parse(&kv.key)? {
        Entry::Grant(lock) => Some(Oddity {
            key: String::from_utf8_lossy(&kv.key).into_owned(),
            why: format!("no lease ends it, so {lock} is held until it is broken"),
            of: OddKey::Grant(lock, tokens.at(kv.create_revision)?),
        }),
        Entry::Waiter(_) => None,
    };
    let grants = ranges.next().unwrap_or_default().into_iter();
    Ok(grants.filter(|kv| kv.lease == 0).filter_map(odd).collect())
}

fn odd_signals(store: &RemoteStore) -> Result<Vec<Oddity>> {
    let document = store.report().read_as_it_is()?.unwrap_or_default();
    let prefix = store.keys.signal_prefix();
    let answer = Source::Cluster.snapshot(store, [Keys::below(&prefix).read()])?;
    let mut found = Vec::new();
    for kv in answer.ranges().next().unwrap_or_default().kvs {
        let Some(name) = name_in(&kv.key, &prefix) else { continue };
        let Ok(name) = Name::parse("signal", name) else { continue };
        let known = document.get("signals").and_then(|signals| signals.get(name.as_str()));
        let file = json::parse(&kv.value).ok();
        let why = match (file.as_ref().and_then(|file| file.get("timestamp")), known) {
            (None, _) => "it is not the file of a signal".to_owned(),
            (Some(_), None) => "it announces a signal that the state does not have".to_owned(),
            (Some(time), Some(known)) if time != known => says(time, known),
            _ => continue,
        };
        let key = store.keys.signal(name.as_str());
        let of = known.map_or(OddKey::UnknownSignal, |_| OddKey::Signal(name));
        found.push(Oddity { key, of, why });
    }
    Ok(found)
}

fn says(time: &Value, known: &Value) -> String {
    format!("it says {time}, and the state says {known}")
}
