//! `history`: the revisions in the log, and the backups that hold them.

use super::RemoteStore;
use super::log::Record;
use super::source::Source;
use crate::document::seal::Revision;
use crate::error::Result;
use crate::owner_view::OwnerView;
use crate::plural::count;
use crate::store::diagnosis::Health;
use crate::store::report::Remembered;
use crate::time::{Since, parse_rfc3339};

impl RemoteStore {
    /// The revisions of this store, newest first; at most `limit`.
    pub fn history(&self, limit: Option<usize>, since: Option<Since>) -> Result<Vec<Remembered>> {
        let ground = self.observe_to_report()?;
        if let Health::NotInitialized = ground.health {
            return Err(ground.refusal());
        }
        let since = since.map(|since| since.before(self.now()));
        let is_wanted = |commit: &Record| {
            since.is_none_or(|since| {
                parse_rfc3339(&commit.commit.origin.time).is_none_or(|time| time >= since)
            })
        };
        let records = self.records_in(ground.source)?.into_iter().rev().filter(is_wanted);
        let file_of = |revision: Revision| {
            let live = match &ground.health {
                Health::Healthy(document) => Some(document.seal.revision),
                _ => None,
            };
            if live == Some(revision) {
                return Some("state".to_owned());
            }
            let mut backups = ground.backups.iter();
            let backup = backups.find(|backup| backup.revision == Some(revision));
            backup.map(|backup| backup.as_str().to_owned())
        };
        let remembered = records.map(|Record { commit, operation }| Remembered {
            revision: commit.revision.get(),
            file: file_of(commit.revision),
            owner: Some(OwnerView::from(&commit.origin.owner)),
            pid: Some(commit.origin.pid),
            more_changes: commit.changes.as_ref().map_or(0, |changes| changes.more),
            changes: commit.changes.map(|changes| changes.list),
            repeats: commit.repeats.map(Revision::get),
            reason: commit.reason,
            time: Some(commit.origin.time),
            command: Some(commit.command),
            operation: Some(operation.as_str().to_owned()),
        });
        Ok(remembered.take(limit.unwrap_or(usize::MAX)).collect())
    }

    /// The records of the log, oldest first.
    pub(super) fn records(&self) -> Result<Vec<Record>> {
        self.records_in(Source::Cluster)
    }

    /// The same from a source. Those that this program did not write are left out, with a warning.
    pub(super) fn records_in(&self, source: Source) -> Result<Vec<Record>> {
        let answer = self.snapshot_of(source, [self.keys.logs().read()])?;
        let found = answer.ranges().next().unwrap_or_default().kvs;
        let records: Vec<Record> = found.iter().filter_map(Record::of).collect();
        let skipped = found.len() - records.len();
        if skipped > 0 {
            let records = count(skipped, "record");
            self.warn_once(format!("{records} of the log skipped: damaged"));
        }
        Ok(records)
    }
}
