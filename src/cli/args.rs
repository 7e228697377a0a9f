//! The command line as clap reads it: declarations only.

pub mod config;
pub mod hook;
pub mod lock;
pub mod recover;
pub mod report;
pub mod shell;
pub mod state;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use self::hook::Hook;
pub use self::lock::Lock;
pub use self::recover::Recover;
pub use self::state::State;
use crate::config::store_url::StoreUrl;
use crate::config::{CliOverrides, Color, Format, Verbosity};
use crate::time::parse_duration;

/// Crash-safe shared state, locks and checkpoints for scripts
///
/// For shell scripts, hooks that run in parallel and get killed half-way, and operators.
#[derive(Debug, Parser)]
#[command(name = "pipeline-state", version = crate::os::VERSION, after_help = EXAMPLES)]
#[command(
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true
)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub group: Group,
}

const EXAMPLES: &str = "\
Examples:
  pipeline-state state init               # make a state here
  pipeline-state state set phase=build    # change it
  pipeline-state state get .phase         # query it
  pipeline-state state status             # show its health
  pipeline-state lock run deploy -- make  # hold a lock while a command runs
  pipeline-state lock list                # show holders and waiters
  pipeline-state state recover            # bring back the last good revision
  pipeline-state recover doctor           # find problems and their fixes

Short forms: status, get, set, undo, history, diff and watch are commands of `state`; doctor is one
of `recover`.

Exit codes: 0 done, 1 error or \"no\", 2 lock timeout, 3 corruption, 4 invalid,
5 missing file, 6 permission, 7 disk full, 8 network, 9 timeout, 10 resources,
64 usage, 75 conflict: read again, repeat. Treat any other as failure.

With --json an error is a line of JSON on standard error. `--help` of each
command has the fields that it prints and their types; field? may be missing.";

#[derive(Args, Debug)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Directory of the state [env: PIPELINE_ROOT] [default: the nearest one upwards that has a
    /// state]
    #[arg(long, global = true, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// The state file itself [env: STATE_FILE] [default: ROOT/.workflow-state.json]
    #[arg(long, global = true, value_name = "PATH")]
    pub state_file: Option<PathBuf>,
    /// Where the state is kept instead of in files: etcd://HOST:2379/PREFIX [env: PIPELINE_STORE]
    /// [default: files]
    #[arg(long, global = true, value_name = "URL", value_parser = StoreUrl::parse)]
    pub store: Option<StoreUrl>,
    /// Where commits and refusals are logged [env: AUDIT_LOG] [default:
    /// /tmp/claude-pipeline-audit.log]
    #[arg(long, global = true, value_name = "PATH")]
    pub audit_log: Option<PathBuf>,
    /// How long to wait for a lock: 30, 0.5, 5s, 2m; 0 tries once [env: LOCK_TIMEOUT] [default: 30]
    #[arg(long, global = true, value_name = "T", value_parser = parse_duration)]
    pub lock_timeout: Option<Duration>,
    /// Exit code on lock timeout [env: PIPELINE_LOCK_EXIT] [default: 2]
    #[arg(long, global = true, value_name = "N")]
    pub lock_exit: Option<u8>,
    /// Output format of results and errors [env: PIPELINE_FORMAT] [default: text]
    #[arg(long, global = true, value_name = "FORMAT")]
    pub format: Option<FormatArg>,
    /// Same as --format json
    #[arg(long, global = true, conflicts_with = "format")]
    pub json: bool,
    /// Print no confirmations
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Print what is done; -vv prints more [env: DEBUG=1 is -vv]
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// When to use colour [env: NO_COLOR] [default: auto]
    #[arg(long, global = true, value_name = "WHEN")]
    pub color: Option<ColorArg>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FormatArg {
    Text,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ColorArg {
    Auto,
    Always,
    Never,
}

impl From<&Global> for CliOverrides {
    fn from(global: &Global) -> Self {
        Self {
            root: global.root.clone(),
            state_file: global.state_file.clone(),
            store: global.store.clone(),
            audit_log: global.audit_log.clone(),
            lock_timeout: global.lock_timeout,
            lock_exit: global.lock_exit,
            format: match (global.json, global.format) {
                (true, _) | (_, Some(FormatArg::Json)) => Some(Format::Json),
                (_, Some(FormatArg::Text)) => Some(Format::Text),
                _ => None,
            },
            verbosity: match (global.quiet, global.verbose) {
                (true, _) => Some(Verbosity::Quiet),
                (_, 0) => None,
                (_, 1) => Some(Verbosity::Info),
                _ => Some(Verbosity::Debug),
            },
            color: global.color.map(|color| match color {
                ColorArg::Auto => Color::Auto,
                ColorArg::Always => Color::Always,
                ColorArg::Never => Color::Never,
            }),
        }
    }
}

#[derive(Debug, Subcommand)]
pub enum Group {
    /// Read and change the state
    #[command(
        subcommand,
        after_help = "Examples:
  pipeline-state state init
  pipeline-state state set phase=build retries:=3
  pipeline-state state get .phase
  pipeline-state state status --watch
  pipeline-state state diff  # what the last commit changed
  pipeline-state state recover before-upgrade # roll back to a backup"
    )]
    State(State),
    /// Named locks owned by your script
    #[command(
        subcommand,
        after_help = "Examples:
  pipeline-state lock run deploy -- make install  # released when make ends
  pipeline-state lock acquire deploy 30  # in a script, which then owns it
  pipeline-state lock release deploy
  pipeline-state lock list  # show holders and waiters"
    )]
    Lock(Lock),
    /// Checkpoints, retries, and repair
    #[command(
        subcommand,
        after_help = "Examples:
  pipeline-state recover doctor            # find problems and their fixes
  pipeline-state recover guard deploy -- ./deploy.sh
  pipeline-state recover checkpoint before-upgrade
  pipeline-state recover restore --latest  # state, config/ and .signals/"
    )]
    Recover(Recover),
    /// Hooks for editors and AI agents
    #[command(
        subcommand,
        after_help = "Examples:
  pipeline-state hook init-rules  # write starter rules
  pipeline-state hook check       # validate them
  pipeline-state hook install     # add them to .claude/settings.json
  echo '{\"prompt\":\"write a spec\"}' | pipeline-state hook skill-activation-prompt"
    )]
    Hook(Hook),
    /// Draw what happened: an HTML page with a timeline
    #[command(
        after_help = "One file that loads nothing: phase, tasks, signals, locks and who waited for
