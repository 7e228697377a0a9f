//! Removal of checkpoints, all at once.

use std::cell::OnceCell;
use std::time::Duration;

use serde_json::json;

use super::catalog::Checkpoints;
use crate::audit::Level;
use crate::error::Result;
use crate::fs::Dir;
use crate::fs::stage::Durability;
use crate::journal::Event;
use crate::journal::event::{CheckpointEvent, CheckpointStep};
use crate::store::checkpoint::catalog::resolve;
use crate::store::checkpoint::manifest::{METADATA, METADATA_LIMIT, Metadata};
use crate::store::checkpoint::retention::{self, Shelf};
use crate::store::files::begin::Transactions;
use crate::store::files::events::journal_event;
use crate::store::files::root::Root;
use crate::store::files::staging::Staging;
use crate::store::files::state_lock::{StateLock, StateLocks};
use crate::store::layout::{CHECKPOINTS, DOOMED_PREFIX};
use crate::store::options::{LockPurpose, Mode};

impl Checkpoints<'_> {
    /// Returns whether a record refers to a checkpoint, so that it must stay: a guard's, or that of
    /// an interrupted restore.
    pub fn is_referenced(&self, id: &str) -> Result<bool> {
        Ok(Root::of(self.store).backup_dir_to_read()?.guards.iter().any(|guard| guard == id)
            || self.store.intents().names(id)?)
    }

    /// Removes the checkpoints that are older than this, except the newest `kept` (at least one),
    /// the newest that can be restored, and those that a record refers to. Returns their ids,
    /// oldest first; a dry run only returns them.
    pub fn clean(&self, older_than: Duration, kept: usize, mode: Mode) -> Result<Vec<String>> {
        if mode == Mode::DryRun {
            return self.old(older_than, kept);
        }
        let lock = Transactions::of(self.store)
            .lock_state(LockPurpose::Write, StateLocks::of(self.store).deadline())?;
        let doomed = self.old(older_than, kept)?;
        self.take_away(&lock, &doomed, "cleanup")?;
        Ok(doomed)
    }

    fn old(&self, older_than: Duration, kept: usize) -> Result<Vec<String>> {
        retention::old(&Shelved::of(self), &self.ids()?, self.store.disk.now(), older_than, kept)
    }

    /// Removes the checkpoints that are named, by id or by an unambiguous prefix of one. Returns
    /// their ids.
    pub fn remove(&self, words: &[String]) -> Result<Vec<String>> {
        let lock = Transactions::of(self.store)
            .lock_state(LockPurpose::Write, StateLocks::of(self.store).deadline())?;
        let mut doomed: Vec<String> = Vec::new();
        for word in words {
            let id = self.resolve_id(word)?;
            if self.is_referenced(&id)? {
                return Err(retention::in_use(&id));
            }
            if !doomed.contains(&id) {
                doomed.push(id);
            }
        }
        self.take_away(&lock, &doomed, "remove")?;
        Ok(doomed)
    }

    /// Removes automatic checkpoints over the limits of number and age, but not `used`, which the
    /// caller just made or restored. The caller's own work is done, so a failure is a warning.
    pub(in super::super) fn retire(&self, lock: &StateLock, used: &str) {
        let retire = || -> Result<()> {
            let (now, settings) = (self.store.disk.now(), &self.store.settings);
            let doomed =
                retention::outlived(&Shelved::of(self), &self.ids()?, now, settings, used)?;
            self.take_away(lock, &doomed, "retire")
        };
        if let Err(error) = retire() {
            self.store.warn(format!("old checkpoints could not be removed: {error}"));
        }
    }

    /// Removes checkpoints all at once: each is marked, durably, before any is taken apart. They
    /// are not renamed, because a directory from the lower layer of an overlay cannot be.
    fn take_away(&self, lock: &StateLock, doomed: &[String], action: &str) -> Result<()> {
        if doomed.is_empty() {
            return Ok(());
        }
        let staging = Staging::of(self.store).open(lock)?;
        for id in doomed {
            self.store
                .disk
                .stage(&staging.dir, &format!("{DOOMED_PREFIX}{id}"), b"", Durability::None)?
                .keep();
        }
        // No file of theirs may be removed before their removal is certain.
        self.store.disk.sync_dir(&staging.dir)?;
        self.store.disk.sync_dir(&staging.checkpoints)?;
        staging.clear()?;
        for id in doomed {
            journal_event(lock, |origin| {
                let (id, step) = (id.clone(), CheckpointStep::Removed);
                Event::Checkpoint(CheckpointEvent { origin, lineage: None, id, step })
            });
        }
        let entry = self
            .store
            .logs()
            .recovery_entry(Level::Info, action, "removed")
            .with("ids", json!(doomed));
        self.store
            .audit
            .record(&entry.with("pid", std::process::id()).with("path", self.store.shown()));
        Ok(())
    }

    /// The id that a word names: the id itself, or a prefix of one, with or without `checkpoint-`.
    pub(in super::super) fn resolve_id(&self, word: &str) -> Result<String> {
        let word = crate::side::name_in(&self.store.settings.directory, CHECKPOINTS, word);
        resolve(word, &self.ids()?)
    }
}

/// The checkpoints in their directory, which is opened once.
struct Shelved<'c> {
    checkpoints: Checkpoints<'c>,
    dir: OnceCell<Option<Dir>>,
}

impl<'c> Shelved<'c> {
    fn of(checkpoints: &Checkpoints<'c>) -> Self {
        Self { checkpoints: *checkpoints, dir: OnceCell::new() }
    }
}

impl Shelf for Shelved<'_> {
    fn metadata(&self, id: &str) -> Result<Option<Metadata>> {
        let dir = match self.dir.get() {
            Some(dir) => dir,
            None => {
                let dir = self.checkpoints.dir()?;
                self.dir.get_or_init(|| dir)
            }
        };
        let Some(dir) = dir else { return Ok(None) };
        let disk = &self.checkpoints.store.disk;
        let found = disk.read(dir, format!("{id}/{METADATA}"), METADATA_LIMIT);
        Ok(found.ok().flatten().and_then(|found| Metadata::read(&found.bytes)))
    }

    fn is_referenced(&self, id: &str) -> Result<bool> {
        self.checkpoints.is_referenced(id)
    }

    fn is_sound(&self, id: &str) -> Result<bool> {
        self.checkpoints.is_sound(id)
    }
}
