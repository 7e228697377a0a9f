//! Stores above and below this one: their keys would be among each other's.
//!
//! A store is not begun where one is found. What is looked at is little: `meta` and `state` of all
//! prefixes above, as far as this client may read them, and the first keys below. The transaction
//! that begins the store is guarded by that nothing has changed there since: of two that are begun
//! at once, one above the other, the second is refused.

use super::RemoteStore;
use super::meta::Meta;
use crate::document::{Reading, inspect_text};
use crate::error::{Error, Kind, Result, quote};
use crate::etcd::failure::Cause;
use crate::etcd::messages::{Compare, KeyValue, RangeRequest};
use crate::etcd::txn::{Keys, created_before, put_at, snapshot};

/// The most prefixes above that are looked at: a transaction has 128 operations, and there are two
/// keys of each.
const ABOVE: usize = 60;
/// The most keys below that are looked at.
const BELOW: i64 = 1_000;
/// The most of these that are read.
const READ: usize = 16;

/// The names of the keys that show a store: one may be damaged.
const META: &str = "/meta";
const STATE: &str = "/state";

/// What begins a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beginning {
    Init,
    Push,
}

/// A key `meta` or `state`, and what was found there.
struct Seen {
    key: String,
    found: Option<KeyValue>,
}

impl Seen {
    /// The prefix of the store that has it, if one has.
    fn store(&self) -> Option<&str> {
        let found = self.found.as_ref()?;
        match self.key.strip_suffix(META) {
            Some(prefix) => Some(prefix).filter(|_| Meta::is_one(found)),
            None => self
                .key
                .strip_suffix(STATE)
                .filter(|_| matches!(inspect_text(found.value.clone()), Reading::Sealed(_))),
        }
    }

    /// A guard: nothing has changed there.
    fn still(self) -> Compare {
        put_at(self.key, self.found.map_or(0, |found| found.mod_revision))
    }
}

/// Refuses to begin a store above or below another one. Returns the guards of the transaction that
/// begins it. Any key that is made below meanwhile fails them: then the look is repeated.
pub(super) fn check_neighbours(store: &RemoteStore, beginning: Beginning) -> Result<Vec<Compare>> {
    let above = seen_above(store)?;
    if let Some(above) = above.iter().find_map(Seen::store) {
        let below = store.keys.prefix().strip_prefix(above).unwrap_or_default();
        let beside = format!("{above}-{}", below.trim_matches('/').replace('/', "-"));
        let is = format!("below that of the store {above}");
        return Err(amid(store, &is, &beside, beginning));
    }
    let listed = RangeRequest { limit: BELOW, ..store.keys.all().list() };
    let answer = store.client.snapshot(&snapshot([listed]))?;
    let nothing_since = created_before(&store.keys.all(), answer.revision() + 1);
    let below = seen_below(store, answer.ranges().flat_map(|range| range.kvs))?;
    if let Some(below) = below.iter().find_map(Seen::store) {
        let beside = format!("{}-0", store.keys.prefix());
        let is = format!("above that of the store {below}");
        return Err(amid(store, &is, &beside, beginning));
    }
    Ok(above.into_iter().map(Seen::still).chain([nothing_since]).collect())
}

fn amid(store: &RemoteStore, lies: &str, beside: &str, beginning: Beginning) -> Error {
    let prefix = store.keys.prefix();
    let message = format!(
        "the prefix {prefix} lies {lies}, and their keys would be among each other's; \
         nothing was changed"
    );
    let address = quote(&format!("{}{beside}", store.shown.trim_end_matches(prefix)));
    let command = match beginning {
        Beginning::Init => format!("--store {address} state init"),
        Beginning::Push => format!("state push {address}"),
    };
    Error::new(Kind::Exists, message)
        .hint_on_files(command, "choose a prefix beside the other one, like this")
        .detail("store", store.shown.as_str())
}

/// The keys that show stores at the prefixes above, the nearest first. A role may see its own
/// prefix only.
fn seen_above(store: &RemoteStore) -> Result<Vec<Seen>> {
    let prefix = store.keys.prefix();
    let above = prefix.rmatch_indices('/').filter_map(|(end, _)| prefix.get(..end));
    let above = above.filter(|above| !above.is_empty()).take(ABOVE);
    let keys = above.flat_map(|above| [META, STATE].map(|name| format!("{above}{name}")));
    let keys: Vec<String> = keys.collect();
    if let Some(seen) = look(store, &keys)? {
        return Ok(seen);
    }
    let mut readable = Vec::new();
    for key in &keys {
        readable.extend(look(store, std::slice::from_ref(key))?.unwrap_or_default());
    }
    Ok(readable)
}

/// The first keys among those below that may show a store.
fn seen_below(store: &RemoteStore, listed: impl Iterator<Item = KeyValue>) -> Result<Vec<Seen>> {
    let own = [store.keys.meta(), store.keys.state()];
    let names = listed.filter_map(|kv| String::from_utf8(kv.key.to_vec()).ok());
    let shows = |key: &String| [META, STATE].iter().any(|name| key.ends_with(name));
    let showing = names.filter(|key| shows(key) && !own.contains(key));
    Ok(look(store, &showing.take(READ).collect::<Vec<_>>())?.unwrap_or_default())
}

/// Reads keys; `None` if this client may not read one of them.
fn look(store: &RemoteStore, keys: &[String]) -> Result<Option<Vec<Seen>>> {
    if keys.is_empty() {
        return Ok(Some(Vec::new()));
    }
    let ranges = keys.iter().map(|key| Keys::one(key.clone()).read());
    let answer = match store.client.snapshot(&snapshot(ranges)) {
        Err(failure) if matches!(failure.cause, Cause::Forbidden(_)) => return Ok(None),
        answer => answer?,
    };
    let found = answer.ranges().map(|range| range.kvs.into_iter().next());
    let seen = keys.iter().cloned().zip(found).map(|(key, found)| Seen { key, found });
    Ok(Some(seen.collect()))
}
