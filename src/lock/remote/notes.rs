//! What the commands of one owner and its keepers know on this host: files in a directory of the
//! owner's, below the user's runtime directory.
//!
//! | file | |
//! |---|---|
//! | `owner` | the owner: when it has ended, the directory goes |
//! | `keeper-LEASE` | the order of a keeper, which holds an flock on it; time of the last renewal |
//! | `grant-STORE-LEASE-TOKEN-LOCK` | a grant; empty |
//! | `lost-LEASE` | when and why a lease was lost |
//!
//! The cluster decides about grants. These files only say what was lost, and which keeper is
//! missing; without them nothing of that is said.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use rustix::io::Errno;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::order::Order;
use super::owner::id_of;
use crate::error::{Error, Kind, Result};
use crate::fs::probe::Probe;
use crate::fs::{Access, Dir, Disk, FileKind, Locked};
use crate::lock::identity::{Identity, Namespace};
use crate::lock::liveness::{Lookup, RunState};
use crate::lock::process::lookup;
use crate::lock::record::Token;
use crate::name::Name;
use crate::time::rfc3339_millis;

/// The longest file that is read.
const LIMIT: u64 = 64 << 10;
const OWNER: &str = "owner";
const KEEPER: &str = "keeper-";
const GRANT: &str = "grant-";
const LOST: &str = "lost-";

/// The order of a keeper that this process carries out: no other one does.
#[derive(Debug)]
pub struct Kept {
    disk: Disk,
    file: File,
    path: PathBuf,
}

impl Kept {
    /// The order that this process was started with, as its standard input.
    pub fn inherited(disk: Disk) -> Option<Self> {
        let file = File::from(std::io::stdin().as_fd().try_clone_to_owned().ok()?);
        let path = PathBuf::from("/dev/stdin");
        let is_order = disk.fstat(&file, &path).is_ok_and(|stat| stat.kind == FileKind::Regular);
        is_order.then_some(Self { disk, file, path })
    }

    /// The file: a process that has it open has the order.
    pub fn into_file(self) -> File {
        self.file
    }

    /// When the lease was last renewed.
    pub fn renewed(&self) -> Option<SystemTime> {
        self.disk.fstat(&self.file, &self.path).ok().map(|stat| time_of(stat.mtime))
    }

    /// Notes when the lease was renewed.
    pub fn set_renewed(&self, at: SystemTime) {
        let Ok(since) = at.duration_since(SystemTime::UNIX_EPOCH) else { return };
        let time = (i64::try_from(since.as_secs()).unwrap_or(0), since.subsec_nanos().into());
        // Without it, it is only less well known when the lease was lost.
        let _ = self.disk.set_mtime_of(self.file.as_fd(), &self.path, time);
    }
}

/// What is known of a lease on this host.
#[derive(Clone, Copy, Debug)]
pub struct Renewal {
    /// When it was last renewed.
    pub at: SystemTime,
    /// When it ends, if nothing renews it again.
    pub until: SystemTime,
    /// Whether its keeper lives.
    pub is_kept: bool,
}

fn time_of(mtime: (i64, i64)) -> SystemTime {
    let (seconds, nanoseconds) = mtime;
    let part = |number: i64| u64::try_from(number).unwrap_or(0);
    SystemTime::UNIX_EPOCH
        + Duration::from_secs(part(seconds))
        + Duration::from_nanos(part(nanoseconds))
}

/// The directory of all notes of this user, and the disk that it is on.
#[derive(Clone, Debug)]
pub struct NotesDir {
    disk: Disk,
    /// A directory of the user alone, or one in which every user may make files.
    parent: PathBuf,
    name: String,
}

/// A grant that this owner was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Noted {
    /// The lock.
    pub lock: Name,
    /// The grant's number.
    pub token: Token,
    /// The lease that it ends with.
    pub lease: i64,
    file: String,
}

