//! flock(2) on a file in `.locks`: the short locks that guard commits and records.
//!
//! The kernel drops an flock when its process ends, however it ends. This program never removes the
//! file itself; where another program does (`rm -rf .locks`), [`FileLock::is_current`] detects it
//! before anything is replaced.

use std::ffi::OsStr;
use std::fs::File;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use serde_json::json;

use super::holder::{self, FlockHolder};
use super::request::NOTICE_AFTER;
use super::{LOCKS, Locks};
use crate::error::{Error, Kind, Result};
use crate::fs::{Dir, Disk, FileKind, Locked, Origin, Stat};
use crate::side::unsafe_path;

/// An exclusive flock on a file in `.locks`; released when dropped.
#[derive(Debug)]
pub struct FileLock {
    _file: File, // closing it releases the lock
    name: &'static str,
    stat: Stat,
    origin: Origin,
}

impl Locks {
    /// Takes the lock on `name` in `dir` (`.locks` in `root`), waiting until `deadline`; `what`
    /// names the protected thing in messages. `None` if the file was removed during the wait:
    /// another process may hold the lock on a new file, so the caller opens the directory again.
    pub(super) fn flock(
        &self,
        (root, dir): (&Dir, &Dir),
        name: &'static str,
        deadline: Instant,
        what: &str,
    ) -> Result<Option<FileLock>> {
        let started = Instant::now();
        let path = dir.path_of(name);
        let left = || deadline.saturating_duration_since(Instant::now());
        let (mut silence, mut was_made, mut is_first_try) = (NOTICE_AFTER, false, true);
        loop {
            let (file, origin) = match self.disk.open_to_lock(dir, name) {
                Err(error) if error.is(Errno::NOENT) => return Ok(None),
                result => result?,
            };
            was_made |= origin == Origin::Made;
            let origin = if was_made { Origin::Made } else { Origin::Found };
            let stat = self.disk.fstat(&file, &path)?;
            if stat.kind != FileKind::Regular {
                return Err(unsafe_path(&path, "is a device, pipe or socket, not a regular file"));
            }
            let locked = self.disk.lock(file, &path, left().min(silence))?;
            if let Locked::Yes(file) = locked {
                holder::note(&self.disk, &file, &path);
                let lock = FileLock { _file: file, name, stat, origin };
                return Ok(if lock.is_current(&self.disk, root)? { Some(lock) } else { None });
            }
            if left().is_zero() {
                // The flock may have been another command's probe, which lasts an instant
                // ([`Disk::probe`]).
                if std::mem::take(&mut is_first_try) {
                    std::thread::yield_now();
                    continue;
                }
                let holder = holder::of_locked(&self.disk, dir, name, &stat);
                return Err(timed_out(what, &holder, path, started.elapsed()));
            }
            let holder = holder::of_locked(&self.disk, dir, name, &stat);
            self.tell(&format!("{what}: {holder}"));
            (silence, is_first_try) = (Duration::MAX, false);
        }
    }
}

impl FileLock {
    /// Whether the lock's path still names the locked file.
    pub fn is_current(&self, disk: &Disk, root: &Dir) -> Result<bool> {
        let path: PathBuf = [OsStr::new(LOCKS), OsStr::new(self.name)].iter().collect();
        Ok(disk.stat(root, path)?.is_some_and(|stat| stat.same_file(&self.stat)))
    }

    /// The inode of the lock's file, which is part of the names of its holder's temporary files.
    pub fn inode(&self) -> u64 {
        self.stat.ino
    }

    /// Whether the lock's file had to be created: then temporary files of holders of an earlier
    /// file may be left.
    pub fn origin(&self) -> Origin {
        self.origin
    }
}

fn timed_out(what: &str, holder: &FlockHolder, path: PathBuf, waited: Duration) -> Error {
    let message = format!(
        "{what} is locked by another command: waited {:.1} s; {holder}",
        waited.as_secs_f64()
    );
    let error = Error::new(Kind::LockTimeout, message)
        .detail("path", path.display().to_string())
        .detail("waited", waited.as_secs_f64())
        .detail("holder", json!(holder));
    match holder.pid {
        Some(pid) => {
            error.hint_shell(format!("ps -fp {pid}"), "see what it does; or wait longer next time")
        }
        None => error.hint_command("state status", "see how it is; or wait longer next time"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::rc::Rc;
    use std::sync::mpsc;

    use super::*;
    use crate::audit::Audit;
    use crate::lock::owner::LockEnv;

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
        let locks = Locks::new(disk, dir.path(), LockEnv::default(), Rc::new(audit));
        let soon = || Instant::now() + Duration::from_secs(60);
        drop(locks.gate(soon()).unwrap());
        let open = || File::options().append(true).open(dir.path().join(".locks/.gate")).unwrap();
        let (mine, theirs) = (open(), open());
        mine.lock().unwrap();
        let inode = std::os::unix::fs::MetadataExt::ino(&mine.metadata().unwrap());
        std::thread::scope(|scope| {
            let (told, until_told) = mpsc::channel();
            scope.spawn(move || {
                until_told.recv().unwrap();
                while waits_for(inode) < 2 {
                    std::thread::yield_now(); // for the wait that was given up, and the next one
                }
                mine.unlock().unwrap();
            });
            locks.on_wait(move |_| told.send(()).unwrap());
            let gate = locks.gate(soon()).unwrap();
            for _ in 0..1000 {
                assert!(theirs.try_lock().is_err(), "somebody else gets what is held");
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
