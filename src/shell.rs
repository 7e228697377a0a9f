//! The shell functions for scripts that used to source `lib/*.sh`: text for `eval`.
//!
//! A function runs in the shell that calls it, so it knows what the program cannot: which
//! (sub)shell is to own a lock, and documents and commands that never become an argument of a
//! process. The program does the rest.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;

/// A shell that the functions are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shell {
    /// bash
    Bash,
    /// zsh
    Zsh,
    /// dash, and other POSIX shells with `local`.
    Sh,
}

impl Shell {
    /// The ShellCheck directive for the dialect; ShellCheck does not know zsh.
    fn dialect(self) -> &'static str {
        match self {
            Self::Bash => "bash",
            Self::Zsh | Self::Sh => "dash",
        }
    }

    /// The prefix that runs a builtin instead of a function of the script; in zsh `command` runs
    /// only programs.
    fn builtin(self) -> &'static str {
        match self {
            Self::Zsh => "builtin",
            Self::Bash | Self::Sh => "command",
        }
    }

    /// The function that finds the process id of the shell.
    fn find_self(self) -> &'static str {
        match self {
            Self::Bash => include_str!("shell/self_bash.sh"),
            Self::Zsh => include_str!("shell/self_zsh.sh"),
            Self::Sh => include_str!("shell/self_proc.sh"),
        }
    }
}

/// The functions. They call `program`, unless PIPELINE_STATE_BIN names another, with these options
/// before all others.
pub fn functions(shell: Shell, program: &OsStr, options: &[OsString]) -> Vec<u8> {
    let (dialect, builtin) = (shell.dialect(), shell.builtin());
    let mut text =
        format!("# shellcheck shell={dialect}\n_pipeline_builtin='{builtin}'\n_pipeline_program=")
            .into_bytes();
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

/// Quotes a word for any shell.
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
