//! Guards: a checkpoint before a command, and its changes put back if it fails.
//!
//! While a guard is on record and alive, the commits of its command carry its id in the journal, and the backups that tell
//! whose changes are whose are kept. A guard that did not put back everything stays on record until somebody decides.

pub mod record;
mod verdict;

use std::ffi::OsStr;

use serde::Serialize;
use serde_json::Value;

use self::record::{Base, LIMIT, Record, Status, file_name, new_token};
use self::verdict::Verdict;
use super::Store;
use super::checkpoint::catalog::{Checkpoint, Which};
use super::checkpoint::retention::Retention;
use super::checkpoint::{Snapshot, manifest};
use super::commit::{Plan, Published, Room};
use super::ground::{Ground, Held};
use super::hold::Hands;
use super::judge::Health;
use super::layout::{CONFIG, pinned};
use super::order::{Order, Purpose, give_up_after};
use super::restore::Proposed;
use super::restore::intent::{Action, Intent};
use super::retain::Displaced;
use super::shelf::Shelf;
use super::signal::{SignalFile, Signals};
use crate::document::READ_LIMIT;
use crate::document::seal::{Digest, Revision};
use crate::error::{Error, Hint, Kind, Result};
use crate::fs::stage::{Sync, temporary};
use crate::fs::{Dir, FsResult};
use crate::journal::{Event, GuardEvent, Journal};
use crate::lock::process::{Identity, Place, lineage};
use crate::name::Name;
use crate::side;
use crate::time::rfc3339_millis;
use crate::tree;

/// The variable that shows a command the guards it runs under: `ID:TOKEN[,ID:TOKEN]`, outermost first.
pub const GUARD_TOKEN: &str = "PIPELINE_GUARD_TOKEN";

/// A guard that began.
#[derive(Clone, Debug)]
pub struct Begun {
    /// Its id, which is that of its checkpoint.
    pub id: String,
    /// What its command shows: `ID:TOKEN`.
    pub shown: String,
}

/// How a guard stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "standing", content = "why")]
pub enum Standing {
    /// Its command runs, as far as can be told from here.
    Running,
    /// Its process ended without a word; nothing was put back.
    Killed,
    /// Its command failed, and not everything was put back.
    Unrestored(String),
    /// The record was made in another root or on another machine.
    Foreign,
    /// The record cannot be read.
    Damaged,
}

/// A guard on record.
#[derive(Clone, Debug, Serialize)]
pub struct OnRecord {
    /// Its id, which is that of its checkpoint.
    pub id: String,
    /// How it stands.
    #[serde(flatten)]
    pub standing: Standing,
}

impl OnRecord {
    /// What there is to say about it, unless all is well.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        let id = &self.id;
        Some(match &self.standing {
            Standing::Running => return None,
            Standing::Killed => format!("the guard {id} was killed, and nothing that its command changed was put back"),
            Standing::Unrestored(why) => format!("the guard {id} did not put everything back: {why}"),
            Standing::Foreign => format!("the record of the guard {id} is of another root or machine"),
            Standing::Damaged => format!("the record of the guard {id} is damaged"),
        })
    }

    /// What to type about it.
    #[must_use]
    pub fn hints(&self) -> Vec<Hint> {
        let run = |command: &str, why: &str| Hint::Run(format!("{command} {}", self.id), why.to_owned());
        let forget = run("recover guard --forget", "keep everything as it is");
        match self.standing {
            Standing::Running => Vec::new(),
            Standing::Killed | Standing::Unrestored(_) => {
                vec![run("recover restore", "put everything back, also what others committed since"), forget]
            }
            Standing::Foreign | Standing::Damaged => vec![run("recover guard --forget", "remove the record")],
        }
    }
}

