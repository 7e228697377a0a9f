//! Side directories: opened relative to the root without following links. They belong to this user,
//! or are refused (6).

use std::path::Path;

use rustix::io::Errno;

use crate::error::{Error, Kind, Result, quote_path};
use crate::fs::{Dir, Disk, FsError};
use crate::store::layout::{BACKUPS, SIDE_DIRECTORIES};
use crate::user;

/// Opens a side directory of this user, and creates it (0700) where it is missing.
pub fn open(disk: &Disk, root: &Dir, name: &str) -> Result<Dir> {
    open_unless(disk, root, name, || Ok(()))
}

/// [`open`], where a check may refuse to create the directory.
pub fn open_unless(
    disk: &Disk,
    root: &Dir,
    name: &str,
    refuse: impl FnOnce() -> Result<()>,
) -> Result<Dir> {
    let open = || disk.open_dir(root, name);
    let dir = match open() {
        Err(error) if error.is(Errno::NOENT) => {
            check_owner(disk, root)?;
            refuse()?;
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
        Some(stat) if stat.uid != user::current() => Err(foreign_owner(dir.path(), stat.uid)),
        Some(stat) if stat.mode & 0o022 != 0 => {
            let word = quote_path(dir.path());
            let why = format!("may be written by others (mode {:04o})", stat.mode);
            let hint = "once you know that no other user put something there";
            Err(unsafe_path(dir.path(), &why).hint_shell(format!("chmod 700 {word}"), hint))
        }
        _ => Ok(()),
    }
}

/// Refuses to create a side directory where another user keeps a state: root could.
fn check_owner(disk: &Disk, root: &Dir) -> Result<()> {
    match disk.stat(root, BACKUPS)? {
        Some(stat) if stat.uid != user::current() => {
            Err(foreign_owner(&root.path_of(BACKUPS), stat.uid))
        }
        _ => Ok(()),
    }
}

/// The warning for root before it creates the first files of a root in another user's directory:
/// these would be root's. `None` where that is not about to happen.
pub fn warning_for_root(disk: &Disk, root: &Path) -> Option<String> {
    if user::current() != 0 {
        return None;
    }
    let look = |path: &Path| disk.stat(&Dir::working(), path);
    let owner = look(root).ok()??.uid;
    let is_there = |name: &str| !matches!(look(&root.join(name)), Ok(None));
    if owner == 0 || SIDE_DIRECTORIES.into_iter().any(is_there) {
        return None;
    }
    let name = user::as_operand(owner);
    let name = name.strip_prefix('+').map_or(name.clone(), |number| format!("'#{number}'"));
    Some(format!(
        "{} belongs to {}, and what is made here will belong to root, so that user cannot write \
         it; work as that user instead: sudo -u {} -s",
        root.display(),
        user::describe(owner),
        name,
    ))
}

/// Opens a side directory for reading, if it exists.
pub fn open_to_read(disk: &Disk, root: &Dir, name: &str) -> Result<Option<Dir>> {
    match disk.open_dir(root, name) {
        Ok(dir) => Ok(Some(dir)),
        Err(error) if error.is(Errno::NOENT) => Ok(None),
        Err(error) => Err(refusal(root, name, error)),
    }
}

/// Opens the directory that the user named, which contains the side directories.
pub fn open_root(disk: &Disk, path: &Path) -> Result<Dir> {
    disk.open_root(path).map_err(|error| {
        let shown = path.display().to_string();
        let word = quote_path(path);
        let failure = |what| {
            Error::new(Kind::DependencyMissing, format!("the state's directory {shown} {what}"))
        };
        let failure = if error.is(Errno::NOENT) {
            let why = "make it, or name another with --root or --state-file";
            failure("does not exist").hint_shell(format!("mkdir -p {word}"), why)
        } else if error.is(Errno::NOTDIR) {
            failure("is not a directory").hint_shell(format!("ls -ld {word}"), "see what it is")
        } else {
            return error.into();
        };
        failure.detail("path", shown)
    })
}

/// The reason why other users may replace files in a root directory: they may write it, and no
/// sticky bit protects the files of others. To follow "the root PATH"; `None` if they may not.
pub fn open_to_others(disk: &Disk, root: &Dir) -> Result<Option<String>> {
    let Some(stat) = disk.stat(root, ".")? else { return Ok(None) };
    let mode = stat.mode;
    let by_group = mode & 0o020 != 0 && !is_private_group(stat.gid, stat.uid);
    if mode & 0o1000 != 0 || mode & 0o002 == 0 && !by_group {
        return Ok(None);
    }
    let whom = if mode & 0o002 != 0 { "others" } else { "its group" };
    Ok(Some(format!(
        "may be written by {whom} (mode {mode:04o}), and with that the state's files can be \
         replaced"
    )))
}

/// Returns whether a group has no member but this user, according to `/etc`: many systems give each
/// user such a group, and make directories that it may write.
fn is_private_group(gid: u32, uid: u32) -> bool {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let (groups, users) = (read("/etc/group"), read("/etc/passwd"));
    let field = |line: &str, place| line.split(':').nth(place).map(str::to_owned);
    let is = |line: &str, place, number: u32| field(line, place) == Some(number.to_string());
    let Some(group) = groups.lines().find(|line| is(line, 2, gid)) else { return false };
    let names: Vec<_> =
        users.lines().filter(|line| is(line, 2, uid)).filter_map(|line| field(line, 0)).collect();
    let members = field(group, 3).unwrap_or_default();
    let is_user = |member: &str| names.iter().any(|name| name == member);
    members.split(',').all(|member| member.is_empty() || is_user(member))
        && users.lines().filter(|line| is(line, 3, gid)).all(|line| is(line, 2, uid))
}

/// The name in a word that may be a path into a side directory, as commands print it and shells
/// complete it. A path that leads elsewhere is returned unchanged.
pub fn name_in<'w>(root: &Path, side: &str, word: &'w str) -> &'w str {
    let Some((dir, name)) = word.trim_end_matches('/').rsplit_once('/') else { return word };
    match (Path::new(dir).canonicalize(), root.join(side).canonicalize()) {
        (Ok(named), Ok(side)) if named == side => name,
        _ => word,
    }
}

/// The refusal of a side directory that is a link, or not a directory.
pub fn refusal(root: &Dir, name: &str, error: FsError) -> Error {
    if error.is(Errno::LOOP) || error.is(Errno::NOTDIR) {
        let path = root.path_of(name);
        let shown = quote_path(&path);
        unsafe_path(&path, "is not a directory of its own (it is a symbolic link or a file)")
            .hint_shell(
                format!("mv {shown} {shown}.aside"),
                "move it away, if it is nothing that you know",
            )
    } else {
        error.into()
    }
}

/// The refusal (6) of a file or directory of another user.
pub fn foreign_owner(path: &Path, owner: u32) -> Error {
    let shown = path.display().to_string();
    let (owner_name, own_name) = (user::describe(owner), user::describe(user::current()));
    let message = format!("{shown} belongs to {owner_name}, not to you, {own_name}");
    let mut error =
        Error::new(Kind::ForeignOwner, message).detail("path", shown).detail("uid", owner);
    error = error.detail("user", user::name(owner));
    error.hints.push(user::use_as(owner));
    error
}

/// The refusal of a file of an unexpected kind.
pub fn unsafe_path(path: &Path, why: &str) -> Error {
    let shown = path.display().to_string();
    Error::new(Kind::UnsafePath, format!("{shown} {why}"))
        .hint_shell(format!("ls -ld {}", quote_path(path)), "see what it is")
        .detail("path", shown)
}
