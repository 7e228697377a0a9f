//! The store as one snapshot shows it: the ground of every decision.

use std::cell::OnceCell;

use bytes::Bytes;
use serde_json::Value;

use super::RemoteStore;
use super::guard::on_file::OnFile;
use super::keys::{name_in, places};
use super::log::Newest;
use super::meta::{damaged_meta, push_from_here, usable_meta};
use super::source::{Source, reporting};
use crate::document::new_document::NewDocument;
use crate::document::seal::{Document, Lineage, Revision, Sealed};
use crate::document::{Reading, inspect_text};
use crate::error::{Error, Kind, Result};
use crate::etcd::messages::{KeyValue, RangeRequest};
use crate::etcd::txn::Keys;
use crate::lock::remote::{Held, Tokens};
use crate::lock::{Fence, STATE};
use crate::store::copies::{BackupCopy, Copies, CopyState};
use crate::store::diagnosis::{ForeignEdit, Health, Mirror, diagnose, known};
use crate::store::layout::BackupName;
use crate::store::next_revision::{new_lineage, seal_as};
use crate::store::trace::Trace;

/// The keys of a store at one revision of the cluster, and their diagnosis.
#[derive(Debug)]
pub(super) struct Ground<'s> {
    pub store: &'s RemoteStore,
    /// What answered.
    pub source: Source,
    /// The cluster's revision.
    pub at: i64,
    /// The key `meta`, if there is one.
    pub meta: Option<KeyValue>,
    /// The lineage in `meta`; none where it is damaged or there is none.
    pub lineage: Option<Lineage>,
    /// The document's key, if there is one.
    pub state: Option<KeyValue>,
    /// The end of the log.
    pub newest: Option<Newest>,
    /// The backups, oldest first.
    pub backups: Vec<BackupName>,
    /// The holders of the lock `state`.
    pub state_holders: Vec<Held>,
    /// The places of writers in the queue.
    pub writers: Vec<KeyValue>,
    /// The guards on record.
    pub guards: Vec<OnFile>,
    /// The holders of the lock of each fence, in the order of the fences.
    pub fenced: Vec<Vec<Held>>,
    /// How tokens follow from revisions.
    tokens: Tokens,
    pub health: Health,
    /// The document where it is sound, and damaged is only what belongs to it.
    sound: Option<Document>,
    copies: OnceCell<Vec<BackupCopy>>,
}

impl<'s> Ground<'s> {
    /// The ranges that a writer needs.
    pub(super) fn ranges(store: &RemoteStore, fences: &[Fence]) -> Vec<RangeRequest> {
        let mut ranges = vec![
            Keys::one(store.keys.meta()).read(),
            Keys::one(store.keys.state()).read(),
            store.keys.logs().read_last(),
            Keys::below(&store.keys.backup_prefix()).list(),
            store.keys.locks.grants(STATE).read(),
            store.keys.locks.waiters(STATE).list(),
            Keys::below(&store.keys.guard_prefix()).read(),
            store.keys.locks.read_tokens(),
        ];
        let holders = |fence: &Fence| store.keys.locks.grants(fence.name.as_str()).read();
        ranges.extend(fences.iter().map(holders));
        ranges
    }

    /// Reads what a writer needs, at one revision.
    pub(super) fn observe(store: &'s RemoteStore, fences: &[Fence]) -> Result<Self> {
        Self::observe_in(store, Source::Cluster, fences)
    }

    /// The same for a report: what a member has, where the cluster does not answer and that is
    /// accepted.
    pub(super) fn to_report(store: &'s RemoteStore) -> Result<Self> {
        reporting(store, |source| Self::observe_in(store, source, &[]))
    }

    fn observe_in(store: &'s RemoteStore, source: Source, fences: &[Fence]) -> Result<Self> {
        let answer = source.snapshot(store, Self::ranges(store, fences))?;
        let at = answer.revision();
        Self::in_answer(store, source, at, answer.ranges().map(|range| range.kvs))
    }

