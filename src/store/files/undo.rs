//! Undo: the document of an earlier revision, committed as the next one. Its line in the journal
//! names the revision that it repeats, so that another undo goes on from there. Where the line is
//! missing, another undo takes the first one back.

use super::change::Changes;
use super::root::Root;
use crate::document::seal::{Lineage, Revision, Seal};
use crate::error::{Error, Kind, Result};
use crate::journal::Commit;
use crate::store::change::{Base, Outcome, Proposal};
use crate::store::copies::{BackupCopy, Copies as _};
use crate::store::options::WriteOptions;
use crate::store::signal::Signals;

/// What an undo did, or would do.
#[derive(Debug)]
pub struct Undone {
    /// The outcome of its commit.
    pub outcome: Outcome,
    /// The revision whose document is the current one again.
    pub to: Revision,
    /// The revisions that were taken back, newest first.
    pub taken_back: Vec<TakenBack>,
}

/// A revision that was taken back.
#[derive(Debug)]
pub struct TakenBack {
    /// The revision.
    pub revision: u64,
    /// Its line in the journal, if it has one.
    pub commit: Option<Commit>,
}

/// The revision to go back to.
struct Target {
    revision: Revision,
    proposal: Proposal,
    taken_back: Vec<TakenBack>,
}

impl Changes<'_> {
    /// `state undo`: goes back to the newest kept revision below the current one; after an undo, to
    /// the one below the revision that this one repeats.
    pub fn undo(&self, options: &WriteOptions) -> Result<Undone> {
        let mut done = None;
        let outcome = self.change(options, &mut |base| {
            let Target { revision, proposal, taken_back } = self.undo_target(base)?;
            done = Some((revision, taken_back));
            Ok(proposal)
        })?;
        let (to, taken_back) =
            done.ok_or_else(|| Error::new(Kind::Internal, "an undo without a target"))?;
        Ok(Undone { outcome, to, taken_back })
    }

    fn undo_target(&self, base: &Base) -> Result<Target> {
        let nothing = || {
            Error::new(Kind::NotFound, "no earlier revision is kept; nothing was undone")
                .hint_command("state history", "see what is remembered")
        };
        let Some(Seal { revision: current, lineage, digest }) = &base.seal else {
            return Err(nothing());
        };
        let backup_dir = Root::of(self.store).backup_dir_to_read()?;
        let events = backup_dir.events();
        let commits: Vec<&Commit> =
            events.commits().filter(|commit| commit.lineage == *lineage).collect();
        let mut own = commits.iter().find(|commit| commit.digest == *digest);
        let mut from = *current;
        while let Some(earlier) = own.and_then(|commit| commit.repeats).filter(|it| *it < from) {
            from = earlier;
            own = commits.iter().rev().find(|commit| commit.revision == from);
        }
        let is_earlier = |copy: &&BackupCopy| {
            let seal = copy.sealed().map(|document| &document.seal);
            seal.is_some_and(|seal| seal.lineage == *lineage && seal.revision < from)
        };
        let copies = backup_dir.copies()?;
        let found = copies.iter().filter(is_earlier).max_by_key(|copy| copy.revision());
        let document = found.and_then(BackupCopy::sealed).ok_or_else(nothing)?;
        let revision = document.seal.revision;
        let taken_back = (revision.get() + 1..=from.get())
            .rev()
            .map(|revision| TakenBack { revision, commit: line_of(&commits, lineage, revision) });
        let value = (*document.value).clone();
        Ok(Target {
            revision,
            taken_back: taken_back.collect(),
            proposal: Proposal {
                signals: Signals::Follow,
                repeats: Some(revision),
                ..value.into()
            },
        })
    }
}

fn line_of(commits: &[&Commit], lineage: &Lineage, revision: u64) -> Option<Commit> {
    let is_it = |commit: &&&Commit| commit.lineage == *lineage && commit.revision.get() == revision;
    commits.iter().rev().find(is_it).map(|commit| (*commit).clone())
}
