//! The self-description of a checkpoint: `metadata.json`, and `manifest.json`, which lists every
//! other file with its digest, and with the mode and time that a restore applies. The manifest
//! carries its own digest, computed like a document's.

use std::collections::BTreeSet;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::acl::{Acl, Acls};
use crate::document::json::{MAX_DEPTH, is_nested_too_deep, parse};
use crate::document::seal::{Digest, to_bytes, verified, with_digest};
use crate::error::{Error, Kind, Result};
use crate::time::parse_rfc3339;
use crate::tree::{Entry, Listing, MODE_BITS, What};

/// The state, in a checkpoint.
pub const STATE: &str = "state.json";
/// The operation and other metadata.
pub const METADATA: &str = "metadata.json";
/// The list of its files.
pub const MANIFEST: &str = "manifest.json";
/// The tree of `config/`, in a checkpoint.
pub const CONFIG: &str = "config";
/// The tree of `.signals/`, in a checkpoint.
pub const SIGNALS: &str = "signals";

/// The largest manifest, in bytes. The manifest of the checkpoint that a restore makes may be this
/// large, others [`ROOM`] less: then a restore of any checkpoint can be undone, though the metadata
/// of its own checkpoint is longer.
pub const LIMIT: u64 = 64 << 20;
/// The bytes by which the manifest of a restore's own checkpoint may exceed others.
pub const ROOM: u64 = 64 << 10;
/// The largest `metadata.json`, in bytes.
pub const METADATA_LIMIT: u64 = 64 << 20;

/// The version without access control lists. A program that does not know these must not restore a
/// tree that has some: its modes would grant more access.
const PLAIN: u64 = 1;
const VERSION: u64 = 2;

/// The fields of a line. Others, such as an owner, would be ignored, so a line with one is refused.
const FIELDS: [&str; 9] =
    ["path", "type", "bytes", "sha256", "target", "mode", "mtime", "acl", "defaultAcl"];

/// The purpose and origin of a checkpoint.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Metadata {
    /// Its name.
    pub id: String,
    /// The operation that it preceded.
    pub operation: String,
    /// The phase at that time.
    pub phase: Option<String>,
    /// Its time, RFC 3339.
    pub timestamp: String,
    /// The process that made it.
    pub pid: u32,
    /// The machine that made it.
    pub hostname: String,
    /// The revision of the state in it; none if that was damaged or missing.
    #[serde(default)]
    pub revision: Option<u64>,
    /// Whether a command made it on its own account, so that retention applies to it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub automatic: bool,
    /// The notes of its maker.
    pub metadata: Value,
}

impl Metadata {
    /// The content of its file. Metadata that could not be read back is refused: nested too deep,
    /// or too large.
    pub fn write(&self) -> Result<Vec<u8>> {
        let refuse = |kind, why: String| {
            let error = Error::new(kind, format!("the metadata {why}"));
            Err(error.hint_command(
                "recover checkpoint --help",
                "note less, or keep it in a file of config/",
            ))
        };
        let value = self.to_value();
        if is_nested_too_deep(&value) {
            return refuse(
                Kind::InvalidJson,
                format!("is nested deeper than {} levels", MAX_DEPTH - 1),
            );
        }
        match to_bytes(&value) {
            Some(bytes) if bytes.len() as u64 <= METADATA_LIMIT => Ok(bytes),
            Some(bytes) => {
                let limit = METADATA_LIMIT >> 20;
                refuse(
                    Kind::TooLarge,
                    format!("has {} bytes, and {limit} MiB is the limit", bytes.len()),
                )
            }
            None => Err(Error::new(Kind::Internal, "the metadata could not be written")),
        }
    }

    /// Its form in records.
    pub fn to_value(&self) -> Value {
        let mut value = json!(self);
        if let Some(noted) = value.get_mut("metadata") {
            *noted = self.metadata.clone(); // serde would make `1e+5` of `1e5`
        }
        value
    }

    /// The time it was made, if the field is a valid time.
    pub fn time(&self) -> Option<SystemTime> {
        parse_rfc3339(&self.timestamp)
    }

    /// Parses the output of [`Metadata::write`].
    pub fn read(bytes: &[u8]) -> Option<Self> {
        Self::from_value(parse(bytes).ok()?)
    }

    /// Parses [`Self::to_value`].
    pub fn from_value(mut value: Value) -> Option<Self> {
        // serde would turn an object with serde_json's own token for numbers as its key into a
        // number, or fail.
        let noted = value.get_mut("metadata")?.take();
        Some(Self { metadata: noted, ..Self::deserialize(value).ok()? })
    }
}

