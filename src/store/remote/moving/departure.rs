//! `state pull`, on the store's side.

use bytes::Bytes;

use super::step::{Step, ended, note, step, unsure};
use crate::document::seal::{Document, Lineage};
use crate::document::{Reading, inspect_text};
use crate::error::{Error, Kind, Result, quote};
use crate::etcd::messages::{KeyValue, TxnRequest};
use crate::etcd::txn::{Keys, created_before, delete, put, put_at, snapshot};
use crate::lock::remote::{Entry, Tokens};
use crate::store::FileStore;
use crate::store::diagnosis::Health;
use crate::store::moving::{Contents, check_unguarded, locked, occupied};
use crate::store::remote::RemoteStore;
use crate::store::remote::ground::Ground;
use crate::store::remote::guard::on_record::running_guards;
use crate::store::remote::keys::name_in;
use crate::store::remote::log::records;
use crate::store::remote::meta::{Meta, Standing, meta_in, meta_of, not_here};
use crate::store::remote::source::Source;
use crate::store::restore::intent::OperationId;

/// What a pull has found or put.
pub(super) enum Departure {
    /// No command changes this document.
    Frozen { meta: Box<Meta>, state: Bytes },
    /// The document has left.
    Departed(Box<Meta>),
}

impl Departure {
    /// The document, if it is still here.
    pub(super) fn document(&self) -> Option<&Bytes> {
        match self {
            Self::Frozen { state, .. } => Some(state),
            Self::Departed(_) => None,
        }
    }
}

/// A pull on its way to a root.
#[derive(Clone, Copy)]
pub(super) struct Pull<'a> {
    pub store: &'a RemoteStore,
    pub root: &'a FileStore,
    pub operation: &'a OperationId,
}

impl Pull<'_> {
    /// Freezes the store. `lineage` is that of the root, if it had a state.
    pub(super) fn begin(&self, lineage: Option<&Lineage>) -> Result<Departure> {
        let mut is_put = false;
        loop {
            match self.freeze(lineage, &mut is_put) {
                Ok(None) => {}
                Ok(Some(departure)) => return Ok(departure),
                Err(error) => return Err(unsure(error, is_put)),
            }
        }
    }

    /// One attempt; `None` if `meta` is to be read again. Notes that something was put.
    fn freeze(&self, lineage: Option<&Lineage>, is_put: &mut bool) -> Result<Option<Departure>> {
        let Self { store, operation, .. } = *self;
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
        let holders = found.next().unwrap_or_default().kvs;
        let state_put_at = state.as_ref().map_or(0, |kv| kv.mod_revision);
        match &meta.standing {
            Standing::Departed { operation: it, .. } if it == operation => {
                return Ok(Some(Departure::Departed(meta.into())));
            }
            Standing::Departing { operation: it, .. } if it == operation => {
                let state = state.ok_or_else(ended)?.value;
                return Ok(Some(Departure::Frozen { meta: meta.into(), state }));
            }
            Standing::Here { .. } => {}
            standing => return Err(not_here(standing, &store.shown)),
        }
        // Only a state that needs no repair leaves.
        let ground = Ground::observe(store, &[])?;
        if !matches!(ground.health, Health::Healthy(_)) {
            return Err(ground.refusal());
        }
        if let Some(lineage) = lineage.filter(|lineage| Some(*lineage) != ground.lineage.as_ref()) {
            let error = occupied(&format!(
                "the root is that of the state {lineage}, and {} has another",
                store.shown
            ));
            return Err(error.hint_command("state pull --help", "name another --root"));
        }
        check_unlocked(store, &holders)?;
        check_unguarded(running_guards(&ground).map(|(_, record)| record.id.clone()))?;
        let key = store.keys.meta();
        let value = meta.departing(note(store, self.root, operation));
        let request = TxnRequest {
            compare: vec![
                put_at(key.clone(), meta.put_at),
                put_at(store.keys.state(), state_put_at),
                created_before(&store.keys.locks.all_grants(), at + 1),
            ],
            success: vec![put(key, value)],
            failure: Vec::new(),
        };
        step(store, request)?;
        *is_put = true;
        Ok(None)
    }

    /// What goes to the root. `received` is the document there.
    pub(super) fn contents(
        &self,
        departure: &Departure,
        received: Option<Document>,
    ) -> Result<Contents> {
        let store = self.store;
        let document = match departure {
            Departure::Frozen { state, .. } => match inspect_text(state.clone()) {
                Reading::Sealed(document) => Some(document),
                _ => None,
            },
            Departure::Departed(meta) => received.filter(|document| {
                matches!(&meta.standing, Standing::Departed { digest, revision, .. }
                    if *digest == document.seal.digest && *revision == document.seal.revision)
            }),
        };
        let seal = document.ok_or_else(|| vanished(store))?.seal;
        let name = |key: &Bytes, prefix: &str| name_in(key, prefix).map(str::to_owned);
        let prefix = store.keys.backup_prefix();
        let listed = store.client.range(&Keys::below(&prefix).list())?;
        let mut backups = Vec::new();
        for key in listed.kvs.iter().filter_map(|kv| name(&kv.key, &prefix)) {
            if let Some(text) = Source::Cluster.value(store, store.keys.backup(&key))? {
                backups.push((key, text));
            }
        }
        let prefix = store.keys.signal_prefix();
        let given = store.client.range(&Keys::below(&prefix).read())?;
        let signals =
            given.kvs.into_iter().filter_map(|kv| Some((name(&kv.key, &prefix)?, kv.value)));
        Ok(Contents {
            signals: signals.collect(),
            commits: records(store, Source::Cluster)?
                .into_iter()
                .map(|record| record.commit)
                .collect(),
            lineage: seal.lineage,
            revision: seal.revision,
            digest: seal.digest,
            state: departure.document().cloned().unwrap_or_default(),
            backups,
            tokens: tokens_end(store)?,
        })
    }

    /// Hands the state over: it is in the root now.
    pub(super) fn complete(&self, contents: &Contents, departure: &Departure) -> Result<()> {
        let Self { store, operation, .. } = *self;
        let Departure::Frozen { meta, .. } = departure else { return Ok(()) };
        let key = store.keys.meta();
        let value = meta.departed(contents, note(store, self.root, operation));
        let request = TxnRequest {
            compare: vec![put_at(key.clone(), meta.put_at)],
            success: vec![put(key, value), delete(&Keys::one(store.keys.state()))],
            failure: Vec::new(),
        };
        let Step::Refused(found) = step(store, request)? else { return Ok(()) };
        match meta_in(store, found)?.standing {
            Standing::Departed { operation: it, .. } if it == *operation => Ok(()),
            _ => Err(ended()),
        }
    }
}

