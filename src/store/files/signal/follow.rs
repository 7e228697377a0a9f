//! Signal files follow `signals` in a commit that restores an old document.
//!
//! The document is compared with the existing files. A missing file is copied from an archive or a
//! checkpoint that has it with the time of the signal; otherwise it is made without phase and
//! metadata, which no other record holds. The file of a signal that the document does not have is
//! removed. Other files stay.

use serde_json::{Map, Value};

use crate::document::{READ_LIMIT, json as text, seal};
use crate::error::Result;
use crate::fs::Dir;
use crate::name::Name;
use crate::side;
use crate::store::files::backup_dir::BackupDir;
use crate::store::files::signal::SignalFiles;
use crate::store::files::state_lock::StateLock;
use crate::store::layout::{CHECKPOINTS, SIGNALS};
use crate::store::signal::{SignalFile, Signals, blank, named};

/// The file of a signal, and the time in it.
struct File {
    bytes: Vec<u8>,
    time: Value,
}

impl SignalFiles<'_> {
    /// A signal's file in a directory.
    fn signal_in(&self, dir: Option<&Dir>, name: &Name) -> Result<Option<File>> {
        let Some(dir) = dir else { return Ok(None) };
        let Some(found) = self.store.disk.read(dir, format!("{name}.json"), READ_LIMIT)? else {
            return Ok(None);
        };
        let Ok(file) = text::parse(&found.bytes) else { return Ok(None) };
        let time = file.get("timestamp").filter(|_| named(&file).as_ref() == Some(name)).cloned();
        Ok(time.map(|time| File { bytes: found.bytes, time }))
    }

    /// The newest copy of a signal's file with this time.
    fn kept_signal(
        &self,
        root: &Dir,
        backup_dir: &BackupDir,
        name: &Name,
        time: &Value,
    ) -> Result<Option<Vec<u8>>> {
        let checkpoints = side::open_to_read(&self.store.disk, root, CHECKPOINTS)?;
        let ids = checkpoints
            .as_ref()
            .map(|_| self.store.checkpoints().ids())
            .transpose()?
            .unwrap_or_default();
        let in_checkpoints =
            checkpoints.iter().flat_map(|dir| ids.iter().rev().map(move |id| (dir, id, "signals")));
        let in_archives = backup_dir
            .dir()
            .into_iter()
            .flat_map(|dir| backup_dir.archives.iter().rev().map(move |a| (dir, a, SIGNALS)));
        for (dir, inner, signals) in in_checkpoints.chain(in_archives) {
            let found = self
                .store
                .disk
                .open_dir(dir, inner)
                .and_then(|inner| self.store.disk.open_dir(&inner, signals));
            // A place that cannot be read has no copy.
            if let Ok(found) = found
                && let Some(kept) = self.signal_in(Some(&found), name).ok().flatten()
                && kept.time == *time
            {
                return Ok(Some(kept.bytes));
            }
        }
        Ok(None)
    }
}

/// The files that a commit of `state` writes and removes. Those that follow stop no commit.
pub(in super::super) fn files_of(
    lock: &StateLock<'_>,
    backup_dir: &BackupDir,
    signals: &Signals,
    state: &Value,
) -> Vec<SignalFile> {
    match signals {
        Signals::These(files) => files.clone(),
        Signals::Follow => following(lock, backup_dir, state).unwrap_or_else(|error| {
            lock.store.warn(format!("the files of {SIGNALS} may differ from the state: {error}"));
            Vec::new()
        }),
    }
}

fn following(
    lock: &StateLock<'_>,
    backup_dir: &BackupDir,
    state: &Value,
) -> Result<Vec<SignalFile>> {
    let none = Map::new();
    let wanted = state.get("signals").and_then(Value::as_object).unwrap_or(&none);
    let dir = side::open_to_read(&lock.store.disk, &lock.root, SIGNALS)?;
    let mut files = Vec::new();
    for name in dir.as_ref().map(|dir| lock.store.disk.list(dir)).transpose()?.unwrap_or_default() {
        let signal = name.to_str().and_then(|name| name.strip_suffix(".json"));
        let Some(name) = signal.and_then(|signal| Name::parse("signal", signal).ok()) else {
            continue;
        };
        let is_gone = !wanted.contains_key(name.as_str());
        if is_gone && SignalFiles::of(lock.store).signal_in(dir.as_ref(), &name)?.is_some() {
            files.push(SignalFile { name, content: None });
        }
    }
    for (name, time) in wanted.iter().filter(|(_, time)| time.is_number()) {
        let Ok(name) = Name::parse("signal", name) else { continue };
        if SignalFiles::of(lock.store)
            .signal_in(dir.as_ref(), &name)?
            .is_some_and(|file| file.time == *time)
        {
            continue;
        }
        let kept = SignalFiles::of(lock.store).kept_signal(&lock.root, backup_dir, &name, time)?;
        let content = kept.or_else(|| seal::to_bytes(&blank(&name, time)));
        files.extend(content.is_some().then_some(SignalFile { name, content }));
    }
    Ok(files)
}
