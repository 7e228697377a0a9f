//! Restoring a checkpoint: state and signals by one transaction, this host's `config/` by an intent.
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

use super::checkpoint::{Checkpoint, Moment, state_of};
use super::commit::{Kept, Landed, Plan};
use super::ground::Ground;
use super::queue::{Attempt, Place};
use super::{RemoteStore, trees};
use crate::audit::Level;
use crate::document::contents::without_seal;
use crate::document::diff::diff;
use crate::document::inspect_text;
use crate::error::{Error, Kind, Result};
use crate::etcd::failure::Failure;
use crate::etcd::messages::{Compare, TxnRequest};
use crate::etcd::txn::{Keys, Part, absent, delete, put, put_at};
use crate::name::Name;
use crate::store::checkpoint::catalog::{Snapshot, Which};
use crate::store::checkpoint::manifest::{CONFIG, SIGNALS};
use crate::store::checkpoint::retention::Retention;
use crate::store::diagnosis::{Health, known};
use crate::store::host::{Host, HostLock};
use crate::store::layout::{self, BackupName, pinned};
use crate::store::logged::recovery;
use crate::store::options::WriteOptions;
use crate::store::restore::intent::OperationId;
use crate::store::restore::plan::differences;
use crate::store::restore::{Aborted, Interrupted, Planned, Restored};
use crate::store::signal::{SignalFile, Signals};
use crate::tree::Listing;

/// The most signals that one restore changes: a transaction has 128 operations.
const SIGNALS_LIMIT: usize = 64;

/// The key of a restore that is not committed.
#[derive(Debug)]
pub(super) struct Claim {
    pub key: String,
    /// The revision that put it.
    put_at: i64,
    /// The revision at which `config` and `signals` were free.
    free_at: i64,
}

impl Claim {
    /// Hold until another command gave the restore up, or was granted `config` or `signals`.
    pub(super) fn guards(&self, store: &RemoteStore) -> impl Iterator<Item = Compare> {
        let own = put_at(self.key.clone(), self.put_at);
        std::iter::once(own).chain(store.tree_guards(self.free_at))
    }
}

/// What became of a restore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decision {
    Committed,
    /// It never will be.
    GivenUp,
}

/// A restore at work.
pub(super) struct Work<'s> {
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

impl RemoteStore {
    /// Restores a checkpoint.
    pub fn restore(&self, which: &Which, options: &WriteOptions) -> Result<Restored> {
        let checkpoint = self.checkpoints().restorable(which)?;
        let mut work = self.begin_work(&checkpoint)?;
        let restored = self.carry(&mut work, options, |work, ground, place| {
            let (value, signals) = (state_of(&checkpoint)?.0, TargetSignals::OfCheckpoint);
            let success = ground.guards_put_back_by(&checkpoint.id)?;
            let guards = Part { success, ..Part::default() };
            self.attempt(work, ground, Target { value, signals, guards }, options, place)
        });
        let (revision, before) = self.conclude(work, restored)?;
        let pre_restore = before.unwrap_or_default();
        let entry = recovery(Level::Info, "restore", "restored");
        let entry = entry.with("id", &checkpoint.id).with("before", &pre_restore);
        self.log(entry.with("revision", revision).with("pid", std::process::id()));
        self.checkpoints().retire(&checkpoint.id);
        let id = checkpoint.id.clone();
        Ok(Restored { id, pre_restore, revision, left: Vec::new() })
    }

    /// Begins to restore from a checkpoint, with nothing left to settle on this host.
    pub(super) fn begin_work<'s>(&'s self, checkpoint: &'s Checkpoint) -> Result<Work<'s>> {
        let lock = self.settle(self.host()?.lock()?)?;
        Ok(Work { checkpoint, lock, claim: None, before: None, is_blocked: false })
    }

