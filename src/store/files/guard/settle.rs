//! Settles the record of a guard after its changes were put back. The next command does so.
//!
//! A guard that keeps the commits of others states in its record what it is going to commit. If it
//! is killed, the document and its history show whether that commit happened. Where a restore does
//! the work, its intent shows it.

use super::Guards;
use super::records::{drop_record, journal_guard, put_record};
use crate::document::Reading;
use crate::document::seal::Seal;
use crate::error::Result;
use crate::fs::Dir;
use crate::journal::GuardStep;
use crate::store::checkpoint::id::{number_of, time_of};
use crate::store::files::backup_dir::BackupDir;
use crate::store::files::root::Root;
use crate::store::files::state_file::StateFile;
use crate::store::files::state_lock::StateLock;
use crate::store::guard::Standing;
use crate::store::guard::record::{Base, Record, Status};
use crate::store::options::WriteOptions;
use crate::store::restore::intent::{Action, Intent};

/// The changes that a killed guard had put back.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Aftermath {
    /// Nothing.
    Nothing,
    /// None so far: a restore of its checkpoint is decided, and the next command that writes
    /// finishes it.
    Decided,
    /// All.
    PutBack,
    /// Not all; the reason.
    Unrestored(String),
}

/// The changes that a dead guard had put back.
pub(super) fn put_back_by(
    guards: &Guards<'_>,
    root: &Dir,
    backup_dir: &BackupDir,
    live: Option<&StateFile>,
    record: &Record,
) -> Result<Aftermath> {
    if let Status::PuttingBack { commit, unrestored } = &record.status
        && was_committed(backup_dir, live, commit)?
    {
        return Ok(unrestored.clone().map_or(Aftermath::PutBack, Aftermath::Unrestored));
    }
    // A damaged intent is reported by the command that follows it.
    let intent = guards.store.intents().read(root).ok().flatten().map(|(_, intent)| intent);
    let is_its = intent
        .is_some_and(|intent| intent.action == Action::Restore && intent.checkpoint == record.id);
    Ok(if is_its { Aftermath::Decided } else { Aftermath::Nothing })
}

/// Returns whether this is or was the live document, according to the journal or a backup.
fn was_committed(backup_dir: &BackupDir, live: Option<&StateFile>, commit: &Base) -> Result<bool> {
    let is_it = |seal: &Seal| seal.digest == commit.digest && seal.lineage == commit.lineage;
    if let Some(Reading::Sealed(document)) = live.map(|found| &found.reading)
        && is_it(&document.seal)
    {
        return Ok(true);
    }
    if backup_dir
        .events()
        .commits()
        .any(|line| line.revision == commit.revision && line.digest == commit.digest)
    {
        return Ok(true);
    }
    for name in backup_dir.backups.iter().filter(|name| name.revision == Some(commit.revision)) {
        if backup_dir.read(name.as_str())?.seal().is_some_and(is_it) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Settles the guard of the checkpoint that a restore restores, before the restore's intent is
/// removed, in whichever command finishes the restore.
pub(in super::super) fn settle_guard_in(
    lock: &StateLock<'_>,
    intent: &Intent,
    options: &WriteOptions,
) -> Result<()> {
    let id = &intent.checkpoint;
    if intent.action == Action::Undo {
        return Ok(());
    }
    let backup_dir = Root::of(lock.store).backup_dir_of(&lock.root)?;
    let is_whole = intent.config.is_some() && intent.signals.is_some() && intent.state.is_some();
    let is_by_guard = options.guard.as_ref() == Some(id);
    // Only a guard restores a part: its command's changes.
    if is_by_guard || !is_whole {
        settle_record(lock, &backup_dir, id)?;
    } else {
        settle_guard_of(lock, &backup_dir, id);
    }
    if is_whole {
        settle_later_guards(lock, &backup_dir, id);
    }
    Ok(())
}

/// Settles the ended guards whose checkpoint is later than the restored one: what their
/// commands changed was put back with the rest.
fn settle_later_guards(lock: &StateLock<'_>, backup_dir: &BackupDir, id: &str) {
    let order = |id: &str| (time_of(id), number_of(id));
    for later in backup_dir.guards.iter().filter(|guard| order(guard) > order(id)) {
        let standing = lock.store.guards().standing_of(&lock.root, backup_dir, later);
        if let Ok(Some(Standing::Killed | Standing::Unrestored(_))) = standing {
            settle_guard_of(lock, backup_dir, later);
        }
    }
}

/// Removes the guard's record: everything was put back.
pub(in crate::store::files) fn settle_record(
    lock: &StateLock<'_>,
    backup_dir: &BackupDir,
    id: &str,
) -> Result<()> {
    if let Some(dir) =
        backup_dir.dir().filter(|_| lock.store.guards().read_record(backup_dir, id).is_some())
    {
        drop_record(&lock.store.disk, dir, id)?;
        journal_guard(lock, backup_dir, id, GuardStep::Restored);
    }
    Ok(())
}

/// Settles a guard that is not running after a restore of its checkpoint.
pub(in super::super) fn settle_guard_of(lock: &StateLock<'_>, backup_dir: &BackupDir, id: &str) {
    let Some(dir) = backup_dir.dir().filter(|_| backup_dir.guards.iter().any(|guard| guard == id))
    else {
        return;
    };
    let settle = || -> Result<()> {
        if lock.store.guards().standing_of(&lock.root, backup_dir, id)? != Some(Standing::Running) {
            drop_record(&lock.store.disk, dir, id)?;
            journal_guard(lock, backup_dir, id, GuardStep::Restored);
        }
        Ok(())
    };
    if let Err(error) = settle() {
        lock.store.warn(format!("the guard {id} stays on record: {error}"));
    }
}

/// Settles the guards that were killed after their commit. The caller holds the state lock, and
/// nothing was committed since.
pub(in super::super) fn settle_guards(
    lock: &StateLock<'_>,
    backup_dir: &mut BackupDir,
    live: Option<&StateFile>,
) {
    let mut settled = Vec::new();
    for id in &backup_dir.guards {
        let Some(record) = lock.store.guards().read_record(backup_dir, id) else { continue };
        if !matches!(record.status, Status::PuttingBack { .. }) {
            continue;
        }
        let settle = || -> Result<bool> {
            if !lock.store.guards().is_gone(&lock.root, &record)? {
                return Ok(false);
            }
            match put_back_by(&lock.store.guards(), &lock.root, backup_dir, live, &record)? {
                Aftermath::PutBack => settle_record(lock, backup_dir, id).map(|()| true),
                Aftermath::Unrestored(why) => {
                    let status = Status::Unrestored(why);
                    put_record(lock, backup_dir, &Record { status, ..record.clone() })?;
                    journal_guard(lock, backup_dir, id, GuardStep::Unrestored);
                    Ok(false)
                }
                Aftermath::Nothing | Aftermath::Decided => Ok(false),
            }
        };
        match settle() {
            Ok(true) => settled.push(id.clone()),
            Ok(false) => {}
            Err(error) => lock.store.warn(format!("the guard {id} stays on record: {error}")),
        }
    }
    backup_dir.guards.retain(|id| !settled.contains(id));
}
