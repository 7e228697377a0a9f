//! `state init`, `state init --fresh`, and `state adopt`.

use std::path::PathBuf;

use rustix::io::Errno;
use serde_json::Value;

use super::change::Outcome;
use super::commit::{Plan, Published, Room};
use super::ground::{Ground, Held};
use super::heal::written_by_a_newer_program;
use super::judge::{Foreign, Health, Look};
use super::layout::{ARCHIVE_PREFIX, GITIGNORE, MIRROR, SIDE_DIRECTORIES};
use super::next::new_lineage;
use super::order::{Author, Mode, Order, Purpose, give_up_after};
use super::retain::Displaced;
use super::shelf::{Shelf, best};
use super::{AutoRecover, ForeignEdits, Signals, Store};
use crate::document::first;
use crate::document::seal::Revision;
use crate::error::{Error, Kind, Result};
use crate::fs::free_name::first_free;
use crate::fs::stage::is_temporary;
use crate::fs::{Dir, FileKind, FsResult};
use crate::side;
use crate::time::compact;

/// The reason in the name of a state's copy in an archive: it was the live file.
pub(super) const LIVE: &str = "live";

/// The treatment of an existing history by `state init`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beginning {
    /// It keeps the history, and heals and migrates where needed.
    Continue,
    /// It archives the history and starts a new lineage.
    Fresh,
}

/// The result of `state init`.
#[derive(Clone, Debug)]
pub struct Initialized {
    /// The current revision.
    pub revision: Revision,
    /// The change to the document.
    pub done: Done,
}

/// The change that `state init` made to the document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// It created the first document of its lineage.
    Created,
    /// It restored a damaged document from a copy.
    Healed,
    /// It migrated the document to the current form and sealed it.
    Migrated,
    /// It changed nothing.
    AlreadyThere,
}

impl Done {
    /// The same in words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Healed => "healed",
            Self::Migrated => "migrated",
            Self::AlreadyThere => "already there",
        }
    }
}

impl Store {
    /// Prepares a root: directories, the first document where there is no history, healing,
    /// migration.
    pub fn init(&self, beginning: Beginning, order: &Order) -> Result<Initialized> {
        let initialized = self.init_state(beginning, order)?;
        // The state exists now: a failure from here on undoes nothing and does not fail the
        // command.
        for name in SIDE_DIRECTORIES {
            let made = self.open_root().and_then(|root| {
                let dir = self.side_directory(&root, name)?;
                Ok(self.keep_out_of_git(&dir)?)
            });
            if let Err(error) = made {
                self.warn(format!(
                    "{name} is not ready, or git may take it along: {}",
                    error.message
                ));
            }
        }
        Ok(initialized)
    }

    /// Makes git ignore a side directory: its contents apply to this root on this machine only. An
    /// empty `.gitignore` was left by a writer that was killed.
    fn keep_out_of_git(&self, dir: &Dir) -> FsResult<()> {
        match self.disk.stat(dir, GITIGNORE)? {
            Some(stat) if stat.kind == FileKind::Regular && stat.size == 0 => {
                self.disk.unlink(dir, GITIGNORE)?;
            }
            Some(_) => return Ok(()),
            None => {}
        }
        let file = self.disk.create(dir, GITIGNORE)?;
        self.disk.write(&file, &dir.path_of(GITIGNORE), b"*\n")
    }

