//! The promises, as claims that a test holds up. One binary, a file for each subject.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod owners;
mod real_shells;
mod sandbox;
mod script;
mod shell;
mod snapshots;
mod strace;

mod calls;
mod checkpoint;
mod checkpoint_refusals;
mod cli;
mod completions;
mod contention;
mod corpus;
mod corruption;
mod corruption_records;
mod crash;
mod damage;
mod doctor;
mod doctor_signals;
mod documents;
mod durability;
mod every_command;
mod faults;
mod histories;
mod history_checker;
mod hook_bounds;
mod hooks;
mod interleavings;
mod json_shapes;
mod kill;
mod lock_exclusion;
mod lock_faults;
mod lock_kill;
mod lock_order;
mod lock_owners;
mod lock_queue_kill;
mod lock_records;
mod lock_run;
mod lock_state;
mod metrics;
mod properties;
mod races;
mod readme;
mod refusals;
mod restore_faults;
mod restore_kill;
mod retry;
mod shell_functions;
mod shell_scripts;
mod terminal;
