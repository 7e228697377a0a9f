//! Reports of the store that change nothing: `validate`, `status`, `history`, `diff`.

mod history;
mod versions;

use std::time::SystemTime;

use serde::Serialize;
use serde_json::Value;

pub use self::history::Remembered;
use super::FileStore;
use super::events::EventLog;
use super::observe::{Depth, Observation};
use super::restore::Interrupted;
use super::root::Root;
use super::state_file::StateFile;
use crate::document::migrate::{self, Unfit};
use crate::document::rules::{self, Finding};
use crate::document::schema::{self, OldForm};
use crate::document::seal::size_when_sealed;
use crate::document::{OWN_ROOM, Reading, WRITE_LIMIT, inspect};
use crate::error::{Error, Kind, Result};
use crate::fs::Dir;
use crate::journal::{Event, Events};
use crate::lock::{FlockHolder, LOCKS, LockSummary, STATE_LOCK, flock_holder};
use crate::owner_view::OwnerView;
use crate::store::diagnosis::{Health, HealthKind, Mirror, known, newer_schema};
use crate::store::guard::OnRecord;
use crate::{side, time};

/// The number of events that `status` shows.
const LAST_EVENTS: usize = 5;

/// The state's condition, for people and programs.
#[derive(Debug, Serialize)]
pub struct Status {
    /// The state file.
    pub path: String,
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
    /// Bytes of the state file.
    pub bytes: Option<u64>,
    /// Permission bits of the state file, in octal.
    pub mode: Option<String>,
    /// The mirror, compared with the state file.
    pub mirror: Mirror,
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
    fn last(events: &[Event]) -> Vec<Self> {
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

/// Reports of a root: they change nothing.
#[derive(Clone, Copy, Debug)]
pub struct Report<'s> {
    pub(in crate::store) store: &'s FileStore,
}

impl Report<'_> {
    /// The document in the live file, if there is one, as [`known`] returns it; for reports.
    pub fn read_as_it_is(&self) -> Result<Option<Value>> {
        let live = Root::of(self.store).live()?;
        let value = |live: Option<&StateFile>, health| {
            known(health, live.map(|found| &found.reading)).cloned()
        };
        Ok(match Root::of(self.store).backup_dir_to_read() {
            Ok(backup_dir) => {
                match Root::of(self.store).diagnose(live, backup_dir, Depth::DigestOnly) {
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
        Root::of(self.store).examine().is_ok_and(|seen| seen.newest_copy().is_ok())
    }

    /// Checks the live file as every command would.
    pub fn validate(&self) -> Result<Validation> {
        let seen = Root::of(self.store).examine()?;
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
            (Health::Legacy(_), _) => {
                Some("the document is not sealed yet; the next write does it".to_owned())
            }
            (health, _) if health.migrates_from().is_some() => {
                health.migrates_from().map(note_of_migration)
            }
            (Health::Healthy(_), Some(found)) if backup_dir.mirror_of(found)? != Mirror::Same => {
                Some("the mirror is not up to date; the next write replaces it".to_owned())
            }
            _ => None,
        };
        Root::of(self.store).warn_of_file(&live);
        Root::of(self.store).warn_of_side_directories(&Root::of(self.store).open()?)?;
        // Readers accept documents that are too large for a writer to seal.
        if let Health::Legacy(migrated) = &health
            && let Some(finding) = too_large(&migrated.value, WRITE_LIMIT + OWN_ROOM)
        {
            let error = Error::new(
                Kind::TooLarge,
                format!("{} cannot be written: it {}", self.store.shown(), finding.problem),
            )
            .hint_command(
                "state read",
                "take what is large out of it, and write the rest with `state write`",
            );
            return Ok(Validation { findings: vec![finding], error: Some(error), note });
        }
        Ok(Validation { findings: health.findings(), error, note })
    }

    /// The form that the document would be migrated from; `None` if it has the current form.
    pub fn pending_migration(&self) -> Result<Option<OldForm>> {
        Ok(Root::of(self.store).examine()?.health.migrates_from().cloned())
    }

    /// The state's condition, and the error that other commands would end with.
    pub fn status(&self) -> Result<(Status, Option<Error>)> {
        let seen = Root::of(self.store).examine()?;
        let error = seen.refusal_if_unusable();
        let Observation { live, backup_dir, health, .. } = seen;
        let found = live.as_ref();
        let value = known(&health, found.map(|found| &found.reading));
        let text = |pointer: &str| {
            value
                .and_then(|value| value.pointer(pointer))
                .and_then(Value::as_str)
                .map(str::to_owned)
        };
        let seal = match found.map(|found| &found.reading) {
            Some(Reading::Sealed(document)) => Some(&document.seal),
            _ => None,
        };
        let root = Root::of(self.store).open()?;
        let obstacle = self.store.obstacles().write()?;
        let pinned = backup_dir.backups.iter().filter(|backup| backup.is_pinned()).count();
        let status = Status {
            path: self.store.shown(),
            health: health.kind(),
            findings: health.findings(),
            revision: seal.map(|seal| seal.revision.get()),
            lineage: seal.map(|seal| seal.lineage.to_string()),
            schema: text("/schemaVersion"),
            phase: text("/phase"),
            completed_tasks: value
                .and_then(|value| value.get("completedTasks")?.as_array().map(Vec::len)),
            signals: value
                .and_then(|value| value.get("signals")?.as_object().map(serde_json::Map::len)),
            last_signal: text("/lastSignal"),
            degraded: value
                .and_then(|value| value.pointer("/degradedMode/enabled")?.as_bool())
                .unwrap_or_default(),
            last_modified: text("/metadata/lastModified"),
            bytes: found.map(|found| found.stat.size),
            mode: found.map(|found| format!("{:04o}", found.stat.mode)),
            mirror: match found.map(|found| backup_dir.mirror_of(found)).transpose()? {
                Some(mirror) => mirror,
                None if backup_dir.has_mirror => Mirror::Differs,
                None => Mirror::Absent,
            },
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

/// Checks a document that is input rather than the live file: each problem is a broken rule. A
/// document that passes is accepted by `state write`, and as the live file.
pub fn validate_input(bytes: &[u8]) -> Validation {
    let whole = |problem: String| vec![Finding { path: ".".to_owned(), problem }];
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
    fn of_input(findings: Vec<Finding>, note: Option<String>) -> Self {
        let error = findings.first().map(|first| {
            Error::new(Kind::Schema, format!("the document breaks the rules: {first}"))
                .hint_command("state write --help", "what a document must be")
                .detail("findings", serde_json::json!(findings))
        });
        Self { findings, error, note }
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
    (size > limit).then(|| Finding { path: ".".to_owned(), problem })
}
