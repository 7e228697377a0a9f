//! The error table: every failure has one exit code, one sentence and a next step (promise P6).
//!
//! [`Kind`] is the stable name of a failure in JSON; [`ExitCode`] is the value of `$?`. Code that
//! meets a failure names its [`Kind`]; the exit code follows from it.

mod code;
mod invocation;
mod kind;

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};

pub use self::code::ExitCode;
pub use self::invocation::Invocation;
pub use self::kind::Kind;
pub use crate::printable::one_line;
use crate::printable::{is_steering, json_text};

/// A next step: a command to type, and its effect here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hint {
    /// Arguments of this program.
    Command(String, String),
    /// Arguments of this program, for the state in the root's files whatever store is named.
    OnFiles(String, String),
    /// Arguments of etcdctl, for the cluster that the command asked.
    Etcdctl(String, String),
    /// Another program's command line.
    Shell(String, String),
    /// The doctor's list of what belongs to root here.
    FilesOfRoot,
    /// A correction of the user's input.
    Text(String),
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
    /// The same facts for other programs: a JSON object. This program never reads them back.
    pub details: Box<Value>,
    /// The typed error that caused it, where callers act on more than the kind.
    pub source: Option<Source>,
}

/// The typed error that caused an [`Error`].
pub type Source = Box<dyn std::error::Error + Send + Sync>;

/// A result that fails with [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// A failure of `kind`, described in one sentence.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            hints: Vec::new(),
            details: Box::new(json!({})),
            source: None,
        }
    }

    /// Adds a command of this program as the next step: its arguments, and its effect here.
    #[must_use]
    pub fn hint_command(mut self, arguments: impl Into<String>, why: impl Into<String>) -> Self {
        self.hints.push(Hint::Command(arguments.into(), why.into()));
        self
    }

    /// Adds a command of this program for the state in the root's files as the next step, and its
    /// effect here.
    #[must_use]
    pub fn hint_on_files(mut self, arguments: impl Into<String>, why: impl Into<String>) -> Self {
        self.hints.push(Hint::OnFiles(arguments.into(), why.into()));
        self
    }

    /// Adds a command of etcdctl on the cluster as the next step, and its effect here.
    #[must_use]
    pub fn hint_etcdctl(mut self, arguments: impl Into<String>, why: impl Into<String>) -> Self {
        self.hints.push(Hint::Etcdctl(arguments.into(), why.into()));
        self
    }

    /// Adds another program's command line as the next step, and its effect here.
    #[must_use]
    pub fn hint_shell(mut self, command: impl Into<String>, why: impl Into<String>) -> Self {
        self.hints.push(Hint::Shell(command.into(), why.into()));
        self
    }

    /// Puts a corrected command in front of all other next steps.
    #[must_use]
    pub fn did_you_mean(mut self, arguments: impl Into<String>) -> Self {
        self.hints.insert(0, Hint::Command(arguments.into(), "did you mean this one?".to_owned()));
        self
    }

    /// The error with the cluster that it is about, where that is not the one of the configuration.
    #[must_use]
    pub fn with_etcdctl(mut self, etcdctl: &str) -> Self {
        for hint in &mut self.hints {
            if let Hint::Etcdctl(arguments, why) = hint {
                *hint = Hint::Shell(format!("{etcdctl} {arguments}"), std::mem::take(why));
            }
        }
        self
    }

    /// Adds a correction of the user's input.
    #[must_use]
    pub fn hint_text(mut self, words: impl Into<String>) -> Self {
        self.hints.push(Hint::Text(words.into()));
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

    /// Adds the typed error that caused it.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Source>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The error that caused it, if it has this type.
    pub fn cause<T: std::error::Error + 'static>(&self) -> Option<&T> {
        self.source.as_ref()?.downcast_ref()
    }

    /// Returns whether it means that this process cannot write here now, which need not stop it
    /// from reading.
    pub fn is_write_blocked(&self) -> bool {
        use Kind::{
            Deadlock, DiskFull, FileSizeLimit, ForeignOwner, LockTimeout, PermissionDenied,
            UnsafePath,
        };
        matches!(
            self.kind,
            PermissionDenied
                | UnsafePath
                | ForeignOwner
                | DiskFull
                | FileSizeLimit
                | LockTimeout
                | Deadlock
        )
    }

    /// The exit code this failure ends the program with.
    pub fn code(&self) -> ExitCode {
        self.kind.code()
    }

    /// The failure as text, with hints that can be typed as they are. `label` is the first word,
    /// `error:`, in colour or not.
    pub fn to_text(&self, label: &str, invoked: &Invocation) -> String {
        let mut text = format!("{label} {} [{}]\n", one_line(&self.message), self.code().name());
        for hint in &self.hints {
            let _ = writeln!(text, "hint: {}", hint.to_line(invoked));
        }
        text
    }

    /// The failure as one line of JSON.
    pub fn to_json(&self, invoked: &Invocation) -> String {
        let hints: Vec<String> = self.hints.iter().map(|hint| hint.to_line(invoked)).collect();
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
    pub fn to_line(&self, invoked: &Invocation) -> String {
        // A shell reads the rest as a comment, so the whole line can be pasted.
        let with = |command: String, why: &str| {
            if why.is_empty() { command } else { format!("{command}   # {why}") }
        };
        let line = match self {
            Self::Command(arguments, why) => with(format!("{} {arguments}", invoked.program), why),
            Self::OnFiles(arguments, why) => with(format!("{} {arguments}", invoked.on_files), why),
            Self::Etcdctl(arguments, why) => with(format!("{} {arguments}", invoked.etcdctl), why),
            Self::Shell(command, why) => with(command.clone(), why),
            Self::FilesOfRoot => with(
                format!("{} recover doctor", invoked.program),
                "lists what belongs to root here, and the command that gives it back",
            ),
            Self::Text(words) => words.clone(),
        };
        one_line(&line) // also where a part of it was not escaped
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
    use rustix::io::Errno;

    use super::*;

    #[test]
    fn a_hint_can_be_pasted_into_a_shell_as_it_stands() {
        let error =
            Error::new(Kind::Missing, "gone").hint_command("state recover", "bring it back");
        let text = error.to_text("error:", &"pipeline-state --root '/a b'".into());
        assert_eq!(
            text,
            "error: gone [STATE_CORRUPTION]\n\
             hint: pipeline-state --root '/a b' state recover   # bring it back\n"
        );
    }

    #[test]
    fn a_file_name_cannot_break_an_errors_line() {
        let text = Error::new(Kind::Io, "a\n\u{1b}[31mb").to_text("error:", &"x".into());
        assert_eq!(text, "error: a\\n\\u{1b}[31mb [GENERAL_ERROR]\n");
    }

    #[test]
    fn a_hint_has_no_steering_character() {
        let raw = "x\u{1b}]0;t\u{7}\u{202e}y\u{2028}";
        let hints = [
            Hint::Command(raw.into(), raw.into()),
            Hint::OnFiles(raw.into(), raw.into()),
            Hint::Etcdctl(raw.into(), raw.into()),
            Hint::Shell(raw.into(), raw.into()),
            Hint::Text(raw.into()),
        ];
        for hint in hints {
            let error = Error { hints: vec![hint], ..Error::new(Kind::Io, raw) };
            for text in [error.to_text("error:", &raw.into()), error.to_json(&raw.into())] {
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
