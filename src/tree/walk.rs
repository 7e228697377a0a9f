//! Trees listed, copied and removed. No link is ever followed, and no mount point inside a tree is
//! ever entered.

use std::ffi::OsStr;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use super::{Entry, Listing, What};
use crate::acl::{AclKind, Acls};
use crate::clutter::{is_below_clutter, is_clutter};
use crate::document::seal::Digest;
use crate::error::{Error, Kind, Result, quote_path};
use crate::fs::{Access, At, Dir, Disk, FileKind, FsError, FsResult, Stat};
use crate::side::unsafe_path;
use crate::user;

/// The deepest nesting of directories in a tree that is kept; each level costs two descriptors
/// while it is copied.
pub const DEPTH: usize = 64;
/// The bits of a mode that a copy keeps. A copy belongs to its maker, and setuid or setgid would
/// lend that user's rights to others; a setgid bit of a directory is inherited from its parent
/// instead.
pub const MODE_BITS: u32 = 0o777;
const SETGID: u32 = 0o2000;

/// The modes and times of a copy.
#[derive(Clone, Copy, Debug)]
pub enum Attributes<'a> {
    /// Files of 0600 in directories of 0700.
    Ours,
    /// Those of a listing.
    Listed(&'a Listing),
}

/// Returns whether a file system is mounted there; false if it cannot be determined.
pub fn is_mount_point(dir: &Dir, name: &OsStr) -> bool {
    crate::os::files::is_mount_point(dir.at(), name)
}

/// Refuses a tree that could not be kept: `name` in `dir` exists, but is not a directory of this
/// file system.
pub fn check(disk: &Disk, dir: &Dir, name: &str) -> Result<()> {
    disk.stat(dir, name)?.map_or(Ok(()), |stat| check_directory(dir.entry(name), stat))
}

fn check_directory(at: At<'_>, stat: Stat) -> Result<()> {
    if stat.kind == FileKind::Directory {
        return Ok(());
    }
    let why = "is not a directory of its own (it is a symbolic link or a file)";
    let word = quote_path(&at.path());
    Err(unsafe_path(&at.path(), why).hint_shell(format!("mv {word} {word}.old"), "move it away"))
}

fn check_own(at: At<'_>, stat: Stat) -> Result<()> {
    check_directory(at, stat)?;
    if is_mount_point(at.dir, at.name) {
        Err(unsafe_path(&at.path(), "is a mount point"))
    } else {
        Ok(())
    }
}

/// Lists the tree `name` in `dir` and digests its files; `None` if there is none.
pub fn list(disk: &Disk, dir: &Dir, name: &str) -> Result<Option<Listing>> {
    walk(disk, dir.entry(name), None, DEPTH)
}

/// Lists a directory that contains trees, and so nests one level deeper.
pub fn list_holding(disk: &Disk, dir: &Dir) -> Result<Listing> {
    Ok(walk(disk, dir.entry("."), None, DEPTH + 1)?.unwrap_or_default())
}

/// Copies the tree `name` in `from` to a new directory and syncs it, except the new directory's own
/// name. Returns the entries with their attributes: those applied by a listing, else those of the
/// original. `None` if there is none. By a listing, directories without files are created where the
/// original lost them, and clutter that differs from the listing is left out.
pub fn copy(
    disk: &Disk,
    from: At<'_>,
    to: At<'_>,
    attributes: Attributes<'_>,
) -> Result<Option<Listing>> {
    walk(disk, from, Some(Copy { to, attributes }), DEPTH)
}

/// The same, without entries that cannot be kept below the top; these are returned, each with the
/// reason.
pub fn copy_what_can_be_kept(
    disk: &Disk,
    from: At<'_>,
    to: At<'_>,
    attributes: Attributes<'_>,
) -> Result<Option<(Listing, Vec<String>)>> {
    let Some(stat) = disk.stat(from.dir, from.name)? else { return Ok(None) };
    let mut walk = Walk { disk, entries: Vec::new(), deepest: DEPTH, left: Some(Vec::new()) };
    walk.directory(from, stat, String::new(), Some(Copy { to, attributes }), 0)?;
    Ok(Some((Listing::new(walk.entries), walk.left.unwrap_or_default())))
}

/// Returns whether an error reports that a tree holds an entry that cannot be kept.
pub fn cannot_be_kept(error: &Error) -> bool {
    matches!(
        error.kind,
        Kind::UnsafePath | Kind::InvalidName | Kind::TooLarge | Kind::PermissionDenied
    )
}

/// The destination of a copy.
#[derive(Clone, Copy)]
struct Copy<'a> {
    to: At<'a>,
    attributes: Attributes<'a>,
}

