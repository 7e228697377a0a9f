//! Restoring a checkpoint: state and signals by one transaction, this host's `config/` by an
//! intent.
//!
//! 1. What there is becomes a checkpoint (`pre-restore`).
//! 2. A claim is put: the key of the operation. As long as it is there, the restore is not
//!    committed. `config/` is staged, and the intent, which names the operation, is put in place.
//! 3. The transaction puts state and signals and deletes the claim: that is the commit.
//! 4. `config/` is exchanged, and the intent removed.
//!
//! A command that finds an intent marks its claim. If there is none, the restore was committed and
//! is finished; if there is one, no transaction finds it unmarked again, so it never will be.

use std::time::Instant;

use serde_json::{Value, json};

use super::RemoteStore;
use super::checkpoint::{Checkpoint, Moment, free_moment, state_of};
use super::claim::{Claim, Decision, decide, forget};
use super::commit::{Landed, Plan, publish};
use super::conditions::check_conditions;
use super::ground::Ground;
use super::guard::on_record::guards_put_back_by;
use super::intents::host_of;
use super::preserve::backup_or_evidence;
use super::queue::{Attempt, Place, take_turn};
use super::signals::files_of;
use super::trees;
use crate::audit::Level;
use crate::document::contents::without_seal;
use crate::document::diff::diff;
use crate::error::{Error, Kind, Result};
use crate::etcd::failure::Failure;
use crate::etcd::txn::Part;
use crate::name::Name;
use crate::store::checkpoint::catalog::{Snapshot, Which};
use crate::store::checkpoint::manifest::{CONFIG, SIGNALS};
use crate::store::checkpoint::retention::Retention;
use crate::store::diagnosis::Health;
use crate::store::host::HostLock;
use crate::store::layout::{self, pinned};
use crate::store::logged::recovery;
use crate::store::next_revision::random;
use crate::store::options::WriteOptions;
use crate::store::restore::intent::OperationId;
use crate::store::restore::plan::differences;
use crate::store::restore::{Aborted, Planned, Restored};
use crate::store::signal::{SignalFile, Signals};
use crate::tree::Listing;

/// The most signals that one restore changes: a transaction has 128 operations.
const SIGNALS_LIMIT: usize = 64;

/// Restores of checkpoints.
#[derive(Clone, Copy, Debug)]
pub struct Restores<'s> {
    pub(in crate::store) store: &'s RemoteStore,
}

impl Restores<'_> {
    /// Restores a checkpoint.
    pub fn restore(&self, which: &Which, options: &WriteOptions) -> Result<Restored> {
        let store = self.store;
        let checkpoint = store.checkpoints().restorable(which)?;
        let mut work = Work::begin(store, &checkpoint)?;
        let restored = work.carry(options, |work, ground, place| {
            let (value, signals) = (state_of(&checkpoint)?.0, TargetSignals::OfCheckpoint);
            let success = guards_put_back_by(ground, &checkpoint.id)?;
            let guards = Part { success, ..Part::default() };
            work.attempt(ground, Target { value, signals, guards }, options, place)
        });
        let Concluded { result: revision, before } = work.conclude(restored)?;
        let pre_restore = before.unwrap_or_default();
        let entry = recovery(Level::Info, "restore", "restored");
        let entry = entry.with("id", &checkpoint.id).with("before", &pre_restore);
        store.log(entry.with("revision", revision).with("pid", std::process::id()));
        store.checkpoints().retire(&checkpoint.id);
        let id = checkpoint.id.clone();
        Ok(Restored { id, pre_restore, revision, left: Vec::new() })
    }

    /// Verifies a checkpoint and returns the changes that restoring it would make. Changes nothing.
    pub fn plan(&self, which: &Which) -> Result<Planned> {
        let checkpoints = self.store.checkpoints();
        let checkpoint = checkpoints.restorable(which)?;
        let moment = Moment::of(self.store)?;
        let current = moment.ground.known().unwrap_or_default();
        let (value, _) = state_of(&checkpoint)?;
        let mut changes = diff(&without_seal(&current), &without_seal(&value));
        let now = checkpoints.archive(&moment)?;
        for (tree, shown) in [(CONFIG, layout::CONFIG), (SIGNALS, layout::SIGNALS)] {
            let listed = |listing: &Listing| listing.below(tree).unwrap_or_default();
            let (old, new) = (listed(now.listing()), listed(checkpoint.listing()));
            changes.extend(differences(shown, &old, &new));
        }
        Ok(Planned { id: checkpoint.id, changes })
    }

    /// Aborts a restore that is not finished on this host: one that is not committed is given up,
    /// and of one that is, `config/` is put in place.
    pub fn abort(&self) -> Result<Aborted> {
        let host = host_of(self.store)?;
        let pending = match host.pending() {
            Ok(None) => return Ok(Aborted::Nothing),
            Ok(Some(pending)) => pending,
            Err(error) if matches!(error.kind, Kind::Corrupt | Kind::ForeignIntent) => {
                host.drop_record()?;
                return Ok(Aborted::Dropped { checkpoint: None });
            }
            Err(error) => return Err(error),
        };
        let lock = host.lock()?;
        match decide(self.store, &pending.operation)? {
            Decision::GivenUp => {
                lock.give_up()?;
                forget(self.store, &pending.operation);
                Ok(Aborted::Dropped { checkpoint: Some(pending.checkpoint) })
            }
            Decision::Committed => match lock.finish() {
                Ok(()) => Ok(Aborted::Nothing),
                Err(error) => {
                    host.drop_record()?;
                    self.store.warn(format!("config/ stays as it is: {}", error.message));
                    Ok(Aborted::Dropped { checkpoint: Some(pending.checkpoint) })
                }
            },
        }
    }
}

