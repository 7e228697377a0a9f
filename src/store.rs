//! The store: the document on the disk.
//!
//! [`Store::read`] takes no lock unless it has to heal, or to finish an interrupted restore. Every
//! replacement of the state file is one call of `Store::publish` in `commit`. Its callers hold the
//! state lock from their read to that call, and differ in the document that they publish:
//!
//! - [`change`]: the read-modify-write of ordinary writers,
//! - [`fresh`] and `new_lineage`: the first document, a new lineage, an adopted foreign edit,
//! - [`heal`]: the newest valid copy,
//! - [`restore`] and [`guard`]: the state of a checkpoint, or the document without a guard's
//!   changes.

pub mod absence;
pub mod backup_dir;
pub mod backups;
mod belongs;
pub mod change;
pub mod checkpoint;
mod commit;
pub mod diagnosis;
pub mod fresh;
pub mod guard;
pub mod heal;
pub mod layout;
mod new_lineage;
mod next_revision;
mod observe;
pub mod options;
mod preserve;
mod record;
pub mod report;
pub mod restore;
pub mod signal;
mod staging;
pub mod state_file;
mod state_lock;
pub mod trace;
pub mod writable;

use std::cell::RefCell;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;

use self::absence::Absence;
use self::backup_dir::BackupDir;
use self::diagnosis::{Depth, Health};
use self::layout::BACKUPS;
pub use self::signal::{SignalFile, Signals};
use self::state_file::StateFile;
use crate::audit::{Audit, AuditEntry, ErrorLog, ErrorLogEntry, Level};
use crate::document::body::Body;
use crate::document::seal::to_bytes;
use crate::document::{Reading, rules};
use crate::error::{Error, ExitCode, Kind, Result};
use crate::fs::{Dir, Disk, FileKind};
use crate::lock::{LockEnv, Locks};
use crate::{side, user};

/// Whether the command that meets damage heals it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AutoRecover {
    /// The command heals it.
    Yes,
    /// Only `state recover` heals.
    No,
}

/// Treatment of a document that another program changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForeignEdits {
    /// Commands refuse to work with it.
    Refuse,
    /// It is served with a warning, and the next write seals it if it satisfies the rules.
    Accept,
}

/// The location of a state and the options it is kept with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The directory of the state file.
    pub directory: PathBuf,
    /// The state file's name in it.
    pub file_name: OsString,
    /// The directory that `config/` lies in.
    pub root: PathBuf,
    /// The time that a writer waits for the lock.
    pub lock_timeout: Duration,
    /// Automatic backups to keep.
    pub max_backups: usize,
    /// Days after which an automatic backup goes.
    pub backup_days: u64,
    /// Whether commands heal damage when they meet it.
    pub auto_recover: AutoRecover,
    /// Treatment of foreign edits.
    pub foreign_edits: ForeignEdits,
    /// Lock ownership as the environment describes it.
    pub lock_env: LockEnv,
}

/// The state of one root.
#[derive(Debug)]
pub struct Store {
    disk: Disk,
    settings: Settings,
    audit: Rc<Audit>,
    locks: Locks,
    errors: ErrorLog,
    warnings: RefCell<Vec<String>>,
    last_warnings: RefCell<Vec<String>>,
    absence: Absence,
}

/// A document as a reader receives it.
#[derive(Debug)]
pub struct Served {
    /// The document, in today's form.
    pub value: Body,
    /// The output of `state read`: the file's own bytes where they have the current form.
    pub bytes: Bytes,
}

/// A file changed more recently than this may still be being written by an editor.
const QUIET: Duration = Duration::from_secs(1);
/// The time that a reader waits for the lock before it serves the copy that healing would restore.
const READER_PATIENCE: Duration = Duration::from_secs(1);

/// Attempts of a reader, if its file is replaced each time before it has read the backup directory.
const LOOKS: u32 = 100;

impl Store {
    /// The store that `settings` describe, on `disk`.
    pub fn new(disk: Disk, settings: Settings, audit: Audit) -> Self {
        let audit = Rc::new(audit);
        let locks =
            Locks::new(disk.clone(), &settings.directory, settings.lock_env.clone(), audit.clone());
        let errors = ErrorLog::new(disk.clone(), &settings.directory);
        Self {
            disk,
            settings,
            audit,
            locks,
            errors,
            warnings: RefCell::default(),
            last_warnings: RefCell::default(),
            absence: Absence::WaitedOut,
        }
    }

