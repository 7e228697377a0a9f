//! Events of the store, as lines of the root's journal. Its writers hold the state lock; commands
//! that do not need that lock hold the gate of the locks instead.

use std::time::Instant;

use super::FileStore;
use super::root::Root;
use super::state_lock::StateLock;
use crate::fs::Dir;
use crate::journal::{DIRECTORY, Event, Fill, JOURNAL, Journal, Origin};
use crate::lock::origin;

/// The root's journal.
#[derive(Clone, Copy, Debug)]
pub struct EventLog<'s> {
    pub(in crate::store) store: &'s FileStore,
}

impl<'s> EventLog<'s> {
    /// Of `store`.
    pub fn of(store: &'s FileStore) -> Self {
        Self { store }
    }

    /// The origin of an event that this command causes now: its script is the named owner of locks,
    /// else the parent process.
    pub(super) fn origin(&self) -> Origin {
        let owner = self.store.settings.lock_env.owner;
        origin(self.store.disk.now(), owner.unwrap_or_else(std::os::unix::process::parent_id))
    }

    /// Appends an event to the root's journal, if there is one, while holding the gate. The caller
    /// holds no lock. A failure is a warning.
    pub(super) fn record(&self, event: impl FnOnce(Origin) -> Event) {
        let Ok(root) = Root::of(self.store).open() else { return };
        let Ok(dir) = self.store.disk.open_dir(&root, DIRECTORY) else { return };
        // A refusal for root leaves another user's files alone.
        let found = self.store.disk.stat(&dir, JOURNAL);
        if !matches!(found, Ok(Some(stat)) if stat.uid == crate::user::current()) {
            return;
        }
        let origin = self.origin();
        let appended = match self.store.locks.enter_gate(Instant::now()) {
            Ok(_gate) => {
                Journal::new(&self.store.disk, &dir).append_if_there(|| vec![event(origin)])
            }
            Err(error) => Err(error.message),
        };
        if let Err(why) = appended {
            self.store.warn(format!("the journal has no line of this: {why}"));
        }
    }
}

pub(in crate::store::files) fn append_to_journal(lock: &StateLock<'_>, dir: &Dir, event: &Event) {
    let journal = Journal::new(&lock.store.disk, dir);
    let appended = journal.append(event);
    if let Ok(Fill::Low) = appended {
        return;
    }
    match (appended, rotate(lock, &journal)) {
        (Err(why), _) => lock.store.warn(format!("the journal has no line of this: {why}")),
        (_, Err(why)) => lock.store.warn(format!("the journal could not be rotated: {why}")),
        (Ok(_), Ok(())) => {}
    }
}

/// Rotates a full journal, while no lock changes; the error is a sentence.
fn rotate(lock: &StateLock<'_>, journal: &Journal<'_>) -> Result<(), String> {
    let entered = lock.store.locks.enter_gate(Instant::now());
    let _gate = entered.map_err(|error| error.message)?;
    journal.rotate(lock.flock.inode()).map_err(|error| error.to_string())
}

/// Appends an event to the root's journal, if there is one.
pub(in crate::store::files) fn journal_event(
    lock: &StateLock<'_>,
    event: impl FnOnce(Origin) -> Event,
) {
    if let Ok(dir) = lock.store.disk.open_dir(&lock.root, DIRECTORY)
        && matches!(lock.store.disk.stat(&dir, JOURNAL), Ok(Some(_)))
    {
        append_to_journal(lock, &dir, &event(EventLog::of(lock.store).origin()));
    }
}
