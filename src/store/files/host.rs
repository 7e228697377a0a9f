//! The part of a store on other machines that is on this host: `config/`, and the record of a
//! restore that is at work on it.
//!
//! A restore stages `config/` and puts its intent in place as one of files does, in a directory of
//! its own. Its intent names an operation: the restore has happened if the cluster says that the
//! operation was committed. So the intent decides nothing alone, and the caller settles it.

mod unpack;

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;

use super::FileStore;
use super::begin::Transactions;
use super::moving::mark_in;
use super::restore::{Before, Probe, Tree, foreign};
use super::root::Root;
use super::staging::Staging;
use super::state_lock::{StateLock, StateLocks};
use crate::audit::Audit;
use crate::document::seal::Digest;
use crate::error::{Error, Kind, Result};
use crate::fs::identity::DirId;
use crate::fs::{Dir, Disk};
use crate::lock::{GuardLifeline, Liveness};
use crate::side;
use crate::store::Settings;
use crate::store::checkpoint::archive::{Archive, LIMIT, too_large};
use crate::store::checkpoint::manifest;
use crate::store::guard::record::Record;
use crate::store::layout::{CONFIG, GITIGNORE, HOST};
use crate::store::moving::Mark;
use crate::store::options::{LockPurpose, WriteOptions};
use crate::store::restore::intent::{Intent, OperationId};
use crate::tree::{self, Listing, What};

/// Attempts to read something that changes meanwhile.
const ATTEMPTS: usize = 3;

/// This host's part.
#[derive(Debug)]
pub struct Host {
    store: FileStore,
}

/// A restore that is not finished on this host.
#[derive(Clone, Debug)]
pub struct Pending {
    /// The operation that decides.
    pub operation: OperationId,
    /// The checkpoint that is restored.
    pub checkpoint: String,
}

/// The exclusive right to work on `config/`.
#[derive(Debug)]
pub struct HostLock<'h> {
    host: &'h Host,
    lock: Rc<StateLock<'h>>,
    pending: OnceCell<Intent>,
}

impl Host {
    /// The part of the host with `config/` in the root of `settings`.
    pub fn new(disk: Disk, settings: &Settings, audit: Audit) -> Self {
        let settings = Settings {
            directory: settings.root.join(HOST),
            file_name: "state".into(),
            ..settings.clone()
        };
        Self { store: FileStore::new(disk, settings, audit) }
    }

    /// Takes the warnings.
    pub fn take_warnings(&self) -> Vec<String> {
        self.store.take_warnings()
    }

    /// The mark of a state that was moved away from this root, or is on its way.
    pub fn mark(&self) -> Result<Option<Mark>> {
        mark_in(&self.store.disk, &self.store.settings.root)
    }

    /// The root, as it is shown.
    pub fn root(&self) -> String {
        self.store.settings.root.display().to_string()
    }

    /// `config/` as it is now; `None` if there is none.
    pub fn config(&self) -> Result<Option<Archive>> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            match self.read_config() {
                Err(error) if error.kind == Kind::Conflict && attempt < ATTEMPTS => {}
                read => return read,
            }
        }
    }

    fn read_config(&self) -> Result<Option<Archive>> {
        let disk = &self.store.disk;
        let Some(root) = Staging::of(&self.store).config_root()? else { return Ok(None) };
        let Some(listing) = tree::list(disk, &root, CONFIG)? else { return Ok(None) };
        if listing.bytes() > LIMIT as u64 {
            return Err(too_large(listing.bytes()));
        }
        let mut contents = BTreeMap::new();
        for entry in listing.entries() {
            let What::File { bytes, sha256 } = &entry.what else { continue };
            let found = disk.read(&root, format!("{CONFIG}/{}", entry.path), *bytes)?;
            let found = found.map(|found| Bytes::from(found.bytes));
            let found = found.filter(|content| Digest::of(content) == *sha256);
            let content = found.ok_or_else(|| changed(&root, &entry.path))?;
            contents.insert(format!("{}/{}", manifest::CONFIG, entry.path), content);
        }
        Ok(Some(Archive::new(listing.under(manifest::CONFIG), contents)))
    }

    /// Returns whether `config/` differs from that of a checkpoint.
    pub fn is_config_changed(&self, checkpoint: &Listing) -> Result<bool> {
        self.store.guards().is_config_changed(checkpoint)
    }

    /// The identity of the root.
    pub fn root_id(&self) -> Result<DirId> {
        let gone = || Error::new(Kind::Conflict, "the root was removed meanwhile");
        let root = Staging::of(&self.store).config_root()?.ok_or_else(gone)?;
        DirId::of(&self.store.disk, &root)?.ok_or_else(gone)
    }

    /// Shows to other pid namespaces of this host that a guard runs; none where that is not
    /// possible.
    pub fn guard_lifeline(&self) -> Option<GuardLifeline<'_>> {
        GuardLifeline::create(&self.store.locks, StateLocks::of(&self.store).deadline()).ok()
    }

    /// The liveness of a guard's process: unknown where it guards another root, or on another
    /// machine.
    pub fn liveness_of(&self, guard: &Record) -> Result<Liveness> {
        match self.is_of_this_root(guard)? {
            true => self.store.guards().liveness(guard),
            false => Ok(Liveness::Unknown),
        }
    }

    /// Returns whether a guard was begun in this root of this machine.
    pub fn is_of_this_root(&self, guard: &Record) -> Result<bool> {
        let root = Staging::of(&self.store).config_root()?;
        let is_foreign = root.map(|root| self.store.guards().is_foreign(&root, guard));
        Ok(is_foreign.transpose()? == Some(false))
    }

    /// Returns whether a restore is not finished, with one lookup.
    pub fn is_pending(&self) -> Result<bool> {
        self.store.intents().is_decided()
    }

    /// The restore that is not finished.
    pub fn pending(&self) -> Result<Option<Pending>> {
        if !self.is_pending()? {
            return Ok(None);
        }
        let intent = self.intent(&Root::of(&self.store).open()?)?;
        Ok(intent.as_ref().and_then(Pending::of))
    }

    /// Returns whether the restore that is not finished restores a checkpoint, or made it.
    pub fn names(&self, id: &str) -> Result<bool> {
        self.store.intents().names(id)
    }

    /// Reads the intent, which was written for these directories.
    fn intent(&self, root: &Dir) -> Result<Option<Intent>> {
        let Some((_, intent)) = self.store.intents().read(root)? else { return Ok(None) };
        match foreign(&self.store, root, &intent)? {
            Some(refusal) => Err(refusal),
            None => Ok(Some(intent)),
        }
    }

    /// Takes the lock, and removes what a killed command left that had decided nothing.
    pub fn lock(&self) -> Result<HostLock<'_>> {
        self.lock_until(StateLocks::of(&self.store).deadline())
    }

    /// The same for a reader, which does not wait for long.
    pub fn lock_to_read(&self) -> Result<HostLock<'_>> {
        self.lock_until(Instant::now() + Staging::of(&self.store).readers_patience())
    }

    fn lock_until(&self, deadline: Instant) -> Result<HostLock<'_>> {
        let disk = &self.store.disk;
        let root = Staging::of(&self.store).config_root()?;
        let root = root.ok_or_else(|| self.store.restores().no_config_root())?;
        let own = side::open(disk, &root, HOST)?;
        if disk.stat(&own, GITIGNORE)?.is_none() {
            let file = disk.create(&own, GITIGNORE)?;
            disk.write(&file, &own.path_of(GITIGNORE), b"*\n")?;
        }
        let lock = Transactions::of(&self.store).lock_state(LockPurpose::Host, deadline)?;
        let pending = OnceCell::new();
        match self.intent(&lock.root)? {
            Some(intent) => drop(pending.set(intent)),
            None if Staging::of(&self.store).exists(&lock.root)? => {
                Staging::of(&self.store).clear(&lock.root)?;
            }
            None => {}
        }
        Ok(HostLock { host: self, lock, pending })
    }

    /// Drops a record that is foreign or damaged, with what was staged for it.
    pub fn drop_record(&self) -> Result<()> {
        let deadline = StateLocks::of(&self.store).deadline();
        let lock = Transactions::of(&self.store).lock_state(LockPurpose::Host, deadline)?;
        self.store.restores().drop_intent(Staging::of(&self.store).open(&lock)?)
    }
}

