//! The two logs: the audit log has a line for every commit, refusal, heal and adoption; the error
//! log, beside the state file, one for every error of the state itself. Lines are written after the
//! event, each by one `write`.
//!
//! The audit log's default place is a directory that every user may write to, so a file is used
//! only if it is a regular file of this user with one name that no other user may write; otherwise
//! a log in the root replaces it. A log that cannot be written is a warning and stops nothing. No
//! line holds contents of a document.

mod error_log;

use std::cell::OnceCell;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};

pub use self::error_log::{ErrorLog, ErrorLogEntry};
use crate::document::seal::{Lineage, Revision};
use crate::error::one_line;
use crate::fs::{Access, Dir, Disk, FsResult, Stat};
use crate::placement::is_kept_by_a_root;
use crate::time::rfc3339;

/// The log where no other is named.
pub const DEFAULT: &str = "/tmp/claude-pipeline-audit.log";
/// The log used where the configured one cannot be trusted, beside the state file.
pub const FALLBACK: &str = ".pipeline-audit.log";

/// The longest line of a log, in bytes. A line is written at once, and a reader of a log's end
/// reads many times as much.
pub const LINE_LIMIT: usize = 16 << 10;
/// The most bytes around the text of a line.
const FRAME: usize = 512;

/// Shortens a text to fit in a line, with `…` where something is missing.
fn fitted(text: String) -> String {
    if text.len() <= LINE_LIMIT - FRAME {
        return text;
    }
    let end =
        (0..=LINE_LIMIT - FRAME).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
    format!("{}…", text.get(..end).unwrap_or_default())
}

/// The severity of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// It succeeded.
    Info,
    /// It was refused, or repaired.
    Warn,
    /// It failed.
    Error,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Self::Info => "INFO",
            Self::Warn => "WARN",
            Self::Error => "ERROR",
        }
    }
}

/// One line: component, text, and facts as `key=value`.
#[derive(Debug)]
pub struct AuditEntry {
    level: Level,
    component: String,
    text: String,
}

impl AuditEntry {
    /// A line of `component` (`state-manager/update`) that says `text`.
    pub fn new(level: Level, component: &str, text: &str) -> Self {
        Self { level, component: component.to_owned(), text: one_line(text) }
    }

    /// Adds `key=value`; a value with spaces or quotes in it is quoted.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl ToString) -> Self {
        let _ = write!(self.text, " {}", fact(key, value));
        self
    }
}

/// `key=value` as written in a line.
pub fn fact(key: &str, value: impl ToString) -> String {
    let value = one_line(&value.to_string());
    let plain = !value.is_empty() && !value.contains([' ', '"', '=']);
    if plain { format!("{key}={value}") } else { format!("{key}={value:?}") }
}

/// A commit on record in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Its time, RFC 3339.
    pub time: String,
    /// Its revision.
    pub revision: Revision,
    /// Its reason.
    pub reason: String,
    /// The process that committed it.
    pub pid: u32,
    /// The command that committed it.
    pub command: String,
}

/// The audit log of one root.
#[derive(Debug)]
pub struct Audit {
    disk: Disk,
    path: PathBuf,
    fallback: PathBuf,
    /// The path is the default, so another user's log there needs no warning.
    is_default: bool,
    warning: OnceCell<String>,
}

impl Audit {
    /// The log at `path`, or in `root` where that cannot be trusted.
    pub fn new(disk: Disk, path: PathBuf, root: &Path) -> Self {
        let is_default = path == Path::new(DEFAULT);
        Self { disk, path, fallback: root.join(FALLBACK), is_default, warning: OnceCell::new() }
    }

    /// The configured path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The log in use: the one in the root where the configured one is unusable, as far as its
    /// metadata shows.
    pub fn used(&self) -> &Path {
        if self.is_replaced() || self.check().is_some() { &self.fallback } else { &self.path }
    }

