//! The local side of a move between a root and a store on other machines.
//!
//! 1. The mark is put in place, durably.
//! 2. The state file gets its name away from there, durably: from now on commands refuse. For a
//!    state that comes back, it is written under that name.
//! 3. The other side is changed, by the caller.
//! 4. The mark says that it was moved; or the state file gets its own name, and the mark goes.
//!
//! Where the state file is in its place, the state is here, whatever the mark says.

use std::path::Path;
use std::rc::Rc;

use bytes::Bytes;

use super::FileStore;
use super::begin::Transactions;
use super::observe::Observation;
use super::root::Root;
use super::state_lock::{StateLock, StateLocks};
use crate::document::seal::{Document, Lineage};
use crate::document::{READ_LIMIT, Reading, inspect_text};
use crate::error::{Error, Kind, Result};
use crate::fs::identity::DirId;
use crate::fs::stage::{Durability, temporary};
use crate::fs::{Content, Dir, Disk};
use crate::journal::Event;
use crate::lock::BreakTarget;
use crate::name::Name;
use crate::store::Settings;
use crate::store::copies::{BackupCopy, Copies as _, CopyState};
use crate::store::diagnosis::Health;
use crate::store::guard::Standing;
use crate::store::layout::{AWAY, BACKUPS, BackupName, MOVED, SIGNALS};
use crate::store::moving::{self, Contents, Mark, Phase, check_unguarded, locked, occupied};
use crate::store::options::LockPurpose;

impl Root<'_> {
    /// The mark of a state that was moved, or is on its way.
    pub(super) fn mark(&self) -> Result<Option<Mark>> {
        mark_in(&self.store.disk, &self.store.settings.directory)
    }
}

pub(super) fn mark_in(disk: &Disk, directory: &Path) -> Result<Option<Mark>> {
    let found = disk.read(&Dir::working(), directory.join(MOVED), moving::LIMIT)?;
    found.map(|Content { bytes, .. }| Mark::read(&bytes)).transpose()
}

/// Refuses grants of locks in a root with its state elsewhere. It is asked where tokens are
/// reserved, and a push makes the next grant do that: so no other grant pays for it.
pub fn refusal_of_grants(disk: &Disk, settings: &Settings) -> impl Fn() -> Result<()> + use<> {
    let (disk, directory, file) = (disk.clone(), settings.directory.clone(), settings.path());
    move || match mark_in(&disk, &directory)? {
        Some(mark) if disk.stat(&Dir::working(), &file)?.is_none() => {
            Err(mark.refusal(&file.display().to_string()))
        }
        _ => Ok(()),
    }
}

/// Moves of the state of a root.
#[derive(Clone, Copy, Debug)]
pub struct Moves<'s> {
    pub(in crate::store) store: &'s FileStore,
}

/// A root that is locked for a move.
#[derive(Debug)]
pub struct Move<'s> {
    store: &'s FileStore,
    lock: Rc<StateLock<'s>>,
    /// The mark that is in place.
    pub mark: Mark,
    /// The mark that was there before, for a move that is given up.
    before: Option<Mark>,
    /// Whether this command began it, so that the store knows nothing of it.
    pub is_new: bool,
}

impl<'s> Moves<'s> {
    /// The mark of a state that was moved, or is on its way.
    pub fn mark(&self) -> Result<Option<Mark>> {
        Root::of(self.store).mark()
    }

    /// Begins or continues to move the state to the store of `mark`: afterwards its file is away.
    /// Returns what is to be put into the store.
    pub fn push(&self, mark: Mark) -> Result<(Move<'s>, Contents)> {
        let found = self.mark()?;
        let is_here = self.is_here()?;
        match &found {
            Some(found) if !is_here => {
                if found.phase != Phase::Pushing || !found.is_of_store_of(&mark) {
                    return Err(found.refusal(&self.store.shown()));
                }
                let lock = self.lock(LockPurpose::Abort)?;
                self.check_own(&lock, found)?;
                let mark = Mark { url: mark.url, store: mark.store, ..found.clone() };
                let moved = self.again(lock, mark, None);
                let contents = moved.contents()?;
                return Ok((moved, contents));
            }
            _ => {}
        }
        let deadline = StateLocks::of(self.store).deadline();
        let tx = Transactions::of(self.store).begin_write(deadline)?;
        let document = match &tx.seen.health {
            Health::Healthy(document) => document.clone(),
            Health::Legacy(_) => {
                let message = format!("{} was never sealed", self.store.shown());
                return Err(Error::new(Kind::NotInitialized, message)
                    .hint_command("state init", "seal it, and push it then"));
            }
            _ => return Err(tx.seen.refusal()),
        };
        let lock = tx.lock.clone();
        let lineage = Some(document.seal.lineage.clone());
        let guards = self.store.guards().list()?.into_iter();
        let running = guards.filter(|guard| guard.standing == Standing::Running);
        check_unguarded(running.map(|guard| guard.id))?;
        let mark = Mark { lineage, root: Some(self.identity(&lock)?), ..mark };
        let moved = Move { store: self.store, lock, mark, before: None, is_new: true };
        moved.put_mark(&moved.mark)?;
        let held = self.store.locks.forget_tokens(deadline)?;
        if !held.is_empty() {
            moved.remove_mark()?;
            return Err(locked(&held));
        }
        let backups = moved.backups()?;
        let disk = &self.store.disk;
        let live = moved.lock.root.entry(&self.store.settings.file_name);
        disk.rename(live, backups.entry(AWAY))?;
        disk.sync_dir(&backups)?;
        disk.sync_dir(&moved.lock.root)?;
        let contents = moved.contents()?;
        Ok((moved, contents))
    }

