//! The gate: one short flock for the whole root, held while records change. Each record is replaced
//! by rename.
//!
//! Nothing under the gate waits or syncs. What locks protect does not outlive a power cut, so
//! records need not either; tokens must, and are synced elsewhere ([`super::token`]). A change of
//! several records goes through a journal, `.pending`: the rename that puts it in place is the
//! change, and the next process to take the gate completes it.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::edit::{RecordEdit, Write, completion_ops, writes};
use super::flock::FileLock;
use super::journal::PendingChange;
use super::lifeline::Lifeline;
use super::limits;
use super::liveness::LivenessProbe;
use super::process::{Identity, Namespace};
use super::queue::waiters_to_wake;
use super::record::{Grant, Mode, Record, Unreadable};
use super::wait::wake;
use super::{LOCKS, Locks, check_deadline};
use crate::audit::Level;
use crate::error::{Error, Kind, Result};
use crate::fs::stage::{Durability, temporary};
use crate::fs::{Completeness, Dir, FileKind};
use crate::name::Name;
use crate::side;
use crate::time::{compact, rfc3339};

/// The file with the flock that guards all records.
pub const GATE: &str = ".gate";
pub(super) const PENDING: &str = ".pending";
pub(super) const QUARANTINE: &str = ".torn-";
/// Space and inodes reserved for releasing locks on a full disk: a journal, a record, and one to
/// undo them.
const RESERVED_FILES: [&str; 3] = [".spare-1", ".spare-2", ".spare-3"];
const RESERVED_SIZE: usize = 16 << 10;
/// The least time that a request with no time left waits for the gate, which each process holds
/// only briefly.
pub(super) const MIN_GATE_WAIT: Duration = Duration::from_secs(1);

/// The gate, held: the locks of a root while no other process changes them.
#[derive(Debug)]
pub struct Gate<'a> {
    locks: &'a Locks,
    dir: Dir,
    lock: FileLock,
    wakeups: PendingWakeups, // dropped after the lock, so that the gate is free for them
}

/// Waiters that may be next; woken once the gate is released.
#[derive(Debug, Default)]
struct PendingWakeups(RefCell<Vec<Identity>>);

impl Drop for PendingWakeups {
    fn drop(&mut self) {
        self.0.borrow().iter().for_each(wake);
    }
}

/// A record as read without the gate.
#[derive(Debug)]
pub enum StoredRecord {
    /// The record; empty if there is none.
    Record(Record),
    /// The record is unusable, for this reason. The holder of the gate decides what to do about it.
    Damaged(String),
}

/// The raw bytes of a lock's record and the journal; while they are the same, nothing has changed.
#[derive(Debug, PartialEq)]
pub(super) struct RawRecord {
    pending: Option<Vec<u8>>,
    stored: Stored,
}

