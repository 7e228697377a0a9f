//! Moving a state between a root and a store on other machines.
//!
//! While a state moves, its file is away: it has another name beside a mark, so commands find no
//! state, look for the mark, and refuse. Only then is the other side touched. Each side has one
//! step that decides: the transaction that lets the store be used, or no longer be used.

use bytes::Bytes;
use serde_json::{Value, json};

use super::restore::intent::OperationId;
use crate::digest::Digest;
use crate::document::seal::{Lineage, Revision, verified, with_digest};
use crate::error::{Error, Kind, Result, quote};
use crate::fs::identity::DirId;
use crate::journal::Commit;

const VERSION: u64 = 1;
/// The largest mark, in bytes.
pub const LIMIT: u64 = 64 << 10;

/// Where a state moves to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From a root to a store.
    Push,
    /// From a store to a root.
    Pull,
}

impl Direction {
    /// The action of its command.
    pub fn action(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::Pull => "pull",
        }
    }

    /// How far a move in this direction is at first.
    pub fn phase(self) -> Phase {
        match self {
            Self::Push => Phase::Pushing,
            Self::Pull => Phase::Pulling,
        }
    }
}

/// What became of a move that was to be given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GivenUp {
    /// It was taken back.
    TakenBack,
    /// There was none.
    Nothing,
}

/// How far a move is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// From the root to the store.
    Pushing,
    /// The state is in the store.
    Moved,
    /// From the store to the root.
    Pulling,
}

impl Phase {
    const ALL: [Self; 3] = [Self::Pushing, Self::Moved, Self::Pulling];

    fn name(self) -> &'static str {
        match self {
            Self::Pushing => "pushing",
            Self::Moved => "moved",
            Self::Pulling => "pulling",
        }
    }
}

/// The mark of a root with its state in a store, or on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// How far it is.
    pub phase: Phase,
    /// The store's address.
    pub url: String,
    /// Its cluster and prefix, whatever address leads there; an earlier release does not record it.
    pub store: Option<String>,
    /// The move.
    pub operation: OperationId,
    /// The lineage of the state that was moved away; none where there was no state.
    pub lineage: Option<Lineage>,
    /// The directory it was written for; an earlier release does not record it.
    pub root: Option<DirId>,
}

impl Mark {
    /// The content of its file.
    pub fn write(&self) -> Result<Vec<u8>> {
        with_digest(json!({
            "version": VERSION,
            "phase": self.phase.name(),
            "store": self.url,
            "id": self.store,
            "operation": self.operation.as_str(),
            "lineage": self.lineage.as_ref().map(Lineage::as_str),
            "root": self.root.as_ref().map(DirId::to_value),
        }))
        .ok_or_else(|| Error::new(Kind::Internal, "a mark that cannot be written"))
    }

    /// Parses a mark.
    pub fn read(bytes: &[u8]) -> Result<Self> {
        let damaged = || {
            Error::new(Kind::Corrupt, "the mark of a moved state is damaged").hint_command(
                "state push --help",
                "the state is in .state-backups/moved.json, or in the store it was pushed to",
            )
        };
        let value = verified(bytes).ok_or_else(damaged)?;
        if value.get("version").and_then(Value::as_u64).is_some_and(|version| version > VERSION) {
            return Err(Error::new(
                Kind::NewerSchema,
                "a newer program moved the state of this root",
            )
            .hint_command("--version", "a newer one is needed; nothing was changed"));
        }
        Self::parse(&value).ok_or_else(damaged)
    }

    fn parse(value: &Value) -> Option<Self> {
        let text = |field: &str| value.get(field)?.as_str();
        let phase = text("phase")?;
        Some(Self {
            phase: Phase::ALL.into_iter().find(|it| it.name() == phase)?,
            url: text("store")?.to_owned(),
            store: text("id").map(str::to_owned),
            operation: OperationId::parse(text("operation")?)?,
            lineage: match value.get("lineage")? {
                Value::Null => None,
                lineage => Some(Lineage::from_value(lineage)?),
            },
            root: value.get("root").and_then(DirId::from_value),
        })
    }

    /// Returns whether another move has to do with the same store, perhaps by another address.
    pub fn is_of_store_of(&self, other: &Self) -> bool {
        self.url == other.url || (self.store.is_some() && self.store == other.store)
    }

