//! Changes in directories, as the kernel reports them. It may report more than happened, so each
//! report is a reason to look and no more.

use std::ffi::OsString;

pub use super::system::events::{Events, WatchId};

/// The changes of a directory to be reported.
#[derive(Clone, Copy, Debug)]
pub enum Interest<'a> {
    /// Its own move or removal, names that come and go in it, and writes to its files: to these,
    /// where the kernel does not watch all files of a directory.
    Names(&'a [OsString]),
    /// Names that come and go in it, writes to its files, and the end of each writer: writes
    /// through a mapping show by nothing else.
    NamesAndCloses(&'a [OsString]),
    /// Its own move or removal.
    Itself,
}
