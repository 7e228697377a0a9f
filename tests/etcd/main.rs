//! The client of etcd and the store on it, against real servers: etcd of the system, on loopback.
//!
//!     cargo test --features etcd --test etcd

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod authority;
mod checkpoints;
mod client;
mod cluster;
mod commands;
#[path = "../suite/dice.rs"]
mod dice;
mod documents;
mod documents_faults;
mod faults;
mod guards;
mod guards_faults;
mod hints;
mod histories;
mod history;
#[path = "../suite/history_checker.rs"]
#[allow(dead_code, reason = "histories of other kinds use the rest")]
mod history_checker;
mod holders;
mod keepers;
mod leases;
mod locks;
mod locks_faults;
mod locks_foreign;
mod locks_hosts;
mod locks_moved;
mod locks_state;
mod moving;
mod neighbours;
#[path = "../suite/observed.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod observed;
mod odd_keys;
#[path = "../suite/operations.rs"]
#[allow(dead_code, reason = "histories of other kinds use the rest")]
mod operations;
mod page;
#[path = "../suite/permitted.rs"]
mod permitted;
mod pushes;
mod quota;
mod roles;
mod security;
mod server;
mod stores;
mod watches;
mod writers;
