//! Records under change: the original, the new content, and the writes that lead from one to the
//! other. Nothing here touches the disk.

use super::journal::PendingChange;
use super::lifeline::Lifeline;
use super::record::{Record, Waiter};
use crate::error::Result;
use crate::name::Name;

/// A record that is being changed.
#[derive(Clone, Debug)]
pub struct RecordEdit {
    /// The lock's name.
    pub name: Name,
    /// The new content.
    pub record: Record,
    original: Record,
}

/// The replacement of one whole file.
#[derive(Clone, Debug)]
pub enum Write {
    /// Writes a record; `None` removes it.
    Record(Name, Option<Record>),
    /// Puts the journal in place.
    Journal(PendingChange),
    /// Removes the journal of a completed change.
    NoJournal,
}

impl RecordEdit {
    /// A change of `record`, as it was read.
    pub fn new(name: &Name, record: Record) -> Self {
        Self { name: name.clone(), original: record.clone(), record }
    }

    fn content(&self) -> Option<Record> {
        (!self.record.is_empty()).then(|| self.record.clone())
    }

    /// The record as it was read.
    pub fn original(&self) -> &Record {
        &self.original
    }

    /// Whether the change may unblock a waiter: a grant or a waiter goes, or a waiter lets others
    /// pass from now on.
    pub fn unblocks_someone(&self) -> bool {
        let Record { holders, waiters, .. } = &self.original;
        let grants_gone = holders.iter().any(|grant| self.record.grant(grant.token).is_none());
        let steps_aside = |before: &Waiter| match self.record.position_of(&before.process) {
            None => true,
            Some(position) => self
                .record
                .waiters
                .get(position)
                .is_some_and(|now| now.lets_others_pass() && !before.lets_others_pass()),
        };
        grants_gone || waiters.iter().any(steps_aside)
    }

    /// Whether it differs from what is on the disk.
    pub fn is_changed(&self) -> bool {
        self.record != self.original
    }

    /// The lifelines of commands that no grant names any more.
    pub fn dropped_command_lifelines(&self) -> impl Iterator<Item = &Lifeline> {
        lost(&self.original, &self.record, |record| {
            record.holders.iter().filter_map(|grant| grant.live_file.as_ref())
        })
    }

    /// The lifelines of waiters that are gone from the queue.
    pub fn dropped_waiter_lifelines(&self) -> impl Iterator<Item = &Lifeline> {
        lost(&self.original, &self.record, |record| {
            record.waiters.iter().filter_map(|one| one.lifeline.as_ref())
        })
    }
}

/// The lifelines that the first record names and the second does not.
fn lost<'a, I: Iterator<Item = &'a Lifeline>>(
    before: &'a Record,
    now: &'a Record,
    named: impl Fn(&'a Record) -> I + 'a,
) -> impl Iterator<Item = &'a Lifeline> {
    named(before).filter(move |file| !named(now).any(|other| other == *file))
}

/// The writes that put changed records in place, all or none: the first write is the change, for
/// every reader, and the others only complete it.
pub fn writes(changed: &[&RecordEdit]) -> Result<Vec<Write>> {
    let [edit] = changed else {
        if changed.is_empty() {
            return Ok(Vec::new());
        }
        let records = changed.iter().map(|edit| (edit.name.to_string(), edit.content()));
        let pending = PendingChange(records.collect());
        let completion_ops = completion_ops(&pending)?;
        return Ok([Write::Journal(pending)].into_iter().chain(completion_ops).collect());
    };
    Ok(vec![Write::Record(edit.name.clone(), edit.content())])
}

/// The writes that complete a change once its journal is in place.
pub fn completion_ops(pending: &PendingChange) -> Result<Vec<Write>> {
    let record = |(name, record): (&String, &Option<Record>)| {
        Ok(Write::Record(Name::parse("lock", name)?, record.clone()))
    };
    pending.0.iter().map(record).chain([Ok(Write::NoJournal)]).collect()
}
