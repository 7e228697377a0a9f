//! The `lock` group as clap reads it.

use std::ffi::OsString;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::Watched;
use crate::lock::Token;
use crate::time::parse_duration;

#[derive(Debug, Subcommand)]
#[command(arg_required_else_help = true, disable_help_subcommand = true)]
pub enum Lock {
    /// Take locks and hold them until your script releases them or ends
    #[command(
        after_help = "TIMEOUT, MODE and METADATA are recognized by their shape and may come in any
order.

Examples:
  pipeline-state lock acquire deploy              # wait up to 30 s
  pipeline-state lock acquire deploy 0 || exit 1  # try once
  pipeline-state lock acquire cache 60 shared '{\"for\":\"tests\"}'
  pipeline-state lock acquire build,deploy 5m     # both or none
  token=$(pipeline-state lock acquire deploy --print-token --owner-pid $$)

JSON:
  {lock: string, token: number, owner: OWNER, mode: string, count: number,
    borrowed?: boolean}, a line for each lock"
    )]
    Acquire(Acquire),
    /// Release locks
    #[command(after_help = "Examples:
  pipeline-state lock release deploy
  pipeline-state lock release deploy --token 17  # from anywhere

JSON:
  {lock: string, token: number, left: number}, a line for each lock")]
    Release(Release),
    /// Check whether a lock is held (exit 1 if free)
    #[command(after_help = "Prints locked:exclusive:PID, locked:shared:PID,PID, unlocked, stale or
unknown:WHAT. A stale lock is free: its owner is dead, and the next request
takes it.

Examples:
  if pipeline-state lock check deploy >/dev/null; then echo busy; fi

JSON:
  {lock: string, held: boolean, standing: string}")]
    Check(Check),
    /// Show holders and waiters
    #[command(after_help = "\
In a narrow terminal columns are shortened or left out; a pipe or file gets all
of them. The status is held, waiting, stopped, passed-over (it did not take its
free lock within a second), broken, stale, unknown or damaged. `lock break
--waiter` takes the ID of a waiter.

Examples:
  pipeline-state lock list
  pipeline-state lock list json | jq '.[] | select(.status == \"waiting\")'

JSON:
  [{lock: string, mode: string, status: string, owner: OWNER|null,
    command: string, token: number|null, waiter?: string, since: TIME|string,
    until?: TIME, waiting_for: [number], count?: number, place?: string,
    metadata: object|null}]")]
    List {
        /// table or json
        layout: Option<Layout>,
    },
    /// Remove records left by dead processes
    #[command(
        after_help = "Nothing depends on this: each request for a lock finds its dead owners.

Examples:
  pipeline-state lock clean

JSON:
  {cleaned: number}"
    )]
    Clean,
    /// Forcibly take a lock away from its holder, or end a wait
    #[command(
        after_help = "What the holder does under the lock goes on; a writer with --fence is refused
from now on. The command of a wait that is ended ends with exit 2 and the kind
broken.

Examples:
  pipeline-state lock list                  # shows the token
  pipeline-state lock break deploy --token 17
  pipeline-state lock break deploy --force  # all its holders
  pipeline-state lock break --waiter 5f0c1e77a94b2d38  # an ID of the list

JSON:
  {lock: string, token: number, owner: OWNER|null}, a line for each grant
  with --waiter: {waiter: string, locks: [string], owner: OWNER}"
    )]
    Break(Break),
    /// Extend a lock's TTL
    #[command(after_help = "Examples:
  pipeline-state lock renew deploy --ttl 10m

JSON:
  {lock: string, until: TIME|null}")]
    Renew(Renew),
    /// Show how many locks are held, waiting or stale
    #[command(after_help = "Examples:
  pipeline-state lock status
  pipeline-state lock status --watch  # until Ctrl-C
  pipeline-state lock status --json | jq .waiting

JSON:
  {directory: string, held: number, waiting: number, stale: number,
    unknown: number, file_system: string, shared_file_system: boolean,
    entries: as `lock list`}")]
    Status(Watched),
    /// Run a command while holding locks
    #[command(after_help = "\
Ends with the command's own exit code; 128+N after signal N, 127 if there is no
such command, 126 if it cannot be executed. The lock is the command's: it is
held until the command ends, even if this program is killed.

Examples:
  pipeline-state lock run deploy -- ./deploy.sh --fast
  pipeline-state lock run deploy -t 0 --conflict-code 75 -- make install
  pipeline-state lock run build,deploy -t 5m -- sh -c 'make && make install'

JSON:
  nothing: standard output is the command's")]
    Run(Run),
}

