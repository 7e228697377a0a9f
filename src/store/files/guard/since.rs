//! The commits since a guard began, as the journal and the backups show them.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use serde_json::Value;

use super::Guards;
use crate::document::contents::without_seal;
use crate::document::seal::Revision;
use crate::error::Result;
use crate::journal::Events;
use crate::store::copies::BackupCopy;
use crate::store::diagnosis::Health;
use crate::store::files::checkpoint::catalog::Checkpoint;
use crate::store::files::observe::Observation;
use crate::store::guard::verdict::Commits;

/// The commits since the guard of a checkpoint began.
pub(super) struct Since<'a> {
    guards: Guards<'a>,
    seen: &'a Observation<'a>,
    checkpoint: &'a Checkpoint,
    events: Events,
}

impl<'a> Since<'a> {
    pub(super) fn new(seen: &'a Observation<'a>, checkpoint: &'a Checkpoint) -> Self {
        let events = seen.backup_dir.events();
        Self { guards: seen.store.guards(), seen, checkpoint, events }
    }
}

impl Commits for Since<'_> {
    fn events(&self) -> &Events {
        &self.events
    }

    fn health(&self) -> &Health {
        &self.seen.health
    }

    fn current(&self) -> Result<Option<Revision>> {
        match &self.seen.health {
            Health::Healthy(document) => Ok(Some(document.seal.revision)),
            _ => self.seen.highest_remembered(),
        }
    }

    fn documents(&self, range: &RangeInclusive<u64>) -> Result<BTreeMap<u64, Value>> {
        let mut documents = BTreeMap::new();
        let Health::Healthy(live) = &self.seen.health else { return Ok(documents) };
        let backup_dir = &self.seen.backup_dir;
        for name in &backup_dir.backups {
            let is_wanted = name.revision.is_some_and(|revision| range.contains(&revision.get()));
            if !is_wanted {
                continue;
            }
            if let Some(document) = BackupCopy::sealed(&backup_dir.read(name.as_str())?)
                && document.seal.lineage == live.seal.lineage
            {
                documents.insert(document.seal.revision.get(), without_seal(&document.value));
            }
        }
        documents.insert(live.seal.revision.get(), without_seal(&live.value));
        Ok(documents)
    }

    fn is_config_changed(&self) -> Result<bool> {
        self.guards.is_config_changed(&self.checkpoint.listing)
    }
}
