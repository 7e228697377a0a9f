//! The checkpoints of a root: found, listed, verified, removed. Only removal takes a lock.

use serde::Serialize;
use serde_json::Value;

use crate::document::{READ_LIMIT, json as text, migrate, rules};
use crate::error::{Error, Hint, Kind, Result, quote_path};
use crate::fs::{Content, Dir, Disk};
use crate::name::{Name, is_plain, nearest};
use crate::side;
use crate::store::checkpoint::id::{is_id, is_of, number_of, time_of};
use crate::store::checkpoint::manifest::{
    self, Flaw, MANIFEST, METADATA, METADATA_LIMIT, Metadata,
};
use crate::store::files::FileStore;
use crate::store::files::root::Root;
use crate::store::layout::pinned::PRE_RESTORE;
use crate::store::layout::{CHECKPOINTS, DOOMED_PREFIX, WORKSHOP};
use crate::time::{rfc3339_millis, with_millis};
use crate::tree::{self, Listing};

/// The choice of a checkpoint.
#[derive(Clone, Debug)]
pub enum Which {
    /// The one of this name.
    Id(String),
    /// The newest, of an operation if one is named. Checkpoints that restores make count only if
    /// their operation is named.
    Latest(Option<Name>),
}

/// A checkpoint with a sound manifest. [`Checkpoint::verify`] checks its files.
#[derive(Debug)]
pub struct Checkpoint {
    /// Its name.
    pub id: String,
    /// Its operation and other metadata.
    pub metadata: Metadata,
    /// Its entries.
    pub listing: Listing,
    /// Its directory.
    pub dir: Dir,
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

impl Checkpoint {
    /// Reads it whole and compares it with its manifest.
    pub fn verify(&self, disk: &Disk) -> Result<()> {
        let listed = tree::list_holding(disk, &self.dir)?;
        let is_described = |path: &str| !path.is_empty() && path != MANIFEST;
        let found =
            listed.entries().iter().filter(|entry| is_described(&entry.path)).cloned().collect();
        if let Some(difference) = self.listing.first_difference(&Listing::new(found)) {
            return Err(damaged(&self.dir, &self.id, &difference));
        }
        self.check_owners(disk)
    }

    /// Refuses a checkpoint of which a part belongs to another user than `.checkpoints/` does.
    fn check_owners(&self, disk: &Disk) -> Result<()> {
        let Some(checkpoints) = disk.stat(&self.dir, "..")? else { return Ok(()) };
        let Some((path, uid)) = tree::foreign_owner(disk, &self.dir, checkpoints.uid)? else {
            return Ok(());
        };
        let owner = checkpoints.uid;
        let why = format!("belongs to user {uid}, and the checkpoint {} to user {owner}", self.id);
        let error = side::unsafe_path(&path, &why).detail("checkpoint", self.id.as_str());
        Err(error.caused_by(Unrestorable { id: self.id.clone() }))
    }
}

/// A checkpoint that cannot be restored, where another one may.
#[derive(Debug, thiserror::Error)]
#[error("the checkpoint {id} cannot be restored")]
pub(in super::super) struct Unrestorable {
    /// Its ID.
    pub(in super::super) id: String,
}

fn damaged(dir: &Dir, id: &str, why: &str) -> Error {
    Error::new(Kind::Corrupt, format!("the checkpoint {id} is damaged: {why}"))
        .hint_shell(
            format!("rm -rI {}", quote_path(dir.path())),
            "it cannot be restored; make another",
        )
        .detail("checkpoint", id)
        .caused_by(Unrestorable { id: id.to_owned() })
}

/// The error about a checkpoint that shows no damage, but has no digests to verify.
fn of_old_libraries(id: &str) -> Error {
    let message = format!(
        "the checkpoint {id} was made by the old libraries: it has no manifest, so it cannot be verified"
    );
    Error::new(Kind::Unverifiable, message)
        .detail("checkpoint", id)
        .detail("legacy", true)
        .caused_by(Unrestorable { id: id.to_owned() })
}

/// The command that adopts the state of a checkpoint, if it can be adopted.
fn taking(dir: &Dir, state: &Value) -> Option<String> {
    let file = quote_path(&dir.path_of(manifest::STATE));
    let is_current = rules::check(state).is_empty();
    if !is_current && migrate::usable(state).is_err() {
        return None;
    }
    let migrate = if is_current { "" } else { " --migrate" };
    // An old script may have copied a sealed document, of a revision that others exist after by
    // now.
    let force = if state.pointer("/metadata/revision").is_some() { " --force" } else { "" };
    Some(format!("state write {file}{migrate}{force}"))
}

/// The checkpoints of a root.
#[derive(Clone, Copy, Debug)]
pub struct Checkpoints<'s> {
    pub(in crate::store) store: &'s FileStore,
}

