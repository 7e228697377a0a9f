//! Acquiring the state lock and the other locks of a command. Before the command proceeds, work
//! that an earlier command left unfinished is finished or removed.

use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::Store;
use super::ground::Held;
use super::judge::{Health, Look};
use super::layout::{BACKUPS, SIDE_DIRECTORIES};
use super::live::Found;
use super::order::{Purpose, give_up_after};
use super::restore::Settled;
use crate::error::{Error, Kind, Result, quote_path};
use crate::fs::stage::temporary;
use crate::fs::{Dir, FileKind, FsError};
use crate::lock::LOCKS;
use crate::lock::along::Along;
use crate::side::{self, foreign_owner, unsafe_path};
use crate::tree::is_mount_point;

/// The locks that a checkpoint holds besides the state lock.
const ALONG: [&str; 2] = ["config", "signals"];

/// The longest time for which locks on other resources are held without the state lock.
const PATIENCE: Duration = Duration::from_secs(1);

/// The locks that a checkpoint or a restore needs.
pub(super) struct Hands<'a> {
    pub held: Held<'a>,
    _along: Along<'a>, // released after the flock
}

impl Store {
    /// Refuses what no writer may touch, before anything is created: a root that was never
    /// initialized, a state file that is not a regular file or belongs to another user.
    pub(super) fn precheck(&self, purpose: Purpose) -> Result<Dir> {
        let root = self.open_root()?;
        if matches!(purpose, Purpose::Initialize | Purpose::Restore) {
            self.shelf_of(&root)?;
        }
        match self.disk.stat(&root, &self.settings.file_name)? {
            Some(stat) => {
                if stat.kind != FileKind::Regular {
                    // Reports an unsuitable file.
                    Found::read(&self.disk, &root, &self.settings.file_name)?;
                    return Err(unsafe_path(&self.path(), "is not a regular file"));
                }
                // A later commit fails when it replaces the file; `init` must leave nothing.
                if purpose == Purpose::Initialize && is_mount_point(&root, &self.settings.file_name)
                {
                    let (operation, path) = ("replace", self.path());
                    return Err(FsError { operation, path, source: Errno::BUSY.into() }.into());
                }
                if stat.uid != crate::side::user() {
                    return Err(foreign_owner(&self.path(), stat.uid));
                }
            }
            None if matches!(purpose, Purpose::Write | Purpose::Abort) => {
                let shelf = self.shelf_of(&root)?;
                if !self.has_history(&shelf) && !self.is_restore_decided()? {
                    return Err(self.refusal(&Health::NotInitialized, &shelf));
                }
            }
            None => {}
        }
        Ok(root)
    }

    /// Refuses a document that no command works with while the root has no files of this program,
    /// and creates none.
    pub(super) fn refuse_strangers(&self, root: &Dir) -> Result<()> {
        let shelf = self.shelf_of(root)?;
        match self.judge(&self.live()?, &shelf, Look::Quick)? {
            health @ (Health::NotAState | Health::Invalid(_) | Health::TooNew(_)) => {
                Err(self.refusal(&health, &shelf))
            }
            _ => Ok(()),
        }
    }

