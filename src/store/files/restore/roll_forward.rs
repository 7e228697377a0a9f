//! Carries out a decided restore: in the command that decided it, or in the next one.
//!
//! The trees themselves show the progress, not notes: what is staged, what is in place, and the
//! fingerprints of both in the intent. So it can be repeated from any point, as often as necessary.

use std::rc::Rc;

use bytes::Bytes;

use super::intents::Intents;
use super::origin::foreign;
use super::replacement::{Places, Progress, Replacement};
use super::{lock_lost, staged_state};
use crate::audit::Level;
use crate::document::migrate::{self, Unfit};
use crate::document::seal::{Document, Revision, Sealed};
use crate::document::{READ_LIMIT, Reading, inspect_text};
use crate::error::{Error, ExitCode, Kind, Result};
use crate::fs::Dir;
use crate::journal::Event;
use crate::journal::event::{RestoreEvent, RestoreStep};
use crate::store::checkpoint::catalog::Which;
use crate::store::diagnosis::{Health, newer_schema};
use crate::store::files::commit::{OnDiskFull, Plan, Published};
use crate::store::files::events::journal_event;
use crate::store::files::guard::settle::settle_guard_in;
use crate::store::files::new_lineage;
use crate::store::files::observe::Observation;
use crate::store::files::preserve::replaced_for;
use crate::store::files::record::Provenance;
use crate::store::files::staging::{Staging, StagingDir};
use crate::store::files::state_lock::{StateLock, StateLocks};
use crate::store::layout::{INTENT, pinned};
use crate::store::options::WriteOptions;
use crate::store::restore::intent::{Action, Intent, Manner, StagedState};
use crate::store::signal::Signals;

/// Whether an interrupted restore is settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Settled {
    /// It is, or there was none.
    Yes,
    /// Another owner holds `config` or `signals`; the caller must release the flock to wait for it.
    Busy,
}

