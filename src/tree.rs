//! Directory trees: listed with digests, copied, removed. No link is ever followed, and no mount
//! point inside a tree is ever entered.

use std::ffi::OsStr;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, StatxAttributes, StatxFlags, statx};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use crate::acl::{AclKind, Acls};
use crate::clutter::{is_below_clutter, is_clutter};
use crate::document::seal::Digest;
use crate::error::{Error, Kind, Result, quote_path};
use crate::fs::{Access, Dir, Disk, FileKind, FsError, FsResult, Stat};
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

/// An entry of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its path below the top, with `/` between names; empty for the top itself.
    pub path: String,
    /// Its type and contents.
    pub what: What,
    /// Permission bits.
    pub mode: u32,
    /// Last modification: seconds and nanoseconds since 1970.
    pub mtime: (i64, i64),
    /// Its access control lists.
    pub acls: Acls,
}

/// The type and contents of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A regular file.
    File {
        /// Its size.
        bytes: u64,
        /// The digest of its content.
        sha256: Digest,
    },
    /// A directory.
    Directory,
    /// A symbolic link.
    Link {
        /// The target, unresolved.
        target: String,
    },
}

/// The entries of a tree, sorted by path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing(Vec<Entry>);

impl Listing {
    /// A listing of these entries, given in any order.
    pub fn new(mut entries: Vec<Entry>) -> Self {
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        Self(entries)
    }

    /// The entries, sorted by path.
    pub fn entries(&self) -> &[Entry] {
        &self.0
    }

    /// The entry of a path.
    pub fn get(&self, path: &str) -> Option<&Entry> {
        let place = self.0.binary_search_by(|entry| entry.path.as_str().cmp(path)).ok()?;
        self.0.get(place)
    }

    /// The part below `top`, with paths relative to it; `None` if there is no such entry.
    pub fn below(&self, top: &str) -> Option<Self> {
        self.get(top)?;
        let below = |entry: &Entry| {
            let rest = entry.path.strip_prefix(top)?;
            let path = if rest.is_empty() { rest } else { rest.strip_prefix('/')? };
            Some(Entry { path: path.to_owned(), ..entry.clone() })
        };
        Some(Self::new(self.0.iter().filter_map(below).collect()))
    }

    /// The same with paths relative to the parent of `top`.
    #[must_use]
    pub fn under(self, top: &str) -> Vec<Entry> {
        let join =
            |path: &str| if path.is_empty() { top.to_owned() } else { format!("{top}/{path}") };
        self.0.into_iter().map(|entry| Entry { path: join(&entry.path), ..entry }).collect()
    }

    /// A digest of the contents: types, modes, links and digests, but no times. Equal trees have
    /// equal fingerprints.
    pub fn fingerprint(&self) -> Digest {
        let mut hash = Sha256::new();
        for Entry { path, what, mode, acls, .. } in &self.0 {
            let what = match what {
                What::File { sha256, .. } => sha256.as_str(),
                What::Directory => "directory",
                What::Link { target } => target,
            };
            hash.update(format!("{path}\0{mode:o}\0{what}\0"));
            for acl in [&acls.access, &acls.default].into_iter().flatten() {
                hash.update(format!("{acl}\0"));
            }
        }
        Digest::finish(hash)
    }

