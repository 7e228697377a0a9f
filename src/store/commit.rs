//! The commit protocol.
//!
//! Guarantees to callers: when [`Store::change`] returns [`Outcome::Committed`], the new document
//! is on the disk under the state file's name. When it fails, the old one is untouched, except for
//! [`Kind::DurabilityUnknown`]: then the new one is in place and the disk did not confirm it. At no
//! instant is the live file absent or partly written: it is only ever replaced, by rename(2).

use std::ffi::OsStr;

use rustix::io::Errno;

use super::ground::{Ground, Held};
use super::judge::{Health, Mirror, mirror_state};
use super::layout::{MIRROR, SERVED_PREFIX};
use super::retain::Displaced;
use super::{Signals, Store};
use crate::document::READ_LIMIT;
use crate::document::parts::Parts;
use crate::document::seal::{Seal, Sealed};
use crate::error::{Error, Kind, Result};
use crate::fs::stage::{Staged, Sync, temporary};
use crate::fs::{Access, Dir, FsResult};
use crate::lock::token::Fence;

/// The input of [`Store::publish`].
#[derive(Debug)]
pub(super) struct Plan<'a> {
    pub sealed: &'a Sealed,
    /// The location of its bytes, if they are written and synced already in a directory of the same
    /// file system.
    pub source: Option<(&'a Dir, &'a OsStr)>,
    pub displaced: Displaced,
    pub signals: &'a Signals,
    pub fences: &'a [Fence],
    pub room: Room,
}

/// Whether old backups may be removed to free space on a full disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// For a writer's change they may.
    MayBeMade,
    /// A reader changes nothing but what it heals.
    IsWhatItIs,
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

impl Store {
    /// Replaces the live file by a sealed document. On a full disk it removes what can be spared
    /// and tries once more; nothing has been replaced at that point.
    pub(super) fn publish(
        &self,
        held: &Held,
        ground: &Ground,
        plan: &Plan<'_>,
    ) -> Result<Published> {
        let result = match self.attempt(held, ground, plan) {
            Err(error) if error.is_out_of_space() && plan.room == Room::MayBeMade => {
                let removed = self.make_room(held, ground)?;
                if removed > 0 {
                    self.warn(format!(
                        "the disk is full; {removed} old backups were removed to make room"
                    ));
                }
                self.attempt(held, ground, plan)
            }
            result => result,
        };
        // Where the backup could not be made, no other backup is removed for it.
        if let Ok(Published::Done { kept }) = &result
            && (kept.is_some() || !matches!(plan.displaced, Displaced::Backup(_)))
        {
            self.retire_backups(held, ground, &plan.displaced);
        }
        if let (Ok(Published::Done { .. }), Some(served), Some(shelf)) =
            (&result, ground.shelf.served, ground.shelf.dir())
            && served <= plan.sealed.document.seal.revision
        {
            // The next commit tries again to remove it.
            let _ = self.disk.unlink(shelf, format!("{SERVED_PREFIX}{served}"));
        }
        result
    }

    fn attempt(&self, held: &Held, ground: &Ground, plan: &Plan<'_>) -> Result<Published> {
        let Some(shelf) = ground.shelf.dir() else {
            return Err(Error::new(Kind::Internal, "a commit without its backup directory"));
        };
        let disk = &self.disk;
        let text = &plan.sealed.text;
        let live = self.settings.file_name.as_os_str();

        // 1. Write and sync the new document under a temporary name.
        let name = temporary(held.lock.inode(), "state");
        let state = match plan.source.map(|source| self.link_staged(held, source, &name)) {
            Some(Ok(linked)) => linked,
            _ => self.disk.stage_parts(&held.root, &name, text.iter(), Sync::Now)?,
        };

        // 2. Write the mirror's bytes, not synced: until the next writer checks it, the mirror only
        //    has to outlive the destruction of the live file, which the page cache does. Against a
        //    power cut the live file itself was synced above. It is written now so that a full disk
        //    shows before the commit.
        let mirror_name = temporary(held.lock.inode(), "mirror");
        let mirror = match self.disk.stage_parts(shelf, &mirror_name, text.iter(), Sync::Never) {
            Ok(staged) => Some(staged),
            // A staged document needs no space, and is not given up for lack of it.
            Err(error) if error.is_full() && plan.source.is_none() => return Err(error.into()),
            Err(error) => {
                self.warn_of_mirror(&error);
                None
            }
        };

        // 3. Stage the signal files.
        let files = self.files_of(
            (held, &ground.shelf),
            plan.signals,
            plan.sealed.document.value.outline(),
        );
        let signals = match self.stage_signals(held, shelf, &files) {
            // Reported when they are to be put in place.
            Err(_) if !plan.signals.are_needed() => Vec::new(),
            staged => staged?,
        };

        // 4. Keep the old document under its backup's name.
        let aside = self.set_aside(held, ground, &plan.displaced)?;

        // 5. Check that the lock is still held and the live file is still the one that was read.
        //    The check uses the path that the user gave: a document written into a directory that
        //    was moved away would be acknowledged, but not found at that path.
        if !held.lock.is_ours(disk, &held.root)? || !self.is_still(ground.live.as_ref())? {
            return Ok(Published::Overtaken);
        }

        // 6. Check the grants that the caller requires (fences). From here to the rename no process
        //    can revoke them.
        let gate = self.locks.pass_fences(plan.fences, self.deadline())?;

        // 7. Commit.
        if let Err(error) = disk.rename((&held.root, OsStr::new(&name)), (&held.root, live)) {
            match self.holds(held, text) {
                Ok(true) => {} // the rename happened despite its error
                Ok(false) if error.is(Errno::NOENT) && !held.lock.is_ours(disk, &held.root)? => {
                    // Another writer took this writer's file for a leftover.
                    return Ok(Published::Overtaken);
                }
                Ok(false) => return Err(error.into()),
                // It may have happened: it must not be retried, and what it replaced must be kept.
                Err(_) => {
                    aside.keep();
                    signals.into_iter().for_each(Staged::keep);
                    return Err(durability_unknown(plan.sealed, "may be", &error));
                }
            }
        }
        // The change is visible from here on. Nothing below may repeat it.
        drop(gate);
        state.keep();
        let kept = aside.keep();
        signals.into_iter().for_each(Staged::keep);

        // 8. Sync the directory. Only now may the commit be acknowledged.
        if let Err(error) = disk.sync_dir(&held.root) {
            return Err(durability_unknown(plan.sealed, "is", &error));
        }

        // 9. Replace the mirror, after the live file: the other way round a crash would leave a
        //    mirror ahead of the live file.
        if let Some(mirror) = mirror {
            match disk.rename((shelf, OsStr::new(&mirror_name)), (shelf, OsStr::new(MIRROR))) {
                Ok(()) => mirror.keep(),
                Err(error) => self.warn_of_mirror(&error),
            }
        }
        self.finish_signals(held, shelf, &files);
        Ok(Published::Done { kept })
    }

