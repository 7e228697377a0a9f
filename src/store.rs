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
mod adopt;
pub mod backup_dir;
pub mod backups;
mod belongs;
mod candidate;
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
mod read;
mod record;
pub mod report;
pub mod restore;
pub mod signal;
mod staging;
pub mod state_file;
mod state_lock;
pub mod trace;
mod transaction;
pub mod writable;

use std::cell::RefCell;
use std::ffi::OsString;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use self::absence::Absence;
use self::backup_dir::BackupDir;
pub use self::candidate::Wanted;
use self::diagnosis::{Depth, Health};
use self::layout::BACKUPS;
use self::observe::Observation;
pub use self::read::Served;
use self::read::{READER_PATIENCE, written};
pub use self::signal::{SignalFile, Signals};
use self::state_file::StateFile;
use crate::audit::{Audit, AuditEntry, ErrorLog, ErrorLogEntry, Level};
use crate::document::Reading;
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

    /// Returns whether the live file is still the one that was found. Checks the path that the user
    /// gave, not the opened directory, which may have been moved.
    fn is_still(&self, found: Option<&StateFile>) -> Result<bool> {
        let now = self.disk.stat(&Dir::working(), self.path())?;
        Ok(match (now, found) {
            (Some(now), Some(found)) => now.unchanged(&found.stat),
            (now, found) => now.is_none() && found.is_none(),
        })
    }

    /// Returns whether the root has a history: a copy of the document, or a checkpoint.
    fn has_history(&self, backup_dir: &BackupDir) -> bool {
        backup_dir.has_history() || self.checkpoint_ids().is_ok_and(|ids| !ids.is_empty())
    }

    /// Diagnoses a live file. Checkpoints are examined only where nothing else is left.
    fn diagnose(
        &self,
        live: Option<StateFile>,
        backup_dir: BackupDir,
        depth: Depth,
    ) -> Result<Observation<'_>> {
        let health = match diagnosis::diagnose(&live, &backup_dir, depth)? {
            Health::NotInitialized if self.has_history(&backup_dir) => Health::Missing,
            Health::Foreign(edit) => match live.as_ref().map(|found| &found.reading) {
                Some(Reading::Sealed(document)) if self.is_fresh(document) => {
                    Health::Healthy(document.clone())
                }
                _ => Health::Foreign(edit),
            },
            health => health,
        };
        Ok(Observation { store: self, live, backup_dir, health })
    }

    /// Observes the root without a lock and without changing anything.
    fn observe(&self, depth: Depth) -> Result<Observation<'_>> {
        self.diagnose(self.live()?, self.backup_dir_to_read()?, depth)
    }

    /// Observes and compares with the mirror.
    fn examine(&self) -> Result<Observation<'_>> {
        self.observe(Depth::WithMirror)
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
