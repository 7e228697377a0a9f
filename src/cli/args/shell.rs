//! Commands for shells and readers, as clap reads them: functions, completions, the manual.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

#[derive(Args, Debug)]
pub struct Functions {
    /// The shell that evaluates them; sh for dash and others
    pub shell: FunctionShell,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FunctionShell {
    Bash,
    Zsh,
    Sh,
}

#[derive(Args, Debug)]
pub struct Completions {
    /// The shell that evaluates it
    pub shell: CompletionShell,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CompletionShell {
    Bash,
    Zsh,
    Fish,
}

#[derive(Args, Debug)]
pub struct Man {
    /// Write a page for each command into this directory
    pub dir: Option<PathBuf>,
}

/// The pause of the shell function `retry_with_backoff`, whose caller's words come here as they
/// are.
#[derive(Args, Debug)]
pub struct Pause {
    /// Which attempt failed; 0 before the first
    pub attempt: u32,
    /// Of how many
    pub attempts: String,
    /// With which exit code
    pub code: u8,
    /// How long to wait after the first failure
    pub base_delay: String,
}
