//! Restoring a checkpoint: the state, `config/` and `.signals/`, all or nothing.
//!
//! 1. The checkpoint is verified to the last byte, and what is there now becomes a checkpoint itself (`pre-restore`).
//! 2. Everything that is to take a place is staged beside it and synced, the sealed state too.
//! 3. The intent is put in place and synced: that is the commit. Until then a crash leaves nothing but what the next writer
//!    clears away; from then on whoever comes next carries it out ([`swap`]).
//! 4. `config/` and `.signals/` change places with what is staged, then the state is committed. The state comes last, so
//!    where that is in place all is; and an undo has only the trees to put back.
//! 5. The intent is removed and that synced; then what was displaced goes.

mod abort;
pub mod intent;
mod origin;
mod swap;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::time::Instant;

use serde_json::{Value, json};

pub use self::abort::Aborted;
use self::intent::{Action, Intent, Manner, Staged, Swap};
pub use self::origin::Interrupted;
pub(super) use self::swap::Settled;
use super::Store;
use super::checkpoint::catalog::{Checkpoint, Which};
use super::checkpoint::{Snapshot, lock_lost, manifest};
use super::ground::{Ground, Held};
use super::judge::{Health, Look, known, newer_schema};
use super::layout::{CONFIG, INTENT, SIGNALS, pinned, staged};
use super::next::new_lineage;
use super::order::{Order, Purpose};
use super::shelf::lineage_of;
use super::workshop::Workshop;
use crate::document::diff::{Change, diff};
use crate::document::migrate::{self, Unfit};
use crate::document::seal::{Digest, Lineage, Revision, Seal, Sealed, without_seal};
use crate::document::{READ_LIMIT, Reading, inspect};
use crate::error::{Error, Hint, Kind, Result};
use crate::fs::stage::Sync;
use crate::fs::{Dir, FsError, FsResult};
use crate::lock::token::Fence;
use crate::name::Name;
use crate::tree::{self, Attributes, Entry, Listing, What};

/// The state, staged in the workshop.
fn staged_state(number: u64) -> String {
    format!("state-{number}.json")
}

/// A restore that was carried out.
#[derive(Clone, Debug)]
pub struct Restored {
    /// The checkpoint.
    pub id: String,
    /// The checkpoint of what was there before.
    pub pre_restore: String,
    /// The revision that holds the restored state.
    pub revision: u64,
}

impl Store {
    /// Restores a checkpoint.
    pub fn restore(&self, which: &Which, order: &Order) -> Result<Restored> {
        let deadline = self.deadline();
        // All that can be refused is refused before anything is made or waited for. What is copied is compared once more.
        let checkpoint = self.sound_checkpoint(which)?;
        if let (health @ Health::TooNew(_), shelf) = self.look()? {
            return Err(self.refusal(&health, &shelf));
        }
        let hands = self.hold_all(Purpose::Restore, deadline)?;
        let held = &hands.held;
        let checkpoint = self.find_checkpoint(&Which::Id(checkpoint.id))?;
        let ground = self.survey(held)?;
        if let Health::TooNew(_) = ground.health {
            return Err(self.refusal(&ground.health, &ground.shelf));
        }
        self.check_conditions(order, ground.revision())?;
        let sealed = self.sealed_from(&checkpoint, &ground)?;
        self.keep_mirror(held, &ground);

        let metadata = json!({"restored": checkpoint.id});
        let snapshot = Snapshot { operation: Name::parse("operation", pinned::PRE_RESTORE)?, phase: None, metadata };
        let pre_restore = self.take_snapshot(held, &ground, &snapshot)?.id;

        let mut workshop = self.workshop(held)?;
        let before = self.open_checkpoint(&workshop.shelf, &pre_restore)?;
        let intent = self.stage_all(&workshop, held, (&checkpoint, &before), &sealed);
        let intent = intent.map_err(|error| self.past_its_place(error))?;
        self.decide(&mut workshop, held, &intent, (&order.fences, deadline))?;
        let revision = self.roll_forward(held, workshop, &intent, order).map_err(|error| {
            let message = format!(
                "{}; the restore of {} is decided, and the next command finishes it",
                error.message, checkpoint.id
            );
            Error { message, ..error }
        })?;
        Ok(Restored { id: checkpoint.id, pre_restore, revision })
    }

