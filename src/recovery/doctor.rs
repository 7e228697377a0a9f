//! A check of everything, reported to a tired operator: the problems, their severity, and the
//! commands to type.
//!
//! Checking changes nothing but a scratch directory, which is removed ([`trials`]). `--fix` does
//! the housekeeping of a writer (heals damage, finishes an interrupted restore, renews the mirror,
//! removes leftovers), drops the locks of dead owners and removes other users' access to this
//! program's files. What needs a decision is left to an operator: edits, deletions, damaged copies,
//! locks with an unknown owner.

mod checks;
#[cfg(feature = "etcd")]
pub mod cluster;
mod trials;

use serde::Serialize;

use crate::error::{Error, ExitCode, Hint, Kind, Result};
use crate::fs::{Dir, FileKind};
use crate::lock::Deadline;
use crate::store::FileStore;
use crate::store::guard::{OnRecord, Standing};
use crate::{side, user};

pub use self::trials::{Answer, Place, Trial, Trials};

/// A problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Its subject.
    pub subject: Subject,
    /// The problem in a sentence.
    pub message: String,
    /// The exit code that commands end with because of it, or would.
    pub code: ExitCode,
    /// The kind of the error that it reports.
    kind: Kind,
    /// The remedies, best first.
    pub remedies: Vec<Hint>,
    /// The message of the error that it reports: one error is one finding, whichever checks meet
    /// it.
    cause: Option<String>,
    /// Whether the program can repair it.
    pub fix: Fix,
}

/// The subject of a finding; `recover doctor` shows it by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// Copies in the backup directory.
    Backups,
    /// Checkpoints.
    Checkpoints,
    /// Times in the future.
    Clock,
    /// The directory `config/`.
    Config,
    /// Degraded mode.
    Degraded,
    /// Free space and inodes.
    Disk,
    /// Places that other files take.
    Files,
    /// Guards on record.
    Guards,
    /// Files of killed commands.
    Leftovers,
    /// Lock records.
    Locks,
    /// The audit log and the error log.
    Logs,
    /// What the machine or its file system cannot do.
    Machine,
    /// Members of the cluster that keeps the state.
    Members,
    /// The mirror.
    Mirror,
    /// Permissions.
    Modes,
    /// Owners of files.
    Owners,
    /// Interrupted or impossible restores.
    Restore,
    /// The hooks' rules.
    Rules,
    /// Configuration files and the store that they name.
    Settings,
    /// Signals and their files.
    Signals,
    /// The state file.
    State,
    /// What keeps writers out.
    Writing,
}

impl Subject {
    /// Its name, in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Backups => "backups",
            Self::Checkpoints => "checkpoints",
            Self::Clock => "clock",
            Self::Config => "config",
            Self::Degraded => "degraded",
            Self::Disk => "disk",
            Self::Files => "files",
            Self::Guards => "guards",
            Self::Leftovers => "leftovers",
            Self::Locks => "locks",
            Self::Logs => "logs",
            Self::Machine => "machine",
            Self::Members => "members",
            Self::Mirror => "mirror",
            Self::Modes => "modes",
            Self::Owners => "owners",
            Self::Restore => "restore",
            Self::Rules => "rules",
            Self::Settings => "settings",
            Self::Signals => "signals",
            Self::State => "state",
            Self::Writing => "writing",
        }
    }
}

/// Whether the program or an operator repairs a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Fix {
    /// `recover doctor --fix`: it cannot lose data.
    #[serde(rename = "automatic")]
    Automatic,
    /// An operator, since the program cannot know what was intended.
    #[serde(rename = "manual")]
    Manual,
}

/// A file or directory of this program that other users may access.
#[derive(Debug)]
struct LoosePermissions {
    path: String,
    mode: u32,
}

/// The results of a check.
#[derive(Debug, Default)]
pub struct Report {
    /// The problems; the worst first.
    pub findings: Vec<Finding>,
    /// Repaired problems: findings that are gone.
    pub fixed: Vec<Finding>,
    /// What was tried, and the answers.
    pub trials: Trials,
}

/// Checks everything, and changes nothing but a scratch directory.
pub fn examine(store: &FileStore) -> Report {
    let mut findings = checks::all(store).findings;
    let (trials, failures) = trials::run(store);
    for failure in failures {
        if !failure.is_explained_by(&findings) {
            findings.push(failure);
        }
    }
    findings.sort_by_key(|finding| severity(finding.code));
    Report { findings, fixed: Vec::new(), trials }
}

/// Checks everything, makes the safe repairs, and checks again. Failed repairs are among the
/// findings.
pub fn repair(store: &FileStore) -> Report {
    let before = checks::all(store);
    let mut failed = Vec::new();
    let mut attempt = |what: Subject, result: Result<()>| {
        failed.extend(result.err().map(|error| Finding::of(what, error)));
    };
    let wanted = |subject: &[Subject]| {
        before
            .findings
            .iter()
            .any(|finding| finding.fix == Fix::Automatic && subject.contains(&finding.subject))
    };
    for LoosePermissions { path, mode } in &before.loose {
        attempt(Subject::Modes, tighten(store, path, *mode));
    }
    if wanted(&[Subject::State, Subject::Mirror, Subject::Leftovers, Subject::Restore]) {
        attempt(Subject::State, store.lineages().run_housekeeping());
    }
    if wanted(&[Subject::Locks]) {
        let deadline = Deadline::after(store.settings().lock_timeout).at;
        attempt(Subject::Locks, store.locks().clean(deadline).map(|_| ()));
    }
    let after = examine(store);
    let is_fixed =
        |finding: &&Finding| finding.fix == Fix::Automatic && !after.findings.contains(finding);
    let fixed = before.findings.iter().filter(is_fixed).cloned().collect();
    let mut findings = after.findings;
    for finding in failed {
        if !findings.iter().any(|found| found.cause == finding.cause) {
            findings.push(finding);
        }
    }
    findings.sort_by_key(|finding| severity(finding.code));
    Report { findings, fixed, trials: after.trials }
}

