//! `state init`, `state init --fresh`, and `state adopt`.

use std::path::PathBuf;

use rustix::io::Errno;
use serde_json::Value;

use super::backup_dir::{BackupDir, newest_valid};
use super::change::Outcome;
use super::commit::{OnDiskFull, Plan, Published};
use super::diagnosis::{Depth, ForeignEdit, Health};
use super::heal::written_by_a_newer_program;
use super::layout::{ARCHIVE_PREFIX, GITIGNORE, MIRROR, SIDE_DIRECTORIES};
use super::next_revision::new_lineage;
use super::observe::{Observation, StateLock};
use super::options::{Author, LockPurpose, Mode, WriteOptions, check_deadline};
use super::preserve::Replaced;
use super::{AutoRecover, ForeignEdits, Signals, Store};
use crate::document::first;
use crate::document::seal::Revision;
use crate::error::{Error, Kind, Result};
use crate::fs::free_name::first_free;
use crate::fs::stage::is_temporary;
use crate::fs::{Dir, FileKind, FsResult};
use crate::side;
use crate::time::compact;

/// The reason in the name of a state's copy in an archive: it was the live file.
pub(super) const LIVE: &str = "live";

/// The treatment of an existing history by `state init`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InitMode {
    /// It keeps the history, and heals and migrates where needed.
    Continue,
    /// It archives the history and starts a new lineage.
    Fresh,
}

/// The result of `state init`.
#[derive(Clone, Debug)]
pub struct Initialized {
    /// The current revision.
    pub revision: Revision,
    /// The change to the document.
    pub done: Done,
}

/// The change that `state init` made to the document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// It created the first document of its lineage.
    Created,
    /// It restored a damaged document from a copy.
    Healed,
    /// It migrated the document to the current form and sealed it.
    Migrated,
    /// It changed nothing.
    AlreadyThere,
}

impl Done {
    /// The same in words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Healed => "healed",
            Self::Migrated => "migrated",
            Self::AlreadyThere => "already there",
        }
    }
}

impl Store {
    /// Prepares a root: directories, the first document where there is no history, healing,
    /// migration.
    pub fn init(&self, mode: InitMode, options: &WriteOptions) -> Result<Initialized> {
        let initialized = self.init_state(mode, options)?;
        // The state exists now: a failure from here on undoes nothing and does not fail the
        // command.
        for name in SIDE_DIRECTORIES {
            let made = self.open_root().and_then(|root| {
                let dir = self.side_directory(&root, name)?;
                Ok(self.keep_out_of_git(&dir)?)
            });
            if let Err(error) = made {
                self.warn(format!(
                    "{name} is not ready, or git may take it along: {}",
                    error.message
                ));
            }
        }
        Ok(initialized)
    }

    /// Makes git ignore a side directory: its contents apply to this root on this machine only. An
    /// empty `.gitignore` was left by a writer that was killed.
    fn keep_out_of_git(&self, dir: &Dir) -> FsResult<()> {
        match self.disk.stat(dir, GITIGNORE)? {
            Some(stat) if stat.kind == FileKind::Regular && stat.size == 0 => {
                self.disk.unlink(dir, GITIGNORE)?;
            }
            Some(_) => return Ok(()),
            None => {}
        }
        let file = self.disk.create(dir, GITIGNORE)?;
        self.disk.write(&file, &dir.path_of(GITIGNORE), b"*\n")
    }

