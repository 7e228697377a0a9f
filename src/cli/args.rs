//! The command line as clap reads it. Nothing here does anything.

pub mod hook;
pub mod lock;
pub mod recover;
pub mod shell;

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};

pub use self::hook::Hook;
pub use self::lock::Lock;
pub use self::recover::Recover;
use crate::config::{Color, Format, Given, Verbosity};
use crate::time::parse_duration;

/// Keeps the state of a development pipeline: a JSON document that loses nothing
///
/// For shell scripts, for hooks that run in parallel and get killed half-way, and for the person who has to find out
/// what happened.
#[derive(Debug, Parser)]
#[command(name = "pipeline-state", version, propagate_version = true, after_help = EXAMPLES)]
#[command(subcommand_required = true, arg_required_else_help = true, disable_help_subcommand = true)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub group: Group,
}

const EXAMPLES: &str = "\
Examples:
  pipeline-state state init               make a state here
  pipeline-state state set phase=build    change it
  pipeline-state state get .phase         ask it
  pipeline-state state status             see how it is
  pipeline-state lock run deploy -- make  hold a lock while a command runs
  pipeline-state lock list                see who holds what, and who waits
  pipeline-state state recover            bring back the last good revision
  pipeline-state recover doctor           check everything, and say what to do

Exit codes: 0 done, 1 error or \"no\", 2 lock timeout, 3 corruption, 4 invalid,
5 missing file, 6 permission, 7 disk full, 9 timeout, 10 resources, 64 usage.
Treat any other as failure.

`--help` of each command has examples, and what it prints with --json: the
fields and their types; field? may be missing. An error is a line of JSON on
standard error then.";

#[derive(Args, Debug)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Directory of the state [env: PIPELINE_ROOT] [default: the nearest one upwards that has a state]
    #[arg(long, global = true, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// The state file itself [env: STATE_FILE] [default: ROOT/.workflow-state.json]
    #[arg(long, global = true, value_name = "PATH")]
    pub state_file: Option<PathBuf>,
    /// Where commits and refusals are logged [env: AUDIT_LOG] [default: /tmp/claude-pipeline-audit.log]
    #[arg(long, global = true, value_name = "PATH")]
    pub audit_log: Option<PathBuf>,
    /// How long to wait for a lock: 30, 0.5, 5s, 2m; 0 tries once [env: LOCK_TIMEOUT] [default: 30]
    #[arg(long, global = true, value_name = "T", value_parser = parse_duration)]
    pub lock_timeout: Option<Duration>,
    /// Exit code when a lock was not had in time [env: PIPELINE_LOCK_EXIT] [default: 2]
    #[arg(long, global = true, value_name = "N")]
    pub lock_exit: Option<u8>,
    /// How results and errors are written [env: PIPELINE_FORMAT] [default: text]
    #[arg(long, global = true, value_name = "FORMAT")]
    pub format: Option<FormatArg>,
    /// Same as --format json
    #[arg(long, global = true, conflicts_with = "format")]
    pub json: bool,
    /// No confirmations
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Say what is done; -vv says more [env: DEBUG=1 is -vv]
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

