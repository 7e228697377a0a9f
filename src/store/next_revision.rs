//! The next revision: its number, its lineage, its size.

use std::time::SystemTime;

use serde_json::Value;

use super::options::Author;
use crate::document::new_document::NewDocument;
use crate::document::seal::{Lineage, Revision, Sealed, full_size, seal};
use crate::document::{OWN_ROOM, WRITE_LIMIT};
use crate::error::{Error, Kind, Result};
use crate::time::rfc3339;

/// The largest number of revisions that can be lost at once.
const PLAUSIBLE_LEAP: u64 = 1_000_000;

/// The records of the revisions of a root.
#[derive(Clone, Copy, Debug, Default)]
pub struct Records {
    /// The highest of a document that is here.
    pub found: Option<Revision>,
    /// The one that an edited document claims.
    pub claimed: Option<Revision>,
    /// The last one in a log.
    pub logged: Option<Revision>,
    /// The highest in the names of backups.
    pub named: Option<Revision>,
    /// The highest that readers may have been served although it was never committed.
    pub served: Option<Revision>,
}

impl Records {
    /// The records of a root with a known highest revision.
    pub fn proven(found: Option<Revision>) -> Self {
        Self { found, ..Self::default() }
    }

    /// The highest revision that may have been used. Only that of a document is proven: another
    /// number that is far off is an error, not a record.
    pub fn highest(&self) -> Option<Revision> {
        let Self { found, claimed, logged, named, served } = *self;
        let near = |revision: &Revision| is_near(*revision, found);
        let named = named.filter(|_| found.is_none() && logged.is_none());
        let remembered = claimed.filter(near).max(logged.or(named).filter(near));
        found.max(remembered).max(served.filter(near))
    }
}

/// Returns whether an unproven revision is plausible, given a known one.
fn is_near(revision: Revision, known: Option<Revision>) -> bool {
    revision.get() <= known.map_or(0, Revision::get).saturating_add(PLAUSIBLE_LEAP)
}

/// Refuses a document of `size` bytes, counted by [`full_size`], that is larger than `limit`.
pub fn check_size(size: usize, limit: usize) -> Result<()> {
    if size <= limit {
        return Ok(());
    }
    let message = format!(
        "the document would have {size} bytes, and {} MiB is the limit; \
         keep large data in files of their own",
        WRITE_LIMIT >> 20
    );
    Err(Error::new(Kind::TooLarge, message)
        .hint_command("state update 'del(.large)'", "for instance: remove what is large from it")
        .detail("bytes", size))
}

/// Refuses a document of `size` bytes that a command of `author` would make of one of `base` bytes.
/// A document that is already over the limit, because of what this program added, may be changed as
/// long as it does not grow.
pub fn check_growth(size: usize, base: usize, author: Author) -> Result<()> {
    match author {
        Author::User => check_size(size, base.clamp(WRITE_LIMIT, WRITE_LIMIT + OWN_ROOM)),
        Author::Program => check_size(size, WRITE_LIMIT + OWN_ROOM),
    }
}

/// Seals `draft` as `revision`. `created` is kept from the document's past, if it has one.
pub(super) fn seal_as(
    draft: impl Into<NewDocument>,
    revision: Revision,
    lineage: &Lineage,
    created: Option<&Value>,
    now: SystemTime,
) -> Result<Sealed> {
    let now = rfc3339(now);
    let created = created.and_then(Value::as_str).unwrap_or(&now).to_owned();
    let sealed = seal(draft, revision, lineage, &created, &now, random()?)
        .ok_or_else(|| Error::new(Kind::Internal, "the document could not be sealed"))?;
    check_size(full_size(&sealed.text, revision), WRITE_LIMIT + OWN_ROOM)?;
    Ok(sealed)
}

/// A new random lineage.
pub fn new_lineage() -> Result<Lineage> {
    Ok(Lineage::from_bytes(random()?))
}

/// Random bytes.
pub(super) fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    crate::os::fill_random(&mut bytes).map_err(|error| {
        Error::new(Kind::Io, format!("the system gave no random numbers: {error}"))
    })?;
    Ok(bytes)
}
