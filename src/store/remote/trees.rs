//! The locks `config` and `signals`, which checkpoints and restores wait for.
//!
//! They are not taken: what is read and put is guarded by that they were granted to no owner since
//! they were seen free.

use std::time::Instant;

use super::RemoteStore;
use super::keys::KeySpace;
use super::writer::Writer;
use crate::error::{Error, Kind, Result};
use crate::etcd::messages::{Compare, RangeRequest};
use crate::etcd::txn::{Keys, created_before};
use crate::lock::remote::{Held, Obstacle};

/// The locks.
const LOCKS: [&str; 2] = ["config", "signals"];

/// The ranges of their holders.
pub(super) fn ranges(keys: &KeySpace) -> impl Iterator<Item = RangeRequest> {
    LOCKS.into_iter().map(|lock| keys.locks.grants(lock).read())
}

/// A holder of one of them that is neither the owner of this command nor an ancestor.
/// `holders` are those of each.
pub(super) fn obstacle(store: &RemoteStore, holders: &[Vec<Held>]) -> Result<Option<Obstacle>> {
    if holders.iter().all(Vec::is_empty) {
        return Ok(None);
    }
    let committer = Writer::of(store).committer()?;
    for (lock, holders) in LOCKS.into_iter().zip(holders) {
        if let Some(obstacle) = committer.obstacle_of(lock, holders)? {
            return Ok(Some(obstacle));
        }
    }
    Ok(None)
}

/// Waits until a holder may have given its lock back.
pub(super) fn wait(store: &RemoteStore, obstacle: &Obstacle, deadline: Instant) -> Result<()> {
    let key = Keys::one(obstacle.key.clone());
    let mut watch = store.client.watch(&key)?;
    if store.client.range(&key.list())?.kvs.is_empty() {
        return Ok(());
    }
    // Whatever the watch reports, the holders are looked at again.
    let _ = watch.next(deadline);
    if Instant::now() < deadline {
        return Ok(());
    }
    Err(timed_out(obstacle))
}

/// Guards: none of them was granted since the revision `at`.
pub(super) fn guards(keys: &KeySpace, at: i64) -> impl Iterator<Item = Compare> {
    LOCKS.into_iter().map(move |lock| created_before(&keys.locks.grants(lock), at + 1))
}

/// The error of a command that waited in vain.
pub(super) fn timed_out(obstacle: &Obstacle) -> Error {
    let holder = &obstacle.holder;
    let message = format!("config/ or the signals are locked by {holder}; nothing was done");
    Error::new(Kind::LockTimeout, message).hint_command("lock list", "see which locks are held now")
}
