//! A disk that ignores case, as macOS has it: a name leads to the entry that differs by case alone.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use pipeline_state::acl::AclKind;
use pipeline_state::fs::real::Real;
use pipeline_state::fs::{Access, At, Dir, Ops, Stat};

/// The real disk, with names folded.
pub struct Folding;

/// The spelling under which a name exists, or the name itself.
fn folded(dir: &Dir, name: &OsStr) -> OsString {
    let mut found = PathBuf::new();
    for part in Path::new(name) {
        let entries = std::fs::read_dir(dir.path_of(&found)).into_iter().flatten().flatten();
        let mut names = entries.map(|entry| entry.file_name());
        let spelled = names.find(|entry| entry.eq_ignore_ascii_case(part));
        found.push(spelled.as_deref().unwrap_or(part));
    }
    found.into_os_string()
}

/// Calls the real disk with the folded name of an entry.
fn at<T>(at: At<'_>, call: impl FnOnce(At<'_>) -> T) -> T {
    call(at.dir.entry(&folded(at.dir, at.name)))
}

impl Ops for Folding {
    fn open_root(&self, path: &Path) -> io::Result<OwnedFd> {
        Real.open_root(path)
    }
    fn open_dir(&self, dir: &Dir, name: &OsStr) -> io::Result<OwnedFd> {
        Real.open_dir(dir, &folded(dir, name))
    }
    fn make_dir(&self, dir: &Dir, name: &OsStr) -> io::Result<()> {
        Real.make_dir(dir, &folded(dir, name))
    }
    fn list(&self, dir: &Dir) -> io::Result<Vec<OsString>> {
        Real.list(dir)
    }
    fn stat(&self, dir: &Dir, name: &OsStr) -> io::Result<Stat> {
        Real.stat(dir, &folded(dir, name))
    }
    fn open(&self, dir: &Dir, name: &OsStr, access: Access) -> io::Result<File> {
        Real.open(dir, &folded(dir, name), access)
    }
    fn fstat(&self, file: &File) -> io::Result<Stat> {
        Real.fstat(file)
    }
    fn read(&self, file: &File, buffer: &mut [u8]) -> io::Result<usize> {
        Real.read(file, buffer)
    }
    fn write(&self, file: &File, bytes: &[u8]) -> io::Result<usize> {
        Real.write(file, bytes)
    }
    fn sync(&self, file: &File) -> io::Result<()> {
        Real.sync(file)
    }
    fn sync_dir(&self, dir: &Dir) -> io::Result<()> {
        Real.sync_dir(dir)
    }
    fn link(&self, from: At<'_>, to: At<'_>) -> io::Result<()> {
        at(from, |from| at(to, |to| Real.link(from, to)))
    }
    /// The entry keeps its spelling, unless it is the one that is renamed.
    fn rename(&self, from: At<'_>, to: At<'_>) -> io::Result<()> {
        at(from, |from| at(to, |to| Real.rename(from, to)))
    }
    fn unlink(&self, dir: &Dir, name: &OsStr) -> io::Result<()> {
        Real.unlink(dir, &folded(dir, name))
    }
    fn remove_dir(&self, dir: &Dir, name: &OsStr) -> io::Result<()> {
        Real.remove_dir(dir, &folded(dir, name))
    }
    fn exchange(&self, one: At<'_>, other: At<'_>) -> io::Result<()> {
        at(one, |one| at(other, |other| Real.exchange(one, other)))
    }
    fn symlink(&self, target: &OsStr, dir: &Dir, name: &OsStr) -> io::Result<()> {
        Real.symlink(target, dir, &folded(dir, name))
    }
    fn read_link(&self, dir: &Dir, name: &OsStr) -> io::Result<OsString> {
        Real.read_link(dir, &folded(dir, name))
    }
    fn pin(&self, dir: &Dir, name: &OsStr) -> io::Result<File> {
        Real.pin(dir, &folded(dir, name))
    }
    fn set_mode(&self, file: BorrowedFd<'_>, mode: u32) -> io::Result<()> {
        Real.set_mode(file, mode)
    }
    fn set_group(&self, file: BorrowedFd<'_>, gid: u32) -> io::Result<()> {
        Real.set_group(file, gid)
    }
    fn set_mtime(&self, file: BorrowedFd<'_>, mtime: (i64, i64)) -> io::Result<()> {
        Real.set_mtime(file, mtime)
    }
    fn set_link_mtime(&self, dir: &Dir, name: &OsStr, mtime: (i64, i64)) -> io::Result<()> {
        Real.set_link_mtime(dir, &folded(dir, name), mtime)
    }
    fn acl(&self, file: BorrowedFd<'_>, kind: AclKind) -> io::Result<Vec<u8>> {
        Real.acl(file, kind)
    }
    fn set_acl(&self, file: BorrowedFd<'_>, kind: AclKind, acl: &[u8]) -> io::Result<()> {
        Real.set_acl(file, kind, acl)
    }
    fn remove_acl(&self, file: BorrowedFd<'_>, kind: AclKind) -> io::Result<()> {
        Real.remove_acl(file, kind)
    }
    fn lock(&self, file: &File, patience: Duration) -> io::Result<()> {
        Real.lock(file, patience)
    }
    fn try_lock_shared(&self, file: &File) -> io::Result<()> {
        Real.try_lock_shared(file)
    }
    fn now(&self) -> SystemTime {
        Real.now()
    }
}
