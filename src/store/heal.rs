//! Healing and recovery: restoring the newest valid copy when the live file is damaged, missing or
//! unwanted.
//!
//! The restored document is committed like any other, under a new revision. The file it replaces is
//! kept: a damaged file or a foreign edit as evidence, a valid state as a pinned backup.

use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;

use super::backup_dir::{BackupCopy, BackupDir, CopyState, newest_valid};
use super::commit::{OnDiskFull, Plan, Published};
use super::diagnosis::{Depth, Health, known};
use super::layout::{ARCHIVE_PREFIX, BACKUPS, BackupName, MIRROR, matches, pinned};
use super::observe::{Observation, StateLock};
use super::options::{LockPurpose, WriteOptions, check_deadline};
use super::preserve::Replaced;
use super::state_file::StateFile;
use super::{AutoRecover, QUIET, READER_PATIENCE, Served, Signals, Store};
use crate::audit::Level;
use crate::document::diff::{Change, diff};
use crate::document::schema;
use crate::document::seal::{Document, Lineage, Revision, to_bytes, without_seal};
use crate::error::{Error, ExitCode, Kind, Result};
use crate::fs::Stat;
use crate::fs::watch::Watch;
use crate::name::nearest;
use crate::side;

/// The action under which healing is logged.
const HEAL: &str = "heal";

/// A document that can be restored.
#[derive(Clone, Debug)]
pub(super) enum Restorable {
    /// With its seal and its value in the current form.
    Sealed(Document),
    /// From before seals, in the current form.
    Legacy(Value),
}

impl Restorable {
    fn of(copy: &BackupCopy) -> Option<Self> {
        match &copy.state {
            CopyState::Sealed(document) => Some(Self::Sealed(document.clone())),
            CopyState::Legacy(value) => Some(Self::Legacy(value.clone())),
            CopyState::TooNew(..) | CopyState::Invalid(_) => None,
        }
    }

    pub(super) fn into_value(self) -> Value {
        match self {
            Self::Sealed(document) => document.into_value(),
            Self::Legacy(value) => value,
        }
    }

    fn value(&self) -> &Value {
        match self {
            Self::Sealed(document) => &document.value,
            Self::Legacy(value) => value,
        }
    }

    fn revision(&self) -> Option<Revision> {
        match self {
            Self::Sealed(document) => Some(document.seal.revision),
            Self::Legacy(_) => None,
        }
    }
}

/// The copy that `state recover` is to restore.
#[derive(Clone, Debug)]
pub enum Wanted {
    /// The newest valid copy, if the live file is not valid itself.
    Newest,
    /// The newest valid backup with a matching name.
    Matching(String),
    /// The copy of a revision.
    Revision(u64),
}

/// The result of a recovery.
#[derive(Clone, Debug)]
pub enum Recovered {
    /// The state is valid, and no copy was named.
    NothingToDo {
        /// The backup made before a migration, if there is one.
        pre_migration: Option<String>,
    },
    /// A copy was restored.
    From {
        /// Its file name.
        file: String,
        /// The revision that holds it now.
        revision: Revision,
    },
}

impl Store {
    /// Returns until when to wait for a live file that may still be being written. `seen` remembers
    /// the file between calls: a file that did not change during a wait is quiet, whatever its
    /// timestamp says.
    pub(super) fn unquiet(
        &self,
        live: &Option<StateFile>,
        seen: &mut Option<Stat>,
        deadline: Instant,
    ) -> Option<Instant> {
        let found = live.as_ref()?;
        let (seconds, nanos) = found.stat.mtime;
        let since = Duration::new(u64::try_from(seconds).ok()?, u32::try_from(nanos).ok()?);
        let age =
            self.disk.now().duration_since(SystemTime::UNIX_EPOCH + since).unwrap_or_default();
        let waited = seen.is_some_and(|seen| seen.unchanged(&found.stat));
        if age >= QUIET || waited || Instant::now() >= deadline {
            return None;
        }
        *seen = Some(found.stat);
        Some(Instant::now() + (QUIET - age))
    }