impl<'a> Copy<'a> {
    fn listing(&self) -> Option<&'a Listing> {
        match self.attributes {
            Attributes::Listed(listing) => Some(listing),
            Attributes::Ours => None,
        }
    }
}

fn walk(
    disk: &Disk,
    from: At<'_>,
    copy: Option<Copy<'_>>,
    deepest: usize,
) -> Result<Option<Listing>> {
    let mut walk = Walk { disk, entries: Vec::new(), deepest, left: None };
    let Some(stat) = disk.stat(from.dir, from.name)? else {
        let Some((copy, listing)) = copy.and_then(|copy| Some((copy, copy.listing()?))) else {
            return Ok(None);
        };
        let Some(top) = listing.get("").filter(|top| top.what == What::Directory) else {
            return Ok(None);
        };
        walk.lost_directory(copy.to, top, listing)?;
        return Ok(Some(Listing::new(walk.entries)));
    };
    walk.directory(from, stat, String::new(), copy, 0)?;
    Ok(Some(Listing::new(walk.entries)))
}

struct Walk<'a> {
    disk: &'a Disk,
    entries: Vec<Entry>,
    deepest: usize,
    /// Entries that cannot be kept, where the rest is kept without them.
    left: Option<Vec<String>>,
}

impl Walk<'_> {
    fn directory(
        &mut self,
        at: At<'_>,
        stat: Stat,
        path: String,
        copy: Option<Copy<'_>>,
        depth: usize,
    ) -> Result<()> {
        // The tree itself may be a mount; a mount inside it is not a part of it.
        if depth == 0 {
            check_directory(at, stat)?;
        } else {
            check_own(at, stat)?;
        }
        let shown = at.path();
        if depth > self.deepest {
            let message = format!("{} is nested deeper than {DEPTH} directories", shown.display());
            let word = quote_path(&shown);
            return Err(Error::new(Kind::TooLarge, message)
                .hint_shell(format!("ls -ld {word}"), "see what it is"));
        }
        let from = self.disk.open_dir(at.dir, at.name).map_err(|error| moved(&shown, error))?;
        let to = copy.map(|copy| make_new(self.disk, copy.to)).transpose()?;
        let listing = copy.and_then(|copy| copy.listing());
        for entry in self.disk.list(&from)? {
            let is_listed = |listing: &Listing| {
                entry.to_str().is_some_and(|word| listing.get(&joined(&path, word)).is_some())
            };
            if is_clutter(&entry) && listing.is_some_and(|listing| !is_listed(listing)) {
                continue;
            }
            let copy =
                to.as_ref().zip(copy).map(|(to, copy)| Copy { to: to.entry(&entry), ..copy });
            match (self.entry(from.entry(&entry), &path, copy, depth), &mut self.left) {
                (Err(error), Some(left)) if cannot_be_kept(&error) => left.push(error.message),
                (result, _) => result?,
            }
        }
        if let Some((to, listing)) = to.as_ref().zip(listing) {
            for lost in listing.directories_in(&path) {
                let name = lost.path.rsplit('/').next().unwrap_or_default();
                if self.disk.stat(to, name)?.is_none() {
                    self.lost_directory(to.entry(name), lost, listing)?;
                }
            }
        }
        let mut entry = Entry {
            acls: self.acls_of(from.at(), from.path(), What::Directory)?,
            path,
            what: What::Directory,
            mode: stat.mode & MODE_BITS,
            mtime: stat.mtime,
        };
        if let Some((copy, made)) = copy.zip(to) {
            self.dress(Made::of(&made), &mut entry, copy.attributes)?;
            self.disk.sync_dir(&made)?;
        }
        self.entries.push(entry);
        Ok(())
    }

    /// Creates a listed directory that the original lost, with the directories in it.
    fn lost_directory(&mut self, at: At<'_>, lost: &Entry, listing: &Listing) -> Result<()> {
        let made = make_new(self.disk, at)?;
        for inner in listing.directories_in(&lost.path) {
            let name = inner.path.rsplit('/').next().unwrap_or_default();
            self.lost_directory(made.entry(name), inner, listing)?;
        }
        let mut entry = lost.clone();
        self.dress(Made::of(&made), &mut entry, Attributes::Listed(listing))?;
        self.disk.sync_dir(&made)?;
        self.entries.push(entry);
        Ok(())
    }

    fn entry(
        &mut self,
        at: At<'_>,
        path: &str,
        copy: Option<Copy<'_>>,
        depth: usize,
    ) -> Result<()> {
        let Some(word) = at.name.to_str() else {
            let message = format!("the name {} is not UTF-8", at.path().display());
            let word = quote_path(&at.path());
            return Err(Error::new(Kind::InvalidName, message)
                .hint_shell(format!("ls -ld {word}"), "rename it"));
        };
        let below = joined(path, word);
        let Some(stat) = self.disk.stat(at.dir, at.name)? else {
            return Err(changed(&at.path()));
        };
        match stat.kind {
            FileKind::Directory => self.directory(at, stat, below, copy, depth + 1),
            FileKind::Regular => self.file(at, below, copy),
            FileKind::Symlink => self.link(at, stat, below, copy),
            FileKind::Special => {
                let why = "is a device, pipe or socket, and only files, directories and links can \
                           be kept";
                Err(unsafe_path(&at.path(), why))
            }
        }
    }

    fn file(&mut self, at: At<'_>, path: String, copy: Option<Copy<'_>>) -> Result<()> {
        let shown = at.path();
        let opened =
            self.disk.open(at.dir, at.name, Access::Read).map_err(|error| moved(&shown, error))?;
        let Some(file) = opened else { return Err(changed(&shown)) };
        let before = self.disk.fstat(&file, &shown)?;
        let to = match copy {
            Some(Copy { to, .. }) => Some((self.disk.create(to.dir, to.name)?, to.path())),
            None => None,
        };
        let (mut hash, mut bytes) = (Sha256::new(), 0);
        let mut buffer = vec![0; 128 << 10];
        loop {
            let count = self.disk.read_some(&file, &shown, &mut buffer)?;
            let Some(part) = buffer.get(..count).filter(|part| !part.is_empty()) else { break };
            hash.update(part);
            bytes += count as u64;
            if let Some((to, path)) = &to {
                self.disk.write(to, path, part)?;
            }
        }
        if !before.unchanged(&self.disk.fstat(&file, &shown)?) || before.size != bytes {
            return Err(changed(&shown));
        }
        let what = What::File { bytes, sha256: Digest::finish(hash) };
        let acls = self.acls_of(file.as_fd(), &shown, what.clone())?;
        let mut entry =
            Entry { path, what, mode: before.mode & MODE_BITS, mtime: before.mtime, acls };
        if let Some((copy, (made, shown))) = copy.zip(to) {
            let made_file = Made { file: made.as_fd(), shown: &shown };
            self.dress(made_file, &mut entry, copy.attributes)?;
            self.disk.sync(&made, &shown)?;
        }
        if let Some(Copy { to, attributes: Attributes::Listed(listing) }) = copy
            && is_below_clutter(&entry.path)
            && listing.get(&entry.path).is_none_or(|listed| listed.what != entry.what)
        {
            return Ok(self.disk.unlink(to.dir, to.name)?);
        }
        self.entries.push(entry);
        Ok(())
    }

    fn link(&mut self, at: At<'_>, stat: Stat, path: String, copy: Option<Copy<'_>>) -> Result<()> {
        let target = self.disk.read_link(at.dir, at.name)?;
        let Some(text) = target.to_str().map(str::to_owned) else {
            let message = format!("{} leads to a name that is not UTF-8", at.path().display());
            let word = quote_path(&at.path());
            return Err(Error::new(Kind::InvalidName, message)
                .hint_shell(format!("ls -ld {word}"), "see what it is"));
        };
        if let Some(copy) = copy {
            self.disk.symlink(&target, copy.to.dir, copy.to.name)?;
            if let Some(entry) = copy.listing().and_then(|listing| listing.get(&path)) {
                self.disk.set_link_mtime(copy.to.dir, copy.to.name, entry.mtime)?;
            }
        }
        self.entries.push(Entry {
            path,
            what: What::Link { target: text },
            mode: 0o777,
            mtime: stat.mtime,
            acls: Acls::default(),
        });
        Ok(())
    }

    fn acls_of(&self, file: BorrowedFd<'_>, shown: &Path, what: What) -> FsResult<Acls> {
        let access = self.disk.acl(file, shown, AclKind::Access)?;
        let default = match what {
            What::Directory => self.disk.acl(file, shown, AclKind::Default)?,
            _ => None,
        };
        Ok(Acls { access, default })
    }

    /// Applies a listing's attributes to a copy, and records in `entry` those that were applied. A
    /// directory gets them once its contents are complete.
    fn dress(&self, made: Made<'_>, entry: &mut Entry, attributes: Attributes<'_>) -> FsResult<()> {
        if let Attributes::Listed(listing) = attributes
            && let Some(wanted) = listing.get(&entry.path)
        {
            (entry.mode, entry.acls) = dress(self.disk, made, wanted)?;
            entry.mtime = wanted.mtime;
        }
        Ok(())
    }
}

