//! Puts back the changes of a guard's command.

use crate::store::files::record::Provenance;
use std::cell::Cell;
use std::time::Instant;

use serde_json::Value;

use super::Guards;
use super::settle::Aftermath;
use super::since::Since;
use crate::document::seal::{Revision, Seal};
use crate::error::Result;
use crate::journal::GuardStep;
use crate::store::checkpoint::catalog::Which;
use crate::store::checkpoint::manifest;
use crate::store::diagnosis::Health;
use crate::store::files::checkpoint::catalog::Checkpoint;
use crate::store::files::commit::Plan;
use crate::store::files::restore::{Proposed, Restored};
use crate::store::files::root::Root;
use crate::store::files::staging::Staging;
use crate::store::files::state_lock::StateLocks;
use crate::store::files::transaction::{Transaction, Transactions};
use crate::store::guard::Settlement;
use crate::store::guard::record::{Base, Record, Status};
use crate::store::guard::verdict::{Commits, Verdict};
use crate::store::layout::{CONFIG, pinned};
use crate::store::options::{LockPurpose, WriteOptions};
use crate::store::signal::Signals;
use crate::tree;

impl Guards<'_> {
    /// Puts back the changes of a guard's command, or returns the reason why it does not; `begun`
    /// is the record of the guard as it began. The verdict is reached and carried out under one
    /// lock. On failure the guard is recorded as unrestored.
    pub fn settle_failed(&self, begun: &Record, options: &WriteOptions) -> Result<Settlement> {
        let is_on_record = Cell::new(false);
        match self.put_back(begun, options, &is_on_record) {
            Ok(Settlement::Unrestored(why)) => {
                self.mark_unrestored(begun, &why, true)?;
                Ok(Settlement::Unrestored(why))
            }
            Ok(settled) => Ok(settled),
            Err(error) => {
                match self.mark_unrestored(begun, &error.message, is_on_record.get()) {
                    Ok(Marked::Unrestored) => {}
                    Ok(Marked::Settled) => return Ok(Settlement::Finished),
                    Err(second) => self.store.warn(format!(
                        "that the guard {} put nothing back is not on record: {second}",
                        begun.id
                    )),
                }
                Err(error)
            }
        }
    }

    /// Records why not everything was put back, even where the state lock is not available: the
    /// record is the guard's own, and the guard must not look like one that was killed. What was
    /// decided before a failure may be done by now: taking the lock finishes it. Then a guard that
    /// was on record has no record any more.
    fn mark_unrestored(&self, begun: &Record, why: &str, was_on_record: bool) -> Result<Marked> {
        let id = &begun.id;
        let unrestored = |record, why| Record { status: Status::Unrestored(why), ..record };
        if let Ok(lock) =
            StateLocks::of(self.store).lock_state(LockPurpose::Restore, Instant::now())
        {
            let backup_dir = Root::of(self.store).backup_dir_of(&lock.root)?;
            let record = match self.read_record(&backup_dir, id) {
                Some(record) => record,
                None if was_on_record => return Ok(Marked::Settled),
                None => begun.clone(),
            };
            let live = Root::of(self.store).live()?;
            let why = match self.put_back_by(&lock.root, &backup_dir, live.as_ref(), &record)? {
                Aftermath::PutBack => {
                    lock.settle_record(&backup_dir, id)?;
                    return Ok(Marked::Settled);
                }
                Aftermath::Unrestored(why) => why,
                Aftermath::Nothing | Aftermath::Decided => why.to_owned(),
            };
            lock.put_record(&backup_dir, &unrestored(record, why))?;
            lock.journal_guard(&backup_dir, id, GuardStep::Unrestored);
            return Ok(Marked::Unrestored);
        }
        let backup_dir = Root::of(self.store).backup_dir_of(&Root::of(self.store).open()?)?;
        let record = self.read_record(&backup_dir, id).unwrap_or_else(|| begun.clone());
        self.put_record_unlocked(&backup_dir, &unrestored(record, why.to_owned()))?;
        Ok(Marked::Unrestored)
    }

    fn put_back(
        &self,
        begun: &Record,
        options: &WriteOptions,
        is_on_record: &Cell<bool>,
    ) -> Result<Settlement> {
        let options = WriteOptions { guard: Some(begun.id.clone()), ..options.clone() };
        Transactions::of(self.store).retry(|deadline| {
            let tx =
                StateLocks::of(self.store).lock_all(LockPurpose::Restore, deadline)?.begin()?;
            let record = tx.record_of(begun)?;
            is_on_record.set(true);
            tx.put_back(&record, &options, deadline)
        })
    }

    /// Returns whether `config/` differs from the checkpoint's. An entry that no checkpoint can
    /// hold is a difference.
    pub(super) fn is_config_changed(&self, checkpoint: &Checkpoint) -> Result<bool> {
        let Some(root) = Staging::of(self.store).config_root()? else { return Ok(false) };
        let before =
            checkpoint.listing.below(manifest::CONFIG).map(|listing| listing.fingerprint());
        match tree::list(&self.store.disk, &root, CONFIG) {
            Ok(listing) => Ok(listing.map(|listing| listing.fingerprint()) != before),
            Err(error) if tree::cannot_be_kept(&error) => Ok(true),
            Err(error) => Err(error),
        }
    }
}