    /// The directories directly in the one at `path`.
    fn directories_in<'l>(&'l self, path: &str) -> impl Iterator<Item = &'l Entry> + use<'l> {
        let top = if path.is_empty() { String::new() } else { format!("{path}/") };
        let start = self.0.partition_point(|entry| entry.path < top);
        let below = self
            .0
            .iter()
            .skip(start)
            .map_while(move |entry| Some((entry, entry.path.strip_prefix(&top)?)));
        below
            .filter(|(entry, rest)| {
                entry.what == What::Directory && !rest.is_empty() && !rest.contains('/')
            })
            .map(|(entry, _)| entry)
    }

    /// Returns whether there is a file or link below the directory at `path`.
    fn holds_files_in(&self, path: &str) -> bool {
        let top = format!("{path}/");
        let start = self.0.partition_point(|entry| entry.path < top);
        let mut below = self.0.iter().skip(start).take_while(|entry| entry.path.starts_with(&top));
        below.any(|entry| entry.what != What::Directory)
    }

    /// The same without the clutter that `actual` lacks or holds with another content, which no
    /// seal covers.
    pub fn without_lost_clutter(&self, actual: &Self) -> Self {
        let is_kept = |entry: &&Entry| {
            !is_below_clutter(&entry.path)
                || actual.get(&entry.path).is_some_and(|found| found.what == entry.what)
        };
        Self(self.0.iter().filter(is_kept).cloned().collect())
    }

    /// The first difference in contents from `actual`, in words; modes and times do not count.
    /// Neither does clutter, nor the loss of a directory without files: git and archives keep none.
    pub fn first_difference(&self, actual: &Self) -> Option<String> {
        let wrong = self.0.iter().find_map(|entry| {
            let path = &entry.path;
            match actual.get(path).map(|found| &found.what) {
                Some(found) if *found == entry.what => None,
                _ if is_below_clutter(path) => None,
                None if entry.what == What::Directory && !self.holds_files_in(path) => None,
                Some(What::File { .. }) if matches!(entry.what, What::File { .. }) => {
                    Some(format!("{path} is not what it was: its digest is wrong"))
                }
                Some(_) => Some(format!("{path} is not what it was")),
                None => Some(format!("{path} is missing")),
            }
        });
        let is_extra =
            |found: &&Entry| self.get(&found.path).is_none() && !is_below_clutter(&found.path);
        let extra = || actual.0.iter().find(is_extra);
        wrong.or_else(|| extra().map(|found| format!("{} does not belong to it", found.path)))
    }

    /// The entries directly in a directory, by its path; that of the top is empty.
    pub fn children<'a>(&'a self, path: &'a str) -> impl Iterator<Item = &'a Entry> {
        let is_child = move |entry: &&Entry| match entry.path.rsplit_once('/') {
            Some((parent, _)) => parent == path,
            None => path.is_empty() && !entry.path.is_empty(),
        };
        self.0.iter().filter(is_child)
    }

    /// The bytes of all files.
    pub fn bytes(&self) -> u64 {
        let size =
            |entry: &Entry| if let What::File { bytes, .. } = entry.what { bytes } else { 0 };
        self.0.iter().map(size).sum()
    }

    /// The number of files and links.
    pub fn files(&self) -> usize {
        self.0.iter().filter(|entry| entry.what != What::Directory).count()
    }
}

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
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    statx(dir.at(), name, flags, StatxFlags::empty())
        .is_ok_and(|found| found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

/// Refuses a tree that could not be kept: `name` in `dir` exists, but is not a directory of this
/// file system.
pub fn check(disk: &Disk, dir: &Dir, name: &str) -> Result<()> {
    disk.stat(dir, name)?.map_or(Ok(()), |stat| check_directory((dir, OsStr::new(name)), stat))
}

fn check_directory((dir, name): (&Dir, &OsStr), stat: Stat) -> Result<()> {
    if stat.kind == FileKind::Directory {
        return Ok(());
    }
    let why = "is not a directory of its own (a symbolic link or a file stands there)";
    let word = quote_path(&dir.path_of(name));
    Err(unsafe_path(&dir.path_of(name), why)
        .hint_shell(format!("mv {word} {word}.old"), "move it away"))
}

fn check_own((dir, name): (&Dir, &OsStr), stat: Stat) -> Result<()> {
    check_directory((dir, name), stat)?;
    if is_mount_point(dir, name) {
        Err(unsafe_path(&dir.path_of(name), "is a mount point"))
    } else {
        Ok(())
    }
}

/// Lists the tree `name` in `dir` and digests its files; `None` if there is none.
pub fn list(disk: &Disk, dir: &Dir, name: &str) -> Result<Option<Listing>> {
    walk(disk, (dir, name), None, DEPTH)
}

/// Lists a directory that contains trees, and so nests one level deeper.
pub fn list_holding(disk: &Disk, dir: &Dir) -> Result<Listing> {
    Ok(walk(disk, (dir, "."), None, DEPTH + 1)?.unwrap_or_default())
}

/// Copies the tree `name` in `from` to a new directory and syncs it, except the new directory's own
/// name. Returns the entries with their attributes: those applied by a listing, else those of the
/// original. `None` if there is none. By a listing, directories without files are created where the
/// original lost them, and clutter that differs from the listing is left out.
pub fn copy(
    disk: &Disk,
    from: (&Dir, &str),
    to: (&Dir, &str),
    attributes: Attributes<'_>,
) -> Result<Option<Listing>> {
    walk(disk, from, Some((to, attributes)), DEPTH)
}

/// The same, without entries that cannot be kept below the top; these are returned, each with the
/// reason.
pub fn copy_what_can_be_kept(
    disk: &Disk,
    from: (&Dir, &str),
    to: (&Dir, &str),
    attributes: Attributes<'_>,
) -> Result<Option<(Listing, Vec<String>)>> {
    let Some(stat) = disk.stat(from.0, from.1)? else { return Ok(None) };
    let mut walk = Walk { disk, entries: Vec::new(), deepest: DEPTH, left: Some(Vec::new()) };
    let top = (from.0, OsStr::new(from.1));
    walk.directory(top, stat, String::new(), Some((to.0, OsStr::new(to.1), attributes)), 0)?;
    Ok(Some((Listing::new(walk.entries), walk.left.unwrap_or_default())))
}

/// Returns whether an error reports that a tree holds an entry that cannot be kept.
pub fn cannot_be_kept(error: &Error) -> bool {
    matches!(
        error.kind,
        Kind::UnsafePath | Kind::InvalidName | Kind::TooLarge | Kind::PermissionDenied
    )
}

type Target<'a> = ((&'a Dir, &'a str), Attributes<'a>);

