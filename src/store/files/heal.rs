//! Recovery: restoring a copy where the live file is damaged, missing or unwanted.
//!
//! The restored document is committed like any other, under a new revision. The file it replaces is
//! kept: a damaged file or a foreign edit as evidence, a valid state as a pinned backup.

use super::FileStore;
use super::begin::Transactions;
use super::candidate::{newest_copy, wanted_copy};
use super::commit::{OnDiskFull, Plan};
use super::observe::Observation;
use super::preserve::{Replaced, replaced_for};
use super::record::Provenance;
use super::transaction::{Transaction, check_conditions};
use crate::audit::Level;
use crate::document::contents::without_seal;
use crate::document::diff::{Difference, diff};
use crate::document::seal::{Lineage, Revision};
use crate::error::{ExitCode, Result};
use crate::store::candidate::{Candidate, Wanted, written_by_a_newer_program};
use crate::store::copies::{Copies, newest_valid};
use crate::store::diagnosis::Health;
use crate::store::heal::Recovered;
use crate::store::layout::{BACKUPS, pinned};
use crate::store::options::{LockPurpose, WriteOptions};
use crate::store::signal::Signals;

/// The action under which healing is logged.
const HEAL: &str = "heal";

/// Brings back a valid copy.
#[derive(Clone, Copy, Debug)]
pub struct Healing<'s> {
    pub(in crate::store) store: &'s FileStore,
}

impl<'s> Healing<'s> {
    /// Of `store`.
    pub fn of(store: &'s FileStore) -> Self {
        Self { store }
    }

    /// `state recover`.
    pub fn recover(&self, wanted: &Wanted, options: &WriteOptions) -> Result<Recovered> {
        Transactions::of(self.store).retry(|deadline| {
            let tx = Transactions::of(self.store).begin(LockPurpose::Write, deadline)?;
            recover_wanted(tx, wanted, options)
        })
    }

    /// The copy that a recovery would restore, and the differences it would make; `None` if there
    /// is nothing to recover. Changes nothing.
    pub fn plan(&self, wanted: &Wanted) -> Result<Option<(String, Vec<Difference>)>> {
        let seen = Observation::examine(self.store)?;
        let copy = match (&seen.health, wanted) {
            (Health::Healthy(_) | Health::Legacy(_), Wanted::Newest) => return Ok(None),
            (Health::NotInitialized | Health::TooNew(_), _) => return Err(seen.refusal()),
            (_, Wanted::Newest) => newest_copy(&seen)?,
            _ => wanted_copy(&seen, wanted)?,
        };
        let current = seen.known().cloned().unwrap_or_default();
        let changes = diff(&without_seal(&current), &without_seal(copy.document.value()));
        Ok(Some((copy.name, changes)))
    }
}

/// One attempt of a recovery; `None` if another writer was faster.
fn recover_wanted(
    tx: Transaction<'_>,
    wanted: &Wanted,
    options: &WriteOptions,
) -> Result<Option<Recovered>> {
    let seen = &tx.seen;
    let valid = matches!(seen.health, Health::Healthy(_) | Health::Legacy(_));
    if let Health::TooNew(_) = seen.health {
        return Err(seen.refusal());
    }
    check_conditions(tx.store, options, seen.revision())?;
    if !valid {
        newest_valid(seen.backup_dir.copies()?).map_err(written_by_a_newer_program)?;
    }
    let copy = match wanted {
        Wanted::Newest if valid => {
            tx.keep_mirror();
            let mut backups = seen.backup_dir.backups.iter().rev();
            let pre_migration = backups.find(|backup| backup.reason == pinned::PRE_MIGRATION);
            return Ok(Some(Recovered::NothingToDo {
                pre_migration: pre_migration.map(|name| name.as_str().to_owned()),
            }));
        }
        Wanted::Newest => newest_copy(seen)?,
        wanted => {
            // A rollback makes the current state a backup; the mirror must not be older.
            tx.keep_mirror();
            wanted_copy(seen, wanted)?
        }
    };
    let replaced = replaced_for(seen, pinned::PRE_RECOVER);
    let room = OnDiskFull::PruneBackups;
    let is_rollback = !matches!(wanted, Wanted::Newest);
    let plan = Restoration { copy: &copy, replaced, room, is_rollback };
    let revision = bring_back(&tx, plan, options)?;
    Ok(revision.map(|revision| Recovered::From { file: copy.name, revision }))
}

