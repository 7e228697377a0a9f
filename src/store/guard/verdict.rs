//! Attribution of the commits since a guard began, and the resulting verdict.
//!
//! A revision belongs to the guard if its line in the journal names the guard. A revision without
//! such a line belongs to another owner if a heal, an adoption or a recovery made it. Any other
//! revision without a line may belong to the guard all the same: it is not undone, and the guard
//! does not report that it put everything back. The caller holds the state lock, so no revision is
//! added meanwhile.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use super::record::Record;
use crate::document::contents::without_seal;
use crate::document::put_back::{Touched, put_back};
use crate::document::rules;
use crate::document::seal::Revision;
use crate::error::Result;
use crate::journal::{Commit, Event, Events, GuardEvent, GuardStep};
use crate::store::diagnosis::Health;
use crate::time::parse_rfc3339;

/// Commands with commits that never belong to a guard, even under it: they restore what others may
/// have made.
const NEVER_THE_GUARDS: [&str; 3] = ["state heal", "state adopt", "state recover"];

/// The action for a guarded command that failed.
#[derive(Debug)]
pub enum Verdict {
    /// Only the guard committed, and `config/` holds no other guard's changes: the checkpoint is
    /// restored as it is.
    OnlyTheGuard,
    /// Others committed, or may have changed `config/`, too.
    Others {
        /// The document with the guard's changes put back; `None` if the guard changed nothing in
        /// it.
        document: Option<Value>,
        /// The reason why `config/` may hold another owner's changes, if it may.
        config: Option<String>,
        /// The reason why the guarded command may have changed more than is put back, if it may
        /// have.
        unclear: Option<String>,
    },
    /// Nothing can be put back without undoing another owner's commits; the reason.
    Refused(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Party {
    Guard,
    Others,
}

/// What a store knows of the commits since a guard began.
pub trait Commits {
    /// The events of the root.
    fn events(&self) -> &Events;
    /// The condition of the live document.
    fn health(&self) -> &Health;
    /// The current revision; where there is no healthy document, the highest on record.
    fn current(&self) -> Result<Option<Revision>>;
    /// The kept documents of these revisions and of the live lineage, in the current form.
    fn documents(&self, range: &RangeInclusive<u64>) -> Result<BTreeMap<u64, Value>>;
    /// Returns whether `config/` differs from the guard's checkpoint.
    fn is_config_changed(&self) -> Result<bool>;
}

impl Verdict {
    /// Judges the commits since `record` was made. `base` is the document of its checkpoint.
    pub fn of(record: &Record, base: &Value, since_then: &impl Commits) -> Result<Self> {
        let (events, health) = (since_then.events(), since_then.health());
        let begin = record.base.as_ref().map_or(0, |base| base.revision.get());
        let current = since_then.current()?.map_or(begin, Revision::get);
        let mut lines: BTreeMap<u64, Vec<&Commit>> = BTreeMap::new();
        for commit in events.commits().filter(|commit| commit.revision.get() > begin) {
            lines.entry(commit.revision.get()).or_default().push(commit);
        }
        let is_guards = |commit: &&Commit| {
            commit.guards.contains(&record.id)
                && !NEVER_THE_GUARDS.contains(&commit.command.as_str())
        };
        let is_live = |commit: &&Commit| match health {
            Health::Healthy(document) => commit.digest == document.seal.digest,
            _ => true,
        };
        // If the live revision's line has another digest, it belongs to another document.
        let known = |revision: u64| {
            let commits = lines.get(&revision).filter(|_| revision <= current)?;
            (revision < current || commits.iter().any(is_live)).then_some(commits)
        };
        let party = |revision: u64| match known(revision) {
            Some(commits) if commits.iter().all(is_guards) => Party::Guard,
            _ => Party::Others,
        };
        let mut revisions = begin + 1..=current;
        let beside = others_at_config(&events.list, record, &lines);
        let only_the_guard_committed =
            current >= begin && revisions.all(|revision| party(revision) == Party::Guard);
        if only_the_guard_committed && (beside.is_none() || !since_then.is_config_changed()?) {
            return Ok(Self::OnlyTheGuard);
        }
        let Health::Healthy(live) = health else {
            let health = health.kind();
            let others = match &beside {
                Some(beside) if only_the_guard_committed => beside,
                _ => "others committed since it began",
            };
            return Ok(Self::Refused(format!("{others}, and the state is {health} now")));
        };
        if record.base.as_ref().is_some_and(|base| base.lineage != live.seal.lineage) {
            return Ok(Self::Refused("a new lineage was begun since it began".to_owned()));
        }
        let whole_range = begin + 1..=current;
        let unknown = whole_range.clone().find(|revision| known(*revision).is_none());
        let unclear = unknown.map(|revision| {
            format!(
                "the journal has no line of revision {revision}, \
                 which its command may have committed"
            )
        });
        let documents = since_then.documents(&whole_range)?;
        let (mut guards, mut others) = (Touched::default(), Touched::default());
        let (base, live_value) = (without_seal(base), without_seal(&live.value));
        let (mut before, mut since) = (&base, None);
        for revision in whole_range {
            let party = party(revision);
            if since.is_some_and(|since| since != party) {
                let kept = format!(
                    "revision {} is not kept, so the changes of the guard and of others cannot be \
                     separated",
                    revision - 1
                );
                return Ok(Self::Refused(kept));
            }
            let Some(after) = documents.get(&revision) else {
                since = Some(party);
                continue;
            };
            let touched = if party == Party::Guard { &mut guards } else { &mut others };
            touched.add(before, after);
            (before, since) = (after, None);
        }
        let config = beside.or_else(|| unclear.clone());
        if guards.is_empty() {
            return Ok(Self::Others { document: None, config, unclear });
        }
        let document = match put_back(&base, &guards, &others, &live_value) {
            Ok(document) => document,
            Err(conflict) => {
                let paths = conflict.paths.join(", ");
                return Ok(Self::Refused(format!("others changed what it changed: {paths}")));
            }
        };
        if let Some(finding) = rules::check(&document).first() {
            return Ok(Self::Refused(format!(
                "what is left without its changes breaks the rules: {finding}"
            )));
        }
        let document = (document != live_value).then(|| with_created(document, &live.value));
        Ok(Self::Others { document, config, unclear })
    }
}

/// The document with its creation time, which sealing keeps.
fn with_created(mut document: Value, live: &Value) -> Value {
    if let (Some(created), Some(fields)) =
        (live.pointer("/metadata/created"), document.as_object_mut())
    {
        let metadata = fields.entry("metadata").or_insert_with(|| Value::Object(Map::new()));
        if let Some(metadata) = metadata.as_object_mut() {
            metadata.insert("created".into(), created.clone());
        }
    }
    document
}

/// The reason why another owner may have changed `config/`, if it may: files are not attributed to
/// owners, but a restore replaces them, and the command of another guard may change them.
fn others_at_config(
    events: &[Event],
    record: &Record,
    lines: &BTreeMap<u64, Vec<&Commit>>,
) -> Option<String> {
    let id = &record.id;
    let restored = |commit: &&&Commit| commit.is_restore() && !commit.guards.contains(id);
    if let Some(commit) = lines.values().flatten().find(restored) {
        return Some(format!("revision {} restored a checkpoint", commit.revision));
    }
    let started = parse_rfc3339(&record.started);
    let is_later = |guard: &GuardEvent| parse_rfc3339(&guard.origin.time) >= started;
    let began = events.iter().find_map(|event| match event {
        Event::Guard(guard) if guard.id != *id && is_later(guard) && !guard.guards.contains(id) => {
            (guard.step == GuardStep::Began).then_some(&guard.id)
        }
        _ => None,
    });
    began.or(record.beside.as_ref()).map(|other| format!("the guard {other} ran meanwhile"))
}
