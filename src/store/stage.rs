//! Files under temporary names, which go again unless they are kept.

use rustix::io::Errno;

use super::Store;
use crate::fs::{Dir, FsResult};

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Sync {
    Now,
    Never,
}

/// A file under a temporary name, or a backup of a commit that has not happened; removed unless it is kept.
#[must_use]
pub(super) struct Staged<'a> {
    store: &'a Store,
    dir: &'a Dir,
    name: String,
    discard: Discard,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Discard {
    OnDrop,
    Never,
}

impl<'a> Staged<'a> {
    pub(super) fn of(store: &'a Store, dir: &'a Dir, name: String) -> Self {
        Self { store, dir, name, discard: Discard::OnDrop }
    }

    pub(super) fn keep(mut self) {
        self.discard = Discard::Never;
    }
}

impl Drop for Staged<'_> {
    fn drop(&mut self) {
        if self.discard == Discard::OnDrop {
            // The next writer tries again.
            let _ = self.store.disk.unlink(self.dir, &self.name);
        }
    }
}

impl Store {
    /// Writes a file under a temporary name. Whoever holds the lock and finds the name taken has found a dead writer's.
    pub(super) fn stage<'a>(&'a self, dir: &'a Dir, name: &'a str, bytes: &[u8], sync: Sync) -> FsResult<Staged<'a>> {
        let file = match self.disk.create(dir, name) {
            Err(error) if error.is(Errno::EXIST) => {
                self.disk.unlink(dir, name)?;
                self.disk.create(dir, name)?
            }
            result => result?,
        };
        let staged = Staged { store: self, dir, name: name.to_owned(), discard: Discard::OnDrop };
        let path = dir.path_of(name);
        self.disk.write(&file, &path, bytes)?;
        if sync == Sync::Now {
            self.disk.sync(&file, &path)?;
        }
        Ok(staged)
    }
}
