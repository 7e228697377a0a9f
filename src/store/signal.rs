//! `.signals/NAME.json`: the file that goes with a signal in the state.
//!
//! The state is the truth. The file is staged and synced before the commit and put in place after it, so that it never
//! announces a signal that the state does not have.

use std::ffi::OsStr;

use super::Store;
use super::ground::Held;
use super::layout::SIGNALS;
use crate::error::Result;
use crate::fs::Dir;
use crate::fs::stage::{Sync, temporary};
use crate::name::Name;

/// A signal's file: what it is to hold, or nothing if it is to go.
#[derive(Clone, Debug)]
pub struct SignalFile {
    /// The signal.
    pub name: Name,
    /// The file's content; `None` removes it.
    pub content: Option<Vec<u8>>,
}

impl Store {
    /// Puts the staged file in place. The state is committed by now, so a failure is a warning.
    pub(super) fn finish_signal(&self, held: &Held, shelf: &Dir, signal: &SignalFile, staged: &str) {
        let file = format!("{}.json", signal.name);
        let finish = || -> Result<()> {
            let signals = self.side_directory(&held.root, SIGNALS)?;
            match signal.content {
                Some(_) => self.disk.rename((shelf, OsStr::new(staged)), (&signals, OsStr::new(&file)))?,
                None => self.disk.unlink(&signals, &file)?,
            }
            Ok(self.disk.sync_dir(&signals)?)
        };
        if let Err(error) = finish() {
            self.warn(format!("the state is committed, but {SIGNALS}/{file} is not up to date: {error}"));
        }
    }

    /// Writes or removes a signal's file when the state itself need not change.
    pub(super) fn place_signal(&self, held: &Held, signal: &SignalFile) {
        let name = temporary(held.lock.inode(), "signal");
        let place = || -> Result<()> {
            let shelf = self.side_directory(&held.root, super::layout::BACKUPS)?;
            if let Some(content) = &signal.content {
                self.disk.stage(&shelf, &name, content, Sync::Now)?.keep();
            }
            self.finish_signal(held, &shelf, signal, &name);
            Ok(())
        };
        if let Err(error) = place() {
            self.warn(format!("{SIGNALS}/{}.json is not up to date: {error}", signal.name));
        }
    }
}
