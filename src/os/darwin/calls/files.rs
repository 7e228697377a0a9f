//! Files and file systems.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use nix::libc;
use pipeline_state_darwin as sys;
use rustix::fs::{AtFlags, Dir, Mode, OFlags, Stat, fchmod, fcntl_fullfsync, fsync, getpath};
use rustix::fs::{fstat, fstatfs, openat, statat};
use rustix::io::{Errno, FdFlags, fcntl_setfd};

use crate::os::darwin::{file_systems, flush as decision};
use crate::os::files::{Confirmation, FileSystem, ListedHolder};

/// The answer about an extended attribute that a file does not have.
pub const NO_ATTRIBUTE: Errno = Errno::NOATTR;

/// Makes a file's content, or the names of a directory, durable.
pub fn flush(file: BorrowedFd<'_>) -> io::Result<()> {
    confirmation(file).map(drop)
}

/// Flushes a file or directory, and returns whether the drive confirmed it.
pub fn confirmation(file: BorrowedFd<'_>) -> io::Result<Confirmation> {
    decision::flush(|| fcntl_fullfsync(file), || fsync(file))
}

/// Calls `each` with every name in a directory, from its beginning, with `.` and `..`.
pub fn list(dir: BorrowedFd<'_>, mut each: impl FnMut(&[u8])) -> io::Result<()> {
    for entry in Dir::read_from(dir)? {
        each(entry?.file_name().to_bytes());
    }
    Ok(())
}

/// Opens `name` of any type, including a link, for fstat(2) and [`set_mode`] only.
pub fn pin(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<OwnedFd> {
    let event_only = OFlags::from_bits_retain(libc::O_EVTONLY.cast_unsigned());
    let flags = event_only | OFlags::SYMLINK | OFlags::NONBLOCK | OFlags::NOCTTY;
    Ok(openat(dir, name, flags | OFlags::CLOEXEC, Mode::empty())?)
}

/// Sets the mode of an open file.
pub fn set_mode(file: BorrowedFd<'_>, mode: Mode) -> io::Result<()> {
    Ok(fchmod(file, mode)?)
}

/// The path of an open file.
pub fn path_of(file: impl AsFd) -> io::Result<PathBuf> {
    Ok(PathBuf::from(OsStr::from_bytes(getpath(file)?.to_bytes())))
}

/// Returns whether a file system is mounted there: it has another device than the directory of its
/// name. A file system is mounted as a whole, so that is exact.
pub fn is_mount_point(dir: BorrowedFd<'_>, name: &OsStr) -> bool {
    let inside = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW);
    matches!((inside, fstat(dir)), (Ok(inside), Ok(dir)) if inside.st_dev != dir.st_dev)
}

/// Returns whether the file `name` in `dir`, or `dir` itself where `name` is empty, is flagged
/// immutable or append-only: chflags(1).
pub fn is_immutable(dir: BorrowedFd<'_>, name: &OsStr) -> bool {
    const MARKS: u32 = libc::UF_IMMUTABLE | libc::UF_APPEND | libc::SF_IMMUTABLE | libc::SF_APPEND;
    let stat = match name.is_empty() {
        true => fstat(dir),
        false => statat(dir, name, AtFlags::SYMLINK_NOFOLLOW),
    };
    stat.is_ok_and(|stat| stat.st_flags & MARKS != 0)
}

/// When a directory was created: seconds and nanoseconds since 1970.
pub fn created(dir: BorrowedFd<'_>) -> Option<(i64, u32)> {
    let Stat { st_birthtime, st_birthtime_nsec, .. } = fstat(dir).ok()?;
    Some((st_birthtime, st_birthtime_nsec.try_into().ok()?)).filter(|time| *time != (0, 0))
}

/// The file system of a directory.
pub fn file_system(dir: BorrowedFd<'_>) -> FileSystem {
    let Ok(facts) = fstatfs(dir) else { return FileSystem::UNKNOWN };
    let name = facts.f_fstypename.map(libc::c_char::cast_unsigned);
    file_systems::kind(name.split(|byte| *byte == 0).next().unwrap_or_default())
}

/// The process that holds an flock on this inode: the system lists none.
pub fn flock_holder(_: u64) -> Option<ListedHolder> {
    None
}

/// This program, as another process can start it. After an upgrade it is the new one.
pub fn own_program() -> io::Result<PathBuf> {
    std::env::current_exe()
}

/// The path by which a child of this process opens one of its descriptors, which it inherits.
pub fn path_for_child(file: impl AsFd) -> io::Result<PathBuf> {
    fcntl_setfd(&file, FdFlags::empty())?;
    Ok(format!("/dev/fd/{}", file.as_fd().as_raw_fd()).into())
}

/// Opens a path of [`path_for_child`] in the child. Neither descriptor outlives its next exec.
pub fn open_of_parent(path: &OsStr) -> io::Result<File> {
    let file = File::open(path)?;
    let inherited = path.to_str().and_then(|path| path.strip_prefix("/dev/fd/")?.parse().ok());
    inherited.map_or(Ok(()), sys::close_on_exec)?;
    Ok(file)
}
