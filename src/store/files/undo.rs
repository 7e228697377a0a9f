//! `state undo`: commits are on record in the journal.

use super::change::Changes;
use super::root::Root;
use crate::error::Result;
use crate::store::copies::Copies as _;
use crate::store::options::WriteOptions;
use crate::store::undo::{Target, Undone};

impl Changes<'_> {
    /// Brings back the document that was current before the newest change.
    pub fn undo(&self, options: &WriteOptions) -> Result<Undone> {
        Undone::by(
            |base| {
                let backup_dir = Root::of(self.store).backup_dir_to_read()?;
                Target::choose(base, backup_dir.events().commits(), backup_dir.copies()?)
            },
            |make| self.change(options, make),
        )
    }
}
