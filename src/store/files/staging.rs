//! The staging directory: `.checkpoints/.in-progress/`, where a checkpoint or a restore is
//! prepared.
//!
//! It exists only while a command under the state lock uses it, or after such a command died. So
//! one lookup shows every later command whether there is something to finish or remove, and costs
//! the others nothing.

use std::ffi::OsString;
use std::time::Duration;

use rustix::io::Errno;

use super::FileStore;
use super::restore::scratch;
use super::root::Root;
use super::state_lock::StateLock;
use crate::error::Result;
use crate::fs::{Dir, FileKind};
use crate::store::layout::{
    BACKUPS, CHECKPOINTS, CONFIG, INTENT, SIGNALS, STAGED_PREFIX, WORKSHOP, staged_number,
};
use crate::{side, tree};

/// The open staging directory; cleared on drop, unless its contents are to stay.
#[derive(Debug)]
pub(super) struct StagingDir<'a> {
    store: &'a FileStore,
    root: &'a Dir,
    /// `.checkpoints`.
    pub checkpoints: Dir,
    /// `.checkpoints/.in-progress`.
    pub dir: Dir,
    stays: Stays,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stays {
    Yes,
    No,
}

impl<'a> StagingDir<'a> {
    /// Keeps its contents from now on: the next command continues from there.
    pub(super) fn keep(&mut self) {
        self.stays = Stays::Yes;
    }

    /// Ends the work: the staging directory is cleared, unless it holds a decided restore.
    pub(super) fn done(self) -> Result<()> {
        if self.stays == Stays::Yes { Ok(()) } else { self.clear() }
    }

    /// Removes it with its contents, and what is staged beside its targets.
    pub(super) fn clear(mut self) -> Result<()> {
        self.stays = Stays::Yes;
        Staging::of(self.store).clear(self.root)
    }
}

impl Drop for StagingDir<'_> {
    fn drop(&mut self) {
        if self.stays == Stays::No {
            // The next writer tries again.
            let _ = Staging::of(self.store).clear(self.root);
        }
    }
}

impl<'s> Staging<'s> {
    /// Of `store`.
    pub(in crate::store) fn of(store: &'s FileStore) -> Self {
        Self { store }
    }

    /// The parent directory of `config/`, if it exists.
    pub(super) fn config_root(&self) -> Result<Option<Dir>> {
        match self.store.disk.open_root(&self.store.settings.root) {
            Err(error) if error.is(rustix::io::Errno::NOENT) => Ok(None),
            dir => Ok(Some(dir?)),
        }
    }

    /// The time that the reader of an interrupted restore may take to finish it.
    pub(super) fn readers_patience(&self) -> Duration {
        super::READER_PATIENCE.min(self.store.settings.lock_timeout)
    }
}

/// The place where checkpoints and restores are prepared.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct Staging<'s> {
    pub(in crate::store) store: &'s FileStore,
}