    /// Waits until the live file changes, or `until`.
    pub(super) fn await_quiet(&self, until: Instant) {
        let mut watch = Watch::new(&self.settings.directory, &self.settings.file_name);
        watch.wait(Some(until));
    }

    /// Takes the lock and reads all files; heals damage first, where that is allowed and possible.
    pub(super) fn lock_undamaged(
        &self,
        purpose: LockPurpose,
        deadline: Instant,
    ) -> Result<(StateLock<'_>, Observation)> {
        let mut last = None;
        loop {
            let lock = self.lock_state(self.precheck(purpose)?, purpose, deadline)?;
            let seen = self.observe(&lock)?;
            if !matches!(seen.health, Health::Damaged(_)) {
                return Ok((lock, seen));
            }
            if self.settings.auto_recover == AutoRecover::No || !self.has_copies(&seen.backup_dir) {
                return Err(self.refusal(&seen.health, &seen.backup_dir));
            }
            match self.unquiet(&seen.live, &mut last, deadline) {
                Some(until) => {
                    drop(lock);
                    self.await_quiet(until);
                }
                // Check again: another writer may have committed.
                None => drop(self.heal(&lock, &seen, OnDiskFull::PruneBackups)?),
            }
        }
    }

    /// The copy that healing restores, or the reason why there is none.
    pub(super) fn newest_copy(
        &self,
        backup_dir: &BackupDir,
        health: &Health,
    ) -> Result<(Restorable, String)> {
        let best = newest_valid(backup_dir.copies()?).map_err(written_by_a_newer_program)?;
        if let Some((copy, document)) = best.and_then(|copy| Some((copy, Restorable::of(copy)?))) {
            return Ok((document, copy.name.clone()));
        }
        if let Some(found) = self.archived_copy(backup_dir)? {
            return Ok(found);
        }
        let what = health
            .refusal(&self.shown(), backup_dir, None)
            .map_or_else(String::new, |error| format!("{error}; "));
        let message = format!("{what}no valid copy is left in {}", super::layout::BACKUPS);
        let error =
            Error::new(Kind::NothingToRestore, message).try_restoring(self.restoring().as_deref());
        let error = match backup_dir.backups.is_empty() {
            true => error,
            false => error.hint_command("state backups", "see what is wrong with each copy"),
        };
        Err(error
            .hint_command("state init --fresh", "begin anew; everything is archived")
            .and_archives(backup_dir))
    }

    /// The best copy in the newest archive of the live lineage. In an earlier release a failed
    /// `init --fresh` left the live state without any other copy.
    fn archived_copy(&self, backup_dir: &BackupDir) -> Result<Option<(Restorable, String)>> {
        let (Some(dir), false) = (backup_dir.dir(), backup_dir.archives.is_empty()) else {
            return Ok(None);
        };
        let Some(lineage) = self.last_lineage(backup_dir) else { return Ok(None) };
        let prefix = format!("{ARCHIVE_PREFIX}{lineage}-");
        for name in backup_dir.archives.iter().rev().filter(|name| name.starts_with(&prefix)) {
            let archive = BackupDir::list(&self.disk, self.disk.open_dir(dir, name)?)?;
            let found = newest_valid(archive.copies()?).map_err(written_by_a_newer_program)?;
            if let Some((copy, document)) =
                found.and_then(|copy| Some((copy, Restorable::of(copy)?)))
            {
                return Ok(Some((document, format!("{name}/{}", copy.name))));
            }
        }
        Ok(None)
    }

    /// Returns whether there are copies at all, valid or not.
    pub(super) fn has_copies(&self, backup_dir: &BackupDir) -> bool {
        backup_dir.has_history() || self.archived_copy(backup_dir).is_ok_and(|copy| copy.is_some())
    }

