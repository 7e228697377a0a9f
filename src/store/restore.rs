//! Restores.

pub mod intent;

pub use super::files::restore::{Aborted, Interrupted, Planned, RestorePlan};
