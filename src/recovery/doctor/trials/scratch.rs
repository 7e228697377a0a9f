//! The scratch directory of the trials.
//!
//! An flock on the directory itself shows that a doctor is at work in it; what a killed one left
//! is removed by the next. The parent keeps its modification time: readers of a missing state wait
//! where that is recent.

use std::fs::File;
use std::time::Duration;

use crate::error::Result;
use crate::fs::{Dir, Disk, Locked};
use crate::tree;

/// Its name.
const SCRATCH: &str = ".pipeline-state-doctor";

/// The scratch directory, open and empty; removed on drop.
pub(super) struct Scratch<'a> {
    disk: &'a Disk,
    parent: &'a Dir,
    pub dir: Dir,
    mtime: (i64, i64),
    _flock: Option<File>,
}

impl<'a> Scratch<'a> {
    /// Makes one in `parent`; `None` if another doctor is at work there.
    pub fn make(disk: &'a Disk, parent: &'a Dir) -> Result<Option<Self>> {
        let mtime = disk.stat(parent, ".")?.map_or((0, 0), |stat| stat.mtime);
        for _ in 0..2 {
            if let Err(error) = disk.make_dir(parent, SCRATCH) {
                let _ = disk.remove_dir(parent, SCRATCH); // its mode could not be set
                return Err(error.into());
            }
            let dir = disk.open_dir(parent, SCRATCH)?;
            let flock = match dir.at().try_clone_to_owned().map(File::from) {
                Ok(file) => disk.lock(file, dir.path(), Duration::ZERO),
                Err(_) => continue,
            };
            let flock = match flock {
                Ok(Locked::TimedOut) => return Ok(None),
                Ok(Locked::Yes(file)) => Some(file),
                // not every file system has it for directories; a file is tried later
                Err(_) => None,
            };
            let (Some(made), Some(found)) = (disk.stat(&dir, ".")?, disk.stat(parent, SCRATCH)?)
            else {
                continue; // another doctor was about to remove it
            };
            if !made.same_file(&found) {
                continue;
            }
            for name in disk.list(&dir)? {
                tree::remove(disk, &dir, &name)?;
            }
            return Ok(Some(Self { disk, parent, dir, mtime, _flock: flock }));
        }
        Ok(None)
    }
}

impl Drop for Scratch<'_> {
    fn drop(&mut self) {
        if tree::remove(self.disk, self.parent, SCRATCH).is_ok() {
            let parent = self.parent;
            let _ = self.disk.set_mtime_of(parent.at(), parent.path(), self.mtime);
        }
    }
}
