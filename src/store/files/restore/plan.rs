//! `recover restore --dry-run`: the effect that a restore would have.

use crate::document::contents::without_seal;
use crate::document::diff::diff;
use crate::error::Result;
use crate::store::checkpoint::catalog::Which;
use crate::store::checkpoint::manifest;
use crate::store::files::observe::Observation;
use crate::store::files::restore::{Restores, sealed_from};
use crate::store::files::root::Root;
use crate::store::files::staging::Staging;
use crate::store::layout::{CONFIG, SIGNALS};
use crate::store::restore::plan::{Planned, differences};
use crate::tree;

impl Restores<'_> {
    /// Verifies a checkpoint and returns the changes that restoring it would make. Changes nothing.
    pub fn plan(&self, which: &Which) -> Result<Planned> {
        let checkpoint = self.store.restores().sound_checkpoint(which)?;
        let seen = Observation::examine(self.store)?;
        let current = seen.known().cloned().unwrap_or_default();
        let (value, lineage) = self.store.restores().state_of(&checkpoint)?;
        let sealed = sealed_from(&seen, &value, lineage.as_ref(), None)?;
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
