//! `state init`.

use std::time::Duration;

use super::RemoteStore;
use super::commit::{Kept, Landed, Plan};
use super::ground::Ground;
use crate::document::first;
use crate::document::seal::Revision;
use crate::error::Result;
use crate::store::diagnosis::Health;
use crate::store::fresh::{Done, Initialized};
use crate::store::options::WriteOptions;

impl RemoteStore {
    /// Makes the first document where there is no history; heals and migrates where needed.
    pub fn init(&self, options: &WriteOptions) -> Result<Initialized> {
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
}

impl Ground<'_> {
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