    /// Continues a move that is to be given up: one like `wanted`. `None` if there is none.
    pub fn interrupted(&self, wanted: &Mark) -> Result<Option<Move<'s>>> {
        let phase = wanted.phase;
        match self.mark()? {
            Some(mark) if mark.phase == phase && mark.is_of_store_of(wanted) => {
                let lock = self.lock(LockPurpose::Host)?;
                let before = match phase {
                    Phase::Pulling => mark.lineage.clone().map(|lineage| Mark {
                        phase: Phase::Moved,
                        lineage: Some(lineage),
                        ..mark.clone()
                    }),
                    _ => None,
                };
                Ok(Some(self.again(lock, mark, before)))
            }
            // A pull that has changed nothing here.
            Some(Mark { phase: Phase::Moved, .. }) if phase == Phase::Pulling => Ok(None),
            Some(mark) if !self.is_here()? => Err(mark.refusal(&self.store.shown())),
            _ => Ok(None),
        }
    }

    /// Begins or continues to bring a state back from the store of `mark`. There is none here.
    pub fn pull(&self, mark: Mark) -> Result<Move<'s>> {
        let shown = self.store.shown();
        if self.is_here()? {
            let error = occupied(&format!("{shown} is a state already"));
            return Err(error.hint_command("state status", "see what it is; name another --root"));
        }
        let found = self.mark()?;
        let (mark, before) = match found {
            Some(found) if found.phase == Phase::Pulling && found.is_of_store_of(&mark) => {
                let lock = self.lock(LockPurpose::Host)?;
                self.check_own(&lock, &found)?;
                let mark = Mark { url: mark.url, store: mark.store, ..found };
                return Ok(self.again(lock, mark, None));
            }
            Some(found) if found.phase == Phase::Moved => {
                (Mark { lineage: found.lineage.clone(), ..mark }, Some(found))
            }
            Some(found) => return Err(found.refusal(&shown)),
            None => {
                let backup_dir = Root::of(self.store).backup_dir_to_read()?;
                if Observation::has_history(self.store, &backup_dir) {
                    let error = occupied(&format!("{shown} is gone, but its history is here"));
                    return Err(error.hint_command("state recover", "or name another --root"));
                }
                (mark, None)
            }
        };
        let lock = self.lock(LockPurpose::Host)?;
        let mark = Mark { root: Some(self.identity(&lock)?), ..mark };
        let moved = Move { store: self.store, lock, mark, before, is_new: true };
        moved.put_mark(&moved.mark)?;
        Ok(moved)
    }

    fn again(&self, lock: Rc<StateLock<'s>>, mark: Mark, before: Option<Mark>) -> Move<'s> {
        Move { store: self.store, lock, mark, before, is_new: false }
    }

    fn identity(&self, lock: &StateLock<'_>) -> Result<DirId> {
        let gone = || Error::new(Kind::Conflict, "the root was removed meanwhile");
        DirId::of(&self.store.disk, &lock.root)?.ok_or_else(gone)
    }

    /// Refuses to go on with a move of another root.
    fn check_own(&self, lock: &StateLock<'_>, found: &Mark) -> Result<()> {
        match found.is_copied_to(&self.identity(lock)?) {
            true => Err(found.refusal_in_copy(&self.store.shown())),
            false => Ok(()),
        }
    }

    fn is_here(&self) -> Result<bool> {
        Ok(self.store.disk.stat(&Dir::working(), self.store.settings.path())?.is_some())
    }

    fn lock(&self, purpose: LockPurpose) -> Result<Rc<StateLock<'s>>> {
        let deadline = StateLocks::of(self.store).deadline();
        Transactions::of(self.store).lock_state(purpose, deadline)
    }
}