    /// Replaces a damaged live file by the best copy. The caller holds the lock and diagnosed the
    /// file under it.
    pub(super) fn heal(
        &self,
        lock: &StateLock,
        seen: &Observation,
        room: OnDiskFull,
    ) -> Result<Recovered> {
        let (document, name) = self.newest_copy(&seen.backup_dir, &seen.health)?;
        self.bring_back(
            (lock, seen, room),
            &WriteOptions::of(HEAL),
            (&document, &name),
            Replaced::Evidence,
        )
    }

    fn bring_back(
        &self,
        (lock, seen, room): (&StateLock, &Observation, OnDiskFull),
        options: &WriteOptions,
        (document, name): (&Restorable, &str),
        replaced: Replaced,
    ) -> Result<Recovered> {
        let lineage = self.lineage_to_continue(seen)?;
        let created = document.value().pointer("/metadata/created");
        let sealed = self.seal(document.value().clone(), seen, &lineage, created)?;
        let plan = Plan {
            sealed: &sealed,
            source: None,
            replaced,
            signals: &Signals::Follow,
            fences: &options.fences,
            room,
        };
        let Published::Done { kept } = self.publish(lock, seen, &plan)? else {
            return Ok(Recovered::NothingToDo { pre_migration: None }); // the caller checks again
        };
        let revision = sealed.document.seal.revision;
        let lost = self.lost_after(&seen.backup_dir, &lineage, document.revision());
        if options.action == HEAL {
            let story = self.healing_story(seen, (document, name, revision), kept.as_deref());
            let story = lost.map_or(story.clone(), |lost| format!("{story}; {lost}"));
            self.errors.record(Level::Warn, HEAL, &story, ExitCode::StateCorruption);
            self.warn(story);
        } else if let Some(lost) =
            lost.filter(|_| !matches!(seen.health, Health::Healthy(_) | Health::Legacy(_)))
        {
            self.errors.record(Level::Warn, options.action, &lost, ExitCode::StateCorruption);
            self.warn(lost);
        }
        self.record_commit((lock, seen), options, &sealed, &[("from", name)]);
        Ok(Recovered::From { file: name.to_owned(), revision })
    }

    /// Describes a healing: the damage, the copy that was restored, and the name of the kept file.
    fn healing_story(
        &self,
        seen: &Observation,
        (document, name, revision): (&Restorable, &str, Revision),
        kept: Option<&str>,
    ) -> String {
        let why = match &seen.health {
            Health::Damaged(why) => why.clone(),
            health => health.kind().to_string(),
        };
        let what = document
            .revision()
            .map_or_else(|| "a copy from before seals".to_owned(), |r| format!("revision {r}"));
        format!(
            "{} was damaged ({why}); {what} was restored from {name} as revision {revision}; the damaged file is {}/{}",
            self.shown(),
            super::layout::BACKUPS,
            kept.unwrap_or_default(),
        )
    }

    /// Warns that a later revision was acknowledged and that no copy of it is left. Called before
    /// the restored revision itself is logged.
    pub(super) fn lost_after(
        &self,
        backup_dir: &BackupDir,
        lineage: &Lineage,
        kept: Option<Revision>,
    ) -> Option<String> {
        let last = self.last_commit(backup_dir, lineage)?;
        let lost = Some(last.revision) > kept;
        lost.then(|| {
            format!(
                "REVISION {} OF {} IS LOST: no valid copy of it is left",
                last.revision, last.time
            )
        })
    }

    /// Heals damage that a reader found, or serves the copy that healing would restore.
    pub(super) fn read_healing(&self, backup_dir: &BackupDir, health: &Health) -> Result<Served> {
        match self.try_to_heal() {
            Ok(served) => Ok(served),
            // Any other error stops the reader.
            Err(error) if error.is_write_blocked() => {
                let (document, name) = self.newest_copy(backup_dir, health)?;
                self.warn(format!(
                    "{} is {}, and healing it was not possible: {error}; {name} is served",
                    self.shown(),
                    health.kind()
                ));
                let value = document.value().clone();
                let bytes = to_bytes(&value).unwrap_or_default();
                Ok(Served { value: value.into(), bytes: bytes.into() })
            }
            Err(error) => Err(error),
        }
    }

