//! The gate: one short flock for the whole root, held while records change. Each record is replaced
//! by rename.
//!
//! Nothing under the gate waits or syncs. What locks protect does not outlive a power cut, so
//! records need not either; tokens must, and are synced elsewhere ([`super::tokens`]). A change of
//! several records goes through a journal, `.pending`: the rename that puts it in place is the
//! change, and the next process to take the gate completes it.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;
use std::time::{Duration, Instant};

use super::encoding::{Unreadable, decode, encode};
use super::flock::{FileLock, LockedDir, ShortLock, lock_dir};
use super::journal::{PendingChange, WriteOp, completion_ops, write_ops};
use super::park::wake;
use super::records::{RecordFile, Records, file_of};
use super::root::LockRoot;
use crate::audit::Level;
use crate::error::{Error, Kind, Result};
use crate::fs::Dir;
use crate::fs::stage::{Durability, temporary};
use crate::lock::edit::RecordEdit;
use crate::lock::identity::Identity;
use crate::lock::layout::PENDING;
use crate::lock::lifeline::Lifeline;
use crate::lock::limits;
use crate::lock::queue::waiters_to_wake;
use crate::name::Name;

/// Space and inodes for releasing locks on a full disk: a journal, a record, and one to undo them.
const SPARES: [&str; 3] = [".spare-1", ".spare-2", ".spare-3"];
const SPARE_SIZE: usize = 16 << 10;
/// The least time that a request with no time left waits for the gate, which each process holds
/// only briefly.
pub(super) const MIN_GATE_WAIT: Duration = Duration::from_secs(1);

/// The gate, held: the locks of a root while no other process changes them.
pub struct Gate<'a> {
    pub(super) locks: &'a LockRoot,
    /// The root, as it was opened for the gate.
    pub(super) root: Dir,
    dir: Dir,
    lock: FileLock,
    wakeups: PendingWakeups, // dropped after the lock, so that the gate is free for them
}

impl fmt::Debug for Gate<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("lock", &self.lock).finish_non_exhaustive()
    }
}

/// Waiters that may be next; woken once the gate is released.
#[derive(Default)]
struct PendingWakeups(RefCell<Vec<Identity>>);

impl Drop for PendingWakeups {
    fn drop(&mut self) {
        self.0.borrow().iter().for_each(wake);
    }
}

impl<'a> Gate<'a> {
    /// Takes the gate, creating the directory if it is missing; waits until `deadline`.
    pub(in crate::lock) fn enter(locks: &'a LockRoot, deadline: Instant) -> Result<Self> {
        let deadline = deadline.max(Instant::now() + MIN_GATE_WAIT);
        let LockedDir { root, dir, lock } = lock_dir(locks, ShortLock::Gate, deadline)?;
        let gate = Self { locks, root, dir, lock, wakeups: PendingWakeups::default() };
        gate.complete_pending()?;
        Ok(gate)
    }

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