    fn init_state(&self, mode: InitMode, options: &WriteOptions) -> Result<Initialized> {
        self.refuse_before_making(mode)?;
        let deadline = self.deadline();
        let was_damaged =
            self.live().is_ok_and(|live| live.is_some_and(|found| found.is_damaged()));
        let mut done = if was_damaged { Done::Healed } else { Done::AlreadyThere };
        loop {
            let (lock, mut seen) = match mode {
                InitMode::Continue => self.lock_undamaged(LockPurpose::Initialize, deadline)?,
                InitMode::Fresh => {
                    let lock = self.lock_state(
                        self.precheck(LockPurpose::Initialize)?,
                        LockPurpose::Initialize,
                        deadline,
                    )?;
                    let seen = self.observe(&lock)?;
                    (lock, seen)
                }
            };
            self.remove_leftovers(&lock)?;
            if self.is_to_be_initialized(mode, &seen.health) {
                self.make_journal(&mut seen.backup_dir);
            }
            let first = match &seen.health {
                _ if mode == InitMode::Fresh => self.init_fresh(&lock, seen, options)?,
                Health::NotInitialized => {
                    let highest = self
                        .highest_remembered(&seen)?
                        .max(self.archived_revision(&seen.backup_dir)?);
                    self.write_first(&lock, &seen, options, highest)?
                }
                Health::Healthy(document) if !seen.is_rewritten() => {
                    self.keep_mirror(&lock, &seen);
                    return Ok(Initialized { revision: document.seal.revision, done });
                }
                Health::Healthy(_) | Health::Legacy(_) | Health::Foreign(_) => {
                    drop(lock);
                    done = Done::Migrated;
                    self.seal_as_it_is(options)?; // refuses a foreign edit unless those are accepted
                    None
                }
                health => return Err(self.refusal(health, &seen.backup_dir)),
            };
            if let Some(revision) = first {
                return Ok(Initialized { revision, done: Done::Created });
            }
            check_deadline(deadline)?;
        }
    }

    /// Returns whether `init` accepts what it found.
    fn is_to_be_initialized(&self, mode: InitMode, health: &Health) -> bool {
        match health {
            Health::TooNew(_) => false,
            Health::NotInitialized | Health::Healthy(_) | Health::Legacy(_) => true,
            Health::Foreign(_) if self.settings.foreign_edits == ForeignEdits::Accept => true,
            _ => mode == InitMode::Fresh,
        }
    }

    /// The document that `state read` would serve, in words; `None` if there is none.
    pub fn served(&self) -> Option<String> {
        let (health, backup_dir) = self.look().ok()?;
        let document = match &health {
            Health::Healthy(document) => Value::clone(document.value.outline()),
            Health::Legacy(migrated) => migrated.value.clone(),
            Health::Foreign(edit) if self.settings.foreign_edits == ForeignEdits::Accept => {
                edit.acceptable().ok()?.value
            }
            Health::Damaged(_) if self.settings.auto_recover == AutoRecover::Yes => {
                self.newest_copy(&backup_dir, &health).ok()?.0.into_value()
            }
            _ => return None,
        };
        let revision = document
            .pointer("/metadata/revision")
            .map_or_else(|| "unsealed".to_owned(), |revision| format!("at revision {revision}"));
        let phase = document.get("phase").and_then(Value::as_str).unwrap_or_default();
        Some(format!("{revision}, phase {phase:?}"))
    }

    /// The newest archive of `init --fresh` that is not among `known`, and the replaced state in
    /// it.
    pub fn newest_archive_except(&self, known: &[String]) -> Option<(PathBuf, Option<PathBuf>)> {
        let backup_dir = self.backup_dir_to_read().ok()?;
        let name = backup_dir.archives.iter().rev().find(|name| !known.contains(name))?;
        let archive =
            BackupDir::list(&self.disk, self.disk.open_dir(backup_dir.dir()?, name).ok()?).ok()?;
        let dir = archive.dir()?;
        let live = archive.backups.iter().rev().find(|backup| backup.reason == LIVE);
        Some((dir.path().to_owned(), live.map(|backup| dir.path_of(backup.as_str()))))
    }

    /// The archives of `init --fresh`.
    pub fn archives(&self) -> Vec<String> {
        self.backup_dir_to_read().map_or_else(|_| Vec::new(), |backup_dir| backup_dir.archives)
    }

    /// Makes the checks that need no lock before the first file is created: a refused init leaves
    /// nothing.
    fn refuse_before_making(&self, mode: InitMode) -> Result<()> {
        let root = self.open_root()?;
        let backup_dir = self.backup_dir_of(&root)?;
        if backup_dir.dir().is_some() || self.is_restore_decided()? {
            return Ok(());
        }
        for name in SIDE_DIRECTORIES {
            side::open_to_read(&self.disk, &root, name)?;
        }
        let health = self.diagnose(&self.live()?, &backup_dir, Depth::WithMirror)?;
        if self.is_to_be_initialized(mode, &health) {
            Ok(())
        } else {
            Err(self.refusal(&health, &backup_dir))
        }
    }

