//! The record of a guard: `.state-backups/guard-ID.json`, durable and sealed, from before the
//! guarded command starts until all of its changes are kept or put back.
//!
//! A record is data of its root. It names the root it was made in as an intent does, and the
//! process by boot, pid and start time, with its lifeline; in a copy of the root, or on another
//! machine, it is reported and has no other effect.

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::document::seal::{Digest, Lineage, Revision, hex, verified, with_digest};
use crate::error::{Error, Kind, Result};
use crate::fs::identity::DirId;
use crate::lock::{Identity, Lifeline};
use crate::store::checkpoint::id::is_id;

const VERSION: u64 = 1;
/// The largest record, in bytes; for reading and writing.
pub const LIMIT: u64 = 64 << 10;
/// The longest explanation in a record, in bytes.
const WHY_LIMIT: usize = 4 << 10;
const PREFIX: &str = "guard-";
const SUFFIX: &str = ".json";

/// The document that a guard began with, or commits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    /// Its revision.
    pub revision: Revision,
    /// Its lineage.
    pub lineage: Lineage,
    /// Its digest.
    pub digest: Digest,
}

/// The stage that a guard reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// Its command runs, or the guard was killed.
    Running,
    /// It commits a document without its command's changes, or was killed doing so.
    PuttingBack {
        /// That document. Once it is committed, the guard's work is done.
        commit: Base,
        /// The reason why that does not put everything back, if it does not.
        unrestored: Option<String>,
    },
    /// Its command failed, and not everything was put back; the reason.
    Unrestored(String),
}

/// A guard on record.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// The checkpoint that the guard made, which also names the guard.
    pub id: String,
    /// The operation that it guards.
    pub operation: String,
    /// The time it began: RFC 3339, milliseconds, UTC.
    pub started: String,
    /// The process of the guard.
    pub process: Identity,
    /// Its lifeline; `None` where it could not have one, and in records of earlier releases.
    pub lifeline: Option<Lifeline>,
    /// The digest of the token that the guarded command shows.
    pub token: Digest,
    /// The root. Earlier releases do not record the time of its creation.
    pub root: DirId,
    /// The document that it began with; `None` for one without a seal.
    pub base: Option<Base>,
    /// Another guard that was running when this one began, and does not enclose it.
    pub beside: Option<String>,
    /// The stage that it reached.
    pub status: Status,
}

/// The name of a guard's record.
pub fn file_name(id: &str) -> String {
    format!("{PREFIX}{id}{SUFFIX}")
}

/// The guard with a record of this file name.
pub fn id_in(file_name: &str) -> Option<&str> {
    file_name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX).filter(|id| is_id(id))
}

/// Makes a guard's token: random, and passed to its command alone.
pub fn new_token() -> Result<String> {
    let mut bytes = [0; 16];
    crate::os::fill_random(&mut bytes).map_err(|error| {
        Error::new(Kind::Io, format!("the system gave no random numbers: {error}"))
    })?;
    Ok(hex(&bytes))
}

impl Record {
    /// Returns whether this token is the guard's.
    pub fn is_shown(&self, token: &str) -> bool {
        Digest::of(token.as_bytes()) == self.token
    }

    /// Returns whether a process with these ancestors that shows these tokens commits under the
    /// guard: it descends from it, or shows its token.
    pub fn encloses(&self, ancestors: &[Identity], shown: &[(String, String)]) -> bool {
        let token = shown.iter().find(|(id, _)| *id == self.id);
        token.is_some_and(|(_, token)| self.is_shown(token))
            || ancestors.iter().any(|ancestor| ancestor.is(&self.process))
    }

    /// This process, as the record of its guard names it.
    pub fn own_process() -> Result<Identity> {
        Identity::of(std::process::id())?.ok_or_else(|| {
            let message = format!("{} does not show this process", crate::os::hints::PROCESSES);
            Error::new(Kind::DependencyMissing, message)
        })
    }

    /// The content of its file.
    pub fn write(&self) -> Result<Vec<u8>> {
        let document = |base: &Base| {
            json!({
                "revision": base.revision.get(),
                "lineage": base.lineage.as_str(),
                "digest": base.digest.as_str(),
            })
        };
        let (commit, why) = match &self.status {
            Status::Running => (None, None),
            Status::PuttingBack { commit, unrestored } => (Some(commit), unrestored.as_ref()),
            Status::Unrestored(why) => (None, Some(why)),
        };
        let why = why.map(|why| {
            why.chars().scan(0, |size, c| {
                *size += c.len_utf8();
                (*size <= WHY_LIMIT).then_some(c)
            })
        });
        let record = json!({
            "version": VERSION,
            "id": self.id,
            "operation": self.operation,
            "started": self.started,
            "process": self.process,
            "lifeline": self.lifeline,
            "token_sha256": self.token.as_str(),
            "root": {"dev": self.root.device, "ino": self.root.inode, "created": self.root.created},
            "base": self.base.as_ref().map(document),
            "beside": self.beside,
            "putting_back": commit.map(document),
            "unrestored": why.map(Iterator::collect::<String>),
        });
        let bytes = with_digest(record)
            .ok_or_else(|| Error::new(Kind::Internal, "a record that is not an object"))?;
        if bytes.len() as u64 > LIMIT {
            return Err(Error::new(Kind::TooLarge, "the record of the guard would be too large"));
        }
        Ok(bytes)
    }

