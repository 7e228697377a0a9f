//! macOS: sysctl, kqueue, F_FULLFSYNC. Experimental: type-checked, and never run by its authors.
//!
//! What needs no call is compiled and tested on every system: the layout of the kernel's answers,
//! the names of file systems, the comparison that finds which name of a directory changed.

mod arguments;
mod file_systems;
mod flush;
mod kinfo;
mod seen;

#[cfg(target_os = "macos")]
mod calls;
#[cfg(target_os = "macos")]
pub use self::calls::{
    booted, events, files, fill_random, ignored_signals, memory, place, process, uptime,
};
