//! The error table: every failure has one exit code, one sentence and a next step (promise P6).
//!
//! [`Kind`] is the stable name of a failure in JSON; [`ExitCode`] is the value of `$?`. Code that
//! meets a failure names its [`Kind`]; the exit code follows from it.

mod code;
mod denied;
mod kind;

use std::fmt::Write as _;
use std::path::Path;

use rustix::io::Errno;
use serde_json::{Value, json};

pub use self::code::ExitCode;
pub use self::denied::{use_as, work_as};
pub use self::kind::Kind;
use crate::fs::FsError;
pub use crate::printable::one_line;
use crate::printable::{is_steering, json_text};

/// A next step: a command to type, and its effect here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hint {
    /// Arguments of this program.
    Run(String, String),
    /// Another program's command line.
    Shell(String, String),
    /// A correction of the user's input.
    Meant(String),
}

/// A failure, ready to be shown: its kind, a sentence, and the next steps.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// Its kind.
    pub kind: Kind,
    /// One sentence with names, pids, paths and numbers; no trailing period.
    pub message: String,
    /// The next steps, best first.
    pub hints: Vec<Hint>,
    /// The same facts for a program: a JSON object.
    pub details: Box<Value>,
}

/// A result that fails with [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// A failure of `kind`, described in one sentence.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hints: Vec::new(), details: Box::new(json!({})) }
    }

    /// Adds a command of this program as the next step: its arguments, and its effect here.
    #[must_use]
    pub fn try_command(mut self, arguments: impl Into<String>, why: impl Into<String>) -> Self {
        self.hints.push(Hint::Run(arguments.into(), why.into()));
        self
    }

    /// Adds another program's command line as the next step, and its effect here.
    #[must_use]
    pub fn try_shell(mut self, command: impl Into<String>, why: impl Into<String>) -> Self {
        self.hints.push(Hint::Shell(command.into(), why.into()));
        self
    }

    /// Puts a corrected command in front of all other next steps.
    #[must_use]
    pub fn rather(mut self, arguments: impl Into<String>) -> Self {
        self.hints.insert(0, Hint::Run(arguments.into(), "did you mean this one?".to_owned()));
        self
    }

    /// Adds a correction of the user's input.
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

    /// Returns whether removing files may help: space or quota ran out, and not a limit on one
    /// file's size.
    pub fn is_out_of_space(&self) -> bool {
        let too_large = Value::from(Errno::FBIG.raw_os_error());
        self.kind == Kind::DiskFull && self.details.get("errno") != Some(&too_large)
    }

    /// Returns whether it means that this process cannot write here now, which need not stop it
    /// from reading.
    pub fn keeps_from_writing(&self) -> bool {
        use Kind::{Deadlock, DiskFull, LockTimeout, PermissionDenied, UnsafePath};
        matches!(self.kind, PermissionDenied | UnsafePath | DiskFull | LockTimeout | Deadlock)
    }

    /// The exit code this failure ends the program with.
    pub fn code(&self) -> ExitCode {
        self.kind.code()
    }

    /// The failure as text. `program` is the command line that invoked the program, with the
    /// options that chose the root, so that a hint can be typed as it is.
    pub fn to_text(&self, program: &str) -> String {
        let mut text = format!("error: {} [{}]\n", one_line(&self.message), self.code().name());
        for hint in &self.hints {
            let _ = writeln!(text, "hint: {}", hint.to_line(program));
        }
        text
    }

    /// The failure as one line of JSON.
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
        json_text(format!("{}\n", json!({ "error": error })))
    }
}

impl Hint {
    /// The hint as a line that can be pasted into a shell.
    pub fn to_line(&self, program: &str) -> String {
        // A shell reads the rest as a comment, so the whole line can be pasted.
        let with = |command: String, why: &str| {
            if why.is_empty() { command } else { format!("{command}   # {why}") }
        };
        let line = match self {
            Self::Run(arguments, why) => with(format!("{program} {arguments}"), why),
            Self::Shell(command, why) => with(command.clone(), why),
            Self::Meant(words) => words.clone(),
        };
        one_line(&line) // also where a part of it was not escaped
    }
}

