//! `state adopt`: accepts a foreign edit as the next revision.

use super::FileStore;
use super::begin::Transactions;
use super::commit::Plan;
use super::heal::lost_after;
use super::observe::Observation;
use super::preserve::Replaced;
use super::record::Provenance;
use super::transaction::{Transaction, check_conditions};
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
            let tx = Transactions::of(self.store).begin(LockPurpose::Write, deadline)?;
            accept(tx, options)
        })
    }

    fn plan(&self) -> Result<Outcome> {
        let seen = Observation::examine(self.store)?;
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

/// One attempt of an adoption; `None` if another writer was faster.
fn accept(tx: Transaction<'_>, options: &WriteOptions) -> Result<Option<Outcome>> {
    match &tx.seen.health {
        Health::Foreign(edit) => {
            check_conditions(tx.store, options, edit.revision())?;
            adopt_edit(&tx, edit, options)
        }
        Health::Healthy(document) => {
            let revision = document.seal.revision;
            check_conditions(tx.store, options, revision.get())?;
            Ok(Some(Outcome::Unchanged { revision }))
        }
        Health::Legacy(_) => {
            let store = tx.store;
            drop(tx);
            store.lineages().seal_as_it_is(options).map(Some)
        }
        _ => Err(tx.seen.refusal()),
    }
}

/// Commits a foreign edit unchanged; `None` if the live file was changed in the meantime.
pub(in crate::store::files) fn adopt_edit(
    tx: &Transaction<'_>,
    edit: &ForeignEdit,
    options: &WriteOptions,
) -> Result<Option<Outcome>> {
    let seen = &tx.seen;
    let migrated = edit.acceptable().map_err(|health| seen.refusal_of(&health))?;
    let lineage = seen.lineage_to_continue()?;
    let created = migrated.value.pointer("/metadata/created").cloned();
    let sealed = seen.seal(migrated.value, &lineage, created.as_ref())?;
    let revision = sealed.document.seal.revision;
    let lost = match &edit.reference {
        Some(reference) => lost_after(seen, &reference.seal.lineage, Some(reference.seal.revision)),
        None => lost_after(seen, &lineage, None),
    };
    let plan = Plan {
        replaced: Replaced::by_edit(tx.store.disk.now(), edit),
        signals: &Signals::Follow, // it may be an older revision
        ..Plan::of(&sealed, options)
    };
    if tx.commit(&plan, options, Provenance::default())?.is_none() {
        return Ok(None);
    }
    if let Some(lost) = lost {
        tx.store.warn(lost);
    }
    Ok(Some(Outcome::Committed { revision, migrated_from: migrated.from }))
}
