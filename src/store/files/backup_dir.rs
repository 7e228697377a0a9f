//! The backup directory `.state-backups/`: the mirror, the backups and the evidence.
//!
//! [`BackupDir`] is a listing, read once a command; copies are read only when they are needed.

use std::cell::OnceCell;
use std::ffi::OsString;

use rustix::io::Errno;

use super::state_file::StateFile;
use crate::clutter::is_clutter;
use crate::document::READ_LIMIT;
use crate::document::seal::Revision;
use crate::error::{Result, quote_path};
use crate::fs::stage::is_temporary;
use crate::fs::{Completeness, Dir, Disk, FileKind, FsResult, Stat};
use crate::journal::{Events, JOURNAL, Journal, OLD_JOURNAL};
use crate::store::copies::{BackupCopy, Copies, CopyState};
use crate::store::diagnosis::Mirror;
use crate::store::guard::record::id_in;
use crate::store::layout::{
    ARCHIVE_PREFIX, BACKUPS, BackupName, EVIDENCE_PREFIX, MIRROR, OWNER, SERVED_PREFIX,
};
use crate::store::trace::Trace;

/// The contents of `.state-backups/`.
#[derive(Debug)]
pub struct BackupDir {
    disk: Disk,
    dir: Option<Dir>,
    copies: OnceCell<Vec<BackupCopy>>,
    mirror: OnceCell<Option<Stat>>,
    /// Backups, oldest first: by revision, then by the time in the name.
    pub backups: Vec<BackupName>,
    /// Damaged files that were kept, oldest first.
    pub evidence: Vec<String>,
    /// Temporary files of writers.
    pub temporaries: Vec<OsString>,
    /// Directories that `init --fresh` made.
    pub archives: Vec<String>,
    /// The highest revision that readers may have been served although it was never committed.
    pub served: Option<Revision>,
    /// The guards on record.
    pub guards: Vec<String>,
    /// Whether there is a journal.
    pub has_journal: bool,
    /// Whether there is a mirror, valid or not.
    pub has_mirror: bool,
    /// Whether the state file that the directory belongs to is recorded.
    pub has_owner: bool,
}

impl BackupDir {
    /// Opens and lists the backup directory of a root; an empty one where there is none.
    pub fn open(disk: &Disk, root: &Dir) -> FsResult<Self> {
        match disk.open_dir(root, BACKUPS) {
            Ok(dir) => Self::list(disk, dir),
            Err(error) if error.is(Errno::NOENT) => Ok(Self::empty(disk)),
            Err(error) => Err(error),
        }
    }

    fn empty(disk: &Disk) -> Self {
        Self {
            disk: disk.clone(),
            dir: None,
            copies: OnceCell::new(),
            mirror: OnceCell::new(),
            backups: Vec::new(),
            evidence: Vec::new(),
            temporaries: Vec::new(),
            archives: Vec::new(),
            has_mirror: false,
            has_owner: false,
            has_journal: false,
            guards: Vec::new(),
            served: None,
        }
    }

    /// Lists an open backup directory.
    pub fn list(disk: &Disk, dir: Dir) -> FsResult<Self> {
        let mut backup_dir = Self::empty(disk);
        for name in disk.list(&dir)? {
            let Some(text) = name.to_str().filter(|_| !is_clutter(&name)) else { continue };
            if let Some(backup) = BackupName::parse(text) {
                backup_dir.backups.push(backup);
            } else if text == MIRROR {
                backup_dir.has_mirror = true;
            } else if text == OWNER {
                backup_dir.has_owner = true;
            } else if let Some(guard) = id_in(text) {
                backup_dir.guards.push(guard.to_owned());
            } else if text == JOURNAL || text == OLD_JOURNAL {
                backup_dir.has_journal = true;
            } else if let Some(number) = text.strip_prefix(SERVED_PREFIX) {
                backup_dir.served =
                    backup_dir.served.max(number.parse().ok().and_then(Revision::new));
            } else if text.starts_with(EVIDENCE_PREFIX) {
                backup_dir.evidence.push(text.to_owned());
            } else if text.starts_with(ARCHIVE_PREFIX) {
                backup_dir.archives.push(text.to_owned());
            } else if is_temporary(text) {
                backup_dir.temporaries.push(name);
            }
        }
        backup_dir.backups.sort_by(|a, b| {
            (a.revision, a.time, a.as_str()).cmp(&(b.revision, b.time, b.as_str()))
        });
        backup_dir.dir = Some(dir);
        Ok(backup_dir)
    }

    /// The directory, if it exists.
    pub fn dir(&self) -> Option<&Dir> {
        self.dir.as_ref()
    }

