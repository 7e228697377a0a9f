//! Files and file systems: what the calls of POSIX leave to the system.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{
    AtFlags, Mode, OFlags, RawDir, SeekFrom, StatxAttributes, StatxFlags, chmod, fchmod, fstatfs,
    fsync, openat, seek, statx,
};
use rustix::io::Errno;

use super::process::text_of;
use crate::os::files::{Confirmation, FileSystem, ListedHolder};

/// The answer about an extended attribute that a file does not have.
pub const NO_ATTRIBUTE: Errno = Errno::NODATA;

/// Makes a file's content, or the names of a directory, durable.
pub fn flush(file: BorrowedFd<'_>) -> io::Result<()> {
    Ok(fsync(file)?)
}

/// Returns whether flushes reach the drive, and flushes this directory where only that shows it:
/// fsync(2) always reaches it.
pub fn confirmation(_: BorrowedFd<'_>) -> io::Result<Confirmation> {
    Ok(Confirmation::Confirmed)
}

/// Calls `each` with every name in a directory, from its beginning, with `.` and `..`.
pub fn list(dir: BorrowedFd<'_>, mut each: impl FnMut(&[u8])) -> io::Result<()> {
    let mut buffer = [MaybeUninit::uninit(); 32 << 10];
    // An earlier listing leaves the position at the end.
    seek(dir, SeekFrom::Start(0))?;
    let mut entries = RawDir::new(dir, &mut buffer);
    while let Some(entry) = entries.next() {
        each(entry?.file_name().to_bytes());
    }
    Ok(())
}

/// Opens `name` of any type, including a link, for fstat(2) and [`set_mode`] only.
pub fn pin(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(dir, name, flags, Mode::empty())?)
}

/// Sets the mode of an open file. fchmod(2) refuses a descriptor of [`pin`], and fchmodat2(2) is
/// newer than most kernels: there the descriptor's entry in `/proc` leads to the file.
pub fn set_mode(file: BorrowedFd<'_>, mode: Mode) -> io::Result<()> {
    match fchmod(file, mode) {
        Err(Errno::BADF) => Ok(chmod(format!("/proc/self/fd/{}", file.as_raw_fd()), mode)?),
        result => Ok(result?),
    }
}

/// The path of an open file.
pub fn path_of(file: impl AsFd) -> io::Result<PathBuf> {
    std::fs::read_link(format!("/proc/self/fd/{}", file.as_fd().as_raw_fd()))
}

/// Returns whether a file system is mounted there; false if it cannot be determined.
pub fn is_mount_point(dir: BorrowedFd<'_>, name: &OsStr) -> bool {
    has_attribute(dir, name, AtFlags::empty(), StatxAttributes::MOUNT_ROOT)
}

/// Returns whether the file `name` in `dir`, or `dir` itself where `name` is empty, is flagged
/// immutable or append-only: chattr(1).
pub fn is_immutable(dir: BorrowedFd<'_>, name: &OsStr) -> bool {
    let marks = StatxAttributes::IMMUTABLE | StatxAttributes::APPEND;
    has_attribute(dir, name, AtFlags::EMPTY_PATH, marks)
}

fn has_attribute(dir: BorrowedFd<'_>, name: &OsStr, flags: AtFlags, any: StatxAttributes) -> bool {
    let flags = flags | AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    statx(dir, name, flags, StatxFlags::empty())
        .is_ok_and(|found| found.stx_attributes.intersects(any))
}

/// When a directory was created: seconds and nanoseconds since 1970, where the file system records
/// it.
pub fn created(dir: BorrowedFd<'_>) -> Option<(i64, u32)> {
    let found = statx(dir, ".", AtFlags::empty(), StatxFlags::BTIME).ok()?;
    let is_recorded = found.stx_mask & StatxFlags::BTIME.bits() != 0;
    is_recorded.then_some((found.stx_btime.tv_sec, found.stx_btime.tv_nsec))
}

/// The file system of a directory, by the magic numbers of statfs(2).
#[allow(clippy::unnecessary_cast)] // its width differs between architectures
pub fn file_system(dir: BorrowedFd<'_>) -> FileSystem {
    let Ok(facts) = fstatfs(dir) else {
        return FileSystem::UNKNOWN;
    };
    match facts.f_type as u64 & 0xffff_ffff {
        0xef53 => FileSystem::Local("ext4"),
        0x5846_5342 => FileSystem::Local("xfs"),
        0x9123_683e => FileSystem::Local("btrfs"),
        0x0102_1994 => FileSystem::Local("tmpfs"),
        0x8584_58f6 => FileSystem::Local("ramfs"),
        0xf2f5_2010 => FileSystem::Local("f2fs"),
        0x2fc1_2fc1 => FileSystem::Local("zfs"),
        0xca45_1a4e => FileSystem::Local("bcachefs"),
        0x794c_7630 => FileSystem::Local("overlayfs"),
        0x4d44 => FileSystem::Local("vfat"),
        0x2011_bab0 => FileSystem::Local("exfat"),
        0x3153_464a => FileSystem::Local("jfs"),
        0x6969 => FileSystem::Shared("nfs"),
        0x0102_1997 => FileSystem::Shared("9p"),
        0x6573_5546 => FileSystem::Shared("fuse"),
        0xff53_4d42 | 0xfe53_4d42 | 0x517b => FileSystem::Shared("smb"),
        0x00c3_6400 => FileSystem::Shared("ceph"),
        0x0116_1970 => FileSystem::Shared("gfs2"),
        0x7461_636f => FileSystem::Shared("ocfs2"),
        _ => FileSystem::UNKNOWN,
    }
}

/// The process that holds an flock on this inode, from `/proc/locks` (proc_locks(5)); inodes of
/// different file systems may coincide.
pub fn flock_holder(inode: u64) -> Option<ListedHolder> {
    // The kernel shows that file a page at a time, and while other processes lock and unlock, a
    // line may fall between two pages.
    const LOOKS: usize = 5;
    (0..LOOKS).find_map(|_| look_for_holder(inode))
}

fn look_for_holder(inode: u64) -> Option<ListedHolder> {
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    let pid = locks.lines().filter(|line| !line.contains("->")).find_map(|line| {
        let mut words = line.split_whitespace();
        let is_flock = words.nth(1) == Some("FLOCK");
        let pid = words.nth(2)?.parse().ok()?;
        let number = words.next()?.rsplit(':').next()?.parse::<u64>().ok()?;
        (is_flock && number == inode).then_some(pid)
    })?;
    let name = text_of(&format!("/proc/{pid}/comm")).unwrap_or_default();
    Some(ListedHolder { pid, name })
}

/// This program, as another process can start it, whatever became of its path.
pub fn own_program() -> io::Result<PathBuf> {
    Ok(PathBuf::from("/proc/self/exe"))
}

/// The path by which a child of this process opens one of its descriptors.
pub fn path_for_child(file: impl AsFd) -> io::Result<PathBuf> {
    // The number of this process in /proc, which may differ from its pid: see super::process.
    let own = std::fs::read_link("/proc/self")?;
    Ok(format!("/proc/{}/fd/{}", own.display(), file.as_fd().as_raw_fd()).into())
}

/// Opens a path of [`path_for_child`] in the child.
pub fn open_of_parent(path: &OsStr) -> io::Result<File> {
    File::open(path)
}
