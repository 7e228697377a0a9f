//! The commit protocol.
//!
//! Guarantees to callers: when [`FileStore::change`] returns [`Outcome::Committed`], the new
//! document is on the disk under the state file's name. When it fails, the old one is untouched,
//! except for [`Kind::DurabilityUnknown`]: then the new one is in place and the disk did not
//! confirm it. At no instant is the live file absent or partly written: it is only ever replaced,
//! by rename(2).

use rustix::io::Errno;

use super::FileStore;
use super::preserve::Replaced;
use super::record::Provenance;
use super::root::Root;
use super::signal::follow::files_of;
use super::signal::{finish_signals, stage_signals};
use super::state_lock::{StateLock, StateLocks};
use super::transaction::Transaction;
use crate::document::READ_LIMIT;
use crate::document::chunks::Chunks;
use crate::document::seal::{Seal, Sealed};
use crate::error::{Error, Kind, Result};
use crate::fs::stage::{Durability, StagedFile, temporary};
use crate::fs::{Access, At, FsError, FsResult};
use crate::lock::Fence;
use crate::store::diagnosis::{Health, Mirror};
use crate::store::layout::{MIRROR, SERVED_PREFIX};
use crate::store::options::WriteOptions;
use crate::store::signal::Signals;

/// The input of [`FileStore::publish`].
#[derive(Debug)]
pub(super) struct Plan<'a> {
    pub sealed: &'a Sealed,
    /// The location of its bytes, if they are written and synced already in a directory of the same
    /// file system.
    pub source: Option<At<'a>>,
    pub replaced: Replaced,
    pub signals: &'a Signals,
    pub fences: &'a [Fence],
    pub room: OnDiskFull,
}

const STAY: &Signals = &Signals::STAY;

impl<'a> Plan<'a> {
    /// The plan of an ordinary writer that replaces nothing that must be kept.
    pub(super) fn of(sealed: &'a Sealed, options: &'a WriteOptions) -> Self {
        Self {
            sealed,
            source: None,
            replaced: Replaced::Nothing,
            signals: STAY,
            fences: &options.fences,
            room: OnDiskFull::PruneBackups,
        }
    }
}

/// Whether old backups may be removed to free space on a full disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OnDiskFull {
    /// For a writer's change they may.
    PruneBackups,
    /// A reader changes nothing but what it heals.
    Fail,
}

/// A commit that is on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Committed {
    /// The name under which the replaced file is kept.
    pub kept: Option<String>,
}

/// The result of publishing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Published {
    /// The document is on the disk.
    Done {
        /// The name under which the replaced file is kept.
        kept: Option<String>,
    },
    /// Another process changed the live file or removed the lock file; nothing was written.
    Overtaken,
}

fn warn_of_mirror(store: &FileStore, error: &FsError) {
    store.warn(format!(
        "the mirror is not up to date: {error}; until it is, the newest revision is lost if {} \
         is destroyed",
        store.shown()
    ));
}

