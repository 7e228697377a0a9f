//! `.signals/NAME.json`: the file that goes with a signal in the state.
//!
//! The state is the truth. The files are staged and synced before the commit and put in place after it, so that they never
//! announce a signal that the state does not have.

use std::ffi::OsStr;
use std::time::SystemTime;

use serde_json::{Value, json};

use super::Store;
use super::ground::Held;
use super::layout::{BACKUPS, SIGNALS};
use crate::document::{json as text, seal};
use crate::error::{Error, Kind, Result};
use crate::fs::Dir;
use crate::fs::stage::{Staged, Sync, temporary};
use crate::name::Name;
use crate::time::epoch_seconds;

/// A signal's file: what it is to hold, or nothing if it is to go.
#[derive(Clone, Debug)]
pub struct SignalFile {
    /// The signal.
    pub name: Name,
    /// The file's content; `None` removes it.
    pub content: Option<Vec<u8>>,
}

impl SignalFile {
    /// Gives a signal in `document`, which has its phase already; the file that goes with it.
    pub fn give(document: &mut Value, name: &Name, metadata: &Value, now: SystemTime) -> Result<Self> {
        let now = text::parse(epoch_seconds(now).as_bytes())
            .map_err(|error| Error::new(Kind::Internal, format!("a time that is no number: {error}")))?;
        if let Some(signals) = document.get_mut("signals").and_then(Value::as_object_mut) {
            signals.insert(name.to_string(), now.clone());
        }
        if let Some(fields) = document.as_object_mut() {
            fields.insert("lastSignal".to_owned(), name.as_str().into());
        }
        let mut file = json!({"signal": name.as_str(), "phase": document.get("phase")});
        // Not through json!, which would rewrite the digits of numbers.
        if let Some(fields) = file.as_object_mut() {
            fields.insert("timestamp".to_owned(), now);
            fields.insert("metadata".to_owned(), metadata.clone());
        }
        Ok(Self { name: name.clone(), content: seal::to_bytes(&file) })
    }

    fn file(&self) -> String {
        format!("{}.json", self.name)
    }
}

impl Store {
    /// Writes the files under temporary names.
    pub(super) fn stage_signals<'a>(
        &'a self,
        held: &Held,
        shelf: &'a Dir,
        signals: &[SignalFile],
    ) -> Result<Vec<Staged<'a>>> {
        let contents = signals.iter().enumerate().filter_map(|(index, signal)| Some((index, signal.content.as_ref()?)));
        let stage = |(index, content): (usize, &Vec<u8>)| {
            Ok(self.disk.stage(shelf, &staged_name(held, index), content, Sync::Now)?)
        };
        contents.map(stage).collect()
    }

    /// Puts the staged files in place. The state is committed by now, so a failure is a warning.
    pub(super) fn finish_signals(&self, held: &Held, shelf: &Dir, signals: &[SignalFile]) {
        if signals.is_empty() {
            return;
        }
        let finish = || -> Result<()> {
            let dir = self.side_directory(&held.root, SIGNALS)?;
            for (index, signal) in signals.iter().enumerate() {
                let file = signal.file();
                match signal.content {
                    Some(_) => {
                        self.disk.rename((shelf, OsStr::new(&staged_name(held, index))), (&dir, OsStr::new(&file)))?;
                    }
                    None => self.disk.unlink(&dir, &file)?,
                }
            }
            Ok(self.disk.sync_dir(&dir)?)
        };
        if let Err(error) = finish() {
            self.warn(format!("the state is committed, but {} may not be up to date: {error}", files(signals)));
        }
    }

    /// Writes or removes the files of signals when the state itself need not change.
    pub(super) fn place_signals(&self, held: &Held, signals: &[SignalFile]) {
        if signals.is_empty() {
            return;
        }
        let place = || -> Result<()> {
            let shelf = self.side_directory(&held.root, BACKUPS)?;
            self.stage_signals(held, &shelf, signals)?.into_iter().for_each(Staged::keep);
            self.finish_signals(held, &shelf, signals);
            Ok(())
        };
        if let Err(error) = place() {
            self.warn(format!("{} may not be up to date: {error}", files(signals)));
        }
    }
}

fn files(signals: &[SignalFile]) -> String {
    let files: Vec<String> = signals.iter().map(|signal| format!("{SIGNALS}/{}", signal.file())).collect();
    files.join(", ")
}

/// Where a signal's file stands until the state is committed.
fn staged_name(held: &Held, index: usize) -> String {
    let purpose = if index == 0 { "signal".to_owned() } else { format!("signal-{index}") };
    temporary(held.lock.inode(), &purpose)
}
