//! The records in `.locks`, as they are read without the gate: a rename makes every read whole.

use std::fmt;

use rustix::io::Errno;

use super::encoding::{Unreadable, decode};
use super::journal::PendingChange;
use super::probe::LivenessProbe;
use super::reservation::is_of_previous_boot;
use super::root::LockRoot;
use crate::error::{Error, Kind, Result};
use crate::fs::{Completeness, Dir, FileKind};
use crate::lock::layout::{LOCKS, PENDING};
use crate::lock::lifeline::Lifeline;
use crate::lock::limits;
use crate::lock::record::{Record, Waiter};
use crate::name::Name;
use crate::side;

/// The records of an open directory of locks.
#[derive(Clone, Copy)]
pub(in crate::lock) struct Records<'a> {
    pub locks: &'a LockRoot,
    pub dir: &'a Dir,
}

/// A record as read without the gate.
#[derive(Debug)]
pub enum StoredRecord {
    /// The record; empty if there is none.
    Valid(Record),
    /// The record is unusable. The holder of the gate decides what to do about it.
    Damaged(Damage),
}

/// Why a record is unusable.
#[derive(Debug)]
pub enum Damage {
    /// It is not a valid record, for this reason.
    Torn(String),
    /// A newer program wrote it.
    Newer(Error),
}

impl Damage {
    /// The reason.
    pub(super) fn reason(&self) -> &str {
        match self {
            Self::Torn(why) => why,
            Self::Newer(error) => &error.message,
        }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Torn(why) => write!(f, "damaged record: {why}"),
            Self::Newer(error) => f.write_str(&error.message),
        }
    }
}

/// The raw bytes of a lock's record and the journal; while they are the same, nothing has changed.
#[derive(Debug, PartialEq)]
pub(super) struct RawRecord {
    pending: Option<Vec<u8>>,
    file: RecordFile,
}

/// The content found under a record's file name.
#[derive(Debug, PartialEq)]
pub(super) enum RecordFile {
    Missing,
    Bytes(Vec<u8>),
    /// Not a record file; what it is.
    Other(&'static str),
}

/// Opens the directory of the locks, if there is one.
pub(in crate::lock) fn open(locks: &LockRoot) -> Result<Option<Dir>> {
    side::open_to_read(&locks.disk, &side::open_root(&locks.disk, &locks.directory)?, LOCKS)
}

/// The name of a record's file.
pub(super) fn file_of(name: &Name) -> String {
    format!("{name}.json")
}

impl<'a> Records<'a> {
    /// The host, as the oracle of one check of these records.
    pub fn probe(&self) -> Result<LivenessProbe<'a>> {
        LivenessProbe::new(&self.locks.disk, self.dir)
    }

    /// The names of all locks that have a record or a waiter, sorted.
    pub fn names(&self) -> Result<Vec<Name>> {
        let files = self.locks.disk.list(self.dir)?;
        let names = files.iter().filter_map(|name| name.to_str()?.strip_suffix(".json"));
        let mut names: Vec<Name> =
            names.filter_map(|name| Name::parse("lock", name).ok()).collect();
        let pending = self.pending()?.as_deref().and_then(PendingChange::parse);
        let waited_for = self.waited_for()?;
        for name in pending.iter().flat_map(PendingChange::names).chain(waited_for) {
            if let Err(place) = names.binary_search_by(|other| other.as_str().cmp(name.as_str())) {
                names.insert(place, name);
            }
        }
        Ok(names)
    }

    /// The bytes of the journal.
    pub(super) fn pending(&self) -> Result<Option<Vec<u8>>> {
        let content = self.locks.disk.read(self.dir, PENDING, limits::FILE)?;
        Ok(content.map(|content| content.bytes))
    }

    /// The record of a lock, with its waiters. A waiter leaves the queue once its grant is on
    /// record, so the queue is read first.
    pub fn read(&self, name: &Name) -> Result<StoredRecord> {
        let queue = self.queue(name)?;
        Ok(match self.decode(name, &self.raw(name)?)? {
            StoredRecord::Valid(record) => StoredRecord::Valid(record.with_queue(queue)),
            damaged @ StoredRecord::Damaged(_) => damaged,
        })
    }

    /// The records of all locks that can be read.
    pub fn valid(&self) -> Result<Vec<(Name, Record)>> {
        self.valid_of(self.names()?)
    }

