//! Replaces a tree where its directory cannot be renamed: its contents, file by file, under the
//! intent.
//!
//! The directory may be a mount point or a merged directory of an overlay. The new tree is staged
//! inside it, so that every file is on the directory's own file system and is put in place by one
//! rename. The staged directory shows the progress: a file that is still in it has to be put in
//! place, one that is missing from it was. It is removed, empty, before the intent; from then on
//! the tree itself is the proof.

use std::ffi::OsStr;

use super::replacement::{Progress, Replacement};
use crate::error::{Error, Kind, Result};
use crate::fs::stage::Durability;
use crate::fs::{Dir, Disk, FileKind};
use crate::store::checkpoint::manifest;
use crate::store::layout::STAGED_PREFIX;
use crate::store::restore::intent::{Action, Intent};
use crate::tree::{self, Attributes, Listing, Made, What};

/// The largest listing of a staged tree that is read, in bytes.
const LIMIT: u64 = 64 << 20;

/// The name of a staged tree's listing, in the staging directory.
fn listing_name(name: &str, number: u64) -> String {
    format!("{}-{number}.json", name.trim_start_matches('.'))
}

/// The name of a tree in manifests.
fn in_manifest(name: &str) -> &str {
    name.trim_start_matches('.')
}

/// Keeps the listing of a tree that is staged inside its target: once its first file is in place,
/// the staged tree alone no longer shows what the target is to hold.
pub(super) fn keep_listing(
    disk: &Disk,
    staging: &Dir,
    name: &str,
    number: u64,
    listing: &Listing,
) -> Result<()> {
    let listing = Listing::new(listing.clone().under(in_manifest(name)));
    let text = manifest::write(&listing, manifest::LIMIT)?;
    disk.stage(staging, &listing_name(name, number), &text, Durability::Fsync)?.keep();
    Ok(())
}

