//! Questions to a person at a terminal.

use std::io::{self, BufRead as _, IsTerminal as _};

use super::output::to_stderr;
use crate::error::one_line;

/// True if a person can answer: standard input and standard error are terminals.
pub fn is_possible() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// True if a person typed the command itself. A shell with job control makes each typed line the
/// leader of its own process group; commands of a script stay in the script's group.
pub fn is_typed() -> bool {
    is_possible() && rustix::process::getpgrp() == rustix::process::getpid()
}

/// Asks on standard error; only `y` and `yes` mean yes.
pub fn ask(question: &str) -> bool {
    to_stderr(&format!("{} [y/N] ", one_line(question)));
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer);
    read.is_ok() && matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}
