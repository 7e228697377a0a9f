//! The read-modify-write of ordinary writers.

use std::time::Instant;

use bytes::Bytes;
use serde_json::Value;

use super::RemoteStore;
use super::commit::{Kept, Landed, Plan};
use super::ground::Ground;
use super::queue::{Attempt, Place};
use crate::document::new_document::NewDocument;
use crate::document::seal::{Lineage, Sealed, full_size};
use crate::error::Result;
use crate::store::change::{Base, Change, Outcome, check_document};
use crate::store::diagnosis::{ForeignEdit, Health};
use crate::store::layout::{BackupName, pinned};
use crate::store::next_revision::{check_growth, seal_as};
use crate::store::options::{Author, Mode, WriteOptions, conflict};
use crate::store::signal::Signals;
use crate::store::{AutoRecover, ForeignEdits};

impl RemoteStore {
    /// Changes the document: one atomic read-modify-write.
    pub fn change(&self, options: &WriteOptions, make: &mut Change<'_>) -> Result<Outcome> {
        if options.mode == Mode::DryRun {
            return self.plan(options, make);
        }
        let start = Instant::now();
        self.in_turn(options, |ground, place| {
            let ground = self.undamaged(ground, options)?;
            if ground.seals_apart(options, make, place)? {
                return Ok(Attempt::Overtaken(None));
            }
            ground.change(options, make, start, place)
        })
    }

    /// Commits the document without changes: seals a legacy one, persists a migration.
    pub fn seal_as_it_is(&self, options: &WriteOptions) -> Result<Outcome> {
        let options = WriteOptions { author: Author::Program, ..options.clone() };
        self.change(&options, &mut |base| Ok(base.draft().into()))
    }

    /// Computes what a change would do.
    fn plan(&self, options: &WriteOptions, make: &mut Change<'_>) -> Result<Outcome> {
        let ground = self.observe(&options.fences)?;
        let base = ground.base()?;
        ground.check_conditions(options)?;
        let proposal = make(&base)?;
        base.plan(proposal, ground.text(), options.author)
    }

    /// The ground, healed first where that is needed and allowed. If a request fails afterwards,
    /// nothing but that was changed.
    pub(super) fn undamaged<'s>(
        &'s self,
        mut ground: Box<Ground<'s>>,
        options: &WriteOptions,
    ) -> Result<Box<Ground<'s>>> {
        while let Health::Damaged(_) = ground.health {
            if self.settings.auto_recover == AutoRecover::No {
                return Err(ground.refusal());
            }
            ground.heal()?;
            ground = Box::new(self.observe(&options.fences)?);
        }
        Ok(ground)
    }
}

impl<'s> Ground<'s> {
    /// Refuses to continue unless the current revision is the required one and the fences hold. A
    /// commit's transaction checks both again.
    pub(super) fn check_conditions(&self, options: &WriteOptions) -> Result<()> {
        let current = self.revision();
        if let Some(wanted) = options.if_revision.filter(|wanted| *wanted != current) {
            let message = format!("the state is at revision {current}, not {wanted}");
            return Err(conflict(&message, current));
        }
        self.fence_guards(&options.fences).map(drop)
    }

    /// The document to start from, or the error that there is none.
    fn base(&self) -> Result<Base> {
        let base = Base::of(&self.health, self.store.settings.foreign_edits)
            .ok_or_else(|| self.refusal())?;
        if let Some(edit) = &base.edit {
            self.store.warn(format!(
                "{} was changed by something else; the next commit seals it: {}",
                self.store.shown,
                edit.summary()
            ));
        }
        Ok(base)
    }

