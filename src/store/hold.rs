//! Taking the state's turn, and what else a command needs to hold: before it is anything's turn, what somebody left half done
//! is finished or cleared away.

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

/// The locks of what a checkpoint holds besides the state.
const ALONG: [&str; 2] = ["config", "signals"];

/// For how long locks that others may want are held while the state is not had.
const PATIENCE: Duration = Duration::from_secs(1);

/// Everything that a checkpoint or a restore needs.
pub(super) struct Hands<'a> {
    pub held: Held<'a>,
    _along: Along<'a>, // given back after the flock
}

impl Store {
    /// Refuses what no writer may touch, before anything is made: a root that was never initialized, a state file
    /// that is no plain file or belongs to somebody else.
    pub(super) fn precheck(&self, purpose: Purpose) -> Result<Dir> {
        let root = self.open_root()?;
        if matches!(purpose, Purpose::Initialize | Purpose::Restore) {
            self.shelf_of(&root)?;
        }
        match self.disk.stat(&root, &self.settings.file_name)? {
            Some(stat) => {
                if stat.kind != FileKind::Regular {
                    Found::read(&self.disk, &root, &self.settings.file_name)?; // says what it is
                    return Err(unsafe_path(&self.path(), "is not a regular file"));
                }
                // Later ones find out when they replace it; this one leaves nothing behind.
                if purpose == Purpose::Initialize && is_mount_point(&root, &self.settings.file_name) {
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

    /// Refuses a document that no command works with, while there is nothing of this program beside it: it is left alone.
    pub(super) fn refuse_strangers(&self, root: &Dir) -> Result<()> {
        let shelf = self.shelf_of(root)?;
        match self.judge(&self.live()?, &shelf, Look::Quick)? {
            health @ (Health::NotAState | Health::Invalid(_) | Health::TooNew(_)) => Err(self.refusal(&health, &shelf)),
            _ => Ok(()),
        }
    }

    /// Takes the lock, making the directories where they are missing, and deals with what somebody left half done.
    pub(super) fn hold(&self, mut root: Dir, purpose: Purpose, deadline: Instant) -> Result<Held<'_>> {
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
            let locks = side::open_unless(&self.disk, &root, LOCKS, || self.refuse_strangers(&root))?;
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
                    // Another restore takes the place of one that can neither be finished nor undone.
                    Err(error) if purpose == Purpose::Restore && error.kind == Kind::Corrupt => return Ok(held),
                    Err(error) => return Err(error),
                }
                let Held { root: same, lock, place, .. } = held;
                drop((lock, place)); // whoever holds the flock waits for nothing
                root = same;
                self.await_along(deadline)?;
            }
            give_up_after(deadline)?;
        }
    }

    /// Refuses a file system without permission bits, where everything would belong to everyone. Leaves nothing behind.
    fn check_modes(&self, root: &Dir) -> Result<()> {
        let name = temporary(0, "modes");
        self.disk.unlink(root, &name)?;
        let made = self.disk.create(root, &name).map(drop);
        let found = self.disk.stat(root, &name);
        self.disk.unlink(root, &name)?;
        self.disk.sync_dir(root)?; // gone for good before anything is made by which it would be found
        let has_modes = match (&made, found?) {
            (Ok(()), Some(stat)) => stat.mode & 0o777 == 0o600,
            // The file was made, and then its mode could not be set.
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

    /// Takes the state's turn and the locks of `config/` and `.signals/`, never waiting long for one while it holds another.
    ///
    /// Where many want all of them, each keeps the locks that came to it in the order of their queue while it tries for its
    /// turn. If it gave them back first, whoever has its turn would find others in the queue, and hardly anybody all at once.
    pub(super) fn hold_all(&self, purpose: Purpose, deadline: Instant) -> Result<Hands<'_>> {
        loop {
            let held = self.hold(self.precheck(purpose)?, purpose, deadline)?;
            if let Some(along) = self.locks.take_along(&ALONG)? {
                return Ok(Hands { held, _along: along });
            }
            drop(held);
            let along = self.locks.wait_along(&ALONG, deadline)?;
            match self.hold(self.precheck(purpose)?, purpose, deadline.min(Instant::now() + PATIENCE)) {
                Ok(held) => return Ok(Hands { held, _along: along }),
                // Whoever holds the state may wait for what we hold.
                Err(error) if matches!(error.kind, Kind::LockTimeout | Kind::Deadlock) => drop(along),
                Err(error) => return Err(error),
            }
        }
    }

    /// The locks of `config/` and `.signals/`, if nobody is in the way.
    pub(super) fn take_along(&self) -> Result<Option<Along<'_>>> {
        self.locks.take_along(&ALONG)
    }

    /// Waits until nobody is in the way of the locks of `config/` and `.signals/`.
    pub(super) fn await_along(&self, deadline: Instant) -> Result<()> {
        self.locks.wait_along(&ALONG, deadline).map(drop)
    }

    pub(super) fn deadline(&self) -> Instant {
        let now = Instant::now();
        now.checked_add(self.settings.lock_timeout).unwrap_or(now + Duration::from_secs(86400 * 365))
    }
}
