//! The id of a checkpoint, which is the name of its directory:
//! `checkpoint-TIME-[NUMBER-]OPERATION`.

use std::time::SystemTime;

use crate::name::{Name, is_plain};
use crate::store::layout::CHECKPOINT_PREFIX;
use crate::time::{compact, parse_compact};

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

/// An id that sorts after `ids`, of any operation. The order of ids is the order of creation, even
/// where a checkpoint was removed or the clock was set back; then the new id repeats the time of
/// the last one.
pub fn free(ids: &[String], now: SystemTime, operation: &Name) -> String {
    let newest = ids.iter().filter_map(|id| time_of(id)).max();
    let stem =
        format!("{CHECKPOINT_PREFIX}{}", compact(newest.map_or(now, |newest| newest.max(now))));
    let highest = ids.iter().filter(|id| id.starts_with(&stem)).map(|id| number_of(id)).max();
    // A number at the beginning of an operation would be read as the sequence number.
    let is_plain = number_of(&format!("{stem}-{operation}")) == 1;
    match highest {
        None if is_plain => format!("{stem}-{operation}"),
        None => format!("{stem}-1-{operation}"),
        Some(highest) => format!("{stem}-{}-{operation}", highest.saturating_add(1)),
    }
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
