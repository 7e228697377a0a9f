//! `state adopt`: accepts a foreign edit as the next revision.

use std::time::Instant;

use super::RemoteStore;
use super::commit::{Landed, Plan};
use super::ground::Ground;
use super::queue::{Attempt, Place};
use crate::error::{Error, Result};
use crate::store::change::Outcome;
use crate::store::diagnosis::{ForeignEdit, Health};
use crate::store::options::{Author, Mode, WriteOptions};
use crate::store::signal::Signals;

impl RemoteStore {
    /// Accepts a foreign edit: validates, seals and commits it. The newest copy of what it replaced
    /// becomes a pinned backup.
    pub fn adopt(&self, options: &WriteOptions) -> Result<Outcome> {
        if options.mode == Mode::DryRun {
            return self.observe(&options.fences)?.plan_adoption();
        }
        self.in_turn(options, |ground, place| ground.adopt(options, place))
    }
}

impl<'s> Ground<'s> {
    fn plan_adoption(&self) -> Result<Outcome> {
        match &self.health {
            Health::Foreign(edit) => {
                let value = edit.acceptable().map_err(|health| self.refusal_of(&health))?.value;
                Ok(Outcome::Planned(ForeignEdit { value, ..edit.clone() }.changes()))
            }
            Health::Healthy(_) | Health::Legacy(_) => Ok(Outcome::Planned(Vec::new())),
            _ => Err(self.refusal()),
        }
    }

    /// One attempt of an adoption.
    fn adopt(&self, options: &WriteOptions, place: Option<&Place>) -> Result<Attempt<'s, Outcome>> {
        match &self.health {
            Health::Foreign(edit) => {
                self.check_conditions(options)?;
                self.adopt_edit(edit, options, place)
            }
            Health::Healthy(document) => {
                let revision = document.seal.revision;
                self.check_conditions(options)?;
                Ok(Attempt::Ended(Outcome::Unchanged { revision }))
            }
            Health::Legacy(_) => {
                let options = WriteOptions { author: Author::Program, ..options.clone() };
                let mut as_it_is = |base: &crate::store::change::Base| Ok(base.draft().into());
                self.change(&options, &mut as_it_is, Instant::now(), place)
            }
            _ => Err(self.refusal()),
        }
    }

    pub(super) fn adopt_edit(
        &self,
        edit: &ForeignEdit,
        options: &WriteOptions,
        place: Option<&Place>,
    ) -> Result<Attempt<'s, Outcome>> {
        let migrated = edit.acceptable().map_err(|health| self.refusal_of(&health))?;
        let created = migrated.value.pointer("/metadata/created").cloned();
        let sealed = self.seal(migrated.value, created.as_ref())?;
        let revision = sealed.document.seal.revision;
        // It may be an older revision.
        let signals = self.files_of(&Signals::Follow, sealed.document.value.skeleton())?;
        let plan = Plan { kept: self.kept_of(edit), ..Plan::of(&sealed, signals, options, place) };
        if let Landed::Overtaken(ground) = self.publish(plan)? {
            return Ok(Attempt::Overtaken(Some(ground)));
        }
        let kept = edit.reference.as_ref().map(|reference| reference.seal.revision);
        if let Some(lost) = self.lost_after(kept) {
            self.store.warn(lost);
        }
        Ok(Attempt::Ended(Outcome::Committed { revision, migrated_from: migrated.from }))
    }

    fn refusal_of(&self, health: &Health) -> Error {
        health.refusal(&self.store.shown, self, None).unwrap_or_else(|| self.refusal())
    }
}
