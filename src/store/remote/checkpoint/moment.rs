//! What a checkpoint holds of the cluster, at one revision.

use std::time::Instant;

use bytes::Bytes;

use super::catalog::ids_in;
use crate::error::Result;
use crate::etcd::txn::{Keys, snapshot};
use crate::lock::remote::Held;
use crate::store::remote::ground::Ground;
use crate::store::remote::keys::name_in;
use crate::store::remote::source::Source;
use crate::store::remote::{RemoteStore, trees};

/// What a checkpoint holds of the cluster.
pub(in crate::store::remote) struct Moment<'s> {
    pub ground: Ground<'s>,
    /// The signals, each with the content of its file.
    pub signals: Vec<(String, Bytes)>,
    /// All checkpoints, oldest first.
    pub ids: Vec<String>,
    /// The holders of the locks of `config/` and signals.
    pub trees: Vec<Vec<Held>>,
}

impl<'s> Moment<'s> {
    /// Reads what a checkpoint holds, at one revision.
    pub(in crate::store::remote) fn of(store: &'s RemoteStore) -> Result<Self> {
        let keys = &store.keys;
        let (signals, heads) = (keys.signal_prefix(), keys.checkpoint_prefix());
        let mut ranges = vec![Keys::below(&signals).read(), Keys::below(&heads).list()];
        ranges.extend(trees::ranges(keys));
        ranges.extend(Ground::ranges(store, &[]));
        let answer = store.client.snapshot(&snapshot(ranges))?;
        let at = answer.revision();
        let mut ranges = answer.ranges().map(|range| range.kvs);
        let given = ranges.next().unwrap_or_default();
        let listed = ranges.next().unwrap_or_default();
        let trees: Vec<_> =
            trees::ranges(keys).map(|_| ranges.next().unwrap_or_default()).collect();
        let name = |key: &[u8], prefix: &str| name_in(key, prefix).map(str::to_owned);
        let ground = Ground::in_answer(store, Source::Cluster, at, ranges)?;
        Ok(Self {
            signals: given
                .into_iter()
                .filter_map(|kv| Some((name(&kv.key, &signals)?, kv.value)))
                .collect(),
            ids: ids_in(listed.iter().filter_map(|kv| name(&kv.key, &heads))),
            trees: trees.iter().map(|holders| ground.held(holders)).collect(),
            ground,
        })
    }
}

/// Reads what a checkpoint holds, at one revision at which no other owner has `config` or
/// `signals`.
pub(in crate::store::remote) fn free_moment(store: &RemoteStore) -> Result<Moment<'_>> {
    let deadline = Instant::now() + store.settings.lock_timeout;
    loop {
        let moment = Moment::of(store)?;
        match trees::obstacle(store, &moment.trees)? {
            None => return Ok(moment),
            Some(obstacle) => trees::wait(store, &obstacle, deadline)?,
        }
    }
}