    /// Returns whether the default log belongs to another user.
    fn is_replaced(&self) -> bool {
        let stat = || self.disk.stat(&Dir::working(), OsStr::new(&self.path)).ok().flatten();
        self.is_default && stat().is_some_and(|stat| stat.uid != crate::user::current())
    }

    /// The first problem with writing the log in this run.
    pub fn warning(&self) -> Option<&str> {
        self.warning.get().map(String::as_str)
    }

    /// The reason why the log cannot be used, as far as its metadata shows; a missing log can.
    pub fn check(&self) -> Option<String> {
        let stat = self.disk.stat(&Dir::working(), OsStr::new(&self.path));
        match stat {
            _ if self.path == Path::new("/dev/null") || self.is_replaced() => None,
            Ok(None)
                if self
                    .path
                    .parent()
                    .is_some_and(|parent| !parent.as_os_str().is_empty() && !parent.is_dir()) =>
            {
                Some(format!("{} is not in a directory", self.path.display()))
            }
            Ok(None) => None,
            Ok(Some(stat)) => {
                untrusted_reason(&stat).map(|why| format!("{} {why}", self.path.display()))
            }
            Err(error) => Some(error.to_string()),
        }
    }

    /// Appends a line. It never fails: see [`Audit::warning`].
    pub fn record(&self, entry: &AuditEntry) {
        let text = fitted(entry.text.clone());
        let line = format!(
            "{} [{}] {}: {text}\n",
            rfc3339(self.disk.now()),
            entry.level.name(),
            entry.component
        );
        tracing::info!("{}: {}", entry.component, entry.text);
        if self.path == Path::new("/dev/null") {
            return; // this path switches the log off
        }
        let Err(why) = open(&self.disk, &self.path)
            .and_then(|file| append_to(&self.disk, &file, &self.path, &line))
        else {
            return;
        };
        let root = self.fallback.parent().unwrap_or(Path::new("."));
        let found = self.disk.stat(&Dir::working(), root).ok().flatten();
        let is_ours = found.is_some_and(|stat| stat.uid == crate::user::current());
        let outcome = match is_ours.then(|| append(&self.disk, &self.fallback, &line)) {
            Some(Ok(())) if self.is_replaced() => return,
            Some(Ok(())) => format!("{} is used instead", self.fallback.display()),
            _ => "nothing was logged".to_owned(),
        };
        let _ = self.warning.set(format!("the audit log cannot be used: {why}; {outcome}"));
    }

    /// The commits of a lineage to the state file at `path`, from both logs, oldest
    /// first. A copy of the root has the lineage, and another path.
    pub fn commits(&self, lineage: &Lineage, path: &str) -> Vec<Committed> {
        let mut commits = Vec::new();
        let path = format!(" {}", fact("path", path));
        self.each_line(&[format!("lineage={lineage}")], &mut |line| {
            commits.extend(parse_commit(line).filter(|_| line.ends_with(&path)));
        });
        commits.sort_by(|a, b| (a.revision, &a.time).cmp(&(b.revision, &b.time)));
        commits
    }

    /// Visits each line that holds one of these facts. The logs may be large, so they are streamed.
    pub fn each_line(&self, facts: &[String], visit: &mut dyn FnMut(&str)) {
        for path in [&self.path, &self.fallback] {
            if let Ok(Some(file)) = open_to_read(&self.disk, path) {
                for line in
                    BufReader::with_capacity(1 << 16, file).split(b'\n').map_while(Result::ok)
                {
                    let holds =
                        |fact: &String| memchr::memmem::find(&line, fact.as_bytes()).is_some();
                    if facts.iter().any(holds) {
                        visit(&String::from_utf8_lossy(&line));
                    }
                }
            }
        }
    }
}

fn open_to_read(disk: &Disk, path: &Path) -> FsResult<Option<File>> {
    let Some(file) = disk.open(&Dir::working(), OsStr::new(path), Access::Read)? else {
        return Ok(None);
    };
    let stat = disk.fstat(&file, path)?;
    Ok(untrusted_reason(&stat).is_none().then_some(file))
}

