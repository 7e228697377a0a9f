//! `state undo`: commits are on record in the log.

use super::RemoteStore;
use crate::error::Result;
use crate::store::copies::Copies as _;
use crate::store::options::WriteOptions;
use crate::store::undo::{Target, Undone};

impl RemoteStore {
    /// Brings back the document that was current before the newest change.
    pub fn undo(&self, options: &WriteOptions) -> Result<Undone> {
        Undone::by(
            |base| {
                let records = self.records()?;
                let ground = self.observe(&[])?;
                Target::choose(base, records.iter().map(|it| &it.commit), ground.copies()?)
            },
            |make| self.change(options, make),
        )
    }
}
