//! What helps when things go wrong, beyond what every command does by itself: commands run again or undone, a mode with less
//! in it, strategies by exit code, a check of everything, and the figures to watch. Checkpoints themselves are the store's
//! ([`crate::store::checkpoint`], [`crate::store::restore`]).

pub mod degraded;
pub mod doctor;
pub mod guard;
pub mod metrics;
pub mod overview;
pub mod retry;
pub mod strategy;
