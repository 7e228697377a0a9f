//! The journal of a change of several records. Its digest detects flipped bits: with one, the
//! journal could name another lock and replace its record.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest;
use crate::error::{Error, Kind, Result};
use crate::lock::edit::{Joining, RecordEdit};
use crate::lock::queue_entry::name_of;
use crate::lock::record::Record;
use crate::name::Name;

/// The content of a journal: the new records, `None` for those that are removed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PendingChange {
    records: BTreeMap<String, Option<Record>>,
}

impl PendingChange {
    /// The journal's bytes, ending in its digest.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let bytes = digest::encode(self);
        bytes.ok_or_else(|| Error::new(Kind::Internal, "the journal could not be encoded"))
    }

    /// Parses a journal; `None` if the bytes are not intact, or a name in it is not a lock's: the
    /// file may come with a clone.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let pending: Self = digest::decode(bytes)?;
        (pending.names().count() == pending.records.len()).then_some(pending)
    }

    /// The new record of a lock that the change covers; `None` for others.
    pub fn record(&self, name: &Name) -> Option<Record> {
        self.records.get(name.as_str()).map(|record| record.clone().unwrap_or_default())
    }

    /// The locks that the change covers, sorted.
    pub fn names(&self) -> impl Iterator<Item = Name> {
        self.records.keys().filter_map(|name| Name::parse("lock", name).ok())
    }
}

/// The replacement of one whole file, or a change of one name.
#[derive(Clone, Debug)]
pub enum WriteOp {
    /// Makes a waiter's file of this name in the queue of a lock.
    Join(Name, String),
    /// Renames a waiter's file, from the first name to the second.
    Mark(Name, String, String),
    /// Removes a waiter's file. What happened does not depend on it: its process leaves.
    Leave(Name, String),
    /// Writes a record; `None` removes it.
    Record(Name, Option<Record>),
    /// Puts the journal in place.
    Journal(PendingChange),
    /// Removes the journal of a completed change.
    NoJournal,
}

impl WriteOp {
    /// Returns whether it changes what records say.
    pub fn is_of_record(&self) -> bool {
        matches!(self, Self::Record(..) | Self::Journal(_) | Self::NoJournal)
    }

    /// Writes this record; an empty one has no file.
    pub fn record(name: &Name, record: &Record) -> Self {
        Self::Record(name.clone(), content(record))
    }
}

fn content(record: &Record) -> Option<Record> {
    let stored = record.stored();
    (!stored.is_empty()).then_some(stored)
}

/// The operations of a change. A waiter leaves its queue once its grant is on record, so it is
/// always in one of the two; readers look at the queue first.
pub fn write_ops(changed: &[&RecordEdit]) -> Result<Vec<WriteOp>> {
    let (mut ops, mut leaves) = (Vec::new(), Vec::new());
    for edit in changed {
        let (joining, leaving) = edit.moves();
        let lock = || edit.name.clone();
        ops.extend(joining.into_iter().filter_map(|Joining { before, waiter }| {
            let file = name_of(waiter)?;
            Some(match before.and_then(name_of) {
                None => WriteOp::Join(lock(), file),
                Some(before) => WriteOp::Mark(lock(), before, file),
            })
        }));
        let files = leaving.into_iter().filter_map(name_of);
        leaves.extend(files.map(|file| WriteOp::Leave(lock(), file)));
    }
    let records: Vec<&RecordEdit> =
        changed.iter().copied().filter(|edit| edit.changes_record()).collect();
    ops.extend(record_ops(&records)?);
    ops.extend(leaves);
    Ok(ops)
}

/// The operations that put changed records in place, all or none: the first one is the change, for
/// every reader, and the others only complete it.
fn record_ops(changed: &[&RecordEdit]) -> Result<Vec<WriteOp>> {
    match changed {
        [] => Ok(Vec::new()),
        [edit] => Ok(vec![WriteOp::record(&edit.name, &edit.record)]),
        _ => {
            let records = changed.iter().map(|edit| (edit.name.to_string(), content(&edit.record)));
            let pending = PendingChange { records: records.collect() };
            let completion = completion_ops(&pending)?;
            Ok([WriteOp::Journal(pending)].into_iter().chain(completion).collect())
        }
    }
}

/// The operations that complete a change once its journal is in place.
pub fn completion_ops(pending: &PendingChange) -> Result<Vec<WriteOp>> {
    let record = |(name, record): (&String, &Option<Record>)| {
        Ok(WriteOp::Record(Name::parse("lock", name)?, record.clone()))
    };
    pending.records.iter().map(record).chain([Ok(WriteOp::NoJournal)]).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_that_names_no_lock_is_damaged() {
        for name in ["../evil", "", "a/b", ".gate"] {
            let records = [("a".to_owned(), None), (name.to_owned(), Some(Record::default()))];
            let bytes = PendingChange { records: records.into() }.to_bytes().unwrap();
            assert!(PendingChange::parse(&bytes).is_none(), "{name}");
        }
    }

    #[test]
    fn a_journal_round_trips_and_detects_bit_flips() {
        let records = [("a".to_owned(), Some(Record::default())), ("b".to_owned(), None)];
        let journal = PendingChange { records: records.into() };
        let bytes = journal.to_bytes().unwrap();
        assert_eq!(format!("{:?}", PendingChange::parse(&bytes).unwrap()), format!("{journal:?}"));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(PendingChange::parse(&flipped).is_none(), "bit {bit}");
        }
    }
}