fn joined(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") }
}

/// An open file or directory that was just made.
#[derive(Clone, Copy, Debug)]
pub struct Made<'a> {
    /// Its descriptor.
    pub file: BorrowedFd<'a>,
    /// Its path, for messages.
    pub shown: &'a Path,
}

impl<'a> Made<'a> {
    /// A directory that was just made.
    pub fn of(dir: &'a Dir) -> Self {
        Self { file: dir.at(), shown: dir.path() }
    }
}

/// Applies the attributes of an entry to a file or directory, which only its owner can access until
/// then. Returns the resulting mode and lists. Where it cannot have its access control list, its
/// mode grants no user more than the list would.
pub fn dress(disk: &Disk, made: Made<'_>, wanted: &Entry) -> FsResult<(u32, Acls)> {
    let Made { file: made, shown } = made;
    let Entry { mut mode, mut acls, mtime, .. } = wanted.clone();
    let is_directory = wanted.what == What::Directory;
    if is_directory && !disk.set_acl(made, shown, AclKind::Default, acls.default.as_ref())? {
        acls.default = None;
    }
    if !disk.set_acl(made, shown, AclKind::Access, acls.access.as_ref())? {
        mode = acls.access.take().map_or(mode, |acl| acl.mode_without_it());
    }
    let inherited = match is_directory {
        true if has_setgid(made) => SETGID,
        _ => 0,
    };
    disk.set_mode_of(made, shown, mode | inherited)?;
    disk.set_mtime_of(made, shown, mtime)?;
    Ok((mode, acls))
}

