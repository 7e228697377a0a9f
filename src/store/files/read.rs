//! Reading the document. A reader takes no lock, unless it has to heal damage or to finish an
//! interrupted restore.

use std::ffi::OsStr;
use std::time::{Duration, Instant};

use super::FileStore;
use super::begin::Transactions;
use super::candidate::{is_healed_by_commands, newest_copy};
use super::commit::OnDiskFull;
use super::heal::heal;
use super::observe::{Depth, Observation};
use super::root::Root;
use super::state_file::StateFile;
use super::transaction::Transaction;
use crate::document::seal::to_bytes;
use crate::document::{Reading, rules};
use crate::error::Result;
use crate::fs::watch::Watch;
use crate::fs::{Dir, Stat};
use crate::store::diagnosis::Health;
use crate::store::options::LockPurpose;
use crate::store::{Served, layout};

/// A file changed more recently than this may still be being written by an editor.
const QUIET: Duration = Duration::from_secs(1);
/// The time that a reader waits for the lock before it serves the copy that healing would restore.
pub(super) const READER_PATIENCE: Duration = Duration::from_secs(1);

/// Attempts of a reader, if its file is replaced each time before it has read the backup directory.
const LOOKS: u32 = 100;

/// Reads the document, and waits for one that is being written.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct Reader<'s> {
    pub(in crate::store) store: &'s FileStore,
}

impl<'s> Reader<'s> {
    /// Of `store`.
    pub(in crate::store) fn of(store: &'s FileStore) -> Self {
        Self { store }
    }

    /// Reads the document. Damage is healed first; where that is impossible, the copy that healing
    /// would restore is served with a warning and nothing is changed.
    pub fn read(&self) -> Result<Served> {
        let decided = self.store.intents().is_decided();
        if decided.is_err() {
            Root::of(self.store).live()?; // damage to the state itself is the better error
        }
        if decided? && let Some(served) = self.store.intents().finish_for_reader()? {
            return Ok(served);
        }
        let mut looks = 0;
        loop {
            looks += 1;
            let live = Root::of(self.store).live()?;
            Root::of(self.store).warn_of_file(&live);
            let is_plainly_healthy = self.is_plainly_healthy(&live)?;
            let live = match live {
                Some(StateFile { reading: Reading::Sealed(document), bytes, .. })
                    if is_plainly_healthy =>
                {
                    return Ok(Served { value: document.value, bytes });
                }
                live => live,
            };
            let backup_dir = Root::of(self.store).backup_dir_to_read()?;
            // A commit between the two reads leaves a backup directory that does not match this
            // file.
            if looks < LOOKS && !Root::of(self.store).is_still(live.as_ref())? {
                continue;
            }
            let seen = Observation::diagnose(self.store, live, backup_dir, Depth::DigestOnly)?;
            return match seen.health {
                Health::Missing if looks < LOOKS && self.returns()? => continue,
                Health::Damaged(_) if is_healed_by_commands(&seen) => heal_for_reader(&seen),
                _ => serve(seen),
            };
        }
    }

    /// Returns whether the file is there, and no restore waits to be finished.
    pub fn is_at_rest(&self) -> bool {
        let store = self.store;
        let is_there = store.disk.stat(&Dir::working(), store.settings.path());
        is_there.is_ok_and(|found| found.is_some())
            && store.intents().is_decided().is_ok_and(|is_decided| !is_decided)
    }

    /// Returns whether the file itself shows that it can be served.
    fn is_plainly_healthy(&self, live: &Option<StateFile>) -> Result<bool> {
        // A file with an unusual name may be the second state file of its directory.
        if self.store.settings.file_name != OsStr::new(layout::STATE_FILE) {
            Root::of(self.store).backup_dir_to_read()?;
        }
        Ok(matches!(live, Some(StateFile { reading: Reading::Sealed(document), .. })
            if rules::check(document.value.skeleton()).is_empty()))
    }

