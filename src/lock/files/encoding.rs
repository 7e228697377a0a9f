//! Lock records as bytes: JSON with its digest as the last field, made like a document's.

use serde::Deserialize as _;
use serde_json::Value;

use crate::digest::{self, is_intact};
use crate::document::json;
use crate::lock::layout::QUARANTINE;
use crate::lock::record::{Grant, Record, VERSION};
use crate::name::is_plain;

/// Why a record cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// It is not a valid record, for this reason.
    Torn(String),
    /// A newer program wrote it.
    Newer(u64),
}

/// Decodes a record. Without the digest a flipped bit could name another owner, one that is dead.
pub fn decode(bytes: &[u8]) -> Result<Record, Unreadable> {
    let record = digest::decode::<Record>(bytes).filter(|record| record.version <= VERSION);
    let record = record.ok_or_else(|| why_unreadable(bytes))?;
    match record.holders.iter().find_map(foreign_file) {
        Some(name) => Err(Unreadable::Torn(format!("it names the file {name:?}"))),
        None => Ok(record),
    }
}

/// Encodes a record; later versions must keep the digest as the last field.
pub fn encode(record: &Record) -> Vec<u8> {
    // strings and numbers: cannot fail
    digest::encode(record).unwrap_or_default()
}

/// The quarantine file that a grant names, if its name is not a plain one in `.locks`: that file is
/// opened, and removed with the grant.
fn foreign_file(grant: &Grant) -> Option<&str> {
    let is_file = |name: &str| name.strip_prefix(QUARANTINE).is_some_and(is_plain);
    grant.quarantined.as_deref().filter(|name| !is_file(name))
}

fn why_unreadable(bytes: &[u8]) -> Unreadable {
    let torn = |why: &str| Unreadable::Torn(why.to_owned());
    let value = match (json::parse(bytes), is_intact(bytes)) {
        (Err(error), _) => return torn(&error.to_string()),
        (Ok(_), false) => return torn("its digest is wrong"),
        (Ok(value), true) => value,
    };
    match value.get("version").and_then(Value::as_u64) {
        Some(version) if version > u64::from(VERSION) => Unreadable::Newer(version),
        Some(_) => torn(
            &Record::deserialize(value).err().map_or_else(String::new, |error| error.to_string()),
        ),
        None => torn("it has no version"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::document::seal::with_digest;
    use crate::lock::identity::Identity;
    use crate::lock::record::{Mode, Token};

    #[test]
    fn a_record_round_trips_and_a_part_of_it_is_torn() {
        let me = Identity::of(std::process::id()).unwrap().unwrap();
        let grant = Grant {
            token: Token::new(u64::MAX).unwrap(),
            mode: Mode::Shared,
            owner: Some(me.clone()),
            command: "a b".to_owned(),
            since: "2026-01-01T00:00:00Z".to_owned(),
            count: 2,
            metadata: Some(serde_json::json!({"n": 1.5})),
            ttl: Some(0.5),
            expires: Some(1e10),
            live_file: None,
            quarantined: None,
        };
        let record = Record { holders: vec![grant], ..Record::default() };
        let bytes = encode(&record);
        let back = decode(&bytes).unwrap();
        assert_eq!(format!("{back:?}"), format!("{record:?}"));
        for length in 0..bytes.len() {
            assert!(matches!(decode(&bytes[..length]), Err(Unreadable::Torn(_))), "{length}");
        }
        let newer = with_digest(serde_json::json!({"version": 2})).unwrap();
        assert_eq!(decode(&newer).unwrap_err(), Unreadable::Newer(2));
    }
}