fn has_setgid(made: BorrowedFd<'_>) -> bool {
    let mode = rustix::fs::fstat(made).map(|stat| Mode::from_raw_mode(stat.st_mode));
    mode.is_ok_and(|mode| mode.contains(Mode::SGID))
}

/// Creates a directory and opens it. Where others may write `dir` they may have replaced it in
/// between: one that others may write is refused.
fn make_new(disk: &Disk, at: At<'_>) -> Result<Dir> {
    let shown = at.path();
    disk.make_dir(at.dir, at.name)?;
    let made = disk.open_dir(at.dir, at.name).map_err(|error| moved(&shown, error))?;
    let is_ours = |stat: &Stat| stat.uid == user::current() && stat.mode & 0o077 == 0;
    match disk.stat(&made, ".")?.filter(is_ours) {
        Some(_) => Ok(made),
        None => Err(unsafe_path(&shown, "was replaced by another user as it was made")),
    }
}

/// The error where a file was replaced by a link in between.
fn moved(path: &Path, error: FsError) -> Error {
    if error.is(Errno::LOOP) || error.is(Errno::NOTDIR) || error.is(Errno::NOENT) {
        changed(path)
    } else {
        error.into()
    }
}

fn changed(path: &Path) -> Error {
    let message = format!("{} changed while it was read; nothing was done", path.display());
    Error::new(Kind::Conflict, message)
        .hint_shell(format!("ls -ld {}", quote_path(path)), "see what changes it, and try again")
        .detail("path", path.display().to_string())
}

/// The first entry below a directory that belongs to another user than `owner`, with its owner. The
/// directory itself counts.
pub fn foreign_owner(disk: &Disk, dir: &Dir, owner: u32) -> Result<Option<(PathBuf, u32)>> {
    let foreign = |stat: Option<Stat>| stat.map(|stat| stat.uid).filter(|uid| *uid != owner);
    if let Some(uid) = foreign(disk.stat(dir, ".")?) {
        return Ok(Some((dir.path().to_owned(), uid)));
    }
    for name in disk.list(dir)? {
        let stat = disk.stat(dir, &name)?;
        let found = match stat {
            Some(Stat { kind: FileKind::Directory, .. }) => {
                foreign_owner(disk, &disk.open_dir(dir, &name)?, owner)?
            }
            stat => foreign(stat).map(|uid| (dir.path_of(&name), uid)),
        };
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// Removes a tree, a file or a link; succeeds if there is none.
pub fn remove(disk: &Disk, dir: &Dir, name: impl AsRef<OsStr>) -> Result<()> {
    let name = name.as_ref();
    let Some(stat) = disk.stat(dir, name)? else { return Ok(()) };
    if stat.kind != FileKind::Directory {
        return Ok(disk.unlink(dir, name)?);
    }
    if is_mount_point(dir, name) {
        return Err(unsafe_path(&dir.path_of(name), "is a mount point"));
    }
    if stat.mode & 0o700 != 0o700 {
        disk.set_mode(dir, name, &stat, 0o700)?; // its contents could not be removed
    }
    let inside = disk.open_dir(dir, name)?;
    for entry in disk.list(&inside)? {
        remove(disk, &inside, &entry)?;
    }
    Ok(disk.remove_dir(dir, name)?)
}
