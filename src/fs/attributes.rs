//! What a file has besides its bytes: mode, group, times, access control lists. Each is set through
//! a descriptor, never by name.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::io::Errno;

use super::{Dir, Disk, FileKind, FsResult, SET_MODE, Stat, retry_eintr, with_context};
use crate::acl::{Acl, AclKind};
use crate::os::files::NO_ATTRIBUTE;

impl Disk {
    /// Sets the permission bits of the file or directory that `was` describes, through a
    /// descriptor.
    ///
    /// Fails if `name` is another file by now, a link, or a file with a second name (`EMLINK`): a
    /// hard link may lead out of the root.
    pub fn set_mode(
        &self,
        dir: &Dir,
        name: impl AsRef<OsStr>,
        was: &Stat,
        mode: u32,
    ) -> FsResult<()> {
        let path = dir.path_of(&name);
        let file = with_context("open", &path, retry_eintr(|| self.ops.pin(dir, name.as_ref())))?;
        let stat = self.fstat(&file, &path)?;
        match stat.kind {
            FileKind::Regular if stat.nlink > 1 => {
                return with_context(SET_MODE, &path, Err(Errno::MLINK.into()));
            }
            FileKind::Regular | FileKind::Directory if stat.same_file(was) => {}
            FileKind::Symlink => return with_context(SET_MODE, &path, Err(Errno::LOOP.into())),
            _ => return with_context(SET_MODE, &path, Err(Errno::STALE.into())),
        }
        self.set_mode_of(file.as_fd(), &path, mode)
    }

    /// Sets the permission bits of an open file or directory.
    pub fn set_mode_of(&self, file: BorrowedFd<'_>, path: &Path, mode: u32) -> FsResult<()> {
        with_context(SET_MODE, path, retry_eintr(|| self.ops.set_mode(file, mode)))
    }

    /// Sets the group of an open file.
    pub fn set_group_of(&self, file: BorrowedFd<'_>, path: &Path, gid: u32) -> FsResult<()> {
        with_context("set the group of", path, retry_eintr(|| self.ops.set_group(file, gid)))
    }

    /// Sets the modification time of an open file or directory.
    pub fn set_mtime_of(
        &self,
        file: BorrowedFd<'_>,
        path: &Path,
        mtime: (i64, i64),
    ) -> FsResult<()> {
        with_context("set the time of", path, retry_eintr(|| self.ops.set_mtime(file, mtime)))
    }

    /// Sets the modification time of a symbolic link itself.
    pub fn set_link_mtime(
        &self,
        dir: &Dir,
        name: impl AsRef<OsStr>,
        mtime: (i64, i64),
    ) -> FsResult<()> {
        let set = || self.ops.set_link_mtime(dir, name.as_ref(), mtime);
        with_context("set the time of", &dir.path_of(&name), retry_eintr(set))
    }

    /// The access control list of an open file or directory; `None` where it has none, or the file
    /// system does not support them.
    pub fn acl(&self, file: BorrowedFd<'_>, path: &Path, kind: AclKind) -> FsResult<Option<Acl>> {
        match retry_eintr(|| self.ops.acl(file, kind)) {
            Err(error) if has_no_acl(&error) => Ok(None),
            bytes => Ok(Acl::from_attribute(&with_context(
                "read the access control list of",
                path,
                bytes,
            )?)),
        }
    }

    /// Sets the access control list of an open file or directory, or removes an inherited one.
    /// Returns whether the result is as wanted: some file systems do not support them.
    pub fn set_acl(
        &self,
        file: BorrowedFd<'_>,
        path: &Path,
        kind: AclKind,
        acl: Option<&Acl>,
    ) -> FsResult<bool> {
        let set = || match acl {
            Some(acl) => self.ops.set_acl(file, kind, &acl.to_attribute()),
            None => self.ops.remove_acl(file, kind),
        };
        match retry_eintr(set) {
            Err(error) if has_no_acl(&error) => Ok(acl.is_none()),
            result => with_context("set the access control list of", path, result).map(|()| true),
        }
    }
}

/// Returns whether a file has no access control list, or cannot have one.
fn has_no_acl(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(NO_ATTRIBUTE) || super::error::is_unsupported(error)
}
