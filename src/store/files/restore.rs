//! Restoring a checkpoint: the state, `config/` and `.signals/`, all or nothing.
//!
//! 1. The checkpoint is verified byte by byte, and the current state and trees become a checkpoint
//!    themselves (`pre-restore`).
//! 2. The probe finds out how each target can be replaced (`probe`); one that cannot be replaced
//!    refuses the restore. Everything new, including the sealed state, is staged on the file system
//!    of its target and synced.
//! 3. The intent is put in place and synced: that is the commit. A crash before it leaves only
//!    files that the next writer removes; after it the next command carries the restore out
//!    (`roll_forward`).
//! 4. `config/` and `.signals/` are exchanged with the staged trees, or their contents are replaced
//!    file by file (`copy_into`); then the state is committed. The state comes last: where it is
//!    in place everything is, and an undo only has to put the trees back.
//! 5. The intent is removed, durably; then the replaced trees are removed.

mod abort;
mod copy_into;
mod intents;
mod obstacle;
mod origin;
mod plan;
pub(super) mod probe;
mod reader;
mod replacement;
mod roll_forward;
pub(super) mod scratch;

use std::time::Instant;

use serde_json::{Value, json};

use super::FileStore;
use super::begin::Transactions;
use super::checkpoint::catalog::Checkpoint;
use super::checkpoint::{Unkept, take_snapshot};
use super::next_revision::Sealer;
use super::observe::Observation;
use super::staging::{Staging, StagingDir};
use super::state_lock::{StateLock, StateLocks, lock_lost};
use super::transaction::{Transaction, check_conditions};
use crate::document::READ_LIMIT;
use crate::document::seal::{Digest, Lineage, Revision, Seal, Sealed};
use crate::error::{Error, Hint, Kind, Result};
use crate::fs::stage::Durability;
use crate::fs::{At, Dir, FsError, FsResult};
use crate::lock::Fence;
use crate::name::Name;
use crate::store::checkpoint::catalog::{Made, Snapshot, Unrestorable, Which};
use crate::store::checkpoint::manifest;
use crate::store::checkpoint::retention::Retention;
use crate::store::diagnosis::Health;
use crate::store::layout::{CONFIG, INTENT, SIGNALS, pinned, staged, staged_state};
use crate::store::next_revision::new_lineage;
use crate::store::options::{LockPurpose, WriteOptions};
use crate::store::restore::intent::{self, Action, Intent, Manner, StagedState, Swap};
use crate::store::restore::state;
use crate::tree::{self, Attributes, Listing, What};

pub use self::abort::Aborted;
pub use self::intents::{Intents, Interrupted};
#[cfg(feature = "etcd")]
pub(super) use self::origin::foreign;
pub use self::probe::{Probe, RestorePlan};
pub(super) use self::roll_forward::Settled;

/// A tree that is to replace `config/` or `.signals/`.
pub(super) struct Tree<'a> {
    /// The directory that contains it.
    pub dir: &'a Dir,
    /// Its name there: that of its kind in a manifest.
    pub name: &'static str,
    /// Its entries; `None` if the target is to be removed.
    pub listing: Option<Listing>,
}

/// The target of a restore: a state and trees. A tree that is `None` stays as it is.
pub(super) struct Proposed<'a> {
    /// The checkpoint that the record names.
    pub id: String,
    /// The state.
    pub value: Value,
    /// The lineage that the value had, for a root that has none.
    pub lineage: Option<Lineage>,
    /// The new `config/`.
    pub config: Option<Tree<'a>>,
    /// The new `.signals/`.
    pub signals: Option<Tree<'a>>,
}

/// The checkpoint of what is replaced.
#[derive(Clone, Copy)]
pub(super) struct Before<'a> {
    pub id: &'a str,
    pub listing: &'a Listing,
}

/// The result of a restore.
#[derive(Clone, Debug)]
pub struct Restored {
    /// The checkpoint.
    pub id: String,
    /// The checkpoint of what it replaced.
    pub pre_restore: String,
    /// The revision that holds the restored state.
    pub revision: u64,
    /// Entries of `config/` that no checkpoint holds: they were moved to a name beside it.
    pub left: Vec<String>,
}

