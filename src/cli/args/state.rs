//! The `state` group as clap reads it.

mod arguments;

use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;
use clap::builder::NonEmptyStringValueParser;

pub use self::arguments::{
    Complete, Get, History, Phase, Print, Program, Pull, Push, Set, Signal, Unset, Update,
    WriteDocument,
};
use super::{Watched, Writer};
use crate::time::parse_duration;

#[derive(Debug, Subcommand)]
#[command(arg_required_else_help = true, disable_help_subcommand = true)]
pub enum State {
    /// Create the state, or repair and migrate an existing one
    #[command(after_help = "Says what it did: created, healed, migrated or already there.

Examples:
  pipeline-state state init
  pipeline-state --root ~/project state init
  pipeline-state state init --fresh  # archive the history, start a new one

JSON:
  {path: string, revision: number, created: boolean, done: string,
    archive: string|null, archived_state: string|null}")]
    Init {
        /// Archive the history and start a new lineage; asks where there is a state
        #[arg(long)]
        fresh: bool,
        /// With --fresh: do not ask
        #[arg(long, requires = "fresh")]
        yes: bool,
    },
    /// Print the whole document
    #[command(after_help = "Examples:
  pipeline-state state read > snapshot.json
  pipeline-state state read | jq '.n += 1' | pipeline-state state write -

JSON:
  the document, as without --json")]
    Read,
    /// Print the result of a jq filter (exit 1 if empty or null)
    #[command(after_help = "Examples:
  pipeline-state state get .phase
  pipeline-state state get '.signals | keys[]'
  pipeline-state state get .retries --default 3
  pipeline-state state get '.tasks[] | select(.owner == $who)' --arg who \"$USER\"
  pipeline-state state get -e '.completedTasks | index(\"lint\")' || make lint

JSON:
  any, a line for each result")]
    Get(Get),
    /// Set one or more values in a single commit
    #[command(after_help = "\
A path is keys with dots between them; .1 and [1] are elements of arrays, and a key
is quoted unless it is letters, digits, _ and -, with no digit first: .\"2024\".

Examples:
  pipeline-state state set phase=build
  pipeline-state state set metadata.owner=me retries:=3 'tags[+]=nightly'
  pipeline-state state set 'config.limits:={\"cpu\": 2}' --if-revision 12

JSON:
  {revision: number, changed: boolean}
  with --dry-run: [{path: string, old?: any, new?: any}]")]
    Set(Set),
    /// Change the document with a jq program
    #[command(after_help = "Examples:
  pipeline-state state update '.n = (.n // 0) + 1'
  pipeline-state state update '.owner = $who' --arg who \"$USER\"
  pipeline-state state update '.completedTasks += [\"lint\"]' --reason lint-done

JSON:
  {revision: number, changed: boolean}
  with --dry-run: [{path: string, old?: any, new?: any}]")]
    Update(Update),
    /// Replace the document with a file or standard input
    #[command(after_help = "\
A document that says which revision it was made from (as `state read` prints it)
is only written if that is still the current one; otherwise: conflict, exit 75.

Examples:
  pipeline-state state write new.json
  pipeline-state state read | jq '.n += 1' | pipeline-state state write -

JSON:
  {revision: number, changed: boolean}
  with --dry-run: [{path: string, old?: any, new?: any}]")]
    Write(WriteDocument),
    /// Show or set the current phase
    #[command(after_help = "Examples:
  pipeline-state state phase
  pipeline-state state phase build

JSON:
  string, or with NAME: {revision: number, changed: boolean}
  with --dry-run: [{path: string, old?: any, new?: any}]")]
    Phase(Phase),
    /// Mark tasks as completed
    #[command(after_help = "Examples:
  pipeline-state state complete lint unit-tests

JSON:
  {revision: number, changed: boolean}
  with --dry-run: [{path: string, old?: any, new?: any}]")]
    Complete(Complete),
    /// Raise or clear a signal
    #[command(after_help = "Examples:
  pipeline-state state signal PHASE1_COMPLETE --phase phase2
  pipeline-state state signal BUILD_DONE --metadata '{\"commit\":\"abc\"}'
  pipeline-state state signal BUILD_DONE --clear

JSON:
  {revision: number, changed: boolean}
  with --dry-run: [{path: string, old?: any, new?: any}]")]
    Signal(Signal),
    /// Check the document or a file without changing it
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
    /// Save a named backup (the newest 20 are kept)
    #[command(after_help = "Examples:
  pipeline-state state backup before-upgrade

JSON:
  {file: string}")]
    Backup {
        /// Part of the file's name
        name: Option<String>,
    },
    /// List backups
    #[command(after_help = "\
NAME, or a part of it, is what `state recover` and `state diff` take; REASON is that
of the revision in it.

Examples:
  pipeline-state state backups
  pipeline-state state backups --json | jq -r '.[] | select(.pinned) | .name'

JSON:
  [{name: string, revision: number|null, reason: string|null, kept: string,
    time: TIME, bytes: number, pinned: boolean, valid: boolean,
    problem?: string}]")]
    Backups,
    /// Restore the newest valid copy, or a backup you name
    #[command(after_help = "Examples:
  pipeline-state state recover  # after damage, a foreign edit or a deletion
  pipeline-state state recover before-upgrade  # roll back to a backup
  pipeline-state state recover --to-revision 12

JSON:
  {recovered: boolean, file?: string, revision?: number,
    pre_migration?: string|null}
  with --dry-run: [{path: string, old?: any, new?: any}]")]
    Recover {
        /// A revision, or part of a backup's name or a glob: the newest valid one that matches
        #[arg(conflicts_with = "to_revision", value_parser = NonEmptyStringValueParser::new())]
        pattern: Option<String>,
        /// The copy of this revision
        #[arg(long, value_name = "N")]
        to_revision: Option<u64>,
        #[command(flatten)]
        writer: Writer,
    },
    /// Accept an outside edit as the next revision
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
    /// Upgrade the document to the current schema
    #[command(after_help = "Examples:
  pipeline-state state migrate --dry-run

JSON:
  {from: string|null, to: string, revision?: number}")]
    Migrate {
        #[command(flatten)]
        writer: Writer,
    },
    /// List past revisions
    #[command(after_help = "Examples:
  pipeline-state state history -n 20
  pipeline-state state history --since 2h
  pipeline-state state history --json | jq '.[] | select(.owner.user == \"alice\")'

JSON:
  [{revision: number, reason: string|null, time: TIME|null,
    owner: OWNER|null, pid: number|null, command: string|null,
    changes: [{path: string, old?: string|null, new?: string|null,
    added?: string, removed?: string}]|null, more_changes: number,
    repeats: number|null, file: string|null,
    operation: string|null}]")]
    History(History),
    /// Go back to the revision before, as a new one
    #[command(after_help = "\
Commits the newest kept revision below the current one as the next revision, and
lists what that takes back and whose it was. Again, it goes back further. The
files of signals follow. `state recover --to-revision N` goes anywhere, and forward.

Examples:
  pipeline-state state undo --dry-run
  pipeline-state state undo --reason 'the deploy was wrong'

JSON:
  {revision: number, changed: boolean, to: number,
    taken_back: [{revision: number, time: TIME|null, owner: OWNER|null,
    command: string|null, reason: string|null}]}
  with --dry-run: [{path: string, old?: any, new?: any}]")]
    Undo {
        #[command(flatten)]
        writer: Writer,
    },
    /// Remove values by path
    #[command(after_help = "\
A path that leads nowhere is not an error, as with jq's del: a script can be run again.
Elements of an array that follow a removed one move up. The file of a removed
signal goes, too.

Examples:
  pipeline-state state unset .note '.jobs[0]'
  pipeline-state state unset .signals.GO

JSON:
  {revision: number, changed: boolean}
  with --dry-run: [{path: string, old?: any, new?: any}]")]
    Unset(Unset),
    /// Move the state to a store on other machines
    #[command(
        after_help = "Document, lineage, revision, history, backups and signals go; checkpoints and
config/ stay. No lock may be held. From then on commands here refuse (3 moved).
Interrupted, the same command finishes it; --abort takes it back.

Examples:
  pipeline-state state push etcd://h1:2379,h2:2379/my-pipeline
  pipeline-state state push etcd://h1:2379,h2:2379/my-pipeline --abort

JSON:
  {store: string, lineage: string, revision: number, backups: number,
    signals: number}
  with --abort: {store: string, taken_back: boolean}"
    )]
    Push(Push),
    /// Bring the state back from a store on other machines
    #[command(after_help = "\
