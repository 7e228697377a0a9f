//! Checks whether writers can write here, without changing anything.
//!
//! A limit that a check of permissions cannot see (a quota, a security module) shows at the first
//! write.

use std::path::Path;

use rustix::fs::{Access, AtFlags, StatVfs, StatVfsMountFlags, accessat, fstatvfs};
use rustix::io::Errno;

use super::FileStore;
use super::root::Root;
use crate::error::{Error, Kind, Result, quote_path};
use crate::fs::{Dir, Disk, FsError};
use crate::os::hints;
use crate::store::layout::SIDE_DIRECTORIES;
use crate::{side, tree, user};

/// Space for a commit besides the document and its mirror: directory blocks, logs, lock records.
const COMMIT_OVERHEAD: u64 = 32 << 10;
/// Inodes of a commit: the document, its mirror and a directory block.
const COMMIT_INODES: u64 = 3;

/// Obstacles that the next command would meet, found without changing anything.
#[derive(Clone, Copy, Debug)]
pub struct Obstacles<'s> {
    pub(in crate::store) store: &'s FileStore,
}

impl Obstacles<'_> {
    /// The error that the next writer would meet; `None` where it can write. The document itself is
    /// not examined.
    pub fn write(&self) -> Result<Option<Error>> {
        let root = Root::of(self.store).open()?;
        let name = &self.store.settings.file_name;
        let state = self.store.disk.stat(&root, name)?;
        if let Some(found) = state.filter(|found| found.uid != user::current()) {
            return Ok(Some(side::foreign_owner(&self.store.settings.path(), found.uid)));
        }
        if let Some(error) = directory_obstacle(&root) {
            return Ok(Some(error));
        }
        for side in SIDE_DIRECTORIES {
            let found = match self.store.disk.open_dir(&root, side) {
                Err(error) if error.is(Errno::NOENT) => continue,
                found => found.map_err(|error| side::refusal(&root, side, error)),
            };
            let refused = match found {
                Ok(dir) => side::check(&self.store.disk, &root, side, &dir)
                    .err()
                    .or_else(|| directory_obstacle(&dir)),
                Err(error) => Some(error),
            };
            if refused.is_some() {
                return Ok(refused);
            }
        }
        if state.is_some() && tree::is_mount_point(&root, name) {
            let word = quote_path(&self.store.settings.path());
            let message = format!("{} is a mount point and cannot be replaced", self.store.shown());
            let why = "mount its directory instead, so that the file can be replaced";
            let error = Error::new(Kind::UnsafePath, message).detail("path", self.store.shown());
            return Ok(Some(error.hint_shell(hints::mount_of(&word), why)));
        }
        if state.is_some() && is_immutable(&root, name.as_ref()) {
            return Ok(Some(immutable(&self.store.settings.path())));
        }
        Ok(self.of_space(&root, state.map_or(0, |found| found.size)))
    }

    /// Refuses where there is no space for a commit of a document of `size` bytes.
    fn of_space(&self, root: &Dir, size: u64) -> Option<Error> {
        let disk = fstatvfs(root.at()).ok()?;
        let needed = 2 * size + COMMIT_OVERHEAD;
        let (blocks, inodes) = available(&disk);
        // Some file systems report no inodes, and some no blocks.
        let lacks_space = disk.f_blocks > 0 && blocks < needed;
        let lacks_inodes = disk.f_files > 0 && inodes < COMMIT_INODES;
        let left = match (lacks_space, lacks_inodes) {
            (true, _) => format!("{blocks} bytes are left, and a commit needs {needed}"),
            (_, true) => format!("{inodes} inodes are left, and a commit needs {COMMIT_INODES}"),
            _ => return None,
        };
        let word = quote_path(root.path());
        let message = format!("the disk of {} is full: {left}", root.path().display());
        let why = "make room; `recover cleanup` removes old checkpoints";
        let error =
            Error::new(Kind::DiskFull, message).detail("path", root.path().display().to_string());
        Some(error.hint_shell(format!("df -h {word}; df -i {word}"), why))
    }
}

/// The bytes and inodes available to this user.
fn available(disk: &StatVfs) -> (u64, u64) {
    let is_root = user::current() == 0;
    let (blocks, inodes) =
        if is_root { (disk.f_bfree, disk.f_ffree) } else { (disk.f_bavail, disk.f_favail) };
    (blocks.saturating_mul(disk.f_frsize), inodes)
}

/// Returns whether files can be created in a directory, as far as its permissions, mount and flags
/// show.
pub fn is_writable(path: &Path) -> bool {
    Disk::real().open_root(path).is_ok_and(|dir| directory_obstacle(&dir).is_none())
}

/// Refuses a directory in which no file can be created or replaced.
pub(super) fn directory_obstacle(dir: &Dir) -> Option<Error> {
    let path = dir.path();
    let is_read_only =
        fstatvfs(dir.at()).is_ok_and(|disk| disk.f_flag.contains(StatVfsMountFlags::RDONLY));
    let failed = |errno: Errno| {
        Some(Error::from(FsError {
            operation: "write in",
            path: path.to_owned(),
            source: errno.into(),
        }))
    };
    if is_read_only {
        return failed(Errno::ROFS);
    }
    if is_immutable(dir, "".as_ref()) {
        return Some(immutable(path));
    }
    let wanted = Access::WRITE_OK | Access::EXEC_OK;
    match accessat(dir.at(), ".", wanted, AtFlags::EACCESS) {
        Err(errno @ (Errno::ACCESS | Errno::PERM | Errno::ROFS)) => failed(errno),
        _ => None,
    }
}

/// Returns whether the file `name` in `dir`, or `dir` itself where `name` is empty, is flagged
/// immutable or append-only: chattr(1).
pub(super) fn is_immutable(dir: &Dir, name: &std::ffi::OsStr) -> bool {
    crate::os::files::is_immutable(dir.at(), name)
}

pub(super) fn immutable(path: &Path) -> Error {
    let word = quote_path(path);
    let message = format!("{} is marked immutable or append-only", path.display());
    Error::new(Kind::PermissionDenied, message)
        .detail("path", path.display().to_string())
        .hint_shell(
            format!("{}; {}", hints::look_at_flags(&word), hints::remove_flags(&word)),
            "remove the mark",
        )
}
