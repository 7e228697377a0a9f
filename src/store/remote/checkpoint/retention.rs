//! Removal of checkpoints: heads and contents in the same transaction.

use std::time::Duration;

use serde_json::json;

use super::Checkpoints;
use super::catalog::Heads;
use crate::audit::Level;
use crate::error::{Error, Kind, Result};
use crate::etcd::failure::Failure;
use crate::etcd::fate::Fate;
use crate::etcd::messages::TxnRequest;
use crate::etcd::txn::{Keys, delete, put_at};
use crate::store::checkpoint::catalog::resolve;
use crate::store::checkpoint::manifest::Metadata;
use crate::store::checkpoint::retention::{self, Shelf};
use crate::store::logged::recovery;
use crate::store::options::Mode;
use crate::store::remote::source::Source;

/// The most checkpoints that one transaction removes: it has 128 operations.
const TOGETHER: usize = 32;

/// The checkpoints as they were listed.
struct Shelved<'c> {
    checkpoints: Checkpoints<'c>,
    heads: &'c Heads,
}

impl Shelf for Shelved<'_> {
    fn metadata(&self, id: &str) -> Result<Option<Metadata>> {
        Ok(self.heads.head(id).ok().map(|head| head.metadata))
    }

    fn is_referenced(&self, id: &str) -> Result<bool> {
        self.checkpoints.is_referenced(id)
    }

    fn is_sound(&self, id: &str) -> Result<bool> {
        self.checkpoints.is_restorable(id)
    }
}

impl Checkpoints<'_> {
    /// Returns whether a record of this host or a guard refers to a checkpoint, so that it must
    /// stay.
    pub fn is_referenced(&self, id: &str) -> Result<bool> {
        let is_named = self.store.host.as_ref().map(|host| host.names(id)).transpose()?;
        Ok(is_named == Some(true)
            || Source::Cluster.value(self.store, self.store.keys.guard(id))?.is_some())
    }

    /// Removes the checkpoints that are older than this, except the newest `kept` (at least one),
    /// the newest that can be restored, and those that a record refers to. Returns their ids,
    /// oldest first; a dry run only returns them.
    pub fn clean(&self, older_than: Duration, kept: usize, mode: Mode) -> Result<Vec<String>> {
        let heads = self.heads()?;
        let shelved = Shelved { checkpoints: *self, heads: &heads };
        let doomed = retention::old(&shelved, &heads.ids, self.store.now(), older_than, kept)?;
        if mode == Mode::Commit {
            self.take_away(heads, &doomed)?;
        }
        Ok(doomed)
    }

    /// Removes the checkpoints that are named, by id or by an unambiguous prefix of one. Returns
    /// their ids.
    pub fn remove(&self, words: &[String]) -> Result<Vec<String>> {
        let heads = self.heads()?;
        let mut doomed: Vec<String> = Vec::new();
        for word in words {
            let id = resolve(word, &heads.ids)?;
            if self.is_referenced(&id)? {
                return Err(retention::in_use(&id));
            }
            if !doomed.contains(&id) {
                doomed.push(id);
            }
        }
        self.take_away(heads, &doomed)?;
        Ok(doomed)
    }

    /// Removes automatic checkpoints over the limits of number and age, but not `used`, which the
    /// caller just made or restored. The caller's own work is done, so a failure is a warning.
    pub(in crate::store::remote) fn retire(&self, used: &str) {
        let retire = || -> Result<()> {
            let heads = self.heads()?;
            let shelved = Shelved { checkpoints: *self, heads: &heads };
            let (now, settings) = (self.store.now(), &self.store.settings);
            let doomed = retention::outlived(&shelved, &heads.ids, now, settings, used)?;
            self.take_away(heads, &doomed)
        };
        if let Err(error) = retire() {
            self.store.warn(format!("old checkpoints could not be removed: {error}"));
        }
    }

    /// Removes checkpoints. One that another command removed meanwhile is gone as well.
    fn take_away(&self, mut heads: Heads, doomed: &[String]) -> Result<()> {
        for together in doomed.chunks(TOGETHER) {
            while !self.take_together(&heads, together)? {
                heads = self.heads()?;
            }
        }
        if !doomed.is_empty() {
            let entry = recovery(Level::Info, "remove", "removed").with("ids", json!(doomed));
            self.store.log(entry.with("pid", std::process::id()));
        }
        Ok(())
    }

    /// False if something changed meanwhile; then none was removed.
    fn take_together(&self, heads: &Heads, doomed: &[String]) -> Result<bool> {
        let keys = &self.store.keys;
        let (mut compare, mut success) = (Vec::new(), Vec::new());
        for id in doomed {
            let Some((_, put)) = heads.found.get(id) else { continue };
            compare.push(put_at(keys.checkpoint(id), *put));
            success.push(delete(&Keys::one(keys.checkpoint(id))));
            // The content of a damaged head cannot be found.
            if let Ok(head) = heads.head(id) {
                success.push(delete(&keys.chunks(&head.blob)));
            }
        }
        if success.is_empty() {
            return Ok(true);
        }
        let request = TxnRequest { compare, success, failure: Vec::new() };
        let answer = self.store.client.commit(&request).map_err(failed)?;
        Ok(answer.succeeded)
    }
}

fn failed(failure: Failure) -> Error {
    if failure.fate != Fate::Unknown {
        return failure.into();
    }
    let message = format!("the checkpoints may be removed: {failure}");
    Error::new(Kind::DurabilityUnknown, message)
        .hint_command("recover list", "see which ones are left")
        .caused_by(failure)
}
