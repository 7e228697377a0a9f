//! `recover restore --abort`: an interrupted restore is undone or dropped, never finished.

use std::rc::Rc;
use std::time::Instant;

use super::origin::foreign;
use super::replacement::Replacement;
use super::roll_forward::is_in_place;
use super::{Before, Restores, Tree};
use crate::audit::Level;
use crate::error::{Error, ExitCode, Kind, Result};
use crate::store::checkpoint::manifest;
use crate::store::copies::{BackupCopy, Copies};
use crate::store::diagnosis::Health;
use crate::store::files::begin::Transactions;
use crate::store::files::new_lineage;
use crate::store::files::new_lineage::intent::foreign_start;
use crate::store::files::next_revision::Sealer;
use crate::store::files::observe::Observation;
use crate::store::files::restore::probe::Probe;
use crate::store::files::root::Root;
use crate::store::files::staging::{Staging, StagingDir};
use crate::store::files::state_lock::{StateLock, StateLocks};
use crate::store::layout::{BACKUPS, CONFIG, INTENT, SERVED_PREFIX, SIGNALS};
use crate::store::options::{LockPurpose, WriteOptions};
use crate::store::restore::intent::{Action, Intent, Swap};

/// The result of an undo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Undone {
    /// Trees were put back.
    Trees,
    /// Nothing had been replaced.
    Nothing,
}

/// The result of `recover restore --abort`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Aborted {
    /// No restore was interrupted, or all of it was in place already.
    Nothing,
    /// The record was dropped, with the files staged for it: nothing had been replaced, or it was
    /// foreign or damaged.
    Dropped {
        /// The checkpoint that was being restored, where the record names it.
        checkpoint: Option<String>,
    },
    /// Everything that had been replaced was put back.
    Undone {
        /// The checkpoint that was being restored.
        checkpoint: String,
    },
}

impl Restores<'_> {
    /// Aborts an interrupted restore. A foreign or damaged record is dropped, and no other file is
    /// changed.
    pub fn abort(&self) -> Result<Aborted> {
        let deadline = StateLocks::of(self.store).deadline();
        loop {
            let lock = Transactions::of(self.store).lock_state(LockPurpose::Abort, deadline)?;
            if !Staging::of(self.store).exists(&lock.root)? {
                return Ok(Aborted::Nothing);
            }
            let intent = match self.store.intents().read(&lock.root) {
                Ok(Some((_, intent))) => intent,
                Ok(None) if foreign_start(self.store, &lock.root)?.is_some() => {
                    new_lineage::keep_archive(&lock)?;
                    new_lineage::drop_start(self.store, Staging::of(self.store).open(&lock)?)?;
                    return Ok(Aborted::Dropped { checkpoint: None });
                }
                Ok(None) => {
                    if !new_lineage::settle(&lock)? {
                        Staging::of(self.store).clear(&lock.root)?;
                    }
                    return Ok(Aborted::Nothing);
                }
                Err(error) if error.kind == Kind::Corrupt => {
                    new_lineage::keep_archive(&lock)?;
                    self.store.restores().drop_intent(Staging::of(self.store).open(&lock)?)?;
                    return Ok(Aborted::Dropped { checkpoint: None });
                }
                Err(error) => return Err(error),
            };
            let checkpoint = intent.checkpoint.clone();
            if foreign(self.store, &lock.root, &intent)?.is_some() {
                self.store.restores().drop_intent(Staging::of(self.store).open(&lock)?)?;
                self.store.restores().record_abort(&checkpoint, "dropped");
                return Ok(Aborted::Dropped { checkpoint: Some(checkpoint) });
            }
            let Some(_trees) = StateLocks::of(self.store).try_lock_trees()? else {
                drop(lock);
                drop(StateLocks::of(self.store).lock_trees(deadline)?);
                continue;
            };
            let staging = Staging::of(self.store).open(&lock)?;
            if intent.action == Action::Undo || intent.is_committed(&lock.observe()?)? {
                self.store.intents().roll_forward(
                    &lock,
                    staging,
                    &intent,
                    &WriteOptions::of_restore(),
                )?;
                return Ok(match intent.action {
                    Action::Undo => Aborted::Undone { checkpoint },
                    Action::Restore => Aborted::Nothing,
                });
            }
            return Ok(match self.store.restores().undo(&lock, staging, &intent)? {
                Undone::Trees => Aborted::Undone { checkpoint },
                Undone::Nothing => Aborted::Dropped { checkpoint: Some(checkpoint) },
            });
        }
    }

    /// Puts back what an abandoned restore replaced. This is itself a restore: of the trees in the
    /// checkpoint that was made before, and of the live state as the next revision, above that of
    /// the restore, which a reader may have been served. Its intent replaces the other. Where
    /// nothing was replaced, the record is dropped.
    pub(super) fn undo(
        &self,
        lock: &Rc<StateLock<'_>>,
        mut staging: StagingDir<'_>,
        intent: &Intent,
    ) -> Result<Undone> {
        let places = self.store.intents().places(lock)?;
        let mut replaced = Vec::new();
        for replacement in Replacement::all(self.store, &staging.dir, &places, intent) {
            if !replacement.is_untouched()? {
                replaced.push(replacement.name);
            }
        }
        if replaced.is_empty() {
            keep_number(lock, intent);
            self.drop_intent(staging)?;
            self.record_abort(&intent.checkpoint, "dropped");
            return Ok(Undone::Nothing);
        }
        let fatal = |error: Error| {
            let is_lost = error.code() == ExitCode::StateCorruption || error.kind == Kind::NotFound;
            if is_lost { lost(intent, &error) } else { error }
        };
        let before = self
            .store
            .checkpoints()
            .open(&staging.checkpoints, &intent.pre_restore)
            .map_err(fatal)?;
        before.verify(&self.store.disk).map_err(fatal)?;
        let plan = Probe::of(self.store).run(lock)?;
        let tree = |place: &str, name: &'static str| {
            let listing = before.listing.below(name);
            replaced.contains(&place).then_some(Tree { dir: &before.dir, name, listing })
        };
        let (config, signals) = (tree(CONFIG, manifest::CONFIG), tree(SIGNALS, manifest::SIGNALS));
        let undone = Before { id: &before.id, listing: &before.listing };
        let undo =
            self.stage_trees(&staging, lock, plan, config.as_ref(), signals.as_ref(), undone)?;
        // What the undo replaces is what the restore put in place, unless it was edited since.
        let put_in_place = |undone: Option<Swap>, swap: &Option<Swap>| {
            undone.map(|undone| Swap {
                old: swap.as_ref().and_then(|swap| swap.new.clone()),
                ..undone
            })
        };
        let undo = Intent {
            action: Action::Undo,
            checkpoint: intent.checkpoint.clone(),
            config: put_in_place(undo.config, &intent.config),
            signals: put_in_place(undo.signals, &intent.signals),
            ..undo
        };
        let seen = lock.observe()?;
        let undo = match (&seen.health, &intent.state) {
            (Health::Healthy(document), Some(restored)) => {
                let highest = seen.highest_revision()?.max(Some(restored.revision));
                let next = Sealer::of(self.store).revision_after(highest)?;
                let created = document.value.skeleton().pointer("/metadata/created").cloned();
                let live = document.clone().into_value();
                let sealed = Sealer::of(self.store).seal_as(
                    live,
                    next,
                    &document.seal.lineage,
                    created.as_ref(),
                )?;
                self.stage_state(&staging, undo, &sealed)?
            }
            _ => undo,
        };
        self.decide(&mut staging, lock, &undo, &[], Instant::now())?;
        let options =
            WriteOptions { reason: Some("abort".to_owned()), ..WriteOptions::of_restore() };
        self.store.intents().roll_forward(lock, staging, &undo, &options)?;
        self.record_abort(&intent.checkpoint, "undone");
        Ok(Undone::Trees)
    }

    /// Removes the record, durably, and then what was staged for it.
    pub(in super::super) fn drop_intent(&self, staging: StagingDir<'_>) -> Result<()> {
        self.store.disk.unlink(&staging.dir, INTENT)?;
        self.store.disk.sync_dir(&staging.dir)?;
        if let Err(error) = staging.clear() {
            self.store.warn(format!(
                "what was staged could not be removed, and the next writer tries again: {error}"
            ));
        }
        Ok(())
    }

    fn record_abort(&self, checkpoint: &str, text: &str) {
        let entry =
            self.store.logs().recovery_entry(Level::Info, "abort", text).with("id", checkpoint);
        self.store
            .audit
            .record(&entry.with("pid", std::process::id()).with("path", self.store.shown()));
    }
}

