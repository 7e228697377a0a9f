//! **pipeline-state** keeps the state of a development pipeline: one JSON document that
//! loses nothing.
//!
//! # The map
//!
//! | module | its one idea |
//! |---|---|
//! | [`error`] | the error table: kind, exit code, sentence, next step |
//! | [`config`] | options over environment over defaults, resolved once |
//! | [`fs`] | the seam of all side effects: real calls, or observed and failing ones |
//! | [`side`] | side directories: owned by this user, or refused |
//! | [`placement`] | paths that the user names and that lead into a root's own directories |
//! | [`printable`] | text without terminal control characters |
//! | [`acl`] | POSIX access control lists |
//! | [`tree`] | directory trees: listed with digests, copied, removed |
//! | [`user`] | user names |
//! | [`clutter`] | files that other programs leave anywhere, recognized by name |
//! | [`child`] | wrapped programs: signals forwarded, exit codes passed on |
//! | [`document`] | parsing without loss; seal, rules, migration, paths, filters, differences |
//! | [`digest`] | digests, and records that end in theirs |
//! | [`lock`] | named locks of scripts: the protocol, and its one door, `Locks` |
//! | `lock::request`, `lock::admission` | a request, and the two checks of it |
//! | `lock::queue` | the decision: granted, or the holders and waiters that block the request |
//! | `lock::record`, `lock::edit`, `lock::limits` | a lock's record, a change of it, its room |
//! | `lock::liveness`, `lock::idle` | liveness of owners; waiters that leave a free lock |
//! | `lock::deadlock`, `lock::hierarchy`, `lock::fence` | cycles, the order of locks, fences |
//! | `lock::release`, `lock::refusal`, `lock::report` | releases, refusals, reports |
//! | `lock::process` | processes, the owner of a command, the start of `lock run`'s command |
//! | `lock::files` | all that touches files: records, gate, flocks, tokens, waiting, commits |
//! | [`store`] | the document on the disk |
//! | `store::change` | the read-modify-write of ordinary writers |
//! | `store::commit` | the commit protocol, top to bottom |
//! | `store::options` | the options that all writers share |
//! | `store::state_lock` | acquiring the state lock and settling unfinished work |
//! | `store::observe` | a writer's locks and directories, and the files found under the lock |
//! | `store::next_revision` | the next revision: number, lineage, seal |
//! | `store::absence` | a state file that is missing briefly |
//! | `store::diagnosis` | the diagnosis of the live file: healthy, damaged, foreign, legacy, missing |
//! | `store::heal` | restoring the newest valid copy |
//! | `store::backup_dir` | the backup directory: mirror and backups, and the best of them |
//! | `store::preserve` | retention of replaced files |
//! | `store::backups` | backups: listing, and explicit ones |
//! | `store::fresh` | init, a new lineage, adoption |
//! | `store::new_lineage` | `init --fresh`: the archive, the intent, the commit, then the removal |
//! | `store::staging` | the directory where a checkpoint or a restore is prepared |
//! | `store::checkpoint` | state, `config/` and `.signals/` as they were at one moment |
//! | `store::restore` | restoring a checkpoint: the plan, the intent, the swap, the abort |
//! | `store::layout` | the names of the files |
//! | [`recovery`] | retries, guards, degraded mode, strategies, the doctor, metrics |
//! | [`hook`] | an editor's events and their effects, by the rules of `config/` |
//! | [`shell`] | shell functions for scripts, as text |
//! | [`journal`] | the events of one root, one a line |
//! | [`audit`] | the audit log and the error log |
//! | [`cli`] | the command line: options in, text or JSON out |
//!
//! Dependencies go one way: `cli` → `recovery`, `hook`, `config` → `store` → `lock`, `tree`,
//! `document`, and everything may use `fs`, `side`, `error`, `name`, `printable`, `time`, `audit`,
//! `child`. The library below `cli` parses no command line and knows no colours and no process
//! exit; the hints of its errors are command lines.
//!
//! # What holds at every instant
//!
//! 1. The live file is replaced by rename(2) and by nothing else; it is never written in place and
//!    never moved away.
//! 2. A new document or an intent is synced before it is renamed into place, and its directory
//!    before the change is acknowledged.
//! 3. Between a writer's read and its rename it holds the flock on `.locks/state.lock`, and it
//!    checks that the lock and the live file are still the same just before it renames. After the
//!    rename nothing runs the change again.
//! 4. The mirror is put in place after the live file, never before, so after a power cut it is
//!    never ahead of the live file.
//! 5. A copy is invalid only if it was read whole and found wrong. One that could not be read stops
//!    healing.
//! 6. A damaged or foreign file is kept under another name before it is replaced.
//! 7. A lock is taken by its requester, never given by its previous holder; records are changed
//!    while holding the gate, and replaced whole.
//! 8. A restore is decided by one record, when all its files are staged and synced; from then on
//!    the next command carries it out. The record is compared with its root, never followed. Other
//!    files in the staging directory were left by dead commands, and the holder of the state lock
//!    removes them.
//! 9. Reading takes no lock, except to heal damage or to finish an interrupted restore. Reporting
//!    (`validate`, `status`, `backups`, `history`, `diff`) changes nothing.

pub mod acl;
pub mod audit;
pub mod child;
pub mod cli;
pub mod clutter;
pub mod config;
pub mod digest;
pub mod document;
pub mod error;
pub mod fs;
pub mod hook;
pub mod journal;
pub mod lock;
pub mod name;
pub mod placement;
pub mod printable;
pub mod recovery;
pub mod shell;
pub mod side;
pub mod store;
pub mod time;
pub mod tree;
pub mod user;
