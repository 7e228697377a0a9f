//! The store: a document and its history.
//!
//! This is the door. The modules beside it decide and name no file; everything that touches files
//! is in [`files`].

mod candidate;
pub mod change;
pub mod checkpoint;
pub mod copies;
pub mod diagnosis;
mod files;
pub mod guard;
pub mod layout;
mod next_revision;
pub mod options;
#[cfg(feature = "etcd")]
pub mod remote;
pub mod restore;
mod served;
mod settings;
pub mod signal;
mod trace;

pub use self::candidate::Wanted;
#[cfg(feature = "etcd")]
pub use self::files::host;
pub use self::files::{
    EventLog, FileStore, Probe, SignalFiles, Space, backups, fresh, heal, report, undo, writable,
};
pub use self::served::Served;
pub use self::settings::{AutoRecover, ForeignEdits, Settings};
pub use self::signal::SignalFile;