    /// The ground in the answers to [`Self::ranges`], which were given `at` a revision.
    pub(super) fn in_answer(
        store: &'s RemoteStore,
        source: Source,
        at: i64,
        mut ranges: impl Iterator<Item = Vec<KeyValue>>,
    ) -> Result<Self> {
        let mut next = || ranges.next().unwrap_or_default();
        let meta = next().pop();
        let usable = usable_meta(store, meta.as_ref())?;
        let state = next().pop();
        let newest = next().pop();
        let listed = next();
        let is_grant = |kv: &KeyValue| store.keys.locks.parse(&kv.key).is_some();
        let state_holders: Vec<_> = next().into_iter().filter(is_grant).collect();
        let writers = places(next().into_iter().filter(is_grant).collect());
        let guards = OnFile::of(next(), &store.keys);
        let tokens = Tokens::of(next().first())?;
        let held = |holders: &[KeyValue]| holders_in(holders, tokens);
        let prefix = store.keys.backup_prefix();
        let name = |kv: &KeyValue| BackupName::parse(name_in(&kv.key, &prefix)?);
        let mut backups: Vec<_> = listed.iter().filter_map(name).collect();
        backups.sort_by(|a, b| {
            (a.revision, a.time, a.as_str()).cmp(&(b.revision, b.time, b.as_str()))
        });
        let mut ground = Self {
            store,
            source,
            at,
            lineage: usable.as_ref().and_then(|meta| meta.lineage.clone()),
            meta,
            state,
            newest: newest.as_ref().and_then(|kv| Newest::of(kv, &store.keys)),
            backups,
            state_holders: held(&state_holders),
            writers,
            guards,
            fenced: ranges.map(|holders| held(&holders)).collect(),
            tokens,
            health: Health::NotInitialized,
            sound: None,
            copies: OnceCell::new(),
        };
        ground.health = match (ground.diagnose()?, usable.is_some()) {
            (Health::Healthy(document), is_readable) => ground.with_sound(document, is_readable),
            (health, _) => health,
        };
        Ok(ground)
    }

    /// The grants in the answer to a range that was read with this ground.
    pub(super) fn held(&self, holders: &[KeyValue]) -> Vec<Held> {
        holders_in(holders, self.tokens)
    }

    /// The diagnosis of a sound document: it is damaged if `meta` is not the one of its store.
    fn with_sound(&mut self, document: Document, is_readable: bool) -> Health {
        let key = &self.store.keys.meta();
        let why = match &self.lineage {
            _ if self.meta.is_none() => format!("its key {key} is gone"),
            _ if !is_readable => damaged_meta(key),
            Some(lineage) if *lineage == document.seal.lineage => return Health::Healthy(document),
            _ => format!("its key {key} names another lineage"),
        };
        self.lineage = None;
        self.sound = Some(document);
        Health::Damaged(why)
    }

    fn diagnose(&self) -> Result<Health> {
        let reading = self.reading();
        let health = diagnose(reading.as_ref(), self, || Ok(Mirror::Same))?;
        let (Health::Healthy(_), Some(Reading::Sealed(document))) = (&health, &reading) else {
            return Ok(health);
        };
        // The record is put with the document: one that differs was put by something else.
        let seal = &document.seal;
        let reason = match (&self.newest, self.newest.as_ref().and_then(Newest::commit)) {
            (_, Some(commit)) if commit.lineage != seal.lineage => {
                format!("it belongs to lineage {}, and the log to {}", seal.lineage, commit.lineage)
            }
            (Some(newest), _) if newest.revision != seal.revision => {
                format!(
                    "it is revision {}, and revision {} was acknowledged",
                    seal.revision, newest.revision
                )
            }
            (_, Some(commit)) if commit.digest != seal.digest => {
                format!("it is not the revision {} that was acknowledged", seal.revision)
            }
            // Its record may be damaged.
            (Some(_), _) => return Ok(health),
            (None, _) => format!("the log has no record of its revision {}", seal.revision),
        };
        let copies = self.copies()?;
        let reference = crate::store::copies::newest_valid(copies).ok().flatten();
        let reference = reference.and_then(|copy| copy.sealed().cloned());
        let value = Value::clone(&document.value);
        let trace = if reference.is_none() { self.trace() } else { None };
        Ok(Health::Foreign(ForeignEdit { reason, value, reference, trace }))
    }

    /// The document with a seal that proves it, if that is what there is.
    pub(super) fn sealed(&self) -> Option<&Document> {
        match &self.health {
            Health::Healthy(document) => Some(document),
            _ => self.sound.as_ref(),
        }
    }

    /// The revision that last put `meta`; 0 if there is none.
    pub(super) fn meta_put_at(&self) -> i64 {
        self.meta.as_ref().map_or(0, |kv| kv.mod_revision)
    }

    /// What is damaged: the document, or what belongs to it.
    pub(super) fn damaged(&self) -> Option<&Bytes> {
        match self.sound {
            Some(_) => self.meta.as_ref().map(|kv| &kv.value),
            None => self.text(),
        }
    }

    /// The text of the document.
    pub(super) fn text(&self) -> Option<&Bytes> {
        self.state.as_ref().map(|kv| &kv.value)
    }

    /// The document as it is read, sound or not.
    pub(super) fn reading(&self) -> Option<Reading> {
        self.text().map(|text| inspect_text(text.clone()))
    }

