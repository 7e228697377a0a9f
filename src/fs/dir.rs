//! Open directories, and names in them.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// An open directory; names are looked up in it without following links.
#[derive(Debug)]
pub struct Dir {
    fd: Option<OwnedFd>,
    path: PathBuf,
}

impl Dir {
    /// An open directory, with the path that messages show.
    pub fn new(fd: OwnedFd, path: PathBuf) -> Self {
        Self { fd: Some(fd), path }
    }

    /// The working directory; "names" in it may be whole paths.
    pub fn working() -> Self {
        Self { fd: None, path: PathBuf::new() }
    }

    /// The path of `name` in this directory, for messages and records.
    pub fn path_of(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.path.join(name.as_ref())
    }

    /// The entry `name`, whether it exists or not.
    pub fn entry<'a>(&'a self, name: &'a (impl AsRef<OsStr> + ?Sized)) -> At<'a> {
        At { dir: self, name: name.as_ref() }
    }

    /// The path this directory was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The descriptor, for the `*at` system calls.
    pub fn at(&self) -> BorrowedFd<'_> {
        self.fd.as_ref().map_or(rustix::fs::CWD, AsFd::as_fd)
    }
}

/// A name in a directory.
#[derive(Clone, Copy, Debug)]
pub struct At<'a> {
    /// The directory.
    pub dir: &'a Dir,
    /// The name in it.
    pub name: &'a OsStr,
}

impl At<'_> {
    /// Its path, for messages and records.
    pub fn path(&self) -> PathBuf {
        self.dir.path_of(self.name)
    }
}
