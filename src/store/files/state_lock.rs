//! Acquiring the state lock and the other locks of a command. Before the command proceeds, work
//! that an earlier command left unfinished is finished or removed.

use std::cell::OnceCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::FileStore;
use super::observe::{Depth, Observation};
use super::restore::Settled;
use super::root::Root;
use super::staging::Staging;
use super::state_file::StateFile;
use crate::error::{Error, Kind, Result, quote_path};
use crate::fs::stage::temporary;
use crate::fs::{Dir, FileKind, FsError};
use crate::journal::event::Blocker;
use crate::lock::{CommitTurn, FileLock, ImplicitLocks, LOCKS, QueueSlot};
use crate::os::hints;
use crate::side::{self, foreign_owner, unsafe_path};
use crate::store::diagnosis::Health;
use crate::store::layout::{BACKUPS, SIDE_DIRECTORIES};
use crate::store::options::{LockPurpose, check_deadline};
use crate::tree::is_mount_point;

/// The locks that a checkpoint holds besides the state lock.
const TREE_LOCKS: [&str; 2] = ["config", "signals"];

/// The longest time for which locks on other resources are held without the state lock.
const PATIENCE: Duration = Duration::from_secs(1);

/// The state lock, held, with what a writer opened under it.
#[derive(Debug)]
pub(super) struct StateLock<'s> {
    pub store: &'s FileStore,
    /// The root directory, opened once.
    pub root: Dir,
    pub flock: FileLock,
    /// The time it waited for the lock.
    pub waited: Duration,
    /// What it waited for, as far as it is known.
    pub blockers: Vec<Blocker>,
    /// Its place in the queue, if it had to wait. Dropped after the flock, so that the next in the
    /// queue finds the lock free.
    _slot: Option<QueueSlot<'s>>,
    /// The locks of `config/` and `.signals/`, where they are needed. Released last.
    trees: OnceCell<ImplicitLocks<'s>>,
}

impl<'s> StateLock<'s> {
    fn with(self: Rc<Self>, trees: ImplicitLocks<'s>) -> Rc<Self> {
        let _ = self.trees.set(trees);
        self
    }
}

/// Acquires the state lock and the locks of trees.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct StateLocks<'s> {
    pub(in crate::store) store: &'s FileStore,
}

impl<'s> StateLocks<'s> {
    /// Of `store`.
    pub(in crate::store) fn of(store: &'s FileStore) -> Self {
        Self { store }
    }

    /// Refuses what no writer may touch, before anything is created: a root that was never
    /// initialized, a state file that is not a regular file or belongs to another user.
    pub(super) fn precheck(&self, purpose: LockPurpose) -> Result<Dir> {
        let root = Root::of(self.store).open()?;
        if matches!(purpose, LockPurpose::Initialize | LockPurpose::Restore) {
            Root::of(self.store).backup_dir_of(&root)?;
        }
        match self.store.disk.stat(&root, &self.store.settings.file_name)? {
            Some(stat) => {
                if stat.kind != FileKind::Regular {
                    // Reports an unsuitable file.
                    StateFile::read(&self.store.disk, &root, &self.store.settings.file_name)?;
                    return Err(unsafe_path(&self.store.settings.path(), "is not a regular file"));
                }
                // A later commit fails when it replaces the file; `init` must leave nothing.
                if purpose == LockPurpose::Initialize
                    && is_mount_point(&root, &self.store.settings.file_name)
                {
                    let (operation, path) = ("replace", self.store.settings.path());
                    return Err(FsError { operation, path, source: Errno::BUSY.into() }.into());
                }
                if stat.uid != crate::user::current() {
                    return Err(foreign_owner(&self.store.settings.path(), stat.uid));
                }
            }
            None if matches!(purpose, LockPurpose::Write | LockPurpose::Abort) => {
                let backup_dir = Root::of(self.store).backup_dir_of(&root)?;
                if !Root::of(self.store).has_history(&backup_dir)
                    && !self.store.intents().is_decided()?
                {
                    let health = Health::NotInitialized;
                    let seen = Observation { store: self.store, live: None, backup_dir, health };
                    return Err(seen.refusal());
                }
            }
            None => {}
        }
        Ok(root)
    }

    /// Refuses a document that no command works with while the root has no files of this program,
    /// and creates none.
    pub(super) fn refuse_other_tools_file(&self, root: &Dir) -> Result<()> {
        let backup_dir = Root::of(self.store).backup_dir_of(root)?;
        let seen = Root::of(self.store).diagnose(
            Root::of(self.store).live()?,
            backup_dir,
            Depth::DigestOnly,
        )?;
        match &seen.health {
            Health::NotAState | Health::Invalid(_) | Health::TooNew(_) => Err(seen.refusal()),
            _ => Ok(()),
        }
    }