    /// Takes the lock, creates missing directories, and settles what an earlier command left
    /// unfinished.
    pub(super) fn hold(
        &self,
        mut root: Dir,
        purpose: Purpose,
        deadline: Instant,
    ) -> Result<Held<'_>> {
        let started = Instant::now();
        if purpose == Purpose::Initialize && self.disk.stat(&root, BACKUPS)?.is_none() {
            self.check_modes(&root)?;
        }
        if matches!(purpose, Purpose::Initialize | Purpose::Restore) {
            for name in SIDE_DIRECTORIES {
                let dir = self.side_directory(&root, name)?;
                if purpose == Purpose::Initialize {
                    self.tighten(&root, name, &dir)?;
                }
            }
        }
        loop {
            let locks =
                side::open_unless(&self.disk, &root, LOCKS, || self.refuse_strangers(&root))?;
            if let Some((lock, place)) = self.locks.turn((&root, &locks), deadline)? {
                let held = Held { root, lock, waited: started.elapsed(), place };
                if purpose == Purpose::Abort {
                    return Ok(held);
                }
                if !self.has_workshop(&held.root)? {
                    return Ok(held);
                }
                match self.settle(&held) {
                    Ok(Settled::Yes) => return Ok(held),
                    Ok(Settled::Busy) => {}
                    // A new restore replaces one that can be neither finished nor undone.
                    Err(error) if purpose == Purpose::Restore && error.kind == Kind::Corrupt => {
                        return Ok(held);
                    }
                    Err(error) => return Err(error),
                }
                let Held { root: same, lock, place, .. } = held;
                drop((lock, place)); // the holder of the flock must not wait for another lock
                root = same;
                self.await_along(deadline)?;
            }
            give_up_after(deadline)?;
        }
    }

    /// Refuses a file system without permission bits, where every user could access every file.
    /// Leaves nothing.
    fn check_modes(&self, root: &Dir) -> Result<()> {
        let name = temporary(0, "modes");
        self.disk.unlink(root, &name)?;
        let made = self.disk.create(root, &name).map(drop);
        let found = self.disk.stat(root, &name);
        self.disk.unlink(root, &name)?;
        // The test file's removal is durable before any other file is created.
        self.disk.sync_dir(root)?;
        let has_modes = match (&made, found?) {
            (Ok(()), Some(stat)) => stat.mode & 0o777 == 0o600,
            // The file was created, but its mode could not be set.
            (Err(error), Some(_)) if error.is(Errno::PERM) || error.is_unsupported() => false,
            _ => return Ok(made?),
        };
        if has_modes {
            return Ok(());
        }
        let shown = root.path().display();
        let message = format!(
            "{shown} lies on a file system without permissions: no mode can be set there, and others \
            could read and change what is kept"
        );
        Err(Error::new(Kind::UnsafePath, message)
            .try_shell(
                format!("findmnt -T {}", quote_path(root.path())),
                "see which; --root names a directory elsewhere",
            )
            .detail("path", shown.to_string()))
    }

    /// Takes the state lock and the locks of `config/` and `.signals/`, without waiting long for
    /// one while it holds another.
    ///
    /// Where many commands want all of them, each keeps the locks that it was granted in queue
    /// order while it tries to get the state lock. If it released them first, the holder of the
    /// state lock would find others in the queue, and hardly any command would get all three.
    pub(super) fn hold_all(&self, purpose: Purpose, deadline: Instant) -> Result<Hands<'_>> {
        loop {
            let held = self.hold(self.precheck(purpose)?, purpose, deadline)?;
            if let Some(along) = self.locks.take_along(&ALONG)? {
                return Ok(Hands { held, _along: along });
            }
            drop(held);
            let along = self.locks.wait_along(&ALONG, deadline)?;
            match self.hold(
                self.precheck(purpose)?,
                purpose,
                deadline.min(Instant::now() + PATIENCE),
            ) {
                Ok(held) => return Ok(Hands { held, _along: along }),
                // The holder of the state lock may be waiting for a lock held here.
                Err(error) if matches!(error.kind, Kind::LockTimeout | Kind::Deadlock) => {
                    drop(along)
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes the locks of `config/` and `.signals/`, if they are free.
    pub(super) fn take_along(&self) -> Result<Option<Along<'_>>> {
        self.locks.take_along(&ALONG)
    }

    /// Waits until the locks of `config/` and `.signals/` are free.
    pub(super) fn await_along(&self, deadline: Instant) -> Result<()> {
        self.locks.wait_along(&ALONG, deadline).map(drop)
    }

    pub(super) fn deadline(&self) -> Instant {
        let now = Instant::now();
        now.checked_add(self.settings.lock_timeout)
            .unwrap_or(now + Duration::from_secs(86400 * 365))
    }
}