/// When and why a lease was lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// When, RFC 3339.
    pub time: String,
    /// Why.
    pub why: String,
}

impl NotesDir {
    /// The notes in `runtime` (`XDG_RUNTIME_DIR`), or else in a directory of this user in `/tmp`.
    pub fn new(disk: Disk, runtime: Option<PathBuf>) -> Self {
        // A container or `su` may leave the variable, and not the directory.
        match runtime.filter(|parent| parent.is_dir()) {
            Some(parent) => Self { disk, parent, name: "pipeline-state".to_owned() },
            None => {
                let name = format!("pipeline-state-{}", crate::user::current());
                Self { disk, parent: "/tmp".into(), name }
            }
        }
    }

    /// Opens the directory, if it is there and no other user may write to it.
    fn open(&self, make: bool) -> Result<Option<Dir>> {
        let parent = self.disk.open_root(&self.parent)?;
        if make {
            self.disk.make_dir(&parent, &self.name)?;
        }
        let Some(found) = self.disk.stat(&parent, &self.name)? else { return Ok(None) };
        let is_own = found.uid == crate::user::current() && found.mode & 0o077 == 0;
        if found.kind != FileKind::Directory || !is_own {
            let path = parent.path_of(&self.name);
            let message = format!("{} may be written by other users", path.display());
            return Err(Error::new(Kind::UnsafePath, message));
        }
        Ok(Some(self.disk.open_dir(&parent, &self.name)?))
    }

    /// Returns whether there are no notes at all.
    pub fn is_empty(&self) -> bool {
        let all = self.open(false).ok().flatten();
        all.is_none_or(|all| self.disk.list(&all).is_ok_and(|names| names.is_empty()))
    }

    /// The notes of an owner; `None` if there are none.
    pub fn of(&self, owner: &Identity) -> Result<Option<Notes<'_>>> {
        let Some(all) = self.open(false)? else { return Ok(None) };
        let name = id_of(owner);
        if self.disk.stat(&all, &name)?.is_none() {
            return Ok(None);
        }
        Ok(Some(Notes { disk: &self.disk, dir: self.disk.open_dir(&all, &name)? }))
    }

    /// The notes of an owner, with a directory for them.
    pub fn make(&self, owner: &Identity) -> Result<Notes<'_>> {
        let all = self.open(true)?;
        let missing = || Error::new(Kind::Io, "the runtime directory was removed");
        let (all, name) = (all.ok_or_else(missing)?, id_of(owner));
        self.disk.make_dir(&all, &name)?;
        let notes = Notes { disk: &self.disk, dir: self.disk.open_dir(&all, &name)? };
        notes.put(OWNER, owner)?;
        Ok(notes)
    }

    /// Removes the notes of owners that have ended.
    pub fn sweep(&self) -> Result<()> {
        let Some(all) = self.open(false)? else { return Ok(()) };
        let here = Namespace::here()?;
        for name in self.disk.list(&all)? {
            let Ok(dir) = self.disk.open_dir(&all, &name) else { continue };
            let notes = Notes { disk: &self.disk, dir };
            let Some(owner) = notes.get::<Identity>(OWNER)? else { continue };
            let has_ended = match lookup(owner.pid) {
                Lookup::Hidden => false,
                Lookup::Visible { start, state } => {
                    start != owner.start || state == RunState::Ended
                }
                Lookup::Missing => true,
            };
            let Namespace { boot, pid_namespace, .. } = &*owner.namespace;
            let is_here = (pid_namespace, boot) == (&here.pid_namespace, &here.boot);
            if has_ended && is_here {
                notes.clear()?;
                self.disk.remove_dir(&all, &name)?;
            }
        }
        Ok(())
    }
}

/// The notes of one owner.
#[derive(Debug)]
pub struct Notes<'a> {
    disk: &'a Disk,
    dir: Dir,
}

