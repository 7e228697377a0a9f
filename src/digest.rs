//! SHA-256 digests, and records that end in their own.
//!
//! A sealed record's digest is that of its bytes with the digest's own 64 hex digits replaced by 64
//! zeros, so that it can be checked with sed and sha256sum.

use memchr::memmem;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

const HEX_LENGTH: usize = 64;

/// The placeholder for a digest that is not known yet.
pub const NO_DIGEST: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// A SHA-256 in 64 lower-case hex digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digest(String);

impl Digest {
    /// The digest of these bytes as they are.
    pub fn of(bytes: &[u8]) -> Self {
        Self(hex(&Sha256::digest(bytes)))
    }

    /// The digest of the data that `hash` received.
    pub fn finish(hash: Sha256) -> Self {
        Self(hex(&hash.finalize()))
    }

    /// The likely digest of a document that was not parsed yet, from its usual position.
    pub fn claimed(bytes: &[u8]) -> Option<Self> {
        const BEFORE: &[u8] = b"\",\n    \"digest\": \"";
        let start = places(bytes, BEFORE).next()? + BEFORE.len();
        let text = std::str::from_utf8(bytes.get(start..start + HEX_LENGTH)?).ok()?;
        is_hex(text).then(|| Self(text.to_owned()))
    }

    /// Parses a digest in a document.
    pub fn from_value(value: &Value) -> Option<Self> {
        let text = value.as_str()?;
        (text.len() == HEX_LENGTH && is_hex(text)).then(|| Self(text.to_owned()))
    }

    /// The hex digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns whether `bytes`, a document that claims this digest, has it. The digits must occur
    /// in it exactly once: no sealed document can hold its own digest a second time.
    pub fn seals(&self, bytes: &[u8]) -> bool {
        let digest = only_place([bytes], &self.0).and_then(|place| digest_around([bytes], place));
        digest.as_ref() == Some(self)
    }
}

/// A place in a text that is kept in parts.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// The index of the part.
    pub part: usize,
    /// The offset in it, in bytes.
    pub offset: usize,
}

/// The place where these digits occur, if they occur in the text exactly once.
pub fn only_place<'a>(parts: impl IntoIterator<Item = &'a [u8]>, digits: &str) -> Option<Place> {
    let in_part =
        |(part, text)| places(text, digits.as_bytes()).map(move |offset| Place { part, offset });
    let mut places = parts.into_iter().enumerate().flat_map(in_part);
    places.next().filter(|_| places.next().is_none())
}

/// The largest text that is searched without `memchr`. Before its first search that asks the
/// processor what it can do, seven times, which on a virtual machine takes longer than this.
const SMALL: usize = 8 << 10;

/// The offsets at which a part occurs in a text.
fn places<'t>(text: &'t [u8], part: &'t [u8]) -> impl Iterator<Item = usize> + 't {
    let is_small = text.len() <= SMALL;
    let (small, large) = if is_small { (text, &[][..]) } else { (&[][..], text) };
    let in_small = small.windows(part.len().max(1)).enumerate();
    let in_small =
        in_small.filter(move |(_, window)| window.first() == part.first() && *window == part);
    let in_large = (!is_small).then(|| memmem::find_iter(large, part));
    in_small.map(|(offset, _)| offset).chain(in_large.into_iter().flatten())
}

/// The digest of a text with the 64 digits at a place in one of its parts taken as zeros.
pub fn digest_around<'a>(
    parts: impl IntoIterator<Item = &'a [u8]>,
    place: Place,
) -> Option<Digest> {
    let mut hash = Sha256::new();
    for (index, part) in parts.into_iter().enumerate() {
        if index == place.part {
            hash.update(part.get(..place.offset)?);
            hash.update([b'0'; HEX_LENGTH]);
            hash.update(part.get(place.offset + HEX_LENGTH..)?);
        } else {
            hash.update(part);
        }
    }
    Some(Digest::finish(hash))
}

/// The end of a record of this program, after the digits of its digest.
const RECORD_END: &[u8] = b"\"\n}\n";

/// Encodes a record: JSON with its digest as the last field. `None` if it is not an object.
pub fn encode<T: Serialize>(record: &T) -> Option<Vec<u8>> {
    #[derive(Serialize)]
    struct Sealed<'a, T> {
        #[serde(flatten)]
        record: &'a T,
        digest: &'static str,
    }
    end_in_digest(&Sealed { record, digest: NO_DIGEST })
}

/// Decodes what [`encode`] made; `None` if a byte differs.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    is_intact(bytes).then(|| serde_json::from_slice(bytes).ok()).flatten()
}

/// The bytes of a value that is serialized as an object with, as its last field, a `digest` of
/// [`NO_DIGEST`]: with its digest.
pub fn end_in_digest(value: &impl Serialize) -> Option<Vec<u8>> {
    let mut bytes = serde_json::to_vec_pretty(value).ok()?;
    bytes.push(b'\n');
    let place = bytes.len().checked_sub(HEX_LENGTH + RECORD_END.len())?;
    let digest = digest_around([&*bytes], Place { part: 0, offset: place })?;
    bytes.get_mut(place..place + HEX_LENGTH)?.copy_from_slice(digest.0.as_bytes());
    Some(bytes)
}

/// Returns whether these are the exact bytes that [`end_in_digest`] made.
pub fn is_intact(bytes: &[u8]) -> bool {
    let digits = bytes.strip_suffix(RECORD_END).and_then(|rest| rest.last_chunk::<HEX_LENGTH>());
    let place = bytes.len().checked_sub(HEX_LENGTH + RECORD_END.len());
    let digest = place.and_then(|place| digest_around([bytes], Place { part: 0, offset: place }));
    matches!((digits, digest), (Some(digits), Some(digest)) if digest.0.as_bytes() == digits)
}

/// Returns whether a text consists of lower-case hex digits.
pub fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// Bytes as lower-case hex digits.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] =
        ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    bytes
        .iter()
        .flat_map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]])
        .collect()
}
