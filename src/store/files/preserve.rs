//! Retention of replaced files: what is kept, for how long, and what is removed when the disk is
//! full.

use std::time::{Duration, SystemTime};

use super::FileStore;
use super::observe::Observation;
use super::state_file::StateFile;
use super::state_lock::StateLock;
use super::transaction::Transaction;
use crate::document::seal::{Digest, Document, Revision, to_bytes};
use crate::error::Result;
use crate::fs::free_name::first_free;
use crate::fs::stage::{Durability, StagedFile, is_temporary, temporary};
use crate::fs::{Dir, FsResult};
use crate::store::copies::{Copies, CopyState};
use crate::store::diagnosis::{ForeignEdit, Health};
use crate::store::layout::{self, BackupName, EVIDENCE_PREFIX, MIRROR, is_staged_signal};
use crate::time::compact;

/// Pinned backups and pieces of evidence that are kept, of each kind.
const PINNED_KEPT: usize = 20;
/// Automatic backups that are kept for guards on record, in addition to the usual ones. A guard
/// that would need more cannot attribute changes, and puts nothing back.
const GUARDED_BACKUPS: usize = 1000;
/// Copies that are kept even when the disk is full.
const SPARED_COPIES: usize = 2;

/// Treatment of the file that a commit replaces.
#[derive(Debug)]
pub(super) enum Replaced {
    /// It becomes a backup, as a second name of the same inode.
    Backup(BackupName),
    /// It is kept as evidence of what was wrong.
    Evidence,
    /// It is not kept; these bytes, an earlier document, become a pinned backup.
    Reference(BackupName, Vec<u8>),
    /// There is no file, or it is kept already.
    Nothing,
}

impl Replaced {
    pub(super) fn backup(now: SystemTime, revision: Option<Revision>, reason: &str) -> Self {
        Self::Backup(BackupName::new(now, revision, reason))
    }

    pub(super) fn reference(now: SystemTime, reference: &Document, reason: &str) -> Self {
        let name = BackupName::new(now, Some(reference.seal.revision), reason);
        // `to_bytes` reproduces the sealed bytes, so the copy verifies like the original.
        to_bytes(reference.as_sealed()).map_or(Self::Nothing, |bytes| Self::Reference(name, bytes))
    }

    /// The copy that a commit keeps when it seals a foreign edit: the revision before the edit;
    /// where no copy of that is left, the edit as it was found.
    pub(super) fn by_edit(now: SystemTime, edit: &ForeignEdit) -> Self {
        match &edit.reference {
            Some(reference) => Self::reference(now, reference, layout::pinned::PRE_ADOPT),
            None => Self::Evidence,
        }
    }

    fn is_kept_for_good(&self) -> bool {
        match self {
            Self::Backup(name) => name.is_pinned(),
            Self::Evidence | Self::Reference(..) => true,
            Self::Nothing => false,
        }
    }
}

/// The kept copy of a replaced file.
pub(super) enum Preserved<'a> {
    /// Nothing: there was none, or its backup could not be made.
    Nothing,
    /// The same bytes were already kept under this name.
    Before(String),
    /// A new file of this name, which is removed unless the commit happens.
    New(StagedFile<'a>, String),
}

/// The treatment of the live file by a command that restores another document.
pub(in crate::store::files) fn replaced_for(seen: &Observation<'_>, reason: &str) -> Replaced {
    let now = seen.store.disk.now();
    match &seen.health {
        Health::Healthy(document) => Replaced::backup(now, Some(document.seal.revision), reason),
        Health::Legacy(_) => Replaced::backup(now, None, reason),
        Health::NotInitialized | Health::Missing => Replaced::Nothing,
        _ => Replaced::Evidence,
    }
}

impl Preserved<'_> {
    /// Makes it permanent after the commit; returns its name.
    pub(super) fn keep(self) -> Option<String> {
        match self {
            Self::Nothing => None,
            Self::Before(name) => Some(name),
            Self::New(staged, name) => {
                staged.keep();
                Some(name)
            }
        }
    }
}

/// Returns whether other users may access the live file: then it is copied, not linked.
fn is_loose(found: &StateFile) -> bool {
    found.stat.mode & 0o077 != 0
}

/// The part of an evidence file's name that identifies its contents.
fn tag(bytes: &[u8]) -> String {
    Digest::of(bytes).as_str().chars().take(16).collect()
}

/// Calls `make` with a backup's name and, where it is taken, with a number appended.
fn free_backup(name: BackupName, make: impl FnMut(&str) -> FsResult<()>) -> FsResult<BackupName> {
    let stem = name.as_str().strip_suffix(".json").unwrap_or(name.as_str());
    let made = first_free(stem, ".json", make)?;
    Ok(BackupName::parse(&made).unwrap_or(name))
}

