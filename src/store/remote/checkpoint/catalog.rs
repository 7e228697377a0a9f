//! The checkpoints of a store: found, listed, verified.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};

use super::Checkpoints;
use super::head::{CHUNK, Flaw, Head};
use crate::digest::Digest;
use crate::error::{Error, Hint, Kind, Result};
use crate::etcd::txn::Keys;
use crate::store::checkpoint::archive::Archive;
use crate::store::checkpoint::catalog::{
    Listed, Unrestorable, Which, absent, choose, restoring_other_than, sort,
};
use crate::store::checkpoint::id::is_id;
use crate::store::checkpoint::manifest::{self, Metadata};
use crate::store::remote::meta::check_format;
use crate::store::remote::source::{Source, reporting};
use crate::store::restore::state;
use crate::tree::Listing;

/// A checkpoint, read whole and found to be what was written.
#[derive(Debug)]
pub struct Checkpoint {
    /// Its name.
    pub id: String,
    /// Its operation and other metadata.
    pub metadata: Metadata,
    /// Its contents.
    pub archive: Archive,
}

impl Checkpoint {
    /// Its entries.
    pub fn listing(&self) -> &Listing {
        self.archive.listing()
    }
}

/// The ids among names, oldest first.
pub(super) fn ids_in(names: impl Iterator<Item = String>) -> Vec<String> {
    let mut ids: Vec<String> = names.filter(|name| is_id(name)).collect();
    sort(&mut ids);
    ids
}

/// The heads of all checkpoints, as they are found.
pub(in crate::store::remote) struct Heads {
    /// Oldest first.
    pub ids: Vec<String>,
    /// What answered.
    pub source: Source,
    /// The content of each key, and the revision that put it.
    pub found: BTreeMap<String, (Bytes, i64)>,
}

impl Heads {
    pub(super) fn head(&self, id: &str) -> Result<Head> {
        let (bytes, _) = self.found.get(id).ok_or_else(|| absent(id))?;
        Head::read(id, bytes).map_err(|flaw| match flaw {
            Flaw::Damaged => damaged(id, "its head is not what was written"),
            Flaw::TooNew(version) => manifest::too_new(id, version),
        })
    }
}