impl Intents<'_> {
    /// Finishes or undoes what a dead command left in the staging directory. The caller holds the
    /// state lock.
    pub(in super::super) fn settle(&self, lock: &Rc<StateLock<'_>>) -> Result<Settled> {
        let Some((_, intent)) = self.store.intents().read(&lock.root)? else {
            if new_lineage::settle(lock)? {
                return Ok(Settled::Yes);
            }
            if let Err(error) = Staging::of(self.store).clear(&lock.root) {
                // It blocks nothing, and an immutable file in it must not keep writers from
                // writing.
                self.store.warn(format!("what a killed command left cannot be removed: {error}"));
            }
            return Ok(Settled::Yes);
        };
        if let Some(refusal) = foreign(self.store, &lock.root, &intent)? {
            return Err(refusal);
        }
        let Some(_trees) = StateLocks::of(self.store).try_lock_trees()? else {
            return Ok(Settled::Busy);
        };
        self.finish_or_undo(lock, &intent).map_err(|error| {
            let message = format!(
                "an interrupted restore of {} cannot be finished: {}",
                intent.checkpoint, error.message
            );
            Error { message, ..error }.or_abort()
        })?;
        Ok(Settled::Yes)
    }

    fn finish_or_undo(&self, lock: &Rc<StateLock<'_>>, intent: &Intent) -> Result<()> {
        let id = &intent.checkpoint;
        let staging = Staging::of(self.store).open(lock)?;
        if self.can_be_carried_out(lock, &staging, intent)? {
            let options = WriteOptions::of_restore();
            self.roll_forward(lock, staging, intent, &options)?;
            let done = if intent.action == Action::Restore { "finished" } else { "undone" };
            self.report_recovery(&format!("an interrupted restore of {id} was {done}"));
        } else {
            self.store.restores().undo(lock, staging, intent)?;
            self.report_recovery(&format!(
                "an interrupted restore of {id} could not be finished, since what was staged is \
                 gone or damaged: it was undone"
            ));
        }
        Ok(())
    }

    fn report_recovery(&self, story: &str) {
        self.store.errors.record(Level::Warn, "restore", story, ExitCode::General);
        self.store.warn(story);
    }

    /// Returns whether everything is either in place or staged as the intent states. Changes
    /// nothing.
    fn can_be_carried_out(
        &self,
        lock: &Rc<StateLock<'_>>,
        staging: &StagingDir<'_>,
        intent: &Intent,
    ) -> Result<bool> {
        let places = self.places(lock)?;
        for replacement in Replacement::all(self.store, &staging.dir, &places, intent) {
            // The state comes last: once it is committed, a tree that differs was edited since.
            if replacement.progress()? == Progress::Broken {
                return intent.is_committed(&lock.observe()?);
            }
        }
        let Some(wanted) = &intent.state else { return Ok(true) };
        Ok(self.staged_state(&staging.dir, intent.number, wanted)?.is_some()
            || is_in_place(&lock.observe()?, wanted))
    }

    /// The parent directories of the trees.
    pub(super) fn places<'a>(&self, lock: &'a StateLock) -> Result<Places<'a>> {
        let config_root = Staging::of(self.store)
            .config_root()?
            .ok_or_else(|| self.store.restores().no_config_root())?;
        Ok(Places { root: &lock.root, config_root })
    }

    /// The revision that a guard restores: an undo passes over the guard and its restore.
    fn guarded_revision(&self, intent: &Intent, options: &WriteOptions) -> Option<Revision> {
        options.guard.as_ref()?;
        let checkpoint =
            self.store.checkpoints().find(&Which::Id(intent.checkpoint.clone())).ok()?;
        checkpoint.metadata.revision.and_then(Revision::new)
    }

    /// Carries out a decided restore; returns the resulting revision of the state.
    pub(in super::super) fn roll_forward(
        &self,
        lock: &Rc<StateLock<'_>>,
        staging: StagingDir<'_>,
        intent: &Intent,
        options: &WriteOptions,
    ) -> Result<u64> {
        let places = self.places(lock)?;
        for replacement in Replacement::all(self.store, &staging.dir, &places, intent) {
            match replacement.progress()? {
                Progress::Done => {}
                Progress::Ready if replacement.swap.manner == Manner::CopyInto => {
                    replacement.copy_into(&staging.checkpoints, intent)?;
                }
                Progress::Ready => replacement.exchange()?,
                Progress::Broken if intent.is_committed(&lock.observe()?)? => {}
                Progress::Broken => return Err(broken(intent, replacement.name)),
            }
            self.store.disk.sync_dir(replacement.parent)?;
        }
        let revision = match &intent.state {
            Some(wanted) => self.publish_staged(lock, &staging, wanted, intent, options)?,
            None => 0,
        };
        settle_guard_in(lock, intent, options)?;
        self.finish(&places, staging, intent)?;
        let (text, step) = match intent.action {
            Action::Undo => ("undone", RestoreStep::Undone),
            Action::Restore => ("restored", RestoreStep::Restored),
        };
        journal_event(lock, |origin| {
            Event::Restore(RestoreEvent {
                origin,
                lineage: intent.state.as_ref().map(|state| state.lineage.to_string()),
                id: intent.checkpoint.clone(),
                step,
                revision: (revision > 0).then_some(revision),
            })
        });
        let entry = self
            .store
            .logs()
            .recovery_entry(Level::Info, "restore", text)
            .with("id", &intent.checkpoint);
        let entry = entry.with("before", &intent.pre_restore).with("pid", std::process::id());
        self.store.audit.record(&entry.with("path", self.store.shown()));
        Ok(revision)
    }

    fn publish_staged(
        &self,
        lock: &Rc<StateLock<'_>>,
        staging: &StagingDir<'_>,
        wanted: &StagedState,
        intent: &Intent,
        options: &WriteOptions,
    ) -> Result<u64> {
        loop {
            let tx = lock.begin()?;
            let seen = &tx.seen;
            if is_in_place(seen, wanted) {
                // Its writer died after the commit: the steps after a commit are done before the
                // intent is removed.
                tx.renew_mirror()?;
                if options.guard.is_none() {
                    settle_guard_in(lock, intent, options)?;
                }
                tx.record_unrecorded(options, &intent.checkpoint);
                return Ok(seen.revision());
            }
            if let Health::TooNew(_) = seen.health {
                return Err(seen.refusal());
            }
            let Some(sealed) = self.staged_state(&staging.dir, intent.number, wanted)? else {
                return Err(broken(intent, "the state"));
            };
            let staged = staged_state(intent.number);
            let highest = seen.highest_revision()?;
            let is_next = highest.is_none_or(|highest| highest < wanted.revision);
            // It was in place and destroyed again: its number is used.
            let (sealed, source) = if is_next {
                (sealed, Some(staging.dir.entry(&staged)))
            } else {
                let created = sealed.document.value.pointer("/metadata/created").cloned();
                (seen.seal(sealed.document.into_value(), &wanted.lineage, created.as_ref())?, None)
            };
            // Signal files that are not replaced follow the state.
            let follows = intent.action == Action::Restore && intent.signals.is_none();
            let plan = Plan {
                source,
                replaced: replaced_for(seen, pinned::PRE_RESTORE),
                signals: if follows { &Signals::Follow } else { &Signals::STAY },
                fences: &[],            // they held when the restore was decided
                room: OnDiskFull::Fail, // staged files must not be removed to free space
                ..Plan::of(&sealed, options)
            };
            if let Published::Done { .. } = tx.publish(&plan)? {
                if options.guard.is_none() {
                    settle_guard_in(lock, intent, options)?;
                }
                let repeats = self.guarded_revision(intent, options);
                let of = Provenance { from: Some(&intent.checkpoint), repeats };
                tx.record_commit(options, &sealed, of);
                return Ok(sealed.document.seal.revision.get());
            }
            if !lock.flock.is_current(&self.store.disk, &lock.root)? {
                return Err(lock_lost());
            }
        }
    }

    /// The staged state, if it matches the intent: its text as staged, its value in the current
    /// form.
    pub(in super::super) fn staged_state(
        &self,
        dir: &Dir,
        number: u64,
        wanted: &StagedState,
    ) -> Result<Option<Sealed>> {
        let Some(found) = self.store.disk.read(dir, staged_state(number), READ_LIMIT)? else {
            return Ok(None);
        };
        let bytes = Bytes::from(found.bytes);
        match inspect_text(bytes.clone()) {
            Reading::Sealed(document) if document.seal.digest == wanted.digest => {
                match migrate::usable_sealed(document) {
                    Ok(document) => Ok(Some(Sealed { document, text: bytes.into() })),
                    Err(Unfit::TooNew(too_new)) => Err(newer_schema(
                        "the state that an interrupted restore brings back",
                        &too_new,
                    )),
                    Err(Unfit::Invalid(_)) => Ok(None),
                }
            }
            _ => Ok(None),
        }
    }

    /// Everything is in place: removes the record, durably, then the replaced trees.
    fn finish(&self, places: &Places<'_>, staging: StagingDir<'_>, intent: &Intent) -> Result<()> {
        for replacement in Replacement::all(self.store, &staging.dir, places, intent) {
            if replacement.swap.manner == Manner::Move {
                replacement.keep_if_edited()?;
            }
        }
        self.store.disk.unlink(&staging.dir, INTENT)?;
        self.store.disk.sync_dir(&staging.dir)?;
        if let Err(error) = staging.clear() {
            self.store.warn(format!(
                "what was displaced could not be removed, and the next writer tries again: {error}"
            ));
        }
        Ok(())
    }
}

/// Returns whether the live file holds the restored state, or a later revision.
pub(super) fn is_in_place(seen: &Observation, wanted: &StagedState) -> bool {
    matches!(&seen.health, Health::Healthy(document) if is_it(document, wanted))
}

pub(super) fn is_it(document: &Document, wanted: &StagedState) -> bool {
    document.seal.lineage == wanted.lineage && document.seal.revision >= wanted.revision
}

fn broken(intent: &Intent, what: &str) -> Error {
    let message = format!(
        "what was staged of {what} for the restore of {} is gone or damaged",
        intent.checkpoint
    );
    Error::new(Kind::Corrupt, message)
        .hint_command("recover status", "see the state and the restore")
}
