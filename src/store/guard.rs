//! Guards: the condition of one on record, the end of one that failed, and its remedies.

pub mod record;
pub mod verdict;

use serde::Serialize;

use self::record::Record;
use super::checkpoint::id::{Named, named};
use crate::error::{Error, Hint, Kind, Result};
use crate::journal::event::RESTORE;
use crate::lock::GuardLifeline;

/// The variable by which a command shows the guards it runs under: `ID:TOKEN[,ID:TOKEN]`, outermost
/// first.
pub const GUARD_TOKEN: &str = "PIPELINE_GUARD_TOKEN";

/// The condition of a guard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "standing", content = "why")]
pub enum Standing {
    /// Its command runs.
    Running,
    /// This process cannot find out whether its command runs: it sees neither the guard's process
    /// nor a lifeline.
    Unknown,
    /// Its process ended without recording a result; nothing was put back.
    Killed,
    /// Its command failed, and not everything was put back; the reason.
    Unrestored(String),
    /// The record was made in another root or on another machine.
    Foreign,
    /// The record cannot be read.
    Damaged,
}

/// A guard that has begun.
#[derive(Debug)]
pub struct Begun<'s> {
    /// Its id, which is that of its checkpoint.
    pub id: String,
    /// The value its command shows: `ID:TOKEN`.
    pub shown: String,
    /// Its record, in case that the command removes the file.
    pub record: Record,
    _lifeline: Option<GuardLifeline<'s>>,
}

impl<'s> Begun<'s> {
    /// The guard with this record. It runs as long as its lifeline is there.
    pub(in crate::store) fn new(
        record: Record,
        token: &str,
        lifeline: Option<GuardLifeline<'s>>,
    ) -> Self {
        let id = record.id.clone();
        Self { shown: format!("{id}:{token}"), id, record, _lifeline: lifeline }
    }
}

/// A guard on record.
#[derive(Clone, Debug, Serialize)]
pub struct OnRecord {
    /// Its id, which is that of its checkpoint.
    pub id: String,
    /// Its condition.
    #[serde(flatten)]
    pub standing: Standing,
    /// Whether its checkpoint can be restored.
    #[serde(skip)]
    pub is_restorable: bool,
}

impl OnRecord {
    /// The problem with it, if there is one.
    pub fn problem(&self) -> Option<String> {
        let id = &self.id;
        let problem = match &self.standing {
            Standing::Running => return None,
            Standing::Unknown => {
                format!("whether the guard {id} still runs cannot be determined from here")
            }
            Standing::Killed => format!(
                "the guard {id} was killed, and nothing that its command changed was put back"
            ),
            Standing::Unrestored(why) => {
                format!("the guard {id} did not put everything back: {why}")
            }
            Standing::Foreign => {
                return Some(format!("the record of the guard {id} is of another root or machine"));
            }
            Standing::Damaged => return Some(format!("the record of the guard {id} is damaged")),
        };
        Some(match self.is_restorable {
            true => problem,
            false => format!("{problem}; its checkpoint is gone or damaged"),
        })
    }

    /// The commands that resolve the problem.
    pub fn hints(&self) -> Vec<Hint> {
        let run = |command: &str, why: &str| {
            Hint::Command(format!("{command} {}", self.id), why.to_owned())
        };
        let restore = run(RESTORE, "put everything back, also what others committed since");
        let forget = run("recover guard --forget", "keep everything as it is");
        match self.standing {
            Standing::Running => Vec::new(),
            Standing::Unknown => {
                vec![run("recover guard --forget", "if its command has ended: remove the record")]
            }
            Standing::Killed | Standing::Unrestored(_) if self.is_restorable => {
                vec![restore, forget]
            }
            Standing::Killed | Standing::Unrestored(_) => vec![forget],
            Standing::Foreign | Standing::Damaged => {
                vec![run("recover guard --forget", "remove the record")]
            }
        }
    }
}

/// The end of a guard after its command failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// Everything that the command changed was put back.
    Restored {
        /// Entries that no checkpoint holds: they were moved aside.
        left: Vec<String>,
    },
    /// Other writers committed, and only the changes of the command were put back.
    PutBack {
        /// The revision that was committed for it, if one was needed.
        revision: Option<u64>,
        /// Entries that no checkpoint holds: they were moved aside.
        left: Vec<String>,
    },
    /// It failed after it was decided, and was finished all the same.
    Finished,
    /// Not everything was put back; the reason.
    Unrestored(String),
}

/// The guard on record that a word names; 1 `not_found` where it names none, or several.
pub(super) fn on_record<'a>(word: &str, ids: &'a [String]) -> Result<&'a str> {
    let not_found = |what: String| {
        Error::new(Kind::NotFound, format!("{what}; nothing was changed"))
            .hint_command("recover status", "see which ones are")
    };
    match named(word, ids) {
        Named::One(id) => Ok(id),
        Named::None => Err(not_found(format!("no guard {word} is on record"))),
        Named::Several(_, count) => {
            Err(not_found(format!("{count} guards on record begin with {word:?}")))
        }
    }
}

/// The refusal to forget a guard that runs.
pub(super) fn still_runs(id: &str) -> Error {
    Error::new(Kind::NotOwner, format!("the guard {id} runs; it ends with its command"))
        .hint_command("recover status", "see the state and its guards")
}