    /// A guard undoes what its command changed. An edit that is accepted is not its work: it becomes
    /// a revision of its own first. Returns whether that was done.
    fn seals_apart(
        &self,
        options: &WriteOptions,
        make: &mut Change<'_>,
        place: Option<&Place>,
    ) -> Result<bool> {
        match &self.health {
            Health::Foreign(edit)
                if accepts_edits(self.store) && !self.guards_of_commit().is_empty() =>
            {
                check_document(&make(&self.base()?)?.draft)?; // refused before the edit is sealed
                let fences = options.fences.clone();
                let adoption = WriteOptions { fences, ..WriteOptions::of("adopt") };
                self.adopt_edit(edit, &adoption, place).map(|_| true)
            }
            _ => Ok(false),
        }
    }

    /// One attempt of a change.
    pub(super) fn change(
        &self,
        options: &WriteOptions,
        make: &mut Change<'_>,
        start: Instant,
        place: Option<&Place>,
    ) -> Result<Attempt<'s, Outcome>> {
        let base = self.base()?;
        self.check_conditions(options)?;
        let proposal = make(&base)?;
        let mut draft = proposal.draft;
        draft.set_schema();
        let is_same = self.health.migrates_from().is_none() && draft.is_same_as(&base.value);
        if let Some(seal) = base.seal.as_ref().filter(|_| is_same) {
            return Ok(Attempt::Ended(Outcome::Unchanged { revision: seal.revision }));
        }
        check_document(&draft)?;
        let sealed = self.seal(draft, base.value.skeleton().pointer("/metadata/created"))?;
        let revision = sealed.document.seal.revision;
        let size = full_size(&sealed.text, revision);
        check_growth(size, base.full_size(self.text()), options.author)?;
        // A foreign edit may be an older revision.
        let signals = match proposal.signals {
            given if given.are_needed() || base.edit.is_none() => given,
            _ => Signals::Follow,
        };
        let files = self.files_of(&signals, sealed.document.value.skeleton())?;
        let plan = Plan {
            kept: self.replaced(options, &base),
            repeats: proposal.repeats,
            waited: start.elapsed(),
            ..Plan::of(&sealed, files, options, place)
        };
        Ok(match self.publish(plan)? {
            Landed::Done => {
                Attempt::Ended(Outcome::Committed { revision, migrated_from: base.migrated_from })
            }
            Landed::Overtaken(ground) => Attempt::Overtaken(Some(ground)),
        })
    }

    /// Seals `draft` as the next revision.
    pub(super) fn seal(
        &self,
        draft: impl Into<NewDocument>,
        created: Option<&Value>,
    ) -> Result<Sealed> {
        self.seal_in(&self.lineage_to_continue()?, draft, created)
    }

    /// Seals `draft` as the next revision, in a lineage.
    pub(super) fn seal_in(
        &self,
        lineage: &Lineage,
        draft: impl Into<NewDocument>,
        created: Option<&Value>,
    ) -> Result<Sealed> {
        seal_as(draft, self.next_revision()?, lineage, created, self.store.now())
    }

    fn replaced(&self, options: &WriteOptions, base: &Base) -> Kept {
        let Some(text) = self.text() else { return Kept::Nothing };
        if let Some(edit) = &base.edit {
            return self.kept_of(edit);
        }
        let revision = base.seal.as_ref().map(|seal| seal.revision);
        let name = BackupName::new(self.store.now(), revision, &base.backup_reason(options));
        Kept::Backup(name, text.clone())
    }

    /// What is kept when a foreign edit is sealed: the newest copy from before it; where there is
    /// none, the edit as it was found.
    pub(super) fn kept_of(&self, edit: &ForeignEdit) -> Kept {
        let kept = edit.reference.as_ref().and_then(|reference| {
            let text = crate::document::seal::to_bytes(reference.as_sealed())?;
            let revision = Some(reference.seal.revision);
            let name = BackupName::new(self.store.now(), revision, pinned::PRE_ADOPT);
            Some(Kept::Backup(name, Bytes::from(text)))
        });
        kept.unwrap_or_else(|| self.evidence())
    }
}

/// Returns whether a foreign edit is served and sealed.
pub(super) fn accepts_edits(store: &RemoteStore) -> bool {
    store.settings.foreign_edits == ForeignEdits::Accept
}