    /// The state file's path.
    pub fn path(&self) -> PathBuf {
        self.settings.directory.join(&self.settings.file_name)
    }

    /// The options that this store is kept with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The audit log.
    pub fn audit(&self) -> &Audit {
        &self.audit
    }

    /// The locks of this root.
    pub fn locks(&self) -> &Locks {
        &self.locks
    }

    /// The seam this store works through.
    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    /// Takes the warnings of this command: conditions that need attention but do not stop it.
    pub fn take_warnings(&self) -> Vec<String> {
        let mut warnings = std::mem::take(&mut *self.warnings.borrow_mut());
        warnings.extend(self.locks.take_warnings());
        warnings.extend(self.audit.warning().map(str::to_owned));
        warnings.append(&mut self.last_warnings.borrow_mut());
        warnings
    }

    fn warn(&self, warning: impl Into<String>) {
        let warning = warning.into();
        let mut warnings = self.warnings.borrow_mut();
        if !warnings.contains(&warning) {
            warnings.push(warning);
        }
    }

    /// Warns after all other warnings, at the end of the output, where it is seen first.
    fn warn_last(&self, warning: String) {
        let mut warnings = self.last_warnings.borrow_mut();
        if !warnings.contains(&warning) {
            warnings.push(warning);
        }
    }

    /// The live file, read without opening its directory first.
    fn live(&self) -> Result<Option<StateFile>> {
        StateFile::read(&self.disk, &Dir::working(), self.path().as_os_str())
    }

    fn shown(&self) -> String {
        self.path().display().to_string()
    }

    /// Reads the document. Damage is healed first; where that is impossible, the copy that healing
    /// would restore is served with a warning and nothing is changed.
    pub fn read(&self) -> Result<Served> {
        let decided = self.is_restore_decided();
        if decided.is_err() {
            self.live()?; // damage to the state itself is the better error
        }
        if decided? && let Some(served) = self.finish_for_reader()? {
            return Ok(served);
        }
        let mut looks = 0;
        loop {
            looks += 1;
            let live = self.live()?;
            self.warn_of_file(&live);
            let live = match self.plainly_healthy(live)? {
                Ok(served) => return Ok(served),
                Err(live) => live,
            };
            let backup_dir = self.backup_dir_to_read()?;
            // A commit between the two reads leaves a backup directory that does not match this
            // file.
            if looks < LOOKS && !self.is_still(live.as_ref())? {
                continue;
            }
            let health = self.diagnose(&live, &backup_dir, Depth::DigestOnly)?;
            if matches!(health, Health::Missing) && self.returns()? && looks < LOOKS {
                continue;
            }
            return match health {
                Health::Damaged(_)
                    if self.settings.auto_recover == AutoRecover::Yes
                        && self.has_copies(&backup_dir) =>
                {
                    self.read_healing(&backup_dir, &health)
                }
                health => self.serve(health, live, &backup_dir),
            };
        }
    }

    /// Returns whether the live file is still the one that was found. Checks the path that the user
    /// gave, not the opened directory, which may have been moved.
    fn is_still(&self, found: Option<&StateFile>) -> Result<bool> {
        let now = self.disk.stat(&Dir::working(), self.path())?;
        Ok(match (now, found) {
            (Some(now), Some(found)) => now.unchanged(&found.stat),
            (now, found) => now.is_none() && found.is_none(),
        })
    }

    /// Serves a healthy file after reading nothing but the file itself; otherwise returns the file.
    fn plainly_healthy(
        &self,
        live: Option<StateFile>,
    ) -> Result<std::result::Result<Served, Option<StateFile>>> {
        // A file with an unusual name may be the second state file of its directory.
        if self.settings.file_name != OsStr::new(layout::STATE_FILE) {
            self.backup_dir_to_read()?;
        }
        Ok(match live {
            Some(StateFile { reading: Reading::Sealed(document), bytes, .. })
                if rules::check(document.value.outline()).is_empty() =>
            {
                Ok(Served { value: document.value, bytes })
            }
            live => Err(live),
        })
    }