impl Checkpoints<'_> {
    /// The names of all checkpoints, oldest first.
    pub fn ids(&self) -> Result<Vec<String>> {
        let Some(checkpoints) = self.dir()? else { return Ok(Vec::new()) };
        let names = self
            .store
            .disk
            .list(&checkpoints)?
            .into_iter()
            .filter_map(|name| name.into_string().ok());
        let mut ids: Vec<String> = names.filter(|name| is_id(name) || name == WORKSHOP).collect();
        if let Some(at) = ids.iter().position(|name| name == WORKSHOP) {
            ids.swap_remove(at);
            let doomed = self.doomed(&checkpoints)?;
            ids.retain(|id| !doomed.contains(id));
        }
        ids.sort_by_key(|id| (time_of(id), number_of(id), id.clone()));
        Ok(ids)
    }

    /// The command that restores the newest restorable checkpoint other than `spoilt`.
    pub(in super::super) fn restoring_other_than(&self, spoilt: Option<&str>) -> Option<String> {
        let ids = self.ids().ok()?;
        let latest = ids.iter().rev().find(|id| !is_of(id, PRE_RESTORE));
        // Checkpoints made by restores hold a state that was given up: they come last.
        let (replaced, made): (Vec<&String>, Vec<&String>) =
            ids.iter().rev().partition(|id| is_of(id, PRE_RESTORE));
        let mut others = made.into_iter().chain(replaced).filter(|id| Some(id.as_str()) != spoilt);
        let sound = others.find(|id| self.is_sound(id).unwrap_or(false))?;
        Some(match latest == Some(sound) {
            true => "recover restore --latest".to_owned(),
            false => format!("recover restore {sound}"),
        })
    }

    /// Returns whether a checkpoint can be restored. An unreadable one is not known to be damaged.
    pub(in super::super) fn is_sound(&self, id: &str) -> Result<bool> {
        let checkpoint = self.find(&Which::Id(id.to_owned()));
        match checkpoint.and_then(|checkpoint| self.store.restores().check_restorable(&checkpoint))
        {
            Ok(()) => Ok(true),
            Err(error)
                if matches!(
                    error.kind,
                    Kind::Io | Kind::PermissionDenied | Kind::ResourceExhausted
                ) =>
            {
                Err(error)
            }
            Err(_) => Ok(false),
        }
    }

    /// The command that restores the newest restorable checkpoint.
    pub(in super::super) fn restoring(&self) -> Option<String> {
        self.restoring_other_than(None)
    }

    pub(super) fn dir(&self) -> Result<Option<Dir>> {
        side::open_to_read(&self.store.disk, &Root::of(self.store).open()?, CHECKPOINTS)
    }

    /// Opens a checkpoint and reads its manifest. Refuses a manifest with any defect.
    pub fn open(&self, checkpoints: &Dir, id: &str) -> Result<Checkpoint> {
        if !is_id(id) {
            let message = format!("{id:?} is not the name of a checkpoint");
            return Err(Error::new(Kind::InvalidName, message)
                .hint_command("recover list", "see which ones there are"));
        }
        let dir = match side::open_to_read(&self.store.disk, checkpoints, id)? {
            Some(dir) => dir,
            None => return Err(not_found(&format!("there is no checkpoint {id}"))),
        };
        let read = |name: &str, limit: u64| match self.store.disk.read(&dir, name, limit) {
            Err(error) if error.is(rustix::io::Errno::LOOP) => Ok(None),
            content => Ok::<_, Error>(
                content?.filter(|content| content.stat.kind == crate::fs::FileKind::Regular),
            ),
        };
        let Some(Content { bytes, .. }) = read(MANIFEST, manifest::LIMIT)? else {
            let parsed = |content: Option<Content>| {
                content.and_then(|content| text::parse(&content.bytes).ok())
            };
            let metadata = parsed(read(METADATA, METADATA_LIMIT)?);
            let state = parsed(read(manifest::STATE, READ_LIMIT)?);
            // This program records the revision, or that there is none.
            let is_old = metadata.is_some_and(|metadata| metadata.get("revision").is_none());
            let command = state.and_then(|state| taking(&dir, &state));
            let mut error = match command {
                Some(_) if is_old => of_old_libraries(id),
                _ => damaged(&dir, id, "it has no manifest"),
            };
            if let Some(command) = command {
                error.hints.insert(
                    0,
                    Hint::Command(
                        command,
                        "takes the state in it, once you have looked at that".to_owned(),
                    ),
                );
            }
            return Err(error);
        };
        let listing = manifest::read(&bytes).map_err(|flaw| match flaw {
            Flaw::Damaged(why) => damaged(&dir, id, &format!("its manifest is not what was written: {why}")),
            Flaw::Unsafe(path) => {
                damaged(&dir, id, &format!("its manifest names {path:?}, which no checkpoint can hold"))
            }
            Flaw::Privileged(path, mode) => damaged(
                &dir,
                id,
                &format!("its manifest gives {path:?} the mode {mode:04o}, which lends its owner's rights"),
            ),
            Flaw::TooNew(version) => {
                let message =
                    format!("the checkpoint {id} was made by a newer program (its manifest has version {version})");
                Error::new(Kind::NewerSchema, message)
                    .hint_command("--version", "a newer one is needed; nothing was changed")
            }
        })?;
        let bytes = read(METADATA, METADATA_LIMIT)?
            .ok_or_else(|| damaged(&dir, id, "metadata.json is missing"))?
            .bytes;
        let metadata = Metadata::read(&bytes)
            .ok_or_else(|| damaged(&dir, id, "metadata.json cannot be read"))?;
        Ok(Checkpoint { id: id.to_owned(), metadata, listing, dir })
    }

    /// Finds the chosen checkpoint.
    pub fn find(&self, which: &Which) -> Result<Checkpoint> {
        let nowhere = |what: &str| not_found(&format!("there is no checkpoint {what}"));
        let checkpoints = self.dir()?;
        match which {
            Which::Id(word) => {
                let id = self.resolve_id(word)?;
                self.open(&checkpoints.ok_or_else(|| nowhere(&id))?, &id)
            }
            Which::Latest(operation) => {
                let what = operation
                    .as_ref()
                    .map_or_else(|| "yet".to_owned(), |operation| format!("of {operation}"));
                let checkpoints = checkpoints.ok_or_else(|| nowhere(&what));
                let wanted = |id: &String| match operation {
                    Some(operation) => is_of(id, operation.as_str()),
                    None => !is_of(id, PRE_RESTORE),
                };
                let newest = self.ids()?.into_iter().rev().find(wanted);
                // Operations of older checkpoints may be longer than those of new ones.
                if let (None, Some(operation)) = (&newest, operation) {
                    Name::parse_operation(operation.as_str())?;
                }
                self.open(&checkpoints?, &newest.ok_or_else(|| nowhere(&what))?)
            }
        }
    }

    /// The error about a word that names no checkpoint. Suggests the one with the most similar
    /// name, or the newest of that operation.
    pub(super) fn not_found(&self, word: &str, ids: &[String]) -> Error {
        if !is_plain(word) {
            let message = format!("{word:?} is not a valid name of a checkpoint");
            return Error::new(Kind::InvalidName, message)
                .hint_command("recover list", "see which ones there are")
                .detail("name", word);
        }
        let error = not_found(&format!("there is no checkpoint {word}"));
        let of_operation = || ids.iter().rev().find(|id| is_of(id, word)).map(String::as_str);
        match nearest(word, ids.iter().map(String::as_str)).or_else(of_operation) {
            Some(id) => error.did_you_mean(format!("recover show {id}")),
            None => error,
        }
    }

    /// All checkpoints, newest first. Their files are not read; see [`Checkpoints::verify`].
    pub fn list(&self) -> Result<Vec<Listed>> {
        let Some(checkpoints) = self.dir()? else { return Ok(Vec::new()) };
        let describe = |id: String| match self.open(&checkpoints, &id) {
            Ok(Checkpoint { metadata, listing, .. }) => Listed {
                id,
                time: Some(with_millis(&metadata.timestamp)),
                operation: Some(metadata.operation),
                phase: metadata.phase,
                revision: metadata.revision,
                files: Some(listing.files()),
                bytes: Some(listing.bytes()),
                metadata: Some(metadata.metadata),
                problem: None,
            },
            Err(error) => Listed {
                time: time_of(&id).map(rfc3339_millis),
                id,
                operation: None,
                phase: None,
                revision: None,
                files: None,
                bytes: None,
                metadata: None,
                problem: Some(error.message),
            },
        };
        Ok(self.ids()?.into_iter().rev().map(describe).collect())
    }

    /// Reads a checkpoint whole and reports its defects.
    pub fn verify(&self, id: &str) -> Result<()> {
        self.find(&Which::Id(id.to_owned()))?.verify(&self.store.disk)
    }

    /// The checkpoints that are being removed: they count as removed, whatever is left of them.
    pub(in super::super) fn doomed(&self, checkpoints: &Dir) -> Result<Vec<String>> {
        let Some(staging) = side::open_to_read(&self.store.disk, checkpoints, WORKSHOP)? else {
            return Ok(Vec::new());
        };
        let names = self.store.disk.list(&staging)?.into_iter();
        let doomed =
            names.filter_map(|name| Some(name.to_str()?.strip_prefix(DOOMED_PREFIX)?.to_owned()));
        Ok(doomed.filter(|id| is_id(id)).collect())
    }
}

fn not_found(message: &str) -> Error {
    Error::new(Kind::NotFound, format!("{message}; nothing was changed"))
        .hint_command("recover list", "see which ones there are")
}
