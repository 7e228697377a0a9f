//! `state init` and `state init --fresh`.

use std::path::PathBuf;

use rustix::io::Errno;
use serde_json::Value;

use super::FileStore;
use super::backup_dir::BackupDir;
use super::begin::Transactions;
use super::candidate::newest_copy;
use super::change::Changes;
use super::commit::{Plan, Published};
use super::new_lineage::{LIVE, mirror_live, start_new_lineage};
use super::next_revision::Sealer;
use super::observe::{Depth, Observation};
use super::record::Provenance;
use super::root::Root;
use super::staging::Staging;
use super::state_lock::{StateLock, StateLocks};
use super::transaction::Transaction;
use crate::document::first;
use crate::document::seal::{Revision, Sealed};
use crate::error::Result;
use crate::fs::stage::is_temporary;
use crate::fs::{Dir, FileKind, FsResult};
use crate::side;
use crate::store::candidate::written_by_a_newer_program;
use crate::store::change::Outcome;
use crate::store::copies::{Copies, newest_valid};
use crate::store::diagnosis::Health;
use crate::store::fresh::{Done, InitMode, Initialized, in_words};
use crate::store::layout::{GITIGNORE, MIRROR, SIDE_DIRECTORIES};
use crate::store::next_revision::new_lineage;
use crate::store::options::{Author, LockPurpose, WriteOptions};
use crate::store::{AutoRecover, ForeignEdits};

