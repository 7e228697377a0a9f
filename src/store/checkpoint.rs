//! Checkpoints.

pub mod id;
pub mod manifest;

pub use super::files::checkpoint::{Snapshot, catalog, retention};
