//! The queues: `.queue/NAME/` for each lock that is waited for, with a file for each waiter.
//!
//! A name says all that decides ([`queue_entry`]); the files are empty. They change while the gate
//! is held, and are listed without it. The last waiter to leave removes the directories, so a lock
//! that is not waited for costs one failed open.

use rustix::io::Errno;

use super::gate::Gate;
use super::records::Records;
use crate::error::Result;
use crate::fs::Dir;
use crate::lock::edit::RecordEdit;
use crate::lock::layout::QUEUES;
use crate::lock::queue_entry;
use crate::lock::record::{Record, Waiter};
use crate::name::Name;
use crate::side;

impl Records<'_> {
    /// The waiters of a lock that have files.
    pub(super) fn queue(&self, name: &Name) -> Result<Vec<Waiter>> {
        let Some(queue) = self.open_queue(name)? else { return Ok(Vec::new()) };
        let files = match self.locks.disk.list(&queue) {
            Err(error) if error.is(Errno::NOENT) => return Ok(Vec::new()), // removed since
            files => files?,
        };
        Ok(queue_entry::parse_all(files.iter().filter_map(|file| file.to_str())))
    }

    /// The waiters of these locks that have files.
    pub(super) fn queues(&self, names: &[Name]) -> Result<Vec<Vec<Waiter>>> {
        names.iter().map(|name| self.queue(name)).collect()
    }

    /// The names of all locks that are waited for.
    pub(super) fn waited_for(&self) -> Result<Vec<Name>> {
        let Some(queues) = self.open_queues()? else { return Ok(Vec::new()) };
        let dirs = match self.locks.disk.list(&queues) {
            Err(error) if error.is(Errno::NOENT) => return Ok(Vec::new()), // removed since
            dirs => dirs?,
        };
        Ok(dirs.iter().filter_map(|dir| Name::parse("lock", dir.to_str()?).ok()).collect())
    }

    /// The records of all locks that are waited for.
    pub(super) fn with_waiters(&self) -> Result<Vec<(Name, Record)>> {
        self.valid_of(self.waited_for()?)
    }

    fn open_queues(&self) -> Result<Option<Dir>> {
        side::open_to_read(&self.locks.disk, self.dir, QUEUES)
    }

    fn open_queue(&self, name: &Name) -> Result<Option<Dir>> {
        match self.open_queues()? {
            Some(queues) => side::open_to_read(&self.locks.disk, &queues, name.as_str()),
            None => Ok(None),
        }
    }
}

impl Gate<'_> {
    /// Makes a waiter's file.
    pub(super) fn join_queue(&self, name: &Name, file: &str) -> Result<()> {
        self.with_spares(|| {
            let queues = self.open_or_make(self.records().dir, QUEUES)?;
            let queue = self.open_or_make(&queues, name.as_str())?;
            Ok(self.locks.disk.create(&queue, file).map(drop)?)
        })
    }

    /// Renames a waiter's file.
    pub(super) fn mark_waiter(&self, name: &Name, from: &str, to: &str) -> Result<()> {
        let Some(queue) = self.records().open_queue(name)? else { return Ok(()) };
        Ok(self.locks.disk.rename(queue.entry(from), queue.entry(to))?)
    }

    /// Removes a waiter's file.
    pub(super) fn leave_queue(&self, name: &Name, file: &str) -> Result<()> {
        let Some(queue) = self.records().open_queue(name)? else { return Ok(()) };
        Ok(self.locks.disk.unlink(&queue, file)?)
    }

    /// Removes the queues that these changes emptied. One that is left does no harm, and `lock
    /// clean` removes it.
    pub(super) fn remove_empty_queues(&self, changed: &[&RecordEdit]) {
        let has_files = |record: &Record| record.waiters.iter().any(|one| one.ticket().is_some());
        let emptied =
            changed.iter().filter(|edit| has_files(edit.original()) && !has_files(&edit.record));
        let names: Vec<&Name> = emptied.map(|edit| &edit.name).collect();
        if !names.is_empty() {
            self.remove_queues(names);
        }
    }

    /// Removes these queues, where they are empty.
    pub(super) fn remove_queues<'n>(&self, names: impl IntoIterator<Item = &'n Name>) {
        let (disk, records) = (&self.locks.disk, self.records());
        let Ok(Some(queues)) = records.open_queues() else { return };
        for name in names {
            let _ = disk.remove_dir(&queues, name.as_str());
        }
        let _ = disk.remove_dir(records.dir, QUEUES);
    }

    fn open_or_make(&self, dir: &Dir, name: &str) -> Result<Dir> {
        let disk = &self.locks.disk;
        match side::open_to_read(disk, dir, name)? {
            Some(found) => Ok(found),
            None => {
                disk.make_dir(dir, name)?;
                disk.open_dir(dir, name).map_err(|error| side::refusal(dir, name, error))
            }
        }
    }
}
