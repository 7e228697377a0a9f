//! The checkpoints of a root: found, listed, verified, removed. Only removal takes a lock.

use serde_json::Value;

use crate::document::{READ_LIMIT, json as text, migrate, rules};
use crate::error::{Error, Hint, Kind, Result, quote_path};
use crate::fs::{Content, Dir, Disk};
use crate::side;
use crate::store::checkpoint::catalog::{
    Listed, Unrestorable, Which, absent, choose, restoring_other_than, sort,
};
use crate::store::checkpoint::id::is_id;
use crate::store::checkpoint::manifest::{
    self, Flaw, MANIFEST, METADATA, METADATA_LIMIT, Metadata,
};
use crate::store::files::FileStore;
use crate::store::files::root::Root;
use crate::store::layout::{CHECKPOINTS, DOOMED_PREFIX, WORKSHOP};
use crate::tree::{self, Listing};

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
        "the checkpoint {id} was made by the old libraries: it has no manifest, so it cannot be \
         verified"
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
        sort(&mut ids);
        Ok(ids)
    }

    /// The command that restores the newest restorable checkpoint other than `spoilt`.
    pub(in super::super) fn restoring_other_than(&self, spoilt: Option<&str>) -> Option<String> {
        restoring_other_than(spoilt, &self.ids().ok()?, |id| self.is_sound(id).unwrap_or(false))
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
            None => return Err(absent(id)),
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
            Flaw::TooNew(version) => manifest::too_new(id, version),
            flaw => damaged(&dir, id, &flaw.words()),
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
        let id = match which {
            Which::Id(word) => self.resolve_id(word)?,
            Which::Latest(_) => choose(which, &self.ids()?)?,
        };
        self.open(&self.dir()?.ok_or_else(|| absent(&id))?, &id)
    }

    /// All checkpoints, newest first. Their files are not read; see [`Checkpoints::verify`].
    pub fn list(&self) -> Result<Vec<Listed>> {
        let Some(checkpoints) = self.dir()? else { return Ok(Vec::new()) };
        let describe = |id: String| match self.open(&checkpoints, &id) {
            Ok(Checkpoint { metadata, listing, .. }) => {
                Listed::new(id, metadata, listing.files(), listing.bytes())
            }
            Err(error) => Listed::spoilt(id, &error),
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