impl Intent {
    /// Returns whether the restored state was committed, even if the live file was damaged or
    /// edited since: no other commit uses its number.
    pub(super) fn is_committed(&self, seen: &Observation<'_>) -> Result<bool> {
        let Some(wanted) = &self.state else { return Ok(false) };
        let is_it = |copy: &BackupCopy| {
            copy.seal().is_some_and(|seal| {
                seal.lineage == wanted.lineage && seal.revision >= wanted.revision
            })
        };
        Ok(is_in_place(seen, wanted) || seen.backup_dir.copies()?.iter().any(is_it))
    }
}

/// Keeps the number of the abandoned state from being reused: readers may have been served it.
fn keep_number(lock: &StateLock<'_>, intent: &Intent) {
    let Some(staged) = &intent.state else { return };
    let keep = || -> Result<()> {
        let backup_dir = Root::of(lock.store).side_directory(&lock.root, BACKUPS)?;
        let name = format!("{SERVED_PREFIX}{}", staged.revision);
        if lock.store.disk.stat(&backup_dir, &name)?.is_none() {
            drop(lock.store.disk.create(&backup_dir, &name)?);
        }
        Ok(lock.store.disk.sync_dir(&backup_dir)?)
    };
    if let Err(error) = keep() {
        let number = staged.revision;
        lock.store.warn(format!(
            "the number {number} of the revision that is given up may be used again: {error}"
        ));
    }
}

/// The error of a restore that can neither be finished nor undone.
fn lost(intent: &Intent, error: &Error) -> Error {
    let id = &intent.checkpoint;
    let message = format!(
        "an interrupted restore of {id} can neither be finished nor undone: {}",
        error.message
    );
    Error::new(Kind::Corrupt, message)
        .hint_command(
            format!("recover restore {id}"),
            "begin it again; or another one: recover list",
        )
        .detail("checkpoint", id.as_str())
}