whom, guards, checkpoints, restores and errors, from this root's journal. The
newest 50,000 events at most.

Examples:
  pipeline-state report -o report.html            # then open it in a browser
  pipeline-state report --since 2h -o report.html
  pipeline-state report >report.html

JSON:
  {file: string, events: number}, a line for each file; without -o the page"
    )]
    Report(report::Report),
    /// Print every setting and its source
    #[command(after_help = "\
From the strongest to the weakest: option, environment, .pipeline-state.toml in
the root, config.toml in $XDG_CONFIG_HOME/pipeline-state, default.

Examples:
  pipeline-state config
  pipeline-state config --json | jq '.settings[] | select(.origin != \"default\")'
  pipeline-state config trust  # the store that this root's file names

JSON:
  {settings: [{name: string, value: any, origin: string, from: string|null}],
    files: [{scope: string, path: string, standing: string, problems: [string]}]}")]
    Config(config::Config),
    /// Print shell functions to source in scripts
    #[command(after_help = SHELL_EXAMPLES)]
    Shell(shell::Functions),
    /// Print shell completions
    #[command(
        after_help = "Put the line for your shell into its start-up file; in zsh, after compinit.

Examples:
  source <(pipeline-state completions bash)
  source <(pipeline-state completions zsh)
  pipeline-state completions fish | source"
    )]
    Completions(shell::Completions),
    /// Show or install the manual pages
    #[command(after_help = "Examples:
  pipeline-state man | man -l -
  mkdir -p ~/.local/share/man/man1 && pipeline-state man ~/.local/share/man/man1")]
    Man(shell::Man),
    /// Wait until the next attempt of `retry_with_backoff`
    #[command(hide = true)]
    Pause(shell::Pause),
}

const SHELL_EXAMPLES: &str = "\
init_state_manager, read_state, write_state JSON [REASON], validate_state,
backup_state, recover_state, migrate_state; lock_state [TIMEOUT] (nests),
unlock_state; acquire_lock NAME [TIMEOUT] [MODE] [METADATA], release_lock,
check_lock; create_checkpoint OP (sets CHECKPOINT_ID), restore_checkpoint ID;
enable_degraded_mode REASON [FEATURES], disable_degraded_mode, is_degraded_mode
[FEATURE]; retry_with_backoff COMMAND [ATTEMPTS [BASE_DELAY [ARGUMENT…]]]. They
return the exit codes of this program, and what they lock belongs to the shell
or subshell that called. They call the program by the path it was printed from,
with the options overrides here, or what PIPELINE_STATE_BIN names.

Examples:
  eval \"$(pipeline-state shell bash)\"
  eval \"$(pipeline-state --root ~/project shell zsh)\"
  if lock_state 30; then write_state \"$new\" phase-done; unlock_state; fi";

/// Options of every command that writes.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Options of writers")]
pub struct Writer {
    /// Why, in at most 1 KiB: for the journal, the audit log and the backup's name
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Only if this is the current revision
    #[arg(long, value_name = "N")]
    pub if_revision: Option<u64>,
    /// Only while this grant of a lock is on record; may be repeated
    #[arg(long, value_name = "LOCK:TOKEN")]
    pub fence: Vec<String>,
    /// Print what would change, and change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Options of commands that say how things are.
#[derive(Args, Clone, Copy, Debug)]
pub struct Watched {
    /// Say it again at each change, until Ctrl-C
    #[arg(short, long)]
    pub watch: bool,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::config::setting::ALL;

    #[test]
    fn options_are_those_of_the_table_of_settings() {
        let program = Cli::command();
        let options: Vec<&clap::Arg> = program.get_arguments().collect();
        for setting in ALL {
            let Some(name) = setting.option() else { continue };
            let option = options.iter().find(|option| option.get_long() == Some(name)).unwrap();
            let help = option.get_help().unwrap().to_string();
            if let Some(variable) = setting.variable() {
                assert!(help.contains(&format!("[env: {variable}]")), "{name}: {help}");
            }
        }
        let settings: Vec<&str> = ALL.iter().filter_map(|setting| setting.option()).collect();
        for option in options.iter().filter(|option| option.get_action().takes_values()) {
            let name = option.get_long().unwrap();
            assert!(["root", "state-file"].contains(&name) || settings.contains(&name), "{name}");
        }
    }
}