    /// Returns whether it was written for another directory, of which `root` is a copy.
    pub fn is_copied_to(&self, root: &DirId) -> bool {
        self.root.as_ref().is_some_and(|written| !written.is_same(root))
    }

    /// The refusal to go on with a move in a copy of its root.
    pub fn refusal_in_copy(&self, shown: &str) -> Error {
        let verb = if self.phase == Phase::Pulling { "pull" } else { "push" };
        let message = format!(
            "{shown} is away by a move of another root, of which this one is a copy; nothing of \
             it is carried out"
        );
        Error::new(Kind::ForeignIntent, message)
            .hint_command(
                format!("state {verb} {} --abort", quote(&self.url)),
                "end it in this copy; the store and the other root stay as they are",
            )
            .detail("store", self.url.as_str())
    }

    /// The refusal of a command that needs the state here.
    pub fn refusal(&self, shown: &str) -> Error {
        let url = quote(&self.url);
        let error = match self.phase {
            Phase::Moved => {
                let message = format!("the state {shown} was moved to the store {}", self.url);
                Error::new(Kind::Moved, message)
                    .hint_shell(format!("export PIPELINE_STORE={url}"), "work with it there")
                    .hint_command(format!("state pull {url}"), "or bring it back")
            }
            Phase::Pushing => {
                let message = format!("the state {shown} is being moved to {}", self.url);
                Error::new(Kind::Moving, message)
                    .hint_command(format!("state push {url}"), "go on with it")
                    .hint_command(format!("state push {url} --abort"), "or take it back")
            }
            Phase::Pulling => {
                let message = format!("the state {shown} is being brought back from {}", self.url);
                Error::new(Kind::Moving, message)
                    .hint_command(format!("state pull {url}"), "go on with it")
                    .hint_command(format!("state pull {url} --abort"), "or leave it there")
            }
        };
        error.detail("store", self.url.as_str())
    }
}

/// What is moved: the state with its lineage and revision, its backups, signals and history.
#[derive(Clone, Debug)]
pub struct Contents {
    /// The lineage.
    pub lineage: Lineage,
    /// The revision.
    pub revision: Revision,
    /// The digest of the document.
    pub digest: Digest,
    /// The bytes of the document.
    pub state: Bytes,
    /// Backups by name.
    pub backups: Vec<(String, Bytes)>,
    /// The files of signals, by the signal's name.
    pub signals: Vec<(String, Bytes)>,
    /// Commits on record, oldest first.
    pub commits: Vec<Commit>,
    /// A number above the tokens of all grants of locks so far.
    pub tokens: u64,
}

/// The result of a move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// The store.
    pub url: String,
    /// The lineage.
    pub lineage: Lineage,
    /// The revision.
    pub revision: Revision,
    /// Backups that went with it.
    pub backups: usize,
    /// Signals that went with it.
    pub signals: usize,
}

/// The refusal of a state that is here already.
pub fn occupied(what: &str) -> Error {
    Error::new(Kind::Exists, format!("{what}; nothing was changed"))
}

/// The refusal while locks are held.
pub fn locked(names: &[String]) -> Error {
    let message = format!(
        "locks are held ({}), and they would not go with the state; nothing was changed",
        names.join(", ")
    );
    Error::new(Kind::LockTimeout, message)
        .hint_command("lock list", "see by which processes; wait for them")
}

/// Refuses to move a state while guards run: what their commands changed could not be put back.
pub fn check_unguarded(running: impl Iterator<Item = String>) -> Result<()> {
    let ids: Vec<String> = running.collect();
    if ids.is_empty() {
        return Ok(());
    }
    let message = format!(
        "guards run ({}), and could put nothing back where the state goes; nothing was changed",
        ids.join(", ")
    );
    Err(Error::new(Kind::Conflict, message)
        .hint_command("recover status", "see which commands they guard; wait for them"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_round_trips_and_detects_bit_flips() {
        let mark = Mark {
            phase: Phase::Pushing,
            url: "etcd://h:2379/p".into(),
            store: Some("1f/p".into()),
            operation: OperationId::new([3; 16]),
            lineage: Some(Lineage::from_bytes([1; 16])),
            root: None,
        };
        let bytes = mark.write().unwrap();
        assert_eq!(Mark::read(&bytes).unwrap(), mark);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Mark::read(&flipped).is_err(), "bit {bit}");
        }
    }
}