    /// Stages everything, the sealed state too.
    fn stage_all(
        &self,
        workshop: &Workshop<'_>,
        held: &Held,
        (checkpoint, before): (&Checkpoint, &Checkpoint),
        sealed: &Sealed,
    ) -> Result<Intent> {
        let config_root = self.config_root()?.ok_or_else(|| self.no_config_root())?;
        let mut intent = self.stage_trees(workshop, (held, &config_root), checkpoint, before)?;
        self.disk.stage(&workshop.dir, &staged_state(intent.number), &sealed.text.whole(), Sync::Now)?.keep();
        self.disk.sync_dir(&workshop.dir)?;
        let Seal { revision, lineage, digest } = sealed.document.seal.clone();
        intent.state = Some(Staged { revision, lineage, digest });
        Ok(intent)
    }

    /// The state in a checkpoint, in today's form, and the lineage that it has itself.
    fn state_of(&self, checkpoint: &Checkpoint) -> Result<(Value, Option<Lineage>)> {
        let id = &checkpoint.id;
        let unfit = |why: String| {
            Error::new(Kind::Corrupt, format!("the checkpoint {id} cannot be restored: {why}"))
                .try_command("recover list", "see which others there are")
                .detail("checkpoint", id.as_str())
        };
        let Some(entry) = checkpoint.listing.get(manifest::STATE) else {
            return Err(unfit("there was no state when it was made".to_owned()));
        };
        let found = self.disk.read(&checkpoint.dir, manifest::STATE, READ_LIMIT)?.map(|found| found.bytes);
        let is_listed =
            |bytes: &Vec<u8>| matches!(&entry.what, What::File { sha256, .. } if *sha256 == Digest::of(bytes));
        let bytes = found.filter(is_listed).ok_or_else(|| unfit("its state.json is not what it was".to_owned()))?;
        let (value, lineage) = match inspect(&bytes) {
            Reading::Sealed(document) => {
                let lineage = document.seal.lineage.clone();
                (document.into_value(), Some(lineage))
            }
            Reading::Unsealed(value) => (value, None),
            Reading::Broken(_) => return Err(unfit("its state was edited by something else".to_owned())),
            Reading::Damaged(why) => return Err(unfit(format!("its state was damaged when it was made: {why}"))),
            Reading::Conflicted(_) => return Err(unfit("its state has git's conflict markers".to_owned())),
        };
        match migrate::usable(&value) {
            Ok(migrated) => Ok((migrated.value, lineage)),
            Err(Unfit::TooNew(too_new)) => Err(newer_schema(&format!("the checkpoint {id}"), &too_new)),
            Err(Unfit::Invalid(findings)) => {
                let finding = findings.first().map_or_else(String::new, ToString::to_string);
                Err(unfit(format!("its state breaks the rules: {finding}")))
            }
        }
    }

    /// The checkpoint that is meant, if it can be restored; the error names the newest other one that can be.
    fn sound_checkpoint(&self, which: &Which) -> Result<Checkpoint> {
        let found = self.find_checkpoint(which).and_then(|checkpoint| {
            self.check_restorable(&checkpoint)?;
            Ok(checkpoint)
        });
        found.map_err(|mut error| {
            let spoilt = error.details.get("checkpoint").and_then(Value::as_str);
            if let Some(other) = spoilt.and_then(|spoilt| self.restoring_other_than(Some(spoilt))) {
                error.hints.insert(0, Hint::Run(other, "bring back the newest checkpoint that is sound".to_owned()));
            }
            error
        })
    }

    /// Refuses a checkpoint that could not be restored.
    pub(super) fn check_restorable(&self, checkpoint: &Checkpoint) -> Result<()> {
        checkpoint.verify(&self.disk)?;
        self.state_of(checkpoint).map(|_| ())
    }

