//! `state init`.

use std::time::Duration;

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
                    let created = ground.write_first(options)?;
                    Ok(created.map(|revision| Initialized { revision, done: Done::Created }))
                }
                Health::Healthy(document) if document.older.is_none() => {
                    Ok(Some(Initialized { revision: document.seal.revision, done }))
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

    /// Begins a new lineage, whatever is there. The document that it replaces becomes a pinned
    /// backup, or evidence. Revisions go on from the last one, so that the log stays in order.
    fn begin_again(&self, options: &WriteOptions) -> Result<Initialized> {
        let lineage = new_lineage()?;
        self.in_turn(options, |ground, place| {
            let sealed = ground.seal_in(&lineage, first(), None)?;
            let revision = sealed.document.seal.revision;
            let plan = Plan {
                sealed: &sealed,
                kept: ground.put_away(),
                signals: ground.files_of(&Signals::Follow, sealed.document.value.skeleton())?,
                options,
                repeats: None,
                waited: Duration::ZERO,
                claim: None,
                place,
            };
            Ok(match ground.publish(plan)? {
                Landed::Done => Attempt::Ended(Initialized { revision, done: Done::Created }),
                Landed::Overtaken(ground) => Attempt::Overtaken(Some(ground)),
            })
        })
    }
}

impl Ground<'_> {
    fn put_away(&self) -> Kept {
        let revision = match &self.health {
            Health::Healthy(document) => Some(document.seal.revision),
            Health::Legacy(_) => None,
            _ => return Kept::Evidence,
        };
        let name = BackupName::new(self.store.now(), revision, pinned::PRE_FRESH);
        self.text().map_or(Kept::Nothing, |text| Kept::Backup(name, text.clone()))
    }

    /// Writes the first document; `None` if another writer was faster.
    fn write_first(&self, options: &WriteOptions) -> Result<Option<Revision>> {
        let sealed = self.seal(first(), None)?;
        let plan = Plan {
            sealed: &sealed,
            kept: Kept::Nothing,
            signals: Vec::new(),
            options,
            repeats: None,
            waited: Duration::ZERO,
            place: None,
            claim: None,
        };
        Ok(match self.publish(plan)? {
            Landed::Done => Some(sealed.document.seal.revision),
            Landed::Overtaken(_) => None,
        })
    }
}