/// How a guard ended whose command failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// Everything that the command changed was put back.
    Restored {
        /// What of `config/` no checkpoint holds: it was moved aside.
        left: Vec<String>,
    },
    /// Others committed, and what the command changed was put back beside their changes.
    PutBack {
        /// The revision that was committed for it, if one was needed.
        revision: Option<u64>,
    },
    /// Not everything was put back; why.
    Unrestored(String),
}

impl Store {
    /// Makes a checkpoint and puts a guard on record, both under one lock.
    pub fn begin_guard(&self, snapshot: &Snapshot) -> Result<Begun> {
        let token = new_token()?;
        let id = self
            .checkpoint_then(snapshot, Retention::Automatic, &mut |hands, ground, made| {
                let record = self.new_record(hands, ground, (&made.id, &snapshot.operation), &token)?;
                self.put_record(&hands.held, &ground.shelf, &record)?;
                let begun = self.announce(&hands.held, &ground.shelf, &record.id);
                if begun.is_err()
                    && let Some(dir) = ground.shelf.dir()
                {
                    self.drop_record(dir, &record.id)?;
                }
                begun
            })?
            .id;
        Ok(Begun { shown: format!("{id}:{token}"), id })
    }

    fn new_record(&self, hands: &Hands<'_>, ground: &Ground, named: (&str, &Name), token: &str) -> Result<Record> {
        let process = Identity::of(std::process::id())?
            .ok_or_else(|| Error::new(Kind::DependencyMissing, "/proc does not show this process"))?;
        let root = self.disk.stat(&hands.held.root, ".")?;
        let root = root.ok_or_else(|| Error::new(Kind::Conflict, "the root was removed meanwhile"))?;
        let base = match &ground.health {
            Health::Healthy(document) => {
                let seal = document.seal.clone();
                Some(Base { revision: seal.revision, lineage: seal.lineage, digest: seal.digest })
            }
            _ => None,
        };
        let running = self.running(&hands.held.root, &ground.shelf)?;
        let around = self.guards_of_commit(&hands.held, &ground.shelf);
        Ok(Record {
            id: named.0.to_owned(),
            operation: named.1.to_string(),
            started: rfc3339_millis(self.disk.now()),
            process,
            token: Digest::of(token.as_bytes()),
            root: (root.dev, root.ino),
            base,
            beside: running.into_iter().map(|other| other.id).find(|other| !around.contains(other)),
            status: Status::Running,
        })
    }

    /// Puts a record in place, durably.
    fn put_record(&self, held: &Held, shelf: &Shelf, record: &Record) -> Result<()> {
        let dir = shelf.dir().ok_or_else(|| Error::new(Kind::Internal, "a guard without its directory"))?;
        let name = temporary(held.lock.inode(), "guard");
        let staged = self.disk.stage(dir, &name, &record.write()?, Sync::Now)?;
        self.disk.rename((dir, OsStr::new(&name)), (dir, OsStr::new(&file_name(&record.id))))?;
        staged.keep();
        Ok(self.disk.sync_dir(dir)?)
    }

    /// Writes that a guard begins. Without a journal nothing would tell whose commits are whose.
    fn announce(&self, held: &Held, shelf: &Shelf, id: &str) -> Result<()> {
        let written = match shelf.dir().filter(|_| shelf.has_journal) {
            Some(dir) => {
                Journal::new(&self.disk, dir).append(&self.guard_event(held, shelf, id, "began"), held.lock.inode())
            }
            None => Err("there is none".to_owned()),
        };
        written.map_err(|why| {
            let message =
                format!("without a journal a guard cannot tell whose commits are whose: {why}; nothing was run");
            Error::new(Kind::DependencyMissing, message).try_command("state init", "makes it")
        })
    }

    fn guard_event(&self, held: &Held, shelf: &Shelf, id: &str, step: &str) -> Event {
        let mut guards = self.guards_of_commit(held, shelf);
        guards.retain(|guard| guard != id);
        Event::Guard(GuardEvent {
            time: rfc3339_millis(self.disk.now()),
            id: id.to_owned(),
            step: step.to_owned(),
            guards,
        })
    }

