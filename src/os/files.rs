//! Files and file systems: what the calls of POSIX leave to the system.

pub use super::system::files::{
    NO_ATTRIBUTE, confirmation, created, file_system, flock_holder, flush, is_immutable,
    is_mount_point, list, open_of_parent, own_program, path_for_child, path_of, pin, set_mode,
};

/// The kind of file system that a root lies on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSystem {
    /// No other kernel can have it mounted.
    Local(&'static str),
    /// Another kernel may have it mounted, or the type is unknown.
    Shared(&'static str),
}

impl FileSystem {
    /// One that cannot be named.
    pub const UNKNOWN: Self = Self::Shared("unknown");

    /// Returns whether records of another boot of this machine are certainly dead here.
    pub fn is_local(self) -> bool {
        matches!(self, Self::Local(_))
    }

    /// Its name, as statfs(2) lists it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Local(name) | Self::Shared(name) => name,
        }
    }
}

/// A process that holds an flock, as the kernel lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedHolder {
    /// Its process id.
    pub pid: u32,
    /// Its short name.
    pub name: String,
}

/// Whether a flush reached the medium.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confirmation {
    /// As the drive says.
    Confirmed,
    /// The file system cannot have it confirmed: the data may be in a cache of the drive.
    Unconfirmed,
}

/// A file that a process may have open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenFile {
    /// Its device.
    pub device: u64,
    /// Its inode number.
    pub inode: u64,
    /// Its last modification: seconds and nanoseconds since 1970.
    pub modified: (i64, i64),
}