impl From<&Global> for Given {
    fn from(global: &Global) -> Self {
        Self {
            root: global.root.clone(),
            state_file: global.state_file.clone(),
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
    /// The document: read, change, check and restore it
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
    /// Named locks that belong to the script: take, give back, wait for, look at them
    #[command(
        subcommand,
        after_help = "Examples:
  pipeline-state lock run deploy -- make install  # cannot be forgotten
  pipeline-state lock acquire deploy 30  # in a script, which then owns it
  pipeline-state lock release deploy
  pipeline-state lock list  # who holds what, and who waits"
    )]
    Lock(Lock),
    /// When things go wrong: checkpoints, retries, degraded mode, a check of everything
    #[command(
        subcommand,
        after_help = "Examples:
  pipeline-state recover doctor            # what is wrong, and what to type
  pipeline-state recover guard deploy -- ./deploy.sh
  pipeline-state recover checkpoint before-upgrade
  pipeline-state recover restore --latest  # all of it, as it was"
    )]
    Recover(Recover),
    /// For editors and agents: what their events mean, by the rules in config/skill-rules.json
    #[command(
        subcommand,
        after_help = "Examples:
  pipeline-state hook init-rules  # rules to begin with
  pipeline-state hook check       # are they right?
  pipeline-state hook settings    # paste into .claude/settings.json
  echo '{\"prompt\":\"write a spec\"}' | pipeline-state hook skill-activation-prompt"
    )]
    Hook(Hook),
    /// Print shell functions for scripts: lock_state, read_state, write_state, retry_with_backoff and others
    #[command(after_help = SHELL_EXAMPLES)]
    Shell(shell::Functions),
    /// Print the completions for a shell: commands, options, and the locks, checkpoints and backups that are there
    #[command(after_help = "Put the line that is right for your shell into its start-up file, behind
compinit in zsh.

Examples:
  source <(pipeline-state completions bash)
  source <(pipeline-state completions zsh)
  pipeline-state completions fish | source")]
    Completions(shell::Completions),
    /// Print the manual page, or write one for each command into a directory
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
with the options given here, or what PIPELINE_STATE_BIN names.

Examples:
  eval \"$(pipeline-state shell bash)\"
  eval \"$(pipeline-state --root ~/project shell zsh)\"
  if lock_state 30; then write_state \"$new\" phase-done; unlock_state; fi";

