//! The copies that can be restored, and the choice among them.

use serde_json::Value;

use super::backup_dir::BackupDir;
use super::observe::Observation;
use crate::document::schema;
use crate::document::seal::{Document, Revision};
use crate::error::{Error, Kind, Result};
use crate::name::nearest;
use crate::side;
use crate::store::AutoRecover;
use crate::store::copies::{BackupCopy, Copies, CopyState, newest_valid};
use crate::store::layout::{ARCHIVE_PREFIX, BACKUPS, BackupName, MIRROR, matches};

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

    pub(super) fn value(&self) -> &Value {
        match self {
            Self::Sealed(document) => &document.value,
            Self::Legacy(value) => value,
        }
    }

    pub(super) fn revision(&self) -> Option<Revision> {
        match self {
            Self::Sealed(document) => Some(document.seal.revision),
            Self::Legacy(_) => None,
        }
    }
}

/// A copy that can be restored.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub document: Restorable,
    /// Its path below the backup directory.
    pub name: String,
}

impl Candidate {
    fn of(copy: &BackupCopy) -> Option<Self> {
        Some(Self { document: Restorable::of(copy)?, name: copy.name.clone() })
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

impl Observation<'_> {
    /// The copy that healing restores, or the reason why there is none.
    pub(super) fn newest_copy(&self) -> Result<Candidate> {
        let backup_dir = &self.backup_dir;
        let newest = newest_valid(backup_dir.copies()?).map_err(written_by_a_newer_program)?;
        if let Some(found) = newest.and_then(Candidate::of) {
            return Ok(found);
        }
        if let Some(found) = self.archived_copy()? {
            return Ok(found);
        }
        let what = self
            .health
            .refusal(&self.store.shown(), backup_dir, None)
            .map_or_else(String::new, |error| format!("{error}; "));
        let message = format!("{what}no valid copy is left in {BACKUPS}");
        let restoring = self.store.checkpoints().restoring();
        let error = Error::new(Kind::NothingToRestore, message).try_restoring(restoring.as_deref());
        let error = match backup_dir.backups.is_empty() {
            true => error,
            false => error.hint_command("state backups", "see what is wrong with each copy"),
        };
        Err(error
            .hint_command("state init --fresh", "begin again; everything is archived")
            .and_archives(backup_dir))
    }

    /// The best copy in the newest archive of the live lineage. In an earlier release a failed
    /// `init --fresh` left the live state without any other copy.
    fn archived_copy(&self) -> Result<Option<Candidate>> {
        let backup_dir = &self.backup_dir;
        let (Some(dir), false) = (backup_dir.dir(), backup_dir.archives.is_empty()) else {
            return Ok(None);
        };
        let Some(lineage) = self.last_lineage() else { return Ok(None) };
        let prefix = format!("{ARCHIVE_PREFIX}{lineage}-");
        let disk = &self.store.disk;
        for name in backup_dir.archives.iter().rev().filter(|name| name.starts_with(&prefix)) {
            let archive = BackupDir::list(disk, disk.open_dir(dir, name)?)?;
            let found = newest_valid(archive.copies()?).map_err(written_by_a_newer_program)?;
            if let Some(found) = found.and_then(Candidate::of) {
                return Ok(Some(Candidate { name: format!("{name}/{}", found.name), ..found }));
            }
        }
        Ok(None)
    }

    /// Returns whether there are copies at all, valid or not.
    pub(super) fn has_copies(&self) -> bool {
        self.backup_dir.has_history() || self.archived_copy().is_ok_and(|copy| copy.is_some())
    }

    /// Returns whether a command that meets damage heals it here.
    pub(super) fn is_healed_by_commands(&self) -> bool {
        self.store.settings.auto_recover == AutoRecover::Yes && self.has_copies()
    }

    pub(super) fn wanted_copy(&self, wanted: &Wanted) -> Result<Candidate> {
        let (what, copies): (String, Vec<&BackupCopy>) = match wanted {
            Wanted::Revision(revision) => {
                let lineage = self.known_lineage()?;
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
                    self.backup_dir.copies()?.iter().filter(of).collect(),
                )
            }
            Wanted::Matching(pattern) => {
                let pattern = side::name_in(&self.store.settings.directory, BACKUPS, pattern);
                let of = |copy: &&BackupCopy| {
                    copy.name != MIRROR
                        && BackupName::parse(&copy.name).is_some()
                        && matches(pattern, &copy.name)
                };
                (
                    format!("matching {pattern:?}"),
                    self.backup_dir.copies()?.iter().filter(of).collect(),
                )
            }
            Wanted::Newest => (String::new(), self.backup_dir.copies()?.iter().collect()),
        };
        // Copies are ordered newest first.
        if let Some(found) = copies.iter().find_map(|copy| Candidate::of(copy)) {
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
            self.backup_dir.copies()?.iter().filter_map(|copy| BackupName::parse(&copy.name));
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
        .detail("schema_version", version)
}
