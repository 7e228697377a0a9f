//! What reports of a state say: `validate`, `status`, `history`.

use std::time::SystemTime;

use serde::Serialize;
use serde_json::Value;

use super::diagnosis::{Health, HealthKind, Mirror, known, newer_schema};
use super::guard::OnRecord;
use crate::document::migrate::{self, Unfit};
use crate::document::rules::{self, Finding};
use crate::document::schema::{self, OldForm};
use crate::document::seal::size_when_sealed;
use crate::document::{OWN_ROOM, Reading, WRITE_LIMIT, inspect};
use crate::error::{Error, Kind};
use crate::journal::Event;
use crate::journal::changes::Change;
use crate::lock::{FlockHolder, LockSummary};
use crate::owner_view::OwnerView;
use crate::time;

/// The number of events that `status` shows.
const LAST_EVENTS: usize = 5;

/// The state's condition, for people and programs.
#[derive(Debug, Serialize)]
pub struct Status {
    /// The state file.
    pub path: String,
    /// The document.
    #[serde(flatten)]
    pub document: DocumentFacts,
    /// Bytes of the state file.
    pub bytes: Option<u64>,
    /// Permission bits of the state file, in octal.
    pub mode: Option<String>,
    /// The mirror, compared with the state file; a store on a cluster has none.
    pub mirror: Option<Mirror>,
    /// The copies in the backup directory.
    pub backups: BackupCount,
    /// The holder of the commit's lock at this moment.
    pub state_lock: Option<FlockHolder>,
    /// A summary of the named locks.
    pub locks: LockSummary,
    /// The number of checkpoints.
    pub checkpoints: usize,
    /// The checkpoint of an interrupted restore; the next command that reads or writes finishes it.
    pub interrupted_restore: Option<String>,
    /// The reason why the next command cannot finish it; `recover restore --abort` drops it.
    pub restore_obstacle: Option<String>,
    /// The guards on record.
    pub guards: Vec<OnRecord>,
    /// Bytes left on the disk for this user.
    pub disk_free: Option<u64>,
    /// Whether the next writer can write here.
    pub writable: bool,
    /// The reason why it cannot.
    pub write_obstacle: Option<String>,
    /// The audit log that is used.
    pub audit_log: String,
    /// The last events in the journal, oldest first.
    pub events: Vec<Happened>,
}

/// The document as `status` shows it.
#[derive(Debug, Serialize)]
pub struct DocumentFacts {
    /// The diagnosis.
    pub health: HealthKind,
    /// The problems.
    pub findings: Vec<Finding>,
    /// The document's revision; none without a valid seal.
    pub revision: Option<u64>,
    /// Its lineage.
    pub lineage: Option<String>,
    /// Its schema, as it says.
    pub schema: Option<String>,
    /// Its phase.
    pub phase: Option<String>,
    /// The number of completed tasks.
    pub completed_tasks: Option<usize>,
    /// The number of signals that are set.
    pub signals: Option<usize>,
    /// The signal that was set last.
    pub last_signal: Option<String>,
    /// Whether degraded mode is on.
    pub degraded: bool,
    /// The time of the last change, RFC 3339.
    #[serde(serialize_with = "time::serialize_some_text")]
    pub last_modified: Option<String>,
}

impl DocumentFacts {
    /// What a document and its diagnosis show.
    pub(super) fn of(health: &Health, reading: Option<&Reading>) -> Self {
        let value = known(health, reading);
        let at = |pointer: &str| value.and_then(|value| value.pointer(pointer));
        let text = |pointer: &str| at(pointer).and_then(Value::as_str).map(str::to_owned);
        let seal = match reading {
            Some(Reading::Sealed(document)) => Some(&document.seal),
            _ => None,
        };
        Self {
            health: health.kind(),
            findings: health.findings(),
            revision: seal.map(|seal| seal.revision.get()),
            lineage: seal.map(|seal| seal.lineage.to_string()),
            schema: text("/schemaVersion"),
            phase: text("/phase"),
            completed_tasks: at("/completedTasks").and_then(Value::as_array).map(Vec::len),
            signals: at("/signals").and_then(Value::as_object).map(serde_json::Map::len),
            last_signal: text("/lastSignal"),
            degraded: at("/degradedMode/enabled").and_then(Value::as_bool).unwrap_or_default(),
            last_modified: text("/metadata/lastModified"),
        }
    }
}

/// An event of the journal in a few words.
#[derive(Debug, Serialize)]
pub struct Happened {
    /// Its time, RFC 3339.
    pub time: String,
    /// Its kind: `commit`.
    pub event: &'static str,
    /// The script that caused it.
    pub owner: OwnerView,
    /// What happened.
    pub text: String,
}

impl Happened {
    /// The last of these events, oldest first.
    pub(super) fn last(events: &[Event]) -> Vec<Self> {
        let recorded = events.iter().rev().filter_map(|event| Some((event, event.origin()?)));
        let mut last: Vec<Self> = recorded
            .take(LAST_EVENTS)
            .map(|(event, origin)| Self {
                time: origin.time.clone(),
                event: event.kind(),
                owner: OwnerView::from(&origin.owner),
                text: event.to_string(),
            })
            .collect();
        last.reverse();
        last
    }
}

/// The number of copies of each kind.
#[derive(Debug, Serialize)]
pub struct BackupCount {
    /// Made by commits.
    pub automatic: usize,
    /// Made explicitly.
    pub pinned: usize,
    /// Damaged files that were kept.
    pub evidence: usize,
    /// Histories that `init --fresh` archived.
    pub archives: usize,
    /// The newest backup's time.
    #[serde(serialize_with = "time::serialize_some")]
    pub newest: Option<SystemTime>,
}

