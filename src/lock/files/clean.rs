//! Removes the records of dead processes, and the files that they left.

use std::time::Instant;

use super::events::Waits;
use super::flock::FileLock;
use super::gate::Gate;
use super::load::load;
use super::records::{self, Records, StoredRecord};
use super::root::LockRoot;
use super::tokens;
use crate::error::{Kind, Result};
use crate::fs::probe::Probe;
use crate::fs::stage::is_temporary;
use crate::lock::lifeline::Lifeline;
use crate::lock::queue::drop_dead;
use crate::name::Name;

/// Drops the records of dead owners and waiters, and the files they left; living and unknown ones
/// stay. Returns how many were dropped.
pub(in crate::lock) fn clean(locks: &LockRoot, deadline: Instant) -> Result<usize> {
    let Some(dir) = records::open(locks)? else { return Ok(0) };
    let records = Records { locks, dir: &dir };
    let mut cleaned = 0;
    for name in records.names()? {
        // The gate is taken only where there is work, and released in between, since other
        // commands wait for it.
        let is_stale = match records.read(&name)? {
            StoredRecord::Damaged(_) => true,
            StoredRecord::Valid(record) => {
                let mut living = record.clone();
                drop_dead(&mut living, &records.probe()?);
                living != record || record.is_empty()
            }
        };
        if is_stale {
            match clean_one(locks, &name, deadline) {
                Err(error) if matches!(error.kind, Kind::UnsafePath | Kind::NewerSchema) => {
                    locks.warn(format!("{name} was left as it is: {error}"));
                }
                dropped => cleaned += dropped?,
            }
        }
    }
    let reservation = tokens::block_reservations(locks);
    let gate = Gate::enter(locks, deadline)?;
    remove_leftovers(gate.records(), reservation.as_ref())?;
    gate.remove_queues(&gate.records().waited_for()?);
    Ok(cleaned)
}

fn clean_one(locks: &LockRoot, name: &Name, deadline: Instant) -> Result<usize> {
    let gate = Gate::enter(locks, deadline)?;
    let mut edit = load(&gate, name)?;
    let waiters = edit.record.waiters.len();
    let dead = drop_dead(&mut edit.record, &gate.records().probe()?);
    let gone = waiters - edit.record.waiters.len();
    let edits = std::slice::from_ref(&edit);
    gate.commit(edits, || locks.author(), Vec::new(), &Waits::default())?;
    drop(gate);
    for grant in &dead {
        locks.log.record(locks.log.grant("clean", "dropped", name, grant));
    }
    Ok(dead.len() + gone)
}

/// Removes temporary files, and lifelines that no process has locked and no record names. The
/// caller holds the gate, so no temporary file of a record is in use; that of a reservation may be,
/// unless the caller holds its lock (`reservation`).
pub(super) fn remove_leftovers(records: Records<'_>, reservation: Option<&FileLock>) -> Result<()> {
    let Records { locks, dir } = records;
    let named = records.lifelines()?;
    for name in locks.disk.list(dir)? {
        let Some(text) = name.to_str() else { continue };
        let is_lost = match Lifeline::parse(text) {
            Some(lifeline) if !named.contains(&lifeline) => {
                locks.disk.probe(dir, text)? == Probe::Free
            }
            _ => false,
        };
        let is_in_use = reservation.is_none() && tokens::is_staged(text);
        if is_lost || (is_temporary(text) && !is_in_use) {
            locks.disk.unlink(dir, &name)?;
        }
    }
    Ok(())
}