    /// Links a staged document to a temporary name beside the live file.
    fn link_staged<'a>(
        &'a self,
        held: &'a Held,
        from: (&Dir, &OsStr),
        name: &str,
    ) -> FsResult<Staged<'a>> {
        self.disk.unlink(&held.root, name)?;
        self.disk.link(from, (&held.root, OsStr::new(name)))?;
        Ok(Staged::of(&self.disk, &held.root, name.to_owned()))
    }

    /// Returns whether the live file holds exactly this text: a rename that reported an error may
    /// have happened.
    fn holds(&self, held: &Held, text: &Parts) -> FsResult<bool> {
        let live = self.disk.read(&held.root, &self.settings.file_name, READ_LIMIT)?;
        Ok(live.is_some_and(|content| text.are(&content.bytes)))
    }

    /// Rewrites a mirror that differs from the healthy live file. The live file's own name is
    /// synced first: its writer may have died before that, and after a power cut a mirror must
    /// never be ahead of the live file.
    pub(super) fn keep_mirror(&self, held: &Held, ground: &Ground) {
        if let Err(error) = self.renew_mirror(held, ground) {
            self.warn_of_mirror(&error);
        }
    }

    /// As [`Self::keep_mirror`], for a caller that needs the mirror.
    pub(super) fn renew_mirror(&self, held: &Held, ground: &Ground) -> FsResult<()> {
        let (Health::Healthy(document), Some(found)) = (&ground.health, ground.live.as_ref())
        else {
            return Ok(());
        };
        let Some(shelf) = ground.shelf.dir() else {
            return Ok(());
        };
        if mirror_state(found, &ground.shelf).is_ok_and(|mirror| mirror == Mirror::Same) {
            return Ok(());
        }
        let name = temporary(held.lock.inode(), "mirror");
        // The live file may be an older copy with the contents of the latest; the revision of that
        // one must stay known.
        let seal = &document.seal;
        let is_later =
            |mirror: &Seal| mirror.lineage == seal.lineage && mirror.revision > seal.revision;
        let mirror = ground.shelf.read(MIRROR).ok().filter(|_| ground.shelf.has_mirror);
        if mirror.is_some_and(|mirror| mirror.seal().is_some_and(is_later)) {
            return Ok(());
        }
        if let Some(live) = self.disk.open(&held.root, &self.settings.file_name, Access::Read)? {
            self.disk.sync(&live, &self.path())?;
        }
        self.disk.sync_dir(&held.root)?;
        let staged = self.disk.stage(shelf, &name, &found.bytes, Sync::Now)?;
        self.disk.rename((shelf, OsStr::new(&name)), (shelf, OsStr::new(MIRROR)))?;
        staged.keep();
        self.disk.sync_dir(shelf)
    }

    fn warn_of_mirror(&self, error: &crate::fs::FsError) {
        self.warn(format!(
            "the mirror is not up to date: {error}; until it is, the newest revision is lost if {} is destroyed",
            self.shown()
        ));
    }
}

fn durability_unknown(sealed: &Sealed, is: &str, error: &crate::fs::FsError) -> Error {
    let revision = sealed.document.seal.revision;
    let message =
        format!("revision {revision} {is} in place, but the disk did not confirm it: {error}");
    Error::new(Kind::DurabilityUnknown, message)
        .try_command("state read", "see what is there; do not repeat the change blindly")
        .detail("revision", revision.get())
}
