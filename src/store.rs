//! The store: a document and its history.
//!
//! This is the door. The modules beside it decide and name no file; everything that touches files
//! is in [`files`].

pub mod checkpoint;
mod files;
pub mod guard;
pub mod layout;
pub mod options;
pub mod restore;
mod settings;

pub use self::files::{
    Served, SignalFile, Signals, Store, Wanted, change, diagnosis, fresh, heal, report, signal,
    writable,
};
pub use self::settings::{AutoRecover, ForeignEdits, Settings};