impl Notes<'_> {
    /// Notes a grant.
    pub fn add(&self, store: &str, lease: i64, lock: &Name, token: Token) -> Result<()> {
        let file = format!("{GRANT}{store}-{lease:016x}-{token}-{lock}");
        self.disk.open_or_make(&self.dir, file)?;
        Ok(())
    }

    /// The grants in a store.
    pub fn grants(&self, store: &str) -> Result<Vec<Noted>> {
        let names = self.disk.list(&self.dir)?;
        let noted = |file: &str| {
            let rest = file.strip_prefix(GRANT)?.strip_prefix(store)?.strip_prefix('-')?;
            let mut parts = rest.splitn(3, '-');
            let lease = i64::from_str_radix(parts.next()?, 16).ok()?;
            let token = parts.next()?.parse().ok()?;
            let lock = Name::parse("lock", parts.next()?).ok()?;
            Some(Noted { lock, token, lease, file: file.to_owned() })
        };
        Ok(names.iter().filter_map(|name| noted(name.to_str()?)).collect())
    }

    /// Forgets a grant.
    pub fn remove(&self, noted: &Noted) -> Result<()> {
        Ok(self.disk.unlink(&self.dir, &noted.file)?)
    }

    /// Notes that a lease was lost.
    pub fn set_lost(&self, lease: i64, lost: &Lost) -> Result<()> {
        self.put(&format!("{LOST}{lease:016x}"), lost)
    }

    /// When and why a lease was lost, if its keeper saw it.
    pub fn lost(&self, lease: i64) -> Result<Option<Lost>> {
        self.get(&format!("{LOST}{lease:016x}"))
    }

    /// Writes the order of a keeper.
    pub fn set_order(&self, order: &Order) -> Result<()> {
        self.put(&order_file(order.lease), order)
    }

    /// The orders of keepers that were killed.
    pub fn orphans(&self) -> Result<Vec<Order>> {
        let mut orphans = Vec::new();
        for name in self.disk.list(&self.dir)? {
            let is_order = name.to_str().is_some_and(|name| name.starts_with(KEEPER));
            if is_order && self.disk.probe(&self.dir, &name)? == Probe::Free {
                orphans.extend(name.to_str().map(|name| self.get(name)).transpose()?.flatten());
            }
        }
        Ok(orphans)
    }

    /// Returns whether a keeper of this lease lives.
    pub fn is_kept(&self, lease: i64) -> Result<bool> {
        Ok(self.disk.probe(&self.dir, order_file(lease))? == Probe::Locked)
    }

    /// The last renewal of a lease that has an order.
    pub fn renewal(&self, lease: i64) -> Result<Option<Renewal>> {
        let name = order_file(lease);
        let Some(stat) = self.disk.stat(&self.dir, &name)? else { return Ok(None) };
        let Some(order) = self.get::<Order>(&name)? else { return Ok(None) };
        let (at, is_kept) = (time_of(stat.mtime), self.is_kept(lease)?);
        Ok(Some(Renewal { at, until: at + Duration::from_millis(order.ttl), is_kept }))
    }

    /// When and why a lease that has ended was lost, as far as that is known here.
    pub fn loss(&self, lease: i64) -> Result<Option<Lost>> {
        if let Some(lost) = self.lost(lease)? {
            return Ok(Some(lost));
        }
        Ok(self.renewal(lease)?.map(|Renewal { at, until, is_kept }| {
            let at = rfc3339_millis(at);
            let why = match is_kept {
                true => format!("its lease had ended on the cluster; it was last renewed at {at}"),
                false => format!("its keeper had ended; its lease was last renewed at {at}"),
            };
            Lost { time: rfc3339_millis(until.min(self.disk.now())), why }
        }))
    }

    /// Takes an order, when no other keeper has it; `None` if one has it for this long.
    pub fn keep(&self, lease: i64, patience: Duration) -> Result<Option<Kept>> {
        let name = order_file(lease);
        let path = self.dir.path_of(&name);
        let Some(file) = self.disk.open(&self.dir, &name, Access::Read)? else {
            return Err(no_order());
        };
        let Locked::Yes(file) = self.disk.lock(file, &path, patience)? else { return Ok(None) };
        // The keeper that had it may have removed it at the end of its work.
        if self.disk.fstat(&file, &path)?.nlink == 0 {
            return Err(no_order());
        }
        Ok(Some(Kept { disk: self.disk.clone(), file, path }))
    }

    /// Removes the order of a keeper that has done its work.
    pub fn end_order(&self, lease: i64) -> Result<()> {
        Ok(self.disk.unlink(&self.dir, order_file(lease))?)
    }

    /// Removes everything.
    pub fn clear(&self) -> Result<()> {
        for name in self.disk.list(&self.dir)? {
            self.disk.unlink(&self.dir, &name)?;
        }
        Ok(())
    }

    fn put(&self, name: &str, value: &impl Serialize) -> Result<()> {
        let bytes = serde_json::to_vec(value)
            .map_err(|error| Error::new(Kind::Internal, error.to_string()))?;
        // Each is written once. One that is torn says nothing.
        match self.disk.create(&self.dir, name) {
            Err(error) if error.is(Errno::EXIST) => Ok(()),
            file => Ok(self.disk.write(&file?, &self.dir.path_of(name), &bytes)?),
        }
    }

    fn get<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        let content = self.disk.read(&self.dir, name, LIMIT)?;
        Ok(content.and_then(|content| serde_json::from_slice(&content.bytes).ok()))
    }
}

