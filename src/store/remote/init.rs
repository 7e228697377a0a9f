//! `state init`.

use super::RemoteStore;
use super::commit::{Kept, Landed, Plan};
use super::ground::Ground;
use super::queue::Attempt;
use crate::document::first;
use crate::document::seal::Revision;
use crate::error::Result;
use crate::store::diagnosis::Health;
use crate::store::fresh::{Done, InitMode, Initialized};
use crate::store::layout::{BackupName, pinned};
use crate::store::next_revision::new_lineage;
use crate::store::options::WriteOptions;
use crate::store::signal::Signals;

impl RemoteStore {
    /// Makes the first document where there is no history; heals and migrates where needed.
    pub fn init(&self, mode: InitMode, options: &WriteOptions) -> Result<Initialized> {
        match mode {
            InitMode::Continue => self.continue_or_begin(options),
            InitMode::Fresh => self.begin_again(options),
        }
    }

    fn continue_or_begin(&self, options: &WriteOptions) -> Result<Initialized> {
        let mut done = Done::AlreadyThere;
        self.retry(|| {
            let ground = Box::new(self.observe(&[])?);
            if let Health::Damaged(_) = ground.health {
                done = Done::Healed;
            }
            let ground = self.undamaged(ground, options)?;
            match &ground.health {
                Health::NotInitialized => {
                    self.check_beginning()?;
                    let created = ground.write_first(options)?;
                    let done = Done::Created;
                    Ok(created.map(|revision| Initialized { revision, done, replaced: None }))
                }
                Health::Healthy(document) if document.older.is_none() => {
                    let revision = document.seal.revision;
                    Ok(Some(Initialized { revision, done, replaced: None }))
                }
                Health::Healthy(_) | Health::Legacy(_) | Health::Foreign(_) => {
                    // Refuses a foreign edit unless those are accepted.
                    self.seal_as_it_is(options)?;
                    done = Done::Migrated;
                    Ok(None)
                }
                _ => Err(ground.refusal()),
            }
        })
    }

    /// Refuses to begin a store where none should be.
    fn check_beginning(&self) -> Result<()> {
        self.push_from_here().map_or(Ok(()), Err)?;
        self.check_neighbours()
    }

    /// Begins a new lineage, whatever is there. The document that it replaces becomes a pinned
    /// backup, or evidence. Revisions go on from the last one, so that the log stays in order.
    fn begin_again(&self, options: &WriteOptions) -> Result<Initialized> {
        let lineage = new_lineage()?;
        self.in_turn(options, |ground, place| {
            if let Health::NotInitialized = ground.health {
                self.check_beginning()?;
            }
            let sealed = ground.seal_in(&lineage, first(), None)?;
            let revision = sealed.document.seal.revision;
            let kept = ground.put_away();
            let replaced = kept.replaced(&self.keys);
            let state = sealed.document.value.skeleton();
            let signals = ground.files_of(&Signals::Follow, state)?;
            let plan = Plan { kept, ..Plan::of(&sealed, signals, options, place) };
            Ok(match ground.publish(plan)? {
                Landed::Done => {
                    Attempt::Ended(Initialized { revision, done: Done::Created, replaced })
                }
                Landed::Overtaken(ground) => Attempt::Overtaken(Some(ground)),
            })
        })
    }
}

impl Ground<'_> {
    fn put_away(&self) -> Kept {
        let revision = match (self.sealed(), &self.health) {
            (Some(document), _) => Some(document.seal.revision),
            (None, Health::Legacy(_)) => None,
            _ => return self.evidence(),
        };
        let name = BackupName::new(self.store.now(), revision, pinned::PRE_FRESH);
        self.text().map_or(Kept::Nothing, |text| Kept::Backup(name, text.clone()))
    }

    /// Writes the first document; `None` if another writer was faster.
    fn write_first(&self, options: &WriteOptions) -> Result<Option<Revision>> {
        let sealed = self.seal(first(), None)?;
        let plan = Plan::of(&sealed, Vec::new(), options, None);
        Ok(match self.publish(plan)? {
            Landed::Done => Some(sealed.document.seal.revision),
            Landed::Overtaken(_) => None,
        })
    }
}