impl Replacement<'_> {
    fn kept_listing(&self) -> Result<Option<Listing>> {
        let Some(digest) = &self.swap.new else { return Ok(Some(Listing::default())) };
        let name = listing_name(self.name, self.number);
        let found = self.store.disk.read(self.staging, name, LIMIT)?;
        let listing = found
            .and_then(|found| manifest::read(&found.bytes).ok()?.below(in_manifest(self.name)));
        Ok(listing.filter(|listing| listing.fingerprint() == *digest))
    }

    /// The progress of replacing a tree's contents.
    pub(super) fn progress_into(&self) -> Result<Progress> {
        let Some(new) = self.kept_listing()? else { return Ok(Progress::Broken) };
        let Some(target) = self.target()? else { return Ok(Progress::Broken) };
        if self.swap.new.is_none() {
            return Ok(Progress::Ready); // removing everything can always be repeated
        }
        let Some(waits) = tree::list(&self.store.disk, &target, &self.place())? else {
            // All is in place, but the directory itself may lack its mode and time.
            let inside = |listing: &Listing| {
                Listing::new(
                    listing
                        .entries()
                        .iter()
                        .filter(|entry| !entry.path.is_empty())
                        .cloned()
                        .collect(),
                )
            };
            let is_new = self
                .contents(&target)?
                .is_some_and(|found| inside(&found).fingerprint() == inside(&new).fingerprint());
            return Ok(if is_new { Progress::Ready } else { Progress::Broken });
        };
        for entry in new.entries().iter().filter(|entry| entry.what != What::Directory) {
            let is_fine = match waits.get(&entry.path) {
                Some(staged) => staged.what == entry.what,
                // It is in place, where it may have been edited since.
                None => self.store.disk.stat(&target, &entry.path)?.is_some(),
            };
            if !is_fine {
                return Ok(Progress::Broken);
            }
        }
        Ok(Progress::Ready)
    }

    /// The directory with the contents to replace, if it still exists.
    fn target(&self) -> Result<Option<Dir>> {
        match self.store.disk.stat(self.parent, self.name)? {
            Some(stat) if stat.kind == FileKind::Directory => {
                Ok(Some(self.store.disk.open_dir(self.parent, self.name)?))
            }
            _ => Ok(None),
        }
    }

    /// The current contents; `None` also where the directory is missing.
    pub(super) fn current_contents(&self) -> Result<Option<Listing>> {
        self.target()?.map_or(Ok(None), |target| self.contents(&target))
    }

    /// The contents of the target without the staged tree; `None` if no checkpoint could hold them.
    fn contents(&self, target: &Dir) -> Result<Option<Listing>> {
        match tree::list(&self.store.disk, target, ".") {
            Ok(listing) => Ok(listing.map(|listing| {
                let is_own = |path: &str| !path.starts_with(STAGED_PREFIX);
                let own = listing.entries().iter().filter(|entry| is_own(&entry.path)).cloned();
                Listing::new(own.collect())
            })),
            Err(error) if error.kind == Kind::Conflict || tree::cannot_be_kept(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Replaces the contents of a tree by what is staged in it. Can be repeated from any point.
    pub(super) fn copy_into(&self, checkpoints: &Dir, intent: &Intent) -> Result<()> {
        let gone = || {
            let message = format!("what was staged of {} is gone or damaged", self.name);
            Error::new(Kind::Corrupt, message)
        };
        let new = self.kept_listing()?.ok_or_else(gone)?;
        let target = self.target()?.ok_or_else(gone)?;
        let place = self.place();
        self.keep_edits(&target, &new, checkpoints, intent)?;
        let waits = match self.store.disk.stat(&target, &place)? {
            Some(_) => Some(self.writable(&target, OsStr::new(&place))?),
            None => None,
        };
        self.replace_in(&target, waits.as_ref(), "", &new)?;
        // Only directories are left of the staged tree. It is removed before the intent, so it
        // never looks lost.
        if waits.is_some() {
            tree::remove(&self.store.disk, &target, &place)?;
        }
        if self.swap.new.is_none() {
            match self.store.disk.remove_dir(self.parent, self.name) {
                // A mount point stays, empty.
                Err(error) if error.is(rustix::io::Errno::BUSY) => {}
                result => return Ok(result?),
            }
        }
        self.dress(self.parent, OsStr::new(self.name), "", &new)?;
        Ok(self.store.disk.sync_dir(&target)?)
    }

    /// Keeps a copy of the tree beside it where a file differs both from the one present when the
    /// restore was decided and from the new one: a program that takes no locks edited it since.
    fn keep_edits(
        &self,
        target: &Dir,
        new: &Listing,
        checkpoints: &Dir,
        intent: &Intent,
    ) -> Result<()> {
        let (disk, parent, name) = (&self.store.disk, self.parent, self.name);
        let listing_in = |id: &str| {
            let checkpoint = self.store.checkpoints().open(checkpoints, id).ok()?;
            checkpoint.listing.below(in_manifest(name))
        };
        let before = listing_in(&intent.pre_restore).unwrap_or_default();
        // An undo finds what the restore put in place.
        let restored = Some(&intent.checkpoint).filter(|_| intent.action == Action::Undo);
        let restored = restored.and_then(|id| listing_in(id)).unwrap_or_default();
        let Some(found) = self.contents(target)? else {
            self.store.warn(format!("{name} holds what no checkpoint can hold; that stays there"));
            return Ok(());
        };
        let is_known = |entry: &tree::Entry| {
            let is_it = |listing: &Listing| {
                listing.get(&entry.path).is_some_and(|known| known.what == entry.what)
            };
            entry.what == What::Directory || [&before, &restored, new].into_iter().any(is_it)
        };
        if found.entries().iter().all(is_known) {
            return Ok(());
        }
        let kept = self.name_of_edited();
        if disk.stat(parent, &kept)?.is_none() {
            let copied = tree::copy(
                disk,
                parent.entry(name),
                parent.entry(&kept),
                Attributes::Listed(&found),
            );
            copied.inspect_err(|_| drop(tree::remove(disk, parent, &kept)))?;
            tree::remove(disk, &disk.open_dir(parent, &kept)?, self.place())?;
        }
        self.warn_of_edits(&kept);
        Ok(())
    }

    /// Makes one directory of the target, and those in it, match the listing.
    fn replace_in(
        &self,
        target: &Dir,
        waits: Option<&Dir>,
        path: &str,
        new: &Listing,
    ) -> Result<()> {
        let below =
            |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") };
        for name in self.store.disk.list(target)? {
            let Some(stat) = self.store.disk.stat(target, &name)? else { continue };
            let wanted = name.to_str().and_then(|name| new.get(&below(name)));
            let fits = wanted.is_some_and(|entry| {
                (entry.what == What::Directory) == (stat.kind == FileKind::Directory)
            });
            let is_staging = path.is_empty()
                && name.to_str().is_some_and(|name| name.starts_with(STAGED_PREFIX));
            if !fits && !is_staging && stat.kind != FileKind::Special {
                tree::remove(&self.store.disk, target, &name)?;
            }
        }
        for entry in new.children(path) {
            let name = OsStr::new(entry.path.rsplit('/').next().unwrap_or_default());
            if entry.what == What::Directory {
                self.store.disk.make_dir(target, name)?;
                let inner = self.writable(target, name)?;
                let waiting = match waits {
                    Some(waits) if self.store.disk.stat(waits, name)?.is_some() => {
                        Some(self.writable(waits, name)?)
                    }
                    _ => None,
                };
                self.replace_in(&inner, waiting.as_ref(), &entry.path, new)?;
                self.dress(target, name, &entry.path, new)?;
                self.store.disk.sync_dir(&inner)?;
            } else if let Some(waits) = waits
                && self.store.disk.stat(waits, name)?.is_some()
            {
                self.store.disk.rename(waits.entry(name), target.entry(name))?;
            }
        }
        Ok(self.store.disk.sync_dir(target)?)
    }

    /// Opens a directory to add or remove files.
    fn writable(&self, parent: &Dir, name: &OsStr) -> Result<Dir> {
        let dir = self.store.disk.open_dir(parent, name)?;
        if let Some(stat) =
            self.store.disk.stat(&dir, ".")?.filter(|stat| stat.mode & 0o700 != 0o700)
        {
            self.store.disk.set_mode(parent, name, &stat, 0o700)?;
        }
        Ok(dir)
    }

    /// Sets a directory's mode and time once its contents are complete.
    fn dress(&self, parent: &Dir, name: &OsStr, path: &str, new: &Listing) -> Result<()> {
        if let Some(entry) = new.get(path) {
            let dir = self.store.disk.open_dir(parent, name)?;
            tree::dress(&self.store.disk, Made::of(&dir), entry)?;
        }
        Ok(())
    }
}