impl Pending {
    fn of(intent: &Intent) -> Option<Self> {
        let operation = intent.operation.clone()?;
        Some(Self { operation, checkpoint: intent.checkpoint.clone() })
    }
}

impl HostLock<'_> {
    /// The restore that is not finished.
    pub fn pending(&self) -> Option<Pending> {
        self.pending.get().and_then(Pending::of)
    }

    /// Refuses where `config/` could not be put back.
    pub fn probe(&self) -> Result<()> {
        Probe::of(&self.host.store).under(&self.lock).map(drop)
    }

    /// Stages the `config/` of a checkpoint and puts the intent in place. `before` is the
    /// checkpoint of what there is.
    pub fn stage(
        &self,
        operation: &OperationId,
        checkpoint: (&str, &Archive),
        before: (&str, &Listing),
    ) -> Result<()> {
        let store = &self.host.store;
        let plan = Probe::of(store).under(&self.lock)?;
        let mut staging = Staging::of(store).open(&self.lock)?;
        let (id, archive) = checkpoint;
        let unpacked = unpack::config(&store.disk, &staging.dir, archive)?;
        let listing = archive.listing().below(manifest::CONFIG);
        let tree = Tree { dir: &unpacked, name: manifest::CONFIG, listing };
        let before = Before { id: before.0, listing: before.1 };
        let restores = store.restores();
        let intent = restores.stage_trees(&staging, &self.lock, plan, Some(&tree), None, before)?;
        let operation = Some(operation.clone());
        let intent = Intent { checkpoint: id.to_owned(), operation, ..intent };
        let deadline = StateLocks::of(store).deadline();
        restores.decide(&mut staging, &self.lock, &intent, &[], deadline)?;
        let _ = self.pending.set(intent);
        Ok(())
    }

    /// Carries the restore out: it was committed.
    pub fn finish(self) -> Result<()> {
        let store = &self.host.store;
        let Some(intent) = self.pending.get() else { return Ok(()) };
        let options = WriteOptions::of_restore();
        let staging = Staging::of(store).open(&self.lock)?;
        store.intents().roll_forward(&self.lock, staging, intent, &options).map_err(|error| {
            let message = format!(
                "{}; the state of {} is restored, and the next command puts config/ in place",
                error.message, intent.checkpoint
            );
            Error { message, ..error }
                .hint_command("recover restore --abort", "or keep config/ as it is")
        })?;
        Ok(())
    }

    /// Drops the restore: it was not committed and never will be, or is not to be finished.
    pub fn give_up(self) -> Result<()> {
        let store = &self.host.store;
        match self.pending.get() {
            Some(_) => store.restores().drop_intent(Staging::of(store).open(&self.lock)?),
            None => Ok(()),
        }
    }
}

fn changed(root: &Dir, path: &str) -> Error {
    let path = root.path_of(CONFIG).join(path);
    let message = format!("{} changed while it was read; nothing was done", path.display());
    Error::new(Kind::Conflict, message)
        .hint_command("recover checkpoint --help", "try again once nothing changes it")
        .detail("path", path.display().to_string())
}
