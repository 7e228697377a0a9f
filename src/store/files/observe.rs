//! The files of a root as one command observed them, and their diagnosis.

use bytes::Bytes;
use serde_json::Value;

use super::FileStore;
use super::backup_dir::BackupDir;
use super::new_lineage::intent::is_fresh;
use super::root::Root;
use super::state_file::StateFile;
use crate::document::Reading;
use crate::error::{Error, Kind, Result};
use crate::store::copies::Copies as _;
use crate::store::diagnosis::{Health, Mirror, diagnose, known};

/// The depth of a diagnosis. A file with a valid seal may still be an old copy that was put back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Compare with the mirror: writers, `validate`, `status`.
    WithMirror,
    /// Trust the digest: plain reads.
    DigestOnly,
}

/// The state file and the backup directory as they were read, and their diagnosis. Under the state
/// lock no other writer changes them; without it they are a report.
#[derive(Debug)]
pub(super) struct Observation<'s> {
    pub store: &'s FileStore,
    pub backup_dir: BackupDir,
    pub live: Option<StateFile>,
    pub health: Health,
}

impl<'s> Observation<'s> {
    /// Returns whether the root has a history: a copy of the document, or a checkpoint.
    pub(super) fn has_history(store: &FileStore, backup_dir: &BackupDir) -> bool {
        backup_dir.has_history() || store.checkpoints().ids().is_ok_and(|ids| !ids.is_empty())
    }

    /// Diagnoses a live file. Checkpoints are examined only where nothing else is left.
    pub(super) fn diagnose(
        store: &'s FileStore,
        live: Option<StateFile>,
        backup_dir: BackupDir,
        depth: Depth,
    ) -> Result<Self> {
        // The file of a state that was moved is away, so commands with a file pay nothing.
        if live.is_none()
            && let Some(mark) = Root::of(store).mark()?
        {
            return Err(mark.refusal(&store.shown()));
        }
        let mirror = || match (&live, depth) {
            (Some(found), Depth::WithMirror) => Ok(backup_dir.mirror_of(found)?),
            _ => Ok(Mirror::Same),
        };
        let reading = live.as_ref().map(|found| &found.reading);
        let health = match diagnose(reading, &backup_dir, mirror)? {
            Health::NotInitialized if Self::has_history(store, &backup_dir) => Health::Missing,
            Health::Foreign(edit) => match live.as_ref().map(|found| &found.reading) {
                Some(Reading::Sealed(document)) if is_fresh(store, document) => {
                    Health::Healthy(document.clone())
                }
                _ => Health::Foreign(edit),
            },
            health => health,
        };
        Ok(Self { store, live, backup_dir, health })
    }

    /// Observes the root without a lock and without changing anything.
    pub(super) fn of(store: &'s FileStore, depth: Depth) -> Result<Self> {
        let root = Root::of(store);
        Self::diagnose(store, root.live()?, root.backup_dir_to_read()?, depth)
    }

    /// Observes and compares with the mirror.
    pub(super) fn examine(store: &'s FileStore) -> Result<Self> {
        Self::of(store, Depth::WithMirror)
    }

    /// Returns whether the next write commits even without a change: the file has an older form, or
    /// was converted.
    pub(super) fn is_rewritten(&self) -> bool {
        let is_converted = self.live.as_ref().is_some_and(|found| found.conversion.is_some());
        is_converted || self.health.migrates_from().is_some()
    }

    /// The text of the live document.
    pub(super) fn text(&self) -> Option<&Bytes> {
        self.live.as_ref().map(|found| &found.bytes)
    }

    /// The document as far as it is readable.
    pub(super) fn known(&self) -> Option<&Value> {
        known(&self.health, self.live.as_ref().map(|found| &found.reading))
    }

    /// The current revision as users see it; 0 where there is none.
    pub(super) fn revision(&self) -> u64 {
        match &self.health {
            Health::Healthy(document) => document.seal.revision.get(),
            Health::Foreign(edit) => edit.revision(),
            _ => 0,
        }
    }

    /// The error of a command that cannot work with this state; `None` where it can.
    pub(super) fn refusal_if_unusable(&self) -> Option<Error> {
        self.refusal_for(&self.health)
    }

    /// The error of a command that cannot work with this state.
    pub(super) fn refusal(&self) -> Error {
        self.refusal_of(&self.health)
    }

    /// The error about a document that was found to be unusable.
    pub(super) fn refusal_of(&self, health: &Health) -> Error {
        self.refusal_for(health).unwrap_or_else(|| {
            let (shown, name) = (self.store.shown(), health.kind());
            Error::new(Kind::Internal, format!("{shown} cannot be used: {name}"))
        })
    }

    fn refusal_for(&self, health: &Health) -> Option<Error> {
        let restoring = match health {
            Health::Missing | Health::Damaged(_) | Health::Invalid(_) => {
                self.store.checkpoints().restoring()
            }
            Health::Foreign(edit) if edit.reference.is_none() => {
                self.store.checkpoints().restoring()
            }
            _ => None,
        };
        health.refusal(&self.store.shown(), &self.backup_dir, restoring.as_deref())
    }
}