    /// The state of a checkpoint as the next revision of this root.
    fn sealed_from(&self, checkpoint: &Checkpoint, ground: &Ground) -> Result<Sealed> {
        let (value, own_lineage) = self.state_of(checkpoint)?;
        let root_lineage = match &ground.health {
            Health::Healthy(document) => Some(document.seal.lineage.clone()),
            _ => lineage_of(ground.shelf.copies()?),
        };
        let lineage = match root_lineage.or(own_lineage) {
            Some(lineage) => lineage,
            None => new_lineage()?,
        };
        let created = value.pointer("/metadata/created").cloned();
        // Where no copy is left, the number must still be above those that this lineage gave out.
        let given_out = || {
            let logged = self.last_commit(&ground.shelf, &lineage).map(|commit| commit.revision);
            logged.max(value.pointer("/metadata/revision").and_then(Revision::from_value))
        };
        match self.highest_revision(ground)?.or_else(given_out).and_then(|highest| Revision::after(Some(highest))) {
            Some(revision) => self.seal_as(value, revision, &lineage, created.as_ref()),
            None => self.seal(value, ground, &lineage, created.as_ref()),
        }
    }

    pub(super) fn no_config_root(&self) -> Error {
        let root = self.settings.root.display();
        Error::new(Kind::DependencyMissing, format!("the root {root}, which config/ lies in, does not exist"))
            .try_command("--help", "--root names another")
    }

    /// Stages the trees of a checkpoint beside those that are there, whose checkpoint is `before`. What an interrupted restore
    /// staged stays until its intent is replaced: who looks in between must find what that speaks of, and nothing else.
    fn stage_trees(
        &self,
        workshop: &Workshop<'_>,
        (held, config_root): (&Held, &Dir),
        checkpoint: &Checkpoint,
        before: &Checkpoint,
    ) -> Result<Intent> {
        // What lies beside its target is cleared away by whoever finds the workshop, so that must not be lost before it.
        self.disk.sync_dir(&workshop.shelf)?;
        let number = self.free_number([&held.root, config_root])?;
        let stage = |from: &str, parent: &Dir, name: &str| -> Result<Swap> {
            let place = staged(name, number);
            let old = before.listing.below(from).map(|listing| listing.fingerprint());
            let manner = Manner::Move;
            let Some(listing) = checkpoint.listing.below(from) else { return Ok(Swap { new: None, old, manner }) };
            let new = self.stage_tree((&checkpoint.dir, from), (parent, &place), &listing)?;
            Ok(Swap { new: Some(new), old, manner })
        };
        let config = stage(manifest::CONFIG, config_root, CONFIG)?;
        let signals = stage(manifest::SIGNALS, &held.root, SIGNALS)?;
        // Their names must be on the disk before the record that speaks of them.
        self.disk.sync_dir(config_root)?;
        self.disk.sync_dir(&held.root)?;
        self.disk.sync_dir(&workshop.shelf)?;
        Ok(Intent {
            action: Action::Restore,
            number,
            checkpoint: checkpoint.id.clone(),
            pre_restore: before.id.clone(),
            origin: Some(self.origin(&held.root, config_root)?),
            config: Some(config),
            signals: Some(signals),
            state: None,
        })
    }

    fn stage_tree(&self, from: (&Dir, &str), to: (&Dir, &str), listing: &Listing) -> Result<Digest> {
        let copied = tree::copy(&self.disk, from, to, Attributes::Listed(listing))?.unwrap_or_default();
        match listing.first_difference(&copied) {
            None => Ok(listing.fingerprint()),
            Some(difference) => {
                let shown = from.0.path_of(from.1);
                Err(Error::new(Kind::Corrupt, format!("{} changed while it was copied: {difference}", shown.display()))
                    .try_command("recover verify", "see which checkpoints are sound"))
            }
        }
    }