impl Restores<'_> {
    /// Restores a checkpoint.
    pub fn restore(&self, which: &Which, options: &WriteOptions) -> Result<Restored> {
        let deadline = StateLocks::of(self.store).deadline();
        // Everything that can be refused is refused before anything is created or awaited. Copies
        // are compared once more.
        let checkpoint = self.store.restores().sound_checkpoint(which)?;
        let seen = Observation::examine(self.store)?;
        if let Health::TooNew(_) = seen.health {
            return Err(seen.refusal());
        }
        let lock = Transactions::of(self.store).lock_all(LockPurpose::Restore, deadline)?;
        let checkpoint = self.store.checkpoints().find(&Which::Id(checkpoint.id))?;
        let proposed = self.store.restores().whole(&checkpoint)?;
        let tx = lock.begin()?;
        carry_out_restore(&tx, &proposed, options, deadline)
    }

    pub(super) fn no_config_root(&self) -> Error {
        let root = self.store.settings.root.display();
        Error::new(Kind::DependencyMissing, format!("the root {root} of config/ does not exist"))
            .hint_command("--help", "--root names another")
    }

    /// The whole contents of a checkpoint.
    pub(super) fn whole<'a>(&self, checkpoint: &'a Checkpoint) -> Result<Proposed<'a>> {
        let (value, lineage) = self.state_of(checkpoint)?;
        let tree = |name: &'static str| {
            Some(Tree { dir: &checkpoint.dir, name, listing: checkpoint.listing.below(name) })
        };
        let (config, signals) = (tree(manifest::CONFIG), tree(manifest::SIGNALS));
        Ok(Proposed { id: checkpoint.id.clone(), value, lineage, config, signals })
    }

    /// Stages the sealed state.
    pub(super) fn stage_state(
        &self,
        staging: &StagingDir<'_>,
        intent: Intent,
        sealed: &Sealed,
    ) -> Result<Intent> {
        self.store
            .disk
            .stage(
                &staging.dir,
                &staged_state(intent.number),
                &sealed.text.whole(),
                Durability::Fsync,
            )?
            .keep();
        self.store.disk.sync_dir(&staging.dir)?;
        let Seal { revision, lineage, digest } = sealed.document.seal.clone();
        Ok(Intent { state: Some(StagedState { revision, lineage, digest }), ..intent })
    }

    /// The state in a checkpoint, in the current form, and its own lineage.
    fn state_of(&self, checkpoint: &Checkpoint) -> Result<(Value, Option<Lineage>)> {
        let id = &checkpoint.id;
        let entry =
            checkpoint.listing.get(manifest::STATE).ok_or_else(|| state::without_state(id))?;
        let found = self
            .store
            .disk
            .read(&checkpoint.dir, manifest::STATE, READ_LIMIT)?
            .map(|found| found.bytes);
        let is_listed = |bytes: &Vec<u8>| match &entry.what {
            What::File { sha256, .. } => *sha256 == Digest::of(bytes),
            _ => false,
        };
        let bytes = found
            .filter(is_listed)
            .ok_or_else(|| state::unfit(id, "its state.json is not what it was"))?;
        state::usable(id, &bytes)
    }

    /// The chosen checkpoint, if it can be restored; the error names the newest other one that can
    /// be.
    fn sound_checkpoint(&self, which: &Which) -> Result<Checkpoint> {
        let found = self.store.checkpoints().find(which).and_then(|checkpoint| {
            self.check_restorable(&checkpoint)?;
            Ok(checkpoint)
        });
        found.map_err(|mut error| {
            let bad = error.cause::<Unrestorable>();
            if let Some(other) =
                bad.and_then(|bad| self.store.checkpoints().restoring_other_than(Some(&bad.id)))
            {
                error.hints.insert(
                    0,
                    Hint::Command(
                        other,
                        "bring back the newest checkpoint that is sound".to_owned(),
                    ),
                );
            }
            error
        })
    }

    /// Refuses a checkpoint that cannot be restored.
    pub(super) fn check_restorable(&self, checkpoint: &Checkpoint) -> Result<()> {
        checkpoint.verify(&self.store.disk)?;
        self.state_of(checkpoint).map(|_| ())
    }

    /// Stages trees beside or inside the current ones, which the checkpoint `before` holds. The
    /// staged files of an interrupted restore stay until its intent is replaced: a reader in
    /// between must find exactly the files that the intent names.
    pub(super) fn stage_trees(
        &self,
        staging: &StagingDir<'_>,
        lock: &StateLock,
        plan: RestorePlan,
        config: Option<&Tree<'_>>,
        signals: Option<&Tree<'_>>,
        before: Before<'_>,
    ) -> Result<Intent> {
        // Staged files are removed by the command that finds the staging directory, so the staging
        // directory must be durable first.
        self.store.disk.sync_dir(&staging.checkpoints)?;
        let places = self.store.intents().places(lock)?;
        let number = Staging::of(self.store).free_number(&lock.root)?;
        let stage = |tree: Option<&Tree<'_>>, name: &str| -> Result<Option<Swap>> {
            let Some(tree) = tree else { return Ok(None) };
            let parent = places.of(name);
            let (old, manner) = (before.listing.below(tree.name), plan.of(name));
            let old = old.map(|listing| listing.fingerprint());
            let Some(listing) = &tree.listing else {
                return Ok(Some(Swap { new: None, old, manner }));
            };
            let target = match manner {
                Manner::Move => None,
                Manner::CopyInto => {
                    copy_into::keep_listing(&self.store.disk, &staging.dir, name, number, listing)?;
                    Some(self.store.disk.open_dir(parent, name)?)
                }
            };
            let beside = target.as_ref().unwrap_or(parent);
            let modified = self.store.disk.stat(beside, ".")?.map(|stat| stat.mtime);
            let new = self.stage_tree(
                tree.dir.entry(tree.name),
                beside.entry(&staged(name, number)),
                listing,
            )?;
            if let Some(modified) = modified.filter(|_| target.is_some()) {
                self.store.disk.set_mtime_of(beside.at(), beside.path(), modified)?;
            }
            self.store.disk.sync_dir(beside)?;
            Ok(Some(Swap { new: Some(new), old, manner }))
        };
        let config = stage(config, CONFIG)?;
        let signals = stage(signals, SIGNALS)?;
        // Their names must be durable before the record that refers to them.
        self.store.disk.sync_dir(places.of(CONFIG))?;
        self.store.disk.sync_dir(&lock.root)?;
        self.store.disk.sync_dir(&staging.dir)?;
        self.store.disk.sync_dir(&staging.checkpoints)?;
        Ok(Intent {
            action: Action::Restore,
            number,
            checkpoint: before.id.to_owned(),
            pre_restore: before.id.to_owned(),
            origin: Some(origin::origin(self.store, &lock.root, places.of(CONFIG))?),
            config,
            signals,
            state: None,
            operation: None,
        })
    }

    fn stage_tree(&self, from: At<'_>, to: At<'_>, listing: &Listing) -> Result<Digest> {
        let copied = tree::copy(&self.store.disk, from, to, Attributes::Listed(listing))?
            .unwrap_or_default();
        let listing = listing.without_lost_clutter(&copied);
        match listing.first_difference(&copied) {
            None => Ok(copied.fingerprint()),
            Some(difference) => {
                let shown = from.path();
                Err(Error::new(
                    Kind::Corrupt,
                    format!("{} changed while it was copied: {difference}", shown.display()),
                )
                .hint_command("recover verify", "see which checkpoints are sound"))
            }
        }
    }

    /// Puts the intent in place: the commit. A failure before it leaves nothing; after it all
    /// staged files stay, whatever else happens.
    pub(super) fn decide(
        &self,
        staging: &mut StagingDir<'_>,
        lock: &StateLock,
        intent: &Intent,
        fences: &[Fence],
        deadline: Instant,
    ) -> Result<()> {
        const DRAFT: &str = "intent.draft";
        let bytes = intent.write()?;
        self.store.disk.stage(&staging.dir, DRAFT, &bytes, Durability::Fsync)?.keep();
        if !lock.flock.is_current(&self.store.disk, &lock.root)? {
            return Err(lock_lost());
        }
        let gate = self.store.locks.pass_fences(fences, deadline)?;
        let renamed = self.store.disk.rename(staging.dir.entry(DRAFT), staging.dir.entry(INTENT));
        drop(gate);
        let unknown = |is: &str, error: &FsError| {
            let message = format!(
                "the restore of {} {is} decided, but the disk did not confirm it: {error}; \
                 if it is, the next command finishes it",
                intent.checkpoint
            );
            Error::new(Kind::DurabilityUnknown, message)
                .hint_command("recover status", "see what is there")
        };
        if let Err(error) = renamed {
            let holds = || -> FsResult<bool> {
                let found = self.store.disk.read(&staging.dir, INTENT, intent::LIMIT)?;
                Ok(found.is_some_and(|found| found.bytes == bytes))
            };
            match holds() {
                Ok(true) => {} // the rename happened despite its error
                Ok(false) => return Err(error.into()),
                Err(_) => {
                    staging.keep();
                    return Err(unknown("may be", &error));
                }
            }
        }
        staging.keep();
        self.store.disk.sync_dir(&staging.dir).map_err(|error| unknown("is", &error))
    }
}

