//! Checkpoints: the state, `config/` and `.signals/` at one moment, taken under the state lock and
//! the locks of the other two. A checkpoint is made in the staging directory, synced, and put in
//! place by one rename: it is complete or absent.

pub mod catalog;
pub mod retention;

use std::time::SystemTime;

use serde_json::Value;

use super::begin::Transactions;
use super::checkpoint::catalog::Checkpoints;
use super::events::journal_event;
use super::observe::Observation;
use super::staging::Staging;
use super::state_lock::lock_lost;
use super::transaction::Transaction;
use crate::acl::Acls;
use crate::audit::Level;
use crate::document::seal::Digest;
use crate::error::{Error, Kind, Result, quote_path};
use crate::fs::stage::Durability;
use crate::fs::{At, FsError};
use crate::journal::Event;
use crate::journal::event::{CheckpointEvent, CheckpointStep};
use crate::store::ForeignEdits;
use crate::store::checkpoint::catalog::{Made, Snapshot};
use crate::store::checkpoint::id;
use crate::store::checkpoint::manifest::{self, Metadata};
use crate::store::checkpoint::retention::Retention;
use crate::store::diagnosis::Health;
use crate::store::layout::{self, CHECKPOINTS};
use crate::store::options::{LockPurpose, WriteOptions};
use crate::time::rfc3339;
use crate::tree::{self, Attributes, Entry, Listing, What};

/// Attempts to copy something that changes while it is read.
const ATTEMPTS: usize = 3;

/// Treatment of entries in `config/` and `.signals/` that no checkpoint can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unkept {
    /// No checkpoint is made.
    Refused,
    /// The checkpoint omits them.
    Left,
}

/// An action under the locks of a checkpoint that was just made.
pub(super) type Then<'a> = dyn FnMut(&Transaction<'_>, &Made) -> Result<()> + 'a;

impl Checkpoints<'_> {
    /// Makes a checkpoint of the state and both trees. A damaged state is healed first.
    pub fn create(&self, snapshot: &Snapshot) -> Result<Made> {
        self.create_then(snapshot, Retention::Manual, &mut |_, _| Ok(()))
    }

    /// As [`Self::checkpoint`], retained as `retention` says; then runs `then` under the same
    /// locks.
    pub(super) fn create_then(
        &self,
        snapshot: &Snapshot,
        retention: Retention,
        then: &mut Then<'_>,
    ) -> Result<Made> {
        Transactions::of(self.store).retry(|deadline| {
            // Damage is healed while only the state lock is held.
            let tx = Transactions::of(self.store).begin_write(deadline)?;
            if let Health::TooNew(_) = tx.seen.health {
                return Err(tx.seen.refusal());
            }
            drop(tx);
            let tx =
                Transactions::of(self.store).lock_all(LockPurpose::Write, deadline)?.begin()?;
            match &tx.seen.health {
                Health::Healthy(_) | Health::Legacy(_) => {}
                Health::Damaged(_) => return Ok(None),
                Health::Foreign(_) if self.store.settings.foreign_edits == ForeignEdits::Accept => {
                    drop(tx);
                    self.store.lineages().seal_as_it_is(&WriteOptions::of("checkpoint"))?;
                    return Ok(None);
                }
                _ => return Err(tx.seen.refusal()),
            }
            tx.keep_mirror();
            let made = take_snapshot(&tx, snapshot, retention, Unkept::Refused)?;
            then(&tx, &made)?;
            if retention == Retention::Automatic {
                self.store.checkpoints().retire(&tx.lock, &made.id);
            }
            Ok(Some(made))
        })
    }

    /// An error about a staged file, which no longer exists when the error is read: its hints refer
    /// to the original.
    pub(super) fn without_staged_path(&self, error: Error) -> Error {
        if !error.cause::<FsError>().is_some_and(|error| layout::is_staging(&error.path)) {
            return error;
        }
        let root = quote_path(&self.store.settings.directory);
        let error = Error { hints: Vec::new(), ..error };
        match error.kind {
            Kind::DiskFull | Kind::FileSizeLimit => error
                .hint_shell(
                    format!("df -h {root}; df -i {root}"),
                    "see what is left of space and inodes",
                )
                .hint_command(
                    "recover cleanup 1",
                    "or remove checkpoints older than a day, but for the newest",
                ),
            _ => error.hint_command("recover doctor", "check everything"),
        }
    }
}

/// Makes a checkpoint of what is there now, in whatever condition it is.
pub(in crate::store::files) fn take_snapshot(
    tx: &Transaction<'_>,
    snapshot: &Snapshot,
    retention: Retention,
    unkept: Unkept,
) -> Result<Made> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        match build(tx, snapshot, retention, unkept) {
            Err(error) if error.kind == Kind::Conflict && attempt < ATTEMPTS => {}
            Err(error) => {
                let why = format!("no checkpoint was made: {}", error.message);
                return Err(tx
                    .store
                    .checkpoints()
                    .without_staged_path(Error { message: why, ..error }));
            }
            Ok(made) => {
                let entry = tx
                    .store
                    .logs()
                    .recovery_entry(Level::Info, "checkpoint", "created")
                    .with("id", &made.id);
                let entry = entry.with("files", made.files).with("bytes", made.bytes);
                tx.store
                    .audit
                    .record(&entry.with("pid", std::process::id()).with("path", tx.store.shown()));
                let lineage = match &tx.seen.health {
                    Health::Healthy(document) => Some(document.seal.lineage.to_string()),
                    _ => None,
                };
                let id = made.id.clone();
                journal_event(&tx.lock, |origin| {
                    let step = CheckpointStep::Made;
                    Event::Checkpoint(CheckpointEvent { origin, lineage, id, step })
                });
                return Ok(made);
            }
        }
    }
}

