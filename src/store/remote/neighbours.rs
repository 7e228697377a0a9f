//! Stores above and below this one: their keys would be among each other's.
//!
//! A store is not begun where one is found. What is looked at is little: the keys `meta` of all
//! prefixes above, as far as this client may read them, and the first keys below.

use super::RemoteStore;
use super::meta::Meta;
use crate::error::{Error, Kind, Result, quote};
use crate::etcd::failure::Cause;
use crate::etcd::messages::RangeRequest;
use crate::etcd::txn::{Keys, snapshot};

/// The most prefixes above that are looked at: a transaction has 128 operations.
const ABOVE: usize = 64;
/// The most keys below that are looked at.
const BELOW: i64 = 1_000;
/// The most of these that are read.
const READ: usize = 16;

/// The name of the key that each store has.
const META: &str = "/meta";

/// Refuses to begin a store above or below another one.
pub(super) fn check_neighbours(store: &RemoteStore) -> Result<()> {
    if let Some(above) = store_above(store)? {
        let below = store.keys.prefix().strip_prefix(&above).unwrap_or_default();
        let beside = format!("{above}-{}", below.trim_matches('/').replace('/', "-"));
        return Err(amid(store, &format!("lies below that of the store {above}"), &beside));
    }
    match store_below(store)? {
        Some(below) => {
            let beside = format!("{}-0", store.keys.prefix());
            Err(amid(store, &format!("lies above that of the store {below}"), &beside))
        }
        None => Ok(()),
    }
}

fn amid(store: &RemoteStore, where_it_is: &str, beside: &str) -> Error {
    let prefix = store.keys.prefix();
    let message = format!(
        "the prefix {prefix} {where_it_is}, and their keys would be among each other's; \
         nothing was changed"
    );
    let address = format!("{}{beside}", store.shown.trim_end_matches(prefix));
    Error::new(Kind::Exists, message)
        .hint_command(
            format!("--store {} state init", quote(&address)),
            "choose a prefix beside the other one, like this",
        )
        .detail("store", store.shown.as_str())
}

/// The nearest prefix above with a store.
fn store_above(store: &RemoteStore) -> Result<Option<String>> {
    let prefix = store.keys.prefix();
    let above = prefix.rmatch_indices('/').filter_map(|(end, _)| prefix.get(..end));
    let above: Vec<&str> = above.filter(|above| !above.is_empty()).take(ABOVE).collect();
    let ranges = above.iter().map(|above| Keys::one(format!("{above}{META}")).read());
    first_store(store, ranges.collect())
}

/// A prefix below with a store.
fn store_below(store: &RemoteStore) -> Result<Option<String>> {
    let listed = RangeRequest { limit: BELOW, ..store.keys.all().list() };
    let own = store.keys.meta();
    let listed = store.client.range(&listed)?.kvs.into_iter();
    let metas = listed.filter(|kv| kv.key.ends_with(META.as_bytes()) && kv.key != own);
    first_store(store, metas.take(READ).map(|kv| Keys::one(kv.key).read()).collect())
}

/// The prefix of the first of these keys that is one of a store.
fn first_store(store: &RemoteStore, ranges: Vec<RangeRequest>) -> Result<Option<String>> {
    if ranges.is_empty() {
        return Ok(None);
    }
    let answer = match store.client.snapshot(&snapshot(ranges)) {
        // A role may see its own prefix only.
        Err(failure) if matches!(failure.cause, Cause::Forbidden(_)) => return Ok(None),
        answer => answer?,
    };
    let mut found = answer.ranges().flat_map(|range| range.kvs).filter(Meta::is_one);
    Ok(found.find_map(|kv| {
        let key = std::str::from_utf8(&kv.key).ok()?;
        key.strip_suffix(META).map(str::to_owned)
    }))
}
