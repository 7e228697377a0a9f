//! The `recover` group as clap reads it.

use std::ffi::OsString;
use std::time::Duration;

use clap::{ArgGroup, Args, Subcommand, ValueEnum};

use super::lock::Layout;
use super::{Watched, Writer};
use crate::time::parse_duration;

#[derive(Debug, Subcommand)]
#[command(arg_required_else_help = true, disable_help_subcommand = true)]
pub enum Recover {
    /// Save the state, config/ and .signals/ together
    #[command(after_help = "PHASE and METADATA, a JSON object, may be left out.

Examples:
  pipeline-state recover checkpoint deployment
  pipeline-state recover checkpoint deployment phase6 '{\"version\":\"1.2.3\"}'

JSON:
  {id: string, files: number, bytes: number}")]
    Checkpoint(Checkpoint),
    /// Restore a checkpoint, all or nothing
    #[command(after_help = "\
What is there now becomes a checkpoint first (pre-restore), whatever state it is
in. Typed at a terminal it lists the revisions that it undoes, and asks. A restore that was \
    interrupted is finished by the next command; --abort puts
back what it replaced, and drops a record that belongs to another root.

Examples:
  pipeline-state recover restore checkpoint-20231101-103000-deployment
  pipeline-state recover restore --latest  # the newest
  pipeline-state recover restore --latest deployment  # of an operation
  pipeline-state recover restore --latest pre-restore  # undo the last restore
  pipeline-state recover restore --latest --dry-run  # show what it would change
  pipeline-state recover restore --abort  # give up one that cannot be finished

JSON:
  {id: string, pre_restore: string, revision: number}
  with --dry-run: [{path: string, old?: any, new?: any}]
  with --abort: {aborted: string|null, undone: boolean}")]
    Restore(Restore),
    /// List checkpoints, newest first
    #[command(after_help = "\
In a narrow terminal columns are shortened or left out; a pipe or file gets all
of them.

Examples:
  pipeline-state recover list
  pipeline-state recover list json | jq -r '.[].id'

JSON:
  [{id: string, time: TIME|null, operation: string|null, phase: string|null,
    revision: number|null, files: number|null, bytes: number|null,
    metadata: object|null, problem?: string}]")]
    List {
        /// table or json
        layout: Option<Layout>,
    },
    /// Show what a checkpoint contains
    #[command(after_help = "Examples:
  pipeline-state recover show checkpoint-20231101-103000-deployment

JSON:
  {id: string, time: TIME|string, operation: string, phase: string|null,
    revision: number|null, automatic: boolean, owner: OWNER,
    metadata: object, files: [{path: string, type: string, mode?: string,
    bytes?: number, sha256?: string, target?: string}]}")]
    Show {
        /// The checkpoint
        id: String,
    },
    /// Verify checkpoints byte by byte
    #[command(after_help = "Exit 3 if one is damaged.

Examples:
  pipeline-state recover verify
  pipeline-state recover verify checkpoint-20231101-103000-deployment

JSON:
  [{id: string, valid: boolean, problem: string|null}]")]
    Verify {
        /// The checkpoint [default: all]
        id: Option<String>,
    },
    /// Delete old checkpoints
    #[command(after_help = "Examples:
  pipeline-state recover cleanup               # older than 7 days
  pipeline-state recover cleanup 30 --keep 10  # but keep at least 10
  pipeline-state recover cleanup 1 --dry-run   # which ones would go

JSON:
  {removed: [string]}
  with --dry-run: {would_remove: [string]}")]
    Cleanup {
        /// Remove what is older than this many days
        #[arg(default_value_t = 7)]
        days: u64,
        /// Keep at least this many, however old
        #[arg(long, value_name = "N", default_value_t = 1)]
        keep: usize,
        /// Print which ones would be removed, and remove none
        #[arg(long)]
        dry_run: bool,
    },
    /// Delete the checkpoints you name
    #[command(
        after_help = "An id, or the beginning of one, with or without `checkpoint-`, that no other
begins with. What an interrupted restore needs stays.

Examples:
  pipeline-state recover remove checkpoint-20231101-103000-deployment
  pipeline-state recover remove 20231101-10 20231102

JSON:
  {removed: [string]}"
    )]
    Remove {
        /// The checkpoints
        #[arg(required = true, value_name = "ID")]
        ids: Vec<String>,
    },
    /// Run a command; roll back if it fails
    #[command(after_help = "\