impl Move<'_> {
    /// Returns whether it was begun in this root, and not in one of which this is a copy.
    pub fn is_own(&self) -> Result<bool> {
        let here = Moves { store: self.store }.identity(&self.lock)?;
        Ok(!self.mark.is_copied_to(&here))
    }

    /// Notes that the state is in the store.
    pub fn complete(self) -> Result<()> {
        self.put_mark(&Mark { phase: Phase::Moved, ..self.mark.clone() })
    }

    /// Ends grants from before the state was elsewhere, and lets tokens of this root go on from
    /// `end`: the store gave out lower ones.
    /// Where the state never left its place, the grants are of living owners, and stay.
    pub fn begin_locks_again(&self, end: u64) -> Result<()> {
        if (Moves { store: self.store }).is_here()? {
            return Ok(());
        }
        let (locks, deadline) = (&self.store.locks, StateLocks::of(self.store).deadline());
        locks.raise_tokens(end, deadline)?;
        let held = locks.list()?.into_iter().filter(|entry| entry.token.is_some());
        let mut names: Vec<String> = held.map(|entry| entry.lock).collect();
        names.dedup();
        for name in names {
            match locks.break_lock(&Name::parse("lock", &name)?, BreakTarget::All, deadline) {
                Err(error) if error.kind != Kind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Gives up: the state file is put back, or the state that was to come back is removed.
    pub fn give_up(self) -> Result<()> {
        let disk = &self.store.disk;
        match self.mark.phase {
            Phase::Pushing => self.put_back()?,
            // The state of an earlier push has served its purpose.
            _ => {
                if let Some(backups) = self.backups_to_read()? {
                    disk.unlink(&backups, AWAY)?;
                    disk.sync_dir(&backups)?;
                }
            }
        }
        match &self.before {
            Some(before) => self.put_mark(before),
            None => self.remove_mark(),
        }
    }

    /// Writes the document that comes back under the name of a state that is away.
    pub fn receive(&self, state: &Bytes) -> Result<()> {
        let backups = self.backups()?;
        let disk = &self.store.disk;
        let name = temporary(self.lock.flock.inode(), "moved");
        let staged = disk.stage(&backups, &name, state, Durability::Fsync)?;
        disk.rename(backups.entry(&name), backups.entry(AWAY))?;
        staged.keep();
        disk.sync_dir(&backups)?;
        Ok(disk.sync_dir(&self.lock.root)?)
    }

    /// The document that has come back, if it was received.
    pub fn received(&self) -> Result<Option<Document>> {
        Ok(self.away()?.map(|(document, _)| document))
    }

    /// Takes the rest, and puts the state file in place: from now on the state is here.
    pub fn arrive(self, contents: &Contents) -> Result<()> {
        let disk = &self.store.disk;
        let backups = self.backups()?;
        for (name, text) in &contents.backups {
            let is_backup = BackupName::parse(name).is_some() && crate::name::is_plain(name);
            if is_backup && disk.stat(&backups, name)?.is_none() {
                disk.stage(&backups, name, text, Durability::Fsync)?.keep();
            }
        }
        disk.sync_dir(&backups)?;
        let signals = Root::of(self.store).side_directory(&self.lock.root, SIGNALS)?;
        for (name, content) in &contents.signals {
            let Ok(name) = Name::parse("signal", name) else { continue };
            let temporary = temporary(self.lock.flock.inode(), "signal");
            let staged = disk.stage(&signals, &temporary, content, Durability::Fsync)?;
            disk.rename(signals.entry(&temporary), signals.entry(&format!("{name}.json")))?;
            staged.keep();
        }
        disk.sync_dir(&signals)?;
        self.record(contents, &backups);
        self.begin_locks_again(contents.tokens)?; // locks can be granted where the state is
        self.put_back()?;
        let tx = self.lock.begin()?;
        if let Err(error) = tx.renew_mirror() {
            self.store.warn(format!("the mirror is not up to date: {error}"));
        }
        self.remove_mark()
    }

    /// Adds the commits that the journal does not have.
    fn record(&self, contents: &Contents, backups: &Dir) {
        let journal = crate::journal::Journal::new(&self.store.disk, backups);
        let known = journal.read();
        let last = known.commits().filter(|commit| commit.lineage == contents.lineage);
        let last = last.map(|commit| commit.revision).max();
        let missing = contents.commits.iter().filter(|commit| Some(commit.revision) > last);
        let mut kept = journal.make().map_err(|error| error.to_string());
        for commit in missing {
            kept = kept.and_then(|()| journal.append(&Event::Commit(commit.clone())).map(drop));
        }
        if let Err(error) = kept {
            self.store.warn(format!("the history did not come with the state: {error}"));
        }
    }

    /// Gives the state file its own name, unless it has it.
    fn put_back(&self) -> Result<()> {
        let disk = &self.store.disk;
        let Some(backups) = self.backups_to_read()? else { return Ok(()) };
        let live = &self.store.settings.file_name;
        let is_here = disk.stat(&self.lock.root, live)?.is_some();
        if !is_here && disk.stat(&backups, AWAY)?.is_some() {
            disk.rename(backups.entry(AWAY), self.lock.root.entry(live))?;
        }
        disk.sync_dir(&self.lock.root)?;
        Ok(disk.sync_dir(&backups)?)
    }

    fn contents(&self) -> Result<Contents> {
        let (document, state) = self.away()?.ok_or_else(|| {
            let message = "the state that was put away for the move is gone or damaged";
            Error::new(Kind::Corrupt, message).hint_command(
                format!("state push {} --abort", crate::error::quote(&self.mark.url)),
                "give it up, and recover the state",
            )
        })?;
        let seal = document.seal.clone();
        let backup_dir = Root::of(self.store).backup_dir_of(&self.lock.root)?;
        let is_kept = |copy: &&BackupCopy| {
            BackupName::parse(&copy.name).is_some() && !matches!(copy.state, CopyState::Invalid(_))
        };
        let names: Vec<String> =
            backup_dir.copies()?.iter().filter(is_kept).map(|copy| copy.name.clone()).collect();
        let Some(dir) = backup_dir.dir() else {
            return Err(moving::occupied("no history is here"));
        };
        let mut backups = Vec::new();
        for name in names {
            if let Some(found) = self.store.disk.read(dir, &name, READ_LIMIT)? {
                backups.push((name, Bytes::from(found.bytes)));
            }
        }
        Ok(Contents {
            signals: self.signals()?,
            commits: backup_dir
                .events()
                .commits()
                .filter(|commit| commit.lineage == seal.lineage)
                .cloned()
                .collect(),
            lineage: seal.lineage,
            revision: seal.revision,
            digest: seal.digest,
            tokens: self.store.locks.tokens_end()?,
            state,
            backups,
        })
    }

    fn signals(&self) -> Result<Vec<(String, Bytes)>> {
        let disk = &self.store.disk;
        let dir = crate::side::open_to_read(disk, &self.lock.root, SIGNALS)?;
        let Some(dir) = dir else { return Ok(Vec::new()) };
        let mut signals = Vec::new();
        for file in disk.list(&dir)? {
            let name = file.to_str().and_then(|file| file.strip_suffix(".json"));
            let Some(name) = name.and_then(|name| Name::parse("signal", name).ok()) else {
                continue;
            };
            if let Some(found) = disk.read(&dir, &file, READ_LIMIT)? {
                signals.push((name.to_string(), Bytes::from(found.bytes)));
            }
        }
        signals.sort();
        Ok(signals)
    }

    /// The document that is away, if it is what was put there.
    fn away(&self) -> Result<Option<(Document, Bytes)>> {
        let Some(backups) = self.backups_to_read()? else { return Ok(None) };
        let Some(found) = self.store.disk.read(&backups, AWAY, READ_LIMIT)? else {
            return Ok(None);
        };
        let bytes = Bytes::from(found.bytes);
        match inspect_text(bytes.clone()) {
            Reading::Sealed(document) => Ok(Some((document, bytes))),
            _ => Ok(None),
        }
    }

    fn backups(&self) -> Result<Dir> {
        Root::of(self.store).side_directory(&self.lock.root, BACKUPS)
    }

    fn backups_to_read(&self) -> Result<Option<Dir>> {
        crate::side::open_to_read(&self.store.disk, &self.lock.root, BACKUPS)
    }

    fn put_mark(&self, mark: &Mark) -> Result<()> {
        let (disk, root) = (&self.store.disk, &self.lock.root);
        let name = temporary(self.lock.flock.inode(), "mark");
        let staged = disk.stage(root, &name, &mark.write()?, Durability::Fsync)?;
        disk.rename(root.entry(&name), root.entry(MOVED))?;
        staged.keep();
        Ok(disk.sync_dir(root)?)
    }

    fn remove_mark(&self) -> Result<()> {
        self.store.disk.unlink(&self.lock.root, MOVED)?;
        Ok(self.store.disk.sync_dir(&self.lock.root)?)
    }

    /// The lineage of the state that was moved away from here.
    pub fn lineage(&self) -> Option<&Lineage> {
        self.mark.lineage.as_ref()
    }
}
