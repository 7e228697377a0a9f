//! The root of a working directory: the nearest directory upwards that holds a mark.

use std::path::{Path, PathBuf};

use super::file::{self, Found};
use super::setting::{STORE, Scope};
use crate::fs::{Dir, Disk, FileKind};
use crate::lock::LOCKS;
use crate::store::layout::{BACKUPS, MOVED, SETTINGS, STATE_FILE};
use crate::user;

/// The files that mark a directory as a root, where none is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marks {
    /// A state, its backups, or what says that a store on other machines keeps it.
    State,
    /// Or locks, which need no state.
    StateOrLocks,
}

/// A root that was found. One of another user is never used, but errors name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundRoot {
    /// The root directory.
    pub root: PathBuf,
    /// The file or directory in it that marks it.
    pub mark: PathBuf,
    /// The mark's owner.
    pub owner: u32,
}

/// The nearest directory from here up, or its `.claude`, with a mark owned by this user. The search
/// ends at the boundary of the file system.
pub(super) fn nearest_root(disk: &Disk, here: &Path, marks: Marks) -> Option<PathBuf> {
    let user = user::current();
    search(disk, here, marks, |owner| owner == user).map(|found| found.root)
}

/// The nearest root of another user, from here up.
pub fn foreign_root(disk: &Disk, here: &Path, marks: Marks) -> Option<FoundRoot> {
    let user = user::current();
    search(disk, here, marks, |owner| owner != user)
}

/// Returns whether a root's configuration file names a store, so that there is a state although no
/// file is here.
fn names_a_store(disk: &Disk, path: &Path) -> bool {
    match file::read(disk, Scope::Root, path.to_owned()) {
        Found::Read(file) => file.get(STORE.name).is_some(),
        Found::Missing | Found::Refused(_) => false,
    }
}

fn search(
    disk: &Disk,
    here: &Path,
    marks: Marks,
    is_wanted: impl Fn(u32) -> bool,
) -> Option<FoundRoot> {
    let look = |path: &Path| disk.stat(&Dir::working(), path).ok().flatten();
    let mark = |root: &Path, name: &str, kind: FileKind| {
        let stat = look(&root.join(name))?;
        let is_mark = is_wanted(stat.uid) && (stat.kind == kind || stat.kind == FileKind::Symlink);
        is_mark.then(|| FoundRoot { root: root.to_owned(), mark: root.join(name), owner: stat.uid })
    };
    let marked = |root: &Path| {
        mark(root, STATE_FILE, FileKind::Regular)
            .or_else(|| mark(root, BACKUPS, FileKind::Directory))
            .or_else(|| {
                mark(root, LOCKS, FileKind::Directory).filter(|_| marks == Marks::StateOrLocks)
            })
            .or_else(|| mark(root, MOVED, FileKind::Regular))
            .or_else(|| {
                let found = mark(root, SETTINGS, FileKind::Regular)?;
                names_a_store(disk, &found.mark).then_some(found)
            })
    };
    let mut device = None;
    for dir in here.ancestors() {
        let stat = look(dir)?;
        if *device.get_or_insert(stat.dev) != stat.dev {
            break;
        }
        if let Some(found) = marked(dir) {
            return Some(found);
        }
        // A link of that name that leads out of `dir` may have come with it, and would make a
        // command that runs here write there.
        let inner = dir.join(".claude");
        let is_inside = || {
            let real = |path: &Path| path.canonicalize().ok();
            real(&inner).zip(real(dir)).is_some_and(|(inner, dir)| inner.starts_with(dir))
        };
        let is_own = match look(&inner).map(|stat| stat.kind) {
            Some(FileKind::Directory) => true,
            Some(FileKind::Symlink) => is_inside(),
            _ => false,
        };
        if is_own && let Some(found) = marked(&inner) {
            return Some(found);
        }
    }
    None
}
