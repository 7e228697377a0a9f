//! `recover restore --abort`: an interrupted restore is undone or dropped, never finished.

use super::super::Store;
use super::super::layout::INTENT;
use super::super::order::Purpose;
use super::super::workshop::Workshop;
use crate::audit::Level;
use crate::error::{Kind, Result};

/// What `recover restore --abort` did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Aborted {
    /// No restore was interrupted.
    Nothing,
    /// The record was dropped, and what was staged for it: nothing had been replaced, or it was foreign or damaged.
    Dropped {
        /// The checkpoint that was being restored, where the record says which.
        checkpoint: Option<String>,
    },
    /// What had been replaced was put back.
    Undone {
        /// The checkpoint that was being restored.
        checkpoint: String,
    },
}

impl Store {
    /// Aborts an interrupted restore. A foreign or damaged record is dropped, and nothing else is touched.
    pub fn abort_restore(&self) -> Result<Aborted> {
        let deadline = self.deadline();
        loop {
            let held = self.hold(self.precheck(Purpose::Abort)?, Purpose::Abort, deadline)?;
            if !self.has_workshop(&held.root)? {
                return Ok(Aborted::Nothing);
            }
            let intent = match self.read_intent(&held.root) {
                Ok(Some((_, intent))) => intent,
                Ok(None) => {
                    self.clear_workshop(&held.root)?;
                    return Ok(Aborted::Nothing);
                }
                Err(error) if error.kind == Kind::Corrupt => {
                    self.drop_intent(self.workshop(&held)?)?;
                    return Ok(Aborted::Dropped { checkpoint: None });
                }
                Err(error) => return Err(error),
            };
            let checkpoint = intent.checkpoint.clone();
            if self.foreign(&held.root, &intent)?.is_some() {
                self.drop_intent(self.workshop(&held)?)?;
                self.record_abort(&checkpoint, "dropped");
                return Ok(Aborted::Dropped { checkpoint: Some(checkpoint) });
            }
            let Some(_along) = self.take_along()? else {
                drop(held);
                self.await_along(deadline)?;
                continue;
            };
            self.undo(&held, self.workshop(&held)?, &intent)?;
            self.record_abort(&checkpoint, "undone");
            return Ok(Aborted::Undone { checkpoint });
        }
    }

    /// Removes the record, durably, and then what was staged for it.
    fn drop_intent(&self, workshop: Workshop<'_>) -> Result<()> {
        self.disk.unlink(&workshop.dir, INTENT)?;
        self.disk.sync_dir(&workshop.dir)?;
        if let Err(error) = workshop.clear() {
            self.warn(format!("what was staged could not be removed, and the next writer tries again: {error}"));
        }
        Ok(())
    }

    fn record_abort(&self, checkpoint: &str, text: &str) {
        let entry = self.recovery_entry(Level::Info, "abort", text).with("id", checkpoint);
        self.audit.record(&entry.with("pid", std::process::id()).with("path", self.shown()));
    }
}