    /// Takes the lock, creates missing directories, and settles what an earlier command left
    /// unfinished.
    pub(super) fn lock_state(
        &self,
        purpose: LockPurpose,
        deadline: Instant,
    ) -> Result<Rc<StateLock<'s>>> {
        let mut root = self.precheck(purpose)?;
        let started = Instant::now();
        if purpose == LockPurpose::Initialize && self.store.disk.stat(&root, BACKUPS)?.is_none() {
            self.check_modes(&root)?;
        }
        if matches!(purpose, LockPurpose::Initialize | LockPurpose::Restore | LockPurpose::Host) {
            for name in SIDE_DIRECTORIES {
                let dir = Root::of(self.store).side_directory(&root, name)?;
                if purpose == LockPurpose::Initialize {
                    Root::of(self.store).tighten(&root, name, &dir)?;
                }
            }
        }
        loop {
            let locks = side::open_unless(&self.store.disk, &root, LOCKS, || {
                self.refuse_other_tools_file(&root)
            })?;
            if let Some(CommitTurn { lock: flock, slot, blockers }) =
                self.store.locks.commit_turn(&root, &locks, deadline)?
            {
                let lock = Rc::new(StateLock {
                    store: self.store,
                    root,
                    flock,
                    waited: started.elapsed(),
                    blockers,
                    _slot: slot,
                    trees: OnceCell::new(),
                });
                if matches!(purpose, LockPurpose::Abort | LockPurpose::Host) {
                    return Ok(lock);
                }
                if !Staging::of(self.store).exists(&lock.root)? {
                    return Ok(lock);
                }
                match self.store.intents().settle(&lock) {
                    Ok(Settled::Yes) => return Ok(lock),
                    Ok(Settled::Busy) => {}
                    // A new restore replaces one that can be neither finished nor undone.
                    Err(error)
                        if purpose == LockPurpose::Restore && error.kind == Kind::Corrupt =>
                    {
                        return Ok(lock);
                    }
                    Err(error) => return Err(error),
                }
                drop(lock); // the holder of the flock must not wait for another lock
                root = self.precheck(purpose)?;
                self.await_trees(deadline)?;
            }
            check_deadline(deadline)?;
        }
    }

    /// Refuses a file system without permission bits, where every user could access every file.
    /// Leaves nothing.
    fn check_modes(&self, root: &Dir) -> Result<()> {
        let name = temporary(0, "modes");
        self.store.disk.unlink(root, &name)?;
        let made = self.store.disk.create(root, &name).map(drop);
        let found = self.store.disk.stat(root, &name);
        self.store.disk.unlink(root, &name)?;
        // The test file's removal is durable before any other file is created.
        self.store.disk.sync_dir(root)?;
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
            "{shown} lies on a file system without permissions: no mode can be set there, \
             and others could read and change what is kept"
        );
        Err(Error::new(Kind::UnsafePath, message)
            .hint_shell(
                hints::mount_of(&quote_path(root.path())),
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
    pub(super) fn lock_all(
        &self,
        purpose: LockPurpose,
        deadline: Instant,
    ) -> Result<Rc<StateLock<'s>>> {
        loop {
            let lock = self.lock_state(purpose, deadline)?;
            if let Some(trees) = self.store.locks.try_acquire_implicit(&TREE_LOCKS)? {
                return Ok(lock.with(trees));
            }
            drop(lock);
            let trees = self.store.locks.acquire_implicit(&TREE_LOCKS, deadline)?;
            match self.lock_state(purpose, deadline.min(Instant::now() + PATIENCE)) {
                Ok(lock) => return Ok(lock.with(trees)),
                // The holder of the state lock may be waiting for a lock held here.
                Err(error) if matches!(error.kind, Kind::LockTimeout | Kind::Deadlock) => {
                    drop(trees)
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes the locks of `config/` and `.signals/`, if they are free.
    pub(super) fn try_lock_trees(&self) -> Result<Option<ImplicitLocks<'s>>> {
        self.store.locks.try_acquire_implicit(&TREE_LOCKS)
    }

    /// Waits until the locks of `config/` and `.signals/` are free.
    pub(super) fn await_trees(&self, deadline: Instant) -> Result<()> {
        self.store.locks.acquire_implicit(&TREE_LOCKS, deadline).map(drop)
    }

    pub(super) fn deadline(&self) -> Instant {
        let now = Instant::now();
        now.checked_add(self.store.settings.lock_timeout)
            .unwrap_or(now + Duration::from_secs(86400 * 365))
    }
}
