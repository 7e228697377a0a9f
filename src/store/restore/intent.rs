//! The record of a restore that is decided. From the moment it is in place the restore has happened as far as everybody is
//! concerned: who comes next carries it out.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::super::layout::{CONFIG, SIGNALS};
use crate::document::seal::{Digest, Lineage, Revision, verified, with_digest};
use crate::error::{Error, Kind, Result};

const VERSION: u64 = 1;

/// The largest record that is read, in bytes.
pub const LIMIT: u64 = 1 << 20;

/// What a restore brings about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A checkpoint takes the place of what is there.
    Restore,
    /// What was there before an interrupted restore that cannot be carried out.
    Undo,
}

/// A tree that takes the place of another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Swap {
    /// The fingerprint of what is to be there; nothing is to be, if there is none.
    pub new: Option<Digest>,
    /// The fingerprint of what was there.
    pub old: Option<Digest>,
}

/// The sealed state that is to take the live file's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Staged {
    /// Its revision.
    pub revision: Revision,
    /// Its lineage.
    pub lineage: Lineage,
    /// Its digest.
    pub digest: Digest,
}

/// A restore that is decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intent {
    /// What it brings about.
    pub action: Action,
    /// The number under which everything is staged.
    pub number: u64,
    /// Which checkpoint is restored.
    pub checkpoint: String,
    /// The checkpoint of what was there before.
    pub pre_restore: String,
    /// The directory that `config/` lies in, where that is not the state's own.
    pub config_root: Option<PathBuf>,
    /// `config/`
    pub config: Swap,
    /// `.signals/`
    pub signals: Swap,
    /// The state; an undo leaves it as it is, since it comes last.
    pub state: Option<Staged>,
}

impl Intent {
    /// The trees, by the names of their places.
    pub fn swaps(&self) -> [(&'static str, &Swap); 2] {
        [(CONFIG, &self.config), (SIGNALS, &self.signals)]
    }

    /// The record as it stands in its file.
    pub fn write(&self) -> Result<Vec<u8>> {
        let swap = |swap: &Swap| {
            let text = |digest: &Option<Digest>| digest.as_ref().map(|digest| digest.as_str().to_owned());
            json!({"new": text(&swap.new), "old": text(&swap.old)})
        };
        let state = self.state.as_ref().map(|state| {
            let Staged { revision, lineage, digest } = state;
            json!({"revision": revision.get(), "lineage": lineage.as_str(), "digest": digest.as_str()})
        });
        let config_root =
            match &self.config_root {
                Some(path) => Some(path.to_str().ok_or_else(|| {
                    Error::new(Kind::InvalidName, format!("the path {} is not UTF-8", path.display()))
                })?),
                None => None,
            };
        let record = json!({
            "version": VERSION,
            "action": if self.action == Action::Undo { "undo" } else { "restore" },
            "number": self.number,
            "checkpoint": self.checkpoint,
            "preRestore": self.pre_restore,
            "configRoot": config_root,
            "config": swap(&self.config),
            "signals": swap(&self.signals),
            "state": state,
        });
        with_digest(record).ok_or_else(|| Error::new(Kind::Internal, "the intent could not be written"))
    }

    /// Reads a record; what is wrong with it, if it cannot be read.
    pub fn read(bytes: &[u8]) -> Result<Self> {
        let damaged = || {
            Error::new(Kind::Corrupt, "the record of an interrupted restore is damaged")
                .try_command("recover list", "choose a checkpoint; restoring that replaces the interrupted restore")
        };
        let value = verified(bytes).ok_or_else(damaged)?;
        if let Some(version) = value.get("version").and_then(Value::as_u64).filter(|version| *version > VERSION) {
            let message = format!("a newer program (version {version} of its record) was restoring a checkpoint");
            return Err(Error::new(Kind::NewerSchema, message).try_command("--version", "a newer one is needed"));
        }
        Self::parse(&value).ok_or_else(damaged)
    }

    fn parse(value: &Value) -> Option<Self> {
        let text = |field: &str| value.get(field)?.as_str().map(str::to_owned);
        let digest = |swap: &Value, field: &str| match swap.get(field)? {
            Value::Null => Some(None),
            text => Digest::from_value(text).map(Some),
        };
        let swap = |field: &str| {
            let swap = value.get(field)?;
            Some(Swap { new: digest(swap, "new")?, old: digest(swap, "old")? })
        };
        let state = match value.get("state")? {
            Value::Null => None,
            state => Some(Staged {
                revision: Revision::from_value(state.get("revision")?)?,
                lineage: Lineage::from_value(state.get("lineage")?)?,
                digest: Digest::from_value(state.get("digest")?)?,
            }),
        };
        Some(Self {
            action: if text("action")? == "undo" { Action::Undo } else { Action::Restore },
            number: value.get("number")?.as_u64()?,
            checkpoint: text("checkpoint")?,
            pre_restore: text("preRestore")?,
            config_root: text("configRoot").map(PathBuf::from),
            config: swap("config")?,
            signals: swap("signals")?,
            state,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_intent_reads_back_and_no_bit_of_it_can_flip_unseen() {
        let intent = Intent {
            action: Action::Restore,
            number: 2,
            checkpoint: "checkpoint-20231101-103000-deploy".into(),
            pre_restore: "checkpoint-20231101-103500-pre-restore".into(),
            config_root: Some("/some/where".into()),
            config: Swap { new: Some(Digest::of(b"new")), old: None },
            signals: Swap { new: None, old: Some(Digest::of(b"old")) },
            state: Some(Staged {
                revision: Revision::new(7).unwrap(),
                lineage: Lineage::from_bytes([3; 16]),
                digest: Digest::of(b"state"),
            }),
        };
        let bytes = intent.write().unwrap();
        assert_eq!(Intent::read(&bytes).unwrap(), intent);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Intent::read(&flipped).is_err(), "bit {bit}");
        }
    }
}
