//! Guards: a checkpoint before a command, and its changes put back if it fails.
//!
//! While a guard is on record and alive, the commits of its command carry its id in the journal,
//! and the backups that attribute changes are kept. A guard that did not put back everything stays
//! on record until an operator removes it.

mod put_back;
pub(super) mod records;
pub(super) mod settle;
mod since;

use self::records::{drop_record, guard_event, guards_of_commit, journal_guard, put_record};
use self::settle::{Aftermath, put_back_by};
use super::FileStore;
use super::backup_dir::BackupDir;
use super::begin::Transactions;
use super::events::EventLog;
use super::root::Root;
use super::state_lock::{StateLock, StateLocks};
use super::transaction::Transaction;
use crate::document::seal::Digest;
use crate::error::{Error, Kind, Result};
use crate::fs::Dir;
use crate::fs::identity::DirId;
use crate::journal::{Event, GuardEvent, GuardStep, Journal};
use crate::lock::{BootMatch, GuardLifeline, Liveness, Namespace};
use crate::name::Name;
use crate::store::checkpoint::Snapshot;
use crate::store::checkpoint::retention::Retention;
use crate::store::diagnosis::Health;
use crate::store::guard::record::{Base, LIMIT, Record, Status, file_name, new_token};
use crate::store::guard::{Begun, OnRecord, Standing, on_record, still_runs};
use crate::store::options::LockPurpose;
use crate::time::rfc3339_millis;

/// The guards of a root.
#[derive(Clone, Copy, Debug)]
pub struct Guards<'s> {
    pub(super) store: &'s FileStore,
}

