//! `.signals/NAME.json`: the file of a signal in the state.
//!
//! The state is authoritative. Signal files are staged and synced before the commit and put in
//! place after it, so that they never announce a signal that the state does not have. For a cleared
//! signal a note is staged, a file without a time. If a writer dies in between, its staged file
//! names the signal that the state is to have, and its time: the next writer puts the file in place
//! if the state matches, and removes it if not.
//!
//! In a commit that restores an old document, they follow the document ([`Signals::Follow`]).
//!
//! They are staged in the backup directory, which every writer lists anyway.

pub(super) mod follow;

use std::ffi::OsStr;

use rustix::io::Errno;

use super::FileStore;
use super::backup_dir::BackupDir;
use super::root::Root;
use super::staging::Staging;
use super::state_lock::StateLock;
use crate::document::{READ_LIMIT, json as text};
use crate::error::{Error, Kind, Result};
use crate::fs::stage::{Durability, StagedFile, temporary};
use crate::fs::{At, Dir, FsResult};
use crate::name::Name;
use crate::store::ForeignEdits;
use crate::store::diagnosis::Health;
use crate::store::layout::{BACKUPS, SIGNALS, STAGED_SIGNAL, is_staged_signal};
use crate::store::signal::{SignalFile, named};

/// The files of signals.
#[derive(Clone, Copy, Debug)]
pub struct SignalFiles<'s> {
    pub(in crate::store) store: &'s FileStore,
}

impl<'s> SignalFiles<'s> {
    /// Of `store`.
    pub fn of(store: &'s FileStore) -> Self {
        Self { store }
    }

    fn carry_out(&self, staged: At<'_>, dir: &Dir, signal: &SignalFile) -> FsResult<()> {
        let file = signal.file();
        let Some(content) = &signal.content else {
            self.store.disk.unlink(dir, &file)?;
            return self.store.disk.unlink(staged.dir, staged.name);
        };
        match self.store.disk.rename(staged, dir.entry(&file)) {
            // `.signals/` is on another mount: the file is staged there once more.
            Err(error) if error.is(Errno::XDEV) => {
                let again = staged.name.to_string_lossy();
                let copy = self.store.disk.stage(dir, &again, content, Durability::Fsync)?;
                self.store.disk.rename(dir.entry(&*again), dir.entry(&file))?;
                copy.keep();
                self.store.disk.unlink(staged.dir, staged.name)
            }
            result => result,
        }
    }

    /// The signals that have a staged file.
    pub fn staged(&self) -> Result<Vec<Name>> {
        let backup_dir = Root::of(self.store).backup_dir_to_read()?;
        let Some(dir) = backup_dir.dir() else { return Ok(Vec::new()) };
        let mut names = Vec::new();
        for staged in
            backup_dir.temporaries.iter().filter(|name| name.to_str().is_some_and(is_staged_signal))
        {
            let found = self.store.disk.read(dir, staged, READ_LIMIT)?;
            names.extend(found.and_then(|found| named(&text::parse(&found.bytes).ok()?)));
        }
        Ok(names)
    }
}

/// Stages the files under temporary names, and a note for each that is to be removed.
pub(in crate::store::files) fn stage_signals<'a>(
    lock: &'a StateLock<'_>,
    backup_dir: &'a Dir,
    signals: &[SignalFile],
) -> Result<Vec<StagedFile<'a>>> {
    let stage = |(index, signal): (usize, &SignalFile)| {
        let bytes =
            signal.staged().ok_or_else(|| Error::new(Kind::Internal, "a signal without a file"))?;
        // The removal of a signal needs no sync: a power cut cannot tear it.
        let sync = match &signal.content {
            Some(_) => Durability::Fsync,
            None => Durability::None,
        };
        Ok(lock.store.disk.stage(backup_dir, &staged_name(lock, index), &bytes, sync)?)
    };
    signals.iter().enumerate().map(stage).collect()
}

/// Puts the staged files in place. The state is committed by now, so a failure is a warning,
/// and the staged file stays for the next writer.
pub(in crate::store::files) fn finish_signals(
    lock: &StateLock<'_>,
    backup_dir: &Dir,
    signals: &[SignalFile],
) {
    if signals.is_empty() {
        return;
    }
    let finish = || -> Result<()> {
        let dir = Root::of(lock.store).side_directory(&lock.root, SIGNALS)?;
        for (index, signal) in signals.iter().enumerate() {
            SignalFiles::of(lock.store).carry_out(
                backup_dir.entry(&staged_name(lock, index)),
                &dir,
                signal,
            )?;
        }
        Ok(lock.store.disk.sync_dir(&dir)?)
    };
    if let Err(error) = finish() {
        lock.store.warn(format!(
            "the state is committed, but {} may not be up to date: {error}",
            files(signals)
        ));
    }
}

/// Writes or removes signal files when the state itself does not change.
pub(in crate::store::files) fn place_signals(lock: &StateLock<'_>, signals: &[SignalFile]) {
    if signals.is_empty() {
        return;
    }
    let place = || -> Result<()> {
        let backup_dir = Root::of(lock.store).side_directory(&lock.root, BACKUPS)?;
        stage_signals(lock, &backup_dir, signals)?.into_iter().for_each(StagedFile::keep);
        finish_signals(lock, &backup_dir, signals);
        Ok(())
    };
    if let Err(error) = place() {
        lock.store.warn(format!("{} may not be up to date: {error}", files(signals)));
    }
}

/// Settles what a dead writer staged: puts it in place after the writer's commit, removes it if
/// there was none. It stays where the state, or the outcome of a restore, is not known yet.
pub(in crate::store::files) fn settle_signals(
    lock: &StateLock<'_>,
    backup_dir: &BackupDir,
    health: &Health,
) {
    let state = match health {
        Health::Healthy(document) => document.value.skeleton(),
        Health::Legacy(migrated) => &migrated.value,
        Health::Foreign(edit)
            if lock.store.settings.foreign_edits == ForeignEdits::Accept && edit.is_document() =>
        {
            &edit.value
        }
        _ => return,
    };
    let Some(dir) = backup_dir.dir() else { return };
    let mut staged = backup_dir
        .temporaries
        .iter()
        .filter(|name| name.to_str().is_some_and(is_staged_signal))
        .peekable();
    if staged.peek().is_none() || Staging::of(lock.store).exists(&lock.root).unwrap_or(true) {
        return;
    }
    let settle = |staged: &OsStr| -> Result<()> {
        let found = lock.store.disk.read(dir, staged, READ_LIMIT)?;
        match found.and_then(|found| SignalFile::due(found.bytes, state)) {
            Some(due) => {
                let place = Root::of(lock.store).side_directory(&lock.root, SIGNALS)?;
                SignalFiles::of(lock.store).carry_out(dir.entry(staged), &place, &due)?;
                // It may be visible to other processes from here on.
                Ok(lock.store.disk.sync_dir(&place)?)
            }
            None => Ok(lock.store.disk.unlink(dir, staged)?),
        }
    };
    for staged in staged {
        if let Err(error) = settle(staged) {
            lock.store.warn(format!(
                "what a killed command left of a signal stays for the next writer: {error}"
            ));
        }
    }
}

fn files(signals: &[SignalFile]) -> String {
    let files: Vec<String> =
        signals.iter().map(|signal| format!("{SIGNALS}/{}", signal.file())).collect();
    files.join(", ")
}

/// The staged name of a signal's file until the state is committed.
fn staged_name(lock: &StateLock, index: usize) -> String {
    temporary(lock.flock.inode(), &format!("{STAGED_SIGNAL}{index}"))
}
