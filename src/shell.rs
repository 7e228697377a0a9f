//! The shell functions of scripts that used to source `lib/*.sh`: text for `eval`.
//!
//! A function runs in the shell that calls it, so it can say what the program cannot know: which (sub)shell is to own a lock,
//! and what a document or a command is that never becomes an argument of a process. All else is the program's.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;

/// A shell that the functions are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shell {
    /// bash
    Bash,
    /// zsh
    Zsh,
    /// dash, and others that have what POSIX has, and `local`.
    Sh,
}

impl Shell {
    /// Tells ShellCheck what it looks at; it knows no zsh.
    fn dialect(self) -> &'static str {
        match self {
            Self::Bash => "bash",
            Self::Zsh | Self::Sh => "dash",
        }
    }

    /// What runs a builtin and no function of the script's; in zsh `command` runs programs alone.
    fn builtin(self) -> &'static str {
        match self {
            Self::Zsh => "builtin",
            Self::Bash | Self::Sh => "command",
        }
    }

    /// The function that finds out which process the shell is.
    fn find_self(self) -> &'static str {
        match self {
            Self::Bash => include_str!("shell/self_bash.sh"),
            Self::Zsh => include_str!("shell/self_zsh.sh"),
            Self::Sh => include_str!("shell/self_proc.sh"),
        }
    }
}

/// The functions. They call `program`, unless PIPELINE_STATE_BIN names another, with these options before all others.
#[must_use]
pub fn functions(shell: Shell, program: &OsStr, options: &[OsString]) -> Vec<u8> {
    let (dialect, builtin) = (shell.dialect(), shell.builtin());
    let mut text =
        format!("# shellcheck shell={dialect}\n_pipeline_builtin='{builtin}'\n_pipeline_program=").into_bytes();
    text.extend(quote(program));
    text.extend(b"\n_pipeline() { \"${PIPELINE_STATE_BIN:-$_pipeline_program}\" ");
    for option in options {
        text.extend(quote(option));
        text.push(b' ');
    }
    text.extend(b"\"$@\"; }\n");
    text.extend(shell.find_self().as_bytes());
    text.extend(include_str!("shell/functions.sh").as_bytes());
    text
}

/// A word that any shell takes for what it is.
fn quote(word: &OsStr) -> Vec<u8> {
    let mut quoted = vec![b'\''];
    for byte in word.as_bytes() {
        match byte {
            b'\'' => quoted.extend(br"'\''"),
            byte => quoted.push(*byte),
        }
    }
    quoted.push(b'\'');
    quoted
}