impl Transaction<'_> {
    /// Publishes a sealed document and records the commit with its provenance; `None` if another
    /// writer was faster. Otherwise returns the name under which the replaced file is kept, if it
    /// is.
    pub(super) fn commit(
        &self,
        plan: &Plan<'_>,
        options: &WriteOptions,
        of: Provenance<'_>,
    ) -> Result<Option<Committed>> {
        match self.publish(plan)? {
            Published::Overtaken => Ok(None),
            Published::Done { kept } => {
                self.record_commit(options, plan.sealed, of);
                Ok(Some(Committed { kept }))
            }
        }
    }

    /// Replaces the live file by a sealed document. On a full disk it removes what can be spared
    /// and tries once more; nothing has been replaced at that point.
    pub(super) fn publish(&self, plan: &Plan<'_>) -> Result<Published> {
        let result = match self.attempt(plan) {
            Err(error) if error.kind == Kind::DiskFull && plan.room == OnDiskFull::PruneBackups => {
                let removed = self.free_space()?;
                if removed > 0 {
                    self.store.warn(format!(
                        "the disk is full; {removed} old backups were removed to make room"
                    ));
                }
                self.attempt(plan)
            }
            result => result,
        };
        // Where the backup could not be made, no other backup is removed for it.
        if let Ok(Published::Done { kept }) = &result
            && (kept.is_some() || !matches!(plan.replaced, Replaced::Backup(_)))
        {
            self.prune_backups(&plan.replaced);
        }
        if let (Ok(Published::Done { .. }), Some(served), Some(backup_dir)) =
            (&result, self.seen.backup_dir.served, self.seen.backup_dir.dir())
            && served <= plan.sealed.document.seal.revision
        {
            // The next commit tries again to remove it.
            let _ = self.store.disk.unlink(backup_dir, format!("{SERVED_PREFIX}{served}"));
        }
        result
    }

    fn attempt(&self, plan: &Plan<'_>) -> Result<Published> {
        let Some(backup_dir) = self.seen.backup_dir.dir() else {
            return Err(Error::new(Kind::Internal, "a commit without its backup directory"));
        };
        let disk = &self.store.disk;
        let text = &plan.sealed.text;
        let live = self.store.settings.file_name.as_os_str();

        // 1. Write and sync the new document under a temporary name.
        let name = temporary(self.lock.flock.inode(), "state");
        //    A staged document is copied, so that damage to the live file leaves it whole; on a
        //    full disk it is linked.
        let staged =
            self.store.disk.stage_parts(&self.lock.root, &name, text.iter(), Durability::Fsync);
        let state = match (staged, plan.source) {
            (Err(error), Some(source)) if error.is_full() => {
                link_staged(&self.lock, source, &name)?
            }
            (staged, _) => staged?,
        };

        // 2. Write the mirror's bytes, not synced: until the next writer checks it, the mirror only
        //    has to outlive the destruction of the live file, which the page cache does. Against a
        //    power cut the live file itself was synced above. It is written now so that a full disk
        //    shows before the commit.
        let mirror_name = temporary(self.lock.flock.inode(), "mirror");
        let mirror = match self.store.disk.stage_parts(
            backup_dir,
            &mirror_name,
            text.iter(),
            Durability::None,
        ) {
            Ok(staged) => Some(staged),
            // A staged document needs no space, and is not given up for lack of it.
            Err(error) if error.is_full() && plan.source.is_none() => return Err(error.into()),
            Err(error) => {
                warn_of_mirror(self.store, &error);
                None
            }
        };

        // 3. Stage the signal files.
        let files = files_of(
            &self.lock,
            &self.seen.backup_dir,
            plan.signals,
            plan.sealed.document.value.skeleton(),
        );
        let signals = match stage_signals(&self.lock, backup_dir, &files) {
            // Reported when they are to be put in place.
            Err(_) if !plan.signals.are_needed() => Vec::new(),
            staged => staged?,
        };

        // 4. Keep the old document under its backup's name.
        let aside = self.preserve_replaced(&plan.replaced)?;

        // 5. Check that the lock is still held and the live file is still the one that was read.
        //    The check uses the path that the user gave: a document written into a directory that
        //    was moved away would be acknowledged, but not found at that path.
        if !self.lock.flock.is_current(disk, &self.lock.root)?
            || !Root::of(self.store).is_still(self.seen.live.as_ref())?
        {
            return Ok(Published::Overtaken);
        }

        // 6. Check the grants that the caller requires (fences). From here to the rename no process
        //    can revoke them.
        let gate =
            self.store.locks.pass_fences(plan.fences, StateLocks::of(self.store).deadline())?;

        // 7. Commit.
        if let Err(error) = disk.rename(self.lock.root.entry(&name), self.lock.root.entry(live)) {
            match holds(&self.lock, text) {
                Ok(true) => {} // the rename happened despite its error
                Ok(false)
                    if error.is(Errno::NOENT)
                        && !self.lock.flock.is_current(disk, &self.lock.root)? =>
                {
                    // Another writer took this writer's file for a leftover.
                    return Ok(Published::Overtaken);
                }
                Ok(false) => return Err(error.into()),
                // It may have happened: it must not be retried, and what it replaced must be kept.
                Err(_) => {
                    aside.keep();
                    signals.into_iter().for_each(StagedFile::keep);
                    return Err(durability_unknown(plan.sealed, "may be", &error));
                }
            }
        }
        // The change is visible from here on. Nothing below may repeat it.
        drop(gate);
        state.keep();
        let kept = aside.keep();
        signals.into_iter().for_each(StagedFile::keep);

        // 8. Sync the directory. Only now may the commit be acknowledged.
        if let Err(error) = disk.sync_dir(&self.lock.root) {
            return Err(durability_unknown(plan.sealed, "is", &error));
        }

        // 9. Replace the mirror, after the live file: the other way round a crash would leave a
        //    mirror ahead of the live file.
        if let Some(mirror) = mirror {
            let made = backup_dir.entry(&mirror_name);
            match replace_mirror(&self.lock, made, backup_dir.entry(MIRROR)) {
                Ok(()) => mirror.keep(),
                Err(error) => warn_of_mirror(self.store, &error),
            }
        }
        finish_signals(&self.lock, backup_dir, &files);
        Ok(Published::Done { kept })
    }

    /// Rewrites a mirror that differs from the healthy live file. The live file's own name is
    /// synced first: its writer may have died before that, and after a power cut a mirror must
    /// never be ahead of the live file.
    pub(super) fn keep_mirror(&self) {
        if let Err(error) = self.renew_mirror() {
            warn_of_mirror(self.store, &error);
        }
    }

    /// As [`Self::keep_mirror`], for a caller that needs the mirror.
    pub(super) fn renew_mirror(&self) -> FsResult<()> {
        let (Health::Healthy(document), Some(found)) = (&self.seen.health, self.seen.live.as_ref())
        else {
            return Ok(());
        };
        let Some(backup_dir) = self.seen.backup_dir.dir() else {
            return Ok(());
        };
        if self.seen.backup_dir.mirror_of(found).is_ok_and(|mirror| mirror == Mirror::Same) {
            return Ok(());
        }
        let name = temporary(self.lock.flock.inode(), "mirror");
        // The live file may be an older copy with the contents of the latest; the revision of that
        // one must stay known.
        let seal = &document.seal;
        let is_later =
            |mirror: &Seal| mirror.lineage == seal.lineage && mirror.revision > seal.revision;
        let mirror =
            self.seen.backup_dir.read(MIRROR).ok().filter(|_| self.seen.backup_dir.has_mirror);
        if mirror.is_some_and(|mirror| mirror.seal().is_some_and(is_later)) {
            return Ok(());
        }
        if let Some(live) =
            self.store.disk.open(&self.lock.root, &self.store.settings.file_name, Access::Read)?
        {
            self.store.disk.sync(&live, &self.store.settings.path())?;
        }
        self.store.disk.sync_dir(&self.lock.root)?;
        let staged = self.store.disk.stage(backup_dir, &name, &found.bytes, Durability::Fsync)?;
        self.store.disk.rename(backup_dir.entry(&name), backup_dir.entry(MIRROR))?;
        staged.keep();
        self.store.disk.sync_dir(backup_dir)
    }
}

