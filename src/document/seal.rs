//! The seal: the fields that this program adds to `metadata`, and the check that a file is its
//! work.
//!
//! `metadata.digest` is the SHA-256 of the file's exact bytes with the digest's own 64 hex digits
//! replaced by 64 zeros. There is no canonical form, so a file can be checked with sed and
//! sha256sum, and the digest covers every byte of the file.

use std::fmt;

use bytes::Bytes;
use serde_json::{Map, Value};

use super::chunks::Chunks;
use super::lazy::LazyDocument;
use super::new_document::NewDocument;
use super::pretty::Printer;
use super::schema::OldForm;
use crate::digest::{self, NO_DIGEST, digest_around, is_hex, only_place};

pub use crate::digest::{Digest, hex};

/// The number of a document's commits: 1, 2, 3 …, at most 2^53 − 1, which every JSON reader holds
/// exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Revision(u64);

impl Revision {
    /// The largest.
    pub const MAX: u64 = (1 << 53) - 1;

    /// A revision, if the number is one.
    pub fn new(number: u64) -> Option<Self> {
        (1..=Self::MAX).contains(&number).then_some(Self(number))
    }

    /// The number.
    pub fn get(self) -> u64 {
        self.0
    }

    /// The revision after the highest existing one; the first, where there is none. `None` after
    /// the last.
    pub fn after(highest: Option<Self>) -> Option<Self> {
        Self::new(highest.map_or(0, Self::get) + 1)
    }

