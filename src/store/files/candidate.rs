//! The copy that heals a document, and the one that `state recover` names.

use super::backup_dir::BackupDir;
use super::observe::Observation;
use crate::error::{Error, Kind, Result};
use crate::side;
use crate::store::AutoRecover;
use crate::store::candidate::{Candidate, Wanted, written_by_a_newer_program};
use crate::store::copies::{Copies, newest_valid};
use crate::store::layout::{ARCHIVE_PREFIX, BACKUPS};

/// The copy that healing restores, or the reason why there is none.
pub(in crate::store::files) fn newest_copy(seen: &Observation<'_>) -> Result<Candidate> {
    let backup_dir = &seen.backup_dir;
    let newest = newest_valid(backup_dir.copies()?).map_err(written_by_a_newer_program)?;
    if let Some(found) = newest.and_then(Candidate::of) {
        return Ok(found);
    }
    if let Some(found) = archived_copy(seen)? {
        return Ok(found);
    }
    let what = seen
        .health
        .refusal(&seen.store.shown(), backup_dir, None)
        .map_or_else(String::new, |error| format!("{error}; "));
    let message = format!("{what}no valid copy is left in {BACKUPS}");
    let restoring = seen.store.checkpoints().restoring();
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
fn archived_copy(seen: &Observation<'_>) -> Result<Option<Candidate>> {
    let backup_dir = &seen.backup_dir;
    let (Some(dir), false) = (backup_dir.dir(), backup_dir.archives.is_empty()) else {
        return Ok(None);
    };
    let Some(lineage) = seen.last_lineage() else { return Ok(None) };
    let prefix = format!("{ARCHIVE_PREFIX}{lineage}-");
    let disk = &seen.store.disk;
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
pub(super) fn has_copies(seen: &Observation<'_>) -> bool {
    seen.backup_dir.has_history() || archived_copy(seen).is_ok_and(|copy| copy.is_some())
}

/// Returns whether a command that meets damage heals it here.
pub(in crate::store::files) fn is_healed_by_commands(seen: &Observation<'_>) -> bool {
    seen.store.settings.auto_recover == AutoRecover::Yes && has_copies(seen)
}

/// The copy that `state recover` is to restore.
pub(in crate::store::files) fn wanted_copy(
    seen: &Observation<'_>,
    wanted: &Wanted,
) -> Result<Candidate> {
    let copies = seen.backup_dir.copies()?;
    match wanted {
        Wanted::Newest => Wanted::Newest.choose(copies, None),
        Wanted::Revision(_) => wanted.choose(copies, seen.known_lineage()?.as_ref()),
        Wanted::Matching(pattern) => {
            let pattern = side::name_in(&seen.store.settings.directory, BACKUPS, pattern);
            Wanted::Matching(pattern.to_owned()).choose(copies, None)
        }
    }
}
