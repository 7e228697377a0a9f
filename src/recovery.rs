//! Recovery beyond what every command does by itself: commands retried or undone, degraded mode,
//! strategies by exit code, a check of everything, and metrics. Checkpoints themselves belong to
//! the store ([`crate::store::checkpoint`], [`crate::store::restore`]).

pub mod doctor;
pub mod guard;
pub mod metrics;
pub mod overview;
pub mod retry;
pub mod strategy;
