//! The store: a document and its history.
//!
//! This is the door. The modules beside it decide and name no file; everything that touches files
//! is in [`files`].

mod arms;
pub mod backups;
mod candidate;
pub mod change;
pub mod checkpoint;
pub mod copies;
pub mod diagnosis;
mod files;
pub mod fresh;
pub mod guard;
pub mod heal;
pub mod layout;
mod logged;
pub mod moving;
mod next_revision;
pub mod options;
#[cfg(feature = "etcd")]
pub mod remote;
pub mod report;
pub mod restore;
mod served;
mod settings;
pub mod signal;
mod trace;
pub mod undo;
mod versions;
mod warnings;

pub use self::arms::{Store, works_on_files_only};
pub use self::candidate::Wanted;
#[cfg(feature = "etcd")]
pub use self::files::host;
pub use self::files::moving::refusal_of_grants;
pub use self::files::{EventLog, FileStore, Healing, Probe, SignalFiles, Space, writable};
pub use self::served::Served;
pub use self::settings::{AutoRecover, ForeignEdits, Settings};
pub use self::signal::SignalFile;
