//! The store as one snapshot shows it: the ground of every decision.

use std::cell::OnceCell;

use bytes::Bytes;
use serde_json::Value;

use super::RemoteStore;
use super::log::Record;
use super::queue::places;
use crate::document::seal::{Lineage, Revision};
use crate::document::{Reading, inspect_text};
use crate::error::{Error, Kind, Result};
use crate::etcd::messages::{KeyValue, RangeRequest};
use crate::etcd::txn::{Keys, snapshot};
use crate::lock::Fence;
use crate::store::copies::{BackupCopy, Copies, CopyState};
use crate::store::diagnosis::{ForeignEdit, Health, Mirror, diagnose};
use crate::store::layout::BackupName;
use crate::store::trace::Trace;

/// The format of the keys, in `meta`.
pub(super) const FORMAT: u64 = 1;

/// The keys of a store at one revision of the cluster, and their diagnosis.
#[derive(Debug)]
pub(super) struct Ground<'s> {
    pub store: &'s RemoteStore,
    /// The cluster's revision.
    pub at: i64,
    /// The revision that last put `meta`; 0 if there is none.
    pub meta_put_at: i64,
    /// The lineage in `meta`.
    pub lineage: Option<Lineage>,
    /// The document's key, if there is one.
    pub state: Option<KeyValue>,
    /// The newest record of the log.
    pub newest: Option<Record>,
    /// The backups, oldest first.
    pub backups: Vec<BackupName>,
    /// The holders of the lock `state`.
    pub state_holders: Vec<KeyValue>,
    /// The places of writers in the queue.
    pub writers: Vec<KeyValue>,
    /// The holders of the lock of each fence, in the order of the fences.
    pub fenced: Vec<Vec<KeyValue>>,
    pub health: Health,
    copies: OnceCell<Vec<BackupCopy>>,
}

impl RemoteStore {
    /// The ranges that a writer needs.
    pub(super) fn ranges(&self, fences: &[Fence]) -> Vec<RangeRequest> {
        let mut ranges = vec![
            Keys::one(self.keys.meta()).read(),
            Keys::one(self.keys.state()).read(),
            self.keys.logs().read_last(),
            Keys::below(&self.keys.backup_prefix()).list(),
            self.keys.holders("state").read(),
            self.keys.writers().list(),
        ];
        ranges.extend(fences.iter().map(|fence| self.keys.holders(fence.name.as_str()).read()));
        ranges
    }

    /// Reads what a writer needs, at one revision.
    pub(super) fn observe(&self, fences: &[Fence]) -> Result<Ground<'_>> {
        let answer = self.client.snapshot(&snapshot(self.ranges(fences)))?;
        self.ground(answer.revision(), answer.ranges().map(|range| range.kvs))
    }

    /// The ground in the answers to [`Self::ranges`], which were given `at` a revision.
    pub(super) fn ground(
        &self,
        at: i64,
        mut ranges: impl Iterator<Item = Vec<KeyValue>>,
    ) -> Result<Ground<'_>> {
        let mut next = || ranges.next().unwrap_or_default();
        let meta = next().pop();
        if let Some(meta) = &meta {
            self.check_standing(&meta.value)?;
        }
        let state = next().pop();
        let newest = next().pop();
        let listed = next();
        let state_holders = next();
        let writers = places(next());
        let prefix = self.keys.backup_prefix();
        let name = |kv: &KeyValue| {
            let key = std::str::from_utf8(&kv.key).ok()?;
            BackupName::parse(key.strip_prefix(&prefix)?)
        };
        let mut backups: Vec<_> = listed.iter().filter_map(name).collect();
        backups.sort_by(|a, b| {
            (a.revision, a.time, a.as_str()).cmp(&(b.revision, b.time, b.as_str()))
        });
        let mut ground = Ground {
            store: self,
            at,
            meta_put_at: meta.as_ref().map_or(0, |kv| kv.mod_revision),
            lineage: meta.as_ref().map(lineage_in).transpose()?.flatten(),
            state,
            newest: newest.as_ref().and_then(Record::of),
            backups,
            state_holders,
            writers,
            fenced: ranges.collect(),
            health: Health::NotInitialized,
            copies: OnceCell::new(),
        };
        ground.health = ground.diagnose()?;
        Ok(ground)
    }

    /// Reads a backup. One that is not there is invalid.
    fn copies_named(&self, names: &[BackupName]) -> Result<Vec<BackupCopy>> {
        let newest_first = names.iter().rev();
        newest_first.map(|name| self.copy_named(name.as_str())).collect()
    }

    /// Reads one backup. One that could not be read is an error and not an invalid copy.
    pub(super) fn copy_named(&self, name: &str) -> Result<BackupCopy> {
        Ok(copy_of(name, self.value_of(self.keys.backup(name))?))
    }

    pub(super) fn value_of(&self, key: String) -> Result<Option<Bytes>> {
        let range = self.client.range(&Keys::one(key).read())?;
        Ok(range.kvs.into_iter().next().map(|kv| kv.value))
    }
}