/// Opens a log by its path for appending, if it can be trusted, and creates it where it is missing.
/// The error is a sentence.
pub fn open(disk: &Disk, path: &Path) -> Result<File, String> {
    let file = open_own(disk, path)?;
    is_no_file_of_a_root(&file)?;
    Ok(file)
}

fn open_own(disk: &Disk, path: &Path) -> Result<File, String> {
    let (file, _) = disk.open_or_make(&Dir::working(), path).map_err(|error| error.to_string())?;
    let stat = disk.fstat(&file, path).map_err(|error| error.to_string())?;
    untrusted_reason(&stat).map_or(Ok(file), |why| Err(format!("{} {why}", path.display())))
}

/// Refuses a file that a root keeps: a link in the log's path may lead there.
fn is_no_file_of_a_root(file: &File) -> Result<(), String> {
    match crate::os::files::path_of(file) {
        Ok(path) if is_kept_by_a_root(&path) => {
            Err(format!("{} is one of the files of a state, or is among them", path.display()))
        }
        _ => Ok(()),
    }
}

fn append(disk: &Disk, path: &Path, line: &str) -> Result<(), String> {
    append_to(disk, &open_own(disk, path)?, path, line)
}

fn append_to(disk: &Disk, file: &File, path: &Path, line: &str) -> Result<(), String> {
    // One write, so that the lines of concurrent processes never mix.
    disk.write(file, path, line.as_bytes()).map_err(|error| error.to_string())
}

/// The reason why a file must not be used as a log, if there is one.
fn untrusted_reason(stat: &Stat) -> Option<&'static str> {
    let is_loose = stat.mode & 0o022 != 0;
    stat.untrusted_reason().or(is_loose.then_some("may be written by others"))
}

/// A parsed line of the log.
#[derive(Clone, Copy, Debug)]
pub struct AuditLine<'a> {
    /// Its time, RFC 3339.
    pub time: &'a str,
    /// Its component: `state-manager/update`.
    component: &'a str,
    /// Its text and facts.
    text: &'a str,
}

/// What a line reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reported<'a> {
    /// A lock was granted.
    Granted,
    /// A lock was not granted.
    NotGranted,
    /// An action committed a revision.
    Committed(&'a str),
    /// A backup was made on purpose.
    BackedUp,
    /// A checkpoint was restored.
    Restored,
    /// An interrupted restore was undone.
    Undone,
    /// A recovery strategy was run.
    Handled,
    /// A command was guarded.
    Guarded,
    /// A command was retried.
    Retried,
}

impl<'a> AuditLine<'a> {
    /// Parses a line; `None` if this program did not write it.
    pub fn parse(line: &'a str) -> Option<Self> {
        let (time, rest) = line.split_once(" [")?;
        let (_, rest) = rest.split_once("] ")?;
        let (component, text) = rest.split_once(": ")?;
        Some(Self { time, component, text })
    }

    /// What it reports, if this program counts that.
    pub fn report(&self) -> Option<Reported<'a>> {
        let (group, action) = self.component.split_once('/')?;
        let verb = self.text.split(' ').next()?;
        Some(match (group, action, verb) {
            ("lock-manager", "acquire", "granted") => Reported::Granted,
            ("lock-manager", "acquire", _) => Reported::NotGranted,
            ("state-manager", _, "committed") => Reported::Committed(action),
            ("state-manager", "backup", "made") => Reported::BackedUp,
            ("error-recovery", "restore", "restored") => Reported::Restored,
            ("error-recovery", "restore", "undone") => Reported::Undone,
            ("error-recovery", "handle", "handled") => Reported::Handled,
            ("error-recovery", "guard", "guarded") => Reported::Guarded,
            ("error-recovery", "retry", "retried") => Reported::Retried,
            _ => return None,
        })
    }

    /// The value of a fact, if it is plain, or quoted without inner quotes.
    pub fn fact(&self, key: &str) -> Option<&'a str> {
        let (_, value) = self.text.split_once(&format!(" {key}="))?;
        match value.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').map(|(value, _)| value),
            None => value.split(' ').next(),
        }
    }
}

