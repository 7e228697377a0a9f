//! Finds out how each target of a restore can be replaced, without changing a live name.
//!
//! The probe renames the target onto a non-empty directory beside it. No rename replaces such a
//! directory, so the error shows what else would have stopped it: nothing (`ENOTEMPTY`), a mount
//! point (`EBUSY`), a merged directory of an overlay (`EXDEV`), an immutable file (`EPERM`).

use std::ffi::{OsStr, OsString};
use std::time::Instant;

use rustix::io::Errno;

use crate::error::{Error, Kind, Result, quote_path};
use crate::fs::{Dir, Disk, FileKind, FsError};
use crate::lock::LOCKS;
use crate::store::files::FileStore;
use crate::store::files::root::Root;
use crate::store::files::staging::Staging;
use crate::store::files::state_lock::{StateLock, StateLocks};
use crate::store::files::writable::{immutable, is_immutable};
use crate::store::layout::{CHECKPOINTS, CONFIG, SIGNALS, STAGED_PREFIX};
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
        let lock = StateLocks::of(self.store)
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
        let locked = StateLocks::of(self.store).lock_state(LockPurpose::Abort, Instant::now());
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

/// The name of the scratch directory.
pub(in super::super) const PROBE: &str = ".pipeline-state-restore-0-probe";
/// The file in it.
const CONTENT: &str = "not-empty";

/// Removes the scratch directory of a probe. Where another process removed it, a target may have
/// taken its name: anything but the directory with its one file stays.
pub(in super::super) fn remove(disk: &Disk, parent: &Dir) -> Result<()> {
    let Some(stat) = disk.stat(parent, PROBE)? else { return Ok(()) };
    if stat.kind == FileKind::Directory {
        disk.unlink(&disk.open_dir(parent, PROBE)?, CONTENT)?;
        match disk.remove_dir(parent, PROBE) {
            Err(error) if error.is(Errno::NOTEMPTY) || error.is(Errno::EXIST) => {}
            removed => return Ok(removed?),
        }
    }
    let path = parent.path_of(PROBE);
    let message = format!(
        "{} is not what a restore left there; it may be a file that was displaced",
        path.display()
    );
    Err(Error::new(Kind::UnsafePath, message).hint_shell(
        format!("ls -la {}", quote_path(&path)),
        "see what it is, and move it to its place",
    ))
}

fn check_no_mount(dir: &Dir, name: &OsStr) -> Result<()> {
    if tree::is_mount_point(dir, name) {
        return Err(FsError {
            operation: "replace",
            path: dir.path_of(name),
            source: Errno::BUSY.into(),
        }
        .into());
    }
    Ok(())
}

/// A non-empty directory, for renames that must fail; removed on drop.
struct Scratch<'a> {
    disk: &'a Disk,
    parent: &'a Dir,
    name: OsString,
    /// The parent's modification time, which is reset on removal.
    mtime: (i64, i64),
}

impl<'a> Scratch<'a> {
    fn make(disk: &'a Disk, parent: &'a Dir) -> Result<Self> {
        let name = OsString::from(PROBE);
        remove(disk, parent)?; // left by a command that was killed
        let mtime = disk.stat(parent, ".")?.map_or((0, 0), |stat| stat.mtime);
        disk.make_dir(parent, &name)?;
        let scratch = Self { disk, parent, name, mtime };
        let dir = disk.open_dir(parent, &scratch.name)?;
        drop(disk.create(&dir, CONTENT)?);
        Ok(scratch)
    }

    /// The obstacle to renaming a directory; `None` if there is none.
    fn blocks_move(&self, dir: &Dir, name: &OsStr) -> Result<Option<FsError>> {
        const OBSTACLES: [Errno; 5] =
            [Errno::XDEV, Errno::BUSY, Errno::PERM, Errno::ACCESS, Errno::ROFS];
        match self.disk.rename(dir.entry(name), self.parent.entry(&self.name)) {
            Err(error) if error.is(Errno::NOTEMPTY) || error.is(Errno::EXIST) => Ok(None),
            Err(error) if OBSTACLES.iter().any(|errno| error.is(*errno)) => {
                Ok(Some(FsError { path: dir.path_of(name), ..error }))
            }
            Err(error) => Err(error.into()),
            Ok(()) => Err(self.put_back(dir, name)?),
        }
    }

    /// Refuses a file or link that cannot be replaced.
    fn try_file(&self, dir: &Dir, name: &OsStr) -> Result<()> {
        check_no_mount(dir, name)?;
        match self.disk.rename(dir.entry(name), self.parent.entry(&self.name)) {
            Err(error) if error.is(Errno::ISDIR) => Ok(()),
            Err(error) if error.is(Errno::NOENT) => Ok(()), // it was removed in the meantime
            // Some file systems check the destination last.
            Err(error) if error.is(Errno::NOTEMPTY) || error.is(Errno::EXIST) => Ok(()),
            Err(error) => Err(FsError { path: dir.path_of(name), ..error }.into()),
            Ok(()) => Err(self.put_back(dir, name)?),
        }
    }

    /// Renames the target back: another process removed the scratch directory, and the target took
    /// its name.
    fn put_back(&self, dir: &Dir, name: &OsStr) -> Result<Error> {
        self.disk.rename_to_free(self.parent.entry(&self.name), dir.entry(name))?;
        Ok(Error::new(
            Kind::Conflict,
            "something else removes files of a restore; nothing was done",
        ))
    }

    /// Refuses a directory with an entry that cannot be replaced or removed.
    fn try_contents(&self, dir: &Dir) -> Result<()> {
        for name in self.disk.list(dir)? {
            if name.to_str().is_some_and(|name| name.starts_with(STAGED_PREFIX)) {
                continue;
            }
            let Some(stat) = self.disk.stat(dir, &name)? else { continue };
            if stat.kind != FileKind::Directory {
                self.try_file(dir, &name)?;
                continue;
            }
            match self.blocks_move(dir, &name)? {
                // The contents of a merged directory can be moved out.
                Some(error) if !error.is(Errno::XDEV) => {
                    return Err(error.into());
                }
                _ => self.try_contents(&self.disk.open_dir(dir, &name)?)?,
            }
        }
        Ok(())
    }
}

impl Drop for Scratch<'_> {
    fn drop(&mut self) {
        // The next writer tries again.
        if remove(self.disk, self.parent).is_ok() {
            let _ = self.disk.set_mtime_of(self.parent.at(), self.parent.path(), self.mtime);
            // durable before the staging directory is removed
            let _ = self.disk.sync_dir(self.parent);
        }
    }
}
