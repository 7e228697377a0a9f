//! Reports of the store that change nothing: `validate`, `status`, `history`, `diff`.

mod history;
mod versions;

use serde_json::Value;

use super::FileStore;
use super::candidate::newest_copy;
use super::events::EventLog;
use super::observe::{Depth, Observation};
use super::read::Reader;
use super::restore::Interrupted;
use super::root::Root;
use super::state_file::StateFile;
use crate::document::schema::OldForm;
use crate::error::{Error, Result};
use crate::fs::Dir;
use crate::journal::Events;
use crate::lock::{FlockHolder, LOCKS, STATE_LOCK, flock_holder};
use crate::side;
use crate::store::diagnosis::{Health, Mirror, known};
use crate::store::report::{BackupCount, DocumentFacts, Happened, Status, Validation, note_of};

/// Reports of a root: they change nothing.
#[derive(Clone, Copy, Debug)]
pub struct Report<'s> {
    pub(in crate::store) store: &'s FileStore,
}

impl Report<'_> {
    /// Returns whether the state file is there, and no restore waits to be finished.
    pub fn is_at_rest(&self) -> bool {
        Reader::of(self.store).is_at_rest()
    }

    /// The document in the live file, if there is one, as [`known`] returns it; for reports.
    pub fn read_as_it_is(&self) -> Result<Option<Value>> {
        let live = Root::of(self.store).live()?;
        let value = |live: Option<&StateFile>, health| {
            known(health, live.map(|found| &found.reading)).cloned()
        };
        Ok(match Root::of(self.store).backup_dir_to_read() {
            Ok(backup_dir) => {
                match Observation::diagnose(self.store, live, backup_dir, Depth::DigestOnly) {
                    Ok(seen) => value(seen.live.as_ref(), &seen.health),
                    Err(_) => value(Root::of(self.store).live()?.as_ref(), &Health::NotInitialized),
                }
            }
            Err(_) => value(live.as_ref(), &Health::NotInitialized),
        })
    }

    /// The events in this root's journal.
    pub fn events(&self) -> Result<Events> {
        Ok(EventLog::of(self.store).shown(&Root::of(self.store).backup_dir_to_read()?))
    }

    /// Returns whether the next command would heal a damaged state.
    pub fn heals_by_itself(&self) -> bool {
        self.store.settings.auto_recover == crate::store::AutoRecover::Yes && self.has_valid_copy()
    }

    /// Returns whether there is a copy that `state recover` would restore.
    pub fn has_valid_copy(&self) -> bool {
        Observation::examine(self.store).is_ok_and(|seen| newest_copy(&seen).is_ok())
    }

    /// Checks the live file as every command would.
    pub fn validate(&self) -> Result<Validation> {
        let seen = Observation::examine(self.store)?;
        let error = seen.refusal_if_unusable();
        let Observation { live, backup_dir, health, .. } = seen;
        let note = match (&health, live.as_ref()) {
            _ if self.store.intents().is_decided()? => match self.store.intents().interrupted() {
                Ok(Some(Interrupted::Foreign(refusal))) => Some(refusal.message),
                Ok(None) => None,
                _ => Some(
                    "a restore was interrupted; the next command that reads or writes finishes it"
                        .to_owned(),
                ),
            },
            (Health::Healthy(document), Some(found))
                if document.older.is_none() && backup_dir.mirror_of(found)? != Mirror::Same =>
            {
                Some("the mirror is not up to date; the next write replaces it".to_owned())
            }
            (health, _) => note_of(health),
        };
        Root::of(self.store).warn_of_file(&live);
        Root::of(self.store).warn_of_side_directories(&Root::of(self.store).open()?)?;
        Ok(Validation::of_live(&health, &self.store.shown(), error, note))
    }

    /// The form that the document would be migrated from; `None` if it has the current form.
    pub fn pending_migration(&self) -> Result<Option<OldForm>> {
        Ok(Observation::examine(self.store)?.health.migrates_from().cloned())
    }

    /// The state's condition, and the error that other commands would end with.
    pub fn status(&self) -> Result<(Status, Option<Error>)> {
        let seen = Observation::examine(self.store)?;
        let error = seen.refusal_if_unusable();
        let Observation { live, backup_dir, health, .. } = seen;
        let found = live.as_ref();
        let root = Root::of(self.store).open()?;
        let obstacle = self.store.obstacles().write()?;
        let pinned = backup_dir.backups.iter().filter(|backup| backup.is_pinned()).count();
        let status = Status {
            path: self.store.shown(),
            document: DocumentFacts::of(&health, found.map(|found| &found.reading)),
            bytes: found.map(|found| found.stat.size),
            mode: found.map(|found| format!("{:04o}", found.stat.mode)),
            mirror: Some(match found.map(|found| backup_dir.mirror_of(found)).transpose()? {
                Some(mirror) => mirror,
                None if backup_dir.has_mirror => Mirror::Differs,
                None => Mirror::Absent,
            }),
            backups: BackupCount {
                automatic: backup_dir.backups.len() - pinned,
                pinned,
                evidence: backup_dir.evidence.len(),
                archives: backup_dir.archives.len(),
                newest: backup_dir.backups.iter().map(|backup| backup.time).max(),
            },
            state_lock: self.lock_holder(&root)?,
            locks: self.store.locks.summary()?,
            checkpoints: self.store.checkpoints().ids().map_or(0, |ids| ids.len()),
            interrupted_restore: match self.store.intents().interrupted()? {
                Some(Interrupted::Ours(id)) => Some(id),
                Some(Interrupted::Foreign(refusal)) => {
                    self.store.warn(refusal.message);
                    None
                }
                None => None,
            },
            restore_obstacle: self
                .store
                .obstacles()
                .interrupted_restore()
                .ok()
                .flatten()
                .map(|error| error.message),
            guards: self.store.guards().list()?,
            disk_free: rustix::fs::fstatvfs(root.at())
                .ok()
                .map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize)),
            audit_log: self.store.audit.used().display().to_string(),
            events: Happened::last(&EventLog::of(self.store).shown(&backup_dir).list),
            writable: obstacle.is_none(),
            write_obstacle: obstacle.map(|error| error.message),
        };
        Root::of(self.store).warn_of_file(&live);
        Root::of(self.store).warn_of_side_directories(&root)?;
        self.store.guards().warn(&root, &backup_dir);
        Ok((status, error))
    }

    fn lock_holder(&self, root: &Dir) -> Result<Option<FlockHolder>> {
        match side::open_to_read(&self.store.disk, root, LOCKS)? {
            Some(locks) => Ok(flock_holder(&self.store.disk, &locks, STATE_LOCK)?),
            None => Ok(None),
        }
    }
}
