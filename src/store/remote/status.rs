//! `state status`.

use super::RemoteStore;
use crate::document::inspect_text;
use crate::error::{Error, Result};
use crate::etcd::txn::{Keys, snapshot};
use crate::journal::Event;
use crate::lock::LockSummary;
use crate::os::Confirmation;
use crate::store::report::{BackupCount, DocumentFacts, Happened, Status};

impl RemoteStore {
    /// The state's condition, and the error that other commands would end with.
    pub fn status(&self) -> Result<(Status, Option<Error>)> {
        let ground = self.observe(&[])?;
        let error = ground.health.refusal(&self.shown, &ground, None);
        let reading = ground.text().map(|text| inspect_text(text.clone()));
        let pinned = ground.backups.iter().filter(|backup| backup.is_pinned()).count();
        let records = self.records()?.into_iter();
        let events: Vec<Event> = records.map(|record| Event::Commit(record.commit)).collect();
        let counted = vec![
            Keys::below(&self.keys.evidence_prefix()).list(),
            self.keys.grants().list(),
            self.keys.waiters().list(),
        ];
        let answer = self.client.snapshot(&snapshot(counted))?;
        let mut counts = answer.ranges().map(|range| range.kvs.len());
        let mut count = || counts.next().unwrap_or_default();
        let (evidence, held, waiting) = (count(), count(), count());
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
            checkpoints: 0,
            interrupted_restore: None,
            restore_obstacle: None,
            guards: Vec::new(),
            disk_free: None,
            writable: true,
            write_obstacle: None,
            audit_log: self.surroundings.audit.used().display().to_string(),
            events: Happened::last(&events),
        };
        Ok((status, error))
    }
}