fn build(
    tx: &Transaction<'_>,
    snapshot: &Snapshot,
    retention: Retention,
    unkept: Unkept,
) -> Result<Made> {
    let staging = Staging::of(tx.store).open(&tx.lock)?;
    let now = tx.store.disk.now();
    let id = id::free(&tx.store.checkpoints().ids()?, now, &snapshot.operation);
    let tmp = "checkpoint";
    tree::remove(&tx.store.disk, &staging.dir, tmp)?;
    tx.store.disk.make_dir(&staging.dir, tmp)?;
    let dir = tx.store.disk.open_dir(&staging.dir, tmp)?;

    let mut entries = Vec::new();
    // A file over the size limit was not read; a restore keeps it as evidence.
    if let Some(found) = tx.seen.live.as_ref().filter(|found| found.is_whole()) {
        tx.store.disk.stage(&dir, manifest::STATE, &found.bytes, Durability::Fsync)?.keep();
        entries.push(listed(
            manifest::STATE,
            &found.bytes,
            found.stat.mode & 0o777,
            found.stat.mtime,
        ));
    }
    let mut left = Vec::new();
    let mut copy_in = |from: At<'_>, to: &str| -> Result<Vec<Entry>> {
        let (disk, at) = (&tx.store.disk, dir.entry(to));
        let copied = match unkept {
            Unkept::Refused => tree::copy(disk, from, at, Attributes::Ours)?,
            Unkept::Left => tree::copy_what_can_be_kept(disk, from, at, Attributes::Ours)?.map(
                |(listing, without)| {
                    left.extend(without);
                    listing
                },
            ),
        };
        Ok(copied.map_or_else(Vec::new, |listing| listing.under(to)))
    };
    if let Some(root) = Staging::of(tx.store).config_root()? {
        entries.extend(copy_in(root.entry(layout::CONFIG), manifest::CONFIG)?);
    }
    entries.extend(copy_in(tx.lock.root.entry(layout::SIGNALS), manifest::SIGNALS)?);
    let (files, bytes) = {
        let listing = Listing::new(entries.clone());
        (listing.files(), listing.bytes())
    };
    let metadata = Metadata {
        id: id.clone(),
        operation: snapshot.operation.to_string(),
        phase: snapshot.phase.clone().or_else(|| phase_of(&tx.seen)),
        timestamp: rfc3339(now),
        pid: std::process::id(),
        hostname: hostname(),
        revision: Some(tx.seen.revision()).filter(|revision| *revision > 0),
        automatic: retention == Retention::Automatic,
        metadata: snapshot.metadata.clone(),
    };
    let text = metadata.write()?;
    tx.store.disk.stage(&dir, manifest::METADATA, &text, Durability::Fsync)?.keep();
    entries.push(listed(manifest::METADATA, &text, 0o600, seconds(now)));
    // A restore replaces the tree of a checkpoint, and its own checkpoint's metadata may be
    // longer.
    let limit = match snapshot.operation.as_str() {
        layout::pinned::PRE_RESTORE => manifest::LIMIT,
        _ => manifest::LIMIT - manifest::ROOM,
    };
    let text = manifest::write(&Listing::new(entries), limit)?;
    tx.store.disk.stage(&dir, manifest::MANIFEST, &text, Durability::Fsync)?.keep();
    tx.store.disk.sync_dir(&dir)?;

    if !tx.lock.flock.is_current(&tx.store.disk, &tx.lock.root)? {
        return Err(lock_lost());
    }
    tx.store.disk.rename(staging.dir.entry(tmp), staging.checkpoints.entry(&id))?;
    if let Err(error) = tx.store.disk.sync_dir(&staging.checkpoints) {
        let message =
            format!("the checkpoint {id} is in place, but the disk did not confirm it: {error}");
        return Err(Error::new(Kind::DurabilityUnknown, message)
            .hint_command(format!("recover verify {id}"), "see what is there"));
    }
    if let Err(error) = staging.done() {
        tx.store.warn(format!("what was left in {CHECKPOINTS} could not be cleared away: {error}"));
    }
    Ok(Made { id, files, bytes, left })
}

fn listed(path: &str, bytes: &[u8], mode: u32, mtime: (i64, i64)) -> Entry {
    let what = What::File { bytes: bytes.len() as u64, sha256: Digest::of(bytes) };
    Entry { path: path.to_owned(), what, mode, mtime, acls: Acls::default() }
}

fn seconds(time: SystemTime) -> (i64, i64) {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    (i64::try_from(since.as_secs()).unwrap_or(i64::MAX), i64::from(since.subsec_nanos()))
}

fn phase_of(seen: &Observation) -> Option<String> {
    let value = seen.known()?;
    value.get("phase").and_then(Value::as_str).map(str::to_owned)
}

/// The name of this machine.
fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