    /// Runs attempts in turn until one has a result.
    pub(super) fn carry<'s, T>(
        &'s self,
        work: &mut Work<'s>,
        options: &WriteOptions,
        mut attempt: impl FnMut(&mut Work<'s>, &Ground<'s>, Option<&Place>) -> Result<Attempt<'s, T>>,
    ) -> Result<T> {
        let deadline = Instant::now() + self.settings.lock_timeout;
        loop {
            // Not while it keeps writers from their turn: the holder may be one of them.
            self.free_moment()?;
            let done = self.take_turn(options, |ground, place| attempt(work, &ground, place));
            match done {
                Err(_) if std::mem::take(&mut work.is_blocked) && Instant::now() < deadline => {}
                done => return done,
            }
        }
    }

    /// Puts `config/` in place after a commit, or gives up. Returns also the checkpoint of what
    /// there was.
    pub(super) fn conclude<'s, T>(
        &'s self,
        work: Work<'s>,
        result: Result<T>,
    ) -> Result<(T, Option<String>)> {
        match result {
            Ok(done) => {
                work.lock.finish()?;
                Ok((done, work.before.map(|before| before.id)))
            }
            // The next command finds out.
            Err(error) if error.kind == Kind::DurabilityUnknown => Err(error),
            Err(error) => {
                // If that fails, the next command tries again.
                let _ = self.settle(work.lock);
                Err(error)
            }
        }
    }

    /// Verifies a checkpoint and returns the changes that restoring it would make. Changes nothing.
    pub fn plan_restore(&self, which: &Which) -> Result<Planned> {
        let checkpoint = self.checkpoints().restorable(which)?;
        let moment = self.moment()?;
        let ground = &moment.ground;
        let reading = ground.text().map(|text| inspect_text(text.clone()));
        let current = known(&ground.health, reading.as_ref()).cloned().unwrap_or_default();
        let (value, _) = state_of(&checkpoint)?;
        let mut changes = diff(&without_seal(&current), &without_seal(&value));
        let now = self.checkpoints().archive(&moment)?;
        for (tree, shown) in [(CONFIG, layout::CONFIG), (SIGNALS, layout::SIGNALS)] {
            let listed = |listing: &Listing| listing.below(tree).unwrap_or_default();
            let (old, new) = (listed(now.listing()), listed(checkpoint.listing()));
            changes.extend(differences(shown, &old, &new));
        }
        Ok(Planned { id: checkpoint.id, changes })
    }

    /// Aborts a restore that is not finished on this host: one that is not committed is given up,
    /// and of one that is, `config/` is put in place.
    pub fn abort_restore(&self) -> Result<Aborted> {
        let host = self.host()?;
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
        match self.decide(&pending.operation)? {
            Decision::GivenUp => {
                lock.give_up()?;
                self.forget(&pending.operation);
                Ok(Aborted::Dropped { checkpoint: Some(pending.checkpoint) })
            }
            Decision::Committed => match lock.finish() {
                Ok(()) => Ok(Aborted::Nothing),
                Err(error) => {
                    host.drop_record()?;
                    self.warn(format!("config/ stays as it is: {}", error.message));
                    Ok(Aborted::Dropped { checkpoint: Some(pending.checkpoint) })
                }
            },
        }
    }

    /// The restore that is not finished on this host. Changes nothing.
    pub fn interrupted_restore(&self) -> Result<Option<Interrupted>> {
        let Some(host) = &self.host else { return Ok(None) };
        match host.pending() {
            Ok(pending) => Ok(pending.map(|pending| Interrupted::Ours(pending.checkpoint))),
            Err(error) if error.kind == Kind::ForeignIntent => {
                Ok(Some(Interrupted::Foreign(error)))
            }
            Err(error) => Err(error),
        }
    }

    /// Finishes or gives up a restore that is not finished on this host. One lookup where there is
    /// none.
    pub(super) fn settle_host(&self) -> Result<()> {
        match &self.host {
            Some(host) if host.is_pending()? => self.settle(host.lock()?).map(drop),
            _ => Ok(()),
        }
    }

    /// The same for a reader, which is served what there is where that is not possible.
    pub(super) fn settle_host_to_read(&self) {
        let settle = |host: &Host| match host.is_pending()? {
            true => self.settle(host.lock_to_read()?).map(drop),
            false => Ok(()),
        };
        match self.host.as_ref().map_or(Ok(()), settle) {
            // The restore is at work.
            Err(error) if error.kind == Kind::LockTimeout => {}
            Err(error) => self.warn(error.message),
            Ok(()) => {}
        }
    }

    pub(super) fn host(&self) -> Result<&Host> {
        self.host.as_ref().ok_or_else(|| Error::new(Kind::Internal, "a store without a host"))
    }

    /// Settles under the lock, and returns a lock with nothing to settle.
    pub(super) fn settle<'s>(&'s self, lock: HostLock<'s>) -> Result<HostLock<'s>> {
        let Some(pending) = lock.pending() else { return Ok(lock) };
        let id = &pending.checkpoint;
        let done = match self.decide(&pending.operation)? {
            Decision::Committed => {
                lock.finish()?;
                "finished"
            }
            Decision::GivenUp => {
                lock.give_up()?;
                self.forget(&pending.operation);
                "given up: it was not committed"
            }
        };
        self.warn(format!("an interrupted restore of {id} was {done}"));
        self.host()?.lock()
    }

    /// Finds out whether an operation was committed. If not, it never will be.
    fn decide(&self, operation: &OperationId) -> Result<Decision> {
        let key = self.keys.claim(operation);
        let request = TxnRequest {
            compare: vec![absent(key.clone())],
            success: Vec::new(),
            failure: vec![put(key, "given up")],
        };
        // A claim that was marked and not acknowledged changes no document.
        let answer = self.client.commit(&request).map_err(Failure::of_read)?;
        Ok(if answer.succeeded { Decision::Committed } else { Decision::GivenUp })
    }

    /// Removes the claim of a restore that left no intent.
    fn forget(&self, operation: &OperationId) {
        let success = vec![delete(&Keys::one(self.keys.claim(operation)))];
        // What is left of it is a key that nothing reads.
        let _ = self.client.commit(&TxnRequest { success, ..TxnRequest::default() });
    }

    fn claim(&self, operation: &OperationId) -> Result<Claim> {
        let key = self.keys.claim(operation);
        let origin = json!((self.surroundings.origin)(self.now()));
        let own = Keys::one(key.clone()).read();
        let request = TxnRequest {
            compare: vec![absent(key.clone())],
            success: vec![put(key.clone(), origin.to_string()), own.clone().into()],
            failure: vec![own.into()],
        };
        let answer = self.client.commit(&request).map_err(Failure::of_read)?;
        let found = answer.ranges().next().and_then(|range| range.kvs.into_iter().next());
        let found = found.ok_or_else(|| Error::new(Kind::Internal, "a claim that was not put"))?;
        Ok(Claim { key, put_at: found.mod_revision, free_at: 0 })
    }

    /// Refuses to try again what another command gave up.
    fn check_claim(&self, claim: &Claim) -> Result<()> {
        let range = self.client.range(&Keys::one(claim.key.clone()).read())?;
        if range.kvs.first().is_some_and(|kv| kv.mod_revision == claim.put_at) {
            return Ok(());
        }
        Err(Error::new(
            Kind::Conflict,
            "another command gave this restore up; nothing was restored",
        )
        .hint_command("recover status", "see what is there"))
    }

    /// One attempt of a restore.
    pub(super) fn attempt<'s>(
        &'s self,
        work: &mut Work<'_>,
        ground: &Ground<'s>,
        target: Target,
        options: &WriteOptions,
        place: Option<&Place>,
    ) -> Result<Attempt<'s, u64>> {
        if let Health::TooNew(_) = ground.health {
            return Err(ground.refusal());
        }
        ground.check_conditions(options)?;
        if let Some(claim) = &work.claim {
            self.check_claim(claim)?;
        }
        let created = target.value.pointer("/metadata/created").cloned();
        let sealed = ground.seal(target.value, created.as_ref())?;
        let moment = self.moment()?;
        if let Some(obstacle) = self.tree_obstacle(&moment.trees)? {
            work.is_blocked = true;
            return Err(trees::timed_out(&obstacle));
        }
        if moment.ground.state_put_at() != ground.state_put_at() {
            return Ok(Attempt::Overtaken(None));
        }
        let signals = match target.signals {
            TargetSignals::OfCheckpoint => changed_signals(work.checkpoint, &moment)?,
            TargetSignals::Follow => {
                ground.files_of(&Signals::Follow, sealed.document.value.skeleton())?
            }
        };
        let is_current = |it: &Before| it.state_put_at == ground.state_put_at();
        if !work.before.as_ref().is_some_and(is_current) && !self.begin(work, &moment)? {
            return Ok(Attempt::Overtaken(None));
        }
        if let Some(claim) = &mut work.claim {
            claim.free_at = moment.ground.at;
        }
        let plan = Plan {
            kept: ground.replaced_by_restore(),
            claim: work.claim.as_ref(),
            guards: target.guards,
            ..Plan::of(&sealed, signals, options, place)
        };
        Ok(match ground.publish(plan)? {
            Landed::Done => Attempt::Ended(sealed.document.seal.revision.get()),
            Landed::Overtaken(ground) => Attempt::Overtaken(Some(ground)),
        })
    }

    /// Makes the checkpoint of what there is, and stages `config/` where that is not done yet.
    /// False if a lock was granted meanwhile.
    fn begin(&self, work: &mut Work<'_>, moment: &Moment<'_>) -> Result<bool> {
        let snapshot = Snapshot {
            operation: Name::parse("operation", pinned::PRE_RESTORE)?,
            phase: None,
            metadata: json!({"restored": work.checkpoint.id}),
        };
        let now = self.checkpoints().archive(moment)?;
        let made = self.checkpoints().take(moment, &now, &snapshot, Retention::Automatic);
        // Whether it is there or not: nothing was restored.
        let made = made.map_err(|error| match error.cause::<Failure>() {
            Some(failure) => failure.clone().of_read().into(),
            None => error,
        })?;
        let Some(made) = made else { return Ok(false) };
        if work.claim.is_none() {
            let [random @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] =
                crate::store::next_revision::random()?;
            let operation = OperationId::new(random);
            work.claim = Some(self.claim(&operation)?);
            let checkpoint = (work.checkpoint.id.as_str(), &work.checkpoint.archive);
            let staged = work.lock.stage(&operation, checkpoint, (&made.id, now.listing()));
            staged.inspect_err(|_| {
                if work.lock.pending().is_none() {
                    self.forget(&operation);
                }
            })?;
        }
        let state_put_at = moment.ground.state_put_at();
        work.before = Some(Before { id: made.id, state_put_at });
        Ok(true)
    }
}

impl Ground<'_> {
    pub(super) fn replaced_by_restore(&self) -> Kept {
        let Some(text) = self.text() else { return Kept::Nothing };
        let revision = match (self.sealed(), &self.health) {
            (Some(document), _) => Some(document.seal.revision),
            (None, Health::Legacy(_)) => None,
            _ => return self.evidence(),
        };
        let name = BackupName::new(self.store.now(), revision, pinned::PRE_RESTORE);
        Kept::Backup(name, text.clone())
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
        "the restore would change {} signals, and {SIGNALS_LIMIT} is the limit in a store on other \
         machines",
        files.len()
    );
    Err(Error::new(Kind::TooLarge, message).hint_command(
        format!("recover restore {} --dry-run", checkpoint.id),
        "see which; nothing was changed",
    ))
}
