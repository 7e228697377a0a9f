//! What differs between operating systems. Each has a module with the same functions and types, and
//! this one chooses; nothing else in the program asks which system it runs on.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
use self::linux as system;

#[cfg(any(target_os = "macos", test))]
#[cfg_attr(not(target_os = "macos"), allow(dead_code))] // elsewhere only its tests use it
mod darwin;
#[cfg(target_os = "macos")]
use self::darwin as system;

pub mod events;
pub mod files;
pub mod hints;
pub mod process;

pub use self::files::Confirmation;
pub use self::system::{booted, fill_random, ignored_signals, memory, place, uptime};

/// The version of the program, with what must be known of it on this system.
pub const VERSION: &str = if cfg!(target_os = "macos") {
    concat!(env!("CARGO_PKG_VERSION"), " (macOS: experimental: type-checked, never run by us)")
} else {
    env!("CARGO_PKG_VERSION")
};

/// What `status` says of this system.
pub const WARNING: Option<&str> = if cfg!(target_os = "macos") {
    Some("macOS is experimental: this program is type-checked for it and was never run by us")
} else {
    None
};

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
