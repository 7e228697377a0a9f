//! `shell`: the functions for `eval`, and the pause between the attempts of one of them.

use std::ffi::{OsStr, OsString};
use std::time::Duration;

use super::args::Global;
use super::args::shell::{FunctionShell, Functions, Pause};
use super::output::{Output, write_out};
use super::reinvoke::options;
use super::write_command::with_store;
use crate::config::Config;
use crate::error::{Error, ExitCode, Kind};
use crate::fs::Disk;
use crate::recovery::retry::{Schedule, describe_retry};
use crate::shell::{Shell, functions};
use crate::time::parse_duration;

/// Prints the functions. They call this program by its current path, with the options that chose
/// the state and its locking. Reads no state.
pub fn print(arguments: &Functions, global: &Global, called: &OsStr) -> anyhow::Result<u8> {
    let shell = match arguments.shell {
        FunctionShell::Bash => Shell::Bash,
        FunctionShell::Zsh => Shell::Zsh,
        FunctionShell::Sh => Shell::Sh,
    };
    // After an upgrade the path may no longer exist.
    let path = std::env::current_exe().ok().filter(|path| path.exists());
    let program = path.map_or_else(|| called.to_owned(), OsString::from);
    write_out(&functions(shell, &program, &options(&global.into())))?;
    Ok(ExitCode::Success as u8)
}

/// Reports an attempt and waits as long as `recover retry` would. Before the first attempt it only
/// validates its arguments.
pub fn pause(arguments: &Pause, config: &Config, output: &Output<'_>) -> anyhow::Result<u8> {
    let Pause { attempt, attempts: words, code, base_delay } = arguments;
    let is_number = words.bytes().all(|byte| byte.is_ascii_digit());
    let attempts = words.parse().ok().filter(|attempts| is_number && *attempts > 0);
    let attempts: u32 = attempts.ok_or_else(|| {
        usage(&format!("{words:?} is not a number of attempts: write one from 1 to {}", u32::MAX))
    })?;
    let base = parse_duration(base_delay).map_err(|message| usage(&message))?;
    if *attempt > 0 {
        let pause = Schedule { base, max: Duration::from_secs(60) }.draw(*attempt);
        output.progress_line(&describe_retry(*attempt, attempts, *code, pause));
        with_store(config, Disk::real(), output, None, |store| {
            if let Some(store) = store.as_files() {
                store.logs().record_retries("retry_with_backoff", 1, *code);
            }
            Ok(())
        })?;
        std::thread::sleep(pause);
    }
    Ok(ExitCode::Success as u8)
}

fn usage(message: &str) -> Error {
    Error::new(Kind::Usage, format!("retry_with_backoff: {message}"))
        .hint_command("shell --help", "")
}
