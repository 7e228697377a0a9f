//! The keys of a store, below its prefix.

use crate::document::seal::Revision;
use crate::etcd::messages::KeyValue;
use crate::etcd::txn::Keys;
use crate::lock::remote::LockKeys;
use crate::name::is_plain;
use crate::store::restore::intent::OperationId;

/// The keys below one prefix.
#[derive(Clone, Debug)]
pub(super) struct KeySpace {
    prefix: String,
    /// Those of locks.
    pub locks: LockKeys,
}

impl KeySpace {
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned(), locks: LockKeys::new(prefix) }
    }

    /// All keys of the store.
    pub(super) fn all(&self) -> Keys {
        Keys::below(&format!("{}/", self.prefix))
    }

    /// The prefix.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Made once, by `init`: that there is a store, and its lineage.
    pub(super) fn meta(&self) -> String {
        format!("{}/meta", self.prefix)
    }

    /// The document: the very bytes of `state read`.
    pub(super) fn state(&self) -> String {
        format!("{}/state", self.prefix)
    }

    /// The record of the commit that made a revision. In order of revisions.
    pub(super) fn log(&self, revision: Revision) -> String {
        format!("{}{:020}", self.log_prefix(), revision.get())
    }

    fn log_prefix(&self) -> String {
        format!("{}/log/", self.prefix)
    }

    /// The revision that the name of a record has.
    pub(super) fn revision_in(&self, key: &[u8]) -> Option<Revision> {
        let name = std::str::from_utf8(key).ok()?.strip_prefix(&self.log_prefix())?;
        let revision = Revision::new(name.parse().ok()?)?;
        (self.log(revision).as_bytes() == key).then_some(revision)
    }

    /// The records of all commits: the names of revisions.
    pub(super) fn logs(&self) -> Keys {
        let name = |revision: u64| format!("{}{revision:020}", self.log_prefix());
        Keys::between(name(1), name(Revision::MAX + 1))
    }

    /// The records of commits up to a revision.
    pub(super) fn logs_until(&self, last: Revision) -> Keys {
        Keys::between(self.log_prefix(), format!("{}\0", self.log(last)))
    }

    /// A backup, by its name.
    pub(super) fn backup(&self, name: &str) -> String {
        format!("{}{name}", self.backup_prefix())
    }

    pub(super) fn backup_prefix(&self) -> String {
        format!("{}/backup/", self.prefix)
    }

    /// What was replaced because it was damaged.
    pub(super) fn evidence(&self, name: &str) -> String {
        format!("{}{name}", self.evidence_prefix())
    }

    pub(super) fn evidence_prefix(&self) -> String {
        format!("{}/corrupt/", self.prefix)
    }

    /// The file of a signal.
    pub(super) fn signal(&self, name: &str) -> String {
        format!("{}{name}", self.signal_prefix())
    }

    pub(super) fn signal_prefix(&self) -> String {
        format!("{}/signal/", self.prefix)
    }

    /// The head of a checkpoint: what it is, and where its content lies.
    pub(super) fn checkpoint(&self, id: &str) -> String {
        format!("{}{id}", self.checkpoint_prefix())
    }

    pub(super) fn checkpoint_prefix(&self) -> String {
        format!("{}/checkpoint/", self.prefix)
    }

    /// A chunk of the content of a checkpoint.
    pub(super) fn chunk(&self, blob: &str, number: usize) -> String {
        format!("{}{number:04}", self.chunk_prefix(blob))
    }

    /// All chunks of one content.
    pub(super) fn chunks(&self, blob: &str) -> Keys {
        Keys::below(&self.chunk_prefix(blob))
    }

    fn chunk_prefix(&self, blob: &str) -> String {
        format!("{}/blob/{blob}/", self.prefix)
    }

    /// The record of a guard: it begins with its checkpoint, and ends when nothing of what its
    /// command changed is left to be put back.
    pub(super) fn guard(&self, id: &str) -> String {
        format!("{}{id}", self.guard_prefix())
    }

    pub(super) fn guard_prefix(&self) -> String {
        format!("{}/guard/", self.prefix)
    }

    /// That an operation is not committed yet, or never will be.
    pub(super) fn claim(&self, operation: &OperationId) -> String {
        format!("{}/operation/{}", self.prefix, operation.as_str())
    }
}

/// The keys that are places of writers: each ends with its writer's lease.
pub(super) fn places(mut keys: Vec<KeyValue>) -> Vec<KeyValue> {
    keys.retain(|kv| kv.lease != 0);
    keys
}

/// The name of a key below a prefix. A key further below is of something else.
pub(super) fn name_in<'k>(key: &'k [u8], prefix: &str) -> Option<&'k str> {
    let name = std::str::from_utf8(key).ok()?.strip_prefix(prefix)?;
    is_plain(name).then_some(name)
}