/// Links a staged document to a temporary name beside the live file.
fn link_staged<'l>(lock: &'l StateLock<'_>, from: At<'_>, name: &str) -> FsResult<StagedFile<'l>> {
    lock.store.disk.unlink(&lock.root, name)?;
    lock.store.disk.link(from, lock.root.entry(name))?;
    Ok(StagedFile::of(&lock.store.disk, &lock.root, name.to_owned()))
}

/// Puts a file that was not synced in the place of the mirror.
///
/// The two are exchanged, and the old one is removed: where a file replaces another by rename,
/// ext4 writes its data out at once (`auto_da_alloc`, ext4(5)), which every commit would wait
/// for. After a power cut the new mirror may be empty or torn; the next writer replaces it.
fn replace_mirror(lock: &StateLock<'_>, made: At<'_>, mirror: At<'_>) -> FsResult<()> {
    let disk = &lock.store.disk;
    if disk.exchange(made, mirror).is_err() {
        // There is no mirror yet, or the file system cannot exchange.
        return disk.rename(made, mirror);
    }
    disk.unlink(made.dir, made.name).inspect_err(|_| {
        // Not a file: the next writer could not remove it as a leftover.
        let _ = disk.exchange(made, mirror);
    })
}

/// Returns whether the live file holds exactly this text: a rename that reported an error may
/// have happened.
fn holds(lock: &StateLock<'_>, text: &Chunks) -> FsResult<bool> {
    let live = lock.store.disk.read(&lock.root, &lock.store.settings.file_name, READ_LIMIT)?;
    Ok(live.is_some_and(|content| text.are(&content.bytes)))
}

fn durability_unknown(sealed: &Sealed, is: &str, error: &crate::fs::FsError) -> Error {
    let revision = sealed.document.seal.revision;
    let message =
        format!("revision {revision} {is} in place, but the disk did not confirm it: {error}");
    Error::new(Kind::DurabilityUnknown, message)
        .hint_command("state read", "see what is there; do not repeat the change blindly")
        .detail("revision", revision.get())
}