/// Replaces a damaged live file by the newest valid copy, unless another writer is faster.
pub(in crate::store::files) fn heal(tx: &Transaction<'_>, room: OnDiskFull) -> Result<()> {
    let copy = newest_copy(&tx.seen)?;
    let replaced = Replaced::Evidence;
    let plan = Restoration { copy: &copy, replaced, room, is_rollback: false };
    bring_back(tx, plan, &WriteOptions::of(HEAL)).map(drop)
}

fn bring_back(
    tx: &Transaction<'_>,
    restoration: Restoration<'_>,
    options: &WriteOptions,
) -> Result<Option<Revision>> {
    let Restoration { copy, replaced, room, is_rollback } = restoration;
    let (store, seen) = (tx.store, &tx.seen);
    let lineage = seen.lineage_to_continue()?;
    let created = copy.document.value().pointer("/metadata/created");
    let sealed = seen.seal(copy.document.value().clone(), &lineage, created)?;
    let lost = lost_after(seen, &lineage, copy.document.revision());
    let plan = Plan { replaced, signals: &Signals::Follow, room, ..Plan::of(&sealed, options) };
    let repeats = copy.document.revision().filter(|_| !is_rollback);
    let of = Provenance { from: Some(&copy.name), repeats };
    let Some(committed) = tx.commit(&plan, options, of)? else {
        return Ok(None);
    };
    let revision = sealed.document.seal.revision;
    let is_usable = matches!(seen.health, Health::Healthy(_) | Health::Legacy(_));
    let story = match lost {
        lost if options.action == HEAL => {
            let story = healing_story(seen, copy, revision, committed.kept.as_deref());
            Some(lost.map_or(story.clone(), |lost| format!("{story}; {lost}")))
        }
        lost => lost.filter(|_| !is_usable),
    };
    if let Some(story) = story {
        store.errors.record(Level::Warn, options.action, &story, ExitCode::StateCorruption);
        store.warn(story);
    }
    Ok(Some(revision))
}

/// A copy that replaces the live file.
struct Restoration<'a> {
    copy: &'a Candidate,
    replaced: Replaced,
    room: OnDiskFull,
    /// Whether an earlier revision was named. An undo takes a rollback back; otherwise the copy is
    /// the same document again.
    is_rollback: bool,
}

/// Describes a healing: the damage, the copy that was restored, and the name of the kept file.
fn healing_story(
    seen: &Observation<'_>,
    copy: &Candidate,
    revision: Revision,
    kept: Option<&str>,
) -> String {
    let why = match &seen.health {
        Health::Damaged(why) => why.clone(),
        health => health.kind().to_string(),
    };
    let name = &copy.name;
    let what = copy
        .document
        .revision()
        .map_or_else(|| "a copy from before seals".to_owned(), |r| format!("revision {r}"));
    format!(
        "{} was damaged ({why}); {what} was restored from {name} as revision {revision}; \
         the damaged file is {}/{}",
        seen.store.shown(),
        BACKUPS,
        kept.unwrap_or_default(),
    )
}

/// Warns that a later revision was acknowledged and that no copy of it is left. Called before
/// the restored revision itself is logged.
pub(in crate::store::files) fn lost_after(
    seen: &Observation<'_>,
    lineage: &Lineage,
    kept: Option<Revision>,
) -> Option<String> {
    let last = seen.last_commit(lineage)?;
    let lost = Some(last.revision) > kept;
    lost.then(|| {
        format!("REVISION {} OF {} IS LOST: no valid copy of it is left", last.revision, last.time)
    })
}
