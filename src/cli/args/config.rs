//! The `config` group as clap reads it.

use clap::{Args, Subcommand};

#[derive(Args, Debug)]
pub struct Config {
    #[command(subcommand)]
    pub command: Option<Command>,
}

#[derive(Debug, Subcommand)]
#[command(disable_help_subcommand = true)]
pub enum Command {
    /// Trust the store that the root's file names
    #[command(after_help = "A root may have come from elsewhere, with a store in its
.pipeline-state.toml. It counts once you trust the file, at this path and as it
is now; after a change, trust it again. The record of it is in your own
directory, $XDG_CONFIG_HOME/pipeline-state/trusted.

Examples:
  pipeline-state config        # see which store it is
  pipeline-state config trust

JSON:
  {path: string, sha256: string, store: string}")]
    Trust,
}
