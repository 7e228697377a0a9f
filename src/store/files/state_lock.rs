//! The state lock and the other locks of a command, and what they refuse.

use std::cell::OnceCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::FileStore;
use super::observe::{Depth, Observation};
use super::root::Root;
use super::state_file::StateFile;
use crate::error::{Error, Kind, Result, quote_path};
use crate::fs::stage::temporary;
use crate::fs::{Dir, FileKind, FsError};
use crate::journal::event::Blocker;
use crate::lock::{CommitTurn, FileLock, ImplicitLocks, QueueSlot};
use crate::os::hints;
use crate::side::{foreign_owner, unsafe_path};
use crate::store::diagnosis::Health;
use crate::store::options::LockPurpose;
use crate::tree::is_mount_point;

/// The locks that a checkpoint holds besides the state lock.
const TREE_LOCKS: [&str; 2] = ["config", "signals"];

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
    /// The lock of this turn, which came after `waited`.
    pub(super) fn new(
        store: &'s FileStore,
        root: Dir,
        turn: CommitTurn<'s>,
        waited: Duration,
    ) -> Self {
        let CommitTurn { lock: flock, slot, blockers } = turn;
        Self { store, root, flock, waited, blockers, _slot: slot, trees: OnceCell::new() }
    }

    /// The same with the locks of trees, released with it.
    pub(super) fn with(self: Rc<Self>, trees: ImplicitLocks<'s>) -> Rc<Self> {
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
                if !Observation::has_history(self.store, &backup_dir)
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
        let seen = Observation::diagnose(
            self.store,
            Root::of(self.store).live()?,
            backup_dir,
            Depth::DigestOnly,
        )?;
        match &seen.health {
            Health::NotAState | Health::Invalid(_) | Health::TooNew(_) => Err(seen.refusal()),
            _ => Ok(()),
        }
    }

    /// Refuses a file system without permission bits, where every user could access every file.
    /// Leaves nothing.
    pub(super) fn check_modes(&self, root: &Dir) -> Result<()> {
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

    /// Takes the locks of `config/` and `.signals/`, if they are free.
    pub(super) fn try_lock_trees(&self) -> Result<Option<ImplicitLocks<'s>>> {
        ImplicitLocks::try_acquire(&self.store.locks, &TREE_LOCKS)
    }

    /// Takes the locks of `config/` and `.signals/`, waiting until they are free.
    pub(super) fn lock_trees(&self, deadline: Instant) -> Result<ImplicitLocks<'s>> {
        ImplicitLocks::acquire(&self.store.locks, &TREE_LOCKS, deadline)
    }

    pub(super) fn deadline(&self) -> Instant {
        let now = Instant::now();
        now.checked_add(self.store.settings.lock_timeout)
            .unwrap_or(now + Duration::from_secs(86400 * 365))
    }
}

/// The error of a command that finds that the lock it holds was removed.
pub(super) fn lock_lost() -> Error {
    Error::new(
        Kind::Conflict,
        "the lock's file was removed meanwhile, and another writer may have begun; \
         nothing was done",
    )
    .hint_command("state status", "see what state it is in, and do it again")
}
