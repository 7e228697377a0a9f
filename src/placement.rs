//! Paths that a user names and that lead into a root's own directories: a state in another root's
//! `.state-backups/`, a log that is the state itself.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::lock::layout::{GATE, LOCKS};
use crate::store::layout::{BACKUPS, CONFIG, MOVED, SETTINGS, SIDE_DIRECTORIES, STATE_FILE};

/// The prefix of this program's files beside a state file, except for those of [`FILES`].
const PREFIX: &str = ".pipeline-state";
/// The error log of a root, beside its state.
pub const ERROR_LOG: &str = ".error-recovery.log";
/// Files of a root besides its state.
const FILES: [&str; 4] = [STATE_FILE, MOVED, SETTINGS, ERROR_LOG];

/// The directory of a root that `directory` is, or lies in: a side directory or `config/`. Links in
/// the path are followed, as a writer would follow them.
pub fn side_directory_of(directory: &Path) -> Option<PathBuf> {
    kept_by_a_root(&resolved(directory)).map(Path::to_owned)
}

/// The reason why `path` must not be written as a log or report: it is, or may become, a file of
/// the root in `directory` with the state `state_file`, or of another root. To follow "PATH".
///
/// Judges only the text of the path where that excludes a root's file: see [`is_kept_by_a_root`]
/// for a path that gets there through a link.
pub fn unfit_for_output(path: &Path, directory: &Path, state_file: &OsStr) -> Option<String> {
    let is_ours = |word: &OsStr| {
        let text = word.to_string_lossy();
        word == state_file
            || text.starts_with(PREFIX)
            || FILES.contains(&&*text)
            || is_side_name(&text)
    };
    if !path.components().any(|part| is_ours(part.as_os_str())) {
        return None;
    }
    let parent = resolved(path.parent().unwrap_or(Path::new("")));
    let name = path.file_name()?;
    let text = name.to_string_lossy();
    let own = resolved(directory);
    let is_own = name == state_file || text.starts_with(PREFIX);
    if parent == own && is_own || FILES.contains(&&*text) {
        return Some("is a file of the state itself".to_owned());
    }
    let side = side_directory_of(&parent).or_else(|| {
        let inside = |name: &&str| parent.starts_with(own.join(name));
        SIDE_DIRECTORIES.iter().find(|name| inside(name)).map(|name| own.join(name))
    })?;
    Some(format!("is in {}, which belongs to a state", side.display()))
}

/// Returns whether a root keeps the file at this path, which contains no link.
pub fn is_kept_by_a_root(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    FILES.contains(&&*name) || path.parent().is_some_and(|parent| kept_by_a_root(parent).is_some())
}

fn kept_by_a_root(directory: &Path) -> Option<&Path> {
    let is_kept = |dir: &Path| {
        let name = dir.file_name().and_then(OsStr::to_str).unwrap_or_default();
        is_side_name(name) && dir.parent().is_some_and(is_root)
    };
    directory.ancestors().find(|dir| is_kept(dir))
}

fn is_side_name(name: &str) -> bool {
    SIDE_DIRECTORIES.contains(&name) || name == CONFIG
}

/// Returns whether a directory is the root of a state, or of locks.
fn is_root(dir: &Path) -> bool {
    let is_dir = |path: PathBuf| path.symlink_metadata().is_ok_and(|found| found.is_dir());
    is_dir(dir.join(BACKUPS)) || dir.join(LOCKS).join(GATE).symlink_metadata().is_ok()
}

/// A directory's path without links, as far as it exists.
fn resolved(directory: &Path) -> PathBuf {
    // The parent of a bare name is empty.
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    let absolute = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
    for existing in absolute.ancestors() {
        if let (Ok(real), Ok(rest)) = (existing.canonicalize(), absolute.strip_prefix(existing)) {
            return real.join(rest);
        }
    }
    absolute
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_path_into_a_root_is_found_however_it_is_spelt() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        for made in [".state-backups", ".locks", "config/sub", "plain/.locks"] {
            fs::create_dir_all(at(made)).unwrap();
        }
        std::os::unix::fs::symlink(at(".locks"), at("link")).unwrap();
        for inside in
            [".state-backups", ".locks/x", "config", "config/sub", "link", "plain/../.locks"]
        {
            assert!(side_directory_of(&at(inside)).is_some(), "{inside}");
        }
        for outside in ["", "plain", "plain/.locks", "config.d", "nowhere/at/all"] {
            assert_eq!(side_directory_of(&at(outside)), None, "{outside}");
        }
        let unfit =
            |path: &str| unfit_for_output(&at(path), dir.path(), OsStr::new("my.json")).is_some();
        for bad in [
            "my.json",
            "plain/../my.json",
            ".workflow-state.json",
            "plain/.workflow-state.json",
            ".error-recovery.log",
            ".pipeline-state.toml",
            "plain/.pipeline-state.toml",
            "plain/.workflow-state.moved",
            ".signals/log",
            "config/log",
        ] {
            assert!(unfit(bad), "{bad}");
        }
        assert!(
            is_kept_by_a_root(&at(".locks/log")) && !is_kept_by_a_root(&at("plain/.locks/log"))
        );
        for good in ["audit.log", ".pipeline-audit.log", "plain/my.json", "plain/.locks/log"] {
            assert!(!unfit(good), "{good}");
        }
    }
}