/// The result of `validate`.
#[derive(Debug)]
pub struct Validation {
    /// One finding per problem.
    pub findings: Vec<Finding>,
    /// The error that a command would end with; none if there is no problem.
    pub error: Option<Error>,
    /// A remark that is not a problem.
    pub note: Option<String>,
}

/// One revision, from backups and logs.
#[derive(Debug, Default, Serialize)]
pub struct Remembered {
    /// The revision.
    pub revision: u64,
    /// The reason of the commit.
    pub reason: Option<String>,
    /// Its time, RFC 3339.
    #[serde(serialize_with = "time::serialize_some_text")]
    pub time: Option<String>,
    /// The script that it was committed for.
    pub owner: Option<OwnerView>,
    /// The process that committed it.
    pub pid: Option<u32>,
    /// The command that committed it.
    pub command: Option<String>,
    /// What it changed, in a summary.
    pub changes: Option<Vec<Change>>,
    /// The number of changes that are not in that list.
    pub more_changes: usize,
    /// The earlier revision that it repeats, if an undo or a healing committed it.
    pub repeats: Option<u64>,
    /// The file that holds a copy of it.
    pub file: Option<String>,
    /// The operation that made it, in a store on a cluster.
    pub operation: Option<String>,
}

/// Checks a document that is input rather than the live file: each problem is a broken rule. A
/// document that passes is accepted by `state write`, and as the live file.
pub fn validate_input(bytes: &[u8]) -> Validation {
    let whole = |problem: String| vec![Finding::of_document(problem)];
    let (value, is_broken) = match inspect(bytes) {
        Reading::Damaged(why) => return Validation::of_input(whole(why), None),
        Reading::Conflicted(line) => {
            let why = format!("it has git's conflict markers, from line {line} on");
            return Validation::of_input(whole(why), None);
        }
        Reading::Sealed(document) => (document.into_value(), false),
        Reading::Unsealed(value) => (value, false),
        Reading::Broken(value) => (value, true),
    };
    let broken = "its digest is not that of its bytes: it was changed since it was sealed";
    let broken = is_broken.then(|| broken.to_owned());
    // `state write` requires no version.
    if rules::check(&value).is_empty() {
        return Validation::of_input(too_large(&value, WRITE_LIMIT).into_iter().collect(), broken);
    }
    match migrate::usable(&value) {
        Ok(migrated) => {
            let notes = [broken, migrated.from.as_ref().map(note_of_migration)];
            let notes: Vec<String> = notes.into_iter().flatten().collect();
            let findings = too_large(&migrated.value, WRITE_LIMIT).into_iter().collect();
            Validation::of_input(findings, Some(notes.join("; ")).filter(|note| !note.is_empty()))
        }
        Err(Unfit::Invalid(findings)) => Validation::of_input(findings, broken),
        Err(Unfit::TooNew(too_new)) => {
            let problem =
                format!("{:?} is newer than {:?}", too_new.version, schema::current().version);
            let finding = Finding { path: ".schemaVersion".to_owned(), problem };
            let validation = Validation::of_input(vec![finding], broken);
            let error = Some(newer_schema("the document", &too_new));
            Validation { error, ..validation }
        }
    }
}

impl Validation {
    /// Of the document that commands work with, and the `error` that they end with.
    pub(super) fn of_live(
        health: &Health,
        shown: &str,
        error: Option<Error>,
        note: Option<String>,
    ) -> Self {
        // Readers accept documents that are too large for a writer to seal.
        if let Health::Legacy(migrated) = health
            && let Some(finding) = too_large(&migrated.value, WRITE_LIMIT + OWN_ROOM)
        {
            let message = format!("{shown} cannot be written: it {}", finding.problem);
            let error = Error::new(Kind::TooLarge, message).hint_command(
                "state read",
                "take what is large out of it, and write the rest with `state write`",
            );
            return Self { findings: vec![finding], error: Some(error), note };
        }
        Self { findings: health.findings(), error, note }
    }

    fn of_input(findings: Vec<Finding>, note: Option<String>) -> Self {
        let error = findings.first().map(|first| {
            Error::new(Kind::Schema, format!("the document breaks the rules: {first}"))
                .hint_command("state write --help", "what a document must be")
                .detail("findings", serde_json::json!(findings))
        });
        Self { findings, error, note }
    }
}

/// What the next write does to the document's form.
pub(super) fn note_of(health: &Health) -> Option<String> {
    match health {
        Health::Legacy(_) => {
            Some("the document is not sealed yet; the next write does it".to_owned())
        }
        health => health.migrates_from().map(note_of_migration),
    }
}

fn note_of_migration(from: &OldForm) -> String {
    let version = schema::current().version;
    match from {
        OldForm::Legacy => {
            format!("fields have an older form; the next write brings them to schema {version}")
        }
        OldForm::Schema(from) => {
            format!("it has schema {from}; the next write migrates it to {version}")
        }
    }
}

/// The finding about a document that would be larger than `limit` bytes when it is sealed, counted
/// like a writer's.
fn too_large(value: &Value, limit: usize) -> Option<Finding> {
    let created = value.pointer("/metadata/created").and_then(Value::as_str);
    let size = size_when_sealed(value.clone(), created).unwrap_or_default();
    let problem = format!(
        "would have {size} bytes when it is sealed, and {} MiB is the limit",
        WRITE_LIMIT >> 20
    );
    (size > limit).then(|| Finding::of_document(problem))
}
