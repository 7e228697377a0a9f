//! The result of bringing back a copy of the document.

use crate::document::seal::Revision;

/// The result of a recovery.
#[derive(Clone, Debug)]
pub enum Recovered {
    /// The state is valid, and no copy was named.
    NothingToDo {
        /// The backup made before a migration, if there is one.
        pre_migration: Option<String>,
    },
    /// A copy was restored.
    From {
        /// Its file name.
        file: String,
        /// The revision that holds it now.
        revision: Revision,
    },
}