/// The content of a manifest with these entries. One of more than `limit` bytes, which could not be
/// read back, is refused; `limit` is at most [`LIMIT`].
pub fn write(listing: &Listing, limit: u64) -> Result<Vec<u8>> {
    let files: Vec<Value> = listing.entries().iter().map(line).collect();
    let is_plain = listing.entries().iter().all(|entry| entry.acls.is_empty());
    let version = if is_plain { PLAIN } else { VERSION };
    let bytes = with_digest(json!({"version": version, "files": files}))
        .ok_or_else(|| Error::new(Kind::Internal, "the manifest could not be written"))?;
    if bytes.len() as u64 > limit.min(LIMIT) {
        let message = format!(
            "config/ and .signals/ hold {} files and directories, whose list would have {} MiB; \
             {} MiB is the limit",
            listing.entries().len(),
            (bytes.len() >> 20) + 1,
            LIMIT >> 20
        );
        return Err(Error::new(Kind::TooLarge, message).hint_shell(
            "find config .signals | wc -l",
            "see how many there are; keep what is made elsewhere",
        ));
    }
    Ok(bytes)
}

fn line(entry: &Entry) -> Value {
    let mut line = json!({"path": entry.path});
    let Some(fields) = line.as_object_mut() else { return line };
    match &entry.what {
        What::File { bytes, sha256 } => {
            fields.insert("type".into(), "file".into());
            fields.insert("bytes".into(), (*bytes).into());
            fields.insert("sha256".into(), sha256.as_str().into());
        }
        What::Directory => drop(fields.insert("type".into(), "directory".into())),
        What::Link { target } => {
            fields.insert("type".into(), "link".into());
            fields.insert("target".into(), target.as_str().into());
        }
    }
    fields.insert("mode".into(), format!("{:04o}", entry.mode).into());
    fields.insert("mtime".into(), format!("{}.{:09}", entry.mtime.0, entry.mtime.1).into());
    for (field, acl) in [("acl", &entry.acls.access), ("defaultAcl", &entry.acls.default)] {
        if let Some(acl) = acl {
            fields.insert(field.into(), acl.to_string().into());
        }
    }
    line
}

/// A defect of a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// Its bytes differ from those that were written.
    Damaged(String),
    /// A newer program wrote it.
    TooNew(u64),
    /// It lists a file that no checkpoint can hold.
    Unsafe(String),
    /// It gives this path a mode with a setuid, setgid or sticky bit.
    Privileged(String, u32),
}

impl Flaw {
    /// The defect, in words.
    pub fn words(&self) -> String {
        match self {
            Self::Damaged(why) => format!("its manifest is not what was written: {why}"),
            Self::TooNew(version) => format!("its manifest has version {version}"),
            Self::Unsafe(path) => {
                format!("its manifest names {path:?}, which no checkpoint can hold")
            }
            Self::Privileged(path, mode) => format!(
                "its manifest gives {path:?} the mode {mode:04o}, which lends its owner's rights"
            ),
        }
    }
}

/// The refusal of a checkpoint with a manifest of a newer version.
pub fn too_new(id: &str, version: u64) -> Error {
    let message = format!(
        "the checkpoint {id} was made by a newer program (its manifest has version {version})"
    );
    Error::new(Kind::NewerSchema, message)
        .hint_command("--version", "a newer one is needed; nothing was changed")
}

/// Reads a manifest.
pub fn read(bytes: &[u8]) -> std::result::Result<Listing, Flaw> {
    let damaged = |why: &str| Flaw::Damaged(why.to_owned());
    let value = verified(bytes).ok_or_else(|| damaged("its digest is wrong"))?;
    match value.get("version").and_then(Value::as_u64) {
        Some(PLAIN | VERSION) => {}
        Some(newer) if newer > VERSION => return Err(Flaw::TooNew(newer)),
        _ => return Err(damaged("it has no version")),
    }
    let lines =
        value.get("files").and_then(Value::as_array).ok_or_else(|| damaged("it names no files"))?;
    let mut seen = BTreeSet::new();
    let mut entries = Vec::new();
    for line in lines {
        let entry = entry(line)
            .ok_or_else(|| Flaw::Damaged(format!("a line of it cannot be read: {line}")))?;
        if !is_inside(&entry.path) {
            return Err(Flaw::Unsafe(entry.path));
        }
        if entry.mode & !MODE_BITS != 0 {
            return Err(Flaw::Privileged(entry.path, entry.mode));
        }
        if entry.acls.access.as_ref().is_some_and(|acl| acl.mode() != entry.mode) {
            return Err(Flaw::Damaged(format!(
                "a line of it gives a list that is not of its mode: {line}"
            )));
        }
        if !seen.insert(entry.path.clone()) {
            return Err(Flaw::Damaged(format!("it names {} twice", entry.path)));
        }
        entries.push(entry);
    }
    Ok(Listing::new(entries))
}

