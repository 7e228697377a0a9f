//! The workshop: `.checkpoints/.in-progress/`, where a checkpoint or a restore is made ready.
//!
//! It exists only while somebody under the state lock works in it, or died there. So one look tells every later command
//! whether there is something to finish or to clear away, and it costs the others nothing.

use std::time::Duration;

use super::Store;
use super::ground::Held;
use super::layout::{CHECKPOINTS, INTENT, STAGED_PREFIX, WORKSHOP, staged_number};
use crate::error::Result;
use crate::fs::{Dir, FileKind};
use crate::{side, tree};

/// The workshop, open; cleared when it is dropped, unless what is in it is to stay.
#[must_use]
#[derive(Debug)]
pub(super) struct Workshop<'a> {
    store: &'a Store,
    root: &'a Dir,
    /// `.checkpoints`.
    pub shelf: Dir,
    /// `.checkpoints/.in-progress`.
    pub dir: Dir,
    stays: Stays,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stays {
    Yes,
    No,
}

impl<'a> Workshop<'a> {
    /// From now on everything in it stays: whoever comes next goes on from there.
    pub(super) fn keep(&mut self) {
        self.stays = Stays::Yes;
    }

    /// The work is done: it is cleared, unless a restore that is decided stands in it.
    pub(super) fn done(self) -> Result<()> {
        if self.stays == Stays::Yes { Ok(()) } else { self.clear() }
    }

    /// Removes it with all that is in it, and what is staged beside its target.
    pub(super) fn clear(mut self) -> Result<()> {
        self.stays = Stays::Yes;
        self.store.clear_workshop(self.root)
    }
}

impl Drop for Workshop<'_> {
    fn drop(&mut self) {
        if self.stays == Stays::No {
            // The next writer tries again.
            let _ = self.store.clear_workshop(self.root);
        }
    }
}

impl Store {
    /// Opens the workshop, which is empty unless an interrupted restore stands in it.
    pub(super) fn workshop<'a>(&'a self, held: &'a Held) -> Result<Workshop<'a>> {
        let shelf = self.side_directory(&held.root, CHECKPOINTS)?;
        let dir = side::open(&self.disk, &shelf, WORKSHOP)?;
        let stays = if self.disk.stat(&dir, INTENT)?.is_some() { Stays::Yes } else { Stays::No };
        Ok(Workshop { store: self, root: &held.root, shelf, dir, stays })
    }

    /// Whether somebody works, or died, in the workshop.
    pub(super) fn has_workshop(&self, root: &Dir) -> Result<bool> {
        let found = self.disk.stat(root, format!("{CHECKPOINTS}/{WORKSHOP}"));
        match found {
            Err(error) if error.is(rustix::io::Errno::NOTDIR) => Ok(false), // told when it is opened
            found => Ok(found?.is_some_and(|stat| stat.kind == FileKind::Directory)),
        }
    }

    /// Removes the workshop and the trees that are staged beside their targets. The workshop goes last: it tells of them.
    pub(super) fn clear_workshop(&self, root: &Dir) -> Result<()> {
        self.clear_staged(root)?;
        if let Some(config_root) = self.config_root()? {
            self.clear_staged(&config_root)?;
        }
        if let Some(shelf) = side::open_to_read(&self.disk, root, CHECKPOINTS)? {
            tree::remove(&self.disk, &shelf, WORKSHOP)?;
        }
        Ok(())
    }

    /// Removes what is staged in a directory, for good: when the workshop is gone nobody looks for it.
    pub(super) fn clear_staged(&self, dir: &Dir) -> Result<()> {
        let mut staged = self.disk.list(dir)?;
        staged.retain(|name| name.to_str().is_some_and(|name| name.starts_with(STAGED_PREFIX)));
        for name in &staged {
            tree::remove(&self.disk, dir, name)?;
        }
        if staged.is_empty() { Ok(()) } else { Ok(self.disk.sync_dir(dir)?) }
    }

    /// A number for a restore that nothing in these directories was staged under.
    pub(super) fn free_number(&self, dirs: [&Dir; 2]) -> Result<u64> {
        let mut highest = 0;
        for dir in dirs {
            let names = self.disk.list(dir)?;
            let numbers = names.iter().filter_map(|name| staged_number(name.to_str()?));
            highest = numbers.fold(highest, u64::max);
        }
        Ok(highest + 1)
    }

    /// The directory that `config/` lies in, if it exists.
    pub(super) fn config_root(&self) -> Result<Option<Dir>> {
        match self.disk.open_root(&self.settings.root) {
            Err(error) if error.is(rustix::io::Errno::NOENT) => Ok(None),
            dir => Ok(Some(dir?)),
        }
    }

    /// How long the reader of an interrupted restore may take to finish it.
    pub(super) fn readers_patience(&self) -> Duration {
        super::READER_PATIENCE.min(self.settings.lock_timeout)
    }
}