/// Refuses to move a state while locks are held.
pub(super) fn check_unlocked(store: &RemoteStore, grants: &[KeyValue]) -> Result<()> {
    let lock_of = |kv: &KeyValue| match store.keys.locks.parse(&kv.key)? {
        Entry::Grant(name) => Some(name.to_string()),
        Entry::Waiter(_) => None,
    };
    let mut names: Vec<String> = grants.iter().filter_map(lock_of).collect();
    names.dedup();
    if names.is_empty() {
        return Ok(());
    }
    let list = format!("--store {} lock list", quote(&store.shown));
    let error = Error { hints: Vec::new(), ..locked(&names) };
    Err(error.hint_on_files(list, "see by which processes; wait for them"))
}

/// A number above the tokens of all grants so far.
pub(super) fn tokens_end(store: &RemoteStore) -> Result<u64> {
    let answer = store.client.snapshot(&snapshot([store.keys.locks.read_tokens()]))?;
    let at = answer.revision();
    let found = answer.ranges().flat_map(|range| range.kvs).next();
    Ok(Tokens::of(found.as_ref())?.end(at))
}

fn vanished(store: &RemoteStore) -> Error {
    let message = format!("the state of {} was handed over, and is not in this root", store.shown);
    Error::new(Kind::Corrupt, message)
        .hint_shell("ls -l .state-backups/moved.json", "see what is left of it")
}

/// Lets the state stay, whatever of this pull is still under way.
pub(super) fn release(store: &RemoteStore, operation: &OperationId) -> Result<()> {
    loop {
        let meta = meta_of(store)?;
        match &meta.standing {
            Standing::Departed { operation: it, .. } if it == operation => {
                let message = format!("the state has left {} already", store.shown);
                let url = quote(&store.shown);
                return Err(Error::new(Kind::Conflict, message)
                    .hint_command(format!("state pull {url}"), "finish it; then push it back"));
            }
            Standing::Departing { operation: it, .. } if it != operation => return Ok(()),
            Standing::Departing { .. } | Standing::Here { .. } if meta.put_at != 0 => {}
            _ => return Ok(()),
        }
        let key = store.keys.meta();
        let value = match &meta.standing {
            // What freezes it is guarded by this `meta`.
            Standing::Here { .. } => meta.as_it_is(),
            _ => meta.staying(),
        };
        let request = TxnRequest {
            compare: vec![put_at(key.clone(), meta.put_at)],
            success: vec![put(key, value)],
            failure: Vec::new(),
        };
        if let Step::Done = step(store, request)? {
            return Ok(());
        }
    }
}