    fn try_to_heal(&self) -> Result<Served> {
        let mut last = None;
        let start = Instant::now();
        let patience = READER_PATIENCE.min(self.store.settings.lock_timeout);
        // An editor that keeps writing is awaited twice; then the file is diagnosed as it is.
        let quiet_deadline = start + 2 * QUIET;
        loop {
            // The wait holds no lock, so that readers that meet the same editor do not queue.
            let seen = Observation::of(self.store, Depth::DigestOnly)?;
            if !matches!(seen.health, Health::Damaged(_)) {
                return serve(seen);
            }
            if let Some(until) = self.unquiet(&seen.live, &mut last, quiet_deadline) {
                self.await_quiet(until);
                continue;
            }
            let tx = Transactions::of(self.store)
                .begin(LockPurpose::Write, Instant::now() + patience)?;
            if matches!(tx.seen.health, Health::Damaged(_))
                && self.unquiet(&tx.seen.live, &mut last, quiet_deadline).is_none()
            {
                heal(&tx, OnDiskFull::Fail)?;
            }
        }
    }

    /// Returns until when to wait for a live file that may still be being written. `seen` remembers
    /// the file between calls: a file that did not change during a wait is quiet, whatever its
    /// timestamp says.
    pub(super) fn unquiet(
        &self,
        live: &Option<StateFile>,
        seen: &mut Option<Stat>,
        deadline: Instant,
    ) -> Option<Instant> {
        let found = live.as_ref()?;
        let age = found.stat.age(self.store.disk.now());
        let waited = seen.is_some_and(|seen| seen.unchanged(&found.stat));
        if age >= QUIET || waited || Instant::now() >= deadline {
            return None;
        }
        *seen = Some(found.stat);
        Some(Instant::now() + (QUIET - age))
    }

    /// Waits until the live file changes, or `until`.
    fn await_quiet(&self, until: Instant) {
        let mut watch = Watch::new(&self.store.settings.directory, &self.store.settings.file_name);
        watch.wait(Some(until));
    }
}

impl<'s> Transactions<'s> {
    /// Begins a transaction on a file that is not damaged: heals damage first, where that is
    /// allowed and possible.
    pub(super) fn begin_undamaged(
        &self,
        purpose: LockPurpose,
        deadline: Instant,
    ) -> Result<Transaction<'s>> {
        let mut last = None;
        loop {
            let tx = self.begin(purpose, deadline)?;
            if !matches!(tx.seen.health, Health::Damaged(_)) {
                return Ok(tx);
            }
            if !is_healed_by_commands(&tx.seen) {
                return Err(tx.seen.refusal());
            }
            match Reader::of(self.store).unquiet(&tx.seen.live, &mut last, deadline) {
                Some(until) => {
                    drop(tx);
                    Reader::of(self.store).await_quiet(until);
                }
                // Check again: another writer may have committed.
                None => drop(heal(&tx, OnDiskFull::PruneBackups)?),
            }
        }
    }
}

/// Heals damage that a reader found, or serves the copy that healing would restore.
fn heal_for_reader(seen: &Observation<'_>) -> Result<Served> {
    match Reader::of(seen.store).try_to_heal() {
        // Any other error stops the reader.
        Err(error) if error.is_write_blocked() => {
            let copy = newest_copy(seen)?;
            seen.store.warn(format!(
                "{} is {}, and healing it was not possible: {error}; {} is served",
                seen.store.shown(),
                seen.health.kind(),
                copy.name
            ));
            let value = copy.document.into_value();
            let bytes = to_bytes(&value).unwrap_or_default();
            Ok(Served { value: value.into(), bytes: bytes.into() })
        }
        served => served,
    }
}

fn serve(seen: Observation<'_>) -> Result<Served> {
    let served = Served::of(&seen.health, seen.text(), seen.store.settings.foreign_edits)?;
    if let (Some(_), Health::Foreign(edit)) = (&served, &seen.health) {
        seen.store.warn(format!(
            "{} was changed by something else and is served as it is: {}",
            seen.store.shown(),
            edit.summary()
        ));
    }
    served.ok_or_else(|| seen.refusal())
}
