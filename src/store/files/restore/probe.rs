//! Finds out how each target of a restore can be replaced, without changing a live name.
//!
//! The probe renames the target onto a non-empty directory beside it. No rename replaces such a
//! directory, so the error shows what else would have stopped it: nothing (`ENOTEMPTY`), a mount
//! point (`EBUSY`), a merged directory of an overlay (`EXDEV`), an immutable file (`EPERM`).

use std::ffi::OsStr;
use std::time::Instant;

use super::scratch::{Scratch, check_no_mount};
use crate::error::{Error, Kind, Result};
use crate::fs::{Dir, FileKind};
use crate::lock::LOCKS;
use crate::store::files::FileStore;
use crate::store::files::begin::Transactions;
use crate::store::files::root::Root;
use crate::store::files::staging::Staging;
use crate::store::files::state_lock::{StateLock, StateLocks};
use crate::store::files::writable::{immutable, is_immutable};
use crate::store::layout::{CHECKPOINTS, CONFIG, SIGNALS};
use crate::store::options::LockPurpose;
use crate::store::restore::intent::Manner;
use crate::tree;

/// The way in which a restore would replace each of its targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestorePlan {
    /// `config/`
    pub config: Manner,
    /// `.signals/`
    pub signals: Manner,
}

impl RestorePlan {
    /// The manner for the tree of this name.
    pub(super) fn of(self, name: &str) -> Manner {
        if name == CONFIG { self.config } else { self.signals }
    }
}

impl<'s> Probe<'s> {
    /// Of `store`.
    pub fn of(store: &'s FileStore) -> Self {
        Self { store }
    }

    /// The way in which a restore would replace its targets. If one of them cannot be replaced, the
    /// error is the one that a restore would be refused with. Takes the state lock, and changes no
    /// live name.
    pub fn plan(&self) -> Result<RestorePlan> {
        let lock = Transactions::of(self.store)
            .lock_state(LockPurpose::Write, StateLocks::of(self.store).deadline())?;
        Probe::of(self.store).under(&lock)
    }

    /// The same for a check, which finishes no work of others and does not wait: `None` where it
    /// would, and where there is no state.
    pub fn plan_now(&self) -> Result<Option<RestorePlan>> {
        let root = Root::of(self.store).open()?;
        let is_there = |name| Ok::<_, Error>(self.store.disk.stat(&root, name)?.is_some());
        if !is_there(LOCKS)? || !is_there(CHECKPOINTS)? {
            return Ok(None);
        }
        let locked = Transactions::of(self.store).lock_state(LockPurpose::Abort, Instant::now());
        let lock = match locked {
            Err(error) if matches!(error.kind, Kind::LockTimeout | Kind::NotInitialized) => {
                return Ok(None);
            }
            lock => lock?,
        };
        match Staging::of(self.store).is_used(&lock.root)? {
            true => Ok(None),
            false => self.under(&lock).map(Some),
        }
    }
}

/// Trying how the targets of a restore can be replaced.
#[derive(Clone, Copy, Debug)]
pub struct Probe<'s> {
    pub(in crate::store) store: &'s FileStore,
}

impl Probe<'_> {
    /// The same under a lock that is held. The staging directory shows the next writer that there
    /// may be something to remove.
    pub(in super::super) fn under(&self, lock: &StateLock) -> Result<RestorePlan> {
        let staging = Staging::of(self.store).open(lock)?;
        // A file made for the probe must never exist without the staging directory.
        self.store.disk.sync_dir(&staging.checkpoints)?;
        let plan =
            self.run(lock).map_err(|error| self.store.checkpoints().without_staged_path(error))?;
        staging.done()?;
        Ok(plan)
    }

    pub(super) fn run(&self, lock: &StateLock) -> Result<RestorePlan> {
        let config_root = Staging::of(self.store)
            .config_root()?
            .ok_or_else(|| self.store.restores().no_config_root())?;
        self.probe_state(&lock.root)?;
        Ok(RestorePlan {
            config: self.probe_tree(&config_root, CONFIG)?,
            signals: self.probe_tree(&lock.root, SIGNALS)?,
        })
    }

    /// Checks the live file without renaming it, not even onto a directory: that might be removed
    /// by then.
    fn probe_state(&self, root: &Dir) -> Result<()> {
        let name = self.store.settings.file_name.as_os_str();
        let _scratch = Scratch::make(&self.store.disk, root)?;
        if is_immutable(root, name) {
            return Err(immutable(&root.path_of(name)));
        }
        check_no_mount(root, name)
    }

    fn probe_tree(&self, parent: &Dir, name: &str) -> Result<Manner> {
        let Some(stat) = self.store.disk.stat(parent, name)? else {
            return Scratch::make(&self.store.disk, parent).map(|_| Manner::Move);
        };
        if stat.kind != FileKind::Directory {
            tree::check(&self.store.disk, parent, name)?;
        }
        let target = self.store.disk.open_dir(parent, name)?;
        // A directory beside it must be on the same mount, and writable; otherwise only the
        // contents can be replaced.
        let beside = Scratch::make(&self.store.disk, parent).and_then(|scratch| {
            let blocked = scratch.blocks_move(parent, OsStr::new(name))?;
            Ok((scratch, blocked))
        });
        let (scratch, manner) = match beside {
            Ok((scratch, None)) => (scratch, Manner::Move),
            // An obstacle to both methods is reported as that of the first.
            Ok((_, Some(blocked))) => match Scratch::make(&self.store.disk, &target) {
                Err(error) if error.kind == Kind::PermissionDenied => return Err(blocked.into()),
                inside => (inside?, Manner::CopyInto),
            },
            Err(error) if error.kind == Kind::PermissionDenied => {
                (Scratch::make(&self.store.disk, &target)?, Manner::CopyInto)
            }
            Err(error) => return Err(error),
        };
        scratch.try_contents(&target)?;
        Ok(manner)
    }
}
