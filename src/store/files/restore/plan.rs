//! `recover restore --dry-run`: the effect that a restore would have.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::document::diff::{Difference, diff};
use crate::document::seal::without_seal;
use crate::error::Result;
use crate::store::checkpoint::manifest;
use crate::store::files::checkpoint::catalog::Which;
use crate::store::files::restore::Restores;
use crate::store::files::root::Root;
use crate::store::files::staging::Staging;
use crate::store::layout::{CONFIG, SIGNALS};
use crate::tree::{self, Entry, Listing, What};

/// The effect that a restore would have.
#[derive(Clone, Debug)]
pub struct Planned {
    /// The checkpoint.
    pub id: String,
    /// The differences in the state, and the files that differ.
    pub changes: Vec<Difference>,
}

impl Restores<'_> {
    /// Verifies a checkpoint and returns the changes that restoring it would make. Changes nothing.
    pub fn plan(&self, which: &Which) -> Result<Planned> {
        let checkpoint = self.store.restores().sound_checkpoint(which)?;
        let seen = Root::of(self.store).examine()?;
        let current = seen.known().cloned().unwrap_or_default();
        let (value, lineage) = self.store.restores().state_of(&checkpoint)?;
        let sealed = seen.sealed_from(&value, lineage.as_ref(), None)?;
        let mut changes = diff(&without_seal(&current), &without_seal(&sealed.document.value));
        let root = Root::of(self.store).open()?;
        let config_root = Staging::of(self.store).config_root()?;
        for (from, parent, name) in [
            (manifest::CONFIG, config_root.as_ref(), CONFIG),
            (manifest::SIGNALS, Some(&root), SIGNALS),
        ] {
            let old = parent
                .map(|parent| tree::list(&self.store.disk, parent, name))
                .transpose()?
                .flatten()
                .unwrap_or_default();
            let new = checkpoint.listing.below(from).unwrap_or_default();
            changes.extend(differences(name, &old, &new));
        }
        Ok(Planned { id: checkpoint.id, changes })
    }
}

/// The files of a tree that would change, each with its kind and digest.
fn differences(name: &str, old: &Listing, new: &Listing) -> Vec<Difference> {
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
