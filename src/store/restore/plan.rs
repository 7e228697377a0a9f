//! `recover restore --dry-run`: the effect that a restore would have.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::document::diff::Difference;
use crate::tree::{Entry, Listing, What};

/// The effect that a restore would have.
#[derive(Clone, Debug)]
pub struct Planned {
    /// The checkpoint.
    pub id: String,
    /// The differences in the state, and the files that differ.
    pub changes: Vec<Difference>,
}

/// The files of a tree that would change, each with its kind and digest.
pub fn differences(name: &str, old: &Listing, new: &Listing) -> Vec<Difference> {
    let show = |entry: Option<&Entry>| {
        entry.map(|entry| {
            Value::from(match &entry.what {
                What::File { bytes, sha256 } => {
                    let digest: String = sha256.as_str().chars().take(12).collect();
                    format!("{bytes} bytes, sha256 {digest}…, mode {:04o}", entry.mode)
                }
                What::Directory => format!("a directory, mode {:04o}", entry.mode),
                What::Link { target } => format!("a link to {target}"),
            })
        })
    };
    let paths: BTreeSet<&str> =
        old.entries().iter().chain(new.entries()).map(|entry| entry.path.as_str()).collect();
    let both = paths.into_iter().map(|path| (path, show(old.get(path)), show(new.get(path))));
    let changed = both.filter(|(_, old, new)| old != new);
    changed
        .map(|(path, old, new)| Difference { path: format!("{name}/{path}"), old, new })
        .collect()
}
