//! `state status`.

use super::RemoteStore;
use super::ground::name_in;
use super::source::Source;
use crate::document::inspect_text;
use crate::error::{Error, Result};
use crate::etcd::messages::Alarm;
use crate::etcd::txn::Keys;
use crate::journal::{Event, Events};
use crate::lock::LockSummary;
use crate::os::Confirmation;
use crate::store::report::{BackupCount, DocumentFacts, Happened, Status};
use crate::store::restore::Interrupted;

/// The condition of the cluster, as the member that answers knows it.
#[derive(Clone, Debug)]
pub struct Condition {
    /// The member's version.
    pub version: String,
    /// The size of its database in bytes.
    pub database_bytes: u64,
    /// Whether the database takes nothing more.
    pub is_full: bool,
    /// Whether a member's data differs from that of the others.
    pub is_corrupt: bool,
}

impl RemoteStore {
    /// The condition of the cluster.
    pub fn condition(&self) -> Result<Condition> {
        let status = self.client.status()?;
        let alarms = self.client.alarms()?;
        let has = |kind: Alarm| alarms.iter().any(|member| member.alarm == kind as i32);
        Ok(Condition {
            version: status.version,
            database_bytes: u64::try_from(status.db_size).unwrap_or_default(),
            is_full: has(Alarm::NoSpace),
            is_corrupt: has(Alarm::Corrupt),
        })
    }

    /// The events on record: the commits in the log.
    pub fn events(&self) -> Result<Events> {
        self.reporting(|source| self.events_in(source))
    }

    fn events_in(&self, source: Source) -> Result<Events> {
        let records = self.records_in(source)?.into_iter();
        let list = records.map(|record| Event::Commit(record.commit)).collect();
        Ok(Events { list, ..Events::default() })
    }

    /// The state's condition, and the error that other commands would end with.
    pub fn status(&self) -> Result<(Status, Option<Error>)> {
        let ground = self.observe_to_report()?;
        let error = ground.problem();
        let reading = ground.text().map(|text| inspect_text(text.clone()));
        let pinned = ground.backups.iter().filter(|backup| backup.is_pinned()).count();
        let events = self.events_in(ground.source)?;
        let counted = vec![
            Keys::below(&self.keys.evidence_prefix()).list(),
            self.keys.grants().list(),
            self.keys.waiters().list(),
        ];
        let mut found = self.snapshot_of(ground.source, counted)?.ranges();
        let mut next = || found.next().unwrap_or_default().kvs;
        let prefix = self.keys.evidence_prefix();
        let evidence = next().iter().filter(|kv| name_in(&kv.key, &prefix).is_some()).count();
        let mut locks = || {
            let keys = next();
            keys.iter().filter(|kv| self.keys.locks.parse(&kv.key).is_some()).count()
        };
        let (held, waiting) = (locks(), locks());
        let status = Status {
            path: self.shown.clone(),
            document: DocumentFacts::of(&ground.health, reading.as_ref()),
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
                directory: self.shown.clone(),
                held,
                waiting,
                stale: 0,
                unknown: 0,
                file_system: "etcd",
                shared_file_system: false,
                flushes: Confirmation::Confirmed,
                entries: Vec::new(),
            },
            checkpoints: self.checkpoints().heads_in(ground.source)?.ids.len(),
            interrupted_restore: match self.interrupted_restore()? {
                Some(Interrupted::Ours(id)) => Some(id),
                Some(Interrupted::Foreign(refusal)) => {
                    self.warn(refusal.message);
                    None
                }
                None => None,
            },
            restore_obstacle: None,
            guards: self.guards().list_in(ground.source)?,
            disk_free: None,
            writable: true,
            write_obstacle: None,
            audit_log: self.surroundings.audit.used().display().to_string(),
            events: Happened::last(&events.list),
        };
        Ok((status, error))
    }
}
