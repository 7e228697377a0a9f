//! The contents of a changed file, for patterns that look inside it.

use std::path::{Component, Path};

use crate::fs::{Completeness, Disk};

/// The largest file that is read, in bytes.
pub const LIMIT: u64 = 1 << 20;

/// Reads a regular file below `directory`; `relative` is its path from there. Follows no link. A
/// file that is larger than [`LIMIT`], not regular or not readable has no contents. Invalid UTF-8
/// becomes U+FFFD.
pub fn read_below(disk: &Disk, directory: &Path, relative: &Path) -> Option<String> {
    let mut at = disk.open_root(directory).ok()?;
    let mut parts = relative.components().peekable();
    while let Some(part) = parts.next() {
        let Component::Normal(name) = part else { return None };
        if parts.peek().is_none() {
            let content = disk.read(&at, name, LIMIT).ok()??;
            return (content.size == Completeness::Whole)
                .then(|| String::from_utf8_lossy(&content.bytes).into_owned());
        }
        at = disk.open_dir(&at, name).ok()?;
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn contents_are_those_of_regular_files_below_the_directory_without_links() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("project/src")).unwrap();
        fs::write(at("secret"), "secret").unwrap();
        fs::write(at("project/src/a"), b"text \xff").unwrap();
        let limit = usize::try_from(LIMIT).unwrap();
        fs::write(at("project/largest"), "x".repeat(limit)).unwrap();
        fs::write(at("project/large"), "x".repeat(limit + 1)).unwrap();
        symlink(at("secret"), at("project/link")).unwrap();
        symlink(dir.path(), at("project/out")).unwrap();
        symlink("src", at("project/in")).unwrap();
        let read = |name: &str| read_below(&Disk::real(), &at("project"), Path::new(name));
        assert_eq!(read("src/a").as_deref(), Some("text \u{fffd}"));
        assert_eq!(read("largest").map(|text| text.len()), Some(limit));
        for refused in
            ["large", "link", "out/secret", "in/a", "../secret", "/etc/hosts", "src", "gone", ""]
        {
            assert_eq!(read(refused), None, "{refused}");
        }
    }
}