    fn init_state(&self, beginning: Beginning, order: &Order) -> Result<Initialized> {
        self.refuse_before_making(beginning)?;
        let deadline = self.deadline();
        let was_damaged =
            self.live().is_ok_and(|live| live.is_some_and(|found| found.is_damaged()));
        let mut done = if was_damaged { Done::Healed } else { Done::AlreadyThere };
        loop {
            let (held, mut ground) = match beginning {
                Beginning::Continue => self.undamaged_ground(Purpose::Initialize, deadline)?,
                Beginning::Fresh => {
                    let held = self.hold(
                        self.precheck(Purpose::Initialize)?,
                        Purpose::Initialize,
                        deadline,
                    )?;
                    let ground = self.survey(&held)?;
                    (held, ground)
                }
            };
            self.sweep(&held)?;
            if self.is_to_be_initialized(beginning, &ground.health) {
                self.make_journal(&mut ground.shelf);
            }
            let first = match &ground.health {
                _ if beginning == Beginning::Fresh => self.begin_anew(&held, ground, order)?,
                Health::NotInitialized => {
                    let highest = self
                        .highest_remembered(&ground)?
                        .max(self.archived_revision(&ground.shelf)?);
                    self.write_first(&held, &ground, order, highest)?
                }
                Health::Healthy(document) if !ground.is_rewritten() => {
                    self.keep_mirror(&held, &ground);
                    return Ok(Initialized { revision: document.seal.revision, done });
                }
                Health::Healthy(_) | Health::Legacy(_) | Health::Foreign(_) => {
                    drop(held);
                    done = Done::Migrated;
                    self.seal_as_it_is(order)?; // refuses a foreign edit unless those are accepted
                    None
                }
                health => return Err(self.refusal(health, &ground.shelf)),
            };
            if let Some(revision) = first {
                return Ok(Initialized { revision, done: Done::Created });
            }
            give_up_after(deadline)?;
        }
    }

    /// Returns whether `init` accepts what it found.
    fn is_to_be_initialized(&self, beginning: Beginning, health: &Health) -> bool {
        match health {
            Health::TooNew(_) => false,
            Health::NotInitialized | Health::Healthy(_) | Health::Legacy(_) => true,
            Health::Foreign(_) if self.settings.foreign_edits == ForeignEdits::Accept => true,
            _ => beginning == Beginning::Fresh,
        }
    }

    /// The document that `state read` would serve, in words; `None` if there is none.
    pub fn served(&self) -> Option<String> {
        let (health, shelf) = self.look().ok()?;
        let document = match &health {
            Health::Healthy(document) => Value::clone(document.value.outline()),
            Health::Legacy(migrated) => migrated.value.clone(),
            Health::Foreign(edit) if self.settings.foreign_edits == ForeignEdits::Accept => {
                edit.acceptable().ok()?.value
            }
            Health::Damaged(_) if self.settings.auto_recover == AutoRecover::Yes => {
                self.best_copy(&shelf, &health).ok()?.0.into_value()
            }
            _ => return None,
        };
        let revision = document
            .pointer("/metadata/revision")
            .map_or_else(|| "unsealed".to_owned(), |revision| format!("at revision {revision}"));
        let phase = document.get("phase").and_then(Value::as_str).unwrap_or_default();
        Some(format!("{revision}, phase {phase:?}"))
    }

    /// The newest archive of `init --fresh` that is not among `known`, and the replaced state in
    /// it.
    pub fn archive_besides(&self, known: &[String]) -> Option<(PathBuf, Option<PathBuf>)> {
        let shelf = self.shelf_to_read().ok()?;
        let name = shelf.archives.iter().rev().find(|name| !known.contains(name))?;
        let archive = Shelf::list(&self.disk, self.disk.open_dir(shelf.dir()?, name).ok()?).ok()?;
        let dir = archive.dir()?;
        let live = archive.backups.iter().rev().find(|backup| backup.reason == LIVE);
        Some((dir.path().to_owned(), live.map(|backup| dir.path_of(backup.as_str()))))
    }

    /// The archives of `init --fresh`.
    pub fn archives(&self) -> Vec<String> {
        self.shelf_to_read().map_or_else(|_| Vec::new(), |shelf| shelf.archives)
    }

    /// Makes the checks that need no lock before the first file is created: a refused init leaves
    /// nothing.
    fn refuse_before_making(&self, beginning: Beginning) -> Result<()> {
        let root = self.open_root()?;
        let shelf = self.shelf_of(&root)?;
        if shelf.dir().is_some() || self.is_restore_decided()? {
            return Ok(());
        }
        for name in SIDE_DIRECTORIES {
            side::open_to_read(&self.disk, &root, name)?;
        }
        let health = self.judge(&self.live()?, &shelf, Look::Thorough)?;
        if self.is_to_be_initialized(beginning, &health) {
            Ok(())
        } else {
            Err(self.refusal(&health, &shelf))
        }
    }

