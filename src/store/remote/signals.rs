//! The signal files that go with a commit.

use serde_json::{Map, Value};

use super::RemoteStore;
use super::keys::name_in;
use crate::document::seal::to_bytes;
use crate::error::Result;
use crate::etcd::txn::Keys;
use crate::name::Name;
use crate::store::signal::{SignalFile, Signals, blank};

/// The most files that follow in one commit: a transaction has 128 operations.
const FOLLOWING: usize = 64;

/// The signal files that a commit of `state` puts and deletes.
pub(super) fn files_of(
    store: &RemoteStore,
    signals: &Signals,
    state: &Value,
) -> Result<Vec<SignalFile>> {
    match signals {
        Signals::These(files) => Ok(files.clone()),
        Signals::Follow => following(store, state),
    }
}

fn following(store: &RemoteStore, state: &Value) -> Result<Vec<SignalFile>> {
    let none = Map::new();
    let wanted = state.get("signals").and_then(Value::as_object).unwrap_or(&none);
    let prefix = store.keys.signal_prefix();
    let range = store.client.range(&Keys::below(&prefix).read());
    let found: Vec<(Name, Option<Value>)> = range?
        .kvs
        .iter()
        .filter_map(|kv| {
            let name = name_in(&kv.key, &prefix)?;
            let file = crate::document::json::parse(&kv.value).ok();
            let time = file.and_then(|file| file.get("timestamp").cloned());
            Some((Name::parse("signal", name).ok()?, time))
        })
        .collect();
    let gone = found.iter().filter(|(name, _)| !wanted.contains_key(name.as_str()));
    let mut files: Vec<_> =
        gone.map(|(name, _)| SignalFile { name: name.clone(), content: None }).collect();
    for (name, time) in wanted.iter().filter(|(_, time)| time.is_number()) {
        let Ok(name) = Name::parse("signal", name) else { continue };
        let is_there = found.iter().any(|(known, at)| *known == name && at.as_ref() == Some(time));
        if !is_there {
            files.push(SignalFile { content: to_bytes(&blank(&name, time)), name });
        }
    }
    files.truncate(FOLLOWING);
    Ok(files)
}
