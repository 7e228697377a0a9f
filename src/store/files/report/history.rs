//! `history` and `backups`: the revisions that the journal, backups and the audit log know.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Report;
use crate::document::Reading;
use crate::document::seal::Revision;
use crate::error::Result;
use crate::owner_view::OwnerView;
use crate::store::backups::{Listed, Reasons};
use crate::store::copies::{Copies, lineage_of};
use crate::store::diagnosis::Health;
use crate::store::files::events::EventLog;
use crate::store::files::observe::Observation;
use crate::store::files::root::Root;
use crate::store::layout::MIRROR;
use crate::store::report::Remembered;
use crate::time::{Since, parse_rfc3339};

impl Report<'_> {
    /// The revisions of this lineage in the journal, backups and the audit log, newest first; at
    /// most `limit`. One without a time is listed whatever the time.
    pub fn history(&self, limit: Option<usize>, since: Option<Since>) -> Result<Vec<Remembered>> {
        let seen = Observation::examine(self.store)?;
        if matches!(seen.health, Health::NotInitialized) {
            return Err(seen.refusal());
        }
        let sealed = match seen.live.as_ref().map(|found| &found.reading) {
            Some(Reading::Sealed(document)) => Some(document),
            _ => None,
        };
        let copies = seen.backup_dir.copies()?;
        let lineage = match &seen.health {
            Health::Healthy(document) => Some(document.seal.lineage.clone()),
            _ => {
                lineage_of(copies).or_else(|| sealed.map(|document| document.seal.lineage.clone()))
            }
        };
        let Some(lineage) = lineage else {
            return Ok(Vec::new());
        };
        let mut revisions: BTreeMap<u64, Remembered> = BTreeMap::new();
        let documents = copies.iter().filter_map(|copy| Some((copy.name.clone(), copy.sealed()?)));
        let live = sealed.map(|document| {
            (self.store.settings.file_name.to_string_lossy().into_owned(), document)
        });
        for (file, document) in
            documents.chain(live).filter(|(_, document)| document.seal.lineage == lineage)
        {
            let revision = document.seal.revision.get();
            let time = document.value.pointer("/metadata/lastModified").and_then(Value::as_str);
            let entry = revisions.entry(revision).or_default();
            entry.revision = revision;
            entry.time = time.map(str::to_owned);
            if entry.file.as_deref().is_none_or(|file| file == MIRROR) {
                entry.file = Some(file);
            }
        }
        for backup in seen.backup_dir.backups.iter().filter(|backup| !backup.is_pinned()) {
            // A backup's reason is that of the commit that replaced it.
            let next = backup.revision.map(|revision| revision.get() + 1);
            if let Some(entry) = next.and_then(|next| revisions.get_mut(&next)) {
                entry.reason = Some(backup.reason.clone());
            }
        }
        let events = EventLog::of(self.store).shown(&seen.backup_dir);
        for commit in seen.commits(&lineage).into_values() {
            let revision = commit.revision.get();
            let entry = revisions.entry(revision).or_default();
            entry.revision = revision;
            entry.reason = Some(commit.reason);
            entry.time = Some(commit.time);
            entry.pid = Some(commit.pid);
            entry.command = Some(commit.command);
        }
        for commit in events.commits().filter(|commit| commit.lineage == lineage) {
            if let Some(entry) = revisions.get_mut(&commit.revision.get()) {
                entry.reason.clone_from(&commit.reason);
                entry.owner = Some(OwnerView::from(&commit.origin.owner));
                entry.changes = commit.changes.as_ref().map(|changes| changes.list.clone());
                entry.more_changes = commit.changes.as_ref().map_or(0, |changes| changes.more);
                entry.repeats = commit.repeats.map(Revision::get);
            }
        }
        let since = since.map(|since| since.before(self.store.disk.now()));
        let is_wanted = |entry: &Remembered| {
            since.is_none_or(|since| {
                entry.time.as_deref().and_then(parse_rfc3339).is_none_or(|time| time >= since)
            })
        };
        let newest_first = revisions.into_values().rev().filter(is_wanted);
        Ok(newest_first.take(limit.unwrap_or(usize::MAX)).collect())
    }

    /// The backups, newest first.
    pub fn backups(&self) -> Result<Vec<Listed>> {
        let backup_dir = Root::of(self.store).backup_dir_to_read()?;
        let Some(dir) = backup_dir.dir() else {
            return Ok(Vec::new());
        };
        let reasons = Reasons::of(self.history(None, None).unwrap_or_default());
        let listed = backup_dir.backups.iter().rev().map(|name| {
            let copy = backup_dir.read(name.as_str())?;
            let bytes = self.store.disk.stat(dir, name.as_str())?.map_or(0, |stat| stat.size);
            Ok(Listed::of(name, &copy, bytes, &reasons))
        });
        listed.collect()
    }
}