    fn journal_guard(&self, held: &Held, shelf: &Shelf, id: &str, step: &str) {
        if let Some(dir) = shelf.dir().filter(|_| shelf.has_journal) {
            self.append_to_journal(dir, held, &self.guard_event(held, shelf, id, step));
        }
    }

    fn drop_record(&self, shelf: &Dir, id: &str) -> FsResult<()> {
        self.disk.unlink(shelf, file_name(id))?;
        self.disk.sync_dir(shelf)
    }

    /// The guarded command succeeded: the guard is no longer on record. It takes no lock, which others may hold for long.
    pub fn end_guard(&self, id: &str) -> Result<()> {
        let root = self.open_root()?;
        let shelf = self.shelf_of(&root)?;
        shelf.dir().map_or(Ok(()), |dir| Ok(self.drop_record(dir, id)?))
    }

    /// Takes a guard off the record, whatever it is; 1 `not_found` where there is none.
    pub fn forget_guard(&self, id: &str) -> Result<()> {
        let held = self.hold(self.precheck(Purpose::Write)?, Purpose::Write, self.deadline())?;
        let shelf = self.shelf_of(&held.root)?;
        let on_record = self.guards_in(&held.root, &shelf)?;
        let Some(found) = on_record.iter().find(|guard| guard.id == id) else {
            return Err(Error::new(Kind::NotFound, format!("no guard {id} is on record; nothing was changed"))
                .try_command("recover status", "see which ones are"));
        };
        if found.standing == Standing::Running {
            return Err(Error::new(Kind::NotOwner, format!("the guard {id} runs; it ends with its command"))
                .try_command("recover status", "see how things are"));
        }
        if let Some(dir) = shelf.dir() {
            self.drop_record(dir, id)?;
        }
        self.journal_guard(&held, &shelf, id, "forgotten");
        Ok(())
    }

    /// A restore that is carried out settles the guard whose checkpoint it restores, before its intent
    /// goes: whichever command finishes it.
    pub(super) fn settle_guard_in(&self, held: &Held, intent: &Intent, order: &Order) -> Result<()> {
        let id = &intent.checkpoint;
        if intent.action == Action::Undo {
            return Ok(());
        }
        let shelf = self.shelf_of(&held.root)?;
        let is_whole = intent.config.is_some() && intent.signals.is_some() && intent.state.is_some();
        let is_by_guard = order.guard.as_ref() == Some(id);
        match self.read_record(&shelf, id) {
            Some(_) if is_whole && is_by_guard => {
                if let Some(dir) = shelf.dir() {
                    self.drop_record(dir, id)?;
                }
                self.journal_guard(held, &shelf, id, "restored");
            }
            _ if is_whole => self.settle_guard_of(held, &shelf, id),
            // The signals follow, by the guard itself.
            Some(record) if !is_by_guard && self.standing(&held.root, &record)? == Standing::Killed => {
                let why = "it was killed before the signals were put back; the rest was".to_owned();
                self.put_record(held, &shelf, &Record { status: Status::Unrestored(why), ..record })?;
            }
            _ => {}
        }
        Ok(())
    }

    /// A restore of its checkpoint settles a guard that is not running.
    pub(super) fn settle_guard_of(&self, held: &Held, shelf: &Shelf, id: &str) {
        let Some(dir) = shelf.dir().filter(|_| shelf.guards.iter().any(|guard| guard == id)) else { return };
        let settle = || -> Result<()> {
            let on_record = self.guards_in(&held.root, shelf)?;
            if on_record.iter().any(|guard| guard.id == id && guard.standing != Standing::Running) {
                self.drop_record(dir, id)?;
                self.journal_guard(held, shelf, id, "restored");
            }
            Ok(())
        };
        if let Err(error) = settle() {
            self.warn(format!("the guard {id} stays on record: {error}"));
        }
    }

