//! Guards on a cluster: a checkpoint before a command, and its changes put back if it fails.
//!
//! The record of a guard is a key, put with the checkpoint's head. The commits of its command carry
//! its id in the log, and backups that attribute changes are kept while it runs. What is put back
//! and the end of the record are one transaction. `config/` is that of the guard's own host, where
//! alone it is known whether the guard runs.

mod put_back;

use super::RemoteStore;
use super::ground::{Ground, name_in};
use super::keys::KeySpace;
use super::source::Source;
use crate::audit::Level;
use crate::document::seal::Digest;
use crate::error::{Error, Kind, Result};
use crate::etcd::messages::{KeyValue, RequestOp};
use crate::etcd::txn::{Keys, Part, delete, put, put_at};
use crate::lock::{Liveness, ancestry};
use crate::store::checkpoint::Snapshot;
use crate::store::checkpoint::id::{is_id, number_of, time_of};
use crate::store::checkpoint::retention::Retention;
use crate::store::guard::record::{Base, Record, Status, new_token};
use crate::store::guard::{Begun, OnRecord, Standing, on_record, still_runs};
use crate::store::logged::recovery;
use crate::time::rfc3339_millis;

/// The guards of a store on a cluster.
#[derive(Clone, Copy, Debug)]
pub struct Guards<'s> {
    store: &'s RemoteStore,
}

/// The key of a guard.
#[derive(Clone, Debug)]
pub(super) struct OnFile {
    pub id: String,
    /// The revision that last put it.
    put_at: i64,
    /// Its record; none where it is damaged.
    record: Option<Record>,
}

impl OnFile {
    /// The guards among the keys of a store.
    pub(super) fn of(found: Vec<KeyValue>, keys: &KeySpace) -> Vec<Self> {
        let prefix = keys.guard_prefix();
        let read = |kv: KeyValue| {
            let id = name_in(&kv.key, &prefix).filter(|id| is_id(id))?.to_owned();
            let record = Record::read(&id, &kv.value);
            Some(Self { id, put_at: kv.mod_revision, record })
        };
        found.into_iter().filter_map(read).collect()
    }
}

impl RemoteStore {
    /// The guards of this store.
    pub fn guards(&self) -> Guards<'_> {
        Guards { store: self }
    }

    fn liveness_of(&self, guard: &Record) -> Result<Liveness> {
        self.host.as_ref().map_or(Ok(Liveness::Unknown), |host| host.liveness_of(guard))
    }

    /// Returns whether a guard runs, or may run.
    fn is_running(&self, guard: &Record) -> Result<bool> {
        let is_over = matches!(guard.status, Status::Unrestored(_));
        Ok(!is_over && self.liveness_of(guard)? != Liveness::Dead)
    }

    fn standing_of(&self, guard: &OnFile) -> Result<Standing> {
        let Some(record) = &guard.record else { return Ok(Standing::Damaged) };
        if let Status::Unrestored(why) = &record.status {
            return Ok(Standing::Unrestored(why.clone()));
        }
        Ok(match self.liveness_of(record)? {
            Liveness::Alive => Standing::Running,
            Liveness::Unknown => Standing::Unknown,
            Liveness::Dead => Standing::Killed,
        })
    }

    fn end_of_guard(&self, id: &str) -> RequestOp {
        delete(&Keys::one(self.keys.guard(id)))
    }
}