impl From<FsError> for Error {
    fn from(error: FsError) -> Self {
        let kind = Kind::of_io(&error.source);
        let path = error.path.display().to_string();
        let denied = match error.source.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::ACCESS) => denied::explain(&error.path),
            _ => None,
        };
        let message = match &denied {
            Some(denied) => format!("{error}: {}", denied.why),
            None if error.is(Errno::BUSY) => {
                format!("cannot {} {path}: it is a mount point", error.operation)
            }
            None => error.to_string(),
        };
        let failure = Self::new(kind, message)
            .detail("path", path.clone())
            .detail("operation", error.operation)
            .detail("errno", error.source.raw_os_error());
        // A temporary file no longer exists when the error is read; its directory does.
        let directory = error.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let near = quote_path(if path.ends_with(".tmp") {
            directory.unwrap_or(&error.path)
        } else {
            &error.path
        });
        let around = quote_path(directory.unwrap_or(Path::new(".")));
        if let Some(denied) = denied {
            return Self { hints: vec![denied.hint], ..failure };
        }
        match error.source.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::FBIG) => {
                failure.try_shell("ulimit -f", "the largest file this shell permits, in KiB")
            }
            _ if kind == Kind::DiskFull => failure.try_shell(
                format!("df -h {around}; df -i {around}"),
                "see what is left of space and inodes",
            ),
            Some(Errno::BUSY) => failure.try_shell(
                format!("findmnt {near}"),
                "see what is mounted there; mount the directory that it lies in instead",
            ),
            Some(Errno::PERM) => failure
                .try_shell(format!("lsattr -d {near}"), "see if it is immutable or append-only"),
            Some(Errno::ROFS) => {
                let place = if error.path.is_dir() { near } else { around };
                failure.try_shell(format!("findmnt -T {place}"), "it is mounted read-only")
            }
            _ if kind == Kind::ResourceExhausted => {
                failure.try_shell("ulimit -a", "see which limit was reached")
            }
            _ if around == near => {
                failure.try_shell(format!("ls -ld {near}"), "see what is there, and whose")
            }
            _ => {
                failure.try_shell(format!("ls -ld {around} {near}"), "see what is there, and whose")
            }
        }
    }
}

/// Quotes a path as one word of a shell; one that is not plain text in the syntax of bash, zsh and
/// ksh.
pub fn quote_path(path: &Path) -> String {
    match path.to_str() {
        Some(text) => quote(text),
        None => in_dollar_quotes(path.as_os_str().as_encoded_bytes()),
    }
}

/// Quotes bytes as one word of bash, zsh and ksh.
fn in_dollar_quotes(bytes: &[u8]) -> String {
    let escaped = bytes.iter().flat_map(|byte| match byte {
        b'\'' | b'\\' => vec!['\\', char::from(*byte)],
        b' '..=b'~' => vec![char::from(*byte)],
        _ => format!("\\x{byte:02x}").chars().collect(),
    });
    format!("$'{}'", escaped.collect::<String>())
}

/// Quotes `text` as one word of a POSIX shell; where it holds terminal control characters, of bash,
/// zsh and ksh.
pub fn quote(text: &str) -> String {
    if text.contains(is_steering) { in_dollar_quotes(text.as_bytes()) } else { quote_for_sh(text) }
}

/// Quotes `text` as one word of every POSIX shell, with all its characters unchanged: for text that
/// is not shown on a terminal.
pub fn quote_for_sh(text: &str) -> String {
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
    fn a_file_name_cannot_break_an_errors_line() {
        let text = Error::new(Kind::Io, "a\n\u{1b}[31mb").to_text("x");
        assert_eq!(text, "error: a\\n\\u{1b}[31mb [GENERAL_ERROR]\n");
    }

    #[test]
    fn a_hint_has_no_steering_character() {
        let raw = "x\u{1b}]0;t\u{7}\u{202e}y\u{2028}";
        let hints = [
            Hint::Run(raw.into(), raw.into()),
            Hint::Shell(raw.into(), raw.into()),
            Hint::Meant(raw.into()),
        ];
        for hint in hints {
            let error = Error { hints: vec![hint], ..Error::new(Kind::Io, raw) };
            for text in [error.to_text(raw), error.to_json(raw)] {
                assert!(!text.contains(|c| c != '\n' && is_steering(c)), "{text:?}");
            }
        }
    }

    #[test]
    fn any_path_can_be_pasted_into_a_shell() {
        use std::os::unix::ffi::OsStrExt as _;
        let odd = Path::new(std::ffi::OsStr::from_bytes(b"a\xff\n'b"));
        assert_eq!(quote_path(odd), r"$'a\xff\x0a\'b'");
        assert_eq!(quote_path(Path::new("it's")), r"'it'\''s'");
        assert_eq!(quote("a\u{202e}b"), r"$'a\xe2\x80\xaeb'");
    }

    #[test]
    fn operating_system_errors_have_their_codes() {
        let code = |errno: Errno| Kind::of_io(&errno.into()).code() as u8;
        assert_eq!(
            [Errno::ACCESS, Errno::PERM, Errno::ROFS, Errno::LOOP, Errno::BUSY, Errno::XDEV]
                .map(code),
            [6; 6]
        );
        assert_eq!([Errno::NOSPC, Errno::DQUOT, Errno::FBIG].map(code), [7; 3]);
        assert_eq!([Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::AGAIN].map(code), [10; 4]);
        assert_eq!([Errno::IO, Errno::NOENT, Errno::INTR].map(code), [1; 3]);
    }
}
