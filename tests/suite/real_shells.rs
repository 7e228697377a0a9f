//! Real shells with the functions that `shell` prints.

use std::process::Command;

use crate::sandbox::{Ran, Sandbox, installed};
use crate::script::Script;

/// An installed shell, and the dialect of its functions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shell {
    pub program: &'static str,
    pub functions: &'static str,
    pub strict: &'static str,
}

pub const BASH: Shell = Shell { program: "bash", functions: "bash", strict: "set -euo pipefail" };
pub const DASH: Shell = Shell { program: "dash", functions: "sh", strict: "set -eu" };
pub const ZSH: Shell = Shell { program: "zsh", functions: "zsh", strict: "set -euo pipefail" };

/// Differences of bash 3.2, the version of macOS, that matter here.
pub const BASH_3: Shell =
    Shell { program: "bash", functions: "bash", strict: "unset BASHPID; set -euo pipefail" };

pub fn shells() -> impl Iterator<Item = Shell> {
    [BASH, DASH, ZSH].into_iter().filter(|shell| installed(shell.program))
}

impl Shell {
    /// The line that defines the functions.
    pub fn load(self) -> String {
        format!("eval \"$(\"$PIPELINE_BINARY\" shell {})\"\n", self.functions)
    }

    pub fn command(self, sandbox: &Sandbox, text: &str) -> Command {
        let mut command = sandbox.program(self.program);
        if self == ZSH {
            command.arg("-f"); // no start-up files of the user
        }
        command.arg("-c").arg(text).arg("script");
        command
    }

    /// Runs a script after the functions, in the strictest mode of its shell.
    pub fn run(self, sandbox: &Sandbox, script: &str) -> Ran {
        let text = format!("{}\n{}{HELPERS}{script}", self.strict, self.load());
        Ran::of(self.command(sandbox, &text).output().unwrap())
    }

    /// Starts a script that a test leads step by step.
    pub fn script(self, sandbox: &Sandbox, script: &str) -> Script {
        Script::of(self.command(sandbox, &format!("{}{HELPERS}{script}", self.load())))
    }
}

/// Helpers of the scripts: `is` ends them on a wrong value; `code` prints the exit code of a
/// command.
pub const HELPERS: &str = r#"
is() { [ "$1" = "$2" ] || { printf 'it is %s and not %s\n' "$1" "$2" >&2; exit 99; }; }
code() { code=0; "$@" || code=$?; }
returns() { wanted=$1; shift; code "$@"; is "$* returns $code" "$* returns $wanted"; }
holder() { "$PIPELINE_BINARY" lock check state --exit-zero; }
here() { me=$(exec sh -c 'echo $PPID'); }
"#;
