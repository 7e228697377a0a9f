//! Puts back the changes of a guard's command.

use serde_json::Value;

use super::super::Store;
use super::super::checkpoint::catalog::{Checkpoint, Which};
use super::super::checkpoint::manifest;
use super::super::commit::{Plan, Published, Room};
use super::super::ground::{Ground, Held};
use super::super::hold::Hands;
use super::super::judge::Health;
use super::super::layout::{CONFIG, pinned};
use super::super::order::{Order, Purpose, give_up_after};
use super::super::restore::Proposed;
use super::super::retain::Displaced;
use super::super::signal::Signals;
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
    pub fn settle_failed_guard(&self, id: &str, order: &Order) -> Result<Settlement> {
        match self.put_back(id, order) {
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
        let held =
            self.precheck(Purpose::Restore).and_then(|root| self.hold(root, Purpose::Restore, now));
        if let Ok(held) = held {
            let shelf = self.shelf_of(&held.root)?;
            let Some(record) = self.read_record(&shelf, id) else { return Ok(()) };
            self.put_record(&held, &shelf, &unrestored(record))?;
            self.journal_guard(&held, &shelf, id, "unrestored");
            return Ok(());
        }
        let shelf = self.shelf_of(&self.open_root()?)?;
        let Some(record) = self.read_record(&shelf, id) else { return Ok(()) };
        self.put_record_unlocked(&shelf, &unrestored(record))
    }

    fn put_back(&self, id: &str, order: &Order) -> Result<Settlement> {
        let deadline = self.deadline();
        loop {
            let hands = self.hold_all(Purpose::Restore, deadline)?;
            let (held, checkpoint) =
                (&hands.held, self.find_checkpoint(&Which::Id(id.to_owned()))?);
            checkpoint.verify(&self.disk)?;
            let ground = self.survey(held)?;
            let Some(record) = self.read_record(&ground.shelf, id) else {
                return Ok(Settlement::Unrestored("its record is gone or damaged".to_owned()));
            };
            let whole = self.whole(&checkpoint)?;
            let verdict = self.verdict(&ground, &record, &whole.value)?;
            let order = Order { guard: Some(id.to_owned()), ..order.clone() };
            let done = match verdict {
                Verdict::Refused(why) => return Ok(Settlement::Unrestored(why)),
                Verdict::OnlyTheGuard => {
                    let left = self.restore_held((held, &ground), &whole, (&order, deadline))?.left;
                    Some(Settlement::Restored { left })
                }
                Verdict::Others { document, config, unclear } => {
                    let part = Part { document, config, unclear };
                    self.put_part_back(
                        (&hands, &ground),
                        (&checkpoint, whole),
                        part,
                        (&order, deadline),
                    )?
                }
            };
            match done {
                Some(Settlement::Unrestored(why)) => return Ok(Settlement::Unrestored(why)),
                Some(settled) => {
                    // A restore of the whole settled it already.
                    self.settle_record(held, &ground.shelf, id)?;
                    return Ok(settled);
                }
                None => give_up_after(deadline)?, // another process changed the file; check again
            }
        }
    }

    /// Puts back the guard's changes and keeps those of others; `None` if the live file was changed
    /// in the meantime.
    fn put_part_back(
        &self,
        (hands, ground): (&Hands<'_>, &Ground),
        (checkpoint, whole): (&Checkpoint, Proposed<'_>),
        part: Part,
        (order, deadline): (&Order, std::time::Instant),
    ) -> Result<Option<Settlement>> {
        let held = &hands.held;
        let is_changed = self.is_config_changed(checkpoint)?;
        if is_changed && part.config.is_none() {
            let live = match (&part.document, &ground.health) {
                (None, Health::Healthy(document)) => Some(Value::clone(&document.value)),
                _ => None,
            };
            let Some(value) = part.document.or(live) else {
                return Ok(Some(Settlement::Unrestored("the state cannot be read".to_owned())));
            };
            // The signal files follow the state.
            let proposed = Proposed { value, signals: None, ..whole };
            let revision =
                self.restore_held((held, ground), &proposed, (order, deadline))?.revision;
            return Ok(Some(Settlement::PutBack { revision: Some(revision) }));
        }
        let unrestored = part.config.filter(|_| is_changed);
        let unrestored = unrestored
            .map(|why| format!("{CONFIG}/ was left as it is, since {why}"))
            .or(part.unclear);
        let revision = match part.document {
            Some(document) => {
                match self.commit_part((held, ground), document, unrestored.as_ref(), order)? {
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
        (held, ground): (&Held, &Ground),
        document: Value,
        unrestored: Option<&String>,
        order: &Order,
    ) -> Result<Option<Revision>> {
        let Health::Healthy(live) = &ground.health else { return Ok(None) };
        let created = live.value.pointer("/metadata/created").cloned();
        let sealed = self.seal(document, ground, &live.seal.lineage, created.as_ref())?;
        let Seal { revision, lineage, digest } = sealed.document.seal.clone();
        self.keep_mirror(held, ground);
        if let Some(record) =
            order.guard.as_ref().and_then(|id| self.read_record(&ground.shelf, id))
        {
            let commit = Base { revision, lineage, digest };
            let status = Status::PuttingBack { commit, unrestored: unrestored.cloned() };
            self.put_record(held, &ground.shelf, &Record { status, ..record })?;
        }
        let displaced =
            Displaced::backup(self.disk.now(), Some(live.seal.revision), pinned::PRE_RESTORE);
        let (signals, room) = (&Signals::Follow, Room::MayBeMade);
        let plan =
            Plan { sealed: &sealed, source: None, displaced, signals, fences: &order.fences, room };
        if self.publish(held, ground, &plan)? == Published::Overtaken {
            return Ok(None);
        }
        self.record_commit((held, ground), order, &sealed, &[]);
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
