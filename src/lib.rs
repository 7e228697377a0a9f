//! **pipeline-state** keeps the state of a development pipeline: one JSON document that loses nothing.
//!
//! # The map
//!
//! | module | its one idea |
//! |---|---|
//! | [`error`] | the error table: kind, exit code, sentence, next step |
//! | [`config`] | options over environment over defaults, resolved once |
//! | [`fs`] | the seam every side effect passes through: real calls, or observed and failing ones |
//! | [`side`] | side directories: ours, or refused |
//! | [`placement`] | paths that the user names and that lie in a root's own directories |
//! | [`printable`] | text that steers no terminal |
//! | [`acl`] | POSIX access control lists |
//! | [`tree`] | directory trees: listed with digests, copied, removed |
//! | [`user`] | names of users |
//! | [`clutter`] | files that other programs leave anywhere, told by their names |
//! | [`child`] | another program, run in our place |
//! | [`document`] | text to tree without loss; its seal, rules, migration, paths, filters, differences |
//! | [`lock`] | locks that belong to scripts: the protocol, its order, its limits |
//! | `lock::liveness` | whether an owner lives |
//! | `lock::process`, `lock::owner` | what tells a process from every other; for whom a command acts |
//! | `lock::record`, `lock::draft`, `lock::journal`, `lock::gate` | what is on record for a lock; the writes of a change, of several by way of a journal; how they are made |
//! | `lock::queue` | the decision: granted, or who is in the way |
//! | `lock::look`, `lock::line`, `lock::wait` | what one who wants locks sees; standing in line; what wakes a sleeper |
//! | `lock::idle` | a waiter that leaves its free lock to others |
//! | `lock::lifeline` | files whose flock proves a life from any pid namespace |
//! | `lock::limits` | what a record may hold, so that what is accepted can be read and granted |
//! | `lock::request`, `lock::acquire`, `lock::release`, `lock::break_up` | taking, giving back, taking away |
//! | `lock::deadlock`, `lock::hierarchy` | who would wait for itself; who asks out of order |
//! | `lock::token` | numbers of grants that never come again |
//! | `lock::commit`, `lock::flock` | a commit's turn among those who lock the state |
//! | `lock::along` | locks that a command takes along for itself |
//! | `lock::run`, `lock::launch` | a command that holds locks while it runs |
//! | [`store`] | the document on the disk |
//! | `store::change` | the read-modify-write that every writer is |
//! | `store::commit` | the commit protocol, top to bottom |
//! | `store::order` | what all writers are told alike |
//! | `store::hold` | taking the state's turn, after what was left half done |
//! | `store::ground` | what is held, and what was found under the lock |
//! | `store::next` | the next revision: number, lineage, seal |
//! | `store::absence` | a state file that is gone for a moment |
//! | `store::judge` | the verdict on the live file: healthy, damaged, foreign, legacy, missing |
//! | `store::heal` | bringing back the newest valid copy |
//! | `store::shelf` | mirror and backups, and which of them is the best |
//! | `store::retain` | what is kept of a file that is replaced, and for how long |
//! | `store::backups` | backups listed, and made on purpose |
//! | `store::fresh` | beginnings: init, a new lineage, adoption |
//! | `store::new_lineage` | `init --fresh`: the archive, the intent, the commit, and only then the removal |
//! | `store::workshop` | where a checkpoint or a restore is made ready |
//! | `store::checkpoint` | state, `config/` and `.signals/` as they were at one moment |
//! | `store::restore` | and back again, all or nothing: the plan, the intent, carrying it out, giving it up |
//! | `store::layout` | what the files are called |
//! | [`recovery`] | what helps when things go wrong: retries, degraded mode, strategies, the doctor, figures |
//! | [`hook`] | what an editor's events mean, by the rules of `config/`: signals, phases, activations |
//! | [`shell`] | functions for scripts, as text |
//! | [`journal`] | what happened in one root, an event a line |
//! | [`audit`] | the two logs |
//! | [`cli`] | the command line: options in, text or JSON out |
//!
//! Dependencies go one way: `cli` → `recovery`, `hook`, `config` → `store` → `lock`, `tree`, `document`, and everything may use `fs`,
//! `side`, `error`, `name`, `printable`, `time`, `audit`, `child`.
//! The library below `cli` knows no command line, no colours and no process exit.
//!
//! # What holds at every instant
//!
//! 1. The live file is replaced by rename(2) and by nothing else; it is never written in place and never moved away.
//! 2. What is renamed into place was synced before, and its directory is synced before anything is acknowledged.
//! 3. Between a writer's read and its rename it holds the flock on `.locks/state.lock`, and it checks that the lock and
//!    the live file are still the same just before it renames. After the rename nothing runs the change again.
//! 4. The mirror is put in place after the live file, never before, so it is never ahead of what a power cut may leave.
//! 5. A copy is bad only if it was read whole and found wrong. One that could not be read stops healing.
//! 6. A damaged or foreign file is kept under another name before it is replaced.
//! 7. A lock is taken by who wants it, never given by who had it; records are changed behind the gate and replaced whole.
//! 8. A restore is decided by one record, when all it needs is staged and synced; from then on whoever comes next carries it out.
//!    The record is compared with the root it lies in, never followed. What else is in the workshop was left by commands
//!    that died, and the holder of the state lock removes it.
//! 9. Reading takes no lock. Reporting (`validate`, `status`, `backups`, `history`, `diff`) changes nothing.

pub mod acl;
pub mod audit;
pub mod child;
pub mod cli;
pub mod clutter;
pub mod config;
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
