//! The metadata of files.

use std::time::{Duration, SystemTime};

/// The type of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A device, socket or pipe.
    Special,
}

/// The metadata of a file that decisions depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Its type.
    pub kind: FileKind,
    /// Device number; with [`Stat::ino`] the identity of a file.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// Bytes.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Hard links.
    pub nlink: u64,
    /// Last modification: seconds and nanoseconds since 1970.
    pub mtime: (i64, i64),
}

impl Stat {
    /// The time since it was modified; as long as possible if that was before 1970.
    pub fn age(&self, now: SystemTime) -> Duration {
        let (seconds, nanos) = self.mtime;
        let (Ok(seconds), Ok(nanos)) = (seconds.try_into(), nanos.try_into()) else {
            return Duration::MAX;
        };
        let modified = SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos);
        now.duration_since(modified).unwrap_or_default()
    }

    /// The reason why this user must not append to the file, if there is one.
    pub fn untrusted_reason(&self) -> Option<&'static str> {
        if self.kind != FileKind::Regular {
            Some("is not a regular file")
        } else if self.uid != crate::user::current() {
            Some("belongs to another user")
        } else if self.nlink != 1 {
            Some("has more than one name")
        } else {
            None
        }
    }

    /// Returns whether both are the same file.
    pub fn same_file(&self, other: &Self) -> bool {
        (self.dev, self.ino) == (other.dev, other.ino)
    }

    /// Returns whether both are the same file and it was not written to in between.
    pub fn unchanged(&self, other: &Self) -> bool {
        self.same_file(other) && (self.size, self.mtime) == (other.size, other.mtime)
    }
}
