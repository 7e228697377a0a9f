//! `init --fresh`: archives the history and starts a new lineage.
//!
//! Nothing is removed before the new document is in place.
//! 1. Everything is linked or copied into an archive in progress, and synced.
//! 2. The intent is put in place and synced. A crash before this point leaves only files that the
//!    next writer removes; after it the next writer continues from here.
//! 3. The new document is committed. If that is impossible, the intent is dropped, and the old
//!    state is unchanged.
//! 4. The archive gets its name, the mirror its new contents, and the archived files are removed
//!    from the backup directory.
//! 5. The intent is removed.

pub(super) mod intent;

use std::rc::Rc;

use self::intent::{Intent, foreign_start, read_fresh};
use super::FileStore;
use super::commit::{OnDiskFull, Plan, Published};
use super::preserve::Replaced;
use super::record::Provenance;
use super::root::Root;
use super::staging::{Staging, StagingDir};
use super::state_file::StateFile;
use super::state_lock::{StateLock, lock_lost};
use super::transaction::Transaction;
use crate::audit::Level;
use crate::document::seal::{Revision, Seal, Sealed};
use crate::document::{READ_LIMIT, Reading};
use crate::error::{Error, Kind, Result};
use crate::fs::free_name::first_free;
use crate::fs::identity::DirId;
use crate::fs::stage::{Durability, temporary};
use crate::fs::{Access, Dir, Disk};
use crate::side;
use crate::store::copies::{Copies, lineage_of};
use crate::store::diagnosis::Health;
use crate::store::layout::{
    ARCHIVE_PREFIX, BACKUPS, BackupName, EVIDENCE_PREFIX, INTENT, MIRROR, SIGNALS, STAGED_PREFIX,
    staged_state,
};
use crate::store::logged;
use crate::store::options::WriteOptions;
use crate::store::restore::intent::StagedState;
use crate::time::compact;
use crate::tree::{self, Attributes};

/// The reason in the name of a state's copy in an archive: it was the live file.
pub(super) const LIVE: &str = "live";
/// The number under which the new document is staged.
const NUMBER: u64 = 0;

/// The archive's name while it is being made, in the backup directory.
fn archive_in_progress() -> String {
    format!("{STAGED_PREFIX}{NUMBER}-archive")
}

fn free_archive_name(store: &FileStore, backup_dir: &Dir, lineage: &str) -> Result<String> {
    let name = format!("{ARCHIVE_PREFIX}{lineage}-{}", compact(store.disk.now()));
    Ok(first_free(&name, "", |name| store.disk.check_free(backup_dir, name))?)
}

/// Returns whether a file of the backup directory belongs in an archive.
fn is_archived(name: &str) -> bool {
    BackupName::parse(name).is_some() || name.starts_with(EVIDENCE_PREFIX)
}

fn record_archive(store: &FileStore, intent: &Intent, options: &WriteOptions) {
    let entry =
        logged::entry(Level::Info, options.action, "archived").with("archive", &intent.archive);
    store.audit.record(&entry.with("path", store.shown()));
}

