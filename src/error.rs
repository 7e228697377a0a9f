//! The error table: every failure has one exit code, one sentence and a next step (promise P6).
//!
//! [`Kind`] is what scripts may rely on in JSON; [`ExitCode`] is what they see from `$?`. The numbers of
//! the program stand here and nowhere else. Code that meets a failure names its [`Kind`]; the mapping to
//! a number follows from it.

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use rustix::io::Errno;
use serde_json::{Value, json};

use crate::fs::FsError;

/// The exit codes of the program. 0–10 are the seed's table, 64 is `EX_USAGE` of `sysexits.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    /// Done.
    Success = 0,
    /// Anything without a code of its own, and the negative answer of a question.
    General = 1,
    /// A lock was not acquired in time, or waiting for it would deadlock.
    LockTimeout = 2,
    /// The state is damaged and was not healed, was edited by hand, or is missing.
    StateCorruption = 3,
    /// A name, document, JSON text or filter breaks its rules.
    ValidationFailed = 4,
    /// A program or file that is needed is not there.
    DependencyMissing = 5,
    /// The operating system forbids it, or doing it would be unsafe.
    PermissionDenied = 6,
    /// No space, quota or permitted file size is left.
    DiskFull = 7,
    /// A remote store is out of reach.
    NetworkError = 8,
    /// A wait that is not for a lock ran out.
    Timeout = 9,
    /// Descriptors, memory or processes ran out.
    ResourceExhausted = 10,
    /// The command line or the environment cannot be understood.
    Usage = 64,
    /// A command that was to be run cannot be executed: the shell's code for it.
    NotExecutable = 126,
    /// A command that was to be run does not exist: the shell's code for it.
    CommandNotFound = 127,
}

impl ExitCode {
    /// The code of this number, if it is one of ours.
    #[must_use]
    pub fn of(code: u8) -> Option<Self> {
        use ExitCode::{
            CommandNotFound, DependencyMissing, DiskFull, General, LockTimeout, NetworkError, NotExecutable,
            PermissionDenied, ResourceExhausted, StateCorruption, Success, Timeout, Usage, ValidationFailed,
        };
        let all = [
            Success,
            General,
            LockTimeout,
            StateCorruption,
            ValidationFailed,
            DependencyMissing,
            PermissionDenied,
            DiskFull,
            NetworkError,
            Timeout,
            ResourceExhausted,
            Usage,
            NotExecutable,
            CommandNotFound,
        ];
        all.into_iter().find(|known| *known as u8 == code)
    }

    /// The code's name, as in the seed's table.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Success => "SUCCESS",
            Self::General => "GENERAL_ERROR",
            Self::LockTimeout => "LOCK_TIMEOUT",
            Self::StateCorruption => "STATE_CORRUPTION",
            Self::ValidationFailed => "VALIDATION_FAILED",
            Self::DependencyMissing => "DEPENDENCY_MISSING",
            Self::PermissionDenied => "PERMISSION_DENIED",
            Self::DiskFull => "DISK_FULL",
            Self::NetworkError => "NETWORK_ERROR",
            Self::Timeout => "TIMEOUT",
            Self::ResourceExhausted => "RESOURCE_EXHAUSTED",
            Self::Usage => "USAGE",
            Self::NotExecutable => "NOT_EXECUTABLE",
            Self::CommandNotFound => "COMMAND_NOT_FOUND",
        }
    }
}

