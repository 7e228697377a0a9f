//! A check of everything, told to a tired operator: what is wrong, how bad that is, and what to type.
//!
//! Looking changes nothing. `--fix` does what every writer would do on its way (heal damage, finish an interrupted restore,
//! renew the mirror, clear leftovers), drops the locks of the dead and takes from others what they may read of ours. What
//! takes a decision is left to a person: edits, deletions, damaged copies, locks of the unknown.

mod checks;

use serde::Serialize;

use crate::error::{Error, ExitCode, Hint, Result, work_as};
use crate::fs::{Dir, FileKind};
use crate::lock::request::Deadline;
use crate::side;
use crate::store::Store;

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is about: state, mirror, backups, locks …
    pub subject: &'static str,
    /// What is wrong, in a sentence.
    pub message: String,
    /// The exit code that commands end with for it, or would.
    pub code: ExitCode,
    /// What to do about it, best first.
    pub remedies: Vec<Hint>,
    /// Who can do that.
    pub mending: Mending,
}

/// Who can mend something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mending {
    /// `recover doctor --fix`: nothing can be lost by it.
    Safe,
    /// Somebody who knows what was meant.
    Person,
}

/// A file or directory of ours that others may read.
#[derive(Debug)]
struct Loose {
    path: String,
    mode: u32,
}

/// What was found, and what was looked at.
#[derive(Debug, Default)]
pub struct Report {
    /// What is wrong; the worst first.
    pub findings: Vec<Finding>,
    /// What was mended: findings that are gone.
    pub fixed: Vec<Finding>,
}

/// Checks everything and changes nothing.
pub fn examine(store: &Store) -> Report {
    let mut findings = checks::all(store).findings;
    findings.sort_by_key(|finding| badness(finding.code));
    Report { findings, fixed: Vec::new() }
}

/// Checks everything, does what is safe, and checks again. What could not be done is among the findings.
pub fn mend(store: &Store) -> Report {
    let before = checks::all(store);
    let mut failed = Vec::new();
    let mut attempt = |what: &'static str, result: Result<()>| {
        failed.extend(result.err().map(|error| Finding::of(what, error)));
    };
    let wanted = |subject: &[&str]| {
        before.findings.iter().any(|finding| finding.mending == Mending::Safe && subject.contains(&finding.subject))
    };
    for Loose { path, mode } in &before.loose {
        attempt("modes", tighten(store, path, *mode));
    }
    if wanted(&["state", "mirror", "leftovers", "restore"]) {
        attempt("state", store.tidy());
    }
    if wanted(&["locks"]) {
        let deadline = Deadline::after(store.settings().lock_timeout).at;
        attempt("locks", store.locks().clean(deadline).map(|_| ()));
    }
    let after = examine(store);
    let is_fixed = |finding: &&Finding| finding.mending == Mending::Safe && !after.findings.contains(finding);
    let fixed = before.findings.iter().filter(is_fixed).cloned().collect();
    let mut findings = after.findings;
    for finding in failed {
        if !findings.iter().any(|found| found.message == finding.message) {
            findings.push(finding);
        }
    }
    findings.sort_by_key(|finding| badness(finding.code));
    Report { findings, fixed }
}

/// Takes from others what they may do with a file of ours: one beside the state, or in a side directory.
fn tighten(store: &Store, path: &str, mode: u32) -> Result<()> {
    let disk = store.disk();
    let root = side::open_root(disk, &store.settings().directory)?;
    let set = |dir: &Dir, name: &str| match disk.stat(dir, name)? {
        Some(stat) if stat.kind != FileKind::Symlink => Ok(disk.set_mode(dir, name, &stat, mode)?),
        _ => Ok(()), // it is another by now
    };
    match path.split_once('/') {
        None => set(&root, path),
        Some((side, name)) => side::open_to_read(disk, &root, side)?.map_or(Ok(()), |dir| set(&dir, name)),
    }
}

impl Finding {
    fn new(subject: &'static str, code: ExitCode, message: impl Into<String>) -> Self {
        Self { subject, message: message.into(), code, remedies: Vec::new(), mending: Mending::Person }
    }

    /// What a command would be refused for, or what kept the check from being made. A hint that names
    /// this command stands for what root left here; the remedy is to work as root.
    fn of(subject: &'static str, error: Error) -> Self {
        let is_this = |hint: &Hint| matches!(hint, Hint::Run(arguments, _) if arguments == "recover doctor");
        let remedy = |hint: &Hint| if is_this(hint) { work_as(0) } else { hint.clone() };
        let remedies = error.hints.iter().map(remedy).collect();
        Self { remedies, ..Self::new(subject, error.code(), error.message) }
    }

    fn try_command(mut self, arguments: impl Into<String>, why: impl Into<String>) -> Self {
        self.remedies.push(Hint::Run(arguments.into(), why.into()));
        self
    }

    fn try_shell(mut self, command: impl Into<String>, why: impl Into<String>) -> Self {
        self.remedies.push(Hint::Shell(command.into(), why.into()));
        self
    }

    /// It can be mended without asking; the remedy is this program's.
    fn safe(mut self) -> Self {
        self.mending = Mending::Safe;
        self.remedies.insert(0, Hint::Run("recover doctor --fix".to_owned(), String::new()));
        self
    }
}

impl Report {
    /// The code of the worst finding.
    #[must_use]
    pub fn code(&self) -> ExitCode {
        self.findings.first().map_or(ExitCode::Success, |worst| worst.code)
    }

    /// How many of the findings can be mended without asking.
    #[must_use]
    pub fn safe(&self) -> usize {
        self.findings.iter().filter(|finding| finding.mending == Mending::Safe).count()
    }
}

/// The order of codes by how bad they are: what may cost data, what stops all work, what stops some of it, the rest.
fn badness(code: ExitCode) -> usize {
    use ExitCode::{
        DependencyMissing, DiskFull, LockTimeout, PermissionDenied, ResourceExhausted, StateCorruption, Timeout,
        ValidationFailed,
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