impl Ground<'_> {
    /// The guard of this id.
    fn on_file(&self, id: &str) -> Option<&OnFile> {
        self.guards.iter().find(|guard| guard.id == id)
    }

    /// The guards that run, or may run.
    fn running_guards(&self) -> impl Iterator<Item = (&OnFile, &Record)> {
        let records = self.guards.iter().filter_map(|guard| Some((guard, guard.record.as_ref()?)));
        records.filter(|(_, record)| self.store.is_running(record).unwrap_or(true))
    }

    /// The running guards that this process commits under.
    pub(super) fn guards_of_commit(&self) -> Vec<String> {
        if self.guards.is_empty() {
            return Vec::new();
        }
        let ancestors = ancestry(std::process::id()).unwrap_or_default();
        let shown = &self.store.settings.lock_env.guards;
        let under = self.running_guards().filter(|(_, it)| it.encloses(&ancestors, shown));
        under.map(|(guard, _)| guard.id.clone()).collect()
    }

    /// The first revision that a running guard needs to attribute changes.
    pub(super) fn first_guarded_revision(&self) -> Option<u64> {
        let begin = |record: &Record| record.base.as_ref().map_or(1, |base| base.revision.get());
        self.running_guards().map(|(_, record)| begin(record)).min()
    }

    /// Ends the records of guards with changes that a restore of this checkpoint puts back:
    /// its own guard and later ones, unless they run.
    pub(super) fn guards_put_back_by(&self, id: &str) -> Result<Vec<RequestOp>> {
        let order = |id: &str| (time_of(id), number_of(id));
        let mut ended = Vec::new();
        for guard in &self.guards {
            let is_put_back = match self.store.standing_of(guard)? {
                Standing::Running => false,
                Standing::Killed | Standing::Unrestored(_) => order(&guard.id) >= order(id),
                _ => guard.id == id,
            };
            if is_put_back {
                ended.push(self.store.end_of_guard(&guard.id));
            }
        }
        Ok(ended)
    }

    /// Warns of guards that ended without putting everything back.
    pub(super) fn warn_of_guards(&self) {
        for guard in &self.guards {
            let Ok(standing) = self.store.standing_of(guard) else { continue };
            let guard = OnRecord { id: guard.id.clone(), standing, is_restorable: true };
            if let Some(problem) = guard.problem().filter(|_| guard.standing != Standing::Unknown) {
                self.store.warn_once(format!("{problem}; next: recover doctor"));
            }
        }
    }
}

impl<'s> Guards<'s> {
    /// Makes a checkpoint and puts a guard on record, both in one transaction.
    pub fn begin(&self, snapshot: &Snapshot) -> Result<Begun<'s>> {
        let host = self.store.host()?;
        // Where `config/` could not be put back, the command is refused now.
        self.store.settle(host.lock()?)?.probe()?;
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
        let around = ground.guards_of_commit();
        let host = self.store.host()?;
        let mut beside = Vec::new();
        for (guard, record) in ground.running_guards() {
            if !around.contains(&guard.id) && host.is_of_this_root(record)? {
                beside.push((guard, record));
            }
        }
        Ok(beside)
    }

    /// Ends the record of a guard after its command succeeded.
    pub fn end(&self, id: &str) -> Result<()> {
        let success = vec![self.store.end_of_guard(id)];
        self.store.put_guards(Part { success, ..Part::default() }).map(drop)
    }

    /// Ends the record of the guard that a word names, in whatever condition it is; 1 `not_found`
    /// where it names none, or several. Returns the guard's id.
    pub fn forget(&self, word: &str) -> Result<String> {
        let guards = self.on_file(Source::Cluster)?;
        let ids: Vec<String> = guards.iter().map(|guard| guard.id.clone()).collect();
        let id = on_record(word, &ids)?;
        let guard = guards.iter().find(|guard| guard.id == id);
        if guard.map(|guard| self.store.standing_of(guard)).transpose()? == Some(Standing::Running)
        {
            return Err(still_runs(id));
        }
        self.end(id)?;
        let entry = recovery(Level::Info, "guard", "forgotten").with("id", id);
        self.store.log(entry.with("pid", std::process::id()));
        Ok(id.to_owned())
    }

    /// Notes that a command was guarded, and its exit code.
    pub fn record(&self, operation: &str, code: u8) {
        let entry = recovery(Level::Info, "guard", "guarded").with("operation", operation);
        self.store.log(entry.with("code", code).with("pid", std::process::id()));
    }

    /// Lists the guards on record. Changes nothing.
    pub fn list(&self) -> Result<Vec<OnRecord>> {
        self.store.reporting(|source| self.list_in(source))
    }

    pub(super) fn list_in(&self, source: Source) -> Result<Vec<OnRecord>> {
        let mut listed = Vec::new();
        for guard in self.on_file(source)? {
            let standing = self.store.standing_of(&guard)?;
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
        let answer = self.store.snapshot_of(source, [range])?;
        Ok(OnFile::of(answer.ranges().next().unwrap_or_default().kvs, keys))
    }
}
