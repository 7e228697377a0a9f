//! Puts back the changes of a guard's command.

use std::cell::Cell;
use std::time::Instant;

use serde_json::Value;

use super::Guards;
use super::records::{journal_guard, put_record, put_record_unlocked};
use super::settle::{Aftermath, put_back_by, settle_record};
use super::since::Since;
use crate::document::seal::{Revision, Seal};
use crate::error::Result;
use crate::journal::GuardStep;
use crate::store::checkpoint::catalog::Which;
use crate::store::checkpoint::manifest;
use crate::store::diagnosis::Health;
use crate::store::files::begin::Transactions;
use crate::store::files::commit::Plan;
use crate::store::files::preserve::replaced_for;
use crate::store::files::record::Provenance;
use crate::store::files::restore::{Proposed, Restored, carry_out_restore};
use crate::store::files::root::Root;
use crate::store::files::staging::Staging;
use crate::store::files::transaction::Transaction;
use crate::store::guard::Settlement;
use crate::store::guard::record::{Base, Record, Status};
use crate::store::guard::verdict::{Commits, Verdict};
use crate::store::layout::{CONFIG, pinned};
use crate::store::options::{LockPurpose, WriteOptions};
use crate::store::signal::Signals;
use crate::tree::{self, Listing};

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
            Transactions::of(self.store).lock_state(LockPurpose::Restore, Instant::now())
        {
            let backup_dir = Root::of(self.store).backup_dir_of(&lock.root)?;
            let record = match self.read_record(&backup_dir, id) {
                Some(record) => record,
                None if was_on_record => return Ok(Marked::Settled),
                None => begun.clone(),
            };
            let live = Root::of(self.store).live()?;
            let why = match put_back_by(self, &lock.root, &backup_dir, live.as_ref(), &record)? {
                Aftermath::PutBack => {
                    settle_record(&lock, &backup_dir, id)?;
                    return Ok(Marked::Settled);
                }
                Aftermath::Unrestored(why) => why,
                Aftermath::Nothing | Aftermath::Decided => why.to_owned(),
            };
            put_record(&lock, &backup_dir, &unrestored(record, why))?;
            journal_guard(&lock, &backup_dir, id, GuardStep::Unrestored);
            return Ok(Marked::Unrestored);
        }
        let backup_dir = Root::of(self.store).backup_dir_of(&Root::of(self.store).open()?)?;
        let record = self.read_record(&backup_dir, id).unwrap_or_else(|| begun.clone());
        put_record_unlocked(&self.store.disk, &backup_dir, &unrestored(record, why.to_owned()))?;
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
                Transactions::of(self.store).lock_all(LockPurpose::Restore, deadline)?.begin()?;
            let record = record_of(&tx, begun)?;
            is_on_record.set(true);
            put_all_back(&tx, &record, &options, deadline)
        })
    }

    /// Returns whether `config/` differs from the checkpoint's. An entry that no checkpoint can
    /// hold is a difference.
    pub(in crate::store::files) fn is_config_changed(&self, checkpoint: &Listing) -> Result<bool> {
        let Some(root) = Staging::of(self.store).config_root()? else { return Ok(false) };
        let before = checkpoint.below(manifest::CONFIG).map(|listing| listing.fingerprint());
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

/// The guard's record. The guarded command may have removed or damaged the file; then it is
/// written again.
fn record_of(tx: &Transaction<'_>, begun: &Record) -> Result<Record> {
    if let Some(record) = tx.store.guards().read_record(&tx.seen.backup_dir, &begun.id) {
        return Ok(record);
    }
    put_record(&tx.lock, &tx.seen.backup_dir, begun)?;
    Ok(begun.clone())
}

/// Commits the document without the guard's changes. The record states beforehand what is
/// committed and what remains to be done then, so that a guard killed after its commit does not
/// look like one that put nothing back.
fn commit_part(
    tx: &Transaction<'_>,
    document: Value,
    unrestored: Option<&String>,
    options: &WriteOptions,
) -> Result<Option<Revision>> {
    let Health::Healthy(live) = &tx.seen.health else { return Ok(None) };
    let created = live.value.pointer("/metadata/created").cloned();
    let sealed = tx.seen.seal(document, &live.seal.lineage, created.as_ref())?;
    let Seal { revision, lineage, digest } = sealed.document.seal.clone();
    tx.keep_mirror();
    if let Some(record) =
        options.guard.as_ref().and_then(|id| tx.store.guards().read_record(&tx.seen.backup_dir, id))
    {
        let commit = Base { revision, lineage, digest };
        let status = Status::PuttingBack { commit, unrestored: unrestored.cloned() };
        put_record(&tx.lock, &tx.seen.backup_dir, &Record { status, ..record })?;
    }
    let replaced = replaced_for(&tx.seen, pinned::PRE_RESTORE);
    let plan = Plan { replaced, signals: &Signals::Follow, ..Plan::of(&sealed, options) };
    Ok(tx.commit(&plan, options, Provenance::default())?.map(|_| revision))
}

/// One attempt; `None` if another process changed the file.
fn put_all_back(
    tx: &Transaction<'_>,
    record: &Record,
    options: &WriteOptions,
    deadline: Instant,
) -> Result<Option<Settlement>> {
    let (store, seen, id) = (tx.store, &tx.seen, &record.id);
    let checkpoint = store.checkpoints().find(&Which::Id(id.clone()))?;
    checkpoint.verify(&store.disk)?;
    let whole = store.restores().whole(&checkpoint)?;
    let since = Since::new(seen, &checkpoint);
    let done = match Verdict::of(record, &whole.value, &since)? {
        Verdict::Refused(why) => Some(Settlement::Unrestored(why)),
        Verdict::OnlyTheGuard => {
            let left = carry_out_restore(tx, &whole, options, deadline)?.left;
            Some(Settlement::Restored { left })
        }
        Verdict::Others { document, config, unclear } => {
            let part = Part { document, config, unclear };
            let is_config_changed = since.is_config_changed()?;
            if is_config_changed && part.config.is_none() {
                restore_part(tx, whole, part, options, deadline)?
            } else {
                commit_rest(tx, part, is_config_changed, options)?
            }
        }
    };
    if matches!(done, Some(Settlement::Restored { .. } | Settlement::PutBack { .. })) {
        // A restore of the whole settled it already.
        settle_record(&tx.lock, &seen.backup_dir, id)?;
    }
    Ok(done)
}

/// Puts back `config/` and the document, and keeps the changes of others in the document.
fn restore_part(
    tx: &Transaction<'_>,
    whole: Proposed<'_>,
    part: Part,
    options: &WriteOptions,
    deadline: Instant,
) -> Result<Option<Settlement>> {
    let live = match (&part.document, &tx.seen.health) {
        (None, Health::Healthy(document)) => Some(Value::clone(&document.value)),
        _ => None,
    };
    let Some(value) = part.document.or(live) else {
        return Ok(Some(Settlement::Unrestored("the state cannot be read".to_owned())));
    };
    // The signal files follow the state.
    let proposed = Proposed { value, signals: None, ..whole };
    let Restored { revision, left, .. } = carry_out_restore(tx, &proposed, options, deadline)?;
    Ok(Some(Settlement::PutBack { revision: Some(revision), left }))
}

/// Puts back the document and keeps the changes of others; `config/` stays as it is. `None` if
/// the live file was changed in the meantime.
fn commit_rest(
    tx: &Transaction<'_>,
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
        Some(document) => match commit_part(tx, document, unrestored.as_ref(), options)? {
            Some(revision) => Some(revision.get()),
            None => return Ok(None),
        },
        None => None,
    };
    let put_back = Settlement::PutBack { revision, left: Vec::new() };
    Ok(Some(unrestored.map_or(put_back, Settlement::Unrestored)))
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
