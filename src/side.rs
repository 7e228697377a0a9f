//! Side directories: opened relative to the root without following links; ours, or refused (6).

use std::path::Path;
use std::sync::OnceLock;

use rustix::io::Errno;

use crate::error::{Error, Kind, Result, quote_path};
use crate::fs::{Dir, Disk, FsError};

/// Who we are: what others own is not trusted. It never changes here.
#[must_use]
pub fn user() -> u32 {
    static USER: OnceLock<u32> = OnceLock::new();
    *USER.get_or_init(|| rustix::process::geteuid().as_raw())
}

/// Opens a side directory of ours, making it (0700) where it is missing.
pub fn open(disk: &Disk, root: &Dir, name: &str) -> Result<Dir> {
    let open = || disk.open_dir(root, name);
    let dir = match open() {
        Err(error) if error.is(Errno::NOENT) => {
            disk.make_dir(root, name)?;
            open()
        }
        result => result,
    };
    let dir = dir.map_err(|error| refusal(root, name, error))?;
    let user = user();
    match disk.stat(root, name)? {
        Some(stat) if stat.uid != user => {
            Err(unsafe_path(dir.path(), &format!("belongs to user {}, not to you ({user})", stat.uid)))
        }
        Some(stat) if stat.mode & 0o022 != 0 => {
            let word = quote_path(dir.path());
            let refusal = unsafe_path(dir.path(), &format!("may be written by others (mode {:04o})", stat.mode));
            Err(refusal.try_shell(format!("chmod 700 {word}"), "once you know that nobody else put something there"))
        }
        _ => Ok(dir),
    }
}

/// Opens a side directory to read it, if it is there.
pub fn open_to_read(disk: &Disk, root: &Dir, name: &str) -> Result<Option<Dir>> {
    match disk.open_dir(root, name) {
        Ok(dir) => Ok(Some(dir)),
        Err(error) if error.is(Errno::NOENT) => Ok(None),
        Err(error) => Err(refusal(root, name, error)),
    }
}

/// Opens the directory that the user named, where side directories lie.
pub fn open_root(disk: &Disk, path: &Path) -> Result<Dir> {
    disk.open_root(path).map_err(|error| {
        let shown = path.display().to_string();
        let word = quote_path(path);
        let failure = |what| Error::new(Kind::DependencyMissing, format!("the state's directory {shown} {what}"));
        let failure = if error.is(Errno::NOENT) {
            let why = "make it, or name another with --root or --state-file";
            failure("does not exist").try_shell(format!("mkdir -p {word}"), why)
        } else if error.is(Errno::NOTDIR) {
            failure("is not a directory").try_shell(format!("ls -ld {word}"), "see what it is")
        } else {
            return error.into();
        };
        failure.detail("path", shown)
    })
}

/// The name in a word that may be a path to something in a side directory, as commands print it and shells complete it. A path
/// that leads elsewhere is no name, and stays what it is.
#[must_use]
pub fn name_in<'w>(root: &Path, side: &str, word: &'w str) -> &'w str {
    let Some((dir, name)) = word.trim_end_matches('/').rsplit_once('/') else { return word };
    match (Path::new(dir).canonicalize(), root.join(side).canonicalize()) {
        (Ok(named), Ok(side)) if named == side => name,
        _ => word,
    }
}

/// A side directory that is a link, or no directory at all, is refused.
#[must_use]
pub fn refusal(root: &Dir, name: &str, error: FsError) -> Error {
    if error.is(Errno::LOOP) || error.is(Errno::NOTDIR) {
        unsafe_path(&root.path_of(name), "is not a directory of its own (a symbolic link or a file stands there)")
    } else {
        error.into()
    }
}

/// A refusal to touch something that is not what it should be.
#[must_use]
pub fn unsafe_path(path: &Path, why: &str) -> Error {
    let shown = path.display().to_string();
    Error::new(Kind::UnsafePath, format!("{shown} {why}"))
        .try_shell(format!("ls -ld {}", quote_path(path)), "see what it is")
        .detail("path", shown)
}
