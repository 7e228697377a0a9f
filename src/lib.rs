//! **pipeline-state** keeps the state of a development pipeline: one JSON document that
//! loses nothing.
//!
//! `docs/architecture.md` has the layers, the modules, and the way of one write and one lock
//! through them; `docs/glossary.md` has the terms.
//!
//! Dependencies go one way: [`cli`] → [`recovery`], [`hook`], [`config`] → [`store`] → [`lock`],
//! [`tree`], [`document`], and everything may use [`fs`], [`os`], [`side`], [`error`], [`name`],
//! [`printable`], [`time`], [`audit`], [`child`]. The library below [`cli`] parses no command line
//! and knows no colours and no process exit; the hints of its errors are command lines.
//!
//! # What holds at every instant
//!
//! 1. The live file is replaced by rename(2) and by nothing else; it is never written in place, and
//!    moved away only by `state push`, which puts a durable mark first.
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
mod arms;
pub mod audit;
pub mod child;
pub mod cli;
pub mod clutter;
pub mod config;
pub mod digest;
pub mod document;
pub mod error;
#[cfg(feature = "etcd")]
pub mod etcd;
pub mod fs;
pub mod hook;
pub mod journal;
pub mod lock;
pub mod name;
pub mod os;
pub mod owner_view;
pub mod placement;
pub mod plural;
pub mod printable;
pub mod recovery;
pub mod report;
pub mod shell;
pub mod side;
pub mod store;
pub mod time;
pub mod tree;
pub mod user;