    // ---- what is on record ----

    /// The guards on record. Changes nothing.
    pub fn guards(&self) -> Result<Vec<OnRecord>> {
        let root = self.open_root()?;
        let shelf = self.shelf_of(&root)?;
        self.guards_in(&root, &shelf)
    }

    fn guards_in(&self, root: &Dir, shelf: &Shelf) -> Result<Vec<OnRecord>> {
        let one = |id: &String| -> Result<OnRecord> {
            let standing = match self.read_record(shelf, id) {
                Some(record) => self.standing(root, &record)?,
                None => Standing::Damaged,
            };
            Ok(OnRecord { id: id.clone(), standing })
        };
        shelf.guards.iter().map(one).collect()
    }

    /// A record; `None` where it cannot be read or is damaged.
    fn read_record(&self, shelf: &Shelf, id: &str) -> Option<Record> {
        let found = self.disk.read(shelf.dir()?, file_name(id), LIMIT).ok()??;
        Record::read(id, &found.bytes)
    }

    fn standing(&self, root: &Dir, record: &Record) -> Result<Standing> {
        let Some(stat) = self.disk.stat(root, ".")? else { return Ok(Standing::Foreign) };
        let (here, there) = (Place::here()?, &record.process.place);
        let is_other_machine = there.boot != here.boot && (here.machine.is_empty() || there.machine != here.machine);
        if !record.is_of(&stat) || is_other_machine {
            return Ok(Standing::Foreign);
        }
        if let Status::Unrestored(why) = &record.status {
            return Ok(Standing::Unrestored(why.clone()));
        }
        let is_gone = match there.boot == here.boot {
            false => true,
            // Nothing can be told from another namespace, and a guard that runs must not be called dead.
            true if there.pid_namespace != here.pid_namespace => false,
            true => Identity::of(record.process.pid)?.is_none_or(|found| !found.is(&record.process)),
        };
        Ok(if is_gone { Standing::Killed } else { Standing::Running })
    }

    fn running(&self, root: &Dir, shelf: &Shelf) -> Result<Vec<Record>> {
        let mut running = Vec::new();
        for id in &shelf.guards {
            if let Some(record) = self.read_record(shelf, id)
                && self.standing(root, &record)? == Standing::Running
            {
                running.push(record);
            }
        }
        running.sort_by(|a, b| (&a.started, &a.id).cmp(&(&b.started, &b.id)));
        Ok(running)
    }

    /// The running guards that this process commits under: it descends from the guard, or shows its token.
    pub(super) fn guards_of_commit(&self, held: &Held, shelf: &Shelf) -> Vec<String> {
        if shelf.guards.is_empty() {
            return Vec::new();
        }
        let running = self.running(&held.root, shelf).unwrap_or_default();
        let ancestors = lineage(std::process::id()).unwrap_or_default();
        let shown = &self.settings.claim.guards;
        let is_under = |record: &Record| {
            let token = shown.iter().find(|(id, _)| *id == record.id);
            token.is_some_and(|(_, token)| record.is_shown(token))
                || ancestors.iter().any(|ancestor| ancestor.is(&record.process))
        };
        running.into_iter().filter(is_under).map(|record| record.id).collect()
    }

    /// The first revision that a running guard needs to tell whose changes are whose; none if none runs.
    pub(super) fn first_guarded_revision(&self, root: &Dir, shelf: &Shelf) -> Option<u64> {
        if shelf.guards.is_empty() {
            return None;
        }
        let running = self.running(root, shelf).unwrap_or_default();
        running.iter().map(|record| record.base.as_ref().map_or(1, |base| base.revision.get())).min()
    }

