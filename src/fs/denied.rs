//! The cause of a denied access: the first component of a path that this user cannot use, and its
//! owner.

use std::fs::{Metadata, symlink_metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::error::{Hint, quote_path};
use crate::user;

/// The cause of a denied access, as far as this user can see it.
pub(super) struct Denied {
    /// The owner and the mode, as the end of a sentence.
    pub(super) why: String,
    /// The next step.
    pub(super) hint: Hint,
}

/// Finds the cause of a denied access to `path`: a directory without search permission, or the file
/// itself. `None` where no component is visible, or where modes explain nothing.
pub(super) fn explain(path: &Path) -> Option<Denied> {
    let (place, found) = nearest_visible(path)?;
    let mode = found.mode() & 0o7777;
    let shown = if place == path { "it".to_owned() } else { place.display().to_string() };
    if found.uid() == user::current() {
        let (wanted, bits) = if found.is_dir() { ("u+rwx", 0o700) } else { ("u+rw", 0o600) };
        if mode & bits == bits {
            return None;
        }
        let word = quote_path(&place);
        return Some(Denied {
            why: format!("{shown} has mode {mode:04o}"),
            hint: Hint::Shell(
                format!("chmod {wanted} {word}"),
                "its owner may use it then".to_owned(),
            ),
        });
    }
    let owner = user::describe(found.uid());
    Some(Denied {
        why: format!("{shown} belongs to {owner} and has mode {mode:04o}"),
        hint: user::use_as(found.uid()),
    })
}

/// The deepest component of `path` with metadata visible to this user, and that metadata.
fn nearest_visible(path: &Path) -> Option<(PathBuf, Metadata)> {
    let absolute = std::path::absolute(path).ok()?;
    let mut parts = absolute.ancestors();
    parts.find_map(|part| symlink_metadata(part).ok().map(|found| (part.to_owned(), found)))
}