impl Lineages<'_> {
    /// Prepares a root: directories, the first document where there is no history, healing,
    /// migration.
    pub fn init(&self, mode: InitMode, options: &WriteOptions) -> Result<Initialized> {
        let initialized = self.init_state(mode, options)?;
        // The state exists now: a failure from here on undoes nothing and does not fail the
        // command.
        for name in SIDE_DIRECTORIES {
            let made = Root::of(self.store).open().and_then(|root| {
                let dir = Root::of(self.store).side_directory(&root, name)?;
                Ok(self.store.lineages().keep_out_of_git(&dir)?)
            });
            if let Err(error) = made {
                self.store.warn(format!(
                    "{name} is not ready, or git may take it along: {}",
                    error.message
                ));
            }
        }
        Ok(initialized)
    }

    fn init_state(&self, mode: InitMode, options: &WriteOptions) -> Result<Initialized> {
        self.store.lineages().refuse_before_making(mode)?;
        let was_damaged = Root::of(self.store)
            .live()
            .is_ok_and(|live| live.is_some_and(|found| found.is_damaged()));
        let found = if was_damaged { Done::Healed } else { Done::AlreadyThere };
        let mut was_sealed = false;
        Transactions::of(self.store).retry(|deadline| {
            let tx = match mode {
                InitMode::Continue => Transactions::of(self.store)
                    .begin_undamaged(LockPurpose::Initialize, deadline)?,
                InitMode::Fresh => {
                    Transactions::of(self.store).begin(LockPurpose::Initialize, deadline)?
                }
            };
            match attempt_init(tx, mode, options)? {
                Init::Created(revision) => {
                    Ok(Some(Initialized { revision, done: Done::Created, replaced: None }))
                }
                Init::Ready(revision) => {
                    let done = if was_sealed { Done::Migrated } else { found };
                    Ok(Some(Initialized { revision, done, replaced: None }))
                }
                Init::Overtaken => Ok(None),
                Init::Unsealed => {
                    was_sealed = true;
                    // refuses a foreign edit unless those are accepted
                    self.store.lineages().seal_as_it_is(options)?;
                    Ok(None)
                }
            }
        })
    }

    /// Does the housekeeping of a writer where a state exists or existed: finishes what was
    /// interrupted, heals damage, renews the mirror, removes what dead writers left.
    pub fn run_housekeeping(&self) -> Result<()> {
        let tx = Transactions::of(self.store)
            .begin_undamaged(LockPurpose::Write, StateLocks::of(self.store).deadline())?;
        remove_leftovers(&tx.lock)?;
        tx.keep_mirror();
        Ok(())
    }

    /// Commits the document without changes: seals a legacy one, persists a migration.
    pub fn seal_as_it_is(&self, options: &WriteOptions) -> Result<Outcome> {
        let options = WriteOptions { author: Author::Program, ..options.clone() };
        Changes::of(self.store).change(&options, &mut |base| Ok(base.draft().into()))
    }

    /// Makes git ignore a side directory: its contents apply to this root on this machine only. An
    /// empty `.gitignore` was left by a writer that was killed.
    fn keep_out_of_git(&self, dir: &Dir) -> FsResult<()> {
        match self.store.disk.stat(dir, GITIGNORE)? {
            Some(stat) if stat.kind == FileKind::Regular && stat.size == 0 => {
                self.store.disk.unlink(dir, GITIGNORE)?;
            }
            Some(_) => return Ok(()),
            None => {}
        }
        let file = self.store.disk.create(dir, GITIGNORE)?;
        self.store.disk.write(&file, &dir.path_of(GITIGNORE), b"*\n")
    }

    /// Returns whether `init` accepts what it found.
    fn is_to_be_initialized(&self, mode: InitMode, health: &Health) -> bool {
        match health {
            Health::TooNew(_) => false,
            Health::NotInitialized | Health::Healthy(_) | Health::Legacy(_) => true,
            Health::Foreign(_) if self.store.settings.foreign_edits == ForeignEdits::Accept => true,
            _ => mode == InitMode::Fresh,
        }
    }

    /// The document that `state read` would serve, in words; `None` if there is none.
    pub fn served(&self) -> Option<String> {
        let seen = Observation::examine(self.store).ok()?;
        let document = match &seen.health {
            Health::Healthy(document) => Value::clone(document.value.skeleton()),
            Health::Legacy(migrated) => migrated.value.clone(),
            Health::Foreign(edit) if self.store.settings.foreign_edits == ForeignEdits::Accept => {
                edit.acceptable().ok()?.value
            }
            Health::Damaged(_) if self.store.settings.auto_recover == AutoRecover::Yes => {
                newest_copy(&seen).ok()?.document.into_value()
            }
            _ => return None,
        };
        Some(in_words(&document))
    }

    /// The newest archive of `init --fresh` that is not among `known`, and the replaced state in
    /// it.
    pub fn newest_archive_except(&self, known: &[String]) -> Option<(PathBuf, Option<PathBuf>)> {
        let backup_dir = Root::of(self.store).backup_dir_to_read().ok()?;
        let name = backup_dir.archives.iter().rev().find(|name| !known.contains(name))?;
        let archive = BackupDir::list(
            &self.store.disk,
            self.store.disk.open_dir(backup_dir.dir()?, name).ok()?,
        )
        .ok()?;
        let dir = archive.dir()?;
        let live = archive.backups.iter().rev().find(|backup| backup.reason == LIVE);
        Some((dir.path().to_owned(), live.map(|backup| dir.path_of(backup.as_str()))))
    }

    /// The archives of `init --fresh`.
    pub fn archives(&self) -> Vec<String> {
        Root::of(self.store)
            .backup_dir_to_read()
            .map_or_else(|_| Vec::new(), |backup_dir| backup_dir.archives)
    }

    /// Makes the checks that need no lock before the first file is created: a refused init leaves
    /// nothing.
    fn refuse_before_making(&self, mode: InitMode) -> Result<()> {
        let root = Root::of(self.store).open()?;
        let backup_dir = Root::of(self.store).backup_dir_of(&root)?;
        if backup_dir.dir().is_some() || self.store.intents().is_decided()? {
            return Ok(());
        }
        for name in SIDE_DIRECTORIES {
            side::open_to_read(&self.store.disk, &root, name)?;
        }
        let seen = Observation::diagnose(
            self.store,
            Root::of(self.store).live()?,
            backup_dir,
            Depth::WithMirror,
        )?;
        if self.is_to_be_initialized(mode, &seen.health) { Ok(()) } else { Err(seen.refusal()) }
    }
}

/// Lineages: the first one, new ones and archived ones.
#[derive(Clone, Copy, Debug)]
pub struct Lineages<'s> {
    pub(in crate::store) store: &'s FileStore,
}

/// The result of one attempt of `state init`.
enum Init {
    /// The first document of a lineage was committed.
    Created(Revision),
    /// The state is sealed and healthy.
    Ready(Revision),
    /// The document has to be sealed first.
    Unsealed,
    /// Another writer was faster.
    Overtaken,
}

