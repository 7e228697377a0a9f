//! `state push`, on the store's side.

use bytes::Bytes;

use super::departure::check_unlocked;
use super::step::{Step, ended, note, open, step, unsure};
use crate::document::{Reading, inspect_text};
use crate::error::{Error, Kind, Result, quote};
use crate::etcd::messages::{Compare, RequestOp, TxnRequest};
use crate::etcd::txn::{Keys, absent, created_before, delete, put, put_at, snapshot};
use crate::journal::Commit;
use crate::lock::remote::Tokens;
use crate::plural::count;
use crate::store::FileStore;
use crate::store::moving::{Contents, occupied};
use crate::store::remote::keys::KeySpace;
use crate::store::remote::log::{LOG_KEPT, Newest, Operation, Record};
use crate::store::remote::meta::{Meta, Standing, meta_in, not_here};
use crate::store::remote::neighbours::{Beginning, check_neighbours};
use crate::store::remote::source::Source;
use crate::store::remote::{DOCUMENT_LIMIT, RemoteStore};
use crate::store::restore::intent::OperationId;
use crate::time::rfc3339;

/// The operations of one transaction, at most: etcd takes 128.
const TOGETHER: usize = 64;
/// The bytes of one transaction, at most: etcd takes 1.5 MiB.
const BYTES: usize = 1 << 20;

/// What a push has found or put.
pub(super) enum Arrival {
    /// The store expects the state.
    Expected(Box<Meta>),
    /// The state is here: the answer of an earlier attempt was lost.
    Here,
}

/// A store that can take a state.
struct Room {
    meta: Meta,
    /// The cluster's revision at which it was found.
    at: i64,
    /// How tokens of locks follow from revisions.
    tokens: Tokens,
    /// Guards of that no store is above or below, where there was none here.
    neighbours: Vec<Compare>,
}

/// A push on its way here.
#[derive(Clone, Copy)]
pub(super) struct Push<'a> {
    pub store: &'a RemoteStore,
    pub root: &'a FileStore,
    pub operation: &'a OperationId,
    /// What the root has.
    pub contents: &'a Contents,
}

/// The commits that go with a push.
struct Commits<'c> {
    /// The one of the document's own revision.
    own: Commit,
    /// Those before it.
    earlier: Vec<&'c Commit>,
}

impl Push<'_> {
    /// Lets the store expect the state.
    pub(super) fn begin(&self) -> Result<Arrival> {
        let size = self.contents.state.len();
        if size > DOCUMENT_LIMIT {
            let message = format!(
                "the document has {size} bytes, and {} MiB is the limit in a store on other \
                 machines",
                DOCUMENT_LIMIT >> 20
            );
            return Err(Error::new(Kind::TooLarge, message)
                .hint_command("state update 'del(.large)'", "make it smaller"));
        }
        let mut is_put = false;
        loop {
            match self.expect(&mut is_put) {
                Ok(None) => {}
                Ok(Some(arrival)) => return Ok(arrival),
                Err(error) => return Err(unsure(error, is_put)),
            }
        }
    }

    /// One attempt; `None` if `meta` is to be read again. Notes that something was put.
    fn expect(&self, is_put: &mut bool) -> Result<Option<Arrival>> {
        let Self { store, operation, contents, .. } = *self;
        let Some(Room { meta, at, tokens, neighbours }) = self.room()? else {
            return Ok(Some(Arrival::Here));
        };
        if matches!(&meta.standing, Standing::Arriving { operation: it, .. } if it == operation) {
            return Ok(Some(Arrival::Expected(meta.into())));
        }
        let created = rfc3339(store.now());
        let value = meta.arriving(&contents.lineage, &created, note(store, self.root, operation));
        let key = store.keys.meta();
        let mut compare = neighbours;
        compare.extend([
            put_at(key.clone(), meta.put_at),
            absent(store.keys.claim(operation)),
            created_before(&store.keys.locks.all_grants(), at + 1),
        ]);
        let request = TxnRequest {
            compare,
            success: vec![
                put(key, value),
                put(store.keys.locks.tokens(), tokens.from(contents.tokens, at).value()),
                // Signals of a state that was here before.
                delete(&Keys::below(&store.keys.signal_prefix())),
            ],
            failure: Vec::new(),
        };
        step(store, request)?;
        *is_put = true;
        // The claim says that the push was given up.
        match Source::Cluster.value(store, store.keys.claim(operation))? {
            Some(_) => Err(ended()),
            None => Ok(None),
        }
    }

    /// The room for the state; `None` if the store has it.
    fn room(&self) -> Result<Option<Room>> {
        let Self { store, operation, contents, .. } = *self;
        let ranges = [
            Keys::one(store.keys.meta()).read(),
            Keys::one(store.keys.state()).read(),
            store.keys.logs().read_last(),
            store.keys.locks.all_grants().list(),
            store.keys.locks.read_tokens(),
        ];
        let answer = store.client.snapshot(&snapshot(ranges))?;
        let at = answer.revision();
        let mut found = answer.ranges();
        let meta = meta_in(store, found.next().unwrap_or_default())?;
        let state = found.next().unwrap_or_default().kvs.pop();
        let newest = found.next().unwrap_or_default().kvs.pop();
        let newest = newest.and_then(|kv| Newest::of(&kv, &store.keys));
        let grants = found.next().unwrap_or_default().kvs;
        let tokens = Tokens::of(found.next().unwrap_or_default().kvs.first())?;
        match &meta.standing {
            Standing::Here { pushed: Some(pushed) } if pushed == operation => return Ok(None),
            Standing::Here { .. } if meta.put_at == 0 && state.is_none() && newest.is_none() => {}
            Standing::Arriving { .. } | Standing::Departed { .. }
                if meta.lineage.as_ref() == Some(&contents.lineage) => {}
            standing => return Err(not_here(standing, &store.shown)),
        }
        if let Some(newest) = newest.filter(|newest| newest.revision > contents.revision) {
            let error = occupied(&format!(
                "{} has revision {} of this state, and the root has revision {}",
                store.shown, newest.revision, contents.revision
            ));
            return Err(error.hint_command("state push --help", "name another prefix"));
        }
        // The keys of a store below may be where this one has its grants.
        let neighbours = match meta.put_at {
            0 => check_neighbours(store, Beginning::Push)?,
            _ => Vec::new(),
        };
        check_unlocked(store, &grants)?;
        Ok(Some(Room { meta, at, tokens, neighbours }))
    }

    /// Puts everything, and lets the store be used.
    pub(super) fn complete(&self, arrival: Arrival) -> Result<()> {
        let Self { store, operation, contents, .. } = *self;
        let Arrival::Expected(meta) = arrival else { return Ok(()) };
        let guard = put_at(store.keys.meta(), meta.put_at);
        let Commits { own, earlier } = self.commits();
        let mut puts = Vec::new();
        let mut large = 0;
        for (name, text) in &contents.backups {
            match text.len() <= DOCUMENT_LIMIT {
                true => puts.push((store.keys.backup(name), text.clone())),
                false => large += 1,
            }
        }
        if large > 0 {
            store.warn(format!("{} over 1 MiB stayed in the root", count(large, "backup")));
        }
        for (name, content) in &contents.signals {
            puts.push((store.keys.signal(name), content.clone()));
        }
        for commit in earlier {
            let record = Record { operation: Operation::new()?, commit: commit.clone() };
            puts.push((store.keys.log(commit.revision), record.value()?));
        }
        for success in batches(puts) {
            let request = TxnRequest { compare: vec![guard.clone()], success, failure: Vec::new() };
            if !store.client.commit(&request).map_err(open)?.succeeded {
                return Err(ended());
            }
        }
        let record = Record { operation: Operation::new()?, commit: own };
        let request = TxnRequest {
            compare: vec![guard],
            success: vec![
                put(store.keys.state(), contents.state.clone()),
                put(store.keys.log(contents.revision), record.value()?),
                put(store.keys.meta(), meta.arrived()),
            ],
            failure: Vec::new(),
        };
        let Step::Refused(found) = step(store, request)? else { return Ok(()) };
        match meta_in(store, found)?.standing {
            Standing::Here { pushed: Some(it) } if it == *operation => Ok(()),
            _ => Err(ended()),
        }
    }

    /// The record of the document's own revision, and those before it that the log goes back.
    fn commits(&self) -> Commits<'_> {
        let Self { store, contents, .. } = *self;
        let of = |commit: &&Commit| commit.revision == contents.revision;
        let own = contents.commits.iter().rev().find(of).cloned();
        let own = own.unwrap_or_else(|| Commit {
            origin: (store.surroundings.origin)(store.now()),
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
        Commits { own, earlier: earlier.collect() }
    }
}

