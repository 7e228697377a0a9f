//! Tests whether a process holds an flock on a file, without disturbing it or other tests.

use std::ffi::OsStr;
use std::io;

use super::{Access, Dir, Disk, FileKind, FsResult, retry_eintr, with_context};

/// The result of testing a file's flock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// An open file has an exclusive flock on it.
    Locked,
    /// No open file has one.
    Free,
    /// There is no file of this name.
    Missing,
    /// A link, directory, pipe or device has this name. It is not opened.
    NotRegular,
}

impl Disk {
    /// Tests the flock of `name` in `dir` by a shared one that does not wait and is dropped at
    /// once. Two tests never see each other. Only a regular file is opened, and links are not
    /// followed.
    pub fn probe(&self, dir: &Dir, name: impl AsRef<OsStr>) -> FsResult<Probe> {
        match self.stat(dir, &name)? {
            None => return Ok(Probe::Missing),
            Some(stat) if stat.kind != FileKind::Regular => return Ok(Probe::NotRegular),
            Some(_) => {}
        }
        let Some(file) = self.open(dir, &name, Access::Read)? else { return Ok(Probe::Missing) };
        match retry_eintr(|| self.ops.try_lock_shared(&file)) {
            Ok(()) => Ok(Probe::Free),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Probe::Locked),
            Err(error) => with_context("lock", &dir.path_of(&name), Err(error)),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use std::time::Duration;

    use crate::fs::Locked;

    #[test]
    fn tests_see_the_lock_and_not_each_other() {
        let place = tempfile::tempdir().unwrap();
        let disk = Disk::real();
        let dir = disk.open_root(place.path()).unwrap();
        let file = disk.create(&dir, "x").unwrap();
        let other = disk.open(&dir, "x", Access::Read).unwrap().unwrap();
        disk.ops.try_lock_shared(&other).unwrap();
        assert_eq!(disk.probe(&dir, "x").unwrap(), Probe::Free, "another test is under way");
        drop(other);
        let Locked::Yes(file) = disk.lock(file, &dir.path_of("x"), Duration::ZERO).unwrap() else {
            panic!()
        };
        assert_eq!(disk.probe(&dir, "x").unwrap(), Probe::Locked);
        drop(file);
        assert_eq!(disk.probe(&dir, "x").unwrap(), Probe::Free);
    }

    #[test]
    fn nothing_but_a_regular_file_is_opened() {
        let place = tempfile::tempdir().unwrap();
        let disk = Disk::real();
        let dir = disk.open_root(place.path()).unwrap();
        assert_eq!(disk.probe(&dir, "x").unwrap(), Probe::Missing);
        std::fs::create_dir(place.path().join("d")).unwrap();
        std::os::unix::fs::symlink("d", place.path().join("l")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            place.path().join("p"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        for name in ["d", "l", "p"] {
            assert_eq!(disk.probe(&dir, name).unwrap(), Probe::NotRegular, "{name}");
        }
    }
}
