//! `state undo`: commits are on record in the log.

use super::change::Changes;
use super::ground::Ground;
use super::log::records;
use super::source::Source;
use crate::error::Result;
use crate::store::copies::Copies as _;
use crate::store::options::WriteOptions;
use crate::store::undo::{Target, Undone};

impl Changes<'_> {
    /// Brings back the document that was current before the newest change.
    pub fn undo(&self, options: &WriteOptions) -> Result<Undone> {
        Undone::by(
            |base| {
                let records = records(self.store, Source::Cluster)?;
                let ground = Ground::observe(self.store, &[])?;
                Target::choose(base, records.iter().map(|it| &it.commit), ground.copies()?)
            },
            |make| self.change(options, make),
        )
    }
}
