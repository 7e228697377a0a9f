//! The keys of guards.

use crate::etcd::messages::KeyValue;
use crate::store::checkpoint::id::is_id;
use crate::store::guard::record::Record;
use crate::store::remote::keys::{KeySpace, name_in};

/// The key of a guard.
#[derive(Clone, Debug)]
pub(in crate::store::remote) struct OnFile {
    pub id: String,
    /// The revision that last put it.
    pub put_at: i64,
    /// Its record; none where it is damaged.
    pub record: Option<Record>,
}

impl OnFile {
    /// The guards among the keys of a store.
    pub(in crate::store::remote) fn of(found: Vec<KeyValue>, keys: &KeySpace) -> Vec<Self> {
        let prefix = keys.guard_prefix();
        let read = |kv: KeyValue| {
            let id = name_in(&kv.key, &prefix).filter(|id| is_id(id))?.to_owned();
            let record = Record::read(&id, &kv.value);
            Some(Self { id, put_at: kv.mod_revision, record })
        };
        found.into_iter().filter_map(read).collect()
    }
}