    fn serve(
        &self,
        health: Health,
        live: Option<StateFile>,
        backup_dir: &BackupDir,
    ) -> Result<Served> {
        match health {
            Health::Healthy(document) => {
                let bytes = match live {
                    Some(found) if document.older.is_none() => found.bytes,
                    _ => written(&document.value)?,
                };
                Ok(Served { value: document.value, bytes })
            }
            Health::Legacy(migrated) => serve_unsealed(migrated.value),
            Health::Foreign(edit) if self.settings.foreign_edits == ForeignEdits::Accept => {
                let Ok(migrated) = edit.acceptable() else {
                    return Err(self.refusal(&Health::Foreign(edit), backup_dir));
                };
                self.warn(format!(
                    "{} was changed by something else and is served as it is: {}",
                    self.shown(),
                    edit.summary()
                ));
                Ok(Served {
                    bytes: to_bytes(&migrated.value).unwrap_or_default().into(),
                    value: migrated.value.into(),
                })
            }
            health => Err(self.refusal(&health, backup_dir)),
        }
    }

    /// Returns whether the root has a history: a copy of the document, or a checkpoint.
    fn has_history(&self, backup_dir: &BackupDir) -> bool {
        backup_dir.has_history() || self.checkpoint_ids().is_ok_and(|ids| !ids.is_empty())
    }

    /// Diagnoses the live file. Checkpoints are examined only where nothing else is left.
    fn diagnose(
        &self,
        live: &Option<StateFile>,
        backup_dir: &BackupDir,
        look: Depth,
    ) -> Result<Health> {
        Ok(match diagnosis::diagnose(live, backup_dir, look)? {
            Health::NotInitialized if self.has_history(backup_dir) => Health::Missing,
            Health::Foreign(edit) => match live.as_ref().map(|found| &found.reading) {
                Some(Reading::Sealed(document)) if self.is_fresh(document) => {
                    Health::Healthy(document.clone())
                }
                _ => Health::Foreign(edit),
            },
            health => health,
        })
    }

    /// The error of a command that cannot work with this state; `None` where it can.
    fn refusal_of(&self, health: &Health, backup_dir: &BackupDir) -> Option<Error> {
        let restoring = match health {
            Health::Missing | Health::Damaged(_) | Health::Invalid(_) => self.restoring(),
            Health::Foreign(edit) if edit.reference.is_none() => self.restoring(),
            _ => None,
        };
        health.refusal(&self.shown(), backup_dir, restoring.as_deref())
    }

    fn refusal(&self, health: &Health, backup_dir: &BackupDir) -> Error {
        let fallback = || {
            Error::new(
                Kind::Internal,
                format!("{} cannot be used: {}", self.shown(), health.kind()),
            )
        };
        self.refusal_of(health, backup_dir).unwrap_or_else(fallback)
    }

    /// Opens the backup directory without changing anything, and checks that it belongs to this
    /// state file.
    fn backup_dir_to_read(&self) -> Result<BackupDir> {
        self.backup_dir_of(&self.open_root()?)
    }

    fn backup_dir_of(&self, root: &Dir) -> Result<BackupDir> {
        let backup_dir = BackupDir::open(&self.disk, root)
            .map_err(|error| side::refusal(root, BACKUPS, error))?;
        self.check_owner(&backup_dir)?;
        Ok(backup_dir)
    }

    fn open_root(&self) -> Result<Dir> {
        side::open_root(&self.disk, &self.settings.directory)
    }

    /// Warns of what the next write corrects. Does not warn about another tool's document.
    fn warn_of_file(&self, live: &Option<StateFile>) {
        let is_other_tools = |found: &&StateFile| match &found.reading {
            Reading::Unsealed(value) => value.get("phase").is_none(),
            _ => false,
        };
        let live = live.as_ref().filter(|found| !is_other_tools(found));
        if let Some(conversion) = live.and_then(|found| found.conversion) {
            let (shown, what) = (self.shown(), conversion.words());
            self.warn(format!(
                "{shown} has {what}, which this program did not write; the next write removes them"
            ));
        }
        if let Some(found) = live.filter(|found| found.stat.mode & 0o077 != 0) {
            let mode = found.stat.mode;
            self.warn(format!(
                "{} has mode {mode:04o}, looser than 0600; the next write tightens it",
                self.shown()
            ));
        }
    }

    fn entry(&self, level: Level, action: &str, text: &str) -> AuditEntry {
        AuditEntry::new(level, &format!("state-manager/{action}"), text)
    }

    /// Adds an entry to the error log with an exit code that need not be this program's, if this
    /// user owns the root.
    pub fn note_error(&self, level: Level, component: &str, message: &str, code: u8) {
        if self.root_owner() == Some(user::current()) {
            self.errors.note(level, component, message, code);
        }
    }

