//! flock(2) on a file in `.locks`: the short locks that guard commits and records.
//!
//! The kernel drops an flock when its process ends, however it ends. This program never removes the
//! file itself; where another program does (`rm -rf .locks`), [`FileLock::is_current`] detects it
//! before anything is replaced.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use serde_json::json;

use super::flock_holder::{self, FlockHolder};
use super::root::LockRoot;
use crate::error::{Error, Kind, Result};
use crate::fs::{Dir, Disk, FileKind, Locked, Origin, Stat};
use crate::lock::layout::{GATE, LOCKS, RESERVING, STATE_LOCK};
use crate::lock::request::NOTICE_AFTER;
use crate::side::{self, unsafe_path};

/// A short lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::lock) enum ShortLock {
    /// Of commits.
    State,
    /// Of changes of records.
    Gate,
    /// Of reservations of tokens.
    Reservation,
}

impl ShortLock {
    fn file(self) -> &'static str {
        match self {
            Self::State => STATE_LOCK,
            Self::Gate => GATE,
            Self::Reservation => RESERVING,
        }
    }

    /// Its protected thing, in messages.
    fn subject(self) -> &'static str {
        match self {
            Self::State => "the state",
            Self::Gate => "the table of locks",
            Self::Reservation => "the counter of tokens",
        }
    }
}

/// An exclusive flock on a file in `.locks`; released when dropped.
#[derive(Debug)]
pub struct FileLock {
    _file: File, // closing it releases the lock
    name: &'static str,
    stat: Stat,
    origin: Origin,
    waited_for: Option<FlockHolder>,
}

/// A short lock, with the directories in which its file was found.
pub(in crate::lock) struct LockedDir {
    pub root: Dir,
    pub dir: Dir,
    pub lock: FileLock,
}

/// Takes a short lock, and creates the directory of locks if it is missing. Starts over where
/// another program removes the file meanwhile.
pub(in crate::lock) fn lock_dir(
    locks: &LockRoot,
    which: ShortLock,
    deadline: Instant,
) -> Result<LockedDir> {
    loop {
        let root = side::open_root(&locks.disk, &locks.directory)?;
        let dir = side::open(&locks.disk, &root, LOCKS)?;
        if let Some(lock) = flock(locks, &root, &dir, which, deadline)? {
            return Ok(LockedDir { root, dir, lock });
        }
        if Instant::now() >= deadline {
            let message = format!("something else keeps removing {LOCKS}; nothing was changed");
            return Err(Error::new(Kind::Conflict, message)
                .hint_command("lock status", "see the state of the locks"));
        }
    }
}

/// Takes a short lock in `dir` (`.locks` in `root`), waiting until `deadline`. `None` if the file
/// was removed during the wait: another process may hold the lock on a new file, so the caller
/// opens the directory again.
pub(in crate::lock) fn flock(
    locks: &LockRoot,
    root: &Dir,
    dir: &Dir,
    which: ShortLock,
    deadline: Instant,
) -> Result<Option<FileLock>> {
    let (started, name, disk) = (Instant::now(), which.file(), &locks.disk);
    let path = dir.path_of(name);
    let left = || deadline.saturating_duration_since(Instant::now());
    let (mut notice_after, mut was_made, mut is_first_try) = (NOTICE_AFTER, false, true);
    let mut waited_for = None;
    loop {
        let (file, origin) = match disk.open_to_lock(dir, name) {
            Err(error) if error.is(Errno::NOENT) => return Ok(None),
            result => result?,
        };
        was_made |= origin == Origin::Made;
        let stat = disk.fstat(&file, &path)?;
        if stat.kind != FileKind::Regular {
            return Err(unsafe_path(&path, "is a device, pipe or socket, not a regular file"));
        }
        if let Locked::Yes(file) = disk.lock(file, &path, left().min(notice_after))? {
            flock_holder::note(disk, &file, &path);
            let origin = if was_made { Origin::Made } else { Origin::Found };
            let lock = FileLock { _file: file, name, stat, origin, waited_for };
            return Ok(if lock.is_current(disk, root)? { Some(lock) } else { None });
        }
        // The flock may have been another command's probe, which lasts an instant
        // ([`Disk::probe`]).
        if left().is_zero() && std::mem::take(&mut is_first_try) {
            std::thread::yield_now();
            continue;
        }
        let holder = flock_holder::of_locked(disk, dir, name, &stat);
        if left().is_zero() {
            return Err(timed_out(which, &holder, &path, started.elapsed()));
        }
        locks.notify(&format!("{}: {holder}", which.subject()));
        waited_for = Some(holder);
        (notice_after, is_first_try) = (Duration::MAX, false);
    }
}

