//! A directory with one file, onto which no rename puts anything: renames onto it show what else
//! would have stopped them.

use std::ffi::{OsStr, OsString};

use rustix::io::Errno;

use crate::error::{Error, Kind, Result, quote_path};
use crate::fs::{Dir, Disk, FileKind, FsError};
use crate::store::layout::STAGED_PREFIX;
use crate::tree;

/// The name of the scratch directory.
pub(in crate::store::files) const PROBE: &str = ".pipeline-state-restore-0-probe";
/// The file in it.
const CONTENT: &str = "not-empty";

/// Removes the scratch directory of a probe. Where another process removed it, a target may have
/// taken its name: anything but the directory with its one file stays.
pub(in crate::store::files) fn remove(disk: &Disk, parent: &Dir) -> Result<()> {
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

/// Refuses the name of a mount point.
pub(super) fn check_no_mount(dir: &Dir, name: &OsStr) -> Result<()> {
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
pub(super) struct Scratch<'a> {
    disk: &'a Disk,
    parent: &'a Dir,
    name: OsString,
    /// The parent's modification time, which is reset on removal.
    mtime: (i64, i64),
}

impl<'a> Scratch<'a> {
    pub(super) fn make(disk: &'a Disk, parent: &'a Dir) -> Result<Self> {
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
    pub(super) fn blocks_move(&self, dir: &Dir, name: &OsStr) -> Result<Option<FsError>> {
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
    pub(super) fn try_contents(&self, dir: &Dir) -> Result<()> {
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
