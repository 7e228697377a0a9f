//! The `report` command as clap reads it.

use std::path::PathBuf;

use clap::Args;

use crate::time::{Since, parse_since};

#[derive(Args, Debug)]
pub struct Report {
    /// Only what lasted since then: 2h, 30m, 3d, or a time of RFC 3339
    #[arg(long, value_name = "T", value_parser = parse_since)]
    pub since: Option<Since>,
    /// Write into this file (0600); - is standard output
    #[arg(short, long, value_name = "FILE", default_value = "-", hide_default_value = true)]
    pub output: PathBuf,
}
