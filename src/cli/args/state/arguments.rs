//! The arguments of `state` commands.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::cli::args::Writer;
use crate::config::store_url::StoreUrl;
use crate::time::{Since, parse_duration, parse_since};

#[derive(Args, Debug, Default)]
pub struct Get {
    /// jq filter, or a plain path like .a.b[0]
    pub filter: String,
    /// Exit 1 also if the last result is false or null, like jq -e
    #[arg(short = 'e', long = "exit-status")]
    pub exit_status: bool,
    /// Printed where there is nothing, and for each null among results; exit 0
    #[arg(long, value_name = "V", allow_hyphen_values = true)]
    pub default: Option<String>,
    /// Exit 0 whatever the answer is
    #[arg(long)]
    pub exit_zero: bool,
    #[command(flatten)]
    pub program: Program,
    #[command(flatten)]
    pub print: Print,
}

/// What a jq program is given.
#[derive(Args, Debug, Default)]
pub struct Program {
    /// Binds $NAME to a string
    #[arg(
        long,
        num_args = 2,
        value_names = ["NAME", "TEXT"],
        action = clap::ArgAction::Append,
        allow_hyphen_values = true
    )]
    pub arg: Vec<String>,
    /// Binds $NAME to a JSON value
    #[arg(
        long,
        num_args = 2,
        value_names = ["NAME", "JSON"],
        action = clap::ArgAction::Append,
        allow_hyphen_values = true
    )]
    pub argjson: Vec<String>,
    /// For how long the filter may run [default: 60s, 10s of them on the processor]
    #[arg(long, value_name = "T", value_parser = parse_duration)]
    pub filter_timeout: Option<Duration>,
}

/// How jq prints results.
#[derive(Args, Debug, Default)]
pub struct Print {
    /// Strings without quotes, like jq -r
    #[arg(short = 'r', long = "raw-output")]
    pub raw: bool,
    /// Each result on a line, like jq -c; it always is
    #[arg(short = 'c', long = "compact-output")]
    pub compact: bool,
}

#[derive(Args, Debug)]
pub struct Set {
    /// PATH=TEXT sets a string, PATH:=JSON any value; [+] appends; missing parents are made
    #[arg(required = true, value_name = "PATH=TEXT|PATH:=JSON")]
    pub assignments: Vec<String>,
    #[command(flatten)]
    pub writer: Writer,
}

#[derive(Args, Debug)]
pub struct Unset {
    /// What to remove: .a.b, '.list[0]', '.list[-1]'
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<String>,
    #[command(flatten)]
    pub writer: Writer,
}

#[derive(Args, Debug)]
pub struct History {
    /// Only the newest N
    #[arg(short = 'n', long = "limit", value_name = "N")]
    pub limit: Option<usize>,
    /// Only those since then: 2h, 30m, 3d, or a time of RFC 3339
    #[arg(long, value_name = "T", value_parser = parse_since)]
    pub since: Option<Since>,
    /// Only the one that this operation made, which an error named; exit 1 if there is none
    #[arg(long, value_name = "ID")]
    pub operation: Option<String>,
}

#[derive(Args, Debug)]
pub struct Update {
    /// jq program; it gets the document and must yield the new one
    pub filter: String,
    #[command(flatten)]
    pub program: Program,
    #[command(flatten)]
    pub writer: Writer,
}

#[derive(Args, Debug)]
pub struct WriteDocument {
    /// The file; - is standard input
    #[arg(default_value = "-")]
    pub file: PathBuf,
    /// Even if another commit came first
    #[arg(long)]
    pub force: bool,
    /// Without a warning where the document has an older form, which is brought to the present one
    #[arg(long)]
    pub migrate: bool,
    #[command(flatten)]
    pub writer: Writer,
}

#[derive(Args, Debug)]
pub struct Push {
    /// The store: etcd://HOST:PORT,…/PREFIX, or etcds:// for TLS
    #[arg(value_parser = StoreUrl::parse)]
    pub url: StoreUrl,
    /// Take back a push that was interrupted
    #[arg(long)]
    pub abort: bool,
}

#[derive(Args, Debug)]
pub struct Pull {
    /// The store [default: where the state was pushed to, or the one that is configured]
    #[arg(value_parser = StoreUrl::parse)]
    pub url: Option<StoreUrl>,
    /// Give up a pull that was interrupted
    #[arg(long)]
    pub abort: bool,
}

#[derive(Args, Debug)]
pub struct Phase {
    /// The new phase
    pub name: Option<String>,
    #[command(flatten)]
    pub writer: Writer,
}

#[derive(Args, Debug)]
pub struct Complete {
    /// The tasks
    #[arg(required = true, value_name = "TASK")]
    pub tasks: Vec<String>,
    #[command(flatten)]
    pub writer: Writer,
}

#[derive(Args, Debug)]
pub struct Signal {
    /// The signal's name
    pub name: String,
    /// Set the phase in the same commit
    #[arg(long, value_name = "P")]
    pub phase: Option<String>,
    /// Goes into the signal's file
    #[arg(long, value_name = "JSON", conflicts_with = "clear", allow_hyphen_values = true)]
    pub metadata: Option<String>,
    /// Remove the signal and its file
    #[arg(long)]
    pub clear: bool,
    #[command(flatten)]
    pub writer: Writer,
}