    /// Those of these locks that can be read.
    pub(super) fn valid_of(&self, names: Vec<Name>) -> Result<Vec<(Name, Record)>> {
        let mut all = Vec::new();
        for name in names {
            if let StoredRecord::Valid(record) = self.read(&name)? {
                all.push((name, record));
            }
        }
        Ok(all)
    }

    /// Those of these locks that can be read, without the waiters in their queues.
    pub(super) fn valid_without_queues(&self, names: &[Name]) -> Result<Vec<Record>> {
        let mut all = Vec::new();
        for name in names {
            if let StoredRecord::Valid(record) = self.decode(name, &self.raw(name)?)? {
                all.push(record);
            }
        }
        Ok(all)
    }

    /// The lifelines that records name.
    pub fn lifelines(&self) -> Result<Vec<Lifeline>> {
        let mut named = Vec::new();
        for (_, Record { holders, waiters, .. }) in self.valid()? {
            named.extend(holders.into_iter().filter_map(|grant| grant.live_file));
            named.extend(waiters.into_iter().filter_map(|waiter| waiter.lifeline));
        }
        Ok(named)
    }

    /// The raw bytes of a lock's record and the journal.
    pub(super) fn raw(&self, name: &Name) -> Result<RawRecord> {
        Ok(RawRecord { pending: self.pending()?, file: self.file(name)? })
    }

    /// The raw bytes of these locks' records.
    pub(super) fn raw_all(&self, names: &[Name]) -> Result<Vec<RawRecord>> {
        names.iter().map(|name| self.raw(name)).collect()
    }

    /// Decodes those of several locks, with these queues; `None` if one of them must be handled
    /// while holding the gate.
    pub(super) fn decode_all(
        &self,
        names: &[Name],
        raw: &[RawRecord],
        queues: Vec<Vec<Waiter>>,
    ) -> Result<Option<Vec<(Name, Record)>>> {
        let mut records = Vec::new();
        for ((name, raw), queue) in names.iter().zip(raw).zip(queues) {
            match self.decode(name, raw)? {
                StoredRecord::Valid(record) => {
                    records.push((name.clone(), record.with_queue(queue)));
                }
                StoredRecord::Damaged(_) => return Ok(None),
            }
        }
        Ok(Some(records))
    }

    /// Decodes those bytes, without the queue.
    pub(super) fn decode(&self, name: &Name, raw: &RawRecord) -> Result<StoredRecord> {
        // Of several locks that change together some may be changed already, and the writer dead.
        let pending = raw.pending.as_deref().and_then(PendingChange::parse);
        if let Some(record) = pending.and_then(|pending| pending.record(name)) {
            return Ok(StoredRecord::Valid(record));
        }
        Ok(match &raw.file {
            RecordFile::Missing => StoredRecord::Valid(Record::default()),
            RecordFile::Other(what) => StoredRecord::Damaged(Damage::Torn((*what).to_owned())),
            RecordFile::Bytes(bytes) => match decode(bytes) {
                Ok(record) => StoredRecord::Valid(record),
                Err(Unreadable::Newer(version)) => {
                    StoredRecord::Damaged(Damage::Newer(self.newer(name, version)))
                }
                Err(Unreadable::Torn(_)) if is_of_previous_boot(&self.locks.disk, self.dir)? => {
                    StoredRecord::Valid(Record::default())
                }
                Err(Unreadable::Torn(why)) => StoredRecord::Damaged(Damage::Torn(why)),
            },
        })
    }

    /// The content of a record's file.
    pub(super) fn file(&self, name: &Name) -> Result<RecordFile> {
        let content = match self.locks.disk.read(self.dir, file_of(name), limits::FILE) {
            Err(error) if error.is(Errno::LOOP) => {
                return Ok(RecordFile::Other("it is a symbolic link"));
            }
            content => content?,
        };
        Ok(match content {
            None => RecordFile::Missing,
            Some(content) if content.stat.kind != FileKind::Regular => {
                RecordFile::Other("it is not a regular file")
            }
            Some(content) if content.size == Completeness::OverLimit => {
                RecordFile::Other("it is far too large for a record")
            }
            Some(content) => RecordFile::Bytes(content.bytes),
        })
    }

    /// The error for a record of a later version.
    pub(super) fn newer(&self, name: &Name, version: u64) -> Error {
        let path = self.dir.path_of(file_of(name)).display().to_string();
        let message = format!("{path} has version {version}: a newer program wrote it");
        Error::new(Kind::NewerSchema, message).hint_command("--version", "a newer one is needed")
    }
}
