//! Puts back the changes of a guard's command.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use serde_json::Value;

use super::Guards;
use super::on_record::{end_of_guard, guard_of, guards_put_back_by};
use crate::audit::Level;
use crate::document::contents::without_seal;
use crate::document::seal::Revision;
use crate::error::{Error, Kind, Result};
use crate::etcd::failure::Failure;
use crate::etcd::fate::Fate;
use crate::etcd::messages::{RequestOp, TxnRequest};
use crate::etcd::txn::{Keys, Part, put, put_at};
use crate::journal::{Event, Events};
use crate::store::checkpoint::catalog::Which;
use crate::store::copies::BackupCopy;
use crate::store::diagnosis::Health;
use crate::store::guard::Settlement;
use crate::store::guard::record::{Record, Status};
use crate::store::guard::verdict::{Commits, Verdict};
use crate::store::layout::{CONFIG, pinned};
use crate::store::logged::recovery;
use crate::store::options::WriteOptions;
use crate::store::remote::RemoteStore;
use crate::store::remote::checkpoint::{Checkpoint, state_of};
use crate::store::remote::commit::{Landed, Plan, publish};
use crate::store::remote::ground::Ground;
use crate::store::remote::intents::host_of;
use crate::store::remote::log::records;
use crate::store::remote::preserve::backup_or_evidence;
use crate::store::remote::queue::{Attempt, Place};
use crate::store::remote::restore::{Concluded, Target, TargetSignals, Work};
use crate::store::remote::signals::files_of;
use crate::store::remote::source::Source;
use crate::store::signal::Signals;

/// What an attempt came to.
enum Done {
    /// It is put back, and the record is what it is to be.
    Settled(Settlement),
    /// Nothing can be put back; the record does not say so yet.
    Refused(String),
}

/// The end of an attempt to record a guard as unrestored.
#[derive(PartialEq, Eq)]
enum Marked {
    /// It is on record as unrestored.
    Unrestored,
    /// Everything was put back after all, and it is not on record any more.
    Settled,
}

/// Changes records of guards; false if the guards of that do not hold.
pub(super) fn put_guards(store: &RemoteStore, part: Part) -> Result<bool> {
    let Part { compare, success } = part;
    let request = TxnRequest { compare, success, failure: Vec::new() };
    let answer = store.client.commit(&request).map_err(|failure| match failure.fate {
        Fate::Unknown => Error::new(Kind::DurabilityUnknown, failure.to_string())
            .hint_command("recover status", "see which guards are on record")
            .caused_by(failure),
        Fate::NotSent | Fate::Refused => failure.into(),
    })?;
    Ok(answer.succeeded)
}

