//! `state adopt`: accepts a foreign edit as the next revision.

use super::FileStore;
use super::change::Changes;
use super::commit::Plan;
use super::preserve::Replaced;
use super::record::Provenance;
use super::root::Root;
use super::transaction::{Transaction, Transactions};
use crate::error::Result;
use crate::store::change::Outcome;
use crate::store::diagnosis::{ForeignEdit, Health};
use crate::store::options::{LockPurpose, Mode, WriteOptions};
use crate::store::signal::Signals;

/// Adopts a foreign edit.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct Adoption<'s> {
    pub(in crate::store) store: &'s FileStore,
}

impl<'s> Adoption<'s> {
    /// Of `store`.
    pub(in crate::store) fn of(store: &'s FileStore) -> Self {
        Self { store }
    }

    /// Accepts a foreign edit: validates, seals and commits it. The last acknowledged revision
    /// becomes a pinned backup.
    pub fn adopt(&self, options: &WriteOptions) -> Result<Outcome> {
        if options.mode == Mode::DryRun {
            return self.plan();
        }
        Transactions::of(self.store).retry(|deadline| {
            Transactions::of(self.store).begin(LockPurpose::Write, deadline)?.adopt(options)
        })
    }

    fn plan(&self) -> Result<Outcome> {
        let seen = Root::of(self.store).examine()?;
        match &seen.health {
            Health::Foreign(edit) => {
                let adopted = edit.acceptable().map_err(|health| seen.refusal_of(&health))?.value;
                Ok(Outcome::Planned(ForeignEdit { value: adopted, ..edit.clone() }.changes()))
            }
            Health::Healthy(_) | Health::Legacy(_) => Ok(Outcome::Planned(Vec::new())),
            _ => Err(seen.refusal()),
        }
    }
}

impl Transaction<'_> {
    /// One attempt of an adoption; `None` if another writer was faster.
    fn adopt(self, options: &WriteOptions) -> Result<Option<Outcome>> {
        match &self.seen.health {
            Health::Foreign(edit) => {
                Changes::of(self.store).check_conditions(options, edit.revision())?;
                self.adopt_edit(edit, options)
            }
            Health::Healthy(document) => {
                let revision = document.seal.revision;
                Changes::of(self.store).check_conditions(options, revision.get())?;
                Ok(Some(Outcome::Unchanged { revision }))
            }
            Health::Legacy(_) => {
                let store = self.store;
                drop(self);
                store.lineages().seal_as_it_is(options).map(Some)
            }
            _ => Err(self.seen.refusal()),
        }
    }

    /// Commits a foreign edit unchanged; `None` if the live file was changed in the meantime.
    pub(super) fn adopt_edit(
        &self,
        edit: &ForeignEdit,
        options: &WriteOptions,
    ) -> Result<Option<Outcome>> {
        let seen = &self.seen;
        let migrated = edit.acceptable().map_err(|health| seen.refusal_of(&health))?;
        let lineage = seen.lineage_to_continue()?;
        let created = migrated.value.pointer("/metadata/created").cloned();
        let sealed = seen.seal(migrated.value, &lineage, created.as_ref())?;
        let revision = sealed.document.seal.revision;
        let lost = match &edit.reference {
            Some(reference) => {
                seen.lost_after(&reference.seal.lineage, Some(reference.seal.revision))
            }
            None => seen.lost_after(&lineage, None),
        };
        let plan = Plan {
            replaced: Replaced::by_edit(self.store.disk.now(), edit),
            signals: &Signals::Follow, // it may be an older revision
            ..Plan::of(&sealed, options)
        };
        if self.commit(&plan, options, Provenance::default())?.is_none() {
            return Ok(None);
        }
        if let Some(lost) = lost {
            self.store.warn(lost);
        }
        Ok(Some(Outcome::Committed { revision, migrated_from: migrated.from }))
    }
}