impl Staging<'_> {
    /// Opens the staging directory, which is empty unless it holds an interrupted restore.
    pub(super) fn open<'a>(&self, lock: &'a StateLock<'_>) -> Result<StagingDir<'a>> {
        let checkpoints = Root::of(self.store).side_directory(&lock.root, CHECKPOINTS)?;
        let dir = side::open(&self.store.disk, &checkpoints, WORKSHOP)?;
        let stays =
            if self.store.disk.stat(&dir, INTENT)?.is_some() { Stays::Yes } else { Stays::No };
        Ok(StagingDir { store: lock.store, root: &lock.root, checkpoints, dir, stays })
    }

    /// Returns whether a command uses the staging directory or died in it.
    pub(super) fn exists(&self, root: &Dir) -> Result<bool> {
        let found = self.store.disk.stat(root, format!("{CHECKPOINTS}/{WORKSHOP}"));
        match found {
            // Reported by the command that opens it.
            Err(error) if error.is(rustix::io::Errno::NOTDIR) => Ok(false),
            found => Ok(found?.is_some_and(|stat| stat.kind == FileKind::Directory)),
        }
    }

    /// Removes the staging directory, the checkpoints that are marked in it, and the trees that are
    /// staged beside or inside their targets. The staging directory is removed last: it is the
    /// record of the rest.
    pub(super) fn clear(&self, root: &Dir) -> Result<()> {
        for dir in self.places(root)? {
            self.clear_dir(&dir)?;
        }
        if let Some(checkpoints) = side::open_to_read(&self.store.disk, root, CHECKPOINTS)? {
            let doomed = self.store.checkpoints().doomed(&checkpoints)?;
            for id in &doomed {
                tree::remove(&self.store.disk, &checkpoints, id)?;
            }
            if !doomed.is_empty() {
                self.store.disk.sync_dir(&checkpoints)?; // durable before the marks are removed
            }
            tree::remove(&self.store.disk, &checkpoints, WORKSHOP)?;
        }
        Ok(())
    }

    /// The directories in which trees are staged: the parents of the targets, and the targets.
    fn places(&self, root: &Dir) -> Result<Vec<Dir>> {
        let mut places = vec![self.store.disk.open_dir(root, ".")?];
        places.extend(Staging::of(self.store).config_root()?);
        let target = |parent: &Dir, name: &str| match self.store.disk.open_dir(parent, name) {
            Err(error)
                if [Errno::NOENT, Errno::NOTDIR, Errno::LOOP]
                    .iter()
                    .any(|errno| error.is(*errno)) =>
            {
                Ok(None)
            }
            dir => dir.map(Some),
        };
        let config = places.last().map(|parent| target(parent, CONFIG)).transpose()?.flatten();
        let (signals, backups) = (target(root, SIGNALS)?, target(root, BACKUPS)?);
        places.extend(config.into_iter().chain(signals).chain(backups));
        Ok(places)
    }

    /// Removes what is staged in a directory, durably: without the staging directory no command
    /// looks for it.
    fn clear_dir(&self, dir: &Dir) -> Result<()> {
        let staged = self.staged_in(dir)?;
        if staged.is_empty() {
            return Ok(());
        }
        let modified = self.store.disk.stat(dir, ".")?.map(|stat| stat.mtime);
        for name in &staged {
            match name.to_str() {
                Some(scratch::PROBE) => scratch::remove(&self.store.disk, dir)?,
                _ => tree::remove(&self.store.disk, dir, name)?,
            }
        }
        // The directory may be `config/` or `.signals/` itself, and its own contents have not
        // changed.
        if let Some(modified) = modified {
            match self.store.disk.set_mtime_of(dir.at(), dir.path(), modified) {
                // The directory of another user: only its owner may set its time.
                Err(error) if error.is(Errno::PERM) => {}
                set => set?,
            }
        }
        Ok(self.store.disk.sync_dir(dir)?)
    }

    fn staged_in(&self, dir: &Dir) -> Result<Vec<OsString>> {
        let mut staged = self.store.disk.list(dir)?;
        staged.retain(|name| name.to_str().is_some_and(|name| name.starts_with(STAGED_PREFIX)));
        Ok(staged)
    }

    /// Returns whether a command that died left something staged, or one is at work.
    pub(super) fn is_used(&self, root: &Dir) -> Result<bool> {
        for dir in self.places(root)? {
            if !self.staged_in(&dir)?.is_empty() {
                return Ok(true);
            }
        }
        self.exists(root)
    }

    /// A number for a restore under which nothing is staged.
    pub(super) fn free_number(&self, root: &Dir) -> Result<u64> {
        let mut highest = 0;
        for dir in self.places(root)? {
            let names = self.store.disk.list(&dir)?;
            let numbers = names.iter().filter_map(|name| staged_number(name.to_str()?));
            highest = numbers.fold(highest, u64::max);
        }
        Ok(highest + 1)
    }
}
