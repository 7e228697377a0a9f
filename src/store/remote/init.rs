//! `state init`.

use serde_json::Value;

use super::RemoteStore;
use super::change::{Changes, undamaged};
use super::commit::{Landed, Plan, publish};
use super::ground::Ground;
use super::meta::push_from_here;
use super::neighbours::check_neighbours;
use super::preserve::backup_or_evidence;
use super::queue::{Attempt, in_turn, retry};
use super::signals::files_of;
use crate::document::first;
use crate::document::seal::Revision;
use crate::error::Result;
use crate::etcd::messages::Compare;
use crate::store::change::Outcome;
use crate::store::diagnosis::Health;
use crate::store::fresh::{Done, InitMode, Initialized, in_words};
use crate::store::layout::pinned;
use crate::store::next_revision::new_lineage;
use crate::store::options::{Author, WriteOptions};
use crate::store::remote::neighbours::Beginning;
use crate::store::signal::Signals;

/// Lineages: the first one, and new ones.
#[derive(Clone, Copy, Debug)]
pub struct Lineages<'s> {
    pub(in crate::store) store: &'s RemoteStore,
}

impl Lineages<'_> {
    /// Makes the first document where there is no history; heals and migrates where needed.
    pub fn init(&self, mode: InitMode, options: &WriteOptions) -> Result<Initialized> {
        match mode {
            InitMode::Continue => self.continue_or_begin(options),
            InitMode::Fresh => self.begin_again(options),
        }
    }

    fn continue_or_begin(&self, options: &WriteOptions) -> Result<Initialized> {
        let mut done = Done::AlreadyThere;
        retry(self.store, || {
            let ground = Box::new(Ground::observe(self.store, &[])?);
            if let Health::Damaged(_) = ground.health {
                done = Done::Healed;
            }
            let ground = undamaged(ground, options)?;
            match &ground.health {
                Health::NotInitialized => {
                    let beginning = check_beginning(self.store)?;
                    let created = write_first(&ground, options, beginning)?;
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

    /// Begins a new lineage, whatever is there. The document that it replaces becomes a pinned
    /// backup, or evidence. Revisions go on from the last one, so that the log stays in order.
    fn begin_again(&self, options: &WriteOptions) -> Result<Initialized> {
        let lineage = new_lineage()?;
        in_turn(self.store, options, |ground, place| {
            let beginning = match ground.health {
                Health::NotInitialized => check_beginning(self.store)?,
                _ => Vec::new(),
            };
            let sealed = ground.seal_in(&lineage, first(), None)?;
            let revision = sealed.document.seal.revision;
            let kept = backup_or_evidence(&ground, pinned::PRE_FRESH);
            let replaced = kept.replaced(&self.store.keys);
            let state = sealed.document.value.skeleton();
            let signals = files_of(self.store, &Signals::Follow, state)?;
            let plan = Plan { kept, beginning, ..Plan::of(&sealed, signals, options, place) };
            Ok(match publish(&ground, plan)? {
                Landed::Done => {
                    Attempt::Ended(Initialized { revision, done: Done::Created, replaced })
                }
                Landed::Overtaken(ground) => Attempt::Overtaken(Some(ground)),
            })
        })
    }

    /// Commits the document without changes: seals a legacy one, persists a migration.
    pub fn seal_as_it_is(&self, options: &WriteOptions) -> Result<Outcome> {
        let options = WriteOptions { author: Author::Program, ..options.clone() };
        Changes::of(self.store).change(&options, &mut |base| Ok(base.draft().into()))
    }

    /// The document that `state read` would serve, in words; `None` if there is none.
    pub fn served(&self) -> Option<String> {
        let ground = Ground::observe(self.store, &[]).ok()?;
        let document = match &ground.health {
            Health::Healthy(document) => Value::clone(document.value.skeleton()),
            Health::Legacy(migrated) => migrated.value.clone(),
            _ => return None,
        };
        Some(in_words(&document))
    }
}

/// Refuses to begin a store where none should be, or returns guards of that.
fn check_beginning(store: &RemoteStore) -> Result<Vec<Compare>> {
    push_from_here(store).map_or(Ok(()), Err)?;
    check_neighbours(store, Beginning::Init)
}

/// Writes the first document; `None` if another writer was faster.
fn write_first(
    ground: &Ground<'_>,
    options: &WriteOptions,
    beginning: Vec<Compare>,
) -> Result<Option<Revision>> {
    let sealed = ground.seal(first(), None)?;
    let plan = Plan { beginning, ..Plan::of(&sealed, Vec::new(), options, None) };
    Ok(match publish(ground, plan)? {
        Landed::Done => Some(sealed.document.seal.revision),
        Landed::Overtaken(_) => None,
    })
}
