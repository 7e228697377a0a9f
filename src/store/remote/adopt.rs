//! `state adopt`: accepts a foreign edit as the next revision.

use std::time::Instant;

use super::RemoteStore;
use super::change::attempt_change;
use super::conditions::check_conditions;
use super::edits::adopt_edit;
use super::ground::Ground;
use super::queue::{Attempt, Place, in_turn};
use crate::error::Result;
use crate::store::change::{Base, Outcome};
use crate::store::diagnosis::{ForeignEdit, Health};
use crate::store::options::{Author, Mode, WriteOptions};

/// Adopts a foreign edit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Adoption<'s> {
    store: &'s RemoteStore,
}

impl<'s> Adoption<'s> {
    /// Of `store`.
    pub(super) fn of(store: &'s RemoteStore) -> Self {
        Self { store }
    }

    /// Accepts a foreign edit: validates, seals and commits it. The newest copy of what it replaced
    /// becomes a pinned backup.
    pub fn adopt(&self, options: &WriteOptions) -> Result<Outcome> {
        if options.mode == Mode::DryRun {
            return plan_adoption(&Ground::observe(self.store, &options.fences)?);
        }
        in_turn(self.store, options, |ground, place| accept(&ground, options, place))
    }
}

fn plan_adoption(ground: &Ground<'_>) -> Result<Outcome> {
    match &ground.health {
        Health::Foreign(edit) => {
            let value = edit.acceptable().map_err(|health| ground.refusal_of(&health))?.value;
            Ok(Outcome::Planned(ForeignEdit { value, ..edit.clone() }.changes()))
        }
        Health::Healthy(_) | Health::Legacy(_) => Ok(Outcome::Planned(Vec::new())),
        _ => Err(ground.refusal()),
    }
}

/// One attempt of an adoption.
fn accept<'s>(
    ground: &Ground<'s>,
    options: &WriteOptions,
    place: Option<&Place>,
) -> Result<Attempt<'s, Outcome>> {
    match &ground.health {
        Health::Foreign(edit) => {
            check_conditions(ground, options)?;
            adopt_edit(ground, edit, options, place)
        }
        Health::Healthy(document) => {
            let revision = document.seal.revision;
            check_conditions(ground, options)?;
            Ok(Attempt::Ended(Outcome::Unchanged { revision }))
        }
        Health::Legacy(_) => {
            let options = WriteOptions { author: Author::Program, ..options.clone() };
            let mut as_it_is = |base: &Base| Ok(base.draft().into());
            attempt_change(ground, &options, &mut as_it_is, Instant::now(), place)
        }
        _ => Err(ground.refusal()),
    }
}
