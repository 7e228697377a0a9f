//! What differs between operating systems. Each has a module with the same functions and types, and
//! this one chooses; nothing else in the program asks which system it runs on.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
use self::linux as system;

pub mod events;
pub mod files;
pub mod process;

pub use self::system::{fill_random, ignored_signals, memory, place};

/// The scope in which process ids are valid, as the system shows it: see
/// [`crate::lock::identity::Namespace`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// An id of this boot.
    pub boot: String,
    /// The pid namespace; 0 where there are none.
    pub pid_namespace: u64,
    /// The time namespace; 0 where there are none.
    pub time_namespace: u64,
    /// An id of this machine, empty where there is none.
    pub machine: String,
}
