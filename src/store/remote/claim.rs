//! The claim of a restore: as long as its key is there, the restore is not committed. Once another
//! command has marked it, the restore never will be.

use serde_json::json;

use super::RemoteStore;
use super::trees;
use crate::error::{Error, Kind, Result};
use crate::etcd::failure::Failure;
use crate::etcd::messages::{Compare, TxnRequest};
use crate::etcd::txn::{Keys, absent, delete, put, put_at};
use crate::store::restore::intent::OperationId;

/// The key of a restore that is not committed.
#[derive(Debug)]
pub(super) struct Claim {
    pub key: String,
    /// The revision that put it.
    put_at: i64,
    /// The revision at which `config` and `signals` were free.
    pub free_at: i64,
}

/// What became of a restore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    Committed,
    /// It never will be.
    GivenUp,
}

impl Claim {
    /// Puts it.
    pub(super) fn put(store: &RemoteStore, operation: &OperationId) -> Result<Self> {
        let key = store.keys.claim(operation);
        let origin = json!((store.surroundings.origin)(store.now()));
        let own = Keys::one(key.clone()).read();
        let request = TxnRequest {
            compare: vec![absent(key.clone())],
            success: vec![put(key.clone(), origin.to_string()), own.clone().into()],
            failure: vec![own.into()],
        };
        let answer = store.client.commit(&request).map_err(Failure::of_read)?;
        let found = answer.ranges().next().and_then(|range| range.kvs.into_iter().next());
        let found = found.ok_or_else(|| Error::new(Kind::Internal, "a claim that was not put"))?;
        Ok(Self { key, put_at: found.mod_revision, free_at: 0 })
    }

    /// Refuses to try again what another command gave up.
    pub(super) fn check(&self, store: &RemoteStore) -> Result<()> {
        let range = store.client.range(&Keys::one(self.key.clone()).read())?;
        if range.kvs.first().is_some_and(|kv| kv.mod_revision == self.put_at) {
            return Ok(());
        }
        let message = "another command gave this restore up; nothing was restored";
        Err(Error::new(Kind::Conflict, message).hint_command("recover status", "see what is there"))
    }

    /// Hold until another command gave the restore up, or was granted `config` or `signals`.
    pub(super) fn guards(&self, store: &RemoteStore) -> impl Iterator<Item = Compare> {
        let own = put_at(self.key.clone(), self.put_at);
        std::iter::once(own).chain(trees::guards(&store.keys, self.free_at))
    }
}

/// Finds out whether a restore was committed. If not, it never will be.
pub(super) fn decide(store: &RemoteStore, operation: &OperationId) -> Result<Decision> {
    let key = store.keys.claim(operation);
    let request = TxnRequest {
        compare: vec![absent(key.clone())],
        success: Vec::new(),
        failure: vec![put(key, "given up")],
    };
    // A claim that was marked and not acknowledged changes no document.
    let answer = store.client.commit(&request).map_err(Failure::of_read)?;
    Ok(if answer.succeeded { Decision::Committed } else { Decision::GivenUp })
}

/// Removes the claim of a restore that left no intent.
pub(super) fn forget(store: &RemoteStore, operation: &OperationId) {
    let success = vec![delete(&Keys::one(store.keys.claim(operation)))];
    // What is left of it is a key that nothing reads.
    let _ = store.client.commit(&TxnRequest { success, ..TxnRequest::default() });
}
