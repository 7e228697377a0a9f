//! Loads records to change them, and puts damaged ones aside.

use super::encoding::{Unreadable, decode, encode};
use super::gate::Gate;
use super::records::{RecordFile, Records, file_of};
use super::reservation::is_of_previous_boot;
use super::tokens;
use crate::audit::Level;
use crate::error::Result;
use crate::lock::edit::RecordEdit;
use crate::lock::layout::{LOCKS, QUARANTINE};
use crate::lock::record::{Grant, Record};
use crate::name::Name;
use crate::time::{compact, rfc3339_millis};

/// Loads records to change: see [`load`].
pub(super) fn load_all(gate: &Gate<'_>, names: &[Name]) -> Result<Vec<RecordEdit>> {
    names.iter().map(|name| load(gate, name)).collect()
}

/// Loads a lock's record, with its waiters. A damaged record is put aside and replaced by one with
/// an unknown holder, since the lock may well be held. A record torn by a power cut is removed: its
/// holder is dead.
pub(super) fn load(gate: &Gate<'_>, name: &Name) -> Result<RecordEdit> {
    let records = gate.records();
    let queue = records.queue(name)?;
    let record = match records.file(name)? {
        RecordFile::Missing => Record::default(),
        RecordFile::Other(what) => quarantine(gate, name, None, what)?,
        RecordFile::Bytes(bytes) => match decode(&bytes) {
            Ok(record) => record,
            Err(Unreadable::Newer(version)) => return Err(records.newer(name, version)),
            Err(Unreadable::Torn(_)) if is_of_previous_boot(&records.locks.disk, records.dir)? => {
                gate.remove_torn(name)?;
                Record::default()
            }
            Err(Unreadable::Torn(why)) => quarantine(gate, name, Some(&bytes), &why)?,
        },
    };
    Ok(RecordEdit::new(name, record.with_queue(queue)))
}

/// Puts a damaged record aside: `bytes` are those of a file; anything else is linked as it is.
fn quarantine(gate: &Gate<'_>, name: &Name, bytes: Option<&[u8]>, why: &str) -> Result<Record> {
    let Records { locks, dir } = gate.records();
    let disk = &locks.disk;
    let time = disk.now();
    let token = tokens::take_or_overdraw(gate)?;
    let kept = format!("{QUARANTINE}{name}-{}-{token}", compact(time));
    match bytes {
        Some(bytes) => gate.replace(&kept, bytes)?,
        None => {
            let file = file_of(name);
            let (from, to) = (dir.entry(&file), dir.entry(&kept));
            // The damaged one keeps its place until the stand-in takes it. Only a directory
            // cannot have two names.
            disk.link(from, to).or_else(|_| disk.rename(from, to))?;
        }
    }
    let unknown = Grant::of_unknown_owner(token, rfc3339_millis(time), kept.clone());
    let record = Record { holders: vec![unknown], ..Record::default() };
    gate.replace(&file_of(name), &encode(&record))?;
    let entry = locks.log.entry(Level::Warn, "quarantine", "a damaged record was put aside");
    locks.log.record(entry.with("lock", name).with("kept", &kept).with("why", why));
    locks.warn(format!(
        "the record of the lock {name} is damaged ({why}) and was put aside as {LOCKS}/{kept}; \
         its holder is unknown"
    ));
    Ok(record)
}
