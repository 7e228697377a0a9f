//! The backup directory `.state-backups/`: the mirror, the backups and the evidence.
//!
//! [`BackupDir`] is a listing, read once a command; copies are read only when they are needed. Only
//! [`newest_valid`] decides which of them heals a damaged document.

use std::cell::OnceCell;
use std::ffi::OsString;

use bytes::Bytes;
use rustix::io::Errno;

use crate::clutter::is_clutter;
use crate::document::migrate::{self, TooNew, Unfit};
use crate::document::rules::Finding;
use crate::document::seal::{Document, Lineage, Revision, Seal};
use crate::document::{READ_LIMIT, Reading, inspect_text};
use crate::fs::stage::is_temporary;
use crate::fs::{Completeness, Dir, Disk, FileKind, FsResult, Stat};
use crate::journal::{Events, JOURNAL, Journal, OLD_JOURNAL};
use crate::store::guard::record::id_in;
use crate::store::layout::{
    ARCHIVE_PREFIX, BACKUPS, BackupName, EVIDENCE_PREFIX, MIRROR, OWNER, SERVED_PREFIX,
};

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

/// A copy of the document in the backup directory.
#[derive(Debug)]
pub struct BackupCopy {
    /// The file's name.
    pub name: String,
    /// Its condition.
    pub state: CopyState,
}

/// The condition of a copy.
#[derive(Debug)]
pub enum CopyState {
    /// It can be restored. In the current form.
    Sealed(Document),
    /// It can be restored, but has no digest to verify: it predates seals. In the current form.
    Legacy(serde_json::Value),
    /// A newer program wrote it; this one must not ignore it.
    TooNew(TooNew, Seal),
    /// It cannot be restored; the reason.
    Invalid(String),
}

impl BackupCopy {
    /// The copy as a sealed document.
    pub fn sealed(&self) -> Option<&Document> {
        match &self.state {
            CopyState::Sealed(sealed) => Some(sealed),
            _ => None,
        }
    }

    /// The document that restoring the copy would bring back, in the current form.
    pub fn value(&self) -> Option<&serde_json::Value> {
        match &self.state {
            CopyState::Sealed(sealed) => Some(&sealed.value),
            CopyState::Legacy(value) => Some(value),
            CopyState::TooNew(..) | CopyState::Invalid(_) => None,
        }
    }

    /// The copy's verified seal, whatever its schema.
    pub fn seal(&self) -> Option<&Seal> {
        match &self.state {
            CopyState::Sealed(sealed) => Some(&sealed.seal),
            CopyState::TooNew(_, seal) => Some(seal),
            CopyState::Legacy(_) | CopyState::Invalid(_) => None,
        }
    }

    fn revision(&self) -> Option<Revision> {
        self.seal().map(|seal| seal.revision)
    }
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

    /// Returns whether this root ever had a document that could be restored.
    pub fn has_history(&self) -> bool {
        self.has_mirror || !self.backups.is_empty()
    }

    /// Returns whether this program wrote any of the history.
    pub fn has_sealed_history(&self) -> bool {
        self.has_mirror || self.backups.iter().any(|backup| backup.revision.is_some())
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
        Ok(BackupCopy { name: name.to_owned(), state: classify(content.bytes.into()) })
    }

    /// All copies, read once: the mirror first, then the backups, newest first.
    pub fn copies(&self) -> FsResult<&[BackupCopy]> {
        if let Some(copies) = self.copies.get() {
            return Ok(copies);
        }
        let mirror = self.has_mirror.then_some(MIRROR);
        let names = mirror.into_iter().chain(self.backups.iter().rev().map(BackupName::as_str));
        let copies = names.map(|name| self.read(name)).collect::<FsResult<Vec<BackupCopy>>>()?;
        Ok(self.copies.get_or_init(|| copies))
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

fn classify(text: Bytes) -> CopyState {
    let unfit = |findings: Vec<Finding>| {
        CopyState::Invalid(findings.first().map_or_else(String::new, ToString::to_string))
    };
    match inspect_text(text) {
        Reading::Damaged(why) => CopyState::Invalid(why),
        Reading::Conflicted(_) => CopyState::Invalid("it has git's conflict markers".to_owned()),
        Reading::Broken(_) => CopyState::Invalid("its digest is wrong".to_owned()),
        Reading::Sealed(sealed) => {
            let seal = sealed.seal.clone();
            match migrate::usable_sealed(sealed) {
                Ok(sealed) => CopyState::Sealed(sealed),
                Err(Unfit::TooNew(too_new)) => CopyState::TooNew(too_new, seal),
                Err(Unfit::Invalid(findings)) => unfit(findings),
            }
        }
        Reading::Unsealed(value) => match migrate::usable(&value) {
            Ok(migrated) => CopyState::Legacy(migrated.value),
            // Without a seal its contents are unknown.
            Err(Unfit::TooNew(too_new)) => {
                CopyState::Invalid(format!("its schema {} is unknown", too_new.version))
            }
            Err(Unfit::Invalid(findings)) => unfit(findings),
        },
    }
}

/// The lineage of a root: the mirror's; without a valid mirror that of the highest revision in the
/// backup directory.
pub fn lineage_of(copies: &[BackupCopy]) -> Option<Lineage> {
    let mirror = copies.iter().filter(|copy| copy.name == MIRROR).find_map(BackupCopy::sealed);
    let highest =
        || copies.iter().filter_map(BackupCopy::sealed).max_by_key(|sealed| sealed.seal.revision);
    mirror.or_else(highest).map(|sealed| sealed.seal.lineage.clone())
}

/// The copy that a damaged or missing document is restored from: the highest valid revision of the
/// root's lineage, from the mirror or any backup. Copies from before seals come after every sealed
/// one, newest name first. A copy by a newer program stops the search: no older copy may replace
/// it.
pub fn newest_valid(copies: &[BackupCopy]) -> Result<Option<&BackupCopy>, &BackupCopy> {
    if let Some(newer) = copies.iter().find(|copy| matches!(copy.state, CopyState::TooNew(..))) {
        return Err(newer);
    }
    let lineage = lineage_of(copies);
    let of_lineage = |copy: &&BackupCopy| {
        copy.sealed().is_some_and(|sealed| Some(&sealed.seal.lineage) == lineage.as_ref())
    };
    // Of equal copies `max_by_key` returns the last; the mirror is listed first and is preferred.
    let sealed = copies.iter().rev().filter(of_lineage).max_by_key(|copy| copy.revision());
    let legacy = || {
        let unsealed = copies.iter().filter(|copy| matches!(copy.state, CopyState::Legacy(_)));
        unsealed.max_by(|a, b| a.name.cmp(&b.name))
    };
    Ok(sealed.or_else(legacy))
}

/// The highest revision in the directory, of any lineage.
pub fn highest_revision(copies: &[BackupCopy]) -> Option<Revision> {
    copies.iter().filter_map(BackupCopy::revision).max()
}
