//! The identity of a directory: it lasts as long as the directory, and a copy has another.

use serde_json::{Value, json};

use super::{Dir, Disk, FsResult};
use crate::os::files::created;

/// Device and inode of a directory, and its creation time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirId {
    /// Device number. Some file systems get another one at each mount.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
    /// Creation time, seconds and nanoseconds since 1970, where the file system records it.
    pub created: Option<(i64, u32)>,
}

impl DirId {
    /// The identity of an open directory.
    pub fn of(disk: &Disk, dir: &Dir) -> FsResult<Option<Self>> {
        let Some(stat) = disk.stat(dir, ".")? else { return Ok(None) };
        let created = created(dir.at());
        Ok(Some(Self { device: stat.dev, inode: stat.ino, created }))
    }

    /// Its form in records.
    pub fn to_value(&self) -> Value {
        let created = self.created.map(|(seconds, nanos)| json!([seconds, nanos]));
        json!({"device": self.device, "inode": self.inode, "created": created})
    }

    /// Parses [`Self::to_value`].
    pub fn from_value(value: &Value) -> Option<Self> {
        let created = match value.get("created")? {
            Value::Null => None,
            time => Some((time.get(0)?.as_i64()?, time.get(1)?.as_u64()?.try_into().ok()?)),
        };
        let number = |field: &str| value.get(field)?.as_u64();
        Some(Self { device: number("device")?, inode: number("inode")?, created })
    }

    /// Returns whether both are the same directory. The creation time decides where both have it:
    /// it survives a reboot that renumbers devices, and it distinguishes a new directory that got
    /// the inode of a removed one.
    pub fn is_same(&self, other: &Self) -> bool {
        let is_same_time = match (self.created, other.created) {
            (Some(one), Some(other)) => one == other,
            _ => self.device == other.device,
        };
        self.inode == other.inode && is_same_time
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_survives_a_renumbered_device() {
        let root = DirId { device: 1, inode: 2, created: Some((3, 4)) };
        assert!(
            root.is_same(&DirId { device: 9, ..root.clone() }),
            "another mount of the same file system"
        );
        assert!(!root.is_same(&DirId { inode: 9, ..root.clone() }));
        assert!(!root.is_same(&DirId { created: Some((3, 5)), ..root.clone() }), "a reused inode");
        let unknown = DirId { created: None, ..root.clone() };
        assert!(root.is_same(&unknown));
        assert!(
            !root.is_same(&DirId { device: 9, ..unknown }),
            "without a time the device decides"
        );
    }
}
