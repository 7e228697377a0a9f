//! The journal of a change of several records. Its digest detects flipped bits: with one, the
//! journal could name another lock and replace its record.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::record::Record;
use crate::document::seal::{NO_DIGEST, end_in_digest, is_intact};
use crate::error::{Error, Kind, Result};
use crate::name::Name;

/// The content of a journal: the new records, `None` for those that are removed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PendingChange(pub(super) BTreeMap<String, Option<Record>>);

/// The journal as it is written, and as it is read.
#[derive(Serialize)]
struct Written<'a> {
    records: &'a PendingChange,
    digest: &'static str,
}

#[derive(Deserialize)]
struct Read {
    records: PendingChange,
}

impl PendingChange {
    /// The journal's bytes, ending in its digest.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let bytes = end_in_digest(&Written { records: self, digest: NO_DIGEST });
        bytes.ok_or_else(|| Error::new(Kind::Internal, "the journal could not be written"))
    }

    /// Parses a journal; `None` if the bytes are not intact.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        is_intact(bytes)
            .then(|| serde_json::from_slice(bytes).ok().map(|Read { records }| records))
            .flatten()
    }

    /// The new record of a lock that the change covers; `None` for others.
    pub fn record(&self, name: &Name) -> Option<Record> {
        self.0.get(name.as_str()).map(|record| record.clone().unwrap_or_default())
    }

    /// The locks that the change covers, sorted.
    pub fn names(&self) -> impl Iterator<Item = Name> {
        self.0.keys().filter_map(|name| Name::parse("lock", name).ok())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_round_trips_and_detects_bit_flips() {
        let records = [("a".to_owned(), Some(Record::default())), ("b".to_owned(), None)];
        let journal = PendingChange(records.into());
        let bytes = journal.to_bytes().unwrap();
        assert_eq!(format!("{:?}", PendingChange::parse(&bytes).unwrap()), format!("{journal:?}"));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(PendingChange::parse(&flipped).is_none(), "bit {bit}");
        }
    }
}
