//! Undo: the document of an earlier revision, committed as the next one. The record of that commit
//! names the revision that it repeats, so that another undo goes on from there. Where the record is
//! missing, another undo takes the first one back.

use super::change::{Base, Outcome, Proposal};
use super::copies::BackupCopy;
use super::signal::Signals;
use crate::document::seal::{Revision, Seal};
use crate::error::{Error, Kind, Result};
use crate::journal::Commit;

/// What an undo did, or would do.
#[derive(Debug)]
pub struct Undone {
    /// The outcome of its commit.
    pub outcome: Outcome,
    /// The revision that is the current document again.
    pub to: Revision,
    /// The revisions that were taken back, newest first.
    pub taken_back: Vec<TakenBack>,
}

/// A revision that was taken back.
#[derive(Debug)]
pub struct TakenBack {
    /// The revision.
    pub revision: u64,
    /// Its commit, if it is on record.
    pub commit: Option<Commit>,
}

/// The revision to go back to.
pub(super) struct Target {
    to: Revision,
    taken_back: Vec<TakenBack>,
}

impl Target {
    /// Chooses the newest copy below the current revision; after an undo, below the revision that
    /// this one repeats. `commits` are those on record, oldest first.
    pub fn choose<'c>(
        base: &Base,
        commits: impl Iterator<Item = &'c Commit>,
        copies: &[BackupCopy],
    ) -> Result<(Self, Proposal)> {
        let nothing = || {
            Error::new(Kind::NotFound, "no earlier revision is kept; nothing was undone")
                .hint_command("state history", "see what is remembered")
        };
        let Some(Seal { revision: current, lineage, digest }) = &base.seal else {
            return Err(nothing());
        };
        let commits: Vec<&Commit> = commits.filter(|commit| commit.lineage == *lineage).collect();
        let commit_of = |revision: Revision| {
            commits.iter().rev().find(|commit| commit.revision == revision).copied()
        };
        let mut own = commits.iter().find(|commit| commit.digest == *digest).copied();
        let mut from = *current;
        while let Some(earlier) = own.and_then(|commit| commit.repeats).filter(|it| *it < from) {
            from = earlier;
            own = commit_of(from);
        }
        let kept = copies.iter().filter_map(BackupCopy::sealed);
        let earlier = kept.filter(|it| it.seal.lineage == *lineage && it.seal.revision < from);
        let document = earlier.max_by_key(|it| it.seal.revision).ok_or_else(nothing)?;
        let to = document.seal.revision;
        let taken_back = (to.get() + 1..=from.get()).rev().map(|revision| TakenBack {
            revision,
            commit: Revision::new(revision).and_then(commit_of).cloned(),
        });
        let value = (*document.value).clone();
        let proposal = Proposal { signals: Signals::Follow, repeats: Some(to), ..value.into() };
        Ok((Self { to, taken_back: taken_back.collect() }, proposal))
    }
}

impl Undone {
    /// Commits a target by `change`, which is given its choice.
    pub(super) fn by(
        choose: impl Fn(&Base) -> Result<(Target, Proposal)>,
        change: impl FnOnce(&mut super::change::Change<'_>) -> Result<Outcome>,
    ) -> Result<Self> {
        let mut chosen = None;
        let outcome = change(&mut |base| {
            let (target, proposal) = choose(base)?;
            chosen = Some(target);
            Ok(proposal)
        })?;
        let Target { to, taken_back } =
            chosen.ok_or_else(|| Error::new(Kind::Internal, "an undo without a target"))?;
        Ok(Self { outcome, to, taken_back })
    }
}