impl Guards<'_> {
    /// Puts back the changes of a guard's command, or returns the reason why it does not; `begun`
    /// is the record of the guard as it began. On failure the guard is recorded as unrestored.
    pub fn settle_failed(&self, begun: &Record, options: &WriteOptions) -> Result<Settlement> {
        let options = WriteOptions { guard: Some(begun.id.clone()), ..options.clone() };
        let is_on_record = Cell::new(false);
        let error = match self.put_back(begun, &options, &is_on_record) {
            Ok(Done::Settled(settlement)) => return Ok(settlement),
            Ok(Done::Refused(why)) => {
                self.mark_unrestored(begun, &why, false)?;
                return Ok(Settlement::Unrestored(why));
            }
            Err(error) => error,
        };
        match self.mark_unrestored(begun, &error.message, is_on_record.get()) {
            // What is left is `config/`, and the next command here puts it in place.
            Ok(Marked::Settled) if error.kind == Kind::DurabilityUnknown => {
                return Ok(Settlement::Finished);
            }
            Ok(_) => {}
            Err(second) => self.store.warn(format!(
                "that the guard {} put nothing back is not on record: {second}",
                begun.id
            )),
        }
        Err(error)
    }

    /// Records why not everything was put back. A guard that was on record and is no more was
    /// settled by a commit that was not acknowledged.
    fn mark_unrestored(&self, begun: &Record, why: &str, was_on_record: bool) -> Result<Marked> {
        let key = self.store.keys.guard(&begun.id);
        loop {
            let answer = self.store.client.range(&Keys::one(key.clone()).read());
            let found = answer.map_err(Failure::of_read)?.kvs.pop();
            let (record, at) = match &found {
                Some(kv) => (Record::read(&begun.id, &kv.value), kv.mod_revision),
                None if was_on_record => return Ok(Marked::Settled),
                None => (None, 0),
            };
            let record = record.unwrap_or_else(|| begun.clone());
            let record = Record { status: Status::Unrestored(why.to_owned()), ..record };
            let success = vec![put(key.clone(), record.write()?)];
            let compare = vec![put_at(key.clone(), at)];
            if put_guards(self.store, Part { compare, success })? {
                return Ok(Marked::Unrestored);
            }
        }
    }

    fn put_back(
        &self,
        begun: &Record,
        options: &WriteOptions,
        is_on_record: &Cell<bool>,
    ) -> Result<Done> {
        let store = self.store;
        let checkpoint = store.checkpoints().restorable(&Which::Id(begun.id.clone()))?;
        let mut work = Work::begin(store, &checkpoint)?;
        let done = work.carry(options, |work, ground, place| {
            let found = guard_of(ground, &begun.id);
            is_on_record.set(is_on_record.get() || found.is_some());
            let putting = PuttingBack {
                store,
                record: found.and_then(|guard| guard.record.as_ref()).unwrap_or(begun),
                put_at: found.map_or(0, |guard| guard.put_at),
                checkpoint: &checkpoint,
                options,
            };
            putting.attempt(work, ground, place)
        });
        let Concluded { result: done, before } = work.conclude(done)?;
        if let Done::Settled(Settlement::Restored { .. }) = &done {
            let entry = recovery(Level::Info, "restore", "restored").with("id", &begun.id);
            let entry = entry.with("before", before.unwrap_or_default());
            store.log(entry.with("pid", std::process::id()));
        }
        Ok(done)
    }
}

/// What is put back.
struct PuttingBack<'a> {
    store: &'a RemoteStore,
    record: &'a Record,
    /// The revision that last put the record; 0 if there is none.
    put_at: i64,
    checkpoint: &'a Checkpoint,
    options: &'a WriteOptions,
}

