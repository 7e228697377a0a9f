//! The file-system seam: every side effect of the store passes through [`Disk`], and through
//! [`Ops`] below it.
//!
//! [`Ops`] has one method per system call, so that a fault can be injected at every call:
//! [`real::Real`] makes them; a test can see, fail, shorten or stop each.
//! [`Disk`] adds what all callers need: interrupted calls are repeated, short writes are continued,
//! and an error names its operation and path. `fsync` is the exception: it is never repeated,
//! because a second call after a failure reports success for data that is lost (PostgreSQL's
//! "fsyncgate", 2018).

mod attributes;
mod denied;
mod dir;
mod error;
pub mod free_name;
pub mod identity;
mod ops;
pub mod probe;
pub mod real;
pub mod replace;
pub mod stage;
mod stat;
mod temporary;
pub mod watch;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use rustix::io::Errno;

pub use self::dir::{At, Dir};
pub use self::error::{FsError, FsResult};
pub use self::ops::Ops;
pub use self::stat::{FileKind, Stat};

/// The operation of an [`FsError`] about permission bits.
pub const SET_MODE: &str = "set the mode of";
/// The mode of a new directory.
const DIR_MODE: u32 = 0o700;

/// The access mode of an open file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reading.
    Read,
    /// Writing a file that must not exist yet (0600, whatever the umask).
    CreateNew,
    /// Appending to a file that exists.
    Append,
    /// Writing over the beginning of a file that exists.
    Overwrite,
}

/// A file's bytes, read whole, with its metadata at that time.
#[derive(Debug)]
pub struct Content {
    /// All of it, or its first part if it is over the limit.
    pub bytes: Vec<u8>,
    /// Whether the file was read to its end.
    pub size: Completeness,
    /// The file's metadata, taken from the open descriptor.
    pub stat: Stat,
}

/// Whether a file was read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completeness {
    /// The whole file.
    Whole,
    /// The file is over the limit; only a part was read.
    OverLimit,
}

/// Whether a file was created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It existed.
    Found,
    /// It is new and empty.
    Made,
}

/// The seam as the store uses it.
#[derive(Clone)]
pub struct Disk {
    ops: Rc<dyn Ops>,
}

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Disk")
    }
}

impl Disk {
    /// A disk on top of `ops`.
    pub fn new(ops: Rc<dyn Ops>) -> Self {
        Self { ops }
    }

    /// The machine's own disk.
    pub fn real() -> Self {
        Self::new(Rc::new(real::Real))
    }

    /// The wall clock.
    pub fn now(&self) -> SystemTime {
        self.ops.now()
    }

    /// Opens a directory by path, following links: the user named it.
    pub fn open_root(&self, path: &Path) -> FsResult<Dir> {
        let fd = with_context("open", path, retry_eintr(|| self.ops.open_root(path)))?;
        Ok(Dir::new(fd, path.to_owned()))
    }

    /// Opens a directory inside `dir`; a symbolic link is an error (`ELOOP` or `ENOTDIR`).
    pub fn open_dir(&self, dir: &Dir, name: impl AsRef<OsStr>) -> FsResult<Dir> {
        let path = dir.path_of(&name);
        let fd =
            with_context("open", &path, retry_eintr(|| self.ops.open_dir(dir, name.as_ref())))?;
        Ok(Dir::new(fd, path))
    }