/// Why something failed; refines the exit code and is stable in JSON output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The command line or environment cannot be understood.
    Usage,
    /// There is no state here and never was.
    NotInitialized,
    /// Somebody committed meanwhile.
    Conflict,
    /// The named thing does not exist.
    NotFound,
    /// The change is in place, but the disk did not confirm it.
    DurabilityUnknown,
    /// The operating system reported an error without a code of its own.
    Io,
    /// A defect of this program.
    Internal,
    /// A program that was run failed.
    CommandFailed,
    /// A check found something that is not as it should be.
    Findings,
    /// A lock is held by somebody else.
    NotOwner,
    /// A lock is held by the same owner or an ancestor already.
    AlreadyHeld,
    /// A lock was asked for that comes before one that is held.
    LockOrder,
    /// A grant without which nothing was to be written is no longer on record.
    Fenced,
    /// A lock was not acquired in time.
    LockTimeout,
    /// Waiting for a lock would never end.
    Deadlock,
    /// The state cannot be read as a document.
    Corrupt,
    /// The state was changed by something other than this program.
    ForeignEdit,
    /// The state file is gone although its history is here.
    Missing,
    /// No valid copy is left to restore.
    NothingToRestore,
    /// The document breaks the schema's rules.
    Schema,
    /// The document was written by a newer program.
    NewerSchema,
    /// A JSON text cannot be parsed.
    InvalidJson,
    /// A filter does not compile, fails, or yields something that is no document.
    Filter,
    /// A path expression cannot be parsed or applied.
    Path,
    /// A name breaks the rules for names.
    InvalidName,
    /// An argument or a document is over its size limit.
    TooLarge,
    /// The directory keeps another state file already.
    OtherStateFile,
    /// A program or file that is needed is not there.
    DependencyMissing,
    /// The operating system forbids it.
    PermissionDenied,
    /// A link, a special file or another user's file stands where ours should.
    UnsafePath,
    /// No space is left.
    DiskFull,
    /// A wait that is not for a lock ran out.
    WaitTimeout,
    /// Descriptors, memory or processes ran out.
    ResourceExhausted,
    /// A command that was to be run cannot be executed.
    NotExecutable,
    /// A command that was to be run does not exist.
    CommandNotFound,
}

impl Kind {
    /// A kind that ends with this code, where nothing more is known.
    #[must_use]
    pub fn of_code(code: ExitCode) -> Self {
        match code {
            ExitCode::StateCorruption => Self::Corrupt,
            ExitCode::PermissionDenied => Self::UnsafePath,
            ExitCode::DiskFull => Self::DiskFull,
            ExitCode::ValidationFailed => Self::Schema,
            ExitCode::DependencyMissing => Self::DependencyMissing,
            ExitCode::ResourceExhausted => Self::ResourceExhausted,
            ExitCode::LockTimeout => Self::LockTimeout,
            ExitCode::Timeout => Self::WaitTimeout,
            _ => Self::Findings,
        }
    }

    /// The exit code of this kind.
    #[must_use]
    pub fn code(self) -> ExitCode {
        match self {
            Self::Usage => ExitCode::Usage,
            Self::NotInitialized
            | Self::Conflict
            | Self::NotFound
            | Self::DurabilityUnknown
            | Self::Io
            | Self::Internal
            | Self::CommandFailed
            | Self::Findings
            | Self::NotOwner
            | Self::AlreadyHeld
            | Self::LockOrder
            | Self::Fenced => ExitCode::General,
            Self::LockTimeout | Self::Deadlock => ExitCode::LockTimeout,
            Self::Corrupt | Self::ForeignEdit | Self::Missing | Self::NothingToRestore => ExitCode::StateCorruption,
            Self::Schema
            | Self::NewerSchema
            | Self::InvalidJson
            | Self::Filter
            | Self::Path
            | Self::InvalidName
            | Self::TooLarge
            | Self::OtherStateFile => ExitCode::ValidationFailed,
            Self::DependencyMissing => ExitCode::DependencyMissing,
            Self::PermissionDenied | Self::UnsafePath => ExitCode::PermissionDenied,
            Self::DiskFull => ExitCode::DiskFull,
            Self::WaitTimeout => ExitCode::Timeout,
            Self::ResourceExhausted => ExitCode::ResourceExhausted,
            Self::NotExecutable => ExitCode::NotExecutable,
            Self::CommandNotFound => ExitCode::CommandNotFound,
        }
    }

    /// The kind's name in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Usage => "usage",
            Self::NotInitialized => "not_initialized",
            Self::Conflict => "conflict",
            Self::NotFound => "not_found",
            Self::DurabilityUnknown => "durability_unknown",
            Self::Io => "io",
            Self::Internal => "internal",
            Self::CommandFailed => "command_failed",
            Self::Findings => "findings",
            Self::NotOwner => "not_owner",
            Self::AlreadyHeld => "already_held",
            Self::LockOrder => "lock_order",
            Self::Fenced => "fenced",
            Self::Deadlock => "deadlock",
            Self::LockTimeout | Self::WaitTimeout => "timeout",
            Self::Corrupt => "corrupt",
            Self::ForeignEdit => "foreign_edit",
            Self::Missing => "missing",
            Self::NothingToRestore => "nothing_to_restore",
            Self::Schema => "schema",
            Self::NewerSchema => "newer_schema",
            Self::InvalidJson => "invalid_json",
            Self::Filter => "filter",
            Self::Path => "path",
            Self::InvalidName => "invalid_name",
            Self::TooLarge => "too_large",
            Self::OtherStateFile => "other_state_file",
            Self::DependencyMissing => "dependency_missing",
            Self::PermissionDenied => "permission_denied",
            Self::UnsafePath => "unsafe_path",
            Self::DiskFull => "disk_full",
            Self::ResourceExhausted => "resource_exhausted",
            Self::NotExecutable => "not_executable",
            Self::CommandNotFound => "command_not_found",
        }
    }

    /// The kind of an operating-system error, by its errno.
    #[must_use]
    pub fn of_io(error: &io::Error) -> Self {
        let Some(errno) = Errno::from_io_error(error) else {
            return Self::Io;
        };
        match errno {
            Errno::ACCESS | Errno::PERM | Errno::ROFS => Self::PermissionDenied,
            Errno::LOOP => Self::UnsafePath,
            Errno::NOSPC | Errno::DQUOT | Errno::FBIG => Self::DiskFull,
            Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::AGAIN => Self::ResourceExhausted,
            _ => Self::Io,
        }
    }
}