    fn try_to_heal(&self) -> Result<Served> {
        let mut last = None;
        let start = Instant::now();
        let patience = READER_PATIENCE.min(self.settings.lock_timeout);
        // An editor that keeps writing is awaited twice; then the file is diagnosed as it is.
        let quiet_deadline = start + 2 * QUIET;
        loop {
            // The wait holds no lock, so that readers that meet the same editor do not queue.
            let live = self.live()?;
            let backup_dir = self.backup_dir_to_read()?;
            let health = self.diagnose(&live, &backup_dir, Depth::DigestOnly)?;
            if !matches!(health, Health::Damaged(_)) {
                return self.serve(health, live, &backup_dir);
            }
            if let Some(until) = self.unquiet(&live, &mut last, quiet_deadline) {
                self.await_quiet(until);
                continue;
            }
            let root = self.precheck(LockPurpose::Write)?;
            let lock = self.lock_state(root, LockPurpose::Write, Instant::now() + patience)?;
            let seen = self.observe(&lock)?;
            if matches!(seen.health, Health::Damaged(_))
                && self.unquiet(&seen.live, &mut last, quiet_deadline).is_none()
            {
                self.heal(&lock, &seen, OnDiskFull::Fail)?;
            }
        }
    }

    /// `state recover`.
    pub fn recover(&self, wanted: &Wanted, options: &WriteOptions) -> Result<Recovered> {
        let deadline = self.deadline();
        loop {
            let lock =
                self.lock_state(self.precheck(LockPurpose::Write)?, LockPurpose::Write, deadline)?;
            let seen = self.observe(&lock)?;
            let valid = matches!(seen.health, Health::Healthy(_) | Health::Legacy(_));
            if let Health::TooNew(_) = seen.health {
                return Err(self.refusal(&seen.health, &seen.backup_dir));
            }
            self.check_conditions(options, seen.revision())?;
            if !valid {
                newest_valid(seen.backup_dir.copies()?).map_err(written_by_a_newer_program)?;
            }
            let (document, name) = match wanted {
                Wanted::Newest if valid => {
                    self.keep_mirror(&lock, &seen);
                    let mut backups = seen.backup_dir.backups.iter().rev();
                    let pre_migration =
                        backups.find(|backup| backup.reason == pinned::PRE_MIGRATION);
                    return Ok(Recovered::NothingToDo {
                        pre_migration: pre_migration.map(|name| name.as_str().to_owned()),
                    });
                }
                Wanted::Newest => self.newest_copy(&seen.backup_dir, &seen.health)?,
                wanted => {
                    // A rollback makes the current state a backup; the mirror must not be older.
                    self.keep_mirror(&lock, &seen);
                    self.wanted_copy(&seen, wanted)?
                }
            };
            let replaced = match &seen.health {
                Health::Healthy(current) => Replaced::backup(
                    self.disk.now(),
                    Some(current.seal.revision),
                    pinned::PRE_RECOVER,
                ),
                Health::Legacy(_) => Replaced::backup(self.disk.now(), None, pinned::PRE_RECOVER),
                _ => Replaced::Evidence,
            };
            let room = OnDiskFull::PruneBackups;
            if let recovered @ Recovered::From { .. } =
                self.bring_back((&lock, &seen, room), options, (&document, &name), replaced)?
            {
                return Ok(recovered);
            }
            check_deadline(deadline)?;
        }
    }

