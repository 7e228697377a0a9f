//! What is for shells and readers, as clap reads it: functions, completions, the manual.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::time::parse_duration;

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

/// The pause of the shell function `retry_with_backoff`.
#[derive(Args, Debug)]
pub struct Pause {
    /// Which attempt failed
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub attempt: u32,
    /// Of how many
    pub attempts: u32,
    /// With which exit code
    pub code: u8,
    /// How long to wait after the first failure
    #[arg(value_parser = parse_duration)]
    pub base_delay: Duration,
}
