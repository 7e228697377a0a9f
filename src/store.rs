//! The store: a document and its history.
//!
//! This is the door. The modules beside it decide and name no file; everything that touches files
//! is in [`files`].

pub mod checkpoint;
pub mod copies;
pub mod diagnosis;
mod files;
pub mod guard;
pub mod layout;
pub mod options;
pub mod restore;
mod settings;
mod trace;

pub use self::files::{
    Served, SignalFile, Signals, Store, Wanted, change, fresh, heal, report, signal, writable,
};
pub use self::settings::{AutoRecover, ForeignEdits, Settings};