/// Restores, from the decision to the end.
#[derive(Clone, Copy, Debug)]
pub struct Restores<'s> {
    pub(in crate::store) store: &'s FileStore,
}

/// Carries out what is proposed, or nothing. The caller holds the state lock and the locks of
/// both trees, and observed the files under them.
pub(in crate::store::files) fn carry_out_restore(
    tx: &Transaction<'_>,
    proposed: &Proposed<'_>,
    options: &WriteOptions,
    deadline: Instant,
) -> Result<Restored> {
    if let Health::TooNew(_) = tx.seen.health {
        return Err(tx.seen.refusal());
    }
    check_conditions(tx.store, options, tx.seen.revision())?;
    let sealed = seal_proposed(tx, proposed)?;
    // A target that cannot be replaced refuses the restore before anything is created.
    let plan = Probe::of(tx.store).under(&tx.lock)?;
    tx.keep_mirror();

    let id = proposed.id.clone();
    let metadata = json!({"restored": id});
    let snapshot = Snapshot {
        operation: Name::parse("operation", pinned::PRE_RESTORE)?,
        phase: None,
        metadata,
    };
    let unkept = if options.guard.is_some() { Unkept::Left } else { Unkept::Refused };
    let made = take_snapshot(tx, &snapshot, Retention::Automatic, unkept)?;
    let Made { id: pre_restore, left, .. } = made;

    let mut staging = Staging::of(tx.store).open(&tx.lock)?;
    let before = tx.store.checkpoints().open(&staging.checkpoints, &pre_restore)?;
    let intent = tx.store.restores().stage_trees(
        &staging,
        &tx.lock,
        plan,
        proposed.config.as_ref(),
        proposed.signals.as_ref(),
        Before { id: &before.id, listing: &before.listing },
    );
    let intent = intent.and_then(|intent| {
        tx.store.restores().stage_state(
            &staging,
            Intent { checkpoint: id.clone(), ..intent },
            &sealed,
        )
    });
    let intent = intent.map_err(|error| tx.store.checkpoints().without_staged_path(error))?;
    tx.store.restores().decide(&mut staging, &tx.lock, &intent, &options.fences, deadline)?;
    let revision =
        tx.store.intents().roll_forward(&tx.lock, staging, &intent, options).map_err(|error| {
            let message = format!(
                "{}; the restore of {id} is decided, and the next command finishes it",
                error.message
            );
            Error { message, ..error }.or_abort()
        })?;
    tx.store.checkpoints().retire(&tx.lock, &id);
    Ok(Restored { id, pre_restore, revision, left })
}