impl PuttingBack<'_> {
    fn attempt<'s>(
        &self,
        work: &mut Work<'s>,
        ground: &Ground<'s>,
        place: Option<&Place>,
    ) -> Result<Attempt<'s, Done>> {
        let (base, _) = state_of(self.checkpoint)?;
        let since = Since::new(ground, self.checkpoint)?;
        Ok(match Verdict::of(self.record, &base, &since)? {
            Verdict::Refused(why) => Attempt::Ended(Done::Refused(why)),
            Verdict::OnlyTheGuard => {
                let mut guards = self.recorded(self.end());
                guards.success.extend(guards_put_back_by(ground, &self.record.id)?);
                let signals = TargetSignals::OfCheckpoint;
                let target = Target { value: base, signals, guards };
                let restored = work.attempt(ground, target, self.options, place)?;
                restored.map(|_| Done::Settled(Settlement::Restored { left: Vec::new() }))
            }
            Verdict::Others { document, config: None, .. } if since.is_config_changed()? => {
                let live = || ground.sealed().map(|document| Value::clone(&document.value));
                let Some(value) = document.or_else(live) else {
                    let why = "the state cannot be read".to_owned();
                    return Ok(Attempt::Ended(Done::Refused(why)));
                };
                let guards = self.recorded(self.end());
                let target = Target { value, signals: TargetSignals::Follow, guards };
                let restored = work.attempt(ground, target, self.options, place)?;
                restored.map(|revision| put_back(Some(revision)))
            }
            Verdict::Others { document, config, unclear } => {
                let unrestored = match config.filter(|_| since.is_config_changed().unwrap_or(true))
                {
                    Some(why) => Some(format!("{CONFIG}/ was left as it is, since {why}")),
                    None => unclear,
                };
                self.commit_rest(ground, document, unrestored, place)?
            }
        })
    }

    /// The operation that ends the record.
    fn end(&self) -> RequestOp {
        end_of_guard(&self.store.keys, &self.record.id)
    }

    /// What becomes of the record, unless another command has decided that since.
    fn recorded(&self, becomes: RequestOp) -> Part {
        let compare = vec![put_at(self.store.keys.guard(&self.record.id), self.put_at)];
        Part { compare, success: vec![becomes] }
    }

    /// Puts back the document and keeps the changes of others; `config/` stays as it is.
    fn commit_rest<'s>(
        &self,
        ground: &Ground<'s>,
        document: Option<Value>,
        unrestored: Option<String>,
        place: Option<&Place>,
    ) -> Result<Attempt<'s, Done>> {
        let end = match &unrestored {
            None => self.end(),
            Some(why) => {
                let status = Status::Unrestored(why.clone());
                let record = Record { status, ..self.record.clone() };
                put(self.store.keys.guard(&self.record.id), record.write()?)
            }
        };
        let guards = self.recorded(end);
        let revision = match document {
            None if put_guards(self.store, guards.clone())? => None,
            None => return Ok(Attempt::Overtaken(None)),
            Some(document) => {
                let created = document.pointer("/metadata/created").cloned();
                let sealed = ground.seal(document, created.as_ref())?;
                let state = sealed.document.value.skeleton();
                let signals = files_of(self.store, &Signals::Follow, state)?;
                let plan = Plan {
                    kept: backup_or_evidence(ground, pinned::PRE_RESTORE),
                    guards,
                    ..Plan::of(&sealed, signals, self.options, place)
                };
                match publish(ground, plan)? {
                    Landed::Done => Some(sealed.document.seal.revision.get()),
                    Landed::Overtaken(ground) => return Ok(Attempt::Overtaken(Some(ground))),
                }
            }
        };
        Ok(Attempt::Ended(match unrestored {
            None => put_back(revision),
            Some(why) => Done::Settled(Settlement::Unrestored(why)),
        }))
    }
}

fn put_back(revision: Option<u64>) -> Done {
    Done::Settled(Settlement::PutBack { revision, left: Vec::new() })
}

/// The commits since a guard began, as the log and the backups show them.
struct Since<'a, 's> {
    ground: &'a Ground<'s>,
    checkpoint: &'a Checkpoint,
    events: Events,
}

impl<'a, 's> Since<'a, 's> {
    fn new(ground: &'a Ground<'s>, checkpoint: &'a Checkpoint) -> Result<Self> {
        let records = records(ground.store, Source::Cluster)?.into_iter();
        let list = records.map(|record| Event::Commit(record.commit)).collect();
        Ok(Self { ground, checkpoint, events: Events { list, ..Events::default() } })
    }
}

impl Commits for Since<'_, '_> {
    fn events(&self) -> &Events {
        &self.events
    }

    fn health(&self) -> &Health {
        &self.ground.health
    }

    fn current(&self) -> Result<Option<Revision>> {
        let live = self.ground.sealed().map(|document| document.seal.revision);
        Ok(live.or_else(|| self.ground.newest.as_ref().map(|newest| newest.revision)))
    }

    fn documents(&self, range: &RangeInclusive<u64>) -> Result<BTreeMap<u64, Value>> {
        let mut documents = BTreeMap::new();
        let Some(live) = self.ground.sealed() else { return Ok(documents) };
        for name in &self.ground.backups {
            let is_wanted = name.revision.is_some_and(|revision| range.contains(&revision.get()));
            if !is_wanted {
                continue;
            }
            let copy = self.ground.source.copy(self.ground.store, name.as_str())?;
            if let Some(document) = BackupCopy::sealed(&copy)
                && document.seal.lineage == live.seal.lineage
            {
                documents.insert(document.seal.revision.get(), without_seal(&document.value));
            }
        }
        documents.insert(live.seal.revision.get(), without_seal(&live.value));
        Ok(documents)
    }

    fn is_config_changed(&self) -> Result<bool> {
        host_of(self.ground.store)?.is_config_changed(self.checkpoint.listing())
    }
}