/// Removes other users' access to a file of this program: one beside the state, or in a side
/// directory.
fn tighten(store: &FileStore, path: &str, mode: u32) -> Result<()> {
    let disk = store.disk();
    let root = side::open_root(disk, &store.settings().directory)?;
    let set = |dir: &Dir, name: &str| match disk.stat(dir, name)? {
        Some(stat) if stat.kind != FileKind::Symlink => Ok(disk.set_mode(dir, name, &stat, mode)?),
        _ => Ok(()), // another file by now
    };
    match path.split_once('/') {
        None => set(&root, path),
        Some((side, name)) => {
            side::open_to_read(disk, &root, side)?.map_or(Ok(()), |dir| set(&dir, name))
        }
    }
}

impl Report {
    /// Adds what stops other commands before they reach the store.
    pub fn add(&mut self, subject: Subject, errors: &[Error]) {
        let finding = |error: &Error| Finding {
            remedies: error.hints.clone(),
            ..Finding::new(subject, error.code(), error.message.clone())
        };
        self.findings.extend(errors.iter().map(finding));
        self.findings.sort_by_key(|finding| severity(finding.code));
    }
}

impl Finding {
    fn new(subject: Subject, code: ExitCode, message: impl Into<String>) -> Self {
        Self {
            subject,
            message: message.into(),
            code,
            kind: Kind::of_code(code),
            remedies: Vec::new(),
            cause: None,
            fix: Fix::Manual,
        }
    }

    /// The finding for an error that a command would end with, or that stopped the check. A hint
    /// that leads here means that root left the files; the remedy is to work as root.
    fn of(subject: Subject, error: Error) -> Self {
        let remedy = |hint: &Hint| match hint {
            Hint::FilesOfRoot => user::work_as(0),
            hint => hint.clone(),
        };
        let remedies = error.hints.iter().map(remedy).collect();
        let cause = Some(error.message.clone());
        let finding = Self::new(subject, error.code(), error.message);
        Self { remedies, cause, kind: error.kind, ..finding }
    }

    /// The problem with a guard on record, if there is one.
    fn of_guard(guard: &OnRecord) -> Option<Self> {
        let problem = guard.problem()?;
        let code = match guard.standing {
            Standing::Unknown => ExitCode::General,
            _ => ExitCode::StateCorruption,
        };
        Some(Self { remedies: guard.hints(), ..Self::new(Subject::Guards, code, problem) })
    }

    /// The kind of error that it is. What an error means here may have another code.
    pub fn kind(&self) -> Kind {
        Some(self.kind).filter(|kind| kind.code() == self.code).unwrap_or(Kind::of_code(self.code))
    }

    /// Returns whether it reports this error.
    fn is_of(&self, error: &Error) -> bool {
        self.cause.as_ref() == Some(&error.message)
    }

    /// Returns whether one of these has the same cause, or is about what keeps a restore out.
    fn is_explained_by(&self, findings: &[Self]) -> bool {
        let explains_restore =
            [Subject::Restore, Subject::Owners, Subject::Modes, Subject::Files, Subject::State];
        findings.iter().any(|found| {
            found.cause.is_some() && found.cause == self.cause
                || self.code == ExitCode::DiskFull && found.code == ExitCode::DiskFull
                || self.subject == Subject::Restore && explains_restore.contains(&found.subject)
        })
    }

    /// Puts the error's effect here before its message.
    fn saying(self, message: String) -> Self {
        Self { message, ..self }
    }

    fn hint_command(mut self, arguments: impl Into<String>, why: impl Into<String>) -> Self {
        self.remedies.push(Hint::Command(arguments.into(), why.into()));
        self
    }

    #[cfg(feature = "etcd")]
    fn hint_etcdctl(mut self, arguments: impl Into<String>, why: impl Into<String>) -> Self {
        self.remedies.push(Hint::Etcdctl(arguments.into(), why.into()));
        self
    }

    fn hint_shell(mut self, command: impl Into<String>, why: impl Into<String>) -> Self {
        self.remedies.push(Hint::Shell(command.into(), why.into()));
        self
    }

    /// Marks it as safe to repair; the remedy is this program's.
    fn automatic(mut self) -> Self {
        self.fix = Fix::Automatic;
        self.remedies.insert(0, Hint::Command("recover doctor --fix".to_owned(), String::new()));
        self
    }
}

impl Report {
    /// The code of the worst finding.
    pub fn code(&self) -> ExitCode {
        self.findings.first().map_or(ExitCode::Success, |worst| worst.code)
    }

    /// The number of findings that are safe to repair.
    pub fn automatic(&self) -> usize {
        self.findings.iter().filter(|finding| finding.fix == Fix::Automatic).count()
    }
}

/// The severity of a code: loss of data first, then codes that stop all work, then those that stop
/// some, then the rest.
fn severity(code: ExitCode) -> usize {
    use ExitCode::{
        DependencyMissing, DiskFull, LockTimeout, PermissionDenied, ResourceExhausted,
        StateCorruption, Timeout, ValidationFailed,
    };
    let order = [
        StateCorruption,
        PermissionDenied,
        DiskFull,
        ValidationFailed,
        DependencyMissing,
        ResourceExhausted,
        LockTimeout,
        Timeout,
    ];
    order.iter().position(|other| *other == code).unwrap_or(order.len())
}