impl<'s> Guards<'s> {
    /// Makes a checkpoint and puts a guard on record, both under one lock.
    pub fn begin(&self, snapshot: &Snapshot) -> Result<Begun<'s>> {
        let token = new_token()?;
        // Without a lifeline it is unknown in other pid namespaces whether the guard runs.
        let lifeline =
            GuardLifeline::create(&self.store.locks, StateLocks::of(self.store).deadline()).ok();
        let mut begun_record = None;
        self.store.checkpoints().create_then(snapshot, Retention::Automatic, &mut |tx, made| {
            let record = Record {
                lifeline: lifeline.as_ref().map(|lifeline| lifeline.name().clone()),
                ..self.new_record(tx, (&made.id, &snapshot.operation), &token)?
            };
            let backup_dir = &tx.seen.backup_dir;
            put_record(&tx.lock, backup_dir, &record)?;
            let begun = announce(&tx.lock, backup_dir, &record.id);
            if begun.is_err()
                && let Some(dir) = backup_dir.dir()
            {
                drop_record(&self.store.disk, dir, &record.id)?;
            }
            begun_record = Some(record);
            begun
        })?;
        let record =
            begun_record.ok_or_else(|| Error::new(Kind::Internal, "a guard without a record"))?;
        Ok(Begun::new(record, &token, lifeline))
    }

    fn new_record(
        &self,
        tx: &Transaction<'_>,
        named: (&str, &Name),
        token: &str,
    ) -> Result<Record> {
        let process = Record::own_process()?;
        let root = DirId::of(&self.store.disk, &tx.lock.root)?;
        let root =
            root.ok_or_else(|| Error::new(Kind::Conflict, "the root was removed meanwhile"))?;
        let base = match &tx.seen.health {
            Health::Healthy(document) => {
                let seal = document.seal.clone();
                Some(Base { revision: seal.revision, lineage: seal.lineage, digest: seal.digest })
            }
            _ => None,
        };
        let running = self.running(&tx.lock.root, &tx.seen.backup_dir)?;
        let around = guards_of_commit(&tx.lock, &tx.seen.backup_dir);
        Ok(Record {
            id: named.0.to_owned(),
            operation: named.1.to_string(),
            started: rfc3339_millis(self.store.disk.now()),
            process,
            lifeline: None,
            token: Digest::of(token.as_bytes()),
            root,
            base,
            beside: running.into_iter().map(|other| other.id).find(|other| !around.contains(other)),
            status: Status::Running,
        })
    }

    /// Removes the record of a guard after its command succeeded. Takes no lock, since another
    /// writer may hold it for long.
    pub fn end(&self, id: &str) -> Result<()> {
        let root = Root::of(self.store).open()?;
        let backup_dir = Root::of(self.store).backup_dir_of(&root)?;
        backup_dir.dir().map_or(Ok(()), |dir| Ok(drop_record(&self.store.disk, dir, id)?))
    }

    /// Records in the journal that a guard's command ended. Takes no lock but the gate.
    pub fn record_end(&self, id: &str, attempts: u32, code: u8) {
        EventLog::of(self.store).record(|origin| {
            Event::Guard(GuardEvent {
                origin,
                id: id.to_owned(),
                step: GuardStep::Ended,
                code: Some(code),
                attempts: Some(attempts),
                guards: Vec::new(),
            })
        });
    }

    /// Removes the record of the guard that a word names, in whatever condition it is; 1
    /// `not_found` where it names none, or several. Returns the guard's id.
    pub fn forget(&self, word: &str) -> Result<String> {
        let lock = Transactions::of(self.store)
            .lock_state(LockPurpose::Write, StateLocks::of(self.store).deadline())?;
        let backup_dir = Root::of(self.store).backup_dir_of(&lock.root)?;
        let id = on_record(word, &backup_dir.guards)?;
        if self.standing_of(&lock.root, &backup_dir, id)? == Some(Standing::Running) {
            return Err(still_runs(id));
        }
        if let Some(dir) = backup_dir.dir() {
            drop_record(&self.store.disk, dir, id)?;
        }
        journal_guard(&lock, &backup_dir, id, GuardStep::Forgotten);
        Ok(id.to_owned())
    }

    /// Lists the guards on record. Changes nothing.
    pub fn list(&self) -> Result<Vec<OnRecord>> {
        let root = Root::of(self.store).open()?;
        let backup_dir = Root::of(self.store).backup_dir_of(&root)?;
        self.among(&root, &backup_dir, |id| self.store.checkpoints().is_sound(id).unwrap_or(true))
    }

    /// A guard that did not put everything back.
    pub fn unrestored(&self, id: String, why: String) -> OnRecord {
        let is_restorable = self.store.checkpoints().is_sound(&id).unwrap_or(true);
        OnRecord { id, standing: Standing::Unrestored(why), is_restorable }
    }

    fn among(
        &self,
        root: &Dir,
        backup_dir: &BackupDir,
        is_restorable: impl Fn(&str) -> bool,
    ) -> Result<Vec<OnRecord>> {
        let mut guards = Vec::new();
        for id in &backup_dir.guards {
            let Some(standing) = self.standing_of(root, backup_dir, id)? else { continue };
            let is_restorable = match standing {
                Standing::Killed | Standing::Unrestored(_) => is_restorable(id),
                _ => true,
            };
            guards.push(OnRecord { id: id.clone(), standing, is_restorable });
        }
        Ok(guards)
    }

    /// The condition of a guard on record; `None` if all was put back, or will be, and the next
    /// writer removes the record.
    fn standing_of(
        &self,
        root: &Dir,
        backup_dir: &BackupDir,
        id: &str,
    ) -> Result<Option<Standing>> {
        let Some(record) = self.read_record(backup_dir, id) else {
            return Ok(Some(Standing::Damaged));
        };
        if self.is_foreign(root, &record)? {
            return Ok(Some(Standing::Foreign));
        }
        if let Status::Unrestored(why) = record.status {
            return Ok(Some(Standing::Unrestored(why)));
        }
        match self.liveness(&record)? {
            Liveness::Alive => return Ok(Some(Standing::Running)),
            Liveness::Unknown => return Ok(Some(Standing::Unknown)),
            Liveness::Dead => {}
        }
        Ok(
            match put_back_by(
                self,
                root,
                backup_dir,
                Root::of(self.store).live()?.as_ref(),
                &record,
            )? {
                Aftermath::Nothing => Some(Standing::Killed),
                Aftermath::Unrestored(why) => Some(Standing::Unrestored(why)),
                Aftermath::PutBack | Aftermath::Decided => None,
            },
        )
    }

    /// A record; `None` where it cannot be read or is damaged.
    fn read_record(&self, backup_dir: &BackupDir, id: &str) -> Option<Record> {
        let found = self.store.disk.read(backup_dir.dir()?, file_name(id), LIMIT).ok()??;
        Record::read(id, &found.bytes)
    }

    /// Returns whether a record was made in another root or on another machine.
    pub(super) fn is_foreign(&self, root: &Dir, record: &Record) -> Result<bool> {
        let Some(found) = DirId::of(&self.store.disk, root)? else { return Ok(true) };
        let (here, there) = (Namespace::here()?, &record.process.namespace);
        let is_other_machine = here.compare_boot(&there.boot) == BootMatch::Different
            && (here.machine.is_empty() || there.machine != here.machine);
        Ok(!found.is_same(&record.root) || is_other_machine)
    }

    /// The liveness of the process of a guard of this root.
    pub(super) fn liveness(&self, record: &Record) -> Result<Liveness> {
        GuardLifeline::liveness(&self.store.locks, &record.process, record.lifeline.as_ref())
    }

    /// Returns whether the process of a guard of this root has ended.
    fn is_gone(&self, root: &Dir, record: &Record) -> Result<bool> {
        Ok(!self.is_foreign(root, record)? && self.liveness(record)? == Liveness::Dead)
    }

    /// Returns whether a guard runs, or may run.
    fn is_running(&self, root: &Dir, record: &Record) -> Result<bool> {
        let is_over = matches!(record.status, Status::Unrestored(_));
        Ok(!is_over && !self.is_foreign(root, record)? && self.liveness(record)? != Liveness::Dead)
    }

    fn running(&self, root: &Dir, backup_dir: &BackupDir) -> Result<Vec<Record>> {
        let mut running = Vec::new();
        for id in &backup_dir.guards {
            if let Some(record) = self.read_record(backup_dir, id)
                && self.is_running(root, &record)?
            {
                running.push(record);
            }
        }
        running.sort_by(|a, b| (&a.started, &a.id).cmp(&(&b.started, &b.id)));
        Ok(running)
    }

    /// The first revision that a running guard needs to attribute changes; none if no guard runs.
    pub(super) fn first_guarded_revision(&self, root: &Dir, backup_dir: &BackupDir) -> Option<u64> {
        if backup_dir.guards.is_empty() {
            return None;
        }
        let running = self.running(root, backup_dir).unwrap_or_default();
        running
            .iter()
            .map(|record| record.base.as_ref().map_or(1, |base| base.revision.get()))
            .min()
    }

    /// Warns of guards that ended without putting everything back.
    pub(super) fn warn(&self, root: &Dir, backup_dir: &BackupDir) {
        if backup_dir.guards.is_empty() {
            return;
        }
        for guard in self.among(root, backup_dir, |_| true).unwrap_or_default() {
            if let Some(problem) = guard.problem() {
                // The doctor reads the whole checkpoint, and knows whether it can be restored.
                self.store.warnings.add_last(format!("{problem}; next: recover doctor"));
            }
        }
    }
}

/// Records the beginning of a guard in the journal. Without a journal commits could not be
/// attributed.
fn announce(lock: &StateLock<'_>, backup_dir: &BackupDir, id: &str) -> Result<()> {
    let written = match backup_dir.dir().filter(|_| backup_dir.has_journal) {
        Some(dir) => Journal::new(&lock.store.disk, dir)
            .append(&guard_event(lock, backup_dir, id, GuardStep::Began))
            .map(drop),
        None => Err("there is none".to_owned()),
    };
    written.map_err(|why| {
        let message =
            format!("without a journal a guard cannot attribute commits: {why}; nothing was run");
        Error::new(Kind::DependencyMissing, message).hint_command("state init", "makes it")
    })
}