    /// Parses a revision in a document.
    pub fn from_value(value: &Value) -> Option<Self> {
        value.as_u64().and_then(Self::new)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The random identity that `init` gives a document: 32 hex digits. Revisions are comparable only
/// within a lineage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lineage(String);

impl Lineage {
    /// The lineage made of these random bytes.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(hex(&bytes))
    }

    /// Parses a lineage in a document.
    pub fn from_value(value: &Value) -> Option<Self> {
        let text = value.as_str()?;
        (text.len() == 32 && is_hex(text)).then(|| Self(text.to_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Lineage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A sealed document's verified fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seal {
    /// Its revision.
    pub revision: Revision,
    /// Its lineage.
    pub lineage: Lineage,
    /// The verified digest.
    pub digest: Digest,
}

impl Seal {
    /// The seal of a parsed document, if its bytes match the digest that it claims. `known` is the
    /// bytes' digest, if it was computed before.
    pub fn verify(value: &Value, bytes: &[u8], known: Option<&Digest>) -> Option<Self> {
        let metadata = value.get("metadata")?;
        let seal = Self {
            revision: Revision::from_value(metadata.get("revision")?)?,
            lineage: Lineage::from_value(metadata.get("lineage")?)?,
            digest: Digest::from_value(metadata.get("digest")?)?,
        };
        (known == Some(&seal.digest) || seal.digest.seals(bytes)).then_some(seal)
    }
}

/// A document with a verified digest.
#[derive(Clone, Debug)]
pub struct Document {
    /// The whole value; shared, since it may be large.
    pub value: LazyDocument,
    /// Its seal.
    pub seal: Seal,
    /// The form in which it was sealed, if `value` is in a newer one.
    pub older: Option<Older>,
}

/// A document in the form of an older schema, or with fields that an older rule allowed.
#[derive(Clone, Debug)]
pub struct Older {
    /// Its form.
    pub from: OldForm,
    /// The whole value.
    pub value: LazyDocument,
}

impl Document {
    /// The document as it was sealed: its digest covers these bytes.
    pub fn as_sealed(&self) -> &LazyDocument {
        self.older.as_ref().map_or(&self.value, |older| &older.value)
    }

    /// The document's value.
    pub fn into_value(self) -> Value {
        self.value.into_value()
    }
}

/// A document ready to be written.
#[derive(Clone, Debug)]
pub struct Sealed {
    /// The document.
    pub document: Document,
    /// The file's exact content: two-space indentation, a newline at the end.
    pub text: Chunks,
}

/// Seals `draft` as `revision` of `lineage`. `created` is kept from the document's past, `marker`
/// is 32 random bytes (a placeholder for the digest until it is known), `now` is RFC 3339. `None`
/// if `metadata` is not an object, which the rules exclude, or the marker happens to occur in the
/// document.
pub fn seal(
    draft: impl Into<NewDocument>,
    revision: Revision,
    lineage: &Lineage,
    created: &str,
    now: &str,
    marker: [u8; 32],
) -> Option<Sealed> {
    let marker = hex(&marker);
    let mut draft = draft.into();
    let metadata = draft
        .fields_mut()?
        .entry("metadata")
        .or_insert_with(|| Map::new().into())
        .as_object_mut()?;
    metadata.insert("created".into(), created.into());
    metadata.insert("lastModified".into(), now.into());
    metadata.insert("revision".into(), revision.get().into());
    metadata.insert("lineage".into(), lineage.as_str().into());
    metadata.insert("digest".into(), marker.as_str().into());
    let mut text = draft.to_text()?;
    let place = only_place(text.iter(), &marker)?;
    let digest = digest_around(text.iter(), place)?;
    text.overwrite(place.part, place.offset, digest.as_str().as_bytes())?;
    if let Some(Value::Object(metadata)) = draft.fields_mut()?.get_mut("metadata") {
        metadata.insert("digest".into(), digest.as_str().into());
    }
    let value = draft.into_document(&text);
    let seal = Seal { revision, lineage: lineage.clone(), digest };
    Some(Sealed { document: Document { value, seal, older: None }, text })
}

/// The size of a sealed document if its revision had the most digits: no later revision of the same
/// contents is larger.
pub fn full_size(text: &Chunks, revision: Revision) -> usize {
    text.size() + digits(Revision::MAX) - digits(revision.get())
}

/// The same for a document that is not sealed yet. `None` if it cannot be.
pub fn size_when_sealed(draft: impl Into<NewDocument>, created: Option<&str>) -> Option<usize> {
    const TIME: &str = "2023-11-01T10:30:00Z";
    let (last, lineage) = (Revision(Revision::MAX), Lineage::from_bytes([0; 16]));
    let sealed = seal(draft, last, &lineage, created.unwrap_or(TIME), TIME, [0x5a; 32])?;
    Some(sealed.text.size())
}

fn digits(number: u64) -> usize {
    number.checked_ilog10().map_or(1, |log| log as usize + 1)
}

/// The text of a document's file: two-space indentation and a newline at the end.
pub fn to_bytes(value: &Value) -> Option<Vec<u8>> {
    let mut printer = Printer::over(Bytes::new());
    printer.value(value)?;
    Some(printer.finish().whole().into())
}

/// The content of a record's file, with its digest as its last field, computed like a document's.
/// `None` if `value` is not an object.
pub fn with_digest(mut value: Value) -> Option<Vec<u8>> {
    value.as_object_mut()?.insert("digest".into(), NO_DIGEST.into());
    digest::end_in_digest(&value)
}

/// Parses the output of [`with_digest`]; `None` if a byte differs.
pub fn verified(bytes: &[u8]) -> Option<Value> {
    digest::is_intact(bytes).then(|| super::json::parse(bytes).ok()).flatten()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::document::contents::without_seal;
    use serde_json::json;

    fn sealed() -> Sealed {
        let value = json!({"phase": "x", "artifacts": {"digest": "0".repeat(64)},
            "metadata": {"owner": "me"}});
        let lineage = Lineage::from_bytes([7; 16]);
        let (created, now) = ("2023-11-01T10:30:00Z", "2023-11-01T10:35:00Z");
        seal(value, Revision::new(5).unwrap(), &lineage, created, now, [9; 32]).unwrap()
    }

    #[test]
    fn a_sealed_document_verifies_and_ends_in_a_newline() {
        let sealed = sealed();
        assert_eq!(
            Seal::verify(&sealed.document.value, &sealed.text.whole(), None),
            Some(sealed.document.seal.clone())
        );
        assert!(sealed.text.whole().ends_with(b"}\n"));
        assert_eq!(
            super::super::json::parse(&sealed.text.whole()).unwrap(),
            *sealed.document.value
        );
    }

    #[test]
    fn the_digest_is_what_sed_and_sha256sum_say() {
        let sealed = sealed();
        let text = String::from_utf8(sealed.text.whole().to_vec()).unwrap();
        let zeroed = text.replace(sealed.document.seal.digest.as_str(), &"0".repeat(64));
        assert_eq!(Digest::of(zeroed.as_bytes()), sealed.document.seal.digest);
    }

    #[test]
    fn a_seal_detects_bit_flips() {
        let sealed = sealed();
        for bit in 0..sealed.text.size() * 8 {
            let mut bytes = sealed.text.whole().to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            if let Ok(value) = super::super::json::parse(&bytes) {
                assert_eq!(Seal::verify(&value, &bytes, None), None, "bit {bit}");
            }
        }
    }

    #[test]
    fn a_document_may_hold_zeros_and_other_digests() {
        let sealed = sealed();
        assert_eq!(without_seal(&sealed.document.value)["artifacts"]["digest"], "0".repeat(64));
    }

    #[test]
    fn our_fields_keep_their_place_when_sealed_again() {
        let first = sealed();
        let keys = |value: &Value| {
            value["metadata"].as_object().unwrap().keys().cloned().collect::<Vec<_>>()
        };
        let lineage = first.document.seal.lineage.clone();
        let again = seal(
            first.document.clone().into_value(),
            Revision::new(6).unwrap(),
            &lineage,
            "a",
            "b",
            [1; 32],
        )
        .unwrap();
        assert_eq!(keys(&first.document.value), keys(&again.document.value));
    }

    #[test]
    fn revisions_fit_json_numbers_exactly() {
        assert_eq!(Revision::new(0), None);
        assert_eq!(Revision::after(None), Revision::new(1));
        assert_eq!(Revision::after(Revision::new(Revision::MAX)), None);
    }
}