    /// Commits the document without changes: seals a legacy one, persists a migration.
    pub fn seal_as_it_is(&self, options: &WriteOptions) -> Result<Outcome> {
        let options = WriteOptions { author: Author::Program, ..options.clone() };
        self.change(&options, &mut |base| Ok(base.draft().into()))
    }

    /// Does the housekeeping of a writer where a state exists or existed: finishes what was
    /// interrupted, heals damage, renews the mirror, removes what dead writers left.
    pub fn run_housekeeping(&self) -> Result<()> {
        let (lock, seen) = self.lock_undamaged(LockPurpose::Write, self.deadline())?;
        self.remove_leftovers(&lock)?;
        self.keep_mirror(&lock, &seen);
        Ok(())
    }

    /// Removes what dead writers left in any directory. No restore is in progress: taking the lock
    /// settled it.
    fn remove_leftovers(&self, lock: &StateLock) -> Result<()> {
        self.clear_staging(&lock.root)?;
        for name in self.disk.list(&lock.root)? {
            if name.to_str().is_some_and(is_temporary) {
                self.disk.unlink(&lock.root, name)?;
            }
        }
        Ok(())
    }

    /// Writes the first document; `None` if another writer was faster.
    fn write_first(
        &self,
        lock: &StateLock,
        seen: &Observation,
        options: &WriteOptions,
        highest: Option<Revision>,
    ) -> Result<Option<Revision>> {
        let revision = Revision::after(highest)
            .ok_or_else(|| Error::new(Kind::Internal, "the last possible revision is reached"))?;
        let sealed = self.seal_as(first(), revision, &new_lineage()?, None)?;
        let plan = Plan {
            sealed: &sealed,
            source: None,
            replaced: Replaced::Nothing,
            signals: &Signals::STAY,
            fences: &options.fences,
            room: OnDiskFull::PruneBackups,
        };
        if self.publish(lock, seen, &plan)? == Published::Overtaken {
            return Ok(None);
        }
        let mirrored =
            seen.backup_dir.dir().map_or(Ok(()), |backup_dir| self.mirror_live(lock, backup_dir));
        if let Err(error) = mirrored {
            self.warn(format!("the mirror may not survive a power cut: {error}"));
        }
        self.record_commit((lock, seen), options, &sealed, &[]);
        Ok(Some(revision))
    }

    /// Archives the whole history and starts a new lineage.
    fn init_fresh(
        &self,
        lock: &StateLock,
        seen: Observation,
        options: &WriteOptions,
    ) -> Result<Option<Revision>> {
        let found = seen.live.as_ref();
        if found.is_none() && !seen.backup_dir.has_history() && seen.backup_dir.evidence.is_empty()
        {
            let highest =
                self.highest_remembered(&seen)?.max(self.archived_revision(&seen.backup_dir)?);
            return self.write_first(lock, &seen, options, highest);
        }
        let copies = seen.backup_dir.copies()?;
        if let Health::TooNew(_) = seen.health {
            return Err(self.refusal(&seen.health, &seen.backup_dir));
        }
        newest_valid(copies).map_err(written_by_a_newer_program)?;
        let live = match &seen.health {
            Health::Healthy(document) => Some(document.seal.revision),
            _ => None,
        };
        let named = seen.backup_dir.backups.iter().filter_map(|backup| backup.revision).max();
        let highest = live
            .max(self.highest_remembered(&seen)?)
            .max(self.archived_revision(&seen.backup_dir)?);
        // A backup that is no longer readable may have held the revision in its name.
        let highest = highest.max(named);
        let revision = Revision::after(highest)
            .ok_or_else(|| Error::new(Kind::Internal, "the last possible revision is reached"))?;
        let sealed = self.seal_as(first(), revision, &new_lineage()?, None)?;
        self.start_new_lineage(lock, &seen, (&sealed, options))
    }