    /// Commits the document without changes: seals a legacy one, persists a migration.
    pub fn seal_as_it_is(&self, order: &Order) -> Result<Outcome> {
        let order = Order { author: Author::Program, ..order.clone() };
        self.change(&order, &mut |base| Ok(base.draft().into()))
    }

    /// Does the housekeeping of a writer where a state exists or existed: finishes what was
    /// interrupted, heals damage, renews the mirror, removes what dead writers left.
    pub fn tidy(&self) -> Result<()> {
        let (held, ground) = self.undamaged_ground(Purpose::Write, self.deadline())?;
        self.sweep(&held)?;
        self.keep_mirror(&held, &ground);
        Ok(())
    }

    /// Removes what dead writers left in any directory. No restore is in progress: taking the lock
    /// settled it.
    fn sweep(&self, held: &Held) -> Result<()> {
        self.clear_workshop(&held.root)?;
        for name in self.disk.list(&held.root)? {
            if name.to_str().is_some_and(is_temporary) {
                self.disk.unlink(&held.root, name)?;
            }
        }
        Ok(())
    }

    /// Writes the first document; `None` if another writer was faster.
    fn write_first(
        &self,
        held: &Held,
        ground: &Ground,
        order: &Order,
        highest: Option<Revision>,
    ) -> Result<Option<Revision>> {
        let revision = Revision::after(highest)
            .ok_or_else(|| Error::new(Kind::Internal, "the last possible revision is reached"))?;
        let sealed = self.seal_as(first(), revision, &new_lineage()?, None)?;
        let plan = Plan {
            sealed: &sealed,
            source: None,
            displaced: Displaced::Nothing,
            signals: &Signals::STAY,
            fences: &order.fences,
            room: Room::MayBeMade,
        };
        if self.publish(held, ground, &plan)? == Published::Overtaken {
            return Ok(None);
        }
        let mirrored = ground.shelf.dir().map_or(Ok(()), |shelf| self.mirror_live(held, shelf));
        if let Err(error) = mirrored {
            self.warn(format!("the mirror may not survive a power cut: {error}"));
        }
        self.record_commit((held, ground), order, &sealed, &[]);
        Ok(Some(revision))
    }

    /// Archives the whole history and starts a new lineage.
    fn begin_anew(&self, held: &Held, ground: Ground, order: &Order) -> Result<Option<Revision>> {
        let found = ground.live.as_ref();
        if found.is_none() && !ground.shelf.has_history() && ground.shelf.evidence.is_empty() {
            let highest =
                self.highest_remembered(&ground)?.max(self.archived_revision(&ground.shelf)?);
            return self.write_first(held, &ground, order, highest);
        }
        let copies = ground.shelf.copies()?;
        if let Health::TooNew(_) = ground.health {
            return Err(self.refusal(&ground.health, &ground.shelf));
        }
        best(copies).map_err(written_by_a_newer_program)?;
        let live = match &ground.health {
            Health::Healthy(document) => Some(document.seal.revision),
            _ => None,
        };
        let named = ground.shelf.backups.iter().filter_map(|backup| backup.revision).max();
        let highest =
            live.max(self.highest_remembered(&ground)?).max(self.archived_revision(&ground.shelf)?);
        // A backup that is no longer readable may have held the revision in its name.
        let highest = highest.max(named);
        let revision = Revision::after(highest)
            .ok_or_else(|| Error::new(Kind::Internal, "the last possible revision is reached"))?;
        let sealed = self.seal_as(first(), revision, &new_lineage()?, None)?;
        self.start_new_lineage(held, &ground, (&sealed, order))
    }

    pub(super) fn free_archive_name(&self, shelf: &Dir, lineage: &str) -> Result<String> {
        let name = format!("{ARCHIVE_PREFIX}{lineage}-{}", compact(self.disk.now()));
        Ok(first_free(&name, "", |name| self.disk.check_free(shelf, name))?)
    }

