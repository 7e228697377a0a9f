//! Foreign edits: the document was put by something else, and becomes a revision.

use super::RemoteStore;
use super::commit::{Landed, Plan, publish};
use super::ground::Ground;
use super::heal::lost_after;
use super::preserve::kept_of;
use super::queue::{Attempt, Place};
use super::signals::files_of;
use crate::error::Result;
use crate::store::ForeignEdits;
use crate::store::change::Outcome;
use crate::store::diagnosis::ForeignEdit;
use crate::store::options::WriteOptions;
use crate::store::signal::Signals;

/// Returns whether a foreign edit is served and sealed.
pub(super) fn accepts_edits(store: &RemoteStore) -> bool {
    store.settings.foreign_edits == ForeignEdits::Accept
}

/// Commits a foreign edit unchanged.
pub(super) fn adopt_edit<'s>(
    ground: &Ground<'s>,
    edit: &ForeignEdit,
    options: &WriteOptions,
    place: Option<&Place>,
) -> Result<Attempt<'s, Outcome>> {
    let migrated = edit.acceptable().map_err(|health| ground.refusal_of(&health))?;
    let created = migrated.value.pointer("/metadata/created").cloned();
    let sealed = ground.seal(migrated.value, created.as_ref())?;
    let revision = sealed.document.seal.revision;
    // It may be an older revision.
    let signals = files_of(ground.store, &Signals::Follow, sealed.document.value.skeleton())?;
    let plan = Plan { kept: kept_of(ground, edit), ..Plan::of(&sealed, signals, options, place) };
    if let Landed::Overtaken(ground) = publish(ground, plan)? {
        return Ok(Attempt::Overtaken(Some(ground)));
    }
    let kept = edit.reference.as_ref().map(|reference| reference.seal.revision);
    if let Some(lost) = lost_after(ground, kept) {
        ground.store.warn(lost);
    }
    Ok(Attempt::Ended(Outcome::Committed { revision, migrated_from: migrated.from }))
}
