//! The read-modify-write of ordinary writers.

use std::time::Instant;

use super::RemoteStore;
use super::commit::{Landed, Plan, publish};
use super::conditions::check_conditions;
use super::edits::{accepts_edits, adopt_edit};
use super::ground::Ground;
use super::guard::on_record::guards_of_commit;
use super::heal::heal;
use super::preserve::{Kept, kept_of};
use super::queue::{Attempt, Place, in_turn};
use super::signals::files_of;
use crate::document::seal::full_size;
use crate::error::Result;
use crate::store::AutoRecover;
use crate::store::change::{Base, Change, Outcome, check_document};
use crate::store::diagnosis::Health;
use crate::store::layout::BackupName;
use crate::store::next_revision::check_growth;
use crate::store::options::{Mode, WriteOptions};
use crate::store::signal::Signals;

/// Changes of the document by commands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Changes<'s> {
    pub store: &'s RemoteStore,
}

impl<'s> Changes<'s> {
    /// Of `store`.
    pub(super) fn of(store: &'s RemoteStore) -> Self {
        Self { store }
    }

    /// Changes the document: one atomic read-modify-write.
    pub fn change(&self, options: &WriteOptions, make: &mut Change<'_>) -> Result<Outcome> {
        if options.mode == Mode::DryRun {
            return self.plan(options, make);
        }
        let start = Instant::now();
        in_turn(self.store, options, |ground, place| {
            let ground = undamaged(ground, options)?;
            if seals_apart(&ground, options, make, place)? {
                return Ok(Attempt::Overtaken(None));
            }
            attempt_change(&ground, options, make, start, place)
        })
    }

    /// Computes what a change would do.
    fn plan(&self, options: &WriteOptions, make: &mut Change<'_>) -> Result<Outcome> {
        let ground = Ground::observe(self.store, &options.fences)?;
        let base = base_of(&ground)?;
        check_conditions(&ground, options)?;
        let proposal = make(&base)?;
        base.plan(proposal, ground.text(), options.author)
    }
}

/// The ground, healed first where that is needed and allowed. If a request fails afterwards,
/// nothing but that was changed.
pub(super) fn undamaged<'s>(
    mut ground: Box<Ground<'s>>,
    options: &WriteOptions,
) -> Result<Box<Ground<'s>>> {
    while let Health::Damaged(_) = ground.health {
        if ground.store.settings.auto_recover == AutoRecover::No {
            return Err(ground.refusal());
        }
        heal(&ground)?;
        ground = Box::new(Ground::observe(ground.store, &options.fences)?);
    }
    Ok(ground)
}

/// The document to start from, or the error that there is none.
fn base_of(ground: &Ground<'_>) -> Result<Base> {
    let base = Base::of(&ground.health, ground.store.settings.foreign_edits)
        .ok_or_else(|| ground.refusal())?;
    if let Some(edit) = &base.edit {
        ground.store.warn(format!(
            "{} was changed by something else; the next commit seals it: {}",
            ground.store.shown,
            edit.summary()
        ));
    }
    Ok(base)
}

/// A guard undoes what its command changed. An edit that is accepted is not its work: it becomes
/// a revision of its own first. Returns whether that was done.
fn seals_apart(
    ground: &Ground<'_>,
    options: &WriteOptions,
    make: &mut Change<'_>,
    place: Option<&Place>,
) -> Result<bool> {
    match &ground.health {
        Health::Foreign(edit)
            if accepts_edits(ground.store) && !guards_of_commit(ground).is_empty() =>
        {
            check_document(&make(&base_of(ground)?)?.draft)?; // refused before the edit is sealed
            let fences = options.fences.clone();
            let adoption = WriteOptions { fences, ..WriteOptions::of("adopt") };
            adopt_edit(ground, edit, &adoption, place).map(|_| true)
        }
        _ => Ok(false),
    }
}

/// One attempt of a change.
pub(super) fn attempt_change<'s>(
    ground: &Ground<'s>,
    options: &WriteOptions,
    make: &mut Change<'_>,
    start: Instant,
    place: Option<&Place>,
) -> Result<Attempt<'s, Outcome>> {
    let base = base_of(ground)?;
    check_conditions(ground, options)?;
    let proposal = make(&base)?;
    let mut draft = proposal.draft;
    draft.set_schema();
    let is_same = ground.health.migrates_from().is_none() && draft.is_same_as(&base.value);
    if let Some(seal) = base.seal.as_ref().filter(|_| is_same) {
        return Ok(Attempt::Ended(Outcome::Unchanged { revision: seal.revision }));
    }
    check_document(&draft)?;
    let sealed = ground.seal(draft, base.value.skeleton().pointer("/metadata/created"))?;
    let revision = sealed.document.seal.revision;
    let size = full_size(&sealed.text, revision);
    check_growth(size, base.full_size(ground.text()), options.author)?;
    // A foreign edit may be an older revision.
    let signals = match proposal.signals {
        given if given.are_needed() || base.edit.is_none() => given,
        _ => Signals::Follow,
    };
    let files = files_of(ground.store, &signals, sealed.document.value.skeleton())?;
    let plan = Plan {
        kept: replaced(ground, options, &base),
        repeats: proposal.repeats,
        waited: start.elapsed(),
        ..Plan::of(&sealed, files, options, place)
    };
    Ok(match publish(ground, plan)? {
        Landed::Done => {
            Attempt::Ended(Outcome::Committed { revision, migrated_from: base.migrated_from })
        }
        Landed::Overtaken(ground) => Attempt::Overtaken(Some(ground)),
    })
}

fn replaced(ground: &Ground<'_>, options: &WriteOptions, base: &Base) -> Kept {
    let Some(text) = ground.text() else { return Kept::Nothing };
    if let Some(edit) = &base.edit {
        return kept_of(ground, edit);
    }
    let revision = base.seal.as_ref().map(|seal| seal.revision);
    let name = BackupName::new(ground.store.now(), revision, &base.backup_reason(options));
    Kept::Backup(name, text.clone())
}
