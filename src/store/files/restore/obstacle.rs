//! Obstacles that keep a restore from replacing its targets, found without changing anything: for
//! reports.
//!
//! A restore itself tries the replacement ([`super::probe`]). This module queries the kernel for
//! what blocks those renames: flags, mounts, permissions.

use std::ffi::OsStr;

use rustix::io::Errno;

use super::replacement::{Places, Progress, Replacement};
use crate::error::{Error, Result};
use crate::fs::{Dir, FileKind, FsError};
use crate::store::files::root::Root;
use crate::store::files::staging::Staging;
use crate::store::files::writable::{Obstacles, directory_obstacle, immutable, is_immutable};
use crate::store::layout::{CONFIG, SIGNALS, STAGED_PREFIX};
use crate::store::restore::intent::Manner;
use crate::tree;

impl Obstacles<'_> {
    /// The error that a restore, and so a guard, would be refused with; `None` where no obstacle is
    /// found. Does not examine the state file: see [`Obstacles::write`].
    pub fn restore(&self) -> Result<Option<Error>> {
        let (root, config_root) =
            (Root::of(self.store).open()?, Staging::of(self.store).config_root()?);
        for (parent, name) in [(config_root.as_ref(), CONFIG), (Some(&root), SIGNALS)] {
            let found = parent.map(|parent| self.of_target(parent, name)).transpose()?;
            if let Some(obstacle) = found.flatten() {
                return Ok(Some(obstacle));
            }
        }
        Ok(None)
    }

    /// The error that the next writer would end with where a restore was interrupted; `None` where
    /// it can be finished.
    pub fn interrupted_restore(&self) -> Result<Option<Error>> {
        let root = Root::of(self.store).open()?;
        let Some((staging, intent)) = self.store.intents().read(&root)? else { return Ok(None) };
        if let Some(obstacle) = self.write()? {
            return Ok(Some(obstacle.or_abort()));
        }
        let Some(config_root) = Staging::of(self.store).config_root()? else {
            return Ok(Some(self.store.restores().no_config_root().or_abort()));
        };
        let places = Places { root: &root, config_root };
        for replacement in Replacement::all(self.store, &staging, &places, &intent) {
            if replacement.progress()? != Progress::Ready {
                continue;
            }
            let found = match replacement.swap.manner {
                Manner::Move => self.of_move(replacement.parent, replacement.name)?,
                Manner::CopyInto => self.of_target(replacement.parent, replacement.name)?,
            };
            if let Some(obstacle) = found {
                return Ok(Some(obstacle.or_abort()));
            }
        }
        Ok(None)
    }

    /// The obstacle to exchanging a directory with one beside it.
    fn of_move(&self, parent: &Dir, name: &str) -> Result<Option<Error>> {
        if let Some(obstacle) = directory_obstacle(parent) {
            return Ok(Some(obstacle));
        }
        Ok(match self.store.disk.stat(parent, name)? {
            Some(_) => entry_obstacle(parent, name.as_ref()),
            None => None,
        })
    }

    fn of_target(&self, parent: &Dir, name: &str) -> Result<Option<Error>> {
        match self.store.disk.stat(parent, name)? {
            None => Ok(directory_obstacle(parent)),
            Some(stat) if stat.kind != FileKind::Directory => {
                Ok(tree::check(&self.store.disk, parent, name).err())
            }
            // It may itself be a mount: then its contents are replaced.
            Some(_) => self.of_contents(&self.store.disk.open_dir(parent, name)?, 0),
        }
    }

    fn of_contents(&self, dir: &Dir, depth: usize) -> Result<Option<Error>> {
        if let Some(obstacle) = directory_obstacle(dir) {
            return Ok(Some(obstacle));
        }
        for name in self.store.disk.list(dir)? {
            if name.to_str().is_some_and(|name| name.starts_with(STAGED_PREFIX)) {
                continue;
            }
            let Some(stat) = self.store.disk.stat(dir, &name)? else { continue };
            let mut found = entry_obstacle(dir, &name);
            // Deeper entries are in no checkpoint, which another check reports.
            if found.is_none() && stat.kind == FileKind::Directory && depth < tree::DEPTH {
                found = self.of_contents(&self.store.disk.open_dir(dir, &name)?, depth + 1)?;
            }
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }
}

/// The obstacle to renaming an entry.
fn entry_obstacle(dir: &Dir, name: &OsStr) -> Option<Error> {
    if tree::is_mount_point(dir, name) {
        let busy =
            FsError { operation: "replace", path: dir.path_of(name), source: Errno::BUSY.into() };
        return Some(busy.into());
    }
    is_immutable(dir, name).then(|| immutable(&dir.path_of(name)))
}
