//! The replacement of one tree: how far it is, and its next step.
//!
//! The trees themselves show the progress, not notes: what is staged, what is in place, and the
//! fingerprints of both in the intent. So each step can be repeated from any point.

use rustix::io::Errno;

use crate::document::seal::Digest;
use crate::error::{Kind, Result};
use crate::fs::Dir;
use crate::store::files::FileStore;
use crate::store::layout::{CONFIG, staged};
use crate::store::restore::intent::{Intent, Manner, Swap};
use crate::time::compact;
use crate::tree;

/// The parent directories of the trees: those that this command resolved, never those that a record
/// names.
pub(super) struct Places<'a> {
    pub root: &'a Dir,
    pub config_root: Dir,
}

impl Places<'_> {
    pub(super) fn of(&self, name: &str) -> &Dir {
        if name == CONFIG { &self.config_root } else { self.root }
    }
}

/// The progress of one replacement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// The new file or tree is in place.
    Done,
    /// It is staged.
    Ready,
    /// It cannot be found.
    Broken,
}

/// The identity of a tree, by its fingerprint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TreeDigest {
    Absent,
    Of(Digest),
    Unknown,
}

/// The replacement of `config/` or `.signals/` that an intent states.
pub(super) struct Replacement<'a> {
    pub store: &'a FileStore,
    /// The staging directory.
    pub staging: &'a Dir,
    /// The directory of the tree.
    pub parent: &'a Dir,
    /// Its name there.
    pub name: &'static str,
    /// The number under which the new tree is staged.
    pub number: u64,
    pub swap: &'a Swap,
}

impl<'a> Replacement<'a> {
    /// The replacements of an intent.
    pub(super) fn all(
        store: &'a FileStore,
        staging: &'a Dir,
        places: &'a Places<'_>,
        intent: &'a Intent,
    ) -> impl Iterator<Item = Self> {
        intent.swaps().map(move |(name, swap)| Self {
            store,
            staging,
            parent: places.of(name),
            name,
            number: intent.number,
            swap,
        })
    }

    /// The name of the staged tree, beside its target or inside it.
    pub(super) fn place(&self) -> String {
        staged(self.name, self.number)
    }

    /// Returns how far it is.
    pub(super) fn progress(&self) -> Result<Progress> {
        if self.swap.manner == Manner::CopyInto {
            return self.progress_into();
        }
        let waits = self.digest(&self.place())?;
        let is_there = self.store.disk.stat(self.parent, self.name)?.is_some();
        let Some(new) = &self.swap.new else {
            // It is removed by renaming it to the staged name.
            let is_removed = waits != TreeDigest::Absent || !is_there;
            return Ok(if is_removed { Progress::Done } else { Progress::Ready });
        };
        let is_new =
            |digest: &TreeDigest| matches!(digest, TreeDigest::Of(digest) if digest == new);
        if is_new(&waits) {
            return Ok(Progress::Ready);
        }
        // Where the new tree is in place already, it may have been edited since.
        let is_done = match (&waits, &self.swap.old) {
            (TreeDigest::Of(digest), Some(old)) if digest == old => true,
            (TreeDigest::Unknown, _) => true, // staged trees are listable: this is a replaced one
            (TreeDigest::Absent, None) if is_there => true,
            _ => is_new(&self.digest(self.name)?),
        };
        Ok(if is_done { Progress::Done } else { Progress::Broken })
    }

    /// Returns whether nothing of the tree was replaced yet.
    pub(super) fn is_untouched(&self) -> Result<bool> {
        if self.swap.manner == Manner::CopyInto {
            let found = self.current_contents()?.map(|found| found.fingerprint());
            return Ok(found == self.swap.old);
        }
        if self.progress()? == Progress::Ready {
            return Ok(true);
        }
        Ok(match (self.digest(self.name)?, &self.swap.old) {
            (TreeDigest::Absent, None) => true,
            (TreeDigest::Of(found), Some(old)) => found == *old,
            _ => false,
        })
    }

    fn digest(&self, name: &str) -> Result<TreeDigest> {
        // A tree is unreadable only if listing it fails twice: the first error may be transient.
        let list = || tree::list(&self.store.disk, self.parent, name);
        let listed = match list() {
            Err(error) if error.kind == Kind::PermissionDenied => list(),
            listed => listed,
        };
        match listed {
            Ok(None) => Ok(TreeDigest::Absent),
            Ok(Some(listing)) => Ok(TreeDigest::Of(listing.fingerprint())),
            // The tree holds an entry that no checkpoint can hold, added since.
            Err(error) if error.kind == Kind::Conflict || tree::cannot_be_kept(&error) => {
                Ok(TreeDigest::Unknown)
            }
            Err(error) => Err(error),
        }
    }

    /// Exchanges the staged tree and the one in place; the name exists at every instant.
    pub(super) fn exchange(&self) -> Result<()> {
        let (disk, place) = (&self.store.disk, self.place());
        let waits = self.parent.entry(&place);
        let live = self.parent.entry(self.name);
        if self.swap.new.is_none() {
            return Ok(disk.rename(live, waits)?);
        }
        if disk.stat(self.parent, self.name)?.is_none() {
            return Ok(disk.rename(waits, live)?);
        }
        match disk.exchange(waits, live) {
            // Not every file system can do that. Then the name is missing for an instant.
            Err(error) if error.is_unsupported() || error.is(Errno::INVAL) => {
                let aside = format!("{place}-aside");
                let aside = self.parent.entry(&aside);
                disk.rename(live, aside)?;
                disk.rename(waits, live)?;
                Ok(disk.rename(aside, waits)?)
            }
            result => Ok(result?),
        }
    }

    /// Keeps a replaced tree that a program without locks edited since; otherwise the checkpoint
    /// made before has it.
    pub(super) fn keep_if_edited(&self) -> Result<()> {
        let place = self.place();
        let is_known = match self.digest(&place)? {
            TreeDigest::Absent => true,
            TreeDigest::Unknown => false,
            TreeDigest::Of(digest) => {
                Some(&digest) == self.swap.old.as_ref() || Some(&digest) == self.swap.new.as_ref()
            }
        };
        if is_known {
            return Ok(());
        }
        let kept = self.name_of_edited();
        let from = self.parent.entry(&place);
        self.store.disk.rename(from, self.parent.entry(&kept))?;
        self.warn_of_edits(&kept);
        Ok(())
    }

    /// The name under which an edited tree is kept.
    pub(super) fn name_of_edited(&self) -> String {
        format!("{}.before-restore-{}", self.name, compact(self.store.disk.now()))
    }

    pub(super) fn warn_of_edits(&self, kept: &str) {
        let name = self.name;
        self.store.warn(format!(
            "{name} was edited while it was being replaced; what it held is kept in {kept}"
        ));
    }
}
