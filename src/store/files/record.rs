//! Records of commits: written to the journal and the audit log, and read back.

use std::collections::BTreeMap;

use super::backup_dir::BackupDir;
use super::events::{EventLog, append_to_journal};
use super::guard::records::guards_of_commit;
use super::observe::Observation;
use super::root::Root;
use super::transaction::Transaction;
use crate::audit::{AuditLine, Committed, fact};
use crate::document::Reading;
use crate::document::seal::{Lineage, Revision, Sealed, to_bytes};
use crate::journal::event::BLOCKERS_LIMIT;
use crate::journal::{Changes, Commit, Event, Events, Journal};
use crate::plural::count;
use crate::store::diagnosis::Health;
use crate::store::logged;
use crate::store::options::WriteOptions;

impl EventLog<'_> {
    /// The events in this root's journal; empty where it cannot be read.
    pub fn journal(&self) -> Events {
        Root::of(self.store).backup_dir_to_read().map(|dir| self.shown(&dir)).unwrap_or_default()
    }

    /// The events for a command that shows them: what could not be read is a warning.
    pub(super) fn shown(&self, backup_dir: &BackupDir) -> Events {
        let events = backup_dir.events();
        if events.damaged > 0 {
            let lines = count(events.damaged, "line");
            self.store.warn(format!("{lines} of the journal skipped: damaged"));
        }
        if let Some(why) = &events.problem {
            self.store.warn(format!("events are missing: {why}"));
        }
        events
    }
}

/// The source of a committed document that is not new.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Provenance<'a> {
    /// The copy or the checkpoint that it was taken from.
    pub from: Option<&'a str>,
    /// The earlier revision that it repeats.
    pub repeats: Option<Revision>,
}

impl Observation<'_> {
    /// The recorded commits of a lineage in this root, by revision: those in the journal; for
    /// revisions without a line there, those in the audit log with this lineage and this path.
    pub(super) fn commits(&self, lineage: &Lineage) -> BTreeMap<Revision, Committed> {
        let logged = self.store.audit.commits(lineage, &self.store.shown());
        let mut commits: BTreeMap<_, _> =
            logged.into_iter().map(|commit| (commit.revision, commit)).collect();
        for commit in self.backup_dir.events().commits().filter(|commit| commit.lineage == *lineage)
        {
            let committed = Committed {
                time: commit.origin.time.clone(),
                revision: commit.revision,
                reason: commit.reason.clone().unwrap_or_else(|| commit.default_reason().to_owned()),
                pid: commit.origin.pid,
                command: commit.command.clone(),
            };
            commits.insert(commit.revision, committed);
        }
        commits
    }

    /// The lineage of the last recorded commit of this root, from the journal or else the audit
    /// log.
    pub(super) fn last_lineage(&self) -> Option<Lineage> {
        if let Some(commit) = self.backup_dir.events().commits().last() {
            return Some(commit.lineage.clone());
        }
        let (path, mut last) = (fact("path", self.store.shown()), None);
        self.store.audit.each_line(std::slice::from_ref(&path), &mut |line| {
            if line.trim_end().ends_with(&path)
                && let Some(line) = AuditLine::parse(line)
                && let Some(lineage) = line.fact("lineage")
            {
                last = Lineage::from_value(&lineage.into()).or(last.take());
            }
        });
        last
    }

    /// The last recorded commit of a lineage in this root.
    pub(super) fn last_commit(&self, lineage: &Lineage) -> Option<Committed> {
        self.commits(lineage).pop_last().map(|(_, commit)| commit)
    }
}

impl Transaction<'_> {
    /// Makes the journal where it is missing.
    pub(super) fn make_journal(&mut self) {
        let Some(dir) = self.seen.backup_dir.dir() else { return };
        match Journal::new(&self.store.disk, dir).make() {
            Ok(()) => self.seen.backup_dir.has_journal = true,
            Err(error) => {
                self.store.warn(format!("there is no journal of this state: {error}"));
            }
        }
    }

    /// Records a commit that has happened. The caller still holds the state lock.
    pub(super) fn record_commit(
        &self,
        options: &WriteOptions,
        sealed: &Sealed,
        of: Provenance<'_>,
    ) {
        self.journal_commit(options, sealed, of.repeats);
        // A restore may have settled a guard since the files were observed.
        if !self.seen.backup_dir.guards.is_empty()
            && let Ok(backup_dir) = Root::of(self.store).backup_dir_of(&self.lock.root)
        {
            self.store.guards().warn(&self.lock.root, &backup_dir);
        }
        let entry = logged::commit(options, sealed, self.lock.waited);
        let entry = of.from.iter().fold(entry, |entry, from| entry.with("from", from));
        let repeats = of.repeats.iter();
        let entry = repeats.fold(entry, |entry, revision| entry.with("repeats", revision));
        self.store.audit.record(&entry.with("path", self.store.shown()));
    }

    /// Records the live revision if the journal has no line of it: its writer died before that.
    pub(super) fn record_unrecorded(&self, options: &WriteOptions, from: &str) {
        let (Health::Healthy(document), Some(found)) = (&self.seen.health, self.seen.live.as_ref())
        else {
            return;
        };
        let seal = &document.seal;
        let is_recorded = self
            .seen
            .backup_dir
            .events()
            .commits()
            .any(|commit| commit.revision == seal.revision && commit.digest == seal.digest);
        if !is_recorded {
            let sealed = Sealed { document: document.clone(), text: found.bytes.clone().into() };
            let of = Provenance { from: Some(from), repeats: None };
            self.record_commit(options, &sealed, of);
        }
    }

    fn journal_commit(&self, options: &WriteOptions, sealed: &Sealed, repeats: Option<Revision>) {
        let Some(dir) = self.seen.backup_dir.dir().filter(|_| self.seen.backup_dir.has_journal)
        else {
            return;
        };
        let seal = &sealed.document.seal;
        let commit = Commit {
            origin: EventLog::of(self.store).origin(),
            lineage: seal.lineage.clone(),
            revision: seal.revision,
            digest: seal.digest.clone(),
            command: options.command(),
            reason: options.reason.clone(),
            waited: self.lock.waited.as_secs_f64(),
            blockers: self.lock.blockers.iter().take(BLOCKERS_LIMIT).cloned().collect(),
            bytes: sealed.text.size() as u64,
            repeats,
            changes: changes(&self.seen, sealed),
            guards: guards_of_commit(&self.lock, &self.seen.backup_dir),
        };
        append_to_journal(&self.lock, dir, &Event::Commit(commit));
    }
}

fn changes(seen: &Observation, sealed: &Sealed) -> Option<Changes> {
    if let Health::Healthy(live) = &seen.health
        && live.seal.digest == sealed.document.seal.digest
    {
        return None; // it is in place already, and the state before it is not on record
    }
    let reference = match &seen.health {
        Health::Foreign(edit) => Some(to_bytes(&edit.reference.as_ref()?.value)?),
        _ => None,
    };
    let old = match &reference {
        Some(bytes) => bytes,
        None => match seen.live.as_ref()? {
            found if matches!(found.reading, Reading::Damaged(_)) => return None,
            found => &*found.bytes,
        },
    };
    Changes::between(old, sealed.text.iter())
}