    /// The records, to read more of them.
    pub(super) fn records(&self) -> Records<'_> {
        Records { locks: self.locks, dir: &self.dir }
    }

    /// Removes the records that a power cut tore.
    pub(super) fn remove_all_torn(&self) -> Result<()> {
        for name in self.records().names()? {
            if let RecordFile::Bytes(bytes) = self.records().file(&name)?
                && matches!(decode(&bytes), Err(Unreadable::Torn(_)))
            {
                self.remove_torn(&name)?;
            }
        }
        Ok(())
    }

    pub(super) fn remove_torn(&self, name: &Name) -> Result<()> {
        self.unlink(&file_of(name))?;
        let text = "a record was torn by the end of an earlier boot";
        let entry = self.locks.log.entry(Level::Warn, "forget", text).with("lock", name);
        self.locks.log.record(entry);
        Ok(())
    }

    /// Puts the changed ones of these records in place, all or none.
    pub(super) fn store(&self, edits: &[RecordEdit]) -> Result<()> {
        let changed: Vec<&RecordEdit> = edits.iter().filter(|edit| edit.is_changed()).collect();
        changed.iter().try_for_each(|edit| limits::check(edit))?;
        let (leaves, ops): (Vec<_>, Vec<_>) =
            write_ops(&changed)?.into_iter().partition(|op| matches!(op, WriteOp::Leave(..)));
        self.put_in_place(&changed, &ops)?;
        // A waiter that is about to leave and has lost its lifeline is dead for all readers, and a
        // death in between leaves no lifeline that no queue names.
        let gone: BTreeSet<&Lifeline> =
            changed.iter().flat_map(|edit| edit.dropped_waiter_lifelines()).collect();
        for lifeline in gone {
            let _ = self.unlink(lifeline.as_str()); // `lock clean` finds it
        }
        for leave in &leaves {
            let _ = self.apply(leave); // likewise
        }
        self.remove_empty_queues(&changed);
        for edit in changed.iter().filter(|edit| edit.unblocks_someone()) {
            let next = waiters_to_wake(&edit.record, &self.records().probe()?);
            let others = next.into_iter().filter(|process| process.pid != std::process::id());
            self.wakeups.0.borrow_mut().extend(others);
        }
        for gone in changed.iter().flat_map(|edit| edit.dropped_command_lifelines()) {
            let _ = self.unlink(gone.as_str()); // `lock clean` finds it
        }
        Ok(())
    }

    /// Makes a change, or none of it.
    fn put_in_place(&self, changed: &[&RecordEdit], ops: &[WriteOp]) -> Result<()> {
        for (done, op) in ops.iter().enumerate() {
            let Err(error) = self.apply(op) else { continue };
            let done = ops.get(..done).unwrap_or_default();
            if done.iter().any(WriteOp::is_of_record) && self.undo(changed).is_err() {
                return Ok(()); // the next process to take the gate completes it
            }
            for op in done {
                let _ = match op {
                    WriteOp::Join(name, file) => self.leave_queue(name, file),
                    WriteOp::Mark(name, before, now) => self.mark_waiter(name, now, before),
                    _ => Ok(()),
                };
            }
            return Err(error);
        }
        Ok(())
    }

    /// Completes the change of a writer that died halfway.
    fn complete_pending(&self) -> Result<()> {
        let Some(bytes) = self.records().pending()? else { return Ok(()) };
        match PendingChange::parse(&bytes) {
            Some(pending) => completion_ops(&pending)?.iter().try_for_each(|op| self.apply(op)),
            // A rename puts the journal in place whole, so a power cut damaged it, and ended its
            // writer too.
            None => self.unlink(PENDING),
        }
    }

    /// Reverts a change that could not be completed, so that no later process completes what was
    /// reported as failed. The journal goes last: a death before that reports nothing.
    fn undo(&self, changed: &[&RecordEdit]) -> Result<()> {
        for edit in changed {
            self.apply(&WriteOp::record(&edit.name, edit.original()))?;
        }
        self.unlink(PENDING)
    }

    fn apply(&self, op: &WriteOp) -> Result<()> {
        match op {
            WriteOp::Record(name, Some(record)) => self.replace(&file_of(name), &encode(record)),
            WriteOp::Record(name, None) => self.unlink(&file_of(name)),
            WriteOp::Journal(pending) => self.replace(PENDING, &journal_of(pending)?),
            WriteOp::NoJournal => self.unlink(PENDING),
            WriteOp::Join(name, file) => self.join_queue(name, file),
            WriteOp::Mark(name, before, now) => self.mark_waiter(name, before, now),
            WriteOp::Leave(name, file) => self.leave_queue(name, file),
        }
    }

    /// Removes a file in the locks' directory, if it is there.
    pub(super) fn unlink(&self, name: &str) -> Result<()> {
        Ok(self.locks.disk.unlink(&self.dir, name)?)
    }

    /// Replaces a file in the locks' directory, whole, without syncing it. On a full disk the spare
    /// files make room: a lock must be releasable even then.
    pub(super) fn replace(&self, name: &str, bytes: &[u8]) -> Result<()> {
        self.with_spares(|| self.try_to_replace(name, bytes))
    }

    /// Tries again on a full disk, each time with one spare file less.
    pub(super) fn with_spares(&self, attempt: impl Fn() -> Result<()>) -> Result<()> {
        let mut result = attempt();
        let mut spares = SPARES.iter();
        while result.as_ref().is_err_and(|error| error.kind == Kind::DiskFull)
            && let Some(spare) = spares.next()
        {
            if self.locks.disk.stat(&self.dir, spare)?.is_some() {
                self.unlink(spare)?;
                result = attempt();
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
        if SPARES.first().is_some_and(|first| is_missing(first)) {
            for spare in SPARES.iter().filter(|spare| is_missing(spare)) {
                let _ = self.try_to_replace(spare, &[b'\n'; SPARE_SIZE]);
            }
        }
    }

    fn try_to_replace(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let temporary = temporary(self.lock.inode(), "lock");
        let disk = &self.locks.disk;
        let staged = disk.stage(&self.dir, &temporary, bytes, Durability::None)?;
        disk.rename(self.dir.entry(&temporary), self.dir.entry(name))?;
        staged.keep();
        Ok(())
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