    /// Puts the intent in place: the commit. What fails before it leaves nothing; when it is in place, all that is staged
    /// stays, whatever else happens.
    fn decide(
        &self,
        workshop: &mut Workshop<'_>,
        held: &Held,
        intent: &Intent,
        (fences, deadline): (&[Fence], Instant),
    ) -> Result<()> {
        const DRAFT: &str = "intent.draft";
        let bytes = intent.write()?;
        self.disk.stage(&workshop.dir, DRAFT, &bytes, Sync::Now)?.keep();
        if !held.lock.is_ours(&self.disk, &held.root)? {
            return Err(lock_lost());
        }
        let gate = self.locks.pass_fences(fences, deadline)?;
        let renamed = self.disk.rename((&workshop.dir, OsStr::new(DRAFT)), (&workshop.dir, OsStr::new(INTENT)));
        drop(gate);
        let unknown = |is: &str, error: &FsError| {
            let message = format!(
                "the restore of {} {is} decided, but the disk did not confirm it: {error}; if it is, the next command finishes it",
                intent.checkpoint
            );
            Error::new(Kind::DurabilityUnknown, message).try_command("recover status", "see what is there")
        };
        if let Err(error) = renamed {
            let holds = || -> FsResult<bool> {
                let found = self.disk.read(&workshop.dir, INTENT, intent::LIMIT)?;
                Ok(found.is_some_and(|found| found.bytes == bytes))
            };
            match holds() {
                Ok(true) => {} // it happened all the same
                Ok(false) => return Err(error.into()),
                Err(_) => {
                    workshop.keep();
                    return Err(unknown("may be", &error));
                }
            }
        }
        workshop.keep();
        self.disk.sync_dir(&workshop.dir).map_err(|error| unknown("is", &error))
    }
}

/// What a restore would do.
#[derive(Clone, Debug)]
pub struct Planned {
    /// The checkpoint.
    pub id: String,
    /// What would change in the state, and the files that would.
    pub changes: Vec<Change>,
}

impl Store {
    /// Verifies a checkpoint and says what restoring it would change. Changes nothing.
    pub fn plan_restore(&self, which: &Which) -> Result<Planned> {
        let checkpoint = self.sound_checkpoint(which)?;
        let live = self.live()?;
        let shelf = self.shelf_to_read()?;
        let health = self.judge(&live, &shelf, Look::Thorough)?;
        let current = known(&health, live.as_ref()).cloned().unwrap_or_default();
        let sealed = self.sealed_from(&checkpoint, &Ground { shelf, live, health })?;
        let mut changes = diff(&without_seal(&current), &without_seal(&sealed.document.value));
        let root = self.open_root()?;
        let config_root = self.config_root()?;
        for (from, parent, name) in
            [(manifest::CONFIG, config_root.as_ref(), CONFIG), (manifest::SIGNALS, Some(&root), SIGNALS)]
        {
            let old =
                parent.map(|parent| tree::list(&self.disk, parent, name)).transpose()?.flatten().unwrap_or_default();
            let new = checkpoint.listing.below(from).unwrap_or_default();
            changes.extend(differences(name, &old, &new));
        }
        Ok(Planned { id: checkpoint.id, changes })
    }
}

/// The files of a tree that would change, each by what it is and its digest.
fn differences(name: &str, old: &Listing, new: &Listing) -> Vec<Change> {
    let show = |entry: Option<&Entry>| {
        entry.map(|entry| {
            Value::from(match &entry.what {
                What::File { bytes, sha256 } => {
                    let digest: String = sha256.as_str().chars().take(12).collect();
                    format!("{bytes} bytes, sha256 {digest}…, mode {:04o}", entry.mode)
                }
                What::Directory => format!("a directory, mode {:04o}", entry.mode),
                What::Link { target } => format!("a link to {target}"),
            })
        })
    };
    let paths: BTreeSet<&str> = old.entries().iter().chain(new.entries()).map(|entry| entry.path.as_str()).collect();
    let both = paths.into_iter().map(|path| (path, show(old.get(path)), show(new.get(path))));
    let changed = both.filter(|(_, old, new)| old != new);
    changed.map(|(path, old, new)| Change { path: format!("{name}/{path}"), old, new }).collect()
}
