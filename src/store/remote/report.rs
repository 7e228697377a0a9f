//! Reports of the store that change nothing: `validate`, `status`, `history`, `diff`.

mod history;
mod versions;

use serde_json::Value;

use super::RemoteStore;
use super::ground::Ground;
use super::keys::name_in;
use super::log::records;
use super::source::{Source, reporting};
use crate::document::schema::OldForm;
use crate::error::{Error, Result};
use crate::etcd::txn::Keys;
use crate::journal::{Event, Events};
use crate::lock::LockSummary;
use crate::os::Confirmation;
use crate::store::report::{BackupCount, DocumentFacts, Happened, Status, Validation, note_of};
use crate::store::restore::Interrupted;

/// Reports of a store: they change nothing.
#[derive(Clone, Copy, Debug)]
pub struct Report<'s> {
    pub(in crate::store) store: &'s RemoteStore,
}

impl Report<'_> {
    /// Returns whether no restore waits to be finished on this host.
    pub fn is_at_rest(&self) -> bool {
        matches!(self.store.intents().interrupted(), Ok(None))
    }

    /// The document that is there, valid or not, for reports; nothing is healed.
    pub fn read_as_it_is(&self) -> Result<Option<Value>> {
        Ok(Ground::to_report(self.store)?.known())
    }

    /// The events on record: the commits in the log.
    pub fn events(&self) -> Result<Events> {
        reporting(self.store, |source| events_in(self.store, source))
    }

    /// Checks the document as every command would.
    pub fn validate(&self) -> Result<Validation> {
        let ground = Ground::to_report(self.store)?;
        let error = ground.problem();
        let note = note_of(&ground.health);
        Ok(Validation::of_live(&ground.health, &self.store.shown, error, note))
    }

    /// The form that the document would be migrated from; `None` if it has the current form.
    pub fn pending_migration(&self) -> Result<Option<OldForm>> {
        Ok(Ground::observe(self.store, &[])?.health.migrates_from().cloned())
    }

    /// The state's condition, and the error that other commands would end with.
    pub fn status(&self) -> Result<(Status, Option<Error>)> {
        let ground = Ground::to_report(self.store)?;
        let error = ground.problem();
        let pinned = ground.backups.iter().filter(|backup| backup.is_pinned()).count();
        let events = events_in(self.store, ground.source)?;
        let keys = &self.store.keys;
        let counted = [
            Keys::below(&keys.evidence_prefix()).list(),
            keys.locks.all_grants().list(),
            keys.locks.all_waiters().list(),
        ];
        let mut found = ground.source.snapshot(self.store, counted)?.ranges();
        let mut next = || found.next().unwrap_or_default().kvs;
        let prefix = keys.evidence_prefix();
        let evidence = next().iter().filter(|kv| name_in(&kv.key, &prefix).is_some()).count();
        let mut locks = || {
            let found = next();
            found.iter().filter(|kv| keys.locks.parse(&kv.key).is_some()).count()
        };
        let (held, waiting) = (locks(), locks());
        let status = Status {
            path: self.store.shown.clone(),
            document: DocumentFacts::of(&ground.health, ground.reading().as_ref()),
            bytes: ground.text().map(|text| text.len() as u64),
            mode: None,
            mirror: None,
            backups: BackupCount {
                automatic: ground.backups.len() - pinned,
                pinned,
                evidence,
                archives: 0,
                newest: ground.backups.iter().map(|backup| backup.time).max(),
            },
            state_lock: None,
            locks: LockSummary {
                directory: self.store.shown.clone(),
                held,
                waiting,
                stale: 0,
                unknown: 0,
                file_system: "etcd",
                shared_file_system: false,
                flushes: Confirmation::Confirmed,
                entries: Vec::new(),
            },
            checkpoints: self.store.checkpoints().heads_in(ground.source)?.ids.len(),
            interrupted_restore: match self.store.intents().interrupted()? {
                Some(Interrupted::Ours(id)) => Some(id),
                Some(Interrupted::Foreign(refusal)) => {
                    self.store.warn(refusal.message);
                    None
                }
                None => None,
            },
            restore_obstacle: None,
            guards: self.store.guards().list_in(ground.source)?,
            disk_free: None,
            writable: true,
            write_obstacle: None,
            audit_log: self.store.surroundings.audit.used().display().to_string(),
            events: Happened::last(&events.list),
        };
        Ok((status, error))
    }
}

fn events_in(store: &RemoteStore, source: Source) -> Result<Events> {
    let commits = records(store, source)?.into_iter().map(|record| Event::Commit(record.commit));
    Ok(Events { list: commits.collect(), ..Events::default() })
}
