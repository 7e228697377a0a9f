//! Restores.

pub mod intent;
pub mod plan;
pub mod state;

pub use self::plan::Planned;
pub use super::files::restore::{Aborted, Interrupted, RestorePlan, Restored};