    /// Returns whether this program wrote any of the history.
    pub fn has_sealed_history(&self) -> bool {
        self.has_mirror || self.backups.iter().any(|backup| backup.revision.is_some())
    }

    /// Compares the mirror with the live file, byte for byte.
    pub fn mirror_of(&self, live: &StateFile) -> FsResult<Mirror> {
        Ok(match self.mirror_like(&live.bytes)? {
            _ if !self.has_mirror => Mirror::Absent,
            Some(mirror) if !mirror.same_file(&live.stat) => Mirror::Same,
            _ => Mirror::Differs,
        })
    }

    /// The mirror's metadata, if the mirror holds the bytes of the live file. It is compared once a
    /// command.
    pub fn mirror_like(&self, live: &[u8]) -> FsResult<Option<Stat>> {
        if let Some(known) = self.mirror.get() {
            return Ok(*known);
        }
        let mirror = match self.dir.as_ref().filter(|_| self.has_mirror) {
            // A link in its place is not a mirror; it is not followed, and the next writer replaces
            // it.
            Some(dir) => match self.disk.stat_if_same(dir, MIRROR, live) {
                Err(error) if error.is(Errno::LOOP) => None,
                stat => stat?,
            },
            None => None,
        };
        Ok(*self.mirror.get_or_init(|| mirror))
    }

    /// Reads one copy whole. A copy that cannot be read is an error and not an invalid copy: the
    /// next attempt may succeed, and until then an older copy must not be used as the newest.
    pub fn read(&self, name: &str) -> FsResult<BackupCopy> {
        let bad = |why: &str| {
            Ok(BackupCopy { name: name.to_owned(), state: CopyState::Invalid(why.to_owned()) })
        };
        let Some(dir) = &self.dir else {
            return bad("it is gone");
        };
        let content = match self.disk.read(dir, name, READ_LIMIT) {
            Ok(Some(content)) => content,
            Ok(None) => return bad("it is gone"),
            Err(error) if error.is(Errno::LOOP) => return bad("it is a symbolic link"),
            Err(error) => return Err(error),
        };
        if content.stat.kind != FileKind::Regular {
            return bad("it is not a regular file");
        }
        if content.size == Completeness::OverLimit {
            return bad("it is over 64 MiB");
        }
        Ok(BackupCopy { name: name.to_owned(), state: CopyState::of(content.bytes.into()) })
    }

    /// The events of this root's journal.
    pub(super) fn events(&self) -> Events {
        let dir = self.dir.as_ref().filter(|_| self.has_journal);
        dir.map(|dir| Journal::new(&self.disk, dir).read()).unwrap_or_default()
    }

    /// The bytes of an evidence file, for comparison.
    pub fn evidence_bytes(&self, name: &str) -> Option<Vec<u8>> {
        let content = self.disk.read(self.dir.as_ref()?, name, READ_LIMIT).ok()??;
        (content.size == Completeness::Whole).then_some(content.bytes)
    }

    /// The names and inodes of everything in the directory that could be a link to another file.
    pub fn links_to(&self, file: &crate::fs::Stat) -> FsResult<Vec<String>> {
        let Some(dir) = &self.dir else {
            return Ok(Vec::new());
        };
        let names = self
            .backups
            .iter()
            .map(BackupName::as_str)
            .chain(self.evidence.iter().map(String::as_str));
        let mut links = Vec::new();
        for name in names.chain(self.has_mirror.then_some(MIRROR)) {
            if self.disk.stat(dir, name)?.is_some_and(|stat| stat.same_file(file)) {
                links.push(name.to_owned());
            }
        }
        Ok(links)
    }
}

impl Copies for BackupDir {
    fn copies(&self) -> Result<&[BackupCopy]> {
        if let Some(copies) = self.copies.get() {
            return Ok(copies);
        }
        let mirror = self.has_mirror.then_some(MIRROR);
        let names = mirror.into_iter().chain(self.backups.iter().rev().map(BackupName::as_str));
        let copies = names.map(|name| self.read(name)).collect::<FsResult<Vec<BackupCopy>>>()?;
        Ok(self.copies.get_or_init(|| copies))
    }

    fn has_history(&self) -> bool {
        self.has_mirror || !self.backups.is_empty()
    }

    fn trace(&self) -> Option<Trace> {
        Trace::of(&self.events(), &self.backups, self.has_mirror)
    }

    fn archive_listing(&self) -> Option<String> {
        let (newest, dir) = self.archives.last().zip(self.dir())?;
        Some(format!("ls {}", quote_path(&dir.path_of(newest))))
    }
}