/// The proposed state as the next revision of this root. It is also above that of an
/// interrupted restore, which a reader may have been served.
fn seal_proposed(tx: &Transaction<'_>, proposed: &Proposed<'_>) -> Result<Sealed> {
    let interrupted = match tx.store.intents().read(&tx.lock.root) {
        Ok(Some((_, intent))) => intent.state.map(|state| state.revision),
        // A damaged record has no revision, and is reported when the intent is replaced.
        _ => None,
    };
    sealed_from(&tx.seen, &proposed.value, proposed.lineage.as_ref(), interrupted)
}

pub(in crate::store::files) fn sealed_from(
    seen: &Observation<'_>,
    value: &Value,
    own_lineage: Option<&Lineage>,
    interrupted: Option<Revision>,
) -> Result<Sealed> {
    let lineage = match seen.known_lineage()?.or_else(|| own_lineage.cloned()) {
        Some(lineage) => lineage,
        None => new_lineage()?,
    };
    let created = value.pointer("/metadata/created").cloned();
    // Where no copy is left, the number must still be above those that this lineage used.
    let given_out = || {
        let logged = seen.last_commit(&lineage).map(|commit| commit.revision);
        logged.max(value.pointer("/metadata/revision").and_then(Revision::from_value))
    };
    let highest = seen.highest_revision()?.or_else(given_out).max(interrupted);
    match highest.and_then(|highest| Revision::after(Some(highest))) {
        Some(revision) => {
            Sealer::of(seen.store).seal_as(value.clone(), revision, &lineage, created.as_ref())
        }
        None => seen.seal(value.clone(), &lineage, created.as_ref()),
    }
}

impl Error {
    /// Suggests aborting a restore that is decided and cannot continue.
    pub(super) fn or_abort(self) -> Self {
        self.hint_command("recover restore --abort", "or put back what it replaced, and give it up")
    }
}
