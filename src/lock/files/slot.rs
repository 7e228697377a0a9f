//! A place in the queues of some locks.

use std::fs::File;
use std::time::{Duration, Instant};

use super::events::Waits;
use super::gate::Gate;
use super::load::load_all;
use super::root::LockRoot;
use crate::digest;
use crate::error::{Error, Kind, Result};
use crate::fs::{Dir, Disk, Locked};
use crate::lock::author::origin_of;
use crate::lock::edit::RecordEdit;
use crate::lock::identity::Identity;
use crate::lock::lifeline::Lifeline;
use crate::lock::queue::dequeue;
use crate::lock::request::{CLEANUP_TIMEOUT, Request};
use crate::name::Name;

/// A place in the queues of some locks; left when dropped.
#[derive(Debug)]
pub struct QueueSlot<'a> {
    locks: &'a LockRoot,
    /// Empty once the place is given up by other means.
    names: Vec<Name>,
    process: Identity,
    /// Locked while this process waits; closing it ends the last trace of the wait.
    _lifeline: Option<File>,
}

impl<'a> QueueSlot<'a> {
    /// Joins the queues, then creates the requester's lifeline, which says the rest of it. In this
    /// order a process killed in between leaves no file that no queue names. Without the file, if
    /// descriptors or inodes have run out, other pid namespaces wait for this process until its
    /// deadline, and a listing does not say its command.
    ///
    /// `slot` is set as soon as the place is taken, and must outlive the gate.
    pub(super) fn take(
        slot: &mut Option<Self>,
        locks: &'a LockRoot,
        request: &Request,
        gate: &Gate<'_>,
        edits: &mut [RecordEdit],
    ) -> Result<()> {
        let process = &request.requester.process;
        let name = |edits: &mut [RecordEdit], lifeline: Option<&Lifeline>| {
            for waiter in edits.iter_mut().filter_map(|edit| edit.record.waiter_mut(process)) {
                waiter.lifeline = lifeline.cloned();
            }
        };
        let lifeline = Lifeline::random()?;
        name(edits, Some(&lifeline));
        let author = || origin_of(locks.disk.now(), request);
        gate.commit(edits, author, Vec::new(), &Waits::default())?;
        edits.iter_mut().for_each(RecordEdit::settle);
        let file = create(&lifeline, &locks.disk, gate.records().dir);
        if let (Ok(file), Some(waiter)) = (&file, edits.first().and_then(|one| one.waiter(process)))
        {
            let path = gate.records().dir.path_of(lifeline.as_str());
            // On a full disk the flock matters, and a listing does without the rest.
            let _ = locks.disk.write(file, &path, &digest::encode(waiter).unwrap_or_default());
        }
        let is_missing = file.is_err();
        let names = request.names.clone();
        let taken = Self { locks, names, process: process.clone(), _lifeline: file.ok() };
        if let Some(lost) = slot.replace(taken) {
            lost.disarm();
        }
        if is_missing {
            name(edits, None);
            gate.store(edits)?;
            let _ = gate.unlink(lifeline.as_str());
        }
        Ok(())
    }

    /// Disarms the drop: the place was given up by other means.
    pub(super) fn disarm(mut self) {
        self.names.clear();
    }

    fn leave(&self) -> Result<()> {
        let gate = Gate::enter(self.locks, Instant::now() + CLEANUP_TIMEOUT)?;
        let mut edits = load_all(&gate, &self.names)?;
        edits.iter_mut().for_each(|edit| dequeue(&mut edit.record, &self.process));
        gate.store(&edits)
    }
}

impl Drop for QueueSlot<'_> {
    fn drop(&mut self) {
        if !self.names.is_empty() {
            let _ = self.leave(); // on failure this process's death ends its place
        }
    }
}

/// Creates a waiter's lifeline and locks it, while holding the gate.
pub(super) fn create(lifeline: &Lifeline, disk: &Disk, dir: &Dir) -> Result<File> {
    let file = disk.create(dir, lifeline.as_str())?;
    let path = dir.path_of(lifeline.as_str());
    match disk.lock(file, &path, Duration::ZERO)? {
        Locked::Yes(file) => Ok(file),
        Locked::TimedOut => Err(Error::new(
            Kind::Internal,
            format!("another process has locked {}", path.display()),
        )),
    }
}