impl Locks {
    /// Takes the gate, creating the directory if it is missing; waits until `deadline`.
    pub(super) fn gate(&self, deadline: Instant) -> Result<Gate<'_>> {
        let waiter_state = deadline.max(Instant::now() + MIN_GATE_WAIT);
        loop {
            let root = side::open_root(&self.disk, &self.directory)?;
            let dir = side::open(&self.disk, &root, LOCKS)?;
            let what = "the table of locks";
            if let Some(lock) = self.flock((&root, &dir), GATE, waiter_state, what)? {
                let gate = Gate { locks: self, dir, lock, wakeups: PendingWakeups::default() };
                gate.complete_pending()?;
                return Ok(gate);
            }
            check_deadline(waiter_state)?;
        }
    }

    /// The directory of the locks, if there is one.
    pub(super) fn dir(&self) -> Result<Option<Dir>> {
        side::open_to_read(&self.disk, &side::open_root(&self.disk, &self.directory)?, LOCKS)
    }

    /// The record of a lock, read without the gate: a rename makes every read whole.
    pub(super) fn read_record(&self, dir: &Dir, name: &Name) -> Result<StoredRecord> {
        self.decode(dir, name, &self.raw_record(dir, name)?)
    }

    /// The raw bytes of a lock's record and the journal, read without the gate.
    pub(super) fn raw_record(&self, dir: &Dir, name: &Name) -> Result<RawRecord> {
        let pending = self.disk.read(dir, PENDING, limits::FILE)?.map(|content| content.bytes);
        Ok(RawRecord { pending, stored: read(self, dir, name)? })
    }

    /// Decodes those bytes.
    pub(super) fn decode(
        &self,
        dir: &Dir,
        name: &Name,
        raw_record: &RawRecord,
    ) -> Result<StoredRecord> {
        let RawRecord { pending, stored } = raw_record;
        // Of several locks that change together some may be changed already, and the writer dead.
        if let Some(record) = pending
            .as_deref()
            .and_then(PendingChange::parse)
            .and_then(|pending| pending.record(name))
        {
            return Ok(StoredRecord::Record(record));
        }
        Ok(match stored {
            Stored::Nothing => StoredRecord::Record(Record::default()),
            Stored::Other(what) => StoredRecord::Damaged(format!("damaged record: {what}")),
            Stored::Bytes(bytes) => match Record::parse(bytes) {
                Ok(record) => StoredRecord::Record(record),
                Err(Unreadable::Torn(_)) if self.is_of_previous_boot(dir)? => {
                    StoredRecord::Record(Record::default())
                }
                Err(Unreadable::Torn(why)) => {
                    StoredRecord::Damaged(format!("damaged record: {why}"))
                }
                Err(Unreadable::Newer(version)) => {
                    StoredRecord::Damaged(newer(dir, name, version).message)
                }
            },
        })
    }

    /// The names of all locks that have a record, sorted.
    pub(super) fn names(&self, dir: &Dir) -> Result<Vec<Name>> {
        let files = self.disk.list(dir)?;
        let names = files.iter().filter_map(|name| name.to_str()?.strip_suffix(".json"));
        let mut names: Vec<Name> =
            names.filter_map(|name| Name::parse("lock", name).ok()).collect();
        for name in self.pending(dir)?.iter().flat_map(PendingChange::names) {
            if let Err(place) = names.binary_search_by(|other| other.as_str().cmp(name.as_str())) {
                names.insert(place, name);
            }
        }
        Ok(names)
    }

    /// The multi-record change that is under way, or that a dead writer left; an invalid journal
    /// counts as none.
    fn pending(&self, dir: &Dir) -> Result<Option<PendingChange>> {
        let content = self.disk.read(dir, PENDING, limits::FILE)?;
        Ok(content.and_then(|content| PendingChange::parse(&content.bytes)))
    }
}

