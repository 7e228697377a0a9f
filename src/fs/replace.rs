//! Replacing a file that no lock of this program protects: the user's own, or an editor's.

use std::ffi::OsStr;

use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

use super::stage::{Durability, StagedFile};
use super::{Access, Dir, Disk, FsResult};

/// The end of a temporary name beside the file that it replaces.
const END: &str = ".pipeline-state-tmp";

impl Disk {
    /// Replaces a file, or makes it (0600): whole or not at all, and durably. What other processes
    /// that were killed here left is removed.
    pub fn replace_whole(&self, dir: &Dir, name: &OsStr, bytes: &[u8]) -> FsResult<()> {
        self.stage_beside(dir, name, bytes)?.put_in_place(self, dir, name)
    }

    /// Writes what is to replace a file under a temporary name of this process beside it.
    pub fn stage_beside<'a>(
        &'a self,
        dir: &'a Dir,
        name: &OsStr,
        bytes: &[u8],
    ) -> FsResult<StagedBeside<'a>> {
        let begin = format!(".{}.", name.to_string_lossy());
        for other in self.list(dir)? {
            let pid = other.to_str().and_then(|other| {
                other.strip_prefix(&begin)?.strip_suffix(END)?.parse::<u32>().ok()
            });
            if pid.is_some_and(|pid| !is_alive(pid)) {
                self.unlink(dir, &other)?;
            }
        }
        let temporary = format!("{begin}{}{END}", std::process::id());
        let staged = self.stage(dir, &temporary, bytes, Durability::Fsync)?;
        Ok(StagedBeside { temporary, staged })
    }
}

/// A file that is complete, and not yet in its place.
#[derive(Debug)]
pub struct StagedBeside<'a> {
    /// Its temporary name.
    pub temporary: String,
    staged: StagedFile<'a>,
}

impl StagedBeside<'_> {
    /// Puts it in its place.
    pub fn put_in_place(self, disk: &Disk, dir: &Dir, name: &OsStr) -> FsResult<()> {
        disk.rename(dir.entry(&self.temporary), dir.entry(name))?;
        self.staged.keep();
        disk.sync_dir(dir)
    }

    /// Opens it, to give it the attributes of the file that it replaces.
    pub fn open(&self, disk: &Disk, dir: &Dir) -> FsResult<Option<std::fs::File>> {
        disk.open(dir, &self.temporary, Access::Read)
    }
}

/// Returns whether a process with this number exists.
fn is_alive(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.is_some_and(|pid| test_kill_process(pid) != Err(Errno::SRCH))
}