impl Checkpoints<'_> {
    pub(super) fn heads(&self) -> Result<Heads> {
        self.heads_in(Source::Cluster)
    }

    pub(in crate::store::remote) fn heads_in(&self, source: Source) -> Result<Heads> {
        let prefix = self.store.keys.checkpoint_prefix();
        let ranges = [Keys::one(self.store.keys.meta()), Keys::below(&prefix)];
        let mut found = source.snapshot(self.store, ranges.map(|keys| keys.read()))?.ranges();
        check_format(&found.next().unwrap_or_default())?;
        let head = |kv: crate::etcd::messages::KeyValue| {
            let id = std::str::from_utf8(&kv.key).ok()?.strip_prefix(&prefix)?.to_owned();
            is_id(&id).then_some((id, (kv.value, kv.mod_revision)))
        };
        let found = found.next().unwrap_or_default().kvs;
        let found: BTreeMap<_, _> = found.into_iter().filter_map(head).collect();
        Ok(Heads { ids: ids_in(found.keys().cloned()), found, source })
    }

    /// The names of all checkpoints, oldest first.
    pub fn ids(&self) -> Result<Vec<String>> {
        Ok(self.heads_to_report()?.ids)
    }

    fn heads_to_report(&self) -> Result<Heads> {
        reporting(self.store, |source| self.heads_in(source))
    }

    /// All checkpoints, newest first. Their contents are not read; see [`Checkpoints::verify`].
    pub fn list(&self) -> Result<Vec<Listed>> {
        let heads = self.heads_to_report()?;
        let listed = |id: &String| match heads.head(id) {
            Ok(head) => Listed::new(id.clone(), head.metadata, head.files, head.size),
            Err(error) => Listed::spoilt(id.clone(), &error),
        };
        Ok(heads.ids.iter().rev().map(listed).collect())
    }

    /// Finds the chosen checkpoint, and reads it whole.
    pub fn find(&self, which: &Which) -> Result<Checkpoint> {
        self.find_among(&self.heads_to_report()?, which)
    }

    fn find_among(&self, heads: &Heads, which: &Which) -> Result<Checkpoint> {
        let id = choose(which, &heads.ids)?;
        self.open(heads.source, &id, heads.head(&id)?)
    }

    /// Reads a checkpoint whole and reports its defects.
    pub fn verify(&self, id: &str) -> Result<()> {
        self.find(&Which::Id(id.to_owned())).map(drop)
    }

    fn open(&self, source: Source, id: &str, head: Head) -> Result<Checkpoint> {
        let mut content = BytesMut::new();
        for number in 0..head.chunks {
            match source.value(self.store, self.store.keys.chunk(&head.blob, number))? {
                Some(chunk) if chunk.len() <= CHUNK => content.extend_from_slice(&chunk),
                Some(_) => return Err(damaged(id, "a part of it is larger than it was")),
                None if self.is_gone(source, id)? => return Err(absent(id)),
                None => return Err(damaged(id, &format!("part {number} of it is missing"))),
            }
        }
        let content = content.freeze();
        if Digest::of(&content) != head.sha256 {
            return Err(damaged(id, "its content is not what was written"));
        }
        let archive = Archive::read(&content).map_err(|flaw| match flaw {
            manifest::Flaw::TooNew(version) => manifest::too_new(id, version),
            flaw => damaged(id, &flaw.words()),
        })?;
        Ok(Checkpoint { id: id.to_owned(), metadata: head.metadata, archive })
    }

    fn is_gone(&self, source: Source, id: &str) -> Result<bool> {
        Ok(source.value(self.store, self.store.keys.checkpoint(id))?.is_none())
    }

    /// The chosen checkpoint, if it can be restored; the error names the newest other one that can
    /// be.
    pub(in crate::store::remote) fn restorable(&self, which: &Which) -> Result<Checkpoint> {
        let found = self.find_among(&self.heads()?, which).and_then(|checkpoint| {
            state_of(&checkpoint)?;
            Ok(checkpoint)
        });
        found.map_err(|mut error| {
            let spoilt = error.cause::<Unrestorable>().map(|bad| bad.id.clone());
            let other = spoilt.and_then(|spoilt| {
                let ids = self.ids().ok()?;
                let is_sound = |id: &str| self.is_restorable(id).unwrap_or(false);
                restoring_other_than(Some(&spoilt), &ids, is_sound)
            });
            if let Some(other) = other {
                let why = "bring back the newest checkpoint that is sound".to_owned();
                error.hints.insert(0, Hint::Command(other, why));
            }
            error
        })
    }

    pub(in crate::store::remote) fn is_restorable(&self, id: &str) -> Result<bool> {
        let found = self.find_among(&self.heads()?, &Which::Id(id.to_owned()));
        match found.and_then(|checkpoint| state_of(&checkpoint).map(drop)) {
            Ok(()) => Ok(true),
            // What could not be read is not known to be damaged.
            Err(error) if error.cause::<Unrestorable>().is_none() => match error.kind {
                Kind::NotFound | Kind::NewerSchema => Ok(false),
                _ => Err(error),
            },
            Err(_) => Ok(false),
        }
    }
}

/// The state in a checkpoint, in the current form, and its own lineage.
pub(in crate::store::remote) fn state_of(
    checkpoint: &Checkpoint,
) -> Result<(serde_json::Value, Option<crate::document::seal::Lineage>)> {
    let id = &checkpoint.id;
    let content = checkpoint.archive.content(manifest::STATE);
    state::usable(id, content.ok_or_else(|| state::without_state(id))?)
}

fn damaged(id: &str, why: &str) -> Error {
    Error::new(Kind::Corrupt, format!("the checkpoint {id} is damaged: {why}"))
        .hint_command(
            format!("recover remove {id}"),
            "it cannot be restored; remove it, and make another",
        )
        .detail("checkpoint", id)
        .caused_by(Unrestorable { id: id.to_owned() })
}