impl Gate<'_> {
    /// Releases the gate; the directory stays open.
    pub(super) fn leave(self) -> Dir {
        let Self { dir, lock, wakeups, .. } = self;
        drop(lock);
        drop(wakeups);
        dir
    }

    /// Wakes a process once the gate is released.
    pub(super) fn wake_later(&self, process: Identity) {
        self.wakeups.0.borrow_mut().push(process);
    }

    /// The directory of the locks.
    pub fn dir(&self) -> &Dir {
        &self.dir
    }

    /// Judges the liveness of owners and waiters from this process.
    pub fn judge(&self) -> Result<LivenessProbe<'_>> {
        LivenessProbe::new(&self.locks.disk, &self.dir)
    }

    /// Loads a lock's record. A damaged record is put aside and replaced by one with an unknown
    /// holder, since the lock may well be held. A record torn by a power cut is removed: its holder
    /// is dead.
    pub fn load(&self, name: &Name) -> Result<RecordEdit> {
        let record = match read(self.locks, &self.dir, name)? {
            Stored::Nothing => Record::default(),
            Stored::Other(what) => self.quarantine(name, None, what)?,
            Stored::Bytes(bytes) => match Record::parse(&bytes) {
                Ok(record) => record,
                Err(Unreadable::Newer(version)) => return Err(newer(&self.dir, name, version)),
                Err(Unreadable::Torn(_)) if self.locks.is_of_previous_boot(&self.dir)? => {
                    self.forget(name)?;
                    Record::default()
                }
                Err(Unreadable::Torn(why)) => self.quarantine(name, Some(&bytes), &why)?,
            },
        };
        Ok(RecordEdit::new(name, record))
    }

    /// Removes the records that a power cut tore.
    pub(super) fn remove_torn(&self) -> Result<()> {
        for name in self.locks.names(&self.dir)? {
            if let Stored::Bytes(bytes) = read(self.locks, &self.dir, &name)?
                && matches!(Record::parse(&bytes), Err(Unreadable::Torn(_)))
            {
                self.forget(&name)?;
            }
        }
        Ok(())
    }

    fn forget(&self, name: &Name) -> Result<()> {
        self.locks.disk.unlink(&self.dir, file_of(name))?;
        let entry = self.locks.entry(
            Level::Warn,
            "forget",
            "a record was torn by the end of an earlier boot",
        );
        self.locks
            .audit
            .record(&entry.with("lock", name).with("root", self.locks.directory.display()));
        Ok(())
    }

    /// Puts a damaged record aside: `bytes` are those of a file; anything else is linked as it is.
    fn quarantine(&self, name: &Name, bytes: Option<&[u8]>, why: &str) -> Result<Record> {
        let disk = &self.locks.disk;
        let time = disk.now();
        let token = match self.take_tokens(1)?.and_then(|tokens| tokens.first().copied()) {
            Some(token) => token,
            None => self.take_unreserved_token()?,
        };
        let kept = format!("{QUARANTINE}{name}-{}-{token}", compact(time));
        match bytes {
            Some(bytes) => self.replace(&kept, bytes)?,
            None => {
                let (from, to) = (file_of(name), OsStr::new(&kept));
                let from = (&self.dir, OsStr::new(&from));
                // The damaged one keeps its place until the stand-in takes it. Only a directory
                // cannot have two names.
                disk.link(from, (&self.dir, to)).or_else(|_| disk.rename(from, (&self.dir, to)))?;
            }
        }
        let unknown = Grant {
            token,
            mode: Mode::Exclusive,
            owner: None,
            command: String::new(),
            since: rfc3339(time),
            count: 1,
            metadata: None,
            ttl: None,
            expires: None,
            live_file: None,
            quarantined: Some(kept.clone()),
        };
        let record = Record { holders: vec![unknown], ..Record::default() };
        self.replace(&file_of(name), &record.to_bytes())?;
        let entry = self.locks.entry(Level::Warn, "quarantine", "a damaged record was put aside");
        self.locks.audit.record(&entry.with("lock", name).with("kept", &kept).with("why", why));
        let why = why.trim_start_matches("damaged record: ");
        self.locks.warn(format!(
            "the record of the lock {name} is damaged ({why}) and was put aside as {LOCKS}/{kept}; who holds it is not known"
        ));
        Ok(record)
    }

    /// Puts the changed ones of these records in place, all or none.
    pub fn store(&self, edits: &[RecordEdit]) -> Result<()> {
        let changed: Vec<&RecordEdit> = edits.iter().filter(|edit| edit.is_changed()).collect();
        changed.iter().try_for_each(|edit| limits::check(edit))?;
        // Before the write: a waiter that is about to leave the record and has lost its lifeline is
        // dead for all readers, and a death in between leaves no file that no record names.
        let gone: BTreeSet<&Lifeline> =
            changed.iter().flat_map(|edit| edit.dropped_waiter_lifelines()).collect();
        for lifeline in gone {
            let _ = self.locks.disk.unlink(&self.dir, lifeline.as_str()); // `lock clean` finds it
        }
        let mut writes = writes(&changed)?.into_iter();
        if let Some(change) = writes.next() {
            self.make(&change)?;
        }
        if let Err(error) = writes.try_for_each(|write| self.make(&write))
            && self.undo(&changed).is_ok()
        {
            return Err(error);
        }
        for edit in changed.iter().filter(|edit| edit.unblocks_someone()) {
            let next = waiters_to_wake(&edit.record, &self.judge()?);
            let others = next.into_iter().filter(|process| process.pid != std::process::id());
            self.wakeups.0.borrow_mut().extend(others);
        }
        for gone in changed.iter().flat_map(|edit| edit.dropped_command_lifelines()) {
            let _ = self.locks.disk.unlink(&self.dir, gone.as_str()); // `lock clean` finds it
        }
        Ok(())
    }

    /// Completes the change of a writer that died halfway.
    fn complete_pending(&self) -> Result<()> {
        let disk = &self.locks.disk;
        let Some(content) = disk.read(&self.dir, PENDING, limits::FILE)? else {
            return Ok(());
        };
        match PendingChange::parse(&content.bytes) {
            Some(pending) => {
                completion_ops(&pending)?.iter().try_for_each(|write| self.make(write))
            }
            // A rename puts the journal in place whole, so a power cut damaged it, and ended its
            // writer too.
            None => Ok(disk.unlink(&self.dir, PENDING)?),
        }
    }

    /// Reverts a change that could not be completed, so that no later process completes what was
    /// reported as failed. The journal goes last: a death before that reports nothing.
    fn undo(&self, changed: &[&RecordEdit]) -> Result<()> {
        for edit in changed {
            let original = edit.original();
            let original = (!original.is_empty()).then(|| original.clone());
            self.make(&Write::Record(edit.name.clone(), original))?;
        }
        Ok(self.locks.disk.unlink(&self.dir, PENDING)?)
    }

    fn make(&self, write: &Write) -> Result<()> {
        match write {
            Write::Record(name, Some(record)) => self.replace(&file_of(name), &record.to_bytes()),
            Write::Record(name, None) => Ok(self.locks.disk.unlink(&self.dir, file_of(name))?),
            Write::Journal(pending) => self.replace(PENDING, &journal_of(pending)?),
            Write::NoJournal => Ok(self.locks.disk.unlink(&self.dir, PENDING)?),
        }
    }

    /// Replaces a file in the locks' directory, whole, without syncing it. On a full disk the spare
    /// files make room: a lock must be releasable even then.
    pub(super) fn replace(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let mut result = self.try_to_replace(name, bytes);
        let mut spares = RESERVED_FILES.iter();
        while result.as_ref().is_err_and(|error| error.kind == Kind::DiskFull)
            && let Some(spare) = spares.next()
        {
            if self.locks.disk.stat(&self.dir, spare)?.is_some() {
                self.locks.disk.unlink(&self.dir, spare)?;
                result = self.try_to_replace(name, bytes);
            }
        }
        result
    }

    /// Creates the spare files if they are missing. Failure is ignored: they only matter once the
    /// disk is full.
    pub(super) fn reserve_space(&self) {
        let disk = &self.locks.disk;
        let is_missing = |spare: &str| disk.stat(&self.dir, spare).is_ok_and(|stat| stat.is_none());
        // The first is the first to be used.
        if RESERVED_FILES.first().is_some_and(|first| is_missing(first)) {
            for spare in RESERVED_FILES.iter().filter(|spare| is_missing(spare)) {
                let _ = self.try_to_replace(spare, &[b'\n'; RESERVED_SIZE]);
            }
        }
    }

    fn try_to_replace(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let temporary = temporary(self.lock.inode(), "lock");
        let staged = self.locks.disk.stage(&self.dir, &temporary, bytes, Durability::None)?;
        self.locks
            .disk
            .rename((&self.dir, OsStr::new(&temporary)), (&self.dir, OsStr::new(name)))?;
        staged.keep();
        Ok(())
    }

    /// The boot and namespaces of this process.
    pub(super) fn here(&self) -> Result<&'static Namespace> {
        Namespace::here()
    }

    pub(super) fn locks(&self) -> &Locks {
        self.locks
    }
}

