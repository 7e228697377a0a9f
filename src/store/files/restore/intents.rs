//! The record of an interrupted restore or `init --fresh`, without a lock and without a change.

use rustix::io::Errno;

use super::origin::foreign;
use crate::error::{Error, Hint, Kind, Result};
use crate::fs::Dir;
use crate::store::files::new_lineage::intent::foreign_start;
use crate::store::files::root::Root;
use crate::store::files::{FileStore, new_lineage};
use crate::store::layout::{CHECKPOINTS, INTENT, WORKSHOP};
use crate::store::restore::intent::{self, Intent};
use crate::{side, user};

/// The root that an interrupted restore belongs to.
#[derive(Debug)]
pub enum Interrupted {
    /// This one: the next command finishes the restore of this checkpoint.
    Ours(String),
    /// Another one, or an unknown one: no command carries it out. Holds the refusal of a writer.
    Foreign(Error),
}

/// The record of an interrupted restore or `init --fresh`.
#[derive(Clone, Copy, Debug)]
pub struct Intents<'s> {
    pub(in crate::store) store: &'s FileStore,
}

impl Intents<'_> {
    /// The checkpoint of a restore that is decided and not carried out yet. Changes nothing.
    pub fn interrupted(&self) -> Result<Option<Interrupted>> {
        if !self.is_decided()? {
            return Ok(None);
        }
        let root = Root::of(self.store).open()?;
        let intent = match self.read(&root) {
            Ok(Some((_, intent))) => intent,
            Ok(None) => {
                return Ok(foreign_start(self.store, &root)?.map(Interrupted::Foreign));
            }
            Err(error) if error.kind == Kind::Corrupt => {
                return Ok(Some(Interrupted::Ours("an unknown checkpoint".to_owned())));
            }
            Err(error) => return Err(error),
        };
        Ok(Some(match foreign(self.store, &root, &intent)? {
            Some(refusal) => Interrupted::Foreign(refusal),
            None => Interrupted::Ours(intent.checkpoint),
        }))
    }

    /// Returns whether a restore that is decided and not carried out yet restores a checkpoint, or
    /// would be undone by it.
    pub(in super::super) fn names(&self, id: &str) -> Result<bool> {
        if !self.is_decided()? {
            return Ok(false);
        }
        let intent = self.read(&Root::of(self.store).open()?)?;
        Ok(intent.is_some_and(|(_, intent)| intent.checkpoint == id || intent.pre_restore == id))
    }

    /// Returns whether a restore is decided and not carried out yet, with one lookup, for readers.
    /// An intent in a directory of another user would not be followed, so it may be missed.
    pub(in super::super) fn is_decided(&self) -> Result<bool> {
        let path = self.store.settings.directory.join(CHECKPOINTS).join(WORKSHOP).join(INTENT);
        match self.store.disk.stat(&Dir::working(), &path) {
            // Reported by the command that opens it.
            Err(error) if error.is(Errno::NOTDIR) => Ok(false),
            Err(error) if error.is(Errno::ACCESS) && self.warn_of_foreign_checkpoints()? => {
                Ok(false)
            }
            found => Ok(found?.is_some()),
        }
    }

    /// Warns where another user owns the checkpoints; returns false where none does.
    fn warn_of_foreign_checkpoints(&self) -> Result<bool> {
        let path = self.store.settings.directory.join(CHECKPOINTS);
        let found = self.store.disk.stat(&Dir::working(), &path)?;
        let Some(owner) = found.map(|stat| stat.uid).filter(|owner| *owner != user::current())
        else {
            return Ok(false);
        };
        let (shown, name) = (path.display(), user::describe(owner));
        let next = match user::use_as(owner) {
            Hint::Shell(command, why) => format!("{why}: {command}"),
            _ => "`recover doctor` says how to give it back".to_owned(),
        };
        self.store.warn(format!("{shown} belongs to {name} and cannot be read; {next}"));
        Ok(true)
    }

    /// Reads the intent, without creating anything; `None` also for the intent of a new lineage.
    pub(in super::super) fn read(&self, root: &Dir) -> Result<Option<(Dir, Intent)>> {
        let Some(checkpoints) = side::open_to_read(&self.store.disk, root, CHECKPOINTS)? else {
            return Ok(None);
        };
        let Some(dir) = side::open_to_read(&self.store.disk, &checkpoints, WORKSHOP)? else {
            return Ok(None);
        };
        match self.store.disk.read(&dir, INTENT, intent::LIMIT)? {
            Some(found) if new_lineage::intent::Intent::read(&found.bytes).is_some() => Ok(None),
            Some(found) => Ok(Some((dir, Intent::read(&found.bytes)?))),
            None => Ok(None),
        }
    }
}
