//! Checkpoints.

pub mod archive;
pub mod catalog;
pub mod id;
pub mod manifest;
pub mod retention;

pub use self::catalog::Snapshot;