    /// Creates a directory (0700, whatever the umask); succeeds if it exists.
    pub fn make_dir(&self, dir: &Dir, name: impl AsRef<OsStr>) -> FsResult<()> {
        let path = dir.path_of(&name);
        match retry_eintr(|| self.ops.make_dir(dir, name.as_ref())) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
            result => with_context("make", &path, result)?,
        }
        // The umask may have removed bits. Where others may write `dir`, they may have replaced the
        // new directory by a link, which is not followed, or by another file.
        let made = with_context("open", &path, retry_eintr(|| self.ops.pin(dir, name.as_ref())))?;
        let stat = self.fstat(&made, &path)?;
        if stat.kind != FileKind::Directory || stat.uid != crate::user::current() {
            return with_context("make", &path, Err(Errno::LOOP.into()));
        }
        // A setgid bit is inherited from the parent.
        match stat.mode & 0o777 == DIR_MODE {
            true => Ok(()),
            false => self.set_mode_of(made.as_fd(), &path, DIR_MODE),
        }
    }

    /// The names in a directory, sorted, without `.` and `..`.
    pub fn list(&self, dir: &Dir) -> FsResult<Vec<OsString>> {
        let mut names = with_context("list", dir.path(), retry_eintr(|| self.ops.list(dir)))?;
        names.sort();
        Ok(names)
    }

    /// The metadata of `name`, if it exists; links are not followed.
    pub fn stat(&self, dir: &Dir, name: impl AsRef<OsStr>) -> FsResult<Option<Stat>> {
        ok_if_missing(with_context(
            "look at",
            &dir.path_of(&name),
            retry_eintr(|| self.ops.stat(dir, name.as_ref())),
        ))
    }

    /// The metadata of an open file.
    pub fn fstat(&self, file: &File, path: &Path) -> FsResult<Stat> {
        with_context("look at", path, retry_eintr(|| self.ops.fstat(file)))
    }

    /// Opens a file, if it exists. A file with a second name (a hard link) is not opened for
    /// writing (`EMLINK`): that name may lie outside the root, and the write would change the file
    /// there, too.
    pub fn open(
        &self,
        dir: &Dir,
        name: impl AsRef<OsStr>,
        access: Access,
    ) -> FsResult<Option<File>> {
        if matches!(access, Access::Append | Access::Overwrite) {
            let Some(stat) = self.stat(dir, &name)? else { return Ok(None) };
            if stat.kind == FileKind::Regular && stat.nlink > 1 {
                return with_context("open", &dir.path_of(&name), Err(Errno::MLINK.into()));
            }
        }
        ok_if_missing(with_context(
            "open",
            &dir.path_of(&name),
            retry_eintr(|| self.ops.open(dir, name.as_ref(), access)),
        ))
    }

    /// Opens a file to be locked and written from its beginning, and creates it where it is
    /// missing.
    pub fn open_to_lock(&self, dir: &Dir, name: impl AsRef<OsStr>) -> FsResult<(File, Origin)> {
        let mut origin = Origin::Found;
        loop {
            if let Some(file) = self.open(dir, &name, Access::Overwrite)? {
                return Ok((file, origin));
            }
            match self.create(dir, &name) {
                Err(error) if error.is(Errno::EXIST) => {}
                // Reopened: the descriptor of a created file appends.
                result => origin = result.map(|_| Origin::Made)?,
            }
        }
    }

    /// Opens a file for appending, and creates it where it is missing.
    pub fn open_or_make(&self, dir: &Dir, name: impl AsRef<OsStr>) -> FsResult<(File, Origin)> {
        loop {
            if let Some(file) = self.open(dir, &name, Access::Append)? {
                return Ok((file, Origin::Found));
            }
            match self.create(dir, &name) {
                Err(error) if error.is(Errno::EXIST) => {}
                result => return result.map(|file| (file, Origin::Made)),
            }
        }
    }

    /// Creates a new file for writing; `EEXIST` if the name is taken.
    pub fn create(&self, dir: &Dir, name: impl AsRef<OsStr>) -> FsResult<File> {
        let path = dir.path_of(&name);
        with_context(
            "create",
            &path,
            retry_eintr(|| self.ops.open(dir, name.as_ref(), Access::CreateNew)),
        )
    }

    /// Reads a whole file if it exists, up to `limit` bytes.
    pub fn read(
        &self,
        dir: &Dir,
        name: impl AsRef<OsStr>,
        limit: u64,
    ) -> FsResult<Option<Content>> {
        let path = dir.path_of(&name);
        let Some(file) = self.open(dir, &name, Access::Read)? else {
            return Ok(None);
        };
        let stat = self.fstat(&file, &path)?;
        if stat.kind != FileKind::Regular || stat.size > limit {
            return Ok(Some(Content { bytes: Vec::new(), size: Completeness::OverLimit, stat }));
        }
        // One byte more than the size: a file that ends there needs no second read.
        let expected = usize::try_from(stat.size).unwrap_or(usize::MAX);
        let mut bytes = with_context("read", &path, zeroed(expected.saturating_add(1)))?;
        let mut length = 0;
        while let Some(rest) = bytes.get_mut(length..).filter(|rest| !rest.is_empty()) {
            let count = with_context("read", &path, retry_eintr(|| self.ops.read(&file, rest)))?;
            if count == 0 {
                break;
            }
            length += count;
            if length == expected {
                break;
            }
            if length == bytes.len() {
                // It grew while it was read: another program is writing it.
                if length as u64 > limit {
                    return Ok(Some(Content { bytes, size: Completeness::OverLimit, stat }));
                }
                bytes.resize(length.saturating_mul(2), 0);
            }
        }
        bytes.truncate(length);
        Ok(Some(Content { bytes, size: Completeness::Whole, stat }))
    }

    /// The metadata of a regular file that holds exactly these bytes, else `None`. It is never in
    /// memory as a whole.
    pub fn stat_if_same(
        &self,
        dir: &Dir,
        name: impl AsRef<OsStr>,
        bytes: &[u8],
    ) -> FsResult<Option<Stat>> {
        const PIECE: usize = 128 << 10;
        let path = dir.path_of(&name);
        let Some(file) = self.open(dir, &name, Access::Read)? else {
            return Ok(None);
        };
        let stat = self.fstat(&file, &path)?;
        if stat.kind != FileKind::Regular || stat.size != bytes.len() as u64 {
            return Ok(None);
        }
        let mut buffer = vec![0; bytes.len().min(PIECE)];
        let mut rest = bytes;
        while !rest.is_empty() {
            let count = self.read_some(&file, &path, &mut buffer)?;
            match rest.split_at_checked(count) {
                Some((these, others)) if count > 0 && buffer.starts_with(these) => rest = others,
                _ => return Ok(None),
            }
        }
        Ok(Some(stat))
    }

    /// Reads the next bytes of an open file into `buffer`; returns their number, 0 at the end.
    pub fn read_some(&self, file: &File, path: &Path, buffer: &mut [u8]) -> FsResult<usize> {
        with_context("read", path, retry_eintr(|| self.ops.read(file, buffer)))
    }

    /// Writes all of `bytes`.
    pub fn write(&self, file: &File, path: &Path, bytes: &[u8]) -> FsResult<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let count = with_context("write", path, retry_eintr(|| self.ops.write(file, rest)))?;
            if count == 0 {
                return with_context("write", path, Err(io::ErrorKind::WriteZero.into()));
            }
            rest = rest.get(count..).unwrap_or_default();
        }
        Ok(())
    }

    /// Syncs a file's data. Called once a file: never again after a failure.
    pub fn sync(&self, file: &File, path: &Path) -> FsResult<()> {
        with_context("sync", path, self.ops.sync(file))
    }

    /// Syncs a directory's entries.
    pub fn sync_dir(&self, dir: &Dir) -> FsResult<()> {
        with_context("sync", dir.path(), self.ops.sync_dir(dir))
    }

    /// Gives a file a second name.
    pub fn link(&self, from: At<'_>, to: At<'_>) -> FsResult<()> {
        with_context("link", &to.path(), retry_eintr(|| self.ops.link(from, to)))
    }

    /// Renames a file, replacing the destination.
    pub fn rename(&self, from: At<'_>, to: At<'_>) -> FsResult<()> {
        with_context("replace", &to.path(), retry_eintr(|| self.ops.rename(from, to)))
    }

    /// Removes a name; succeeds if it is missing.
    pub fn unlink(&self, dir: &Dir, name: impl AsRef<OsStr>) -> FsResult<()> {
        ok_if_missing(with_context(
            "remove",
            &dir.path_of(&name),
            retry_eintr(|| self.ops.unlink(dir, name.as_ref())),
        ))
        .map(|_| ())
    }

    /// Removes an empty directory; succeeds if it is missing.
    pub fn remove_dir(&self, dir: &Dir, name: impl AsRef<OsStr>) -> FsResult<()> {
        ok_if_missing(with_context(
            "remove",
            &dir.path_of(&name),
            retry_eintr(|| self.ops.remove_dir(dir, name.as_ref())),
        ))
        .map(|_| ())
    }

    /// Exchanges two names atomically.
    pub fn exchange(&self, one: At<'_>, other: At<'_>) -> FsResult<()> {
        with_context("replace", &other.path(), retry_eintr(|| self.ops.exchange(one, other)))
    }

    /// Makes a symbolic link.
    pub fn symlink(&self, target: &OsStr, dir: &Dir, name: impl AsRef<OsStr>) -> FsResult<()> {
        with_context(
            "make",
            &dir.path_of(&name),
            retry_eintr(|| self.ops.symlink(target, dir, name.as_ref())),
        )
    }

    /// The target of a symbolic link.
    pub fn read_link(&self, dir: &Dir, name: impl AsRef<OsStr>) -> FsResult<OsString> {
        with_context(
            "read",
            &dir.path_of(&name),
            retry_eintr(|| self.ops.read_link(dir, name.as_ref())),
        )
    }

    /// Takes an exclusive flock, waiting no longer than `patience`. The file is returned only with
    /// the lock: an abandoned wait may still get the lock later, and then drops it, even one that
    /// another wait on the same file has got.
    pub fn lock(&self, file: File, path: &Path, patience: Duration) -> FsResult<Locked> {
        match retry_eintr(|| self.ops.lock(&file, patience)) {
            Ok(()) => Ok(Locked::Yes(file)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Locked::TimedOut),
            Err(error) => with_context("lock", path, Err(error)),
        }
    }
}

/// The result of locking a file.
#[derive(Debug)]
pub enum Locked {
    /// The lock is held until the file is closed.
    Yes(File),
    /// Another open file held it for the whole wait.
    TimedOut,
}

fn with_context<T>(operation: &'static str, path: &Path, result: io::Result<T>) -> FsResult<T> {
    match &result {
        Ok(_) => tracing::debug!(operation, path = %path.display()),
        Err(error) => tracing::debug!(operation, path = %path.display(), %error),
    }
    result.map_err(|source| FsError { operation, path: path.to_owned(), source })
}

fn ok_if_missing<T>(result: FsResult<T>) -> FsResult<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// This many zeros; `ENOMEM` where there is no memory for them. Nothing is allocated only to try:
/// freeing it would change how the allocator grows every large list afterwards.
fn zeroed(count: usize) -> io::Result<Vec<u8>> {
    let mut zeros = Vec::new();
    zeros.try_reserve_exact(count).map_err(|_| io::Error::from(Errno::NOMEM))?;
    zeros.resize(count, 0);
    Ok(zeros)
}

/// Repeats a call that a signal interrupted; not without limit, since a broken file system may
/// report it each time.
fn retry_eintr<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    for _ in 0..100 {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
    call()
}
