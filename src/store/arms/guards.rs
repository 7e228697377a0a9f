//! Guards of either arm.

use super::Store;
use crate::arms::each;
use crate::error::Result;
use crate::store::Probe;
use crate::store::checkpoint::Snapshot;
use crate::store::guard::record::Record;
use crate::store::guard::{Begun, OnRecord, Settlement};
use crate::store::options::WriteOptions;

/// The guards of a store.
#[derive(Clone, Copy, Debug)]
pub struct Guards<'s> {
    pub(super) store: &'s Store,
}

impl<'s> Guards<'s> {
    /// The guards on record.
    pub fn list(&self) -> Result<Vec<OnRecord>> {
        each!(Store: self.store, store => store.guards().list())
    }

    /// Makes a checkpoint and puts a guard on record. Where its command's changes could not be put
    /// back, it is refused.
    pub fn begin(&self, snapshot: &Snapshot) -> Result<Begun<'s>> {
        each!(Store: self.store, store => {
                Probe::of(store).plan()?;
                store.guards().begin(snapshot)
            }, store => store.guards().begin(snapshot))
    }

    /// Notes that a guard's command ended.
    pub fn record_end(&self, id: &str, attempts: u32, code: u8) {
        if let Some(files) = self.store.as_files() {
            files.guards().record_end(id, attempts, code);
        }
    }

    /// Ends the record of a guard after its command succeeded.
    pub fn end(&self, id: &str) -> Result<()> {
        each!(Store: self.store, store => store.guards().end(id))
    }

    /// Puts back the changes of a guard's command, or returns the reason why it does not.
    pub fn settle_failed(&self, begun: &Record, options: &WriteOptions) -> Result<Settlement> {
        each!(Store: self.store, store => store.guards().settle_failed(begun, options))
    }

    /// A guard that did not put everything back.
    pub fn unrestored(&self, id: String, why: String) -> OnRecord {
        each!(Store: self.store, store => store.guards().unrestored(id, why))
    }

    /// Ends the record of the guard that a word names. Returns the guard's id.
    pub fn forget(&self, word: &str) -> Result<String> {
        each!(Store: self.store, store => store.guards().forget(word))
    }

    /// Notes that a command was guarded, and its exit code.
    pub fn record(&self, operation: &str, code: u8) {
        each!(Store: self.store, store => store.logs().record_guard(operation, code));
    }
}