/// A journal's bytes. Only records that an earlier version let grow too large make it too large.
fn journal_of(pending: &PendingChange) -> Result<Vec<u8>> {
    let bytes = pending.to_bytes()?;
    if bytes.len() as u64 <= limits::FILE {
        return Ok(bytes);
    }
    let names: Vec<Name> = pending.names().collect();
    let message = format!(
        "the records of {} locks are too large to be changed together; nothing was changed",
        names.len()
    );
    let error = Error::new(Kind::TooLarge, message);
    Err(match names.first() {
        Some(first) => {
            error.hint_command(format!("lock release {first}"), "name one lock at a time")
        }
        None => error,
    })
}

fn file_of(name: &Name) -> String {
    format!("{name}.json")
}

/// The content found under a record's file name.
#[derive(Debug, PartialEq)]
enum Stored {
    Nothing,
    Bytes(Vec<u8>),
    /// Not a record file; what it is.
    Other(&'static str),
}

fn read(locks: &Locks, dir: &Dir, name: &Name) -> Result<Stored> {
    let content = match locks.disk.read(dir, file_of(name), limits::FILE) {
        Err(error) if error.is(Errno::LOOP) => return Ok(Stored::Other("it is a symbolic link")),
        content => content?,
    };
    Ok(match content {
        None => Stored::Nothing,
        Some(content) if content.stat.kind != FileKind::Regular => {
            Stored::Other("it is not a regular file")
        }
        Some(content) if content.size == Completeness::OverLimit => {
            Stored::Other("it is far too large for a record")
        }
        Some(content) => Stored::Bytes(content.bytes),
    })
}

fn newer(dir: &Dir, name: &Name, version: u64) -> Error {
    let path = dir.path_of(file_of(name)).display().to_string();
    Error::new(Kind::NewerSchema, format!("{path} has version {version}: a newer program wrote it"))
        .hint_command("--version", "a newer one is needed")
}