/// A next step: a command to type, and what it does here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hint {
    /// Arguments of this program.
    Run(String, String),
    /// Another program's command line.
    Shell(String, String),
    /// What was probably meant by what was typed.
    Meant(String),
}

/// A failure, ready to be shown: what happened, of which kind, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// Why it failed.
    pub kind: Kind,
    /// One sentence with names, pids, paths and numbers; no trailing period.
    pub message: String,
    /// What to do next, best first.
    pub hints: Vec<Hint>,
    /// The same facts for a program: a JSON object.
    pub details: Box<Value>,
}

/// A result that fails with [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// A failure of `kind`, told in one sentence.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hints: Vec::new(), details: Box::new(json!({})) }
    }

    /// Adds a command of this program as the next step: its arguments, and what they do here.
    #[must_use]
    pub fn try_command(mut self, arguments: impl Into<String>, why: impl Into<String>) -> Self {
        self.hints.push(Hint::Run(arguments.into(), why.into()));
        self
    }

    /// Adds another program's command line as the next step, and what it does here.
    #[must_use]
    pub fn try_shell(mut self, command: impl Into<String>, why: impl Into<String>) -> Self {
        self.hints.push(Hint::Shell(command.into(), why.into()));
        self
    }

    /// Adds what was probably meant.
    #[must_use]
    pub fn meaning(mut self, words: impl Into<String>) -> Self {
        self.hints.push(Hint::Meant(words.into()));
        self
    }

    /// Adds a fact for programs.
    #[must_use]
    pub fn detail(mut self, key: &str, value: impl Into<Value>) -> Self {
        if let Value::Object(map) = &mut *self.details {
            map.insert(key.to_owned(), value.into());
        }
        self
    }

    /// Whether removing files may help: space or quota ran out, and not a limit on one file's size.
    #[must_use]
    pub fn is_out_of_space(&self) -> bool {
        let too_large = Value::from(Errno::FBIG.raw_os_error());
        self.kind == Kind::DiskFull && self.details.get("errno") != Some(&too_large)
    }

    /// Whether it says that this process cannot write here and now, which need not keep it from reading.
    #[must_use]
    pub fn keeps_from_writing(&self) -> bool {
        use Kind::{Deadlock, DiskFull, LockTimeout, PermissionDenied, UnsafePath};
        matches!(self.kind, PermissionDenied | UnsafePath | DiskFull | LockTimeout | Deadlock)
    }

    /// The exit code this failure ends the program with.
    #[must_use]
    pub fn code(&self) -> ExitCode {
        self.kind.code()
    }

    /// The failure as text. `program` is how the program was called, with the options that chose the root,
    /// so that a hint can be typed as it stands.
    #[must_use]
    pub fn to_text(&self, program: &str) -> String {
        let mut text = format!("error: {} [{}]\n", one_line(&self.message), self.code().name());
        for hint in &self.hints {
            let _ = writeln!(text, "hint: {}", hint.to_line(program));
        }
        text
    }

    /// The failure as one line of JSON.
    #[must_use]
    pub fn to_json(&self, program: &str) -> String {
        let hints: Vec<String> = self.hints.iter().map(|hint| hint.to_line(program)).collect();
        let error = json!({
            "code": self.code() as u8,
            "name": self.code().name(),
            "kind": self.kind.name(),
            "message": self.message,
            "hint": hints.first(),
            "hints": hints,
            "details": self.details,
        });
        format!("{}\n", json!({ "error": error }))
    }
}

