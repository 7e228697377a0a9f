//! The next revision: its number, its lineage, its seal.

use serde_json::Value;

use super::FileStore;
use super::observe::Observation;
use crate::document::new_document::NewDocument;
use crate::document::seal::{Lineage, Revision, Sealed};
use crate::error::{Error, Kind, Result, quote_path};
use crate::fs::FsResult;
use crate::store::copies::{Copies, highest_revision, lineage_of};
use crate::store::diagnosis::{Health, Mirror, claimed_lineage};
use crate::store::layout::BACKUPS;
use crate::store::next_revision::{self, Records, new_lineage};

/// Seals the next revision.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct Sealer<'s> {
    pub(in crate::store) store: &'s FileStore,
}

impl<'s> Sealer<'s> {
    /// Of `store`.
    pub(in crate::store) fn of(store: &'s FileStore) -> Self {
        Self { store }
    }

    /// The revision after the highest known one. Only a forged document uses the last one up.
    pub(super) fn revision_after(&self, highest: Option<Revision>) -> Result<Revision> {
        Revision::after(highest).ok_or_else(|| {
            let root = &self.store.settings.directory;
            let moved = quote_path(&root.join("used-up"));
            let (state, backups) =
                (quote_path(&self.store.settings.path()), quote_path(&root.join(BACKUPS)));
            let message = "the last possible revision is reached; no commit can follow it";
            Error::new(Kind::Internal, message)
                .hint_shell(
                    format!("mkdir {moved} && mv -- {state} {backups} {moved}"),
                    "set the state and its history aside",
                )
                .hint_command("state init", "then begin again")
        })
    }

    pub(super) fn seal_as(
        &self,
        draft: impl Into<NewDocument>,
        revision: Revision,
        lineage: &Lineage,
        created: Option<&Value>,
    ) -> Result<Sealed> {
        next_revision::seal_as(draft, revision, lineage, created, self.store.disk.now())
    }
}

impl Observation<'_> {
    /// Seals `draft` as the next revision: one more than the highest found anywhere.
    pub(super) fn seal(
        &self,
        draft: impl Into<NewDocument>,
        lineage: &Lineage,
        created: Option<&Value>,
    ) -> Result<Sealed> {
        let highest = self.highest_revision()?;
        let revision = Sealer::of(self.store).revision_after(highest)?;
        Sealer::of(self.store).seal_as(draft, revision, lineage, created)
    }

    /// The lineage of the next revision: the one that the root holds or has on record; otherwise a
    /// new one.
    pub(super) fn lineage_to_continue(&self) -> Result<Lineage> {
        match self.known_lineage()? {
            Some(lineage) => Ok(lineage),
            None => new_lineage(),
        }
    }

    /// The lineage of the live document, of the copies, or of the last commit in the journal; else
    /// the one that a foreign edit claims.
    pub(super) fn known_lineage(&self) -> Result<Option<Lineage>> {
        if let Health::Healthy(document) = &self.health {
            return Ok(Some(document.seal.lineage.clone()));
        }
        if let Some(lineage) = lineage_of(self.backup_dir.copies()?) {
            return Ok(Some(lineage));
        }
        let remembered = self.backup_dir.trace().and_then(|trace| trace.lineage);
        Ok(remembered.or_else(|| match &self.health {
            Health::Foreign(edit) => claimed_lineage(&edit.value),
            _ => None,
        }))
    }

    /// The highest revision in the live file, the mirror and the backups. A backup's name alone
    /// proves nothing: if the name claims more than the others hold, the backup is read.
    pub(super) fn highest_revision(&self) -> Result<Option<Revision>> {
        let live = match &self.health {
            Health::Healthy(document) => {
                let live = Some(document.seal.revision);
                // The live file may be an older copy with the contents of the latest.
                match self
                    .live
                    .as_ref()
                    .map(|found| self.backup_dir.mirror_of(found))
                    .transpose()?
                {
                    None | Some(Mirror::Same) => live,
                    Some(_) => live.max(highest_revision(self.backup_dir.copies()?)),
                }
            }
            // A document from before seals has no history; with history it would be a foreign edit.
            Health::Legacy(_) => None,
            _ => return self.highest_remembered(),
        };
        let mut claims =
            self.backup_dir.backups.iter().rev().filter(|backup| backup.revision > live);
        let proven = claims.try_fold(None, |highest: Option<Revision>, backup| {
            if highest.is_some() {
                return Ok(highest);
            }
            let copy = self.backup_dir.read(backup.as_str())?;
            FsResult::Ok(copy.seal().map(|seal| seal.revision))
        })?;
        let known = proven.max(live);
        Ok(Records { served: self.backup_dir.served, ..Records::proven(known) }.highest())
    }

    /// The highest revision where the live file is unusable: that of any copy, or a higher one that
    /// was acknowledged and of which no copy is left. A revision must not be reused, or
    /// `--if-revision` would confuse the two.
    pub(super) fn highest_remembered(&self) -> Result<Option<Revision>> {
        let copies = self.backup_dir.copies()?;
        let found = highest_revision(copies);
        let edited = match &self.health {
            Health::Foreign(edit) => Some(&edit.value),
            _ => None,
        };
        let claimed =
            edited.and_then(|value| Revision::from_value(value.pointer("/metadata/revision")?));
        let lineage = lineage_of(copies).or_else(|| claimed_lineage(edited?));
        // `init --fresh` also needs it: its new lineage must not reuse a number of the old one.
        let logged =
            lineage.and_then(|lineage| self.last_commit(&lineage)).map(|commit| commit.revision);
        let trace = self.backup_dir.trace();
        let logged = logged.max(trace.as_ref().and_then(|trace| trace.journaled));
        let named = trace.and_then(|trace| trace.named);
        let served = self.backup_dir.served;
        Ok(Records { found, claimed, logged, named, served }.highest())
    }
}