    pub(super) fn free_archive_name(&self, backup_dir: &Dir, lineage: &str) -> Result<String> {
        let name = format!("{ARCHIVE_PREFIX}{lineage}-{}", compact(self.disk.now()));
        Ok(first_free(&name, "", |name| self.disk.check_free(backup_dir, name))?)
    }

    /// The highest revision in the names of archives: after an interrupted `init --fresh` nothing
    /// else may be left.
    fn archived_revision(&self, backup_dir: &BackupDir) -> Result<Option<Revision>> {
        let Some(dir) = backup_dir.dir() else {
            return Ok(None);
        };
        let mut highest = None;
        for name in &backup_dir.archives {
            let archive = match self.disk.open_dir(dir, name) {
                // This program did not make it.
                Err(error) if error.is(Errno::NOTDIR) || error.is(Errno::LOOP) => continue,
                archive => archive?,
            };
            let archive = BackupDir::list(&self.disk, archive)?;
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

    /// Accepts a foreign edit: validates, seals and commits it. The last acknowledged revision
    /// becomes a pinned backup.
    pub fn adopt(&self, options: &WriteOptions) -> Result<Outcome> {
        if options.mode == Mode::DryRun {
            let (health, backup_dir) = self.look()?;
            return match &health {
                Health::Foreign(edit) => {
                    let adopted = edit
                        .acceptable()
                        .map_err(|health| self.refusal(&health, &backup_dir))?
                        .value;
                    Ok(Outcome::Planned(ForeignEdit { value: adopted, ..edit.clone() }.changes()))
                }
                Health::Healthy(_) | Health::Legacy(_) => Ok(Outcome::Planned(Vec::new())),
                health => Err(self.refusal(health, &backup_dir)),
            };
        }
        let deadline = self.deadline();
        loop {
            let lock =
                self.lock_state(self.precheck(LockPurpose::Write)?, LockPurpose::Write, deadline)?;
            let seen = self.observe(&lock)?;
            let edit = match &seen.health {
                Health::Foreign(edit) => edit,
                Health::Healthy(document) => {
                    self.check_conditions(options, document.seal.revision.get())?;
                    return Ok(Outcome::Unchanged { revision: document.seal.revision });
                }
                Health::Legacy(_) => {
                    drop(lock);
                    return self.seal_as_it_is(options);
                }
                health => return Err(self.refusal(health, &seen.backup_dir)),
            };
            self.check_conditions(options, edit.revision())?;
            if let Some(outcome) = self.adopt_edit((&lock, &seen), edit, options)? {
                return Ok(outcome);
            }
            check_deadline(deadline)?;
        }
    }

    /// Commits a foreign edit unchanged; `None` if the live file was changed in the meantime.
    pub(super) fn adopt_edit(
        &self,
        (lock, seen): (&StateLock, &Observation),
        edit: &ForeignEdit,
        options: &WriteOptions,
    ) -> Result<Option<Outcome>> {
        let migrated =
            edit.acceptable().map_err(|health| self.refusal(&health, &seen.backup_dir))?;
        let lineage = self.lineage_to_continue(seen)?;
        let created = migrated.value.pointer("/metadata/created").cloned();
        let sealed = self.seal(migrated.value, seen, &lineage, created.as_ref())?;
        let plan = Plan {
            sealed: &sealed,
            source: None,
            replaced: Replaced::by_edit(self.disk.now(), edit),
            signals: &Signals::Follow, // it may be an older revision
            fences: &options.fences,
            room: OnDiskFull::PruneBackups,
        };
        let lost = match &edit.reference {
            Some(reference) => self.lost_after(
                &seen.backup_dir,
                &reference.seal.lineage,
                Some(reference.seal.revision),
            ),
            None => self.lost_after(&seen.backup_dir, &lineage, None),
        };
        if self.publish(lock, seen, &plan)? == Published::Overtaken {
            return Ok(None);
        }
        if let Some(lost) = lost {
            self.warn(lost);
        }
        self.record_commit((lock, seen), options, &sealed, &[]);
        let revision = sealed.document.seal.revision;
        Ok(Some(Outcome::Committed { revision, migrated_from: migrated.from }))
    }
}
