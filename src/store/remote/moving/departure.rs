//! `state pull`, on the store's side.

use bytes::Bytes;

use super::{ended, unsure};
use crate::document::seal::{Document, Lineage};
use crate::document::{Reading, inspect_text};
use crate::error::{Error, Kind, Result};
use crate::etcd::messages::TxnRequest;
use crate::etcd::txn::{Keys, created_before, delete, put, put_at, snapshot};
use crate::lock::remote::Entry;
use crate::store::FileStore;
use crate::store::diagnosis::Health;
use crate::store::moving::{Contents, locked, occupied};
use crate::store::remote::RemoteStore;
use crate::store::remote::ground::name_in;
use crate::store::remote::meta::{Meta, Standing};
use crate::store::restore::intent::OperationId;

/// What a pull has found or put.
pub(in crate::store::remote) enum Departure {
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

impl RemoteStore {
    /// Freezes the store. `lineage` is that of the root, if it had a state.
    pub(super) fn begin_departure(
        &self,
        operation: &OperationId,
        lineage: Option<&Lineage>,
        root: &FileStore,
    ) -> Result<Departure> {
        let mut is_put = false;
        loop {
            match self.freeze(operation, lineage, root, &mut is_put) {
                Ok(None) => {}
                Ok(Some(departure)) => return Ok(departure),
                Err(error) => return Err(unsure(error, is_put)),
            }
        }
    }

    /// One attempt; `None` if `meta` is to be read again. Notes that something was put.
    fn freeze(
        &self,
        operation: &OperationId,
        lineage: Option<&Lineage>,
        root: &FileStore,
        is_put: &mut bool,
    ) -> Result<Option<Departure>> {
        let ranges = [
            Keys::one(self.keys.meta()).read(),
            Keys::one(self.keys.state()).read(),
            self.keys.grants().list(),
        ];
        let answer = self.client.snapshot(&snapshot(ranges))?;
        let at = answer.revision();
        let mut found = answer.ranges();
        let meta = self.meta_in(found.next().unwrap_or_default())?;
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
            standing => return Err(self.not_here(standing)),
        }
        // Only a state that needs no repair leaves.
        let ground = self.observe(&[])?;
        if !matches!(ground.health, Health::Healthy(_)) {
            return Err(ground.refusal());
        }
        if let Some(lineage) = lineage.filter(|lineage| Some(*lineage) != ground.lineage.as_ref()) {
            let error = occupied(&format!(
                "the root is that of the state {lineage}, and {} has another",
                self.shown
            ));
            return Err(error.hint_command("state pull --help", "name another --root"));
        }
        let mut names: Vec<String> = holders
            .iter()
            .filter_map(|kv| match self.keys.locks.parse(&kv.key)? {
                Entry::Grant(name) => Some(name.to_string()),
                Entry::Waiter(_) => None,
            })
            .collect();
        names.dedup();
        if !names.is_empty() {
            return Err(locked(&names));
        }
        let key = self.keys.meta();
        let value = meta.departing(self.note(root, operation));
        let request = TxnRequest {
            compare: vec![
                put_at(key.clone(), meta.put_at),
                put_at(self.keys.state(), state_put_at),
                created_before(&self.keys.grants(), at + 1),
            ],
            success: vec![put(key, value)],
            failure: Vec::new(),
        };
        self.step(request)?;
        *is_put = true;
        Ok(None)
    }

    /// What goes to the root. `received` is the document there.
    pub(super) fn departing(
        &self,
        departure: &Departure,
        received: Option<Document>,
    ) -> Result<Contents> {
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
        let seal = document.ok_or_else(|| self.vanished())?.seal;
        let name = |key: &Bytes, prefix: &str| name_in(key, prefix).map(str::to_owned);
        let prefix = self.keys.backup_prefix();
        let listed = self.client.range(&Keys::below(&prefix).list())?;
        let mut backups = Vec::new();
        for key in listed.kvs.iter().filter_map(|kv| name(&kv.key, &prefix)) {
            if let Some(text) = self.value_of(self.keys.backup(&key))? {
                backups.push((key, text));
            }
        }
        let prefix = self.keys.signal_prefix();
        let given = self.client.range(&Keys::below(&prefix).read())?;
        let signals =
            given.kvs.into_iter().filter_map(|kv| Some((name(&kv.key, &prefix)?, kv.value)));
        Ok(Contents {
            signals: signals.collect(),
            commits: self.records()?.into_iter().map(|record| record.commit).collect(),
            lineage: seal.lineage,
            revision: seal.revision,
            digest: seal.digest,
            state: departure.document().cloned().unwrap_or_default(),
            backups,
        })
    }

    fn vanished(&self) -> Error {
        let message =
            format!("the state of {} was handed over, and is not in this root", self.shown);
        Error::new(Kind::Corrupt, message)
            .hint_shell("ls -l .state-backups/moved.json", "see what is left of it")
    }

    /// Hands the state over: it is in the root now.
    pub(super) fn complete_departure(
        &self,
        operation: &OperationId,
        contents: &Contents,
        departure: &Departure,
        root: &FileStore,
    ) -> Result<()> {
        let Departure::Frozen { meta, .. } = departure else { return Ok(()) };
        let key = self.keys.meta();
        let value = meta.departed(contents, self.note(root, operation));
        let request = TxnRequest {
            compare: vec![put_at(key.clone(), meta.put_at)],
            success: vec![put(key, value), delete(&Keys::one(self.keys.state()))],
            failure: Vec::new(),
        };
        let (succeeded, found) = self.step(request)?;
        let found = self.meta_in(found)?;
        let is_done = succeeded
            || matches!(&found.standing, Standing::Departed { operation: it, .. } if it == operation);
        if is_done { Ok(()) } else { Err(ended()) }
    }

    /// Lets the state stay, whatever of this pull is still under way.
    pub(super) fn release(&self, operation: &OperationId) -> Result<()> {
        loop {
            let meta = self.meta()?;
            match &meta.standing {
                Standing::Departed { operation: it, .. } if it == operation => {
                    let message = format!("the state has left {} already", self.shown);
                    let url = crate::error::quote(&self.shown);
                    return Err(Error::new(Kind::Conflict, message).hint_command(
                        format!("state pull {url}"),
                        "finish it; then push it back",
                    ));
                }
                Standing::Departing { operation: it, .. } if it != operation => return Ok(()),
                Standing::Departing { .. } | Standing::Here { .. } if meta.put_at != 0 => {}
                _ => return Ok(()),
            }
            let key = self.keys.meta();
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
            if self.step(request)?.0 {
                return Ok(());
            }
        }
    }
}
