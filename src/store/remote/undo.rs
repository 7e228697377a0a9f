//! Undo: the document of an earlier revision, committed as the next one. Its record names the
//! revision that it repeats, so that another undo goes on from there.

use super::RemoteStore;
use crate::document::seal::{Revision, Seal};
use crate::error::{Error, Kind, Result};
use crate::journal::Commit;
use crate::store::change::{Base, Proposal};
use crate::store::copies::{BackupCopy, Copies as _};
use crate::store::options::WriteOptions;
use crate::store::signal::Signals;
use crate::store::undo::{TakenBack, Undone};

impl RemoteStore {
    /// `state undo`: goes back to the newest kept revision below the current one; after an undo, to
    /// the one below the revision that this one repeats.
    pub fn undo(&self, options: &WriteOptions) -> Result<Undone> {
        let mut done = None;
        let outcome = self.change(options, &mut |base| {
            let commits: Vec<Commit> =
                self.records()?.into_iter().map(|record| record.commit).collect();
            let ground = self.observe(&[])?;
            let Target { to, taken_back, proposal } = target(base, &commits, ground.copies()?)?;
            done = Some((to, taken_back));
            Ok(proposal)
        })?;
        let (to, taken_back) =
            done.ok_or_else(|| Error::new(Kind::Internal, "an undo without a target"))?;
        Ok(Undone { outcome, to, taken_back })
    }
}

/// The revision to go back to.
struct Target {
    to: Revision,
    taken_back: Vec<TakenBack>,
    proposal: Proposal,
}

/// Chooses among `copies`. `commits` are those on record, oldest first.
fn target(base: &Base, commits: &[Commit], copies: &[BackupCopy]) -> Result<Target> {
    let nothing = || {
        Error::new(Kind::NotFound, "no earlier revision is kept; nothing was undone")
            .hint_command("state history", "see what is remembered")
    };
    let Some(Seal { revision: current, lineage, .. }) = &base.seal else { return Err(nothing()) };
    let commit_of = |revision: Revision| {
        let mut commits = commits.iter().rev();
        commits.find(|commit| commit.lineage == *lineage && commit.revision == revision)
    };
    let repeated = |revision: Revision| {
        commit_of(revision).and_then(|commit| commit.repeats).filter(|it| *it < revision)
    };
    let mut from = *current;
    while let Some(earlier) = repeated(from) {
        from = earlier;
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
    Ok(Target {
        to,
        taken_back: taken_back.collect(),
        proposal: Proposal { signals: Signals::Follow, repeats: Some(to), ..value.into() },
    })
}
