//! Kinds of file systems by the names that statfs(2) gives them (`f_fstypename`); its numbers mean
//! nothing there.

use crate::os::files::FileSystem;

/// The kind of the file system with this name.
pub fn kind(name: &[u8]) -> FileSystem {
    match name {
        b"apfs" => FileSystem::Local("apfs"),
        b"hfs" => FileSystem::Local("hfs"),
        b"exfat" => FileSystem::Local("exfat"),
        b"msdos" => FileSystem::Local("vfat"),
        b"tmpfs" => FileSystem::Local("tmpfs"),
        b"ufs" => FileSystem::Local("ufs"),
        b"zfs" => FileSystem::Local("zfs"),
        b"nfs" => FileSystem::Shared("nfs"),
        b"smbfs" => FileSystem::Shared("smb"),
        b"afpfs" => FileSystem::Shared("afp"),
        b"webdav" => FileSystem::Shared("webdav"),
        b"virtiofs" | b"AppleVirtIOFS" => FileSystem::Shared("virtiofs"),
        b"macfuse" | b"osxfuse" | b"fusefs" => FileSystem::Shared("fuse"),
        _ => FileSystem::UNKNOWN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_earlier_boot_proves_death_only_on_a_disk_of_this_machine() {
        assert!(kind(b"apfs").is_local());
        for name in ["smbfs", "nfs", "virtiofs", "macfuse", "lifs", ""] {
            assert!(!kind(name.as_bytes()).is_local(), "{name}");
        }
    }
}
