//! The child that `lock run` starts: it waits for word that the locks are granted, and then becomes the command.
//!
//! Word comes through a pipe of its parent's, opened by its name in `/proc` so that nothing is inherited that the command
//! would inherit in turn. If the parent dies first the pipe ends, and so does the child.

use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use crate::child::not_run;
use crate::error::Error;

/// The first argument of such a child; then the pipe, how errors look, `--` and the command.
pub const LAUNCH: &str = "__launch";

/// The variable that shows a command the grants it runs under: `NAME:T[,NAME:T]`.
pub const LOCK_TOKEN: &str = "PIPELINE_LOCK_TOKEN";
/// The variable that names the owner of locks; the command's own children have their own.
pub const OWNER_PID: &str = "PIPELINE_OWNER_PID";

/// Waits for word and becomes the command; comes back only if it cannot. `None`: there was no word.
pub fn become_command(pipe: &OsStr, command: &[OsString]) -> Result<Infallible, Option<Error>> {
    let [program, arguments @ ..] = command else { return Err(None) };
    let mut word = String::new();
    let read = File::open(pipe).and_then(|pipe| BufReader::new(pipe).read_line(&mut word));
    let Some(tokens) = read.ok().and_then(|_| word.strip_suffix('\n')) else {
        return Err(None);
    };
    let shown = match std::env::var(LOCK_TOKEN) {
        Ok(outer) if !outer.is_empty() => format!("{outer},{tokens}"),
        _ => tokens.to_owned(),
    };
    let mut command = Command::new(program);
    command.args(arguments).env(LOCK_TOKEN, shown).env_remove(OWNER_PID);
    let error = command.exec();
    Err(Some(not_run(program, &error)))
}
