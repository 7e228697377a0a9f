//! `state push`, on the store's side.

use bytes::Bytes;

use super::{ended, open, unsure};
use crate::document::seal::Seal;
use crate::document::{Reading, inspect_text};
use crate::error::{Error, Kind, Result};
use crate::etcd::messages::{RequestOp, TxnRequest};
use crate::etcd::txn::{Keys, absent, delete, put, put_at, snapshot};
use crate::journal::Commit;
use crate::plural::count;
use crate::store::FileStore;
use crate::store::moving::{Contents, occupied};
use crate::store::remote::log::{LOG_KEPT, Newest, Operation, Record};
use crate::store::remote::meta::{Meta, Standing};
use crate::store::remote::{DOCUMENT_LIMIT, RemoteStore};
use crate::store::restore::intent::OperationId;

/// The operations of one transaction, at most: etcd takes 128.
const TOGETHER: usize = 64;
/// The bytes of one transaction, at most: etcd takes 1.5 MiB.
const BYTES: usize = 1 << 20;

/// What a push has found or put.
pub(in crate::store::remote) enum Arrival {
    /// The store expects the state.
    Expected(Box<Meta>),
    /// The state is here: the answer of an earlier attempt was lost.
    Here,
}

impl RemoteStore {
    /// Lets the store expect the state.
    pub(super) fn begin_arrival(
        &self,
        operation: &OperationId,
        contents: &Contents,
        root: &FileStore,
    ) -> Result<Arrival> {
        let size = contents.state.len();
        if size > DOCUMENT_LIMIT {
            let message = format!(
                "the document has {size} bytes, and {} MiB is the limit in a store on other machines",
                DOCUMENT_LIMIT >> 20
            );
            return Err(Error::new(Kind::TooLarge, message)
                .hint_command("state update 'del(.large)'", "make it smaller"));
        }
        let mut is_put = false;
        loop {
            match self.expect(operation, contents, root, &mut is_put) {
                Ok(None) => {}
                Ok(Some(arrival)) => return Ok(arrival),
                Err(error) => return Err(unsure(error, is_put)),
            }
        }
    }

    /// One attempt; `None` if `meta` is to be read again. Notes that something was put.
    fn expect(
        &self,
        operation: &OperationId,
        contents: &Contents,
        root: &FileStore,
        is_put: &mut bool,
    ) -> Result<Option<Arrival>> {
        let Some(meta) = self.room_for(operation, contents)? else {
            return Ok(Some(Arrival::Here));
        };
        if matches!(&meta.standing, Standing::Arriving { operation: it, .. } if it == operation) {
            return Ok(Some(Arrival::Expected(meta.into())));
        }
        let created = crate::time::rfc3339(self.now());
        let value = meta.arriving(&contents.lineage, &created, self.note(root, operation));
        let key = self.keys.meta();
        let request = TxnRequest {
            compare: vec![put_at(key.clone(), meta.put_at), absent(self.keys.claim(operation))],
            // Signals of a state that was here before.
            success: vec![put(key, value), delete(&Keys::below(&self.keys.signal_prefix()))],
            failure: Vec::new(),
        };
        self.step(request)?;
        *is_put = true;
        match self.is_given_up(operation)? {
            true => Err(ended()),
            false => Ok(None),
        }
    }

    fn is_given_up(&self, operation: &OperationId) -> Result<bool> {
        Ok(self.value_of(self.keys.claim(operation))?.is_some())
    }

    /// `meta`, if the store can take the state; `None` if it has.
    fn room_for(&self, operation: &OperationId, contents: &Contents) -> Result<Option<Meta>> {
        let ranges = [
            Keys::one(self.keys.meta()).read(),
            Keys::one(self.keys.state()).read(),
            self.keys.logs().read_last(),
        ];
        let mut found = self.client.snapshot(&snapshot(ranges))?.ranges();
        let meta = self.meta_in(found.next().unwrap_or_default())?;
        let state = found.next().unwrap_or_default().kvs.pop();
        let newest = found.next().unwrap_or_default().kvs.pop();
        let newest = newest.and_then(|kv| Newest::of(&kv, &self.keys));
        match &meta.standing {
            Standing::Here { pushed: Some(pushed) } if pushed == operation => return Ok(None),
            Standing::Here { .. } if meta.put_at == 0 && state.is_none() && newest.is_none() => {}
            Standing::Arriving { .. } | Standing::Departed { .. }
                if meta.lineage.as_ref() == Some(&contents.lineage) => {}
            standing => return Err(self.not_here(standing)),
        }
        if let Some(newest) = newest.filter(|newest| newest.revision > contents.revision) {
            let error = occupied(&format!(
                "{} has revision {} of this state, and the root has revision {}",
                self.shown, newest.revision, contents.revision
            ));
            return Err(error.hint_command("state push --help", "name another prefix"));
        }
        Ok(Some(meta))
    }