/// A restore at work.
pub(super) struct Work<'s> {
    store: &'s RemoteStore,
    checkpoint: &'s Checkpoint,
    lock: HostLock<'s>,
    claim: Option<Claim>,
    before: Option<Before>,
    /// Whether the last attempt met a holder of `config` or `signals`.
    is_blocked: bool,
}

/// The checkpoint of what there is.
struct Before {
    id: String,
    /// The revision that put the state in it.
    state_put_at: i64,
}

/// A restore that is done.
pub(super) struct Concluded<T> {
    pub result: T,
    /// The checkpoint of what there was.
    pub before: Option<String>,
}

/// What a restore puts in place, besides the `config/` of its checkpoint.
pub(super) struct Target {
    /// The document.
    pub value: Value,
    pub signals: TargetSignals,
    /// What else becomes of guards on record.
    pub guards: Part,
}

/// The files of signals that a restore puts in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TargetSignals {
    /// Those of its checkpoint.
    OfCheckpoint,
    /// They follow the document.
    Follow,
}

impl<'s> Work<'s> {
    /// Begins to restore from a checkpoint, with nothing left to settle on this host.
    pub(super) fn begin(store: &'s RemoteStore, checkpoint: &'s Checkpoint) -> Result<Self> {
        let lock = store.intents().settle(host_of(store)?.lock()?)?;
        Ok(Self { store, checkpoint, lock, claim: None, before: None, is_blocked: false })
    }

    /// Runs attempts in turn until one has a result.
    pub(super) fn carry<T>(
        &mut self,
        options: &WriteOptions,
        mut attempt: impl FnMut(&mut Self, &Ground<'s>, Option<&Place>) -> Result<Attempt<'s, T>>,
    ) -> Result<T> {
        let deadline = Instant::now() + self.store.settings.lock_timeout;
        loop {
            // Not while it keeps writers from their turn: the holder may be one of them.
            free_moment(self.store)?;
            let done =
                take_turn(self.store, options, |ground, place| attempt(self, &ground, place));
            match done {
                Err(_) if std::mem::take(&mut self.is_blocked) && Instant::now() < deadline => {}
                done => return done,
            }
        }
    }

    /// Puts `config/` in place after a commit, or gives up.
    pub(super) fn conclude<T>(self, result: Result<T>) -> Result<Concluded<T>> {
        match result {
            Ok(result) => {
                self.lock.finish()?;
                Ok(Concluded { result, before: self.before.map(|before| before.id) })
            }
            // The next command finds out.
            Err(error) if error.kind == Kind::DurabilityUnknown => Err(error),
            Err(error) => {
                // If that fails, the next command tries again.
                let _ = self.store.intents().settle(self.lock);
                Err(error)
            }
        }
    }

    /// One attempt of a restore.
    pub(super) fn attempt(
        &mut self,
        ground: &Ground<'s>,
        target: Target,
        options: &WriteOptions,
        place: Option<&Place>,
    ) -> Result<Attempt<'s, u64>> {
        if let Health::TooNew(_) = ground.health {
            return Err(ground.refusal());
        }
        check_conditions(ground, options)?;
        if let Some(claim) = &self.claim {
            claim.check(self.store)?;
        }
        let created = target.value.pointer("/metadata/created").cloned();
        let sealed = ground.seal(target.value, created.as_ref())?;
        let moment = Moment::of(self.store)?;
        if let Some(obstacle) = trees::obstacle(self.store, &moment.trees)? {
            self.is_blocked = true;
            return Err(trees::timed_out(&obstacle));
        }
        if moment.ground.state_put_at() != ground.state_put_at() {
            return Ok(Attempt::Overtaken(None));
        }
        let signals = match target.signals {
            TargetSignals::OfCheckpoint => changed_signals(self.checkpoint, &moment)?,
            TargetSignals::Follow => {
                files_of(self.store, &Signals::Follow, sealed.document.value.skeleton())?
            }
        };
        let is_current = |it: &Before| it.state_put_at == ground.state_put_at();
        if !self.before.as_ref().is_some_and(is_current) && !self.prepare(&moment)? {
            return Ok(Attempt::Overtaken(None));
        }
        if let Some(claim) = &mut self.claim {
            claim.free_at = moment.ground.at;
        }
        let plan = Plan {
            kept: backup_or_evidence(ground, pinned::PRE_RESTORE),
            claim: self.claim.as_ref(),
            guards: target.guards,
            ..Plan::of(&sealed, signals, options, place)
        };
        Ok(match publish(ground, plan)? {
            Landed::Done => Attempt::Ended(sealed.document.seal.revision.get()),
            Landed::Overtaken(ground) => Attempt::Overtaken(Some(ground)),
        })
    }