    /// The highest revision in the names of archives: after an interrupted `init --fresh` nothing
    /// else may be left.
    fn archived_revision(&self, shelf: &Shelf) -> Result<Option<Revision>> {
        let Some(dir) = shelf.dir() else {
            return Ok(None);
        };
        let mut highest = None;
        for name in &shelf.archives {
            let archive = match self.disk.open_dir(dir, name) {
                // This program did not make it.
                Err(error) if error.is(Errno::NOTDIR) || error.is(Errno::LOOP) => continue,
                archive => archive?,
            };
            let archive = Shelf::list(&self.disk, archive)?;
            let named = archive.backups.iter().filter_map(|backup| backup.revision).max();
            let mirrored = if archive.has_mirror {
                archive.read(MIRROR)?.sealed().map(|document| document.seal.revision)
            } else {
                None
            };
            highest = highest.max(named).max(mirrored);
        }
        Ok(highest)
    }

    /// Accepts a foreign edit: validates, seals and commits it. The last acknowledged revision
    /// becomes a pinned backup.
    pub fn adopt(&self, order: &Order) -> Result<Outcome> {
        if order.mode == Mode::DryRun {
            let (health, shelf) = self.look()?;
            return match &health {
                Health::Foreign(edit) => {
                    let adopted =
                        edit.acceptable().map_err(|health| self.refusal(&health, &shelf))?.value;
                    Ok(Outcome::Planned(Foreign { value: adopted, ..edit.clone() }.changes()))
                }
                Health::Healthy(_) | Health::Legacy(_) => Ok(Outcome::Planned(Vec::new())),
                health => Err(self.refusal(health, &shelf)),
            };
        }
        let deadline = self.deadline();
        loop {
            let held = self.hold(self.precheck(Purpose::Write)?, Purpose::Write, deadline)?;
            let ground = self.survey(&held)?;
            let edit = match &ground.health {
                Health::Foreign(edit) => edit,
                Health::Healthy(document) => {
                    self.check_conditions(order, document.seal.revision.get())?;
                    return Ok(Outcome::Unchanged { revision: document.seal.revision });
                }
                Health::Legacy(_) => {
                    drop(held);
                    return self.seal_as_it_is(order);
                }
                health => return Err(self.refusal(health, &ground.shelf)),
            };
            self.check_conditions(order, edit.revision())?;
            if let Some(outcome) = self.adopt_edit((&held, &ground), edit, order)? {
                return Ok(outcome);
            }
            give_up_after(deadline)?;
        }
    }

    /// Commits a foreign edit unchanged; `None` if the live file was changed in the meantime.
    pub(super) fn adopt_edit(
        &self,
        (held, ground): (&Held, &Ground),
        edit: &Foreign,
        order: &Order,
    ) -> Result<Option<Outcome>> {
        let migrated = edit.acceptable().map_err(|health| self.refusal(&health, &ground.shelf))?;
        let lineage = self.lineage_to_continue(ground)?;
        let created = migrated.value.pointer("/metadata/created").cloned();
        let sealed = self.seal(migrated.value, ground, &lineage, created.as_ref())?;
        let plan = Plan {
            sealed: &sealed,
            source: None,
            displaced: Displaced::by_edit(self.disk.now(), edit),
            signals: &Signals::Follow, // it may be an older revision
            fences: &order.fences,
            room: Room::MayBeMade,
        };
        let lost = match &edit.reference {
            Some(reference) => self.lost_after(
                &ground.shelf,
                &reference.seal.lineage,
                Some(reference.seal.revision),
            ),
            None => self.lost_after(&ground.shelf, &lineage, None),
        };
        if self.publish(held, ground, &plan)? == Published::Overtaken {
            return Ok(None);
        }
        if let Some(lost) = lost {
            self.warn(lost);
        }
        self.record_commit((held, ground), order, &sealed, &[]);
        let revision = sealed.document.seal.revision;
        Ok(Some(Outcome::Committed { revision, migrated_from: migrated.from }))
    }
}
