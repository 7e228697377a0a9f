//! The system calls themselves.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, SystemTime};

use fs2::FileExt;
use rustix::fs::{
    self as sys, AtFlags, FileType, Mode, OFlags, RawMode, RenameFlags, Timespec, Timestamps,
    XattrFlags,
};
use rustix::io::Errno;

use super::{Access, At, Dir, FileKind, Ops, Stat};
use crate::acl::AclKind;
use crate::os::files;

/// The machine's own file system and clock.
#[derive(Debug)]
pub struct Real;

/// The kernel's limit for an extended attribute.
const MOST_BYTES: usize = 64 << 10;

const FILE_MODE: Mode = Mode::from_raw_mode(0o600);
const DIR_MODE: Mode = Mode::from_raw_mode(super::DIR_MODE as RawMode);

impl Ops for Real {
    fn open_root(&self, path: &Path) -> io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        Ok(sys::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
    }

    fn open_dir(&self, dir: &Dir, name: &OsStr) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(sys::openat(dir.at(), name, flags, Mode::empty())?)
    }

    fn make_dir(&self, dir: &Dir, name: &OsStr) -> io::Result<()> {
        Ok(sys::mkdirat(dir.at(), name, DIR_MODE)?)
    }

    fn list(&self, dir: &Dir) -> io::Result<Vec<OsString>> {
        let mut names = Vec::new();
        files::list(dir.at(), |name| {
            if name != b"." && name != b".." {
                names.push(OsStr::from_bytes(name).to_owned());
            }
        })?;
        Ok(names)
    }

    fn stat(&self, dir: &Dir, name: &OsStr) -> io::Result<Stat> {
        Ok(to_stat(&sys::statat(dir.at(), name, AtFlags::SYMLINK_NOFOLLOW)?))
    }

    fn open(&self, dir: &Dir, name: &OsStr, access: Access) -> io::Result<File> {
        // NONBLOCK: a pipe at the file's path must not block this process.
        let always = OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let fd = match access {
            Access::Read => sys::openat(dir.at(), name, always | OFlags::RDONLY, Mode::empty())?,
            Access::Append => {
                let flags = always | OFlags::RDWR | OFlags::APPEND;
                sys::openat(dir.at(), name, flags, Mode::empty())?
            }
            // Not write-only: that fails on a pipe without a reader, before the file type can be
            // checked.
            Access::Overwrite => sys::openat(dir.at(), name, always | OFlags::RDWR, Mode::empty())?,
            Access::CreateNew => {
                let flags = always | OFlags::RDWR | OFlags::APPEND | OFlags::CREATE | OFlags::EXCL;
                let fd = sys::openat(dir.at(), name, flags, FILE_MODE)?;
                sys::fchmod(&fd, FILE_MODE)?; // the umask may have removed bits
                fd
            }
        };
        Ok(fd.into())
    }

    fn fstat(&self, file: &File) -> io::Result<Stat> {
        Ok(to_stat(&sys::fstat(file)?))
    }

    fn read(&self, file: &File, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::read(file, buffer)?)
    }

    fn write(&self, file: &File, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::write(file, bytes)?)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        files::flush(file.as_fd())
    }

    fn sync_dir(&self, dir: &Dir) -> io::Result<()> {
        files::flush(dir.at())
    }

    fn link(&self, from: At<'_>, to: At<'_>) -> io::Result<()> {
        Ok(sys::linkat(from.dir.at(), from.name, to.dir.at(), to.name, AtFlags::empty())?)
    }

    fn rename(&self, from: At<'_>, to: At<'_>) -> io::Result<()> {
        Ok(sys::renameat(from.dir.at(), from.name, to.dir.at(), to.name)?)
    }

    fn unlink(&self, dir: &Dir, name: &OsStr) -> io::Result<()> {
        Ok(sys::unlinkat(dir.at(), name, AtFlags::empty())?)
    }

    fn remove_dir(&self, dir: &Dir, name: &OsStr) -> io::Result<()> {
        Ok(sys::unlinkat(dir.at(), name, AtFlags::REMOVEDIR)?)
    }

    fn exchange(&self, one: At<'_>, other: At<'_>) -> io::Result<()> {
        Ok(sys::renameat_with(
            one.dir.at(),
            one.name,
            other.dir.at(),
            other.name,
            RenameFlags::EXCHANGE,
        )?)
    }

    fn symlink(&self, target: &OsStr, dir: &Dir, name: &OsStr) -> io::Result<()> {
        Ok(sys::symlinkat(target, dir.at(), name)?)
    }

    fn read_link(&self, dir: &Dir, name: &OsStr) -> io::Result<OsString> {
        Ok(OsStr::from_bytes(sys::readlinkat(dir.at(), name, Vec::new())?.to_bytes()).to_owned())
    }

    fn pin(&self, dir: &Dir, name: &OsStr) -> io::Result<File> {
        Ok(files::pin(dir.at(), name)?.into())
    }

    fn set_mode(&self, file: BorrowedFd<'_>, mode: u32) -> io::Result<()> {
        files::set_mode(file, Mode::from_raw_mode(mode as RawMode))
    }

    fn set_group(&self, file: BorrowedFd<'_>, gid: u32) -> io::Result<()> {
        Ok(sys::fchown(file, None, Some(rustix::fs::Gid::from_raw(gid)))?)
    }

    fn set_mtime(&self, file: BorrowedFd<'_>, mtime: (i64, i64)) -> io::Result<()> {
        Ok(sys::futimens(file, &modified_at(mtime))?)
    }

    fn set_link_mtime(&self, dir: &Dir, name: &OsStr, mtime: (i64, i64)) -> io::Result<()> {
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        Ok(sys::utimensat(dir.at(), name, &modified_at(mtime), flags)?)
    }

    fn acl(&self, file: BorrowedFd<'_>, kind: AclKind) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; 512];
        loop {
            match sys::fgetxattr(file, kind.attribute(), &mut bytes) {
                Err(Errno::RANGE) if bytes.len() < MOST_BYTES => bytes.resize(MOST_BYTES, 0),
                length => {
                    bytes.truncate(length?);
                    return Ok(bytes);
                }
            }
        }
    }

    fn set_acl(&self, file: BorrowedFd<'_>, kind: AclKind, acl: &[u8]) -> io::Result<()> {
        Ok(sys::fsetxattr(file, kind.attribute(), acl, XattrFlags::empty())?)
    }

    fn remove_acl(&self, file: BorrowedFd<'_>, kind: AclKind) -> io::Result<()> {
        Ok(sys::fremovexattr(file, kind.attribute())?)
    }

    /// flock(2) has no timeout, so where the lock is not free a thread sleeps in the kernel's queue
    /// for it and this one waits for the thread. fs2's methods are named in full: std has had
    /// methods of the same names since 1.89, and `file.try_lock_exclusive()` would one day silently
    /// become those.
    fn lock(&self, file: &File, patience: Duration) -> io::Result<()> {
        match FileExt::try_lock_exclusive(file) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && !patience.is_zero() => {}
            result => return result,
        }
        let waiting = file.try_clone()?;
        let (sender, receiver) = mpsc::sync_channel(0);
        std::thread::Builder::new().spawn(move || {
            let result = loop {
                match FileExt::lock_exclusive(&waiting) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    result => break result,
                }
            };
            // Both descriptors share one lock. The caller may have given up; then the lock must be
            // released.
            if let Err(mpsc::SendError(Ok(()))) = sender.send(result) {
                let _ = FileExt::unlock(&waiting);
            }
        })?;
        match receiver.recv_timeout(patience) {
            Ok(result) => result,
            Err(_) => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn try_lock_shared(&self, file: &File) -> io::Result<()> {
        FileExt::try_lock_shared(file)
    }

    fn now(&self) -> SystemTime {
        SystemTime::now()
    }
}

fn modified_at(mtime: (i64, i64)) -> Timestamps {
    let last_access = Timespec { tv_sec: 0, tv_nsec: sys::UTIME_OMIT };
    Timestamps { last_access, last_modification: Timespec { tv_sec: mtime.0, tv_nsec: mtime.1 } }
}

// The widths of these fields differ between architectures.
#[allow(clippy::useless_conversion, clippy::unnecessary_cast)]
fn to_stat(stat: &sys::Stat) -> Stat {
    Stat {
        kind: match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => FileKind::Regular,
            FileType::Directory => FileKind::Directory,
            FileType::Symlink => FileKind::Symlink,
            _ => FileKind::Special,
        },
        dev: stat.st_dev as u64,
        ino: stat.st_ino as u64,
        size: u64::try_from(stat.st_size).unwrap_or(0),
        mode: u32::from(stat.st_mode) & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        nlink: stat.st_nlink as u64,
        mtime: (stat.st_mtime as i64, stat.st_mtime_nsec as i64),
    }
}