fn link_or_copy(disk: &Disk, from: &Dir, to: &Dir, name: &str) -> Result<()> {
    match disk.link(from.entry(name), to.entry(name)) {
        Err(error) if error.is_full() => Err(error.into()),
        // Some file systems have no hard links.
        Err(_) => {
            if let Some(found) = disk.read(from, name, READ_LIMIT)? {
                disk.stage(to, name, &found.bytes, Durability::Fsync)?.keep();
            }
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

/// Puts the intent in place: from here on the next writer continues.
fn decide(staging: &mut StagingDir<'_>, lock: &StateLock, intent: &Intent) -> Result<()> {
    const DRAFT: &str = "fresh.draft";
    lock.store.disk.stage(&staging.dir, DRAFT, &intent.write()?, Durability::Fsync)?.keep();
    if !lock.flock.is_current(&lock.store.disk, &lock.root)? {
        return Err(lock_lost());
    }
    lock.store.disk.rename(staging.dir.entry(DRAFT), staging.dir.entry(INTENT))?;
    lock.store.disk.sync_dir(&staging.dir)?;
    staging.keep();
    Ok(())
}

/// Removes the intent and then the files made for it. Nothing has been replaced yet.
pub(super) fn drop_start(store: &FileStore, staging: StagingDir<'_>) -> Result<()> {
    store.disk.unlink(&staging.dir, INTENT)?;
    store.disk.sync_dir(&staging.dir)?;
    staging.clear()
}

/// Continues an interrupted start of a lineage. Where it cannot be committed, it is dropped,
/// and the old state is unchanged. Returns whether there was one.
pub(super) fn settle(lock: &Rc<StateLock<'_>>) -> Result<bool> {
    let Some(intent) = read_fresh(lock.store, &lock.root)? else { return Ok(false) };
    if let Some(refusal) = foreign_start(lock.store, &lock.root)? {
        return Err(refusal);
    }
    let mut staging = Staging::of(lock.store).open(lock)?;
    staging.keep();
    let live = StateFile::read(&lock.store.disk, &lock.root, &lock.store.settings.file_name)?;
    let is_committed = live.is_some_and(|found| match &found.reading {
        Reading::Sealed(live) => live.seal.lineage == intent.state.lineage,
        _ => false,
    });
    let options = WriteOptions::of("init");
    if is_committed && !has_archive(lock, &intent)? {
        // The mirror or the backups may be the last copies of the old lineage: beside them the
        // new document is a foreign edit, to be adopted or discarded.
        lock.store.warn("the archive of a killed `init --fresh` is gone; it is given up");
        return drop_start(lock.store, staging).map(|()| true);
    }
    if is_committed {
        lock.begin()?.record_unrecorded(&options, &intent.archive);
    } else {
        let sealed = match has_archive(lock, &intent)? {
            true => lock.store.intents().staged_state(&staging.dir, NUMBER, &intent.state)?,
            false => None,
        };
        let commit = |sealed: Sealed| {
            let tx = lock.begin()?;
            // The archive holds the live file as it was, but not what damaged or edited it
            // since.
            let replaced = match tx.seen.health {
                Health::Healthy(_) | Health::Legacy(_) | Health::Missing => Replaced::Nothing,
                _ => Replaced::Evidence,
            };
            let published = commit_fresh(&tx, &staging, &sealed, replaced, &options)?;
            if published != Published::Overtaken {
                tx.record_commit(&options, &sealed, Provenance::default());
            }
            Ok::<_, Error>(published)
        };
        let why = match sealed.map(commit) {
            Some(Ok(Published::Done { .. })) => None,
            Some(Err(error)) if error.kind == Kind::DurabilityUnknown => return Err(error),
            Some(Err(error)) => Some(format!(": {error}")),
            Some(Ok(Published::Overtaken)) | None => Some(String::new()),
        };
        if let Some(why) = why {
            lock.store.warn(format!(
                "a killed `init --fresh` could not be finished, and is given up{why}"
            ));
            return drop_start(lock.store, staging).map(|()| true);
        }
    }
    lock.store.warn("a killed `init --fresh` was finished");
    record_archive(lock.store, &intent, &options);
    finish(lock, staging, &intent);
    Ok(true)
}

/// Returns whether the archive is there, finished or in progress.
fn has_archive(lock: &StateLock, intent: &Intent) -> Result<bool> {
    let backup_dir = Root::of(lock.store).side_directory(&lock.root, BACKUPS)?;
    let is_there = |name: &str| Ok::<_, Error>(lock.store.disk.stat(&backup_dir, name)?.is_some());
    Ok(is_there(&archive_in_progress())? || is_there(&intent.archive)?)
}

/// Before a foreign or damaged record is dropped: where the new document is in place, or may
/// be, the archive in progress has the only copies of the old lineage, and gets a name.
pub(super) fn keep_archive(lock: &StateLock) -> Result<()> {
    let disk = &lock.store.disk;
    let intent = read_fresh(lock.store, &lock.root)?;
    let live = StateFile::read(disk, &lock.root, &lock.store.settings.file_name)?;
    let is_old = match (&intent, live.as_ref().map(|found| &found.reading)) {
        (Some(intent), Some(Reading::Sealed(live))) => live.seal.lineage != intent.state.lineage,
        _ => false,
    };
    let backup_dir = Root::of(lock.store).side_directory(&lock.root, BACKUPS)?;
    let place = archive_in_progress();
    if is_old || disk.stat(&backup_dir, &place)?.is_none() {
        return Ok(());
    }
    let name = free_archive_name(lock.store, &backup_dir, "kept")?;
    disk.rename(backup_dir.entry(&place), backup_dir.entry(&name))?;
    lock.store.warn(format!("what an `init --fresh` archived is kept in {BACKUPS}/{name}"));
    Ok(disk.sync_dir(&backup_dir)?)
}

/// Finishes after the commit: the archive gets its name, the mirror the new contents, and the
/// archived files are removed.
fn finish(lock: &StateLock, staging: StagingDir<'_>, intent: &Intent) {
    let finish = || -> Result<()> {
        let backup_dir = Root::of(lock.store).side_directory(&lock.root, BACKUPS)?;
        let place = archive_in_progress();
        if lock.store.disk.stat(&backup_dir, &place)?.is_some() {
            lock.store.disk.rename(backup_dir.entry(&place), backup_dir.entry(&intent.archive))?;
            lock.store.disk.sync_dir(&backup_dir)?;
        }
        // Without the archive the mirror may be the last copy of the old lineage.
        let archive = lock.store.disk.open_dir(&backup_dir, &intent.archive)?;
        mirror_live(lock, &backup_dir)?;
        for name in lock
            .store
            .disk
            .list(&archive)?
            .iter()
            .filter(|name| name.to_str().is_some_and(is_archived))
        {
            lock.store.disk.unlink(&backup_dir, name)?;
        }
        lock.store.disk.sync_dir(&backup_dir)?;
        remove_archived_signals(lock, &archive)?;
        lock.store.disk.unlink(&staging.dir, INTENT)?;
        lock.store.disk.sync_dir(&staging.dir)?;
        staging.clear()
    };
    if let Err(error) = finish() {
        lock.store.warn(format!(
            "the new lineage has begun; what is archived could not be removed yet: {error}"
        ));
    }
}

/// Archives everything and commits the first document of a new lineage; `None` if another
/// writer was faster.
pub(in crate::store::files) fn start_new_lineage(
    tx: &Transaction<'_>,
    sealed: &Sealed,
    options: &WriteOptions,
) -> Result<Option<Revision>> {
    let Some(backup_dir) = tx.seen.backup_dir.dir() else { return Ok(None) };
    let mut staging = Staging::of(tx.store).open(&tx.lock)?;
    // A file made in the backup directory must never exist without the staging directory.
    tx.store.disk.sync_dir(&staging.checkpoints)?;
    make_archive(tx, backup_dir)?;
    let lineage = lineage_of(tx.seen.backup_dir.copies()?)
        .map_or_else(|| "legacy".to_owned(), |l| l.to_string());
    let Seal { revision, lineage: new, digest } = sealed.document.seal.clone();
    let archive = free_archive_name(tx.store, backup_dir, &lineage)?;
    let root = DirId::of(&tx.store.disk, &tx.lock.root)?;
    let state = StagedState { revision, lineage: new, digest };
    let intent = Intent { root, archive, state };
    tx.store
        .disk
        .stage(&staging.dir, &staged_state(NUMBER), &sealed.text.whole(), Durability::Fsync)?
        .keep();
    decide(&mut staging, &tx.lock, &intent)?;
    match commit_fresh(tx, &staging, sealed, Replaced::Nothing, options) {
        Ok(Published::Done { .. }) => {}
        Ok(Published::Overtaken) => {
            drop_start(tx.store, staging)?;
            return Ok(None);
        }
        // The commit may have happened; the next writer finds out.
        Err(error) if error.kind == Kind::DurabilityUnknown => return Err(error),
        Err(error) => {
            drop_start(tx.store, staging)?;
            return Err(error);
        }
    }
    record_archive(tx.store, &intent, options);
    tx.record_commit(options, sealed, Provenance::default());
    finish(&tx.lock, staging, &intent);
    Ok(Some(revision))
}

fn commit_fresh(
    tx: &Transaction<'_>,
    staging: &StagingDir<'_>,
    sealed: &Sealed,
    replaced: Replaced,
    options: &WriteOptions,
) -> Result<Published> {
    let staged = staged_state(NUMBER);
    let plan = Plan {
        replaced,
        source: Some(staging.dir.entry(&staged)),
        room: OnDiskFull::Fail,
        ..Plan::of(sealed, options)
    };
    tx.publish(&plan)
}

/// Links or copies everything into the archive, and syncs it.
fn make_archive(tx: &Transaction<'_>, backup_dir: &Dir) -> Result<()> {
    let place = archive_in_progress();
    tree::remove(&tx.store.disk, backup_dir, &place)?;
    tx.store.disk.make_dir(backup_dir, &place)?;
    let archive = tx.store.disk.open_dir(backup_dir, &place)?;
    if let Some(found) = &tx.seen.live {
        let live = match &tx.seen.health {
            Health::Healthy(document) => Some(document.seal.revision),
            _ => None,
        };
        let name = BackupName::new(tx.store.disk.now(), live, LIVE);
        if found.is_whole() {
            tx.store.disk.stage(&archive, name.as_str(), &found.bytes, Durability::Fsync)?.keep();
        } else {
            tx.store.disk.link(
                tx.lock.root.entry(&tx.store.settings.file_name),
                archive.entry(name.as_str()),
            )?;
        }
    }
    let backups = tx.seen.backup_dir.backups.iter().map(BackupName::as_str);
    let evidence = tx.seen.backup_dir.evidence.iter().map(String::as_str);
    let mirror = tx.seen.backup_dir.has_mirror.then_some(MIRROR);
    for name in backups.chain(evidence).chain(mirror) {
        link_or_copy(&tx.store.disk, backup_dir, &archive, name)?;
    }
    archive_signals(&tx.lock, &archive)?;
    tx.store.disk.sync_dir(&archive)?;
    Ok(tx.store.disk.sync_dir(backup_dir)?)
}

fn archive_signals(lock: &StateLock<'_>, archive: &Dir) -> Result<()> {
    let listed = match tree::list(&lock.store.disk, &lock.root, SIGNALS) {
        Err(error) if matches!(error.kind, Kind::UnsafePath | Kind::InvalidName) => {
            lock.store.warn(format!("{SIGNALS} stays as it is: {error}"));
            return Ok(());
        }
        listed => listed?,
    };
    let Some(listed) = listed else { return Ok(()) };
    let attributes = Attributes::Listed(&listed);
    tree::copy(&lock.store.disk, lock.root.entry(SIGNALS), archive.entry(SIGNALS), attributes)
        .map(drop)
}

/// Copies the live file to the mirror, durably: with no earlier revision to fall back to, the
/// mirror must survive a power cut from the start.
pub(in crate::store::files) fn mirror_live(lock: &StateLock<'_>, backup_dir: &Dir) -> Result<()> {
    let Some(found) =
        StateFile::read(&lock.store.disk, &lock.root, &lock.store.settings.file_name)?
    else {
        return Ok(());
    };
    let name = temporary(lock.flock.inode(), "mirror");
    let same = lock
        .store
        .disk
        .stat_if_same(backup_dir, MIRROR, &found.bytes)?
        .filter(|mirror| !mirror.same_file(&found.stat));
    if same.is_none() {
        lock.store.disk.sync_dir(&lock.root)?;
        let staged = lock.store.disk.stage(backup_dir, &name, &found.bytes, Durability::Fsync)?;
        lock.store.disk.rename(backup_dir.entry(&name), backup_dir.entry(MIRROR))?;
        staged.keep();
    } else if let Some(mirror) = lock.store.disk.open(backup_dir, MIRROR, Access::Read)? {
        lock.store.disk.sync(&mirror, &backup_dir.path_of(MIRROR))?;
    }
    Ok(lock.store.disk.sync_dir(backup_dir)?)
}

/// Removes the signal files that are in the archive unchanged. The directory stays: it may be a
/// mount point.
fn remove_archived_signals(lock: &StateLock<'_>, archive: &Dir) -> Result<()> {
    let Some(archived) = tree::list(&lock.store.disk, archive, SIGNALS)? else { return Ok(()) };
    let Some(signals) = side::open_to_read(&lock.store.disk, &lock.root, SIGNALS)? else {
        return Ok(());
    };
    let Some(found) = tree::list(&lock.store.disk, &lock.root, SIGNALS)? else { return Ok(()) };
    for entry in archived.children("") {
        let print =
            |listing: &tree::Listing| listing.below(&entry.path).map(|below| below.fingerprint());
        if print(&found) == print(&archived) {
            tree::remove(&lock.store.disk, &signals, &entry.path)?;
        }
    }
    Ok(lock.store.disk.sync_dir(&signals)?)
}
