//! The document: text to tree and back without loss, its seal, its rules, and ways to query it.
//!
//! Nothing here touches a file. [`inspect`] classifies the bytes of one file on their own;
//! [`crate::store::diagnosis`] compares them with the other copies of the document.

pub mod chunks;
pub mod contents;
pub mod degraded;
pub mod diff;
pub mod json;
pub mod json_type;
pub mod lazy;
pub mod migrate;
pub mod new_document;
pub mod path;
mod pretty;
pub mod put_back;
pub mod query;
pub mod rules;
pub mod schema;
pub mod seal;
pub mod text;

use std::thread;

use bytes::Bytes;
use serde_json::{Value, json};

use self::lazy::LazyDocument;
use self::seal::{Digest, Document, Seal};

/// The largest document that is read, in bytes; a larger file counts as damaged.
pub const READ_LIMIT: u64 = 64 << 20;
/// The largest document that a command may make, in bytes, counted as if its revision had the most
/// digits.
pub const WRITE_LIMIT: usize = 16 << 20;
/// The bytes by which a document may exceed [`WRITE_LIMIT`] for content that this program adds: by
/// a migration, an adoption, degraded mode. So none of them, and no healing, is refused for a
/// document that was accepted.
pub const OWN_ROOM: usize = 64 << 10;

/// The classification of a file's bytes.
#[derive(Clone, Debug)]
pub enum Reading {
    /// Not a JSON document; the reason.
    Damaged(String),
    /// Not a JSON document: git left its conflict markers in it, from this line on.
    Conflicted(usize),
    /// A document with the right digest, perhaps after a conversion of its text was undone
    /// ([`text::unconverted`]).
    Sealed(Document),
    /// A document with a digest that was changed since.
    Broken(Value),
    /// A document without a digest.
    Unsealed(Value),
}

/// Classifies the bytes of one file.
pub fn inspect(bytes: &[u8]) -> Reading {
    inspect_text(Bytes::copy_from_slice(bytes))
}

/// Classifies the bytes of one file, which the document will share.
pub fn inspect_text(text: Bytes) -> Reading {
    let reading = inspect_as_it_is(text.clone());
    if matches!(reading, Reading::Sealed(_)) {
        return reading;
    }
    match text::unconverted(&text).map(|(text, _)| inspect_as_it_is(text)) {
        Some(sealed @ Reading::Sealed(_)) => sealed,
        _ => reading,
    }
}

fn inspect_as_it_is(text: Bytes) -> Reading {
    let (value, digest) = beside(
        &text,
        || LazyDocument::of_text(text.clone()),
        || Digest::claimed(&text).filter(|digest| digest.seals(&text)),
    );
    let value = match value {
        Ok(value) => value,
        Err(error) => {
            let damaged = || Reading::Damaged(error.to_string());
            return text::conflict_markers(&text).map_or_else(damaged, Reading::Conflicted);
        }
    };
    if let Some(seal) = Seal::verify(value.skeleton(), &text, digest.flatten().as_ref()) {
        return Reading::Sealed(Document { value, seal, older: None });
    }
    match value.skeleton().pointer("/metadata/digest") {
        Some(_) => Reading::Broken(value.into_value()),
        None => Reading::Unsealed(value.into_value()),
    }
}

/// Runs `ahead` in a thread of its own, where the text is large enough to make that worth while.
fn beside<T, U: Send>(
    text: &Bytes,
    work: impl FnOnce() -> T,
    ahead: impl FnOnce() -> U + Send,
) -> (T, Option<U>) {
    const LARGE: usize = 1 << 20;
    if text.len() < LARGE {
        return (work(), None);
    }
    thread::scope(|scope| {
        let ahead = thread::Builder::new().spawn_scoped(scope, ahead);
        (work(), ahead.ok().and_then(|thread| thread.join().ok()))
    })
}

/// The first document of a new root.
pub fn first() -> Value {
    let mut first = json!({
        "schemaVersion": "1.0",
        "phase": "pre-init",
        "completedTasks": [],
        "signals": {},
        "lastActivation": "",
        "metadata": {},
        "degradedMode": {"enabled": false, "reason": "", "timestamp": "", "disabledFeatures": []},
    });
    migrate::step_forward(&mut first);
    first
}