/// Options of every command that writes.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Options of writers")]
pub struct Writer {
    /// Why: for the audit log and the backup's name
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

#[derive(Debug, Subcommand)]
#[command(arg_required_else_help = true, disable_help_subcommand = true)]
pub enum State {
    /// Make the directories and the first document; heal, migrate and tidy up what is there
    #[command(after_help = "Examples:
  pipeline-state state init
  pipeline-state --root ~/project state init
  pipeline-state state init --fresh  # archive the history, begin anew

JSON:
  {path: string, revision: number, created: boolean}")]
    Init {
        /// Archive the history and begin a new lineage
        #[arg(long)]
        fresh: bool,
    },
    /// Print the document
    #[command(after_help = "Examples:
  pipeline-state state read > snapshot.json
  pipeline-state state read | jq '.n += 1' | pipeline-state state write -

JSON:
  the document, as without --json")]
    Read,
    /// Print what a jq filter yields; exit 1 if that is nothing or null
    #[command(after_help = "Examples:
  pipeline-state state get .phase
  pipeline-state state get '.signals | keys[]'
  pipeline-state state get .retries --default 3
  pipeline-state state get -e '.completedTasks | index(\"lint\")' || make lint

JSON:
  any, a line for each result")]
    Get(Get),
    /// Set values: PATH=TEXT or PATH:=JSON, several at once in one commit
    #[command(after_help = "Examples:
  pipeline-state state set phase=build
  pipeline-state state set metadata.owner=me retries:=3 'tags[+]=nightly'
  pipeline-state state set 'config.limits:={\"cpu\": 2}' --if-revision 12

JSON:
  {revision: number, changed: boolean}
  with --dry-run: [{path: string, old?: any, new?: any}]")]
    Set(Set),
    /// Change the document by a jq program: one atomic read-modify-write
    #[command(after_help = "Examples:
  pipeline-state state update '.n = (.n // 0) + 1'
  pipeline-state state update '.owner = $who' --arg who \"$USER\"
  pipeline-state state update '.completedTasks += [\"lint\"]' --reason lint-done

JSON:
  {revision: number, changed: boolean}
  with --dry-run: [{path: string, old?: any, new?: any}]")]
    Update(Update),
    /// Replace the document by a file or standard input
    #[command(after_help = "A document that says which revision it was made from (as `state read` prints it)
is only written if that is still the current one; otherwise: conflict, exit 1.

Examples:
  pipeline-state state write new.json
  pipeline-state state read | jq '.n += 1' | pipeline-state state write -

JSON:
  {revision: number, changed: boolean}
  with --dry-run: [{path: string, old?: any, new?: any}]")]
    Write(Write),
    /// Print the phase, or set it
    #[command(after_help = "Examples:
  pipeline-state state phase
  pipeline-state state phase build

JSON:
  string, or with NAME: {revision: number, changed: boolean}
  with --dry-run: [{path: string, old?: any, new?: any}]")]
    Phase(Phase),
    /// Add tasks to completedTasks; those that are there already stay as they are
    #[command(after_help = "Examples:
  pipeline-state state complete lint unit-tests

JSON:
  {revision: number, changed: boolean}
  with --dry-run: [{path: string, old?: any, new?: any}]")]
    Complete(Complete),
    /// Set a signal to now, and write its file in .signals/
    #[command(after_help = "Examples:
  pipeline-state state signal PHASE1_COMPLETE --phase phase2
  pipeline-state state signal BUILD_DONE --metadata '{\"commit\":\"abc\"}'
  pipeline-state state signal BUILD_DONE --clear

JSON:
  {revision: number, changed: boolean}
  with --dry-run: [{path: string, old?: any, new?: any}]")]
    Signal(Signal),
    /// Check the document, or a file; never changes anything
    #[command(after_help = "Examples:
  pipeline-state state validate
  pipeline-state state validate new.json

JSON:
  {valid: boolean, findings: [{path: string, problem: string}],
    note: string|null}")]
    Validate {
        /// A file to check instead; - is standard input
        file: Option<PathBuf>,
    },
    /// Keep a copy of the document until 20 newer ones are kept
    #[command(after_help = "Examples:
  pipeline-state state backup before-upgrade

JSON:
  {file: string}")]
    Backup {
        /// Part of the file's name
        name: Option<String>,
    },
    /// List the backups
    #[command(after_help = "Examples:
  pipeline-state state backups
  pipeline-state state backups --json | jq -r '.[] | select(.pinned) | .name'

JSON:
  [{name: string, revision: number|null, reason: string, time: string,
    bytes: number, pinned: boolean, valid: boolean, problem?: string}]")]
    Backups,
    /// Bring back the newest valid copy, or the one that is named
    #[command(after_help = "Examples:
  pipeline-state state recover  # after damage, a foreign edit or a deletion
  pipeline-state state recover before-upgrade  # roll back to a backup
  pipeline-state state recover --to-revision 12

JSON:
  {recovered: boolean, file?: string, revision?: number,
    preMigration?: string|null}
  with --dry-run: [{path: string, old?: any, new?: any}]")]
    Recover {
        /// Part of a backup's name, or a glob; the newest valid one that matches
        #[arg(conflicts_with = "to_revision", value_parser = NonEmptyStringValueParser::new())]
        pattern: Option<String>,
        /// The copy of this revision
        #[arg(long, value_name = "N")]
        to_revision: Option<u64>,
        #[command(flatten)]
        writer: Writer,
    },
    /// Accept a change that was made to the file by something else
    #[command(after_help = "Examples:
  pipeline-state state adopt --dry-run
  pipeline-state state adopt --reason 'edited by hand'

JSON:
  {revision: number, changed: boolean}
  with --dry-run: [{path: string, old?: any, new?: any}]")]
    Adopt {
        #[command(flatten)]
        writer: Writer,
    },
    /// Persist the document in today's schema
    #[command(after_help = "Examples:
  pipeline-state state migrate --dry-run

JSON:
  {from: string|null, to: string, revision?: number}")]
    Migrate {
        #[command(flatten)]
        writer: Writer,
    },
    /// List the revisions that are remembered
    #[command(after_help = "Examples:
  pipeline-state state history

JSON:
  [{revision: number, reason: string|null, time: string|null,
    pid: number|null, command: string|null, file: string|null}]")]
    History,
    /// Show what differs between two revisions or backups
    #[command(after_help = "Examples:
  pipeline-state state diff     # what the last commit changed
  pipeline-state state diff 12  # revision 12 against now
  pipeline-state state diff 12 before-upgrade

JSON:
  [{path: string, old?: any, new?: any}]")]
    Diff {
        /// The older one: a revision or a part of a backup's name
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        old: Option<String>,
        /// The newer one; the live file if it is not given
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        new: Option<String>,
    },
    /// Edit the document in $VISUAL or $EDITOR; checked before it is committed
    #[command(after_help = "Examples:
  EDITOR=nano pipeline-state state edit

JSON:
  {revision: number, changed: boolean}")]
    Edit {
        #[command(flatten)]
        writer: Writer,
    },
    /// Return once a filter is true; exit 9 if it is not in time
    #[command(after_help = "Examples:
  pipeline-state state wait '.signals.BUILD_DONE' --timeout 10m
  pipeline-state state wait '.phase == \"deploy\"'

JSON:
  nothing")]
    Wait {
        /// jq filter; true is anything but false, null or nothing
        filter: String,
        /// For how long: 30, 5s, 2m [default: for ever]
        #[arg(long, value_name = "T", value_parser = parse_duration)]
        timeout: Option<Duration>,
    },
    /// Print one JSON line for each revision until interrupted
    #[command(after_help = "Examples:
  pipeline-state state watch .phase

JSON:
  any, a line for each result")]
    Watch {
        /// jq filter on each revision
        #[arg(default_value = ".")]
        filter: String,
    },
    /// Say how the state is
    #[command(after_help = "Examples:
  pipeline-state state status
  pipeline-state state status --watch  # until Ctrl-C
  pipeline-state state status --json | jq -r .health

JSON:
  {path: string, health: string, findings: [{path: string, problem: string}],
    revision: number|null, lineage: string|null, schema: string|null,
    phase: string|null, completed_tasks: number|null, signals: number|null,
    last_signal: string|null, degraded: boolean, last_modified: string|null,
    bytes: number|null, mode: string|null, mirror: string,
    backups: {automatic: number, pinned: number, evidence: number,
    archives: number, newest: string|null}, state_lock: {pid: number,
    command: string}|null, locks: as `lock status`, checkpoints: number,
    interrupted_restore: string|null, disk_free: number|null,
    audit_log: string}")]
    Status(Watched),
}

#[derive(Args, Debug)]
pub struct Get {
    /// jq filter, or a plain path like .a.b[0]
    pub filter: String,
    /// Exit 1 also if the last result is false, like jq -e
    #[arg(short = 'e', long = "exit-status")]
    pub exit_status: bool,
    /// Printed where there is nothing, with exit code 0
    #[arg(long, value_name = "V", allow_hyphen_values = true)]
    pub default: Option<String>,
    /// Exit 0 whatever the answer is
    #[arg(long)]
    pub exit_zero: bool,
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
pub struct Update {
    /// jq program; it gets the document and must yield the new one
    pub filter: String,
    /// Binds $NAME to a string
    #[arg(long, num_args = 2, value_names = ["NAME", "TEXT"], action = clap::ArgAction::Append, allow_hyphen_values = true)]
    pub arg: Vec<String>,
    /// Binds $NAME to a JSON value
    #[arg(long, num_args = 2, value_names = ["NAME", "JSON"], action = clap::ArgAction::Append, allow_hyphen_values = true)]
    pub argjson: Vec<String>,
    #[command(flatten)]
    pub writer: Writer,
}

#[derive(Args, Debug)]
pub struct Write {
    /// The file; - is standard input
    #[arg(default_value = "-")]
    pub file: PathBuf,
    /// Even if somebody committed meanwhile
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub writer: Writer,
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