fn walk(
    disk: &Disk,
    (dir, name): (&Dir, &str),
    target: Option<Target<'_>>,
    deepest: usize,
) -> Result<Option<Listing>> {
    let mut walk = Walk { disk, entries: Vec::new(), deepest, left: None };
    let Some(stat) = disk.stat(dir, name)? else {
        let Some(((to, its), Attributes::Listed(listing))) = target else { return Ok(None) };
        let Some(top) = listing.get("").filter(|top| top.what == What::Directory) else {
            return Ok(None);
        };
        walk.lost_directory((to, OsStr::new(its)), top, listing)?;
        return Ok(Some(Listing::new(walk.entries)));
    };
    walk.directory(
        (dir, OsStr::new(name)),
        stat,
        String::new(),
        target.as_ref().map(|(to, how)| (to.0, OsStr::new(to.1), *how)),
        0,
    )?;
    Ok(Some(Listing::new(walk.entries)))
}

struct Walk<'a> {
    disk: &'a Disk,
    entries: Vec<Entry>,
    deepest: usize,
    /// Entries that cannot be kept, where the rest is kept without them.
    left: Option<Vec<String>>,
}

type Copy<'a> = Option<(&'a Dir, &'a OsStr, Attributes<'a>)>;

impl Walk<'_> {
    fn directory(
        &mut self,
        (dir, name): (&Dir, &OsStr),
        stat: Stat,
        path: String,
        copy: Copy<'_>,
        depth: usize,
    ) -> Result<()> {
        // The tree itself may be a mount; a mount inside it is not a part of it.
        if depth == 0 {
            check_directory((dir, name), stat)?;
        } else {
            check_own((dir, name), stat)?;
        }
        let shown = dir.path_of(name);
        if depth > self.deepest {
            let message = format!("{} lies deeper than {DEPTH} directories", shown.display());
            let word = quote_path(&shown);
            return Err(Error::new(Kind::TooLarge, message)
                .hint_shell(format!("ls -ld {word}"), "see what it is"));
        }
        let from = self.disk.open_dir(dir, name).map_err(|error| moved(&shown, error))?;
        let to = copy.map(|(to, its, _)| make_new(self.disk, to, its)).transpose()?;
        let listing = match copy {
            Some((_, _, Attributes::Listed(listing))) => Some(listing),
            _ => None,
        };
        for entry in self.disk.list(&from)? {
            let is_listed = |listing: &Listing| {
                entry.to_str().is_some_and(|word| listing.get(&joined(&path, word)).is_some())
            };
            if is_clutter(&entry) && listing.is_some_and(|listing| !is_listed(listing)) {
                continue;
            }
            let copy = to.as_ref().zip(copy).map(|(to, (_, _, how))| (to, entry.as_os_str(), how));
            match (self.entry((&from, &entry), &path, copy, depth), &mut self.left) {
                (Err(error), Some(left)) if cannot_be_kept(&error) => left.push(error.message),
                (result, _) => result?,
            }
        }
        if let Some((to, listing)) = to.as_ref().zip(listing) {
            for lost in listing.directories_in(&path) {
                let name = lost.path.rsplit('/').next().unwrap_or_default();
                if self.disk.stat(to, name)?.is_none() {
                    self.lost_directory((to, OsStr::new(name)), lost, listing)?;
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
        if let Some(((_, _, how), made)) = copy.zip(to) {
            self.dress((made.at(), made.path()), &mut entry, how)?;
            self.disk.sync_dir(&made)?;
        }
        self.entries.push(entry);
        Ok(())
    }

    /// Creates a listed directory that the original lost, with the directories in it.
    fn lost_directory(
        &mut self,
        (to, name): (&Dir, &OsStr),
        lost: &Entry,
        listing: &Listing,
    ) -> Result<()> {
        let made = make_new(self.disk, to, name)?;
        for inner in listing.directories_in(&lost.path) {
            let name = inner.path.rsplit('/').next().unwrap_or_default();
            self.lost_directory((&made, OsStr::new(name)), inner, listing)?;
        }
        let mut entry = lost.clone();
        self.dress((made.at(), made.path()), &mut entry, Attributes::Listed(listing))?;
        self.disk.sync_dir(&made)?;
        self.entries.push(entry);
        Ok(())
    }

    fn entry(
        &mut self,
        (from, entry): (&Dir, &OsStr),
        path: &str,
        copy: Copy<'_>,
        depth: usize,
    ) -> Result<()> {
        let Some(word) = entry.to_str() else {
            let message = format!("the name {} is not UTF-8", from.path_of(entry).display());
            let word = quote_path(&from.path_of(entry));
            return Err(Error::new(Kind::InvalidName, message)
                .hint_shell(format!("ls -ld {word}"), "rename it"));
        };
        let below = joined(path, word);
        let Some(stat) = self.disk.stat(from, entry)? else {
            return Err(changed(&from.path_of(entry)));
        };
        match stat.kind {
            FileKind::Directory => self.directory((from, entry), stat, below, copy, depth + 1),
            FileKind::Regular => self.file((from, entry), below, copy),
            FileKind::Symlink => self.link((from, entry), stat, below, copy),
            FileKind::Special => {
                let why = "is a device, pipe or socket, and only files, directories and links can be kept";
                Err(unsafe_path(&from.path_of(entry), why))
            }
        }
    }

    fn file(&mut self, (dir, name): (&Dir, &OsStr), path: String, copy: Copy<'_>) -> Result<()> {
        let shown = dir.path_of(name);
        let opened =
            self.disk.open(dir, name, Access::Read).map_err(|error| moved(&shown, error))?;
        let Some(file) = opened else { return Err(changed(&shown)) };
        let before = self.disk.fstat(&file, &shown)?;
        let to = match copy {
            Some((to, its, _)) => Some((self.disk.create(to, its)?, to.path_of(its))),
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
        if let Some(((_, _, how), (made, shown))) = copy.zip(to) {
            self.dress((made.as_fd(), &shown), &mut entry, how)?;
            self.disk.sync(&made, &shown)?;
        }
        if let Some((to, its, Attributes::Listed(listing))) = copy
            && is_below_clutter(&entry.path)
            && listing.get(&entry.path).is_none_or(|listed| listed.what != entry.what)
        {
            return Ok(self.disk.unlink(to, its)?);
        }
        self.entries.push(entry);
        Ok(())
    }

    fn link(
        &mut self,
        (dir, name): (&Dir, &OsStr),
        stat: Stat,
        path: String,
        copy: Copy<'_>,
    ) -> Result<()> {
        let target = self.disk.read_link(dir, name)?;
        let Some(text) = target.to_str().map(str::to_owned) else {
            let message =
                format!("{} leads to a name that is not UTF-8", dir.path_of(name).display());
            let word = quote_path(&dir.path_of(name));
            return Err(Error::new(Kind::InvalidName, message)
                .hint_shell(format!("ls -ld {word}"), "see what it is"));
        };
        if let Some((to, its, how)) = copy {
            self.disk.symlink(&target, to, its)?;
            if let Attributes::Listed(listing) = how
                && let Some(entry) = listing.get(&path)
            {
                self.disk.set_link_mtime(to, its, entry.mtime)?;
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
    fn dress(
        &self,
        made: (BorrowedFd<'_>, &Path),
        entry: &mut Entry,
        attributes: Attributes<'_>,
    ) -> FsResult<()> {
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

/// Applies the attributes of an entry to a file or directory, which only its owner can access until
/// then. Returns the resulting mode and lists. Where it cannot have its access control list, its
/// mode grants no user more than the list would.
pub fn dress(
    disk: &Disk,
    (made, shown): (BorrowedFd<'_>, &Path),
    wanted: &Entry,
) -> FsResult<(u32, Acls)> {
    let Entry { mut mode, mut acls, mtime, .. } = wanted.clone();
    let is_directory = wanted.what == What::Directory;
    if is_directory && !disk.set_acl(made, shown, AclKind::Default, acls.default.as_ref())? {
        acls.default = None;
    }
    if !disk.set_acl(made, shown, AclKind::Access, acls.access.as_ref())? {
        mode = acls.access.take().map_or(mode, |acl| acl.mode_without_it());
    }
    let inherited = match is_directory {
        true => rustix::fs::fstat(made).map_or(0, |stat| stat.st_mode & SETGID),
        false => 0,
    };
    disk.set_mode_of(made, shown, mode | inherited)?;
    disk.set_mtime_of(made, shown, mtime)?;
    Ok((mode, acls))
}

/// Creates a directory and opens it. Where others may write `dir` they may have replaced it in
/// between: one that others may write is refused.
fn make_new(disk: &Disk, dir: &Dir, name: &OsStr) -> Result<Dir> {
    let shown = dir.path_of(name);
    disk.make_dir(dir, name)?;
    let made = disk.open_dir(dir, name).map_err(|error| moved(&shown, error))?;
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