/// A backup with this text. One that is not there is invalid.
pub(super) fn copy_of(name: &str, text: Option<Bytes>) -> BackupCopy {
    let gone = || CopyState::Invalid("it is gone".to_owned());
    BackupCopy { name: name.to_owned(), state: text.map_or_else(gone, CopyState::of) }
}

/// The lineage that `meta` names, if it is of a format that this program knows.
pub(super) fn lineage_in(meta: &KeyValue) -> Result<Option<Lineage>> {
    let Ok(meta) = crate::document::json::parse(&meta.value) else { return Ok(None) };
    match meta.get("format").and_then(Value::as_u64) {
        Some(format) if format > FORMAT => {
            let message = format!("the store has format {format}, and this program knows {FORMAT}");
            Err(Error::new(Kind::NewerSchema, message)
                .hint_command("--version", "a newer one is needed; nothing was changed"))
        }
        _ => Ok(meta.get("lineage").and_then(Lineage::from_value)),
    }
}

impl Ground<'_> {
    fn diagnose(&self) -> Result<Health> {
        let reading = self.state.as_ref().map(|kv| inspect_text(kv.value.clone()));
        let health = diagnose(reading.as_ref(), self, || Ok(Mirror::Same))?;
        let (Health::Healthy(_), Some(Reading::Sealed(document))) = (&health, &reading) else {
            return Ok(health);
        };
        // The record is put with the document: one that differs was put by something else.
        let seal = &document.seal;
        let reason = match &self.newest {
            Some(Record { commit, .. }) if commit.lineage != seal.lineage => {
                format!("it belongs to lineage {}, and the log to {}", seal.lineage, commit.lineage)
            }
            Some(Record { commit, .. }) if commit.revision != seal.revision => {
                format!(
                    "it is revision {}, and revision {} was acknowledged",
                    seal.revision, commit.revision
                )
            }
            Some(Record { commit, .. }) if commit.digest != seal.digest => {
                format!("it is not the revision {} that was acknowledged", seal.revision)
            }
            Some(_) => return Ok(health),
            None => format!("the log has no record of its revision {}", seal.revision),
        };
        let copies = self.copies()?;
        let reference = crate::store::copies::newest_valid(copies).ok().flatten();
        let reference = reference.and_then(|copy| copy.sealed().cloned());
        let value = Value::clone(&document.value);
        let trace = if reference.is_none() { self.trace() } else { None };
        Ok(Health::Foreign(ForeignEdit { reason, value, reference, trace }))
    }

    /// The text of the document.
    pub(super) fn text(&self) -> Option<&Bytes> {
        self.state.as_ref().map(|kv| &kv.value)
    }

    /// The revision that last put the document's key; 0 if there is none.
    pub(super) fn state_put_at(&self) -> i64 {
        self.state.as_ref().map_or(0, |kv| kv.mod_revision)
    }

    /// The revision of the next commit. The log has every one before it.
    pub(super) fn next_revision(&self) -> Result<Revision> {
        let logged = self.newest.as_ref().map(|record| record.commit.revision);
        let named = self.backups.iter().filter_map(|backup| backup.revision).max();
        let live = match &self.health {
            Health::Healthy(document) => Some(document.seal.revision),
            _ => None,
        };
        Revision::after(logged.max(named).max(live)).ok_or_else(|| {
            Error::new(Kind::Internal, "the last possible revision is reached")
                .hint_command("state init --fresh", "begin again under another prefix")
        })
    }

    /// The lineage of the next commit.
    pub(super) fn lineage_to_continue(&self) -> Result<Lineage> {
        let logged = || self.newest.as_ref().map(|record| record.commit.lineage.clone());
        match self.lineage.clone().or_else(logged) {
            Some(lineage) => Ok(lineage),
            None => crate::store::next_revision::new_lineage(),
        }
    }

    /// The error of a command that cannot work with this state.
    pub(super) fn refusal(&self) -> Error {
        let shown = &self.store.shown;
        self.health.refusal(shown, self, None).unwrap_or_else(|| {
            let name = self.health.kind();
            Error::new(Kind::Internal, format!("{shown} cannot be used: {name}"))
        })
    }
}

impl Copies for Ground<'_> {
    fn copies(&self) -> Result<&[BackupCopy]> {
        if let Some(copies) = self.copies.get() {
            return Ok(copies);
        }
        let copies = self.store.copies_named(&self.backups)?;
        Ok(self.copies.get_or_init(|| copies))
    }

    fn has_history(&self) -> bool {
        self.meta_put_at != 0 || self.newest.is_some() || !self.backups.is_empty()
    }

    fn trace(&self) -> Option<Trace> {
        let commit = self.newest.as_ref().map(|record| &record.commit);
        self.has_history().then(|| Trace {
            lineage: commit.map(|commit| commit.lineage.clone()).or_else(|| self.lineage.clone()),
            journaled: commit.map(|commit| commit.revision),
            named: self.backups.iter().filter_map(|backup| backup.revision).max(),
        })
    }

    fn archive_listing(&self) -> Option<String> {
        None
    }
}
