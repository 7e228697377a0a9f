//! Removal of checkpoints: the old ones for `recover cleanup`, those that are named, and those that
//! commands made on their own account, of which the settings keep so many, for so many days.

use std::time::{Duration, SystemTime};

use serde_json::json;

use super::catalog::Checkpoints;
use crate::audit::Level;
use crate::error::{Error, Kind, Result};
use crate::fs::Dir;
use crate::fs::stage::Durability;
use crate::journal::Event;
use crate::journal::event::{CheckpointEvent, CheckpointStep};
use crate::store::checkpoint::id::{Named, named, time_of};
use crate::store::checkpoint::manifest::{METADATA, METADATA_LIMIT, Metadata};
use crate::store::files::root::Root;
use crate::store::files::staging::Staging;
use crate::store::files::state_lock::{StateLock, StateLocks};
use crate::store::layout::{CHECKPOINTS, DOOMED_PREFIX};
use crate::store::options::{LockPurpose, Mode};

/// The retention of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retention {
    /// A user requested it: it stays until it is removed by name or by `recover cleanup`.
    Manual,
    /// A command made it on its own account.
    Automatic,
}

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
        let lock = StateLocks::of(self.store)
            .lock_state(LockPurpose::Write, StateLocks::of(self.store).deadline())?;
        let doomed = self.old(older_than, kept)?;
        self.take_away(&lock, &doomed, "cleanup")?;
        Ok(doomed)
    }

    fn old(&self, older_than: Duration, kept: usize) -> Result<Vec<String>> {
        let ids = self.ids()?;
        let now = self.store.disk.now();
        let surplus = ids.len().saturating_sub(kept.max(1));
        let mut doomed = Vec::new();
        for id in ids.iter().take(surplus) {
            if self.age_of(id, now)?.is_some_and(|age| age >= older_than)
                && !self.is_referenced(id)?
            {
                doomed.push(id.clone());
            }
        }
        if doomed.is_empty() {
            return Ok(doomed);
        }
        // A checkpoint dated in the future does not count as the newest.
        let newest =
            ids.iter().rev().find(|id| time_of(id).is_some_and(|time| time <= now)).cloned();
        let mut sound = None;
        for id in ids.iter().rev() {
            if self.is_sound(id)? {
                sound = Some(id.clone());
                break;
            }
        }
        doomed.retain(|id| Some(id) != newest.as_ref() && Some(id) != sound.as_ref());
        Ok(doomed)
    }

    /// Removes the checkpoints that are named, by id or by an unambiguous prefix of one. Returns
    /// their ids.
    pub fn remove(&self, words: &[String]) -> Result<Vec<String>> {
        let lock = StateLocks::of(self.store)
            .lock_state(LockPurpose::Write, StateLocks::of(self.store).deadline())?;
        let mut doomed: Vec<String> = Vec::new();
        for word in words {
            let id = self.resolve_id(word)?;
            if self.is_referenced(&id)? {
                let message = format!(
                    "the checkpoint {id} is needed by what is on record; nothing was removed"
                );
                return Err(Error::new(Kind::InUse, message)
                    .hint_command("recover status", "see what needs it")
                    .detail("checkpoint", id));
            }
            if !doomed.contains(&id) {
                doomed.push(id);
            }
        }
        self.take_away(&lock, &doomed, "remove")?;
        Ok(doomed)
    }

    /// Removes automatic checkpoints over the limits of number and age. Never removes the newest
    /// checkpoint, one that a record refers to, or `used`, which the caller just made or restored.
    /// The caller's own work is done, so a failure is a warning.
    pub(in super::super) fn retire(&self, lock: &StateLock, used: &str) {
        let retire = || -> Result<()> {
            let ids = self.ids()?;
            let Some(checkpoints) = self.dir()? else { return Ok(()) };
            let now = self.store.disk.now();
            let settings = &self.store.settings;
            let limit = Duration::from_secs(settings.checkpoint_days.saturating_mul(86_400));
            let (mut newer, mut doomed) = (0, Vec::new());
            for (place, id) in ids.iter().rev().enumerate() {
                if self.metadata_of(&checkpoints, id)?.is_none_or(|metadata| !metadata.automatic) {
                    continue;
                }
                newer += 1;
                let outlived =
                    || Ok::<_, Error>(self.age_of(id, now)?.is_some_and(|age| age > limit));
                if place > 0
                    && id != used
                    && (newer > settings.max_checkpoints.max(1) || outlived()?)
                    && !self.is_referenced(id)?
                {
                    doomed.push(id.clone());
                }
            }
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
            lock.journal_event(|origin| {
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

    /// The age of a checkpoint. Where the previous checkpoint was later than the clock, its id
    /// repeats that time, and its metadata has the clock's. One that both date in the future counts
    /// as made now; `None` if nothing dates it.
    fn age_of(&self, id: &str, now: SystemTime) -> Result<Option<Duration>> {
        let Some(named) = time_of(id) else { return Ok(None) };
        if let Ok(age) = now.duration_since(named) {
            return Ok(Some(age));
        }
        let noted = match self.dir()? {
            Some(checkpoints) => {
                self.metadata_of(&checkpoints, id)?.and_then(|metadata| metadata.time())
            }
            None => None,
        };
        Ok(Some(noted.and_then(|noted| now.duration_since(noted).ok()).unwrap_or_default()))
    }

    /// A checkpoint's metadata, if it has any.
    fn metadata_of(&self, checkpoints: &Dir, id: &str) -> Result<Option<Metadata>> {
        let found = self.store.disk.read(checkpoints, format!("{id}/{METADATA}"), METADATA_LIMIT);
        Ok(found.ok().flatten().and_then(|found| Metadata::read(&found.bytes)))
    }

    /// The id that a word names: the id itself, or a prefix of one, with or without `checkpoint-`.
    pub(in super::super) fn resolve_id(&self, word: &str) -> Result<String> {
        let word = crate::side::name_in(&self.store.settings.directory, CHECKPOINTS, word);
        let ids = self.ids()?;
        match named(word, &ids) {
            Named::One(id) => Ok(id.to_owned()),
            Named::None => Err(self.not_found(word, &ids)),
            Named::Several(first, count) => {
                let message =
                    format!("{count} checkpoints begin with {word:?}; nothing was changed");
                Err(Error::new(Kind::NotFound, message)
                    .hint_command(
                        format!("recover show {first}"),
                        "name one of them; this is the oldest",
                    )
                    .hint_command("recover list", "see all of them"))
            }
        }
    }
}
