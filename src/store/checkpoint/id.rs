//! The id of a checkpoint, which is the name of its directory: `checkpoint-TIME-[NUMBER-]OPERATION`.

use std::time::SystemTime;

use crate::name::is_plain;
use crate::store::layout::CHECKPOINT_PREFIX;
use crate::time::parse_compact;

/// Returns whether this is the name of a checkpoint's directory and nothing else. A name in
/// `.checkpoints/` or in a record may come from another party, and appears in hints that are typed.
pub fn is_id(name: &str) -> bool {
    name.starts_with(CHECKPOINT_PREFIX) && is_plain(name)
}

/// The ids that a word names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named<'a> {
    /// This one.
    One(&'a str),
    /// None.
    None,
    /// So many; the first of them.
    Several(&'a str, usize),
}

/// Finds the id that a word is, or is a prefix of, with or without `checkpoint-`.
pub fn named<'a>(word: &str, ids: &'a [String]) -> Named<'a> {
    if let Some(id) = ids.iter().find(|id| *id == word) {
        return Named::One(id);
    }
    let begins = |id: &&String| {
        let time = id.strip_prefix(CHECKPOINT_PREFIX);
        !word.is_empty()
            && (id.starts_with(word) || time.is_some_and(|time| time.starts_with(word)))
    };
    let found: Vec<&String> = ids.iter().filter(begins).collect();
    match found.as_slice() {
        [] => Named::None,
        [only] => Named::One(only),
        [first, ..] => Named::Several(first, found.len()),
    }
}

/// The part of `checkpoint-TIME-[NUMBER-]OPERATION` after the time.
fn rest_of(id: &str) -> Option<&str> {
    id.strip_prefix(CHECKPOINT_PREFIX)?.get(15..)?.strip_prefix('-')
}

/// The time in a checkpoint's name.
pub fn time_of(id: &str) -> Option<SystemTime> {
    parse_compact(id.strip_prefix(CHECKPOINT_PREFIX)?.get(..15)?)
}

/// The number that distinguishes it from others of the same second; 1 if it has none.
pub fn number_of(id: &str) -> u64 {
    let number = rest_of(id).and_then(|rest| rest.split_once('-')?.0.parse().ok());
    number.unwrap_or(1)
}

/// Returns whether a checkpoint's name contains this operation.
pub fn is_of(id: &str, operation: &str) -> bool {
    let Some(rest) = rest_of(id) else { return false };
    let numbered = || {
        let (number, rest) = rest.split_once('-')?;
        Some(number.parse::<u64>().is_ok() && rest == operation)
    };
    rest == operation || numbered().unwrap_or(false)
}
