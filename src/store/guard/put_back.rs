//! Puts back the changes of a guard's command.

use serde_json::Value;

use super::super::Store;
use super::super::checkpoint::catalog::{Checkpoint, Which};
use super::super::checkpoint::manifest;
use super::super::commit::{OnDiskFull, Plan, Published};
use super::super::diagnosis::Health;
use super::super::layout::{CONFIG, pinned};
use super::super::observe::{Observation, StateLock};
use super::super::options::{LockPurpose, WriteOptions, check_deadline};
use super::super::preserve::Replaced;
use super::super::restore::Proposed;
use super::super::signal::Signals;
use super::super::state_lock::RestoreLocks;
use super::Settlement;
use super::record::{Base, Record, Status};
use super::verdict::Verdict;
use crate::document::seal::{Revision, Seal};
use crate::error::Result;
use crate::tree;

impl Store {
    /// Puts back the changes of a guard's command, or returns the reason why it does not. The
    /// verdict is reached and carried out under one lock. On failure the guard is recorded as
    /// unrestored.
    pub fn settle_failed_guard(&self, id: &str, options: &WriteOptions) -> Result<Settlement> {
        match self.put_back(id, options) {
            Ok(Settlement::Unrestored(why)) => {
                self.mark_unrestored(id, &why)?;
                Ok(Settlement::Unrestored(why))
            }
            Ok(settled) => Ok(settled),
            Err(error) => {
                if let Err(second) = self.mark_unrestored(id, &error.message) {
                    self.warn(format!(
                        "that the guard {id} put nothing back is not on record: {second}"
                    ));
                }
                Err(error)
            }
        }
    }

    /// Records why not everything was put back, even where the state lock is not available: the
    /// record is the guard's own, and the guard must not look like one that was killed.
    fn mark_unrestored(&self, id: &str, why: &str) -> Result<()> {
        let unrestored = |record| Record { status: Status::Unrestored(why.to_owned()), ..record };
        let now = std::time::Instant::now();
        let lock = self
            .precheck(LockPurpose::Restore)
            .and_then(|root| self.lock_state(root, LockPurpose::Restore, now));
        if let Ok(lock) = lock {
            let backup_dir = self.backup_dir_of(&lock.root)?;
            let Some(record) = self.read_record(&backup_dir, id) else { return Ok(()) };
            self.put_record(&lock, &backup_dir, &unrestored(record))?;
            self.journal_guard(&lock, &backup_dir, id, "unrestored");
            return Ok(());
        }
        let backup_dir = self.backup_dir_of(&self.open_root()?)?;
        let Some(record) = self.read_record(&backup_dir, id) else { return Ok(()) };
        self.put_record_unlocked(&backup_dir, &unrestored(record))
    }

    fn put_back(&self, id: &str, options: &WriteOptions) -> Result<Settlement> {
        let deadline = self.deadline();
        loop {
            let locks = self.lock_all(LockPurpose::Restore, deadline)?;
            let (lock, checkpoint) =
                (&locks.state, self.find_checkpoint(&Which::Id(id.to_owned()))?);
            checkpoint.verify(&self.disk)?;
            let seen = self.observe(lock)?;
            let Some(record) = self.read_record(&seen.backup_dir, id) else {
                return Ok(Settlement::Unrestored("its record is gone or damaged".to_owned()));
            };
            let whole = self.whole(&checkpoint)?;
            let verdict = self.verdict(&seen, &record, &whole.value)?;
            let options = WriteOptions { guard: Some(id.to_owned()), ..options.clone() };
            let done = match verdict {
                Verdict::Refused(why) => return Ok(Settlement::Unrestored(why)),
                Verdict::OnlyTheGuard => {
                    let left = self.restore_held((lock, &seen), &whole, (&options, deadline))?.left;
                    Some(Settlement::Restored { left })
                }
                Verdict::Others { document, config, unclear } => {
                    let part = Part { document, config, unclear };
                    self.put_part_back(
                        (&locks, &seen),
                        (&checkpoint, whole),
                        part,
                        (&options, deadline),
                    )?
                }
            };
            match done {
                Some(Settlement::Unrestored(why)) => return Ok(Settlement::Unrestored(why)),
                Some(settled) => {
                    // A restore of the whole settled it already.
                    self.settle_record(lock, &seen.backup_dir, id)?;
                    return Ok(settled);
                }
                None => check_deadline(deadline)?, // another process changed the file; check again
            }
        }
    }