    /// Makes the checkpoint of what there is, and stages `config/` where that is not done yet.
    /// False if a lock was granted meanwhile.
    fn prepare(&mut self, moment: &Moment<'_>) -> Result<bool> {
        let snapshot = Snapshot {
            operation: Name::parse("operation", pinned::PRE_RESTORE)?,
            phase: None,
            metadata: json!({"restored": self.checkpoint.id}),
        };
        let checkpoints = self.store.checkpoints();
        let now = checkpoints.archive(moment)?;
        let made = checkpoints.take(moment, &now, &snapshot, Retention::Automatic);
        // Whether it is there or not: nothing was restored.
        let made = made.map_err(|error| match error.cause::<Failure>() {
            Some(failure) => failure.clone().of_read().into(),
            None => error,
        })?;
        let Some(made) = made else { return Ok(false) };
        if self.claim.is_none() {
            let operation = OperationId::new(random()?);
            self.claim = Some(Claim::put(self.store, &operation)?);
            let checkpoint = (self.checkpoint.id.as_str(), &self.checkpoint.archive);
            let staged = self.lock.stage(&operation, checkpoint, (&made.id, now.listing()));
            staged.inspect_err(|_| {
                if self.lock.pending().is_none() {
                    forget(self.store, &operation);
                }
            })?;
        }
        let state_put_at = moment.ground.state_put_at();
        self.before = Some(Before { id: made.id, state_put_at });
        Ok(true)
    }
}

/// The files of signals that differ from those in the checkpoint.
fn changed_signals(checkpoint: &Checkpoint, moment: &Moment<'_>) -> Result<Vec<SignalFile>> {
    let prefix = format!("{SIGNALS}/");
    let name_of = |path: &str| {
        let name = path.strip_prefix(&prefix)?.strip_suffix(".json")?;
        Name::parse("signal", name).ok()
    };
    let wanted = checkpoint.listing().entries().iter().filter_map(|entry| {
        let content = checkpoint.archive.content(&entry.path)?;
        Some((name_of(&entry.path)?, content))
    });
    let wanted: Vec<_> = wanted.collect();
    let current = |name: &Name| moment.signals.iter().find(|(it, _)| it == name.as_str());
    let put = wanted
        .iter()
        .filter(|(name, content)| current(name).is_none_or(|(_, now)| now != *content))
        .map(|(name, content)| SignalFile { name: name.clone(), content: Some(content.to_vec()) });
    let is_wanted = |name: &Name| wanted.iter().any(|(it, _)| it == name);
    let gone = moment.signals.iter().filter_map(|(name, _)| Name::parse("signal", name).ok());
    let gone = gone.filter(|name| !is_wanted(name));
    let files: Vec<_> = put.chain(gone.map(|name| SignalFile { name, content: None })).collect();
    if files.len() <= SIGNALS_LIMIT {
        return Ok(files);
    }
    let message = format!(
        "the restore would change {} signals, and {SIGNALS_LIMIT} is the limit in a store on \
         other machines",
        files.len()
    );
    Err(Error::new(Kind::TooLarge, message).hint_command(
        format!("recover restore {} --dry-run", checkpoint.id),
        "see which; nothing was changed",
    ))
}
