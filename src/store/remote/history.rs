//! `history`: the revisions in the log, and the backups that hold them.

use super::RemoteStore;
use super::log::Record;
use crate::document::seal::Revision;
use crate::error::Result;
use crate::owner_view::OwnerView;
use crate::store::diagnosis::Health;
use crate::store::report::Remembered;
use crate::time::{Since, parse_rfc3339};

impl RemoteStore {
    /// The revisions of this store, newest first; at most `limit`.
    pub fn history(&self, limit: Option<usize>, since: Option<Since>) -> Result<Vec<Remembered>> {
        let ground = self.observe(&[])?;
        if let Health::NotInitialized = ground.health {
            return Err(ground.refusal());
        }
        let since = since.map(|since| since.before(self.now()));
        let is_wanted = |commit: &Record| {
            since.is_none_or(|since| {
                parse_rfc3339(&commit.commit.origin.time).is_none_or(|time| time >= since)
            })
        };
        let records = self.records()?.into_iter().rev().filter(is_wanted);
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
        let remembered = records.map(|Record { commit, .. }| Remembered {
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
        });
        Ok(remembered.take(limit.unwrap_or(usize::MAX)).collect())
    }

    /// The records of the log, oldest first. Records that this program did not write are left out.
    pub(super) fn records(&self) -> Result<Vec<Record>> {
        let found = self.client.range(&self.keys.logs().read())?;
        Ok(found.kvs.iter().filter_map(Record::of).collect())
    }
}