impl FileLock {
    /// Returns whether the lock's path still names the locked file.
    pub fn is_current(&self, disk: &Disk, root: &Dir) -> Result<bool> {
        let path: PathBuf = [OsStr::new(LOCKS), OsStr::new(self.name)].iter().collect();
        Ok(disk.stat(root, path)?.is_some_and(|stat| stat.same_file(&self.stat)))
    }

    /// The inode of the lock's file, which is part of the names of its holder's temporary files.
    pub fn inode(&self) -> u64 {
        self.stat.ino
    }

    /// The holder that this waited for, if the wait was long enough to be reported.
    pub fn waited_for(&self) -> Option<&FlockHolder> {
        self.waited_for.as_ref()
    }

    /// Returns whether the lock's file had to be created: then temporary files of holders of an
    /// earlier file may be left.
    pub fn origin(&self) -> Origin {
        self.origin
    }
}

fn timed_out(which: ShortLock, holder: &FlockHolder, path: &Path, waited: Duration) -> Error {
    let (what, waited) = (which.subject(), waited.as_secs_f64());
    let message = format!("{what} is locked by another command: waited {waited:.1} s; {holder}");
    let error = Error::new(Kind::LockTimeout, message)
        .detail("path", path.display().to_string())
        .detail("waited", waited)
        .detail("holder", json!(holder));
    match holder.pid {
        Some(pid) => error.hint_shell(format!("ps -fp {pid}"), "see what it does; or wait longer"),
        None => error.hint_command("state status", "see how it is; or wait longer"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::rc::Rc;
    use std::sync::mpsc;

    use super::*;
    use crate::audit::Audit;
    use crate::lock::FileLocks;
    use crate::lock::files::gate::Gate;
    use crate::lock::process::owner::LockEnv;

    const ROUNDS: usize = 64;

    /// Two threads of this process wake at once, and only in one order would the first take away
    /// the lock of the second: hence the many rounds.
    #[test]
    fn a_lock_acquired_after_the_notice_is_held() {
        std::thread::scope(|scope| {
            for _ in 0..ROUNDS {
                scope.spawn(waits_long);
            }
        });
    }

    fn waits_long() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::real();
        let audit = Audit::new(disk.clone(), dir.path().join("audit.log"), dir.path());
        let locks = FileLocks::new(disk, dir.path(), LockEnv::default(), Rc::new(audit));
        let soon = || Instant::now() + Duration::from_secs(60);
        drop(Gate::enter(&locks.root, soon()).unwrap());
        let open = || File::options().append(true).open(dir.path().join(".locks/.gate")).unwrap();
        let (mine, theirs) = (open(), open());
        mine.lock().unwrap();
        let inode = std::os::unix::fs::MetadataExt::ino(&mine.metadata().unwrap());
        std::thread::scope(|scope| {
            let (notify, notified) = mpsc::channel();
            scope.spawn(move || {
                notified.recv().unwrap();
                while waits_for(inode) < 2 {
                    std::thread::yield_now(); // for the wait that was given up, and the next one
                }
                mine.unlock().unwrap();
            });
            locks.on_wait(move |_| notify.send(()).unwrap());
            let gate = Gate::enter(&locks.root, soon()).unwrap();
            for _ in 0..1000 {
                assert!(theirs.try_lock().is_err(), "another process takes a held lock");
                std::thread::yield_now();
            }
            drop(gate);
        });
    }

    fn waits_for(inode: u64) -> usize {
        let locks = std::fs::read_to_string("/proc/locks").unwrap();
        locks
            .lines()
            .filter(|line| line.contains("->") && line.contains(&format!(":{inode} ")))
            .count()
    }
}