    /// Records in the error log how a wrapped command ended. The exit code is the command's own,
    /// not an error of this program.
    pub fn note_command(&self, component: &str, message: &str) {
        self.note_error(Level::Warn, component, message, ExitCode::Success as u8);
    }

    /// The last entries of the error log, oldest first.
    pub fn logged_errors(&self) -> Vec<ErrorLogEntry> {
        self.errors.last()
    }

    /// Records in the audit log that a recovery strategy was run.
    pub fn record_handling(&self, code: u8, outlook: &str) {
        if self.is_initialized() {
            let entry = self
                .recovery_entry(Level::Info, "handle", "handled")
                .with("code", code)
                .with("outlook", outlook);
            self.audit.record(&entry.with("pid", std::process::id()).with("path", self.shown()));
        }
    }

    /// Creates an empty error log where it is missing and this user owns the root.
    pub fn make_error_log(&self) {
        if self.root_owner() == Some(user::current()) {
            self.errors.make();
        }
    }

    /// Records in the audit log how often a command was retried, and its last exit code.
    pub fn record_retries(&self, program: &str, times: u32, code: u8) {
        if times > 0 && self.is_initialized() {
            let entry = self
                .recovery_entry(Level::Info, "retry", "retried")
                .with("times", times)
                .with("code", code);
            let entry = entry.with("program", program).with("pid", std::process::id());
            self.audit.record(&entry.with("path", self.shown()));
        }
    }

    /// Records in the audit log that a command was guarded, and its exit code.
    pub fn record_guard(&self, operation: &str, code: u8) {
        let entry =
            self.recovery_entry(Level::Info, "guard", "guarded").with("operation", operation);
        let entry = entry.with("code", code).with("pid", std::process::id());
        self.audit.record(&entry.with("path", self.shown()));
    }

    /// Records in the audit log what the doctor repaired, by the subjects of its findings.
    pub fn record_repairs(&self, subjects: &[&str], left: usize) {
        if self.is_initialized() {
            let entry = self
                .recovery_entry(Level::Info, "doctor", "mended")
                .with("fixed", subjects.join(","));
            let entry = entry.with("left", left).with("pid", std::process::id());
            self.audit.record(&entry.with("path", self.shown()));
        }
    }

    fn is_initialized(&self) -> bool {
        self.root_owner().is_some()
    }

    /// The owner of the root, if it is one. Files that root leaves in another user's root lock that
    /// user out.
    fn root_owner(&self) -> Option<u32> {
        let root = self.disk.open_root(&self.settings.directory).ok()?;
        let stat = self.disk.stat(&root, BACKUPS).ok()??;
        (stat.kind == FileKind::Directory).then_some(stat.uid)
    }

    /// Records a writer's failure in the logs, if this user owns the root. Invalid input is not
    /// recorded in the error log.
    pub fn record_refusal(&self, action: &str, error: &Error) {
        if !self.is_initialized() {
            return;
        }
        let code = error.code();
        let of_input = match code {
            ExitCode::General => {
                !matches!(error.kind, Kind::Io | Kind::DurabilityUnknown | Kind::Internal)
            }
            code => matches!(code, ExitCode::ValidationFailed | ExitCode::Conflict),
        };
        let level = if of_input { Level::Warn } else { Level::Error };
        let entry = self.entry(level, action, "refused").with("code", code as u8);
        let entry = entry.with("kind", error.kind.name()).with("pid", std::process::id());
        self.audit.record(&entry.with("path", self.shown()));
        if !of_input {
            self.note_error(Level::Error, action, &error.message, code as u8);
        }
    }
}

/// A document without a seal, for readers. Revision 0 lets a later write notice that the document
/// was sealed in between.
fn serve_unsealed(mut value: Value) -> Result<Served> {
    let fields = value.as_object_mut();
    let metadata =
        fields.map(|fields| fields.entry("metadata").or_insert_with(|| serde_json::json!({})));
    if let Some(metadata) = metadata.and_then(Value::as_object_mut) {
        metadata.insert("revision".into(), 0.into());
    }
    Ok(Served { bytes: written(&value)?, value: value.into() })
}

fn written(value: &Value) -> Result<Bytes> {
    let unwritable = || Error::new(Kind::Internal, "the document cannot be written as JSON");
    to_bytes(value).map(Bytes::from).ok_or_else(unwritable)
}