impl Transaction<'_> {
    /// Keeps the file that is about to be replaced, as the plan says. A backup that cannot be made
    /// stops the commit only if the disk is full; evidence that cannot be kept always does. Pinned
    /// copies are synced before the original is replaced; an automatic backup is not worth a sync:
    /// a power cut that loses it leaves a newer revision.
    pub(super) fn preserve_replaced(&self, replaced: &Replaced) -> Result<Preserved<'_>> {
        let aside = self.preserve(replaced)?;
        if replaced.is_kept_for_good()
            && let (Some(backup_dir), Preserved::New(..)) = (self.seen.backup_dir.dir(), &aside)
            && let Err(error) = self.store.disk.sync_dir(backup_dir)
        {
            if matches!(replaced, Replaced::Evidence) {
                return Err(error.into());
            }
            self.store.warn(format!(
                "the backup of the revision that is replaced may not survive a power cut: {error}"
            ));
        }
        Ok(aside)
    }

    fn preserve(&self, replaced: &Replaced) -> Result<Preserved<'_>> {
        let Some(backup_dir) = self.seen.backup_dir.dir() else {
            return Ok(Preserved::Nothing);
        };
        let new = |name: String| {
            Preserved::New(StagedFile::of(&self.store.disk, backup_dir, name.clone()), name)
        };
        match replaced {
            Replaced::Nothing => Ok(Preserved::Nothing),
            Replaced::Reference(name, bytes) => {
                Ok(new(copy_to_backup(&self.lock, backup_dir, name.clone(), bytes)?
                    .as_str()
                    .to_owned()))
            }
            Replaced::Evidence => match evidence_kept(&self.seen) {
                Some(name) => Ok(Preserved::Before(name)),
                None => Ok(self.keep_evidence(backup_dir)?.map_or(Preserved::Nothing, new)),
            },
            Replaced::Backup(name) => {
                let copy = |found: &StateFile| {
                    copy_to_backup(&self.lock, backup_dir, name.clone(), &found.bytes)
                };
                let link = || link_live(&self.lock, backup_dir, name.clone());
                let made = match &self.seen.live {
                    // A second name of it would have the same mode; that is better than no copy at
                    // all.
                    Some(found) if is_loose(found) => match copy(found) {
                        Err(error) if !error.is_full() => link().map_err(|_| error),
                        made => made,
                    },
                    live => match (link(), live) {
                        // Some file systems have no hard links.
                        (Err(error), Some(found)) if !error.is_full() => copy(found),
                        (made, _) => made,
                    },
                };
                match made {
                    Ok(name) => Ok(new(name.as_str().to_owned())),
                    Err(error) if error.is_full() => Err(error.into()),
                    Err(error) => {
                        self.store.warn(format!(
                            "the revision that is replaced could not be backed up: {error}"
                        ));
                        Ok(Preserved::Nothing)
                    }
                }
            }
        }
    }

    /// Keeps the live file as `corrupt-TIME-DIGEST.json`.
    fn keep_evidence(&self, backup_dir: &Dir) -> Result<Option<String>> {
        let Some(found) = &self.seen.live else { return Ok(None) };
        let tag = if found.is_whole() { tag(&found.bytes) } else { "oversized".to_owned() };
        let stem = format!("{EVIDENCE_PREFIX}{}-{tag}", compact(self.store.disk.now()));
        let live = self.lock.root.entry(&self.store.settings.file_name);
        if !is_loose(found) || !found.is_whole() {
            // A link needs no space, works for a file of any size, and has the same mode.
            match first_free(&stem, ".json", |name| {
                self.store.disk.link(live, backup_dir.entry(name))
            }) {
                Ok(name) => return Ok(Some(name)),
                Err(error) if !found.is_whole() => return Err(error.into()),
                Err(_) => {} // no hard links here
            }
        }
        let temporary = temporary(self.lock.flock.inode(), "backup");
        let staged =
            self.store.disk.stage(backup_dir, &temporary, &found.bytes, Durability::Fsync)?;
        let from = backup_dir.entry(&temporary);
        let name = first_free(&stem, ".json", |name| {
            self.store.disk.rename_to_free(from, backup_dir.entry(name))
        })?;
        staged.keep();
        Ok(Some(name))
    }

    /// Removes backups over the limits of number and age, after a commit. The backup just made is
    /// valid, since it was the live file, and is never removed. If none was made, none is removed.
    pub(super) fn prune_backups(&self, replaced: &Replaced) {
        let Some(backup_dir) = self.seen.backup_dir.dir() else {
            return;
        };
        let listing = &self.seen.backup_dir;
        let guarded = self.store.guards().first_guarded_revision(&self.lock.root, listing);
        let is_guarded = |backup: &BackupName| {
            guarded.is_some_and(|first| {
                backup.revision.is_some_and(|revision| revision.get() >= first)
            })
        };
        let names = |pinned: bool| {
            listing.backups.iter().filter(move |backup| backup.is_pinned() == pinned)
        };
        match replaced {
            Replaced::Backup(made) if !made.is_pinned() => {
                let kept = self.store.settings.max_backups.max(1) - 1; // besides the one just made
                let now = self.store.disk.now();
                let oldest =
                    Duration::from_secs(self.store.settings.backup_days.saturating_mul(86_400));
                let automatic: Vec<_> = names(false).collect();
                let surplus = automatic.len().saturating_sub(kept);
                let outlived =
                    |name: &BackupName| now.duration_since(name.time).is_ok_and(|age| age > oldest);
                for (place, name) in automatic.into_iter().enumerate() {
                    let is_needed = is_guarded(name) && place + GUARDED_BACKUPS >= surplus;
                    if !is_needed && (place < surplus || outlived(name)) {
                        discard(self.store, backup_dir, name.as_str());
                    }
                }
            }
            Replaced::Backup(made) | Replaced::Reference(made, _) => {
                discard_oldest(
                    self.store,
                    backup_dir,
                    names(true)
                        .filter(|name| !is_guarded(name))
                        .map(BackupName::as_str)
                        .chain([made.as_str()])
                        .collect(),
                    PINNED_KEPT,
                );
            }
            Replaced::Evidence => {
                let new = usize::from(evidence_kept(&self.seen).is_none());
                let kept = listing.evidence.iter().map(String::as_str).collect();
                discard_oldest(self.store, backup_dir, kept, PINNED_KEPT - new);
            }
            Replaced::Nothing => {}
        }
    }

    /// Frees space on a full disk: removes temporary files, then automatic backups except the
    /// newest two valid ones. Never removes the mirror, pinned backups or evidence.
    pub(super) fn free_space(&self) -> Result<usize> {
        let Some(backup_dir) = self.seen.backup_dir.dir() else {
            return Ok(0);
        };
        // A staged signal file is left only where its outcome is not known yet.
        let is_spare = |name: &str| is_temporary(name) && !is_staged_signal(name);
        for name in self
            .store
            .disk
            .list(backup_dir)?
            .iter()
            .filter(|name| name.to_str().is_some_and(is_spare))
        {
            self.store.disk.unlink(backup_dir, name)?;
        }
        for name in self
            .store
            .disk
            .list(&self.lock.root)?
            .iter()
            .filter(|name| name.to_str().is_some_and(is_temporary))
        {
            self.store.disk.unlink(&self.lock.root, name)?;
        }
        let mut spared = 0;
        let mut removed = 0;
        for copy in self.seen.backup_dir.copies()?.iter().filter(|copy| copy.name != MIRROR) {
            if BackupName::parse(&copy.name).is_none_or(|name| name.is_pinned()) {
                continue;
            }
            if matches!(copy.state, CopyState::TooNew(..)) {
                // Unreadable for this program, which therefore must not remove it.
            } else if copy.value().is_some() && spared < SPARED_COPIES {
                spared += 1;
            } else if spared == SPARED_COPIES {
                self.store.disk.unlink(backup_dir, &copy.name)?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}

fn link_live(lock: &StateLock<'_>, backup_dir: &Dir, name: BackupName) -> FsResult<BackupName> {
    let live = lock.root.entry(&lock.store.settings.file_name);
    free_backup(name, |name| lock.store.disk.link(live, backup_dir.entry(name)))
}

/// Makes a durable copy under a backup's name, complete or absent.
pub(in crate::store::files) fn copy_to_backup(
    lock: &StateLock<'_>,
    backup_dir: &Dir,
    name: BackupName,
    bytes: &[u8],
) -> FsResult<BackupName> {
    let temporary = temporary(lock.flock.inode(), "backup");
    let staged = lock.store.disk.stage(backup_dir, &temporary, bytes, Durability::Fsync)?;
    // rename() would replace a backup of the same name; under the lock no other writer makes
    // one.
    let made = free_backup(name, |name| {
        lock.store.disk.rename_to_free(backup_dir.entry(&temporary), backup_dir.entry(name))
    })?;
    staged.keep();
    Ok(made)
}

/// The evidence file that holds the same bytes as the live file, if there is one.
fn evidence_kept(seen: &Observation<'_>) -> Option<String> {
    let found = seen.live.as_ref().filter(|found| found.is_whole())?;
    let tag = tag(&found.bytes);
    let same = |name: &&String| {
        name.contains(&tag)
            && seen.backup_dir.evidence_bytes(name).is_some_and(|bytes| bytes == found.bytes)
    };
    seen.backup_dir.evidence.iter().find(same).cloned()
}

fn discard_oldest(store: &FileStore, backup_dir: &Dir, names: Vec<&str>, kept: usize) {
    let surplus = names.len().saturating_sub(kept);
    for name in names.into_iter().take(surplus) {
        discard(store, backup_dir, name);
        if BackupName::parse(name)
            .is_some_and(|name| name.reason.starts_with(layout::pinned::MANUAL))
        {
            store.warn(format!("the backup {name} was removed: {kept} newer ones are pinned"));
        }
    }
}

fn discard(store: &FileStore, backup_dir: &Dir, name: &str) {
    if let Err(error) = store.disk.unlink(backup_dir, name) {
        store.warn(format!("an old backup could not be removed: {error}"));
    }
}
