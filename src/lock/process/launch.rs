//! The child that `lock run` starts: it waits for the message that the locks are granted, and then
//! becomes the command.
//!
//! The message comes through a pipe of its parent, opened by a path so that the command inherits no
//! extra descriptor. If the parent dies first the pipe ends, and so does the
//! child.

use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use crate::child::not_run;
use crate::error::Error;
use crate::os::files::open_of_parent;

/// The first argument of such a child; after it come the pipe, the output format, `--` and the
/// command.
pub const LAUNCH: &str = "__launch";

/// The variable that lists the grants a command runs under: `NAME:T[,NAME:T]`.
pub const LOCK_TOKEN: &str = "PIPELINE_LOCK_TOKEN";
/// The variable that names the owner of locks; removed for the command, since its children have
/// owners of their own.
pub const OWNER_PID: &str = "PIPELINE_OWNER_PID";

/// Waits for the message and becomes the command; returns only on failure. `None`: no message came.
pub fn become_command(pipe: &OsStr, command: &[OsString]) -> Result<Infallible, Option<Error>> {
    let [program, arguments @ ..] = command else { return Err(None) };
    let mut word = String::new();
    let read = open_of_parent(pipe).and_then(|pipe| BufReader::new(pipe).read_line(&mut word));
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
