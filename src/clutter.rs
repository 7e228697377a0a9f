//! Files that other programs leave in any directory: file managers, network file systems,
//! synchronisers.
//!
//! Checkpoints and side directories travel through git, archives and shared folders, and come back
//! with such files. They are not damage, and not files of this program.

use std::ffi::OsStr;

/// Returns whether other programs leave files of this name: `.DS_Store`, `._NAME` and `Thumbs.db`
/// of file managers, `.nfsXXXX` of NFS clients, `NAME (… conflicted copy …)` of synchronisers.
pub fn is_clutter(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    let holds = |part: &[u8]| memchr::memmem::find(name, part).is_some();
    name == b".DS_Store"
        || name == b"Thumbs.db"
        || name.starts_with(b"._")
        || name.starts_with(b".nfs")
        || (name.contains(&b'(') && holds(b"conflicted copy") && name.contains(&b')'))
}

/// Returns whether a path leads to such a file, or through one.
pub fn is_below_clutter(path: &str) -> bool {
    path.split('/').any(|name| is_clutter(name.as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clutter_is_known_by_its_name() {
        for name in
            [".DS_Store", "Thumbs.db", "._a.json", ".nfs00000001", "a (conflicted copy).json"]
        {
            assert!(is_clutter(name.as_ref()), "{name}");
        }
        assert!(is_clutter("a (Ann's conflicted copy 2026-01-02).json".as_ref()));
        for name in
            ["a.json", "_a", ".nf", "DS_Store", "conflicted copy.txt", ".gitignore", "mirror.json"]
        {
            assert!(!is_clutter(name.as_ref()), "{name}");
        }
        assert!(is_below_clutter("config/._a/b") && !is_below_clutter("config/a/b"));
    }
}