The mirror of `state push`: this root must have no state, and the store refuses from
then on (3 moved). Interrupted, the same command finishes it; --abort leaves the
state there, unless the store has handed it over.

Examples:
  pipeline-state state pull
  pipeline-state state pull etcd://h1:2379/my-pipeline --root .

JSON:
  {store: string, lineage: string, revision: number, backups: number,
    signals: number}
  with --abort: {store: string, taken_back: boolean}")]
    Pull(Pull),
    /// Compare two revisions or backups
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
    /// Edit the document in your editor
    #[command(after_help = "Examples:
  EDITOR=nano pipeline-state state edit

JSON:
  {revision: number, changed: boolean}")]
    Edit {
        #[command(flatten)]
        writer: Writer,
    },
    /// Wait until a filter is true (exit 9 on timeout)
    #[command(after_help = "Examples:
  pipeline-state state wait '.signals.BUILD_DONE' --timeout 10m
  pipeline-state state wait '.phase == \"deploy\"'

JSON:
  nothing")]
    Wait {
        /// jq filter; true is anything but false, null or nothing
        filter: String,
        #[command(flatten)]
        program: Program,
        #[command(flatten)]
        print: Print,
        /// For how long: 30, 5s, 2m [default: for ever]
        #[arg(long, value_name = "T", value_parser = parse_duration)]
        timeout: Option<Duration>,
    },
    /// Print each new revision as a JSON line
    #[command(after_help = "Examples:
  pipeline-state state watch .phase

JSON:
  any, a line for each result")]
    Watch {
        /// jq filter on each revision
        #[arg(default_value = ".")]
        filter: String,
        #[command(flatten)]
        program: Program,
        #[command(flatten)]
        print: Print,
    },
    /// Show the state's health and progress
    #[command(after_help = "Examples:
  pipeline-state state status
  pipeline-state state status --watch  # until Ctrl-C
  pipeline-state state status --json | jq -r .health

JSON:
  {path: string, health: string, findings: [{path: string, problem: string}],
    revision: number|null, lineage: string|null, schema: string|null,
    phase: string|null, completed_tasks: number|null, signals: number|null,
    last_signal: string|null, degraded: boolean, last_modified: TIME|null,
    bytes: number|null, mode: string|null, mirror: string,
    backups: {automatic: number, pinned: number, evidence: number,
    archives: number, newest: TIME|null}, state_lock: {owner: OWNER|null,
    known_by: string}|null, locks: as `lock status`,
    checkpoints: number, interrupted_restore: string|null,
    restore_obstacle: string|null,
    guards: [{id: string, standing: string, why?: string}],
    disk_free: number|null,
    writable: boolean, write_obstacle: string|null,
    audit_log: string,
    events: [{time: TIME, event: string, owner: OWNER, text: string}]}")]
    Status(Watched),
}
