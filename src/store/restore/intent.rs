//! The record of a decided restore. Once it is in place, the restore has happened as far as every
//! other command is concerned: the next one carries it out.
//!
//! The record is data, not authority. It names its targets by their roles: `config`, `.signals`,
//! the state. The root and the config root that it was written for are compared with those that the
//! command resolved, never followed, so in a copy or clone of a root it is foreign. A record of
//! version 1 does not name its root: it is always foreign.

use serde_json::{Value, json};

use crate::digest::hex;
use crate::document::seal::{Digest, Lineage, Revision, verified, with_digest};
use crate::error::{Error, Kind, Result};
use crate::fs::identity::DirId;
use crate::store::checkpoint::id::is_id;
use crate::store::layout::{CONFIG, SIGNALS};

/// The version without an [`Origin`], as earlier releases write it.
const WITHOUT_ORIGIN: u64 = 1;
const VERSION: u64 = 2;

/// The largest record that is read, in bytes.
pub const LIMIT: u64 = 1 << 20;

/// The purpose of a restore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Restore a checkpoint.
    Restore,
    /// Bring back what was there before an interrupted restore that cannot be carried out.
    Undo,
}

/// The way in which one tree replaces another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// The two directories are exchanged by rename.
    Move,
    /// The directory stays, and its contents are replaced file by file: it is a mount point, or a
    /// merged directory of an overlay.
    CopyInto,
}

impl Manner {
    /// The word in the record.
    pub fn name(self) -> &'static str {
        match self {
            Self::Move => "move",
            Self::CopyInto => "copy-into",
        }
    }
}

/// The replacement of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Swap {
    /// The fingerprint of the new tree; `None` if the target is to be removed.
    pub new: Option<Digest>,
    /// The fingerprint of the old tree.
    pub old: Option<Digest>,
    /// The way it is done.
    pub manner: Manner,
}

/// The sealed state that is to replace the live file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StagedState {
    /// Its revision.
    pub revision: Revision,
    /// Its lineage.
    pub lineage: Lineage,
    /// Its digest.
    pub digest: Digest,
}

/// The directories that a record was written for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The state's directory.
    pub root: DirId,
    /// The directory that `config/` lies in.
    pub config_root: DirId,
    /// The path of that directory, for messages only.
    pub config_path: String,
}

/// A decided restore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intent {
    /// Its purpose.
    pub action: Action,
    /// The number under which everything is staged.
    pub number: u64,
    /// The checkpoint that is restored.
    pub checkpoint: String,
    /// The checkpoint of the state and trees before it.
    pub pre_restore: String,
    /// The directories it was written for; an earlier release does not record them.
    pub origin: Option<Origin>,
    /// `config/`; `None` leaves it as it is.
    pub config: Option<Swap>,
    /// `.signals/`; `None` leaves it as it is.
    pub signals: Option<Swap>,
    /// The state; an undo may leave it as it is, since it is committed last.
    pub state: Option<StagedState>,
    /// The operation that decides, where the state is on other machines: the restore has happened
    /// if that was committed.
    pub operation: Option<OperationId>,
}

/// The random name of an operation on a store on other machines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperationId(String);

impl OperationId {
    /// The digits of the name.
    const LENGTH: usize = 32;

    /// The name that these bytes are.
    pub fn new(random: [u8; 16]) -> Self {
        Self(hex(&random))
    }