Ends with the command's own exit code. What others committed meanwhile stays: then
what the command changed is put back path by path. Where both changed the same,
nothing is put back, the exit code is that of --unrestored-code, and the guard
stays on record until `recover restore ID` or `recover guard --forget ID`.

Examples:
  pipeline-state recover guard deploy -- ./deploy.sh
  pipeline-state recover guard deploy --retries 3 -- ./deploy.sh --fast
  pipeline-state recover guard --forget checkpoint-20231101-103000-deploy

JSON:
  nothing: standard output is the command's
  with --forget: {id: string}")]
    Guard(Guard),
    /// Run a command until it succeeds, with backoff
    #[command(after_help = "\
Waits base, 2 x base, 4 x base … seconds, at most max, less up to half of it at
random. 126 (not executable), 127 (not found) and the end by Ctrl-C or SIGTERM
are never retried. Ends with the exit code of the last attempt, and with 9 where
the time of --timeout was up. A lost race (75) is retried like any failure.

Examples:
  pipeline-state recover retry -- curl -fsS https://example.org/
  pipeline-state recover retry -n 5 --base-delay 1 --retry-on 75 -- ./fetch.sh

JSON:
  nothing: standard output is the command's")]
    Retry(Retry),
    /// Turn on degraded mode and disable features
    #[command(after_help = "Examples:
  pipeline-state recover degrade no-database '[\"live-updates\", \"notifications\"]'
  pipeline-state recover degrade disk-slow reports,thumbnails

JSON:
  {revision: number, changed: boolean}
  with --dry-run: [{path: string, old?: any, new?: any}]")]
    Degrade(Degrade),
    /// Turn off degraded mode
    #[command(
        name = "recover-mode",
        after_help = "Examples:
  pipeline-state recover recover-mode --reason 'the database is back'

JSON:
  {revision: number, changed: boolean}
  with --dry-run: [{path: string, old?: any, new?: any}]"
    )]
    Normal {
        #[command(flatten)]
        writer: Writer,
    },
    /// Check for degraded mode or a disabled feature (exit 1 if not)
    #[command(after_help = "Examples:
  pipeline-state recover degraded notifications >/dev/null || ./notify.sh

JSON:
  {degraded: boolean, reason: string, since: TIME|string|null,
    disabled_features: [string], feature: string|null, disabled: boolean|null}")]
    Degraded(Degraded),
    /// Apply the standard fix for an exit code
    #[command(after_help = "Exit 0 if it is worth trying again, 1 if an operator has to decide.

Examples:
  ./step.sh || { pipeline-state recover handle $? && ./step.sh; }

JSON:
  {code: number, name: string, done: [string], next: [string],
    try_again: boolean}")]
    Handle(Handle),
    /// Diagnose problems and suggest fixes
    #[command(after_help = "\
Changes nothing without --fix, but for a scratch directory in the root, in which it tests what
the file system does, and which it removes. Exit 0 if there is no problem, else the code of the
worst finding. The output of --json is what a bug report needs.

Examples:
  pipeline-state recover doctor
  pipeline-state recover doctor --fix  # do what is safe; the rest is listed

JSON:
  {findings: [{code: number, name: string, subject: string, message: string,
    remedy: string|null, remedies: [string], fix: string}],
    fixed: the same,
    tests: [{test: string, place: string|null, works: boolean|null,
    why: string|null, ms: number}],
    machine: {version: string, os: string, arch: string, kernel: string,
    places: [{place: string, file_system: string, device: number,
    is_shared: boolean}], names_fold: boolean|null}}")]
    Doctor {
        /// Do what is safe
        #[arg(long)]
        fix: bool,
    },
    /// Show checkpoints, degraded mode and recent errors
    #[command(after_help = "Examples:
  pipeline-state recover status
  pipeline-state recover status --watch

JSON:
  {path: string, health: string, revision: number|null,
    interrupted_restore: string|null, guards: [{id: string,
    standing: string, why?: string}], checkpoints: number,
    newest_checkpoint: string|null, errors: {[code]: number},
    last_errors: [{time: TIME|string, level: string, component: string,
    message: string, code: number}], degraded: {enabled: boolean,
    reason: string, since: TIME|string|null, disabled_features: [string]},
    next: [string]}")]
    Status(Watched),
    /// Print metrics (text, JSON or Prometheus)
    #[command(after_help = "Examples:
  pipeline-state recover metrics prometheus > /var/lib/node/pipeline.prom

