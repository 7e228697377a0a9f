//! The log: for each revision the commit that made it. It is put in the commit's own transaction,
//! so the newest record always is that of the document that is there.

use bytes::Bytes;

use super::RemoteStore;
use super::keys::KeySpace;
use super::source::Source;
use crate::document::seal::{Revision, hex};
use crate::error::{Error, Kind, Result};
use crate::etcd::messages::KeyValue;
use crate::journal::{Commit, Event};
use crate::plural::count;
use crate::store::next_revision::random;

/// The most revisions that the log goes back.
pub(super) const LOG_KEPT: u64 = 1_000;

/// The random identity of one commit: it shows which writer made a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Operation(String);

impl Operation {
    pub(super) fn new() -> Result<Self> {
        Ok(Self(hex(&random::<16>()?)))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// A record of the log.
#[derive(Clone, Debug)]
pub(super) struct Record {
    /// The writer's operation.
    pub operation: Operation,
    /// The commit.
    pub commit: Commit,
}

impl Record {
    /// The value: the operation, and the commit as the journal of a root has it, on two lines.
    pub(super) fn value(self) -> Result<Bytes> {
        let unwritable = || Error::new(Kind::Internal, "a commit that cannot be recorded");
        let line = Event::Commit(self.commit).to_line().ok_or_else(unwritable)?;
        // The line has a line feed on both ends.
        Ok(format!("{}{line}", self.operation.as_str()).into())
    }

    /// Reads a record; `None` if this program did not write it.
    pub(super) fn of(found: &KeyValue) -> Option<Self> {
        let text = std::str::from_utf8(&found.value).ok()?;
        let (operation, line) = text.strip_suffix('\n')?.split_once('\n')?;
        match Event::parse(line.as_bytes()).ok()? {
            Event::Commit(commit) => {
                Some(Self { operation: Operation(operation.to_owned()), commit })
            }
            _ => None,
        }
    }
}

/// The last key of the log.
#[derive(Clone, Debug)]
pub(super) struct Newest {
    /// The revision, as its name says.
    pub revision: Revision,
    /// Its record; none if this program did not write it.
    record: Option<Record>,
}

impl Newest {
    /// Reads the last key.
    pub(super) fn of(found: &KeyValue, keys: &KeySpace) -> Option<Self> {
        let revision = keys.revision_in(&found.key)?;
        let record = Record::of(found).filter(|record| record.commit.revision == revision);
        Some(Self { revision, record })
    }

    /// The commit on record.
    pub(super) fn commit(&self) -> Option<&Commit> {
        self.record.as_ref().map(|record| &record.commit)
    }
}

/// The revision that falls out of the log when `revision` is committed.
pub(super) fn last_dropped(revision: Revision) -> Option<Revision> {
    Revision::new(revision.get().checked_sub(LOG_KEPT)?)
}

/// The records that a source has, oldest first. Those that this program did not write are left out,
/// with a warning.
pub(super) fn records(store: &RemoteStore, source: Source) -> Result<Vec<Record>> {
    let answer = source.snapshot(store, [store.keys.logs().read()])?;
    let found = answer.ranges().next().unwrap_or_default().kvs;
    let records: Vec<Record> = found.iter().filter_map(Record::of).collect();
    let skipped = found.len() - records.len();
    if skipped > 0 {
        let records = count(skipped, "record");
        store.warn(format!("{records} of the log skipped: damaged"));
    }
    Ok(records)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_log_goes_back_a_thousand_revisions() {
        let dropped = |revision| last_dropped(Revision::new(revision).unwrap());
        assert_eq!(dropped(1_000), None);
        assert_eq!(dropped(1_001), Revision::new(1));
    }
}
