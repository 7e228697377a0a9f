//! Names the process that holds an flock, for messages only.
//!
//! The kernel lists flocks in `/proc/locks`, but not those of other pid namespaces, not under the
//! inode that stat(2) shows on some file systems, and not on a Mac. So each holder writes its pid
//! into the file it locked. That note may be out of date: the next holder could not write, or was
//! an older version. It counts only if the process that it names has the file open, and even then
//! it shows which process took the lock last, not which one holds it.

use std::fs::File;
use std::path::Path;

use serde::ser::SerializeStruct as _;
use serde::{Serialize, Serializer};

use crate::fs::probe::Probe;
use crate::fs::{Dir, Disk, FsResult, Stat};
use crate::journal::event::{Blocker, Party, Role};
use crate::lock::process::{has_open, process_name, view_of_running};
use crate::os::files::ListedHolder;

/// The bytes read from a lock file for its note: a pid has at most ten digits.
const LIMIT: u64 = 64;

/// A process that holds a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlockHolder {
    /// Its process id; `None` if it cannot be named from here.
    pub pid: Option<u32>,
    /// Its name, as the kernel has it.
    pub command: String,
    /// The source of this knowledge.
    pub known_by: KnownBy,
}

/// The source from which a holder is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum KnownBy {
    /// From `/proc/locks`.
    Kernel,
    /// From its note in the lock file.
    LockFile,
    /// Not at all.
    Nothing,
}

impl FlockHolder {
    /// The holder in a line of the journal.
    pub fn to_blocker(&self) -> Blocker {
        let party = Party { pid: self.pid, program: self.command.clone(), ..Party::default() };
        Blocker { role: Role::Holder, party }
    }
}

impl Serialize for FlockHolder {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("FlockHolder", 2)?;
        fields.serialize_field("owner", &self.pid.and_then(view_of_running))?;
        fields.serialize_field("known_by", &self.known_by)?;
        fields.end()
    }
}

impl std::fmt::Display for FlockHolder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Some(pid) = self.pid else {
            return write!(f, "held by a process that cannot be named from here");
        };
        let how = if self.known_by == KnownBy::Kernel { "held by" } else { "held; last taken by" };
        match self.command.as_str() {
            // A lock lives as long as its open file, which a child may have inherited.
            "" => write!(f, "{how} process {pid} or a child that outlived it"),
            command => write!(f, "{how} process {pid} ({command})"),
        }
    }
}

/// Writes this process's pid over the beginning of the file it just locked: one write at the
/// descriptor's offset, which is 0, without a sync. Only messages need it, so a failure is none.
pub(super) fn note(disk: &Disk, file: &File, path: &Path) {
    let _ = disk.write(file, path, format!("{}\n", std::process::id()).as_bytes());
}

/// The holder of the flock on `name`, which the caller found locked.
pub(super) fn of_locked(disk: &Disk, dir: &Dir, name: &str, stat: &Stat) -> FlockHolder {
    let unnamed = FlockHolder { pid: None, command: String::new(), known_by: KnownBy::Nothing };
    listed(stat.ino)
        .or_else(|| {
            noted(disk, dir, name).ok().flatten().filter(|pid| has_open(*pid, stat)).map(last)
        })
        .unwrap_or(unnamed)
}

/// The holder of the flock on `name`, if a process holds it.
pub fn flock_holder(disk: &Disk, dir: &Dir, name: &str) -> FsResult<Option<FlockHolder>> {
    let Some(stat) = disk.stat(dir, name)? else { return Ok(None) };
    Ok(match listed(stat.ino) {
        Some(holder) => Some(holder),
        None => {
            (disk.probe(dir, name)? == Probe::Locked).then(|| of_locked(disk, dir, name, &stat))
        }
    })
}

fn last(pid: u32) -> FlockHolder {
    FlockHolder { pid: Some(pid), command: process_name(pid), known_by: KnownBy::LockFile }
}

/// The pid that the last holder wrote: the first line, since a shorter pid leaves the rest of a
/// longer one.
fn noted(disk: &Disk, dir: &Dir, name: &str) -> FsResult<Option<u32>> {
    let content = disk.read(dir, name, LIMIT)?;
    Ok(content
        .and_then(|content| std::str::from_utf8(&content.bytes).ok()?.lines().next()?.parse().ok()))
}

/// The holder of an flock on this inode that the kernel lists.
fn listed(inode: u64) -> Option<FlockHolder> {
    let ListedHolder { pid, name } = crate::os::files::flock_holder(inode)?;
    Some(FlockHolder { pid: Some(pid), command: name, known_by: KnownBy::Kernel })
}
