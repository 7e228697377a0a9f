//! The read-modify-write: what a writer does under the lock before and after the commit.

use serde_json::Value;

use super::FileStore;
use super::adopt::adopt_edit;
use super::begin::Transactions;
use super::candidate::{is_healed_by_commands, newest_copy};
use super::commit::Plan;
use super::guard::records::guards_of_commit;
use super::observe::Observation;
use super::preserve::Replaced;
use super::read::Reader;
use super::record::Provenance;
use super::root::Root;
use super::signal::follow::files_of;
use super::signal::place_signals;
use super::transaction::{Transaction, check_conditions};
use crate::document::migrate::Migrated;
use crate::document::seal::full_size;
use crate::error::Result;
use crate::store::candidate::Restorable;
use crate::store::change::{Base, Change, Outcome, Proposal, check_document};
use crate::store::diagnosis::Health;
use crate::store::layout::SIGNALS;
use crate::store::next_revision::check_growth;
use crate::store::options::{Mode, WriteOptions};
use crate::store::signal::Signals;

/// Changes of the document by commands.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct Changes<'s> {
    pub(in crate::store) store: &'s FileStore,
}

impl<'s> Changes<'s> {
    /// Of `store`.
    pub(in crate::store) fn of(store: &'s FileStore) -> Self {
        Self { store }
    }

    /// Changes the document: one atomic read-modify-write under the state lock.
    pub fn change(&self, options: &WriteOptions, make: &mut Change<'_>) -> Result<Outcome> {
        if options.mode == Mode::DryRun {
            return self.plan(options, make);
        }
        Transactions::of(self.store).retry(|deadline| {
            let tx = Transactions::of(self.store).begin_write(deadline)?;
            attempt_change(tx, options, make)
        })
    }

    /// Computes what a change would do, without a lock and without changing anything.
    fn plan(&self, options: &WriteOptions, make: &mut Change<'_>) -> Result<Outcome> {
        let mut seen = Observation::examine(self.store)?;
        if matches!(seen.health, Health::Missing) && Reader::of(self.store).returns()? {
            seen = Observation::examine(self.store)?;
        }
        if matches!(seen.health, Health::Damaged(_)) && is_healed_by_commands(&seen) {
            let document = newest_copy(&seen)?.document;
            self.store.warn(format!(
                "{} is damaged; this is against the copy it would be healed from",
                self.store.shown()
            ));
            seen.health = match document {
                Restorable::Sealed(document) => Health::Healthy(document),
                Restorable::Legacy(value) => Health::Legacy(Migrated { value, from: None }),
            };
        }
        let base = base_of(&seen)?;
        let proposal = self.make_checked(options, &base, make)?;
        base.plan(proposal, seen.text(), options.author)
    }

    fn make_checked(
        &self,
        options: &WriteOptions,
        base: &Base,
        make: &mut Change<'_>,
    ) -> Result<Proposal> {
        check_conditions(self.store, options, base.revision())?;
        make(base)
    }

    /// Warns of objects where old documents should have a signal's time.
    fn warn_of_objects(&self, base: &Base) {
        if base.seal.is_some() && base.migrated_from.is_none() {
            return;
        }
        let signals = base.value.skeleton().get("signals").and_then(Value::as_object);
        let objects: Vec<&str> = signals
            .into_iter()
            .flatten()
            .filter(|(_, value)| value.is_object())
            .map(|(name, _)| &**name)
            .collect();
        if !objects.is_empty() {
            self.store.warn(format!(
                "signals hold objects instead of times, and keep them: {}",
                objects.join(", ")
            ));
        }
    }
}

/// The document to start from, or the error that there is none.
fn base_of(seen: &Observation<'_>) -> Result<Base> {
    let base =
        Base::of(&seen.health, seen.store.settings.foreign_edits).ok_or_else(|| seen.refusal())?;
    if let Some(edit) = &base.edit {
        seen.store.warn(format!(
            "{} was changed by something else; the next commit seals it: {}",
            seen.store.shown(),
            edit.summary()
        ));
    }
    Ok(base)
}

fn replaced(seen: &Observation<'_>, options: &WriteOptions, base: &Base) -> Replaced {
    let now = seen.store.disk.now();
    if let Some(edit) = &base.edit {
        return Replaced::by_edit(now, edit);
    }
    if seen.live.as_ref().is_none() {
        return Replaced::Nothing;
    }
    Replaced::backup(
        now,
        base.seal.as_ref().map(|seal| seal.revision),
        &base.backup_reason(options),
    )
}

/// One attempt of a change; `None` if another writer was faster.
fn attempt_change(
    mut tx: Transaction<'_>,
    options: &WriteOptions,
    make: &mut Change<'_>,
) -> Result<Option<Outcome>> {
    let mut base = base_of(&tx.seen)?;
    Changes::of(tx.store).warn_of_objects(&base);
    tx.keep_mirror();
    let mut proposal = Changes::of(tx.store).make_checked(options, &base, make)?;
    // A guard undoes what its command changed. The edit is not the command's work, so it gets a
    // revision of its own.
    if let Some(edit) = &base.edit
        && !guards_of_commit(&tx.lock, &tx.seen.backup_dir).is_empty()
    {
        check_document(&proposal.draft)?; // refused before the edit is sealed
        let fences = options.fences.clone();
        let adoption = WriteOptions { fences, ..WriteOptions::of("adopt") };
        if adopt_edit(&tx, edit, &adoption)?.is_none() {
            return Ok(None);
        }
        tx.seen = tx.lock.observe()?;
        base = base_of(&tx.seen)?;
        proposal = make(&base)?;
    }
    if proposal.signals.are_needed() {
        // refused before the commit
        Root::of(tx.store).side_directory(&tx.lock.root, SIGNALS)?;
    }
    // A foreign edit may be an older revision.
    let signals = match proposal.signals {
        given if given.are_needed() || base.edit.is_none() => given,
        _ => Signals::Follow,
    };
    let mut draft = proposal.draft;
    draft.set_schema();
    let is_same = !tx.seen.is_rewritten() && draft.is_same_as(&base.value);
    if let Some(seal) = base.seal.as_ref().filter(|_| is_same) {
        let state = base.value.skeleton();
        let files = files_of(&tx.lock, &tx.seen.backup_dir, &signals, state);
        place_signals(&tx.lock, &files);
        return Ok(Some(Outcome::Unchanged { revision: seal.revision }));
    }
    check_document(&draft)?;
    let lineage = tx.seen.lineage_to_continue()?;
    let created = base.value.skeleton().pointer("/metadata/created");
    let sealed = tx.seen.seal(draft, &lineage, created)?;
    let revision = sealed.document.seal.revision;
    let size = full_size(&sealed.text, revision);
    check_growth(size, base.full_size(tx.seen.text()), options.author)?;
    let replaced = replaced(&tx.seen, options, &base);
    let of = Provenance { from: None, repeats: proposal.repeats };
    let plan = Plan { replaced, signals: &signals, ..Plan::of(&sealed, options) };
    Ok(tx
        .commit(&plan, options, of)?
        .map(|_| Outcome::Committed { revision, migrated_from: base.migrated_from }))
}