    /// Warns of guards that ended without putting everything back.
    pub(super) fn warn_of_guards(&self, root: &Dir, shelf: &Shelf) {
        if shelf.guards.is_empty() {
            return;
        }
        for guard in self.guards_in(root, shelf).unwrap_or_default() {
            if let Some(problem) = guard.problem() {
                let next = guard.hints().into_iter().find_map(|hint| match hint {
                    Hint::Run(command, _) => Some(command),
                    _ => None,
                });
                self.warn_last(format!("{problem}; next: {}", next.unwrap_or_default()));
            }
        }
    }

    // ---- putting back ----

    /// Puts back what the command of a guard changed, or says why it does not. The verdict is taken and carried out under one
    /// lock. Where this fails, the guard is put on record as unrestored.
    pub fn settle_failed_guard(&self, id: &str, order: &Order) -> Result<Settlement> {
        match self.put_back(id, order) {
            Ok(Settlement::Unrestored(why)) => {
                self.mark_unrestored(id, &why)?;
                Ok(Settlement::Unrestored(why))
            }
            Ok(settled) => Ok(settled),
            Err(error) => {
                if let Err(second) = self.mark_unrestored(id, &error.message) {
                    self.warn(format!("that the guard {id} put nothing back is not on record: {second}"));
                }
                Err(error)
            }
        }
    }

    fn mark_unrestored(&self, id: &str, why: &str) -> Result<()> {
        let held = self.hold(self.precheck(Purpose::Restore)?, Purpose::Restore, self.deadline())?;
        let shelf = self.shelf_of(&held.root)?;
        let Some(record) = self.read_record(&shelf, id) else { return Ok(()) };
        self.put_record(&held, &shelf, &Record { status: Status::Unrestored(why.to_owned()), ..record })?;
        self.journal_guard(&held, &shelf, id, "unrestored");
        Ok(())
    }

    fn put_back(&self, id: &str, order: &Order) -> Result<Settlement> {
        let deadline = self.deadline();
        loop {
            let hands = self.hold_all(Purpose::Restore, deadline)?;
            let (held, checkpoint) = (&hands.held, self.find_checkpoint(&Which::Id(id.to_owned()))?);
            checkpoint.verify(&self.disk)?;
            let ground = self.survey(held)?;
            let Some(record) = self.read_record(&ground.shelf, id) else {
                return Ok(Settlement::Unrestored("its record is gone or damaged".to_owned()));
            };
            let whole = self.whole(&checkpoint)?;
            let verdict = self.verdict(&ground, &record, &whole.value)?;
            let order = Order { guard: Some(id.to_owned()), ..order.clone() };
            let done = match verdict {
                Verdict::Refused(why) => return Ok(Settlement::Unrestored(why)),
                Verdict::OnlyTheGuard => {
                    let left = self.restore_held((held, &ground), &whole, (&order, deadline))?.left;
                    Some(Settlement::Restored { left })
                }
                Verdict::Others { document, signals, config, unclear } => {
                    let part = Part { document, signals, config };
                    let done = self.put_part_back((&hands, &ground), (&checkpoint, whole), part, (&order, deadline))?;
                    match (done, unclear) {
                        (Some(Settlement::PutBack { .. }), Some(why)) => Some(Settlement::Unrestored(why)),
                        (done, _) => done,
                    }
                }
            };
            match done {
                Some(Settlement::Unrestored(why)) => return Ok(Settlement::Unrestored(why)),
                Some(settled) => {
                    // A restore of the whole settled it already.
                    if let Some(dir) = ground.shelf.dir()
                        && self.read_record(&ground.shelf, id).is_some()
                    {
                        self.drop_record(dir, id)?;
                        self.journal_guard(held, &ground.shelf, id, "restored");
                    }
                    return Ok(settled);
                }
                None => give_up_after(deadline)?, // something else changed the file; look again
            }
        }
    }