    /// Parses a record from a file of this name; `None` if a byte differs or it is another guard's.
    pub fn read(id: &str, bytes: &[u8]) -> Option<Self> {
        let value = verified(bytes)?;
        if value.get("version")?.as_u64()? != VERSION {
            return None;
        }
        let text = |field: &str| value.get(field)?.as_str().map(str::to_owned);
        let root = value.get("root")?;
        // `None` where the field is invalid.
        let document = |field: Option<&Value>| match field {
            None | Some(Value::Null) => Some(None),
            Some(base) => Some(Some(Base {
                revision: Revision::from_value(base.get("revision")?)?,
                lineage: Lineage::from_value(base.get("lineage")?)?,
                digest: Digest::from_value(base.get("digest")?)?,
            })),
        };
        let why = match value.get("unrestored")? {
            Value::Null => None,
            why => Some(why.as_str()?.to_owned()),
        };
        // Earlier releases do not write `putting_back`.
        let status = match (document(value.get("putting_back"))?, why) {
            (Some(commit), unrestored) => Status::PuttingBack { commit, unrestored },
            (None, Some(why)) => Status::Unrestored(why),
            (None, None) => Status::Running,
        };
        Some(Self {
            id: text("id").filter(|own| own == id)?,
            operation: text("operation")?,
            started: text("started")?,
            process: serde_json::from_value(value.get("process")?.clone()).ok()?,
            lifeline: optional(value.get("lifeline"))?,
            token: Digest::from_value(value.get("token_sha256")?)?,
            root: DirId {
                device: root.get("dev")?.as_u64()?,
                inode: root.get("ino")?.as_u64()?,
                created: optional(root.get("created"))?,
            },
            base: document(Some(value.get("base")?))?,
            beside: text("beside"),
            status,
        })
    }
}

/// A field that may be null, or absent in a record of an earlier release; `None` where it is
/// invalid.
fn optional<T: DeserializeOwned>(field: Option<&Value>) -> Option<Option<T>> {
    serde_json::from_value(field.cloned().unwrap_or_default()).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn record(status: Status) -> Record {
        Record {
            id: "checkpoint-20231101-103000-deploy".into(),
            operation: "deploy".into(),
            started: "2023-11-01T10:30:00.000Z".into(),
            process: Identity::of(std::process::id()).unwrap().unwrap(),
            token: Digest::of(b"token"),
            lifeline: Some(Lifeline::of_guard().unwrap()),
            root: DirId { device: u64::MAX, inode: u64::MAX, created: Some((-5, 999_999_999)) },
            base: Some(Base {
                revision: Revision::new(7).unwrap(),
                lineage: Lineage::from_bytes([3; 16]),
                digest: Digest::of(b"state"),
            }),
            beside: None,
            status,
        }
    }

    #[test]
    fn a_record_round_trips_and_detects_bit_flips() {
        let commit = record(Status::Running).base.unwrap();
        let putting_back = |why: Option<&str>| Status::PuttingBack {
            commit: commit.clone(),
            unrestored: why.map(str::to_owned),
        };
        let unrestored = Status::Unrestored("why".into());
        for status in [Status::Running, putting_back(None), putting_back(Some("why")), unrestored] {
            let record = record(status);
            let bytes = record.write().unwrap();
            assert_eq!(Record::read(&record.id, &bytes), Some(record.clone()));
            assert_eq!(Record::read("checkpoint-20231101-103000-other", &bytes), None);
            for bit in 0..bytes.len() * 8 {
                let mut flipped = bytes.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(Record::read(&record.id, &flipped), None, "bit {bit}");
            }
        }
    }

    #[test]
    fn a_record_of_an_earlier_release_is_read() {
        let record = record(Status::Running);
        let mut value = verified(&record.write().unwrap()).unwrap();
        value.as_object_mut().unwrap().shift_remove("lifeline").unwrap();
        value["root"].as_object_mut().unwrap().shift_remove("created").unwrap();
        let root = DirId { created: None, ..record.root.clone() };
        let bytes = with_digest(value).unwrap();
        let read = Record::read(&record.id, &bytes);
        assert_eq!(read, Some(Record { lifeline: None, root, ..record }));
    }

    #[test]
    fn a_file_whose_name_holds_no_checkpoint_is_no_record() {
        assert_eq!(id_in("guard-checkpoint-1-a.json"), Some("checkpoint-1-a"));
        for name in ["x;touch pwned", "a b", "$(id)", "..", "a\n", "é"] {
            assert_eq!(id_in(&file_name(&format!("checkpoint-1-{name}"))), None, "{name}");
        }
    }

    #[test]
    fn a_record_with_a_long_reason_round_trips() {
        let record = record(Status::Unrestored("\u{1}é".repeat(100_000)));
        let bytes = record.write().unwrap();
        assert!(bytes.len() as u64 <= LIMIT);
        assert!(Record::read(&record.id, &bytes).is_some());
    }

    #[test]
    fn only_the_token_itself_is_taken_for_it() {
        let record = record(Status::Running);
        assert!(
            record.is_shown("token")
                && !record.is_shown("Token")
                && !record.is_shown(record.token.as_str())
        );
        assert_ne!(new_token().unwrap(), new_token().unwrap());
    }
}