    /// The document that is there, valid or not.
    pub(super) fn known(&self) -> Option<Value> {
        known(&self.health, self.reading().as_ref()).cloned()
    }

    /// The revision that last put the document's key; 0 if there is none.
    pub(super) fn state_put_at(&self) -> i64 {
        self.state.as_ref().map_or(0, |kv| kv.mod_revision)
    }

    /// The revision of the next commit. The log has every one before it.
    pub(super) fn next_revision(&self) -> Result<Revision> {
        let logged = self.newest.as_ref().map(|newest| newest.revision);
        let named = self.backups.iter().filter_map(|backup| backup.revision).max();
        let live = self.sealed().map(|document| document.seal.revision);
        Revision::after(logged.max(named).max(live)).ok_or_else(|| {
            Error::new(Kind::Internal, "the last possible revision is reached")
                .hint_command("state init --fresh", "begin again under another prefix")
        })
    }

    /// The current revision as users see it; 0 where there is none. For a foreign edit the last one
    /// that was acknowledged, kept or not.
    pub(super) fn revision(&self) -> u64 {
        match (self.sealed(), &self.health, &self.newest) {
            (Some(document), ..) => document.seal.revision.get(),
            (_, Health::Foreign(_), Some(newest)) => newest.revision.get(),
            (_, Health::Foreign(edit), None) => edit.revision(),
            _ => 0,
        }
    }

    /// The lineage of the next commit.
    pub(super) fn lineage_to_continue(&self) -> Result<Lineage> {
        let logged = || Some(self.newest.as_ref()?.commit()?.lineage.clone());
        let sealed = || self.sealed().map(|document| document.seal.lineage.clone());
        match self.lineage.clone().or_else(logged).or_else(sealed) {
            Some(lineage) => Ok(lineage),
            None => new_lineage(),
        }
    }

    /// Seals `draft` as the next revision.
    pub(super) fn seal(
        &self,
        draft: impl Into<NewDocument>,
        created: Option<&Value>,
    ) -> Result<Sealed> {
        self.seal_in(&self.lineage_to_continue()?, draft, created)
    }

    /// Seals `draft` as the next revision, in a lineage.
    pub(super) fn seal_in(
        &self,
        lineage: &Lineage,
        draft: impl Into<NewDocument>,
        created: Option<&Value>,
    ) -> Result<Sealed> {
        seal_as(draft, self.next_revision()?, lineage, created, self.store.now())
    }

    /// The error of a command that cannot work with this state; `None` where it can.
    pub(super) fn problem(&self) -> Option<Error> {
        let arriving = match self.health {
            Health::NotInitialized => push_from_here(self.store),
            _ => None,
        };
        arriving.or_else(|| self.health.refusal(&self.store.shown, self, None))
    }

    /// The same for a command that has found that it cannot.
    pub(super) fn refusal(&self) -> Error {
        self.problem().unwrap_or_else(|| {
            let (shown, name) = (&self.store.shown, self.health.kind());
            Error::new(Kind::Internal, format!("{shown} cannot be used: {name}"))
        })
    }

    /// The error of a state in this condition.
    pub(super) fn refusal_of(&self, health: &Health) -> Error {
        health.refusal(&self.store.shown, self, None).unwrap_or_else(|| self.refusal())
    }
}

impl Copies for Ground<'_> {
    fn copies(&self) -> Result<&[BackupCopy]> {
        if let Some(copies) = self.copies.get() {
            return Ok(copies);
        }
        let newest_first = self.backups.iter().rev();
        let backups = newest_first.map(|name| self.source.copy(self.store, name.as_str()));
        let mut copies = backups.collect::<Result<Vec<_>>>()?;
        // Nothing is lost where only what belongs to it is damaged.
        if let Some(sound) = self.sound.clone() {
            let state = CopyState::Sealed(sound);
            copies.insert(0, BackupCopy { name: "state".to_owned(), state });
        }
        Ok(self.copies.get_or_init(|| copies))
    }

    fn has_history(&self) -> bool {
        self.meta.is_some() || self.newest.is_some() || !self.backups.is_empty()
    }

    fn trace(&self) -> Option<Trace> {
        let commit = self.newest.as_ref().and_then(Newest::commit);
        self.has_history().then(|| Trace {
            lineage: commit.map(|commit| commit.lineage.clone()).or_else(|| self.lineage.clone()),
            journaled: self.newest.as_ref().map(|newest| newest.revision),
            named: self.backups.iter().filter_map(|backup| backup.revision).max(),
        })
    }

    fn archive_listing(&self) -> Option<String> {
        None
    }
}

fn holders_in(found: &[KeyValue], tokens: Tokens) -> Vec<Held> {
    found.iter().filter_map(|kv| Held::of(kv, tokens)).collect()
}