    /// Parses a name in a record.
    pub fn parse(text: &str) -> Option<Self> {
        let is_hex = text.bytes().all(|byte| byte.is_ascii_hexdigit());
        (text.len() == Self::LENGTH && is_hex).then(|| Self(text.to_owned()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Intent {
    /// The trees that are replaced, with the names of their targets.
    pub fn swaps(&self) -> impl Iterator<Item = (&'static str, &Swap)> {
        [(CONFIG, &self.config), (SIGNALS, &self.signals)]
            .into_iter()
            .filter_map(|(name, swap)| Some((name, swap.as_ref()?)))
    }

    /// The content of its file.
    pub fn write(&self) -> Result<Vec<u8>> {
        let text =
            |digest: &Option<Digest>| digest.as_ref().map(|digest| digest.as_str().to_owned());
        let swap = |swap: &Option<Swap>| {
            let swap = swap.as_ref()?;
            Some(json!({"new": text(&swap.new), "old": text(&swap.old),
                    "manner": swap.manner.name()}))
        };
        let state = self.state.as_ref().map(|state| {
            let StagedState { revision, lineage, digest } = state;
            json!({"revision": revision.get(), "lineage": lineage.as_str(),
                "digest": digest.as_str()})
        });
        let origin = self.origin.as_ref();
        let mut record = json!({
            "version": if origin.is_some() { VERSION } else { WITHOUT_ORIGIN },
            "action": if self.action == Action::Undo { "undo" } else { "restore" },
            "number": self.number,
            "checkpoint": self.checkpoint,
            "preRestore": self.pre_restore,
            "root": origin.map(|origin| origin.root.to_value()),
            "configRoot": origin.map(|origin| origin.config_root.to_value()),
            "configPath": origin.map(|origin| origin.config_path.as_str()),
            "config": swap(&self.config),
            "signals": swap(&self.signals),
            "state": state,
        });
        if let (Some(operation), Some(fields)) = (&self.operation, record.as_object_mut()) {
            fields.insert("operation".to_owned(), operation.as_str().into());
        }
        let bytes = with_digest(record)
            .ok_or_else(|| Error::new(Kind::Internal, "the intent could not be written"))?;
        if bytes.len() as u64 > LIMIT {
            let message = format!(
                "the record of the restore would have {} bytes, and could not be read",
                bytes.len()
            );
            return Err(Error::new(Kind::TooLarge, message)
                .hint_command("--help", "--root names a shorter path"));
        }
        Ok(bytes)
    }

    /// Parses a record; the error states its defect.
    pub fn read(bytes: &[u8]) -> Result<Self> {
        let damaged = || {
            Error::new(Kind::Corrupt, "the record of an interrupted restore is damaged")
                .hint_command(
                    "recover list",
                    "choose a checkpoint; restoring that replaces the interrupted restore",
                )
                .hint_command(
                    "recover restore --abort",
                    "or drop the record; nothing else is changed",
                )
        };
        let value = verified(bytes).ok_or_else(damaged)?;
        let version = value.get("version").and_then(Value::as_u64).ok_or_else(damaged)?;
        if version > VERSION {
            let message = format!(
                "a newer program (version {version} of its record) was restoring a checkpoint"
            );
            return Err(Error::new(Kind::NewerSchema, message)
                .hint_command("--version", "a newer one is needed"));
        }
        Self::parse(&value, version).ok_or_else(damaged)
    }

    fn parse(value: &Value, version: u64) -> Option<Self> {
        let text = |field: &str| value.get(field)?.as_str().map(str::to_owned);
        // An id is a component of a path, and must not lead out of the checkpoints.
        let id = |field: &str| text(field).filter(|id| is_id(id));
        let digest = |swap: &Value, field: &str| match swap.get(field)? {
            Value::Null => Some(None),
            text => Digest::from_value(text).map(Some),
        };
        let swap = |field: &str| {
            let swap = match value.get(field)? {
                Value::Null => return Some(None),
                swap => swap,
            };
            let manner = match swap.get("manner").and_then(Value::as_str) {
                Some("copy-into") => Manner::CopyInto,
                Some("move") => Manner::Move,
                None if version == WITHOUT_ORIGIN => Manner::Move,
                _ => return None,
            };
            Some(Some(Swap { new: digest(swap, "new")?, old: digest(swap, "old")?, manner }))
        };
        let state = match value.get("state")? {
            Value::Null => None,
            state => Some(StagedState {
                revision: Revision::from_value(state.get("revision")?)?,
                lineage: Lineage::from_value(state.get("lineage")?)?,
                digest: Digest::from_value(state.get("digest")?)?,
            }),
        };
        let origin = match version {
            WITHOUT_ORIGIN => None,
            _ => Some(Origin {
                root: DirId::from_value(value.get("root")?)?,
                config_root: DirId::from_value(value.get("configRoot")?)?,
                config_path: text("configPath")?,
            }),
        };
        let operation = match value.get("operation") {
            None => None,
            Some(name) => Some(OperationId::parse(name.as_str()?)?),
        };
        Some(Self {
            action: if text("action")? == "undo" { Action::Undo } else { Action::Restore },
            number: value.get("number")?.as_u64()?,
            checkpoint: id("checkpoint")?,
            pre_restore: id("preRestore")?,
            origin,
            config: swap("config")?,
            signals: swap("signals")?,
            state,
            operation,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn intent() -> Intent {
        let root = DirId { device: 1, inode: u64::MAX, created: Some((-5, 999_999_999)) };
        Intent {
            action: Action::Restore,
            number: 2,
            checkpoint: "checkpoint-20231101-103000-deploy".into(),
            pre_restore: "checkpoint-20231101-103500-pre-restore".into(),
            origin: Some(Origin {
                config_root: DirId { created: None, ..root.clone() },
                root,
                config_path: "/some/where".into(),
            }),
            config: Some(Swap {
                new: Some(Digest::of(b"new")),
                old: None,
                manner: Manner::CopyInto,
            }),
            signals: Some(Swap { new: None, old: Some(Digest::of(b"old")), manner: Manner::Move }),
            state: Some(StagedState {
                revision: Revision::new(7).unwrap(),
                lineage: Lineage::from_bytes([3; 16]),
                digest: Digest::of(b"state"),
            }),
            operation: Some(OperationId::new([7; 16])),
        }
    }

    #[test]
    fn an_intent_round_trips_and_detects_bit_flips() {
        let bytes = intent().write().unwrap();
        assert_eq!(Intent::read(&bytes).unwrap(), intent());
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Intent::read(&flipped).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_version_1_intent_has_no_origin() {
        let swap = json!({"new": Digest::of(b"new").as_str(), "old": null});
        let old = json!({
            "version": 1, "action": "restore", "number": 2,
            "checkpoint": "checkpoint-20231101-103000-deploy",
            "preRestore": "checkpoint-20231101-103500-pre-restore", "configRoot": "/else/where",
            "config": swap,
            "signals": swap, "state": null,
        });
        let read = Intent::read(&with_digest(old).unwrap()).unwrap();
        assert_eq!(read.origin, None);
        assert_eq!(
            read.swaps().map(|(_, swap)| swap.manner).collect::<Vec<_>>(),
            [Manner::Move; 2]
        );
        assert_eq!(Intent::read(&read.write().unwrap()).unwrap(), read);
    }

    #[test]
    fn an_intent_names_nothing_outside_the_checkpoints() {
        for id in ["../x", "checkpoint-/../../x", "/etc", "checkpoint-x/..", "other", ""] {
            for field in ["checkpoint", "preRestore"] {
                let mut value = verified(&intent().write().unwrap()).unwrap();
                value[field] = id.into();
                assert!(Intent::read(&with_digest(value).unwrap()).is_err(), "{field} {id}");
            }
        }
    }
}
