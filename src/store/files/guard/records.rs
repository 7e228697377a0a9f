//! The records of guards: they are put and removed whole, and the journal has a line of each step.

use rustix::io::Errno;

use crate::error::{Error, Kind, Result};
use crate::fs::stage::{Durability, temporary};
use crate::fs::{Dir, Disk, FsResult};
use crate::journal::{Event, GuardEvent, GuardStep};
use crate::lock::ancestry;
use crate::store::files::backup_dir::BackupDir;
use crate::store::files::events::{EventLog, append_to_journal};
use crate::store::files::state_lock::StateLock;
use crate::store::guard::record::{Record, file_name};

/// Puts a record in place, durably.
pub(super) fn put_record(
    lock: &StateLock<'_>,
    backup_dir: &BackupDir,
    record: &Record,
) -> Result<()> {
    let name = temporary(lock.flock.inode(), "guard");
    Ok(put_record_as(&lock.store.disk, &name, backup_dir, record)??)
}

/// As [`put_record`], without the state lock. A holder of that lock may remove the temporary file
/// as a dead writer's.
pub(super) fn put_record_unlocked(
    disk: &Disk,
    backup_dir: &BackupDir,
    record: &Record,
) -> Result<()> {
    const ATTEMPTS: usize = 8;
    let name = temporary(u64::from(std::process::id()), "guard-unlocked");
    let mut attempts = 1;
    loop {
        match put_record_as(disk, &name, backup_dir, record)? {
            Err(error) if error.is(Errno::NOENT) && attempts < ATTEMPTS => attempts += 1,
            result => return Ok(result?),
        }
    }
}

fn put_record_as(
    disk: &Disk,
    name: &str,
    backup_dir: &BackupDir,
    record: &Record,
) -> Result<FsResult<()>> {
    let dir = backup_dir
        .dir()
        .ok_or_else(|| Error::new(Kind::Internal, "a guard without its directory"))?;
    let bytes = record.write()?;
    let put = || {
        let staged = disk.stage(dir, name, &bytes, Durability::Fsync)?;
        disk.rename(dir.entry(name), dir.entry(&file_name(&record.id)))?;
        staged.keep();
        disk.sync_dir(dir)
    };
    Ok(put())
}

/// Removes a record, durably.
pub(super) fn drop_record(disk: &Disk, backup_dir: &Dir, id: &str) -> FsResult<()> {
    disk.unlink(backup_dir, file_name(id))?;
    disk.sync_dir(backup_dir)
}

/// A step of a guard, as a line of the journal.
pub(super) fn guard_event(
    lock: &StateLock<'_>,
    backup_dir: &BackupDir,
    id: &str,
    step: GuardStep,
) -> Event {
    let mut guards = guards_of_commit(lock, backup_dir);
    guards.retain(|guard| guard != id);
    Event::Guard(GuardEvent {
        origin: EventLog::of(lock.store).origin(),
        id: id.to_owned(),
        step,
        code: None,
        attempts: None,
        guards,
    })
}

/// Appends a step of a guard to the journal, where there is one.
pub(super) fn journal_guard(
    lock: &StateLock<'_>,
    backup_dir: &BackupDir,
    id: &str,
    step: GuardStep,
) {
    if let Some(dir) = backup_dir.dir().filter(|_| backup_dir.has_journal) {
        append_to_journal(lock, dir, &guard_event(lock, backup_dir, id, step));
    }
}

/// The running guards that this process commits under: it descends from the guard, or shows its
/// token.
pub(in crate::store::files) fn guards_of_commit(
    lock: &StateLock<'_>,
    backup_dir: &BackupDir,
) -> Vec<String> {
    if backup_dir.guards.is_empty() {
        return Vec::new();
    }
    let running = lock.store.guards().running(&lock.root, backup_dir).unwrap_or_default();
    let ancestors = ancestry(std::process::id()).unwrap_or_default();
    let shown = &lock.store.settings.lock_env.guards;
    let is_under = |record: &Record| record.encloses(&ancestors, shown);
    running.into_iter().filter(is_under).map(|record| record.id).collect()
}