impl Hint {
    /// The hint as a line that can be pasted into a shell.
    #[must_use]
    pub fn to_line(&self, program: &str) -> String {
        // A shell reads the rest as a comment, so the line can be pasted whole.
        let with = |command: String, why: &str| if why.is_empty() { command } else { format!("{command}   # {why}") };
        match self {
            Self::Run(arguments, why) => with(format!("{program} {arguments}"), why),
            Self::Shell(command, why) => with(command.clone(), why),
            Self::Meant(words) => words.clone(),
        }
    }
}

impl From<FsError> for Error {
    fn from(error: FsError) -> Self {
        let kind = Kind::of_io(&error.source);
        let path = error.path.display().to_string();
        let failure = Self::new(kind, error.to_string())
            .detail("path", path.clone())
            .detail("operation", error.operation)
            .detail("errno", error.source.raw_os_error());
        // A temporary file is gone by the time somebody looks; its directory is not.
        let directory = error.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let near = quote_path(if path.ends_with(".tmp") { directory.unwrap_or(&error.path) } else { &error.path });
        let around = quote_path(directory.unwrap_or(Path::new(".")));
        match error.source.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::FBIG) => failure.try_shell("ulimit -f", "the largest file this shell permits, in KiB"),
            _ if kind == Kind::DiskFull => {
                failure.try_shell(format!("df -h {around}; df -i {around}"), "see what is left of space and inodes")
            }
            Some(Errno::ROFS) => failure.try_shell(format!("findmnt -T {around}"), "it is mounted read-only"),
            _ if kind == Kind::ResourceExhausted => failure.try_shell("ulimit -a", "see which limit was reached"),
            _ if around == near => failure.try_shell(format!("ls -ld {near}"), "see what is there, and whose"),
            _ => failure.try_shell(format!("ls -ld {around} {near}"), "see what is there, and whose"),
        }
    }
}

/// `text` on one line with its control characters escaped: file names and documents may hold anything, and
/// a terminal or a log must not be steered by them.
#[must_use]
pub fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    line
}

/// A path as one word of a shell; one that is not plain text in the way that bash, zsh and ksh read.
#[must_use]
pub fn quote_path(path: &Path) -> String {
    if let Some(text) = path.to_str().filter(|text| !text.contains(char::is_control)) {
        return quote(text);
    }
    let bytes = path.as_os_str().as_encoded_bytes().iter();
    let escaped = bytes.flat_map(|byte| match byte {
        b'\'' | b'\\' => vec!['\\', char::from(*byte)],
        b' '..=b'~' => vec![char::from(*byte)],
        _ => format!("\\x{byte:02x}").chars().collect(),
    });
    format!("$'{}'", escaped.collect::<String>())
}

/// `text` as one word of a POSIX shell.
#[must_use]
pub fn quote(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_can_be_pasted_into_a_shell_as_it_stands() {
        let error = Error::new(Kind::Missing, "gone").try_command("state recover", "bring it back");
        let text = error.to_text("pipeline-state --root '/a b'");
        assert_eq!(
            text,
            "error: gone [STATE_CORRUPTION]\nhint: pipeline-state --root '/a b' state recover   # bring it back\n"
        );
    }

    #[test]
    fn an_error_stays_on_one_line_whatever_a_file_is_called() {
        let text = Error::new(Kind::Io, "a\n\u{1b}[31mb").to_text("x");
        assert_eq!(text, "error: a\\n\\u{1b}[31mb [GENERAL_ERROR]\n");
    }

    #[test]
    fn any_path_can_be_pasted_into_a_shell() {
        use std::os::unix::ffi::OsStrExt as _;
        let odd = Path::new(std::ffi::OsStr::from_bytes(b"a\xff\n'b"));
        assert_eq!(quote_path(odd), r"$'a\xff\x0a\'b'");
        assert_eq!(quote_path(Path::new("it's")), r"'it'\''s'");
    }

    #[test]
    fn operating_system_errors_have_their_codes() {
        let code = |errno: Errno| Kind::of_io(&errno.into()).code() as u8;
        assert_eq!([Errno::ACCESS, Errno::PERM, Errno::ROFS, Errno::LOOP].map(code), [6; 4]);
        assert_eq!([Errno::NOSPC, Errno::DQUOT, Errno::FBIG].map(code), [7; 3]);
        assert_eq!([Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::AGAIN].map(code), [10; 4]);
        assert_eq!([Errno::IO, Errno::NOENT, Errno::INTR].map(code), [1; 3]);
    }
}
