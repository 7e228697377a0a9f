//! Reads the records for reports, without the gate and without a change.

use super::records::{self, Records, StoredRecord};
use super::root::LockRoot;
use crate::error::Result;
use crate::lock::layout::LOCKS;
use crate::lock::report::{LockEntry, LockSummary, Standing};
use crate::name::Name;
use crate::os::files::{Confirmation, confirmation, file_system};
use crate::side;

/// The state of a lock.
pub(in crate::lock) fn check(locks: &LockRoot, name: &Name) -> Result<Standing> {
    let Some(dir) = records::open(locks)? else { return Ok(Standing::Unlocked) };
    let records = Records { locks, dir: &dir };
    Ok(match records.read(name)? {
        StoredRecord::Valid(record) => Standing::of(&record, &records.probe()?),
        StoredRecord::Damaged(damage) => Standing::Unknown(damage.to_string()),
    })
}

/// All holders and waiters, by lock; holders first, waiters in their order.
pub(in crate::lock) fn list(locks: &LockRoot) -> Result<Vec<LockEntry>> {
    let Some(dir) = records::open(locks)? else { return Ok(Vec::new()) };
    let records = Records { locks, dir: &dir };
    let probe = records.probe()?;
    let mut entries = Vec::new();
    for name in records.names()? {
        match records.read(&name)? {
            StoredRecord::Valid(record) => entries.extend(LockEntry::all(&name, &record, &probe)),
            StoredRecord::Damaged(damage) => {
                let reason = damage.reason().to_owned();
                entries.push(LockEntry::damaged(&name, damage.to_string(), reason));
            }
        }
    }
    Ok(entries)
}

/// The number of entries of each kind.
pub(in crate::lock) fn summary(locks: &LockRoot) -> Result<LockSummary> {
    let entries = list(locks)?;
    let root = side::open_root(&locks.disk, &locks.directory)?;
    let file_system = file_system(records::open(locks)?.as_ref().unwrap_or(&root).at());
    let flushes = confirmation(root.at()).unwrap_or(Confirmation::Confirmed);
    let directory = locks.directory.join(LOCKS).display().to_string();
    Ok(LockSummary {
        shared_file_system: !file_system.is_local(),
        flushes,
        ..LockSummary::of(entries, directory, file_system.name())
    })
}
