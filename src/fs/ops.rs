//! The system calls, one method each.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::{Access, At, Dir, Stat};
use crate::acl::AclKind;

/// The system calls of the store. Names are single components unless the directory is
/// [`Dir::working`]; no method follows a link in the last component, except [`Ops::open_root`].
#[allow(missing_docs)] // each is the system call of its name
pub trait Ops {
    fn open_root(&self, path: &Path) -> io::Result<OwnedFd>;
    fn open_dir(&self, dir: &Dir, name: &OsStr) -> io::Result<OwnedFd>;
    fn make_dir(&self, dir: &Dir, name: &OsStr) -> io::Result<()>;
    fn list(&self, dir: &Dir) -> io::Result<Vec<OsString>>;
    fn stat(&self, dir: &Dir, name: &OsStr) -> io::Result<Stat>;
    fn open(&self, dir: &Dir, name: &OsStr, access: Access) -> io::Result<File>;
    fn fstat(&self, file: &File) -> io::Result<Stat>;
    fn read(&self, file: &File, buffer: &mut [u8]) -> io::Result<usize>;
    fn write(&self, file: &File, bytes: &[u8]) -> io::Result<usize>;
    fn sync(&self, file: &File) -> io::Result<()>;
    fn sync_dir(&self, dir: &Dir) -> io::Result<()>;
    fn link(&self, from: At<'_>, to: At<'_>) -> io::Result<()>;
    fn rename(&self, from: At<'_>, to: At<'_>) -> io::Result<()>;
    fn unlink(&self, dir: &Dir, name: &OsStr) -> io::Result<()>;
    fn remove_dir(&self, dir: &Dir, name: &OsStr) -> io::Result<()>;
    fn exchange(&self, one: At<'_>, other: At<'_>) -> io::Result<()>;
    fn symlink(&self, target: &OsStr, dir: &Dir, name: &OsStr) -> io::Result<()>;
    fn read_link(&self, dir: &Dir, name: &OsStr) -> io::Result<OsString>;
    /// Opens `name` of any type, including a link, for [`Ops::fstat`] and [`Ops::set_mode`] only
    /// (`O_PATH`).
    fn pin(&self, dir: &Dir, name: &OsStr) -> io::Result<File>;
    fn set_mode(&self, file: BorrowedFd<'_>, mode: u32) -> io::Result<()>;
    fn set_group(&self, file: BorrowedFd<'_>, gid: u32) -> io::Result<()>;
    fn set_mtime(&self, file: BorrowedFd<'_>, mtime: (i64, i64)) -> io::Result<()>;
    fn set_link_mtime(&self, dir: &Dir, name: &OsStr, mtime: (i64, i64)) -> io::Result<()>;
    /// The raw value of an access control list's attribute. No other extended attribute is ever
    /// accessed.
    fn acl(&self, file: BorrowedFd<'_>, kind: AclKind) -> io::Result<Vec<u8>>;
    fn set_acl(&self, file: BorrowedFd<'_>, kind: AclKind, acl: &[u8]) -> io::Result<()>;
    fn remove_acl(&self, file: BorrowedFd<'_>, kind: AclKind) -> io::Result<()>;
    /// Takes an exclusive flock(2), waiting no longer than `patience`; then `WouldBlock`, and the
    /// file must not be locked again.
    fn lock(&self, file: &File, patience: Duration) -> io::Result<()>;
    /// Takes a shared flock(2) without waiting; `WouldBlock` if another open file has an exclusive
    /// one.
    fn try_lock_shared(&self, file: &File) -> io::Result<()>;
    fn now(&self) -> SystemTime;
}
