//! `shell`: the functions for `eval`, and the pause between the attempts of one of them.

use std::ffi::{OsStr, OsString};
use std::time::Duration;

use super::again::options;
use super::args::Global;
use super::args::shell::{FunctionShell, Functions, Pause};
use super::output::{Output, write_out};
use crate::error::ExitCode;
use crate::recovery::retry::{Schedule, told};
use crate::shell::{Shell, functions};

/// Prints the functions. They call this program by the path it has now, and with the options that chose the state and how to
/// lock it. Looks at no state.
pub fn print(arguments: &Functions, global: &Global, called: &OsStr) -> anyhow::Result<u8> {
    let shell = match arguments.shell {
        FunctionShell::Bash => Shell::Bash,
        FunctionShell::Zsh => Shell::Zsh,
        FunctionShell::Sh => Shell::Sh,
    };
    // Where it was replaced meanwhile, the path is one no more.
    let path = std::env::current_exe().ok().filter(|path| path.exists());
    let program = path.map_or_else(|| called.to_owned(), OsString::from);
    write_out(&functions(shell, &program, &options(&global.into())))?;
    Ok(ExitCode::Success as u8)
}

/// Says how an attempt went, and waits as long as `recover retry` would.
pub fn pause(arguments: &Pause, output: &Output<'_>) -> u8 {
    let schedule = Schedule { base: arguments.base_delay, max: Duration::from_secs(60) };
    let pause = schedule.draw(arguments.attempt);
    output.tell(&told(arguments.attempt, arguments.attempts, arguments.code, pause));
    std::thread::sleep(pause);
    ExitCode::Success as u8
}