/// The end of an attempt to record a guard as unrestored.
enum Marked {
    /// It is on record as unrestored.
    Unrestored,
    /// Everything was put back after all, and it is not on record any more.
    Settled,
}

impl Transaction<'_> {
    /// The guard's record. The guarded command may have removed or damaged the file; then it is
    /// written again.
    fn record_of(&self, begun: &Record) -> Result<Record> {
        if let Some(record) = self.store.guards().read_record(&self.seen.backup_dir, &begun.id) {
            return Ok(record);
        }
        self.lock.put_record(&self.seen.backup_dir, begun)?;
        Ok(begun.clone())
    }

    /// Commits the document without the guard's changes. The record states beforehand what is
    /// committed and what remains to be done then, so that a guard killed after its commit does not
    /// look like one that put nothing back.
    fn commit_part(
        &self,
        document: Value,
        unrestored: Option<&String>,
        options: &WriteOptions,
    ) -> Result<Option<Revision>> {
        let Health::Healthy(live) = &self.seen.health else { return Ok(None) };
        let created = live.value.pointer("/metadata/created").cloned();
        let sealed = self.seen.seal(document, &live.seal.lineage, created.as_ref())?;
        let Seal { revision, lineage, digest } = sealed.document.seal.clone();
        self.keep_mirror();
        if let Some(record) = options
            .guard
            .as_ref()
            .and_then(|id| self.store.guards().read_record(&self.seen.backup_dir, id))
        {
            let commit = Base { revision, lineage, digest };
            let status = Status::PuttingBack { commit, unrestored: unrestored.cloned() };
            self.lock.put_record(&self.seen.backup_dir, &Record { status, ..record })?;
        }
        let replaced = self.seen.replaced_for(pinned::PRE_RESTORE);
        let plan = Plan { replaced, signals: &Signals::Follow, ..Plan::of(&sealed, options) };
        Ok(self.commit(&plan, options, Provenance::default())?.map(|_| revision))
    }
}

impl Transaction<'_> {
    /// One attempt; `None` if another process changed the file.
    fn put_back(
        &self,
        record: &Record,
        options: &WriteOptions,
        deadline: Instant,
    ) -> Result<Option<Settlement>> {
        let (store, seen, id) = (self.store, &self.seen, &record.id);
        let checkpoint = store.checkpoints().find(&Which::Id(id.clone()))?;
        checkpoint.verify(&store.disk)?;
        let whole = store.restores().whole(&checkpoint)?;
        let since = Since::new(seen, &checkpoint);
        let done = match Verdict::of(record, &whole.value, &since)? {
            Verdict::Refused(why) => Some(Settlement::Unrestored(why)),
            Verdict::OnlyTheGuard => {
                let left = self.restore(&whole, options, deadline)?.left;
                Some(Settlement::Restored { left })
            }
            Verdict::Others { document, config, unclear } => {
                let part = Part { document, config, unclear };
                let is_config_changed = since.is_config_changed()?;
                if is_config_changed && part.config.is_none() {
                    self.restore_part(whole, part, options, deadline)?
                } else {
                    self.commit_rest(part, is_config_changed, options)?
                }
            }
        };
        if matches!(done, Some(Settlement::Restored { .. } | Settlement::PutBack { .. })) {
            // A restore of the whole settled it already.
            self.lock.settle_record(&seen.backup_dir, id)?;
        }
        Ok(done)
    }

    /// Puts back `config/` and the document, and keeps the changes of others in the document.
    fn restore_part(
        &self,
        whole: Proposed<'_>,
        part: Part,
        options: &WriteOptions,
        deadline: Instant,
    ) -> Result<Option<Settlement>> {
        let live = match (&part.document, &self.seen.health) {
            (None, Health::Healthy(document)) => Some(Value::clone(&document.value)),
            _ => None,
        };
        let Some(value) = part.document.or(live) else {
            return Ok(Some(Settlement::Unrestored("the state cannot be read".to_owned())));
        };
        // The signal files follow the state.
        let proposed = Proposed { value, signals: None, ..whole };
        let Restored { revision, left, .. } = self.restore(&proposed, options, deadline)?;
        Ok(Some(Settlement::PutBack { revision: Some(revision), left }))
    }

    /// Puts back the document and keeps the changes of others; `config/` stays as it is. `None` if
    /// the live file was changed in the meantime.
    fn commit_rest(
        &self,
        part: Part,
        is_config_changed: bool,
        options: &WriteOptions,
    ) -> Result<Option<Settlement>> {
        let unrestored = part
            .config
            .filter(|_| is_config_changed)
            .map(|why| format!("{CONFIG}/ was left as it is, since {why}"))
            .or(part.unclear);
        let revision = match part.document {
            Some(document) => match self.commit_part(document, unrestored.as_ref(), options)? {
                Some(revision) => Some(revision.get()),
                None => return Ok(None),
            },
            None => None,
        };
        let put_back = Settlement::PutBack { revision, left: Vec::new() };
        Ok(Some(unrestored.map_or(put_back, Settlement::Unrestored)))
    }
}

/// The part of a guard's changes that is put back.
struct Part {
    /// The document without them; `None` if the document is unaffected.
    document: Option<Value>,
    /// The reason why `config/` stays as it is, if it does.
    config: Option<String>,
    /// The reason why the command may have changed more, if it may have.
    unclear: Option<String>,
}