    /// The copy that a recovery would restore, and the differences it would make; `None` if there
    /// is nothing to recover. Changes nothing.
    pub fn plan_recovery(&self, wanted: &Wanted) -> Result<Option<(String, Vec<Change>)>> {
        let live = self.live()?;
        let backup_dir = self.backup_dir_to_read()?;
        let health = self.diagnose(&live, &backup_dir, Depth::WithMirror)?;
        let current = known(&health, live.as_ref()).cloned().unwrap_or_default();
        let seen = Observation { backup_dir, live, health };
        let (document, name) = match (&seen.health, wanted) {
            (Health::Healthy(_) | Health::Legacy(_), Wanted::Newest) => return Ok(None),
            (Health::NotInitialized | Health::TooNew(_), _) => {
                return Err(self.refusal(&seen.health, &seen.backup_dir));
            }
            (_, Wanted::Newest) => self.newest_copy(&seen.backup_dir, &seen.health)?,
            _ => self.wanted_copy(&seen, wanted)?,
        };
        Ok(Some((name, diff(&without_seal(&current), &without_seal(document.value())))))
    }

    fn wanted_copy(&self, seen: &Observation, wanted: &Wanted) -> Result<(Restorable, String)> {
        let (what, copies): (String, Vec<&BackupCopy>) = match wanted {
            Wanted::Revision(revision) => {
                let lineage = self.known_lineage(seen)?;
                let named = |copy: &&BackupCopy| {
                    let name = BackupName::parse(&copy.name).and_then(|name| name.revision);
                    name.is_some_and(|named| named.get() == *revision)
                };
                let of = |copy: &&BackupCopy| match &copy.state {
                    CopyState::Invalid(_) => named(copy), // so that its defect can be reported
                    _ => copy.sealed().is_some_and(|document| {
                        document.seal.revision.get() == *revision
                            && Some(&document.seal.lineage) == lineage.as_ref()
                    }),
                };
                (
                    format!("of revision {revision}"),
                    seen.backup_dir.copies()?.iter().filter(of).collect(),
                )
            }
            Wanted::Matching(pattern) => {
                let pattern = side::name_in(&self.settings.directory, BACKUPS, pattern);
                let of = |copy: &&BackupCopy| {
                    copy.name != MIRROR
                        && BackupName::parse(&copy.name).is_some()
                        && matches(pattern, &copy.name)
                };
                (
                    format!("matching {pattern:?}"),
                    seen.backup_dir.copies()?.iter().filter(of).collect(),
                )
            }
            Wanted::Newest => (String::new(), seen.backup_dir.copies()?.iter().collect()),
        };
        // Copies are ordered newest first.
        if let Some(found) =
            copies.iter().find_map(|copy| Some((Restorable::of(copy)?, copy.name.clone())))
        {
            return Ok(found);
        }
        if let Some(bad) = copies.first() {
            let CopyState::Invalid(why) = &bad.state else {
                return Err(written_by_a_newer_program(bad));
            };
            let message = format!("no backup {what} is valid: {}: {why}", bad.name);
            return Err(Error::new(Kind::NothingToRestore, message)
                .hint_command("state backups", "see which ones are"));
        }
        let error =
            Error::new(Kind::NotFound, format!("there is no backup {what}; nothing was changed"))
                .hint_command("state backups", "see which ones there are");
        let Wanted::Matching(pattern) = wanted else { return Err(error) };
        let names =
            seen.backup_dir.copies()?.iter().filter_map(|copy| BackupName::parse(&copy.name));
        let given: Vec<String> = names.map(|name| name.given().to_owned()).collect();
        Err(match nearest(pattern, given.iter().map(String::as_str)) {
            Some(meant) => error.did_you_mean(format!("state recover {meant}")),
            None => error,
        })
    }
}

/// The error where an older copy would replace a document that this program does not understand.
pub(super) fn written_by_a_newer_program(copy: &BackupCopy) -> Error {
    let version = match &copy.state {
        CopyState::TooNew(too_new, _) => too_new.version.as_str(),
        _ => "unknown",
    };
    let message = format!(
        "the copy {} has schema {version}, and this program knows {}; nothing older may take its place",
        copy.name,
        schema::current().version
    );
    Error::new(Kind::NewerSchema, message)
        .hint_command("--version", "a newer one is needed; nothing was changed")
        .detail("schemaVersion", version)
}