/// Takes a push back: afterwards the store is as it was before, and stays so.
pub(super) fn take_back(store: &RemoteStore, operation: &OperationId) -> Result<()> {
    loop {
        let ranges = [
            Keys::one(store.keys.meta()).read(),
            Keys::one(store.keys.state()).read(),
            store.keys.locks.all_grants().list(),
        ];
        let answer = store.client.snapshot(&snapshot(ranges))?;
        let at = answer.revision();
        let mut found = answer.ranges();
        let meta = meta_in(store, found.next().unwrap_or_default())?;
        let state = found.next().unwrap_or_default().kvs.pop();
        let grants = found.next().unwrap_or_default().kvs;
        let (meta_key, state_key) = (store.keys.meta(), store.keys.state());
        let state_put_at = state.as_ref().map_or(0, |kv| kv.mod_revision);
        let mut compare =
            vec![put_at(meta_key.clone(), meta.put_at), put_at(state_key, state_put_at)];
        let success = match &meta.standing {
            Standing::Arriving { operation: it, .. } if it == operation => {
                undoing(&store.keys, &meta)
            }
            Standing::Here { pushed: Some(it) } if it == operation => {
                // Put by the same transaction as `meta`, or changed since.
                if state_put_at != meta.put_at {
                    return Err(used_since(store, state.map(|kv| kv.value)));
                }
                check_unlocked(store, &grants)?;
                compare.push(created_before(&store.keys.locks.all_grants(), at + 1));
                undoing(&store.keys, &meta)
            }
            // A transaction of this push that is still under way comes too late.
            _ => vec![put(store.keys.claim(operation), "given up")],
        };
        let request = TxnRequest { compare, success, failure: Vec::new() };
        if let Step::Done = step(store, request)? {
            return Ok(());
        }
    }
}

fn undoing(keys: &KeySpace, meta: &Meta) -> Vec<RequestOp> {
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

fn used_since(store: &RemoteStore, state: Option<Bytes>) -> Error {
    let revision = state.and_then(|text| match inspect_text(text) {
        Reading::Sealed(document) => Some(document.seal.revision.get()),
        _ => None,
    });
    let message = format!("the state is in {} and was changed there since", store.shown);
    let url = quote(&store.shown);
    Error::new(Kind::Conflict, message)
        .hint_command(format!("state push {url}"), "finish it; `state pull` brings it back")
        .detail("revision", revision)
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
