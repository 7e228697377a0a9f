//! A state file that is missing briefly: git checkout and some editors unlink it and create it
//! again.

use std::time::{Duration, Instant};

use super::begin::Transactions;
use super::read::Reader;
use super::transaction::Transaction;
use crate::error::Result;
use crate::fs::Dir;
use crate::fs::watch::Watch;
use crate::store::diagnosis::Health;
use crate::store::options::LockPurpose;

/// The age of the directory's last change up to which a missing file is awaited, and the longest
/// wait.
const MOMENT: Duration = Duration::from_secs(1);

/// Whether commands wait for a missing state file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absence {
    /// They wait briefly if the directory changed just now.
    WaitedOut,
    /// They report it at once.
    Reported,
}

impl Reader<'_> {
    /// Waits for a missing state file while the directory changed within the last [`MOMENT`], and
    /// for at most that long. The caller holds no lock. Returns true if the file is back.
    pub(super) fn returns(&self) -> Result<bool> {
        if self.store.absence == Absence::Reported {
            return Ok(false);
        }
        let deadline = Instant::now() + MOMENT;
        let mut watch = Watch::new(&self.store.settings.directory, &self.store.settings.file_name);
        loop {
            if self.is_there()? {
                return Ok(true);
            }
            let now = Instant::now();
            match self.left_of_moment()? {
                Some(left) if now < deadline => watch.wait(Some(deadline.min(now + left))),
                _ => return Ok(false),
            }
        }
    }

    fn is_there(&self) -> Result<bool> {
        Ok(self.store.disk.stat(&Dir::working(), self.store.settings.path())?.is_some())
    }

    /// The time for which the last change of the directory still counts as recent.
    fn left_of_moment(&self) -> Result<Option<Duration>> {
        let Some(stat) = self.store.disk.stat(&Dir::working(), &self.store.settings.directory)?
        else {
            return Ok(None);
        };
        let age = stat.age(self.store.disk.now());
        Ok(MOMENT.checked_sub(age).filter(|left| !left.is_zero()))
    }
}

impl<'s> Transactions<'s> {
    /// [`FileStore::begin_undamaged`] for writers, which wait for a file that is missing briefly.
    pub(super) fn begin_write(&self, deadline: Instant) -> Result<Transaction<'s>> {
        let tx = self.begin_undamaged(LockPurpose::Write, deadline)?;
        if !matches!(tx.seen.health, Health::Missing) {
            return Ok(tx);
        }
        let Transaction { seen, lock, .. } = tx;
        drop(lock);
        match Reader::of(self.store).returns()? {
            true => self.begin_undamaged(LockPurpose::Write, deadline),
            false => Err(seen.refusal()),
        }
    }
}