/// One attempt of `state init`.
fn attempt_init(mut tx: Transaction<'_>, mode: InitMode, options: &WriteOptions) -> Result<Init> {
    remove_leftovers(&tx.lock)?;
    if tx.store.lineages().is_to_be_initialized(mode, &tx.seen.health) {
        tx.make_journal();
    }
    let created = match &tx.seen.health {
        _ if mode == InitMode::Fresh => init_fresh(&tx, options)?,
        Health::NotInitialized => write_first(&tx, options)?,
        Health::Healthy(document) if !tx.seen.is_rewritten() => {
            tx.keep_mirror();
            return Ok(Init::Ready(document.seal.revision));
        }
        Health::Healthy(_) | Health::Legacy(_) | Health::Foreign(_) => {
            return Ok(Init::Unsealed);
        }
        _ => return Err(tx.seen.refusal()),
    };
    Ok(created.map_or(Init::Overtaken, Init::Created))
}

/// Writes the first document; `None` if another writer was faster.
fn write_first(tx: &Transaction<'_>, options: &WriteOptions) -> Result<Option<Revision>> {
    let archived = archived_revision(&tx.seen)?;
    let highest = tx.seen.highest_remembered()?.max(archived);
    let sealed = seal_first(&tx.seen, highest)?;
    let plan = Plan::of(&sealed, options);
    if tx.publish(&plan)? == Published::Overtaken {
        return Ok(None);
    }
    let mirrored = match tx.seen.backup_dir.dir() {
        Some(dir) => mirror_live(&tx.lock, dir),
        None => Ok(()),
    };
    if let Err(error) = mirrored {
        tx.store.warn(format!("the mirror may not survive a power cut: {error}"));
    }
    tx.record_commit(options, &sealed, Provenance::default());
    Ok(Some(sealed.document.seal.revision))
}

/// Archives the whole history and starts a new lineage; `None` if another writer was faster.
fn init_fresh(tx: &Transaction<'_>, options: &WriteOptions) -> Result<Option<Revision>> {
    let (seen, backup_dir) = (&tx.seen, &tx.seen.backup_dir);
    if seen.live.is_none() && !backup_dir.has_history() && backup_dir.evidence.is_empty() {
        return write_first(tx, options);
    }
    let copies = backup_dir.copies()?;
    if let Health::TooNew(_) = seen.health {
        return Err(seen.refusal());
    }
    newest_valid(copies).map_err(written_by_a_newer_program)?;
    let live = match &seen.health {
        Health::Healthy(document) => Some(document.seal.revision),
        _ => None,
    };
    // A backup that is no longer readable may have held the revision in its name.
    let named = backup_dir.backups.iter().filter_map(|backup| backup.revision).max();
    let archived = archived_revision(seen)?;
    let highest = live.max(seen.highest_remembered()?).max(archived).max(named);
    start_new_lineage(tx, &seal_first(seen, highest)?, options)
}

/// Seals the first document of a new lineage.
fn seal_first(seen: &Observation<'_>, highest: Option<Revision>) -> Result<Sealed> {
    let revision = Sealer::of(seen.store).revision_after(highest)?;
    Sealer::of(seen.store).seal_as(first(), revision, &new_lineage()?, None)
}

/// The highest revision in the names of archives: after an interrupted `init --fresh` nothing
/// else may be left.
fn archived_revision(seen: &Observation<'_>) -> Result<Option<Revision>> {
    let Some(dir) = seen.backup_dir.dir() else {
        return Ok(None);
    };
    let disk = &seen.store.disk;
    let mut highest = None;
    for name in &seen.backup_dir.archives {
        let archive = match disk.open_dir(dir, name) {
            // This program did not make it.
            Err(error) if error.is(Errno::NOTDIR) || error.is(Errno::LOOP) => continue,
            archive => archive?,
        };
        let archive = BackupDir::list(disk, archive)?;
        let named = archive.backups.iter().filter_map(|backup| backup.revision).max();
        let mirrored = if archive.has_mirror {
            archive.read(MIRROR)?.sealed().map(|document| document.seal.revision)
        } else {
            None
        };
        highest = highest.max(named).max(mirrored);
    }
    Ok(highest)
}

/// Removes what dead writers left in any directory. No restore is in progress: taking the lock
/// settled it.
fn remove_leftovers(lock: &StateLock<'_>) -> Result<()> {
    Staging::of(lock.store).clear(&lock.root)?;
    for name in lock.store.disk.list(&lock.root)? {
        if name.to_str().is_some_and(is_temporary) {
            lock.store.disk.unlink(&lock.root, name)?;
        }
    }
    Ok(())
}