    /// Puts everything, and lets the store be used.
    pub(super) fn complete_arrival(
        &self,
        operation: &OperationId,
        contents: &Contents,
        arrival: Arrival,
    ) -> Result<()> {
        let Arrival::Expected(meta) = arrival else { return Ok(()) };
        let guard = put_at(self.keys.meta(), meta.put_at);
        let (own, earlier) = self.commits(contents);
        let mut puts = Vec::new();
        let mut large = 0;
        for (name, text) in &contents.backups {
            match text.len() <= DOCUMENT_LIMIT {
                true => puts.push((self.keys.backup(name), text.clone())),
                false => large += 1,
            }
        }
        if large > 0 {
            self.warn(format!("{} over 1 MiB stayed in the root", count(large, "backup")));
        }
        for (name, content) in &contents.signals {
            puts.push((self.keys.signal(name), content.clone()));
        }
        for commit in earlier {
            let record = Record { operation: Operation::new()?, commit: commit.clone() };
            puts.push((self.keys.log(commit.revision), record.value()?));
        }
        for success in batches(puts) {
            let request = TxnRequest { compare: vec![guard.clone()], success, failure: Vec::new() };
            if !self.client.commit(&request).map_err(open)?.succeeded {
                return Err(ended());
            }
        }
        let record = Record { operation: Operation::new()?, commit: own };
        let request = TxnRequest {
            compare: vec![guard],
            success: vec![
                put(self.keys.state(), contents.state.clone()),
                put(self.keys.log(contents.revision), record.value()?),
                put(self.keys.meta(), meta.arrived()),
            ],
            failure: Vec::new(),
        };
        let (succeeded, found) = self.step(request)?;
        let found = self.meta_in(found)?;
        let is_done = succeeded
            || matches!(&found.standing, Standing::Here { pushed: Some(it) } if it == operation);
        if is_done { Ok(()) } else { Err(ended()) }
    }

    /// The record of the document's own revision, and those before it that the log goes back.
    fn commits<'c>(&self, contents: &'c Contents) -> (Commit, Vec<&'c Commit>) {
        let of = |commit: &&Commit| commit.revision == contents.revision;
        let own = contents.commits.iter().rev().find(of).cloned();
        let own = own.unwrap_or_else(|| Commit {
            origin: (self.surroundings.origin)(self.now()),
            lineage: contents.lineage.clone(),
            revision: contents.revision,
            digest: contents.digest.clone(),
            command: "state push".to_owned(),
            reason: None,
            waited: 0.0,
            blockers: Vec::new(),
            bytes: contents.state.len() as u64,
            repeats: None,
            changes: None,
            guards: Vec::new(),
        });
        let own = Commit { digest: contents.digest.clone(), ..own };
        let oldest = contents.revision.get().saturating_sub(LOG_KEPT - 1);
        let earlier = contents.commits.iter().filter(|commit| {
            commit.revision < contents.revision && commit.revision.get() >= oldest
        });
        (own, earlier.collect())
    }

    /// Takes a push back: afterwards the store is as it was before, and stays so.
    pub(super) fn take_back(&self, operation: &OperationId) -> Result<()> {
        loop {
            let ranges = [Keys::one(self.keys.meta()).read(), Keys::one(self.keys.state()).read()];
            let mut found = self.client.snapshot(&snapshot(ranges))?.ranges();
            let meta = self.meta_in(found.next().unwrap_or_default())?;
            let state = found.next().unwrap_or_default().kvs.pop();
            let (meta_key, state_key) = (self.keys.meta(), self.keys.state());
            let state_put_at = state.as_ref().map_or(0, |kv| kv.mod_revision);
            let compare =
                vec![put_at(meta_key.clone(), meta.put_at), put_at(state_key, state_put_at)];
            let success = match &meta.standing {
                Standing::Arriving { operation: it, .. } if it == operation => self.undoing(&meta),
                Standing::Here { pushed: Some(it) } if it == operation => {
                    // Put by the same transaction as `meta`, or changed since.
                    if state_put_at != meta.put_at {
                        return Err(self.used_since(state.map(|kv| kv.value)));
                    }
                    self.undoing(&meta)
                }
                // A transaction of this push that is still under way comes too late.
                _ => vec![put(self.keys.claim(operation), "given up")],
            };
            let request = TxnRequest { compare, success, failure: Vec::new() };
            if self.step(request)?.0 {
                return Ok(());
            }
        }
    }

    fn undoing(&self, meta: &Meta) -> Vec<RequestOp> {
        let keys = &self.keys;
        let mut operations =
            vec![delete(&Keys::one(keys.state())), delete(&Keys::below(&keys.signal_prefix()))];
        match meta.before_arrival() {
            Some(before) => operations.push(put(keys.meta(), before)),
            None => operations.extend([
                delete(&keys.logs()),
                delete(&Keys::below(&keys.backup_prefix())),
                delete(&Keys::one(keys.meta())),
            ]),
        }
        operations
    }

    fn used_since(&self, state: Option<Bytes>) -> Error {
        let revision = state.and_then(|text| match inspect_text(text) {
            Reading::Sealed(document) => {
                let Seal { revision, .. } = document.seal;
                Some(revision.get())
            }
            _ => None,
        });
        let message = format!("the state is in {} and was changed there since", self.shown);
        let url = crate::error::quote(&self.shown);
        Error::new(Kind::Conflict, message)
            .hint_command(format!("state push {url}"), "finish it; `state pull` brings it back")
            .detail("revision", revision)
    }
}

/// Puts in groups that one transaction can hold.
fn batches(puts: Vec<(String, Bytes)>) -> Vec<Vec<RequestOp>> {
    let (mut batches, mut batch, mut size) = (Vec::new(), Vec::new(), 0);
    for (key, value) in puts {
        if batch.len() == TOGETHER || size + value.len() > BYTES {
            batches.push(std::mem::take(&mut batch));
            size = 0;
        }
        size += value.len();
        batch.push(put(key, value));
    }
    if !batch.is_empty() {
        batches.push(batch);
    }
    batches
}
