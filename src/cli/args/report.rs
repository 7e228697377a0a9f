//! The `report` command as clap reads it.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::time::parse_duration;

#[derive(Args, Debug)]
pub struct Report {
    /// Only the last 90s, 30m, 2h
    #[arg(long, value_name = "T", value_parser = parse_duration)]
    pub since: Option<Duration>,
    /// Write into this file (0600); - is standard output
    #[arg(short, long, value_name = "FILE", default_value = "-", hide_default_value = true)]
    pub output: PathBuf,
}