    /// Puts back the guard's changes beside those of others; `None` if the live file was changed meanwhile.
    fn put_part_back(
        &self,
        (hands, ground): (&Hands<'_>, &Ground),
        (checkpoint, whole): (&Checkpoint, Proposed<'_>),
        part: Part,
        (order, deadline): (&Order, std::time::Instant),
    ) -> Result<Option<Settlement>> {
        let held = &hands.held;
        let files = self.signal_files(checkpoint, &whole.value, &part.signals)?;
        let is_changed = self.is_config_changed(checkpoint)?;
        if is_changed && part.config.is_none() {
            let live = match (&part.document, &ground.health) {
                (None, Health::Healthy(document)) => Some(Value::clone(&document.value)),
                _ => None,
            };
            let Some(value) = part.document.or(live) else {
                return Ok(Some(Settlement::Unrestored("the state cannot be read".to_owned())));
            };
            let proposed = Proposed { value, signals: None, ..whole };
            let revision = self.restore_held((held, ground), &proposed, (order, deadline))?.revision;
            self.place_signals(held, &files);
            return Ok(Some(Settlement::PutBack { revision: Some(revision) }));
        }
        let revision = match part.document {
            Some(document) => match self.commit_part(held, ground, document, &Signals::These(files), order)? {
                Some(revision) => Some(revision.get()),
                None => return Ok(None),
            },
            None => None,
        };
        Ok(Some(match part.config.filter(|_| is_changed) {
            Some(why) => Settlement::Unrestored(format!("{CONFIG}/ was left as it is, since {why}")),
            None => Settlement::PutBack { revision },
        }))
    }

    fn commit_part(
        &self,
        held: &Held,
        ground: &Ground,
        document: Value,
        signals: &Signals,
        order: &Order,
    ) -> Result<Option<Revision>> {
        let Health::Healthy(live) = &ground.health else { return Ok(None) };
        let created = live.value.pointer("/metadata/created").cloned();
        let sealed = self.seal(document, ground, &live.seal.lineage, created.as_ref())?;
        self.keep_mirror(held, ground);
        let displaced = Displaced::backup(self.disk.now(), Some(live.seal.revision), pinned::PRE_RESTORE);
        let room = Room::MayBeMade;
        let plan = Plan { sealed: &sealed, source: None, displaced, signals, fences: &order.fences, room };
        if self.publish(held, ground, &plan)? == Published::Overtaken {
            return Ok(None);
        }
        self.record_commit((held, ground), order, &sealed, &[]);
        Ok(Some(sealed.document.seal.revision))
    }

    /// The files of these signals as they were when the guard began.
    fn signal_files(&self, checkpoint: &Checkpoint, base: &Value, names: &[String]) -> Result<Vec<SignalFile>> {
        let mut files = Vec::new();
        let dir = side::open_to_read(&self.disk, &checkpoint.dir, manifest::SIGNALS)?;
        for name in names {
            let Ok(name) = Name::parse("signal", name) else { continue };
            let was_set = base.get("signals").is_some_and(|signals| signals.get(name.as_str()).is_some());
            let content = match dir.as_ref().filter(|_| was_set) {
                Some(dir) => self.disk.read(dir, format!("{name}.json"), READ_LIMIT)?.map(|found| found.bytes),
                None => None,
            };
            files.push(SignalFile { name, content });
        }
        Ok(files)
    }

    /// Whether `config/` differs from the checkpoint's. What no checkpoint can hold is a difference.
    fn is_config_changed(&self, checkpoint: &Checkpoint) -> Result<bool> {
        let Some(root) = self.config_root()? else { return Ok(false) };
        let before = checkpoint.listing.below(manifest::CONFIG).map(|listing| listing.fingerprint());
        match tree::list(&self.disk, &root, CONFIG) {
            Ok(listing) => Ok(listing.map(|listing| listing.fingerprint()) != before),
            Err(error) if tree::cannot_be_kept(&error) => Ok(true),
            Err(error) => Err(error),
        }
    }
}

struct Part {
    document: Option<Value>,
    signals: Vec<String>,
    config: Option<String>,
}