#[derive(Args, Debug)]
pub struct Acquire {
    /// The locks: all are acquired or none
    #[arg(value_name = "NAME[,NAME…]")]
    pub names: String,
    /// How long to wait (30, 5s, 2m; 0 tries once), exclusive or shared, and a JSON object
    #[arg(value_name = "TIMEOUT|MODE|METADATA")]
    pub shapes: Vec<String>,
    /// How long to wait [default: --lock-timeout]
    #[arg(short, long, value_name = "T", value_parser = parse_duration)]
    pub timeout: Option<Duration>,
    /// Together with others that share it
    #[arg(long)]
    pub shared: bool,
    /// Notes for the record: a JSON object
    #[arg(long, value_name = "JSON", allow_hyphen_values = true)]
    pub metadata: Option<String>,
    /// The owner: in a script, $$ [env: PIPELINE_OWNER_PID] [default: the parent process]
    #[arg(long, value_name = "PID")]
    pub owner_pid: Option<u32>,
    /// If it is held already, count; it takes as many releases
    #[arg(long)]
    pub reentrant: bool,
    /// Of what is held already, count the owner's own, and leave an ancestor's as it is: it is held
    /// here, too
    #[arg(long, hide = true, conflicts_with = "reentrant")]
    pub borrow: bool,
    /// Time to live where the owner cannot be judged: in containers, on network disks
    #[arg(long, value_name = "T", value_parser = parse_duration)]
    pub ttl: Option<Duration>,
    /// Print the token alone
    #[arg(long)]
    pub print_token: bool,
    /// Wait even where that may never end
    #[arg(long)]
    pub no_deadlock_check: bool,
}

#[derive(Args, Debug)]
pub struct Release {
    /// The locks: all are released or none
    #[arg(value_name = "NAME[,NAME…]")]
    pub names: String,
    /// The grant to release, regardless of its holder
    #[arg(long, value_name = "T")]
    pub token: Option<Token>,
    /// The owner, if it is not this script [env: PIPELINE_OWNER_PID]
    #[arg(long, value_name = "PID")]
    pub owner_pid: Option<u32>,
}

#[derive(Args, Debug)]
pub struct Check {
    /// The lock
    pub name: String,
    /// Exit 0 whatever the answer is
    #[arg(long)]
    pub exit_zero: bool,
}

/// What becomes of a command that has lost its locks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnLost {
    /// It is sent SIGTERM, and after ten seconds SIGKILL
    End,
    /// It goes on
    Keep,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Layout {
    Table,
    Json,
}

#[derive(Args, Debug)]
#[command(group(clap::ArgGroup::new("target").required(true)))]
pub struct Break {
    /// The lock
    #[arg(required_unless_present = "waiter")]
    pub name: Option<String>,
    /// The grant to take away
    #[arg(long, value_name = "T", group = "target")]
    pub token: Option<Token>,
    /// All its holders
    #[arg(long, group = "target")]
    pub force: bool,
    /// The waiter that is to give up; it has no NAME
    #[arg(long, value_name = "ID", group = "target", conflicts_with = "name")]
    pub waiter: Option<String>,
}

#[derive(Args, Debug)]
pub struct Renew {
    /// The lock
    pub name: String,
    /// For how long from now [default: as it was acquired with]
    #[arg(long, value_name = "T", value_parser = parse_duration)]
    pub ttl: Option<Duration>,
    /// The grant to renew, regardless of its holder
    #[arg(long, value_name = "T")]
    pub token: Option<Token>,
    /// The owner, if it is not this script [env: PIPELINE_OWNER_PID]
    #[arg(long, value_name = "PID")]
    pub owner_pid: Option<u32>,
}

#[derive(Args, Debug)]
pub struct Run {
    /// The locks: all are acquired or none
    #[arg(value_name = "NAME[,NAME…]")]
    pub names: String,
    /// How long to wait [default: --lock-timeout]
    #[arg(short, long, value_name = "T", value_parser = parse_duration)]
    pub timeout: Option<Duration>,
    /// Together with others that share it
    #[arg(long)]
    pub shared: bool,
    /// Exit code where the locks were not had in time [default: --lock-exit]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..))]
    pub conflict_code: Option<u8>,
    /// Wait even where that may never end
    #[arg(long)]
    pub no_deadlock_check: bool,
    /// In a store on other machines: what becomes of the command when its locks are lost
    #[arg(long, value_name = "WHAT", default_value = "end")]
    pub on_lost: OnLost,
    /// In a store on other machines: renew the locks in this process, not in one of its own; the
    /// locks end soon after it, also where the command lives on
    #[arg(long)]
    pub foreground: bool,
    /// The command
    #[arg(last = true, required = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}
