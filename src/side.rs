//! Side directories: opened relative to the root without following links; ours, or refused (6).

use std::path::Path;
use std::sync::OnceLock;

use rustix::io::Errno;

use crate::error::{Error, Kind, Result, quote_path, use_as};
use crate::fs::{Dir, Disk, FsError};
use crate::user;

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
    check(disk, root, name, &dir)?;
    Ok(dir)
}

/// Refuses (6) a side directory of another user, or one that others may write.
pub fn check(disk: &Disk, root: &Dir, name: &str, dir: &Dir) -> Result<()> {
    match disk.stat(root, name)? {
        Some(stat) if stat.uid != user() => Err(foreign_owner(dir.path(), stat.uid)),
        Some(stat) if stat.mode & 0o022 != 0 => {
            let word = quote_path(dir.path());
            let why = format!("may be written by others (mode {:04o})", stat.mode);
            let hint = "once you know that no other user put something there";
            Err(unsafe_path(dir.path(), &why).try_shell(format!("chmod 700 {word}"), hint))
        }
        _ => Ok(()),
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

/// A refusal (6) to work with a file or directory of another user.
#[must_use]
pub fn foreign_owner(path: &Path, owner: u32) -> Error {
    let shown = path.display().to_string();
    let (owner_name, own_name) = (user::describe(owner), user::describe(user()));
    let message = format!("{shown} belongs to {owner_name}, not to you, {own_name}");
    let mut error = Error::new(Kind::UnsafePath, message).detail("path", shown).detail("owner", owner);
    error.hints.push(use_as(owner));
    error
}

/// A refusal to touch something that is not what it should be.
#[must_use]
pub fn unsafe_path(path: &Path, why: &str) -> Error {
    let shown = path.display().to_string();
    Error::new(Kind::UnsafePath, format!("{shown} {why}"))
        .try_shell(format!("ls -ld {}", quote_path(path)), "see what it is")
        .detail("path", shown)
}