fn entry(line: &Value) -> Option<Entry> {
    let text = |field: &str| line.get(field)?.as_str();
    let what = match text("type")? {
        "file" => What::File {
            bytes: line.get("bytes")?.as_u64()?,
            sha256: Digest::from_value(line.get("sha256")?)?,
        },
        "directory" => What::Directory,
        "link" => What::Link { target: text("target")?.to_owned() },
        _ => return None,
    };
    let (seconds, nanos) = text("mtime")?.split_once('.')?;
    let mtime = (
        seconds.parse().ok()?,
        nanos.parse().ok().filter(|nanos| (0..1_000_000_000).contains(nanos))?,
    );
    let mode = u32::from_str_radix(text("mode")?, 8).ok().filter(|mode| *mode <= 0o7777)?;
    let acl = |field: &str| match line.get(field) {
        None => Some(None),
        Some(text) => Acl::parse(text.as_str()?).map(Some),
    };
    let acls = Acls { access: acl("acl")?, default: acl("defaultAcl")? };
    let is_known = |field: &String| FIELDS.contains(&field.as_str());
    let is_right = line.as_object()?.keys().all(is_known)
        && (acls.default.is_none() || what == What::Directory)
        && (acls.access.is_none() || !matches!(what, What::Link { .. }));
    is_right.then(|| Some(Entry { path: text("path")?.to_owned(), what, mode, mtime, acls }))?
}

/// Returns whether a path stays inside the checkpoint, and in the parts that a checkpoint has.
fn is_inside(path: &str) -> bool {
    let mut names = path.split('/');
    let top = names.next();
    let is_plain =
        |name: &str| !name.is_empty() && name != "." && name != ".." && !name.contains('\0');
    match top {
        Some(STATE | METADATA) => names.next().is_none(),
        Some(CONFIG | SIGNALS) => names.all(is_plain),
        _ => false,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn listing() -> Listing {
        let file = What::File { bytes: 3, sha256: Digest::of(b"abc") };
        let entry = |path: &str, what: What| Entry {
            path: path.into(),
            what,
            mode: 0o640,
            mtime: (-5, 7),
            acls: Acls::default(),
        };
        let acls = Acls {
            access: Acl::parse("user::rw-,user:1001:r--,group::---,mask::r--,other::---"),
            default: Acl::parse("user::rwx,group::r-x,group:7:rwx,mask::rwx,other::---"),
        };
        Listing::new(vec![
            entry("state.json", file.clone()),
            Entry { acls, ..entry("config", What::Directory) },
            entry("config/a b\n", file),
            entry("config/link", What::Link { target: "../../etc".into() }),
        ])
    }

    #[test]
    fn a_manifest_round_trips_and_detects_bit_flips() {
        let bytes = write(&listing(), LIMIT).unwrap();
        assert_eq!(read(&bytes).unwrap(), listing());
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&flipped).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_manifest_that_names_what_lies_outside_is_refused() {
        for path in [
            "../../x",
            "/etc/passwd",
            "config/../x",
            "config//x",
            "config/.",
            "state.json/x",
            "",
            "other",
            "config/",
        ] {
            let mut entries = listing().entries().to_vec();
            entries[0].path = path.to_owned();
            let bytes = write(&Listing::new(entries), LIMIT).unwrap();
            assert_eq!(read(&bytes).unwrap_err(), Flaw::Unsafe(path.to_owned()), "{path:?}");
        }
    }

    #[test]
    fn a_manifest_that_lends_rights_is_refused() {
        let count = listing().entries().len();
        for (at, mode) in
            (0..count).flat_map(|at| [0o4755, 0o2755, 0o1777, 0o7000].map(|mode| (at, mode)))
        {
            let mut entries = listing().entries().to_vec();
            entries[at].mode = mode;
            let path = entries[at].path.clone();
            let bytes = write(&Listing::new(entries), LIMIT).unwrap();
            assert_eq!(read(&bytes).unwrap_err(), Flaw::Privileged(path, mode), "{mode:o}");
        }
        let forged = |change: &dyn Fn(&mut Value)| {
            let mut value = json!({"version": 2, "files": [line(&listing().entries()[0])]});
            change(&mut value["files"][0]);
            read(&with_digest(value).unwrap())
        };
        assert!(forged(&|_| {}).is_ok());
        for field in ["owner", "uid", "xattrs"] {
            assert!(
                matches!(forged(&|line| line[field] = json!(0)), Err(Flaw::Damaged(_))),
                "{field}"
            );
        }
        // A list that says more than its mode, or an invalid list.
        for acl in ["user::rw-,user:1001:rwx,group::---,mask::rwx,other::---", "user::rw-", "x"] {
            assert!(forged(&|line| line["acl"] = json!(acl)).is_err(), "{acl}");
        }
    }

    #[test]
    fn a_newer_manifest_is_not_damaged() {
        let newer = with_digest(json!({"version": 3, "files": []})).unwrap();
        assert_eq!(read(&newer), Err(Flaw::TooNew(3)));
    }
}
