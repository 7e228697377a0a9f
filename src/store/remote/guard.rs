//! Guards on a cluster: a checkpoint before a command, and its changes put back if it fails.
//!
//! The record of a guard is a key, put with the checkpoint's head. The commits of its command carry
//! its id in the log, and backups that attribute changes are kept while it runs. What is put back
//! and the end of the record are one transaction. `config/` is that of the guard's own host, where
//! alone it is known whether the guard runs.

pub(super) mod on_file;
pub(super) mod on_record;
mod put_back;

use self::on_file::OnFile;
use self::on_record::{end_of_guard, guards_of_commit, running_guards, standing_of};
use self::put_back::put_guards;
use super::RemoteStore;
use super::ground::Ground;
use super::intents::host_of;
use super::source::{Source, reporting};
use crate::audit::Level;
use crate::document::seal::Digest;
use crate::error::{Error, Kind, Result};
use crate::etcd::txn::{Keys, Part, put, put_at};
use crate::store::checkpoint::Snapshot;
use crate::store::checkpoint::retention::Retention;
use crate::store::guard::record::{Base, Record, Status, new_token};
use crate::store::guard::{Begun, OnRecord, Standing, on_record, still_runs};
use crate::store::logged::recovery;
use crate::time::rfc3339_millis;

/// The guards of a store on a cluster.
#[derive(Clone, Copy, Debug)]
pub struct Guards<'s> {
    pub(in crate::store) store: &'s RemoteStore,
}

impl<'s> Guards<'s> {
    /// Makes a checkpoint and puts a guard on record, both in one transaction.
    pub fn begin(&self, snapshot: &Snapshot) -> Result<Begun<'s>> {
        let host = host_of(self.store)?;
        // Where `config/` could not be put back, the command is refused now.
        self.store.intents().settle(host.lock()?)?.probe()?;
        let token = new_token()?;
        let lifeline = host.guard_lifeline();
        let (process, root) = (Record::own_process()?, host.root_id()?);
        let mut begun = None;
        let made = self.store.checkpoints().create_with(
            snapshot,
            Retention::Automatic,
            &mut |ground, id| {
                let beside = self.beside(ground)?;
                let record = Record {
                    id: id.to_owned(),
                    operation: snapshot.operation.to_string(),
                    started: rfc3339_millis(self.store.now()),
                    process: process.clone(),
                    lifeline: lifeline.as_ref().map(|lifeline| lifeline.name().clone()),
                    token: Digest::of(token.as_bytes()),
                    root: root.clone(),
                    base: ground.sealed().map(|document| {
                        let seal = document.seal.clone();
                        Base { revision: seal.revision, lineage: seal.lineage, digest: seal.digest }
                    }),
                    beside: beside.first().map(|(other, _)| other.id.clone()),
                    status: Status::Running,
                };
                let mut also = Part::default();
                also.success.push(put(self.store.keys.guard(id), record.write()?));
                for (other, record) in beside {
                    let key = self.store.keys.guard(&other.id);
                    let record = Record { beside: Some(id.to_owned()), ..record.clone() };
                    also.compare.push(put_at(key.clone(), other.put_at));
                    also.success.push(put(key, record.write()?));
                }
                begun = Some(record);
                Ok(also)
            },
        );
        made.map_err(|error| match &begun {
            Some(begun) if error.kind == Kind::DurabilityUnknown => error.hint_command(
                format!("recover guard --forget {}", begun.id),
                "if it is, its guard is on record; its command was not run",
            ),
            _ => error,
        })?;
        let begun = begun.ok_or_else(|| Error::new(Kind::Internal, "a guard without a record"))?;
        Ok(Begun::new(begun, &token, lifeline))
    }

    /// Running guards of this root that do not enclose this process: their commands may change
    /// `config/` meanwhile.
    fn beside<'g>(&self, ground: &'g Ground<'_>) -> Result<Vec<(&'g OnFile, &'g Record)>> {
        let around = guards_of_commit(ground);
        let host = host_of(self.store)?;
        let mut beside = Vec::new();
        for (guard, record) in running_guards(ground) {
            if !around.contains(&guard.id) && host.is_of_this_root(record)? {
                beside.push((guard, record));
            }
        }
        Ok(beside)
    }

    /// Ends the record of a guard after its command succeeded.
    pub fn end(&self, id: &str) -> Result<()> {
        let success = vec![end_of_guard(&self.store.keys, id)];
        put_guards(self.store, Part { success, ..Part::default() }).map(drop)
    }

    /// Ends the record of the guard that a word names, in whatever condition it is; 1 `not_found`
    /// where it names none, or several. Returns the guard's id.
    pub fn forget(&self, word: &str) -> Result<String> {
        let guards = self.on_file(Source::Cluster)?;
        let ids: Vec<String> = guards.iter().map(|guard| guard.id.clone()).collect();
        let id = on_record(word, &ids)?;
        let guard = guards.iter().find(|guard| guard.id == id);
        let standing = guard.map(|guard| standing_of(self.store, guard)).transpose()?;
        if standing == Some(Standing::Running) {
            return Err(still_runs(id));
        }
        self.end(id)?;
        let entry = recovery(Level::Info, "guard", "forgotten").with("id", id);
        self.store.log(entry.with("pid", std::process::id()));
        Ok(id.to_owned())
    }

    /// Lists the guards on record. Changes nothing.
    pub fn list(&self) -> Result<Vec<OnRecord>> {
        reporting(self.store, |source| self.list_in(source))
    }

    pub(super) fn list_in(&self, source: Source) -> Result<Vec<OnRecord>> {
        let mut listed = Vec::new();
        for guard in self.on_file(source)? {
            let standing = standing_of(self.store, &guard)?;
            let is_restorable = match standing {
                Standing::Killed | Standing::Unrestored(_) => self.is_restorable(&guard.id),
                _ => true,
            };
            listed.push(OnRecord { id: guard.id, standing, is_restorable });
        }
        Ok(listed)
    }

    /// A guard that did not put everything back.
    pub fn unrestored(&self, id: String, why: String) -> OnRecord {
        let is_restorable = self.is_restorable(&id);
        OnRecord { id, standing: Standing::Unrestored(why), is_restorable }
    }

    fn is_restorable(&self, id: &str) -> bool {
        self.store.checkpoints().is_restorable(id).unwrap_or(true)
    }

    fn on_file(&self, source: Source) -> Result<Vec<OnFile>> {
        let keys = &self.store.keys;
        let range = Keys::below(&keys.guard_prefix()).read();
        let answer = source.snapshot(self.store, [range])?;
        Ok(OnFile::of(answer.ranges().next().unwrap_or_default().kvs, keys))
    }
}