/// Parses a line about a commit.
fn parse_commit(line: &str) -> Option<Committed> {
    let line = AuditLine::parse(line)?;
    let Some(Reported::Committed(_)) = line.report() else { return None };
    Some(Committed {
        time: line.time.to_owned(),
        revision: Revision::new(line.fact("revision")?.parse().ok()?)?,
        reason: line.fact("reason")?.to_owned(),
        pid: line.fact("pid")?.parse().ok()?,
        command: line.fact("command")?.to_owned(),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn log_in(dir: &Path, name: &str) -> Audit {
        Audit::new(Disk::real(), dir.join(name), dir)
    }

    fn entry() -> AuditEntry {
        AuditEntry::new(Level::Info, "state-manager/update", "committed")
            .with("revision", 3)
            .with("reason", "a b")
            .with("lineage", Lineage::from_bytes([1; 16]))
            .with("pid", 7)
            .with("command", "state update")
            .with("path", "/p/state.json")
    }

    #[test]
    fn a_line_reads_back_and_stays_one_line() {
        let dir = tempfile::tempdir().unwrap();
        let log = log_in(dir.path(), "audit.log");
        log.record(&entry());
        log.record(
            &AuditEntry::new(Level::Info, "state-manager/update", "refused")
                .with("note", "x\nforged line"),
        );
        let text = std::fs::read_to_string(dir.path().join("audit.log")).unwrap();
        assert_eq!(text.lines().count(), 2);
        let commits = log.commits(&Lineage::from_bytes([1; 16]), "/p/state.json");
        assert_eq!(
            (commits[0].reason.as_str(), commits[0].command.as_str()),
            ("a b", "state update")
        );
        assert_eq!(log.commits(&Lineage::from_bytes([2; 16]), "/p/state.json"), []);
        assert_eq!(log.commits(&Lineage::from_bytes([1; 16]), "/copy/p/state.json"), []);
    }

    #[test]
    fn another_users_default_log_needs_no_warning() {
        if !rustix::process::geteuid().is_root() {
            return eprintln!("skipped: only root can give a file away");
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        std::fs::write(&path, "").unwrap();
        std::os::unix::fs::chown(&path, Some(65534), None).unwrap();
        let log = Audit { is_default: true, ..log_in(dir.path(), "audit.log") };
        log.record(&entry());
        assert_eq!((log.warning(), log.check()), (None, None));
        assert_eq!(log.used(), dir.path().join(FALLBACK));
        assert_eq!(log.commits(&Lineage::from_bytes([1; 16]), "/p/state.json").len(), 1);
        let named = log_in(dir.path(), "audit.log");
        named.record(&entry());
        assert!(named.warning().unwrap().contains("another user"));
        assert_eq!(named.used(), dir.path().join(FALLBACK));
    }

    #[test]
    fn a_log_that_others_could_have_prepared_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("victim"), "").unwrap();
        symlink(at("victim"), at("symlink")).unwrap();
        std::fs::hard_link(at("victim"), at("hardlink")).unwrap();
        std::fs::write(at("writable"), "").unwrap();
        std::fs::set_permissions(at("writable"), PermissionsExt::from_mode(0o666)).unwrap();
        std::fs::create_dir(at("directory")).unwrap();
        for name in ["symlink", "hardlink", "writable", "directory", "missing/log"] {
            let log = log_in(dir.path(), name);
            log.record(&entry());
            assert!(log.warning().unwrap().contains(FALLBACK), "{name}");
        }
        assert_eq!(std::fs::read_to_string(at("victim")).unwrap(), "");
        assert_eq!(std::fs::read_to_string(at(FALLBACK)).unwrap().lines().count(), 5);
    }
}