    /// Puts back the guard's changes and keeps those of others; `None` if the live file was changed
    /// in the meantime.
    fn put_part_back(
        &self,
        (locks, seen): (&RestoreLocks<'_>, &Observation),
        (checkpoint, whole): (&Checkpoint, Proposed<'_>),
        part: Part,
        (options, deadline): (&WriteOptions, std::time::Instant),
    ) -> Result<Option<Settlement>> {
        let lock = &locks.state;
        let is_changed = self.is_config_changed(checkpoint)?;
        if is_changed && part.config.is_none() {
            let live = match (&part.document, &seen.health) {
                (None, Health::Healthy(document)) => Some(Value::clone(&document.value)),
                _ => None,
            };
            let Some(value) = part.document.or(live) else {
                return Ok(Some(Settlement::Unrestored("the state cannot be read".to_owned())));
            };
            // The signal files follow the state.
            let proposed = Proposed { value, signals: None, ..whole };
            let revision =
                self.restore_held((lock, seen), &proposed, (options, deadline))?.revision;
            return Ok(Some(Settlement::PutBack { revision: Some(revision) }));
        }
        let unrestored = part.config.filter(|_| is_changed);
        let unrestored = unrestored
            .map(|why| format!("{CONFIG}/ was left as it is, since {why}"))
            .or(part.unclear);
        let revision = match part.document {
            Some(document) => {
                match self.commit_part((lock, seen), document, unrestored.as_ref(), options)? {
                    Some(revision) => Some(revision.get()),
                    None => return Ok(None),
                }
            }
            None => None,
        };
        Ok(Some(unrestored.map_or(Settlement::PutBack { revision }, Settlement::Unrestored)))
    }

    /// Commits the document without the guard's changes. The record states beforehand what is
    /// committed and what remains to be done then, so that a guard killed after its commit does not
    /// look like one that put nothing back.
    fn commit_part(
        &self,
        (lock, seen): (&StateLock, &Observation),
        document: Value,
        unrestored: Option<&String>,
        options: &WriteOptions,
    ) -> Result<Option<Revision>> {
        let Health::Healthy(live) = &seen.health else { return Ok(None) };
        let created = live.value.pointer("/metadata/created").cloned();
        let sealed = self.seal(document, seen, &live.seal.lineage, created.as_ref())?;
        let Seal { revision, lineage, digest } = sealed.document.seal.clone();
        self.keep_mirror(lock, seen);
        if let Some(record) =
            options.guard.as_ref().and_then(|id| self.read_record(&seen.backup_dir, id))
        {
            let commit = Base { revision, lineage, digest };
            let status = Status::PuttingBack { commit, unrestored: unrestored.cloned() };
            self.put_record(lock, &seen.backup_dir, &Record { status, ..record })?;
        }
        let replaced =
            Replaced::backup(self.disk.now(), Some(live.seal.revision), pinned::PRE_RESTORE);
        let (signals, room) = (&Signals::Follow, OnDiskFull::PruneBackups);
        let plan = Plan {
            sealed: &sealed,
            source: None,
            replaced,
            signals,
            fences: &options.fences,
            room,
        };
        if self.publish(lock, seen, &plan)? == Published::Overtaken {
            return Ok(None);
        }
        self.record_commit((lock, seen), options, &sealed, &[]);
        Ok(Some(revision))
    }

    /// Returns whether `config/` differs from the checkpoint's. An entry that no checkpoint can
    /// hold is a difference.
    fn is_config_changed(&self, checkpoint: &Checkpoint) -> Result<bool> {
        let Some(root) = self.config_root()? else { return Ok(false) };
        let before =
            checkpoint.listing.below(manifest::CONFIG).map(|listing| listing.fingerprint());
        match tree::list(&self.disk, &root, CONFIG) {
            Ok(listing) => Ok(listing.map(|listing| listing.fingerprint()) != before),
            Err(error) if tree::cannot_be_kept(&error) => Ok(true),
            Err(error) => Err(error),
        }
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
