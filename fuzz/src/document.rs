//! A document: nothing in it is lost from text to tree to text, and its seal names its revision,
//! lineage and digest.

use pipeline_state::document::contents::without_seal;
use pipeline_state::document::lazy::SKELETON_FIELDS;
use pipeline_state::document::seal::{Lineage, Revision, seal, to_bytes};
use pipeline_state::document::text::without_mark;
use pipeline_state::document::{Reading, diff, inspect, json, migrate, rules};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

pub fn check(bytes: &[u8]) {
    assert_eq!(json::skeleton(bytes, &SKELETON_FIELDS).err(), json::parse(bytes).err());
    let value = match inspect(bytes) {
        Reading::Damaged(why) => return assert!(!why.is_empty()),
        Reading::Conflicted(line) => return assert!(line > 0),
        Reading::Sealed(document) => {
            let text = document.value.text().expect("it was made of a text");
            assert_eq!(
                document.seal.digest.as_str(),
                digest_of(&text, document.seal.digest.as_str())
            );
            document.into_value()
        }
        Reading::Broken(value) | Reading::Unsealed(value) => value,
    };
    keeps_everything(bytes, &value);
    migrates_once(&value);
    assert_eq!(diff::diff(&value, &value), []);
    is_sealed_rightly(&value, bytes);
}

/// Text to tree to text: the same digits, the same order, and nothing else but white space (and
/// escapes) differs.
fn keeps_everything(bytes: &[u8], value: &Value) {
    let text = std::str::from_utf8(without_mark(bytes)).expect("what is not UTF-8 is damaged");
    if !text.contains('\\') {
        assert_eq!(value.to_string(), without_white_space(text));
    }
    let written = to_bytes(value).expect("what was read can be written");
    let again = json::parse(&written).expect("what was written can be read");
    assert_eq!(again.to_string(), value.to_string());
    assert_eq!(to_bytes(&again), Some(written));
}

fn without_white_space(json: &str) -> String {
    let mut in_string = false;
    let is_kept = |c: &char| {
        in_string ^= *c == '"';
        in_string || !c.is_ascii_whitespace()
    };
    json.chars().filter(is_kept).collect()
}

/// Migration never fails but for newer documents, and what it made it leaves alone.
fn migrates_once(value: &Value) {
    let Ok(migrated) = migrate::to_current(value) else { return };
    if rules::check(&migrated.value).is_empty() {
        let again = migrate::to_current(&migrated.value).expect("today's schema is known");
        assert_eq!((again.from, again.value.to_string()), (None, migrated.value.to_string()));
    }
}

/// Every document whose `metadata` is an object can be sealed; its digest can be computed from its
/// bytes alone, its own fields stay, and no byte of it can change unnoticed.
fn is_sealed_rightly(value: &Value, bytes: &[u8]) {
    let lineage = Lineage::from_bytes([7; 16]);
    let revision = Revision::new(bytes.len() as u64 + 1).expect("it is not that long");
    let marker: [u8; 32] = Sha256::digest(bytes).into();
    let sealed = seal(value.clone(), revision, &lineage, "2023-11-01T10:30:00Z", "now", marker);
    let can_be =
        value.as_object().is_some_and(|fields| fields.get("metadata").is_none_or(Value::is_object));
    assert_eq!(sealed.is_some(), can_be);
    let Some(sealed) = sealed else { return };
    if json::is_nested_too_deep(&sealed.document.value) {
        return; // the rules keep such a document from being written
    }
    let Reading::Sealed(read) = inspect(&sealed.text.whole()) else { panic!("it is not sealed") };
    assert_eq!(read.seal, sealed.document.seal);
    assert_eq!((read.seal.revision, &read.seal.lineage), (revision, &lineage));
    assert_eq!(
        read.seal.digest.as_str(),
        digest_of(&sealed.text.whole(), read.seal.digest.as_str())
    );
    assert_eq!(without_seal(&read.value).to_string(), without_seal(value).to_string());
    let mut changed = sealed.text.whole().to_vec();
    let place = marker.iter().take(3).fold(0, |place, byte| place << 8 | usize::from(*byte))
        % changed.len();
    changed[place] ^= 1 << (bytes.len() % 8);
    assert!(
        !matches!(inspect(&changed), Reading::Sealed(_)),
        "the byte at {place} was changed, and nobody noticed"
    );
}

/// As `sed "s/DIGEST/0…0/" | sha256sum` has it.
fn digest_of(bytes: &[u8], digest: &str) -> String {
    let text = String::from_utf8(bytes.to_vec()).expect("a sealed document is UTF-8");
    let zeroed = text.replace(digest, &"0".repeat(64));
    Sha256::digest(zeroed).iter().map(|byte| format!("{byte:02x}")).collect()
}