fn no_order() -> Error {
    Error::new(Kind::NotFound, "a keeper has no order")
}

fn order_file(lease: i64) -> String {
    format!("{KEEPER}{lease:016x}")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn own() -> Identity {
        Identity::of(std::process::id()).unwrap().unwrap()
    }

    #[test]
    fn a_grant_is_noted_until_it_is_given_back() {
        let place = tempfile::tempdir().unwrap();
        let all = NotesDir::new(Disk::real(), Some(place.path().to_owned()));
        assert!(all.of(&own()).unwrap().is_none());
        let notes = all.make(&own()).unwrap();
        let (lock, token) = (Name::parse("lock", "a-b.c").unwrap(), Token::new(7).unwrap());
        notes.add("1f", 31, &lock, token).unwrap();
        notes.add("1e", 31, &lock, token).unwrap();
        let noted = all.of(&own()).unwrap().unwrap().grants("1f").unwrap().remove(0);
        assert_eq!((&noted.lock, noted.token, noted.lease), (&lock, token, 31));
        notes.remove(&noted).unwrap();
        assert_eq!(notes.grants("1f").unwrap(), []);
        let lost = Lost { time: "t".to_owned(), why: "w".to_owned() };
        notes.set_lost(31, &lost).unwrap();
        assert_eq!((notes.lost(31).unwrap(), notes.lost(30).unwrap()), (Some(lost), None));
    }

    #[test]
    fn notes_of_owners_that_have_ended_are_swept_away() {
        let place = tempfile::tempdir().unwrap();
        let all = NotesDir::new(Disk::real(), Some(place.path().to_owned()));
        let ended = Identity { start: own().start + 1, ..own() };
        all.make(&ended).unwrap();
        all.make(&own()).unwrap();
        all.sweep().unwrap();
        assert!(all.of(&ended).unwrap().is_none() && all.of(&own()).unwrap().is_some());
    }

    #[test]
    fn a_directory_that_others_may_write_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let all = NotesDir::new(Disk::real(), Some(place.path().to_owned()));
        all.make(&own()).unwrap();
        let open = std::fs::Permissions::from_mode(0o777);
        std::fs::set_permissions(place.path().join("pipeline-state"), open).unwrap();
        assert_eq!(all.make(&own()).unwrap_err().kind, Kind::UnsafePath);
    }
}
