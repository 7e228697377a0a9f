//! The checkpoints that there are: as they are listed, and the one that a word names.

use serde::Serialize;
use serde_json::Value;

use super::id::{Named, is_of, named, number_of, time_of};
use super::manifest::Metadata;
use crate::error::{Error, Kind, Result};
use crate::name::{Name, is_plain, nearest};
use crate::store::layout::pinned::PRE_RESTORE;
use crate::time::{rfc3339_millis, with_millis};
use crate::tree::Listing;

/// The choice of a checkpoint.
#[derive(Clone, Debug)]
pub enum Which {
    /// The one of this name.
    Id(String),
    /// The newest, of an operation if one is named. Checkpoints that restores make count only if
    /// their operation is named.
    Latest(Option<Name>),
}

/// The purpose of a checkpoint.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The operation that the checkpoint precedes.
    pub operation: Name,
    /// The phase; the state's own if none is given.
    pub phase: Option<String>,
    /// Notes of the caller: a JSON object.
    pub metadata: Value,
}

/// A checkpoint that was made.
#[derive(Clone, Debug)]
pub struct Made {
    /// Its name.
    pub id: String,
    /// Files and links in it.
    pub files: usize,
    /// Bytes in these.
    pub bytes: u64,
    /// Entries of `config/` that it omits, each with the reason.
    pub left: Vec<String>,
}

/// A checkpoint that was found.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its name.
    pub id: String,
    /// Its operation and other metadata.
    pub metadata: Metadata,
    /// Its entries.
    pub listing: Listing,
}

/// A checkpoint as `recover list` shows it.
#[derive(Clone, Debug, Serialize)]
pub struct Listed {
    /// Its name.
    pub id: String,
    /// The time it was made, RFC 3339.
    pub time: Option<String>,
    /// The operation that it preceded.
    pub operation: Option<String>,
    /// The phase at that time.
    pub phase: Option<String>,
    /// The revision of its state.
    pub revision: Option<u64>,
    /// Files and links in it.
    pub files: Option<usize>,
    /// Bytes in these.
    pub bytes: Option<u64>,
    /// The notes of its maker.
    pub metadata: Option<Value>,
    /// The reason why it cannot be restored, as far as its manifest shows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

impl Listed {
    /// A checkpoint with so many files and links, and bytes in these.
    pub fn new(id: String, metadata: Metadata, files: usize, bytes: u64) -> Self {
        Self {
            id,
            time: Some(with_millis(&metadata.timestamp)),
            operation: Some(metadata.operation),
            phase: metadata.phase,
            revision: metadata.revision,
            files: Some(files),
            bytes: Some(bytes),
            metadata: Some(metadata.metadata),
            problem: None,
        }
    }

    /// A checkpoint that cannot be restored.
    pub fn spoilt(id: String, problem: &Error) -> Self {
        Self {
            time: time_of(&id).map(rfc3339_millis),
            id,
            operation: None,
            phase: None,
            revision: None,
            files: None,
            bytes: None,
            metadata: None,
            problem: Some(problem.message.clone()),
        }
    }
}

/// A checkpoint that cannot be restored, where another one may.
#[derive(Debug, thiserror::Error)]
#[error("the checkpoint {id} cannot be restored")]
pub struct Unrestorable {
    /// Its ID.
    pub id: String,
}

/// Sorts ids: oldest first.
pub fn sort(ids: &mut [String]) {
    ids.sort_by_key(|id| (time_of(id), number_of(id), id.clone()));
}

/// The id that is chosen among all, which are oldest first.
pub fn choose(which: &Which, ids: &[String]) -> Result<String> {
    let operation = match which {
        Which::Id(word) => return resolve(word, ids),
        Which::Latest(operation) => operation.as_ref(),
    };
    let wanted = |id: &&String| match operation {
        Some(operation) => is_of(id, operation.as_str()),
        None => !is_of(id, PRE_RESTORE),
    };
    if let Some(newest) = ids.iter().rev().find(wanted) {
        return Ok(newest.clone());
    }
    let Some(operation) = operation else { return Err(absent("yet")) };
    // Operations of older checkpoints may be longer than those of new ones.
    if !ids.is_empty() {
        Name::parse_operation(operation.as_str())?;
    }
    Err(absent(&format!("of {operation}")))
}

/// The id that a word names: the id itself, or a prefix of one, with or without `checkpoint-`.
pub fn resolve(word: &str, ids: &[String]) -> Result<String> {
    match named(word, ids) {
        Named::One(id) => Ok(id.to_owned()),
        Named::None => Err(not_found(word, ids)),
        Named::Several(first, count) => {
            let message = format!("{count} checkpoints begin with {word:?}; nothing was changed");
            Err(Error::new(Kind::NotFound, message)
                .hint_command(
                    format!("recover show {first}"),
                    "name one of them; this is the oldest",
                )
                .hint_command("recover list", "see all of them"))
        }
    }
}

/// The error about a word that names no checkpoint. Suggests the one with the most similar name, or
/// the newest of that operation.
fn not_found(word: &str, ids: &[String]) -> Error {
    if !is_plain(word) {
        let message = format!("{word:?} is not a valid name of a checkpoint");
        return Error::new(Kind::InvalidName, message)
            .hint_command("recover list", "see which ones there are")
            .detail("name", word);
    }
    let error = absent(word);
    let of_operation = || ids.iter().rev().find(|id| is_of(id, word)).map(String::as_str);
    match nearest(word, ids.iter().map(String::as_str)).or_else(of_operation) {
        Some(id) => error.did_you_mean(format!("recover show {id}")),
        None => error,
    }
}

/// The error that there is no such checkpoint.
pub fn absent(what: &str) -> Error {
    let message = format!("there is no checkpoint {what}; nothing was changed");
    Error::new(Kind::NotFound, message).hint_command("recover list", "see which ones there are")
}

/// The command that restores the newest of `ids`, which are oldest first, other than `spoilt`, of
/// those that `is_sound` finds to be restorable.
pub fn restoring_other_than(
    spoilt: Option<&str>,
    ids: &[String],
    is_sound: impl Fn(&str) -> bool,
) -> Option<String> {
    let latest = ids.iter().rev().find(|id| !is_of(id, PRE_RESTORE));
    // Checkpoints made by restores hold a state that was given up: they come last.
    let (replaced, made): (Vec<&String>, Vec<&String>) =
        ids.iter().rev().partition(|id| is_of(id, PRE_RESTORE));
    let mut others = made.into_iter().chain(replaced).filter(|id| Some(id.as_str()) != spoilt);
    let sound = others.find(|id| is_sound(id))?;
    Some(match latest == Some(sound) {
        true => "recover restore --latest".to_owned(),
        false => format!("recover restore {sound}"),
    })
}