JSON:
  {path: string, since: TIME|null, state_bytes: number|null,
    first_bytes: number|null, commits: number, backups: {[kind]: number},
    backups_last_day: number, backups_kept: number,
    recoveries: {[kind]: number}, errors: {[code]: number},
    revision: number|null, locks: {[status]: number}, checkpoints: number,
    newest_checkpoint_age: number|null, is_degraded: boolean,
    is_healthy: boolean, is_writable: boolean, disk_free: number|null,
    lock_waits: {count: number, seconds: number, median: number, p99: number, max: number},
    commit_waits: the same,
    by_lock: {[lock]: {granted: number, waited: number, longest: number,
    timed_out: number, broken: number, owner_died: number}},
    guards: {[outcome]: number}, retries: {[outcome]: number},
    growth_bytes: number|null}")]
    Metrics {
        /// text, json or prometheus
        form: Option<Form>,
    },
}

#[derive(Args, Debug)]
pub struct Checkpoint {
    /// What is about to be done: a name of at most 64 characters
    pub operation: String,
    /// The phase [default: the state's], and a JSON object
    #[arg(value_name = "PHASE|METADATA", num_args = 0..=2)]
    pub shapes: Vec<String>,
}

#[derive(Args, Debug)]
#[command(group = ArgGroup::new("which").required(true))]
pub struct Restore {
    /// The checkpoint
    #[arg(group = "which")]
    pub id: Option<String>,
    /// The newest one, or the newest of an operation
    #[arg(group = "which", long, value_name = "OP", num_args = 0..=1, default_missing_value = "")]
    pub latest: Option<String>,
    /// Give up an interrupted restore: put back what it replaced, or drop it
    #[arg(group = "which", long)]
    pub abort: bool,
    /// Do not ask; scripts are never asked
    #[arg(long)]
    pub yes: bool,
    #[command(flatten)]
    pub writer: Writer,
}

#[derive(Args, Clone, Debug)]
pub struct Pauses {
    /// How long to wait after the first failure
    #[arg(long, value_name = "T", default_value = "2", value_parser = parse_duration)]
    pub base_delay: Duration,
    /// How long to wait at most
    #[arg(long, value_name = "T", default_value = "60", value_parser = parse_duration)]
    pub max_delay: Duration,
    /// For how long to try, all attempts together; a command that runs then gets SIGTERM
    #[arg(long, value_name = "T", value_parser = parse_duration)]
    pub timeout: Option<Duration>,
    /// Retry only after these exit codes
    #[arg(long, value_name = "CODES", value_delimiter = ',')]
    pub retry_on: Vec<u8>,
}

#[derive(Args, Debug)]
pub struct Guard {
    /// What is about to be done
    #[arg(required_unless_present = "forget")]
    pub operation: Option<String>,
    /// Take a guard off the record that did not put everything back
    #[arg(
        long,
        value_name = "ID",
        conflicts_with_all = ["operation", "command", "retries", "unrestored_code"]
    )]
    pub forget: Option<String>,
    /// The exit code where not everything could be put back
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub unrestored_code: u8,
    /// How many attempts there are
    #[arg(
        short = 'n',
        long,
        value_name = "N",
        default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub retries: u32,
    #[command(flatten)]
    pub pauses: Pauses,
    /// The command
    #[arg(last = true, required_unless_present = "forget", value_name = "CMD")]
    pub command: Vec<OsString>,
}

#[derive(Args, Debug)]
pub struct Retry {
    /// How many attempts there are
    #[arg(
        short = 'n',
        long,
        value_name = "N",
        default_value_t = 3,
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub retries: u32,
    #[command(flatten)]
    pub pauses: Pauses,
    /// The command
    #[arg(last = true, required = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

#[derive(Args, Debug)]
pub struct Degrade {
    /// What is out of order
    #[arg(value_name = "REASON")]
    pub cause: String,
    /// Which features to leave alone: a JSON array, or names with commas between them
    pub features: Option<String>,
    #[command(flatten)]
    pub writer: Writer,
}

#[derive(Args, Debug)]
pub struct Degraded {
    /// The feature
    pub feature: Option<String>,
    /// Exit 0 whatever the answer is
    #[arg(long)]
    pub exit_zero: bool,
}

#[derive(Args, Debug)]
pub struct Handle {
    /// The exit code
    pub code: u8,
    /// What ended with it
    #[arg(long, value_name = "OP")]
    pub operation: Option<String>,
    /// What was said, for the error log
    #[arg(long, value_name = "TEXT")]
    pub message: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Form {
    Text,
    Json,
    Prometheus,
}
