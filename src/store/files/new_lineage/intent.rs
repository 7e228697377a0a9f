//! The record of a new lineage that is decided and not finished.

use serde_json::json;

use crate::document::seal::{Digest, Document, Lineage, Revision, verified, with_digest};
use crate::error::{Error, Kind, Result};
use crate::fs::Dir;
use crate::fs::identity::DirId;
use crate::store::files::FileStore;
use crate::store::files::root::Root;
use crate::store::layout::{ARCHIVE_PREFIX, CHECKPOINTS, INTENT, WORKSHOP};
use crate::store::restore::intent::StagedState;

/// The record's action. The record uses the file of a restore's intent, so that one lookup finds
/// either.
const FRESH: &str = "fresh";
const VERSION: u64 = 3;
/// The version without a root, as earlier releases write it.
const WITHOUT_ROOT: u64 = 2;
/// The largest record that is read, in bytes.
const LIMIT: u64 = 1 << 16;
/// The record of a decided new lineage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::store::files) struct Intent {
    /// The state's directory, for which it was written; an earlier release does not record it.
    pub(super) root: Option<DirId>,
    /// The final name of the archive.
    pub(super) archive: String,
    /// The first document of the lineage.
    pub(super) state: StagedState,
}

impl Intent {
    pub(super) fn write(&self) -> Result<Vec<u8>> {
        let StagedState { revision, lineage, digest } = &self.state;
        let state = json!({"revision": revision.get(), "lineage": lineage.as_str(),
            "digest": digest.as_str()});
        let root = self.root.as_ref().map(DirId::to_value);
        with_digest(json!({
            "version": VERSION,
            "action": FRESH,
            "root": root,
            "archive": self.archive,
            "state": state,
        }))
        .ok_or_else(|| Error::new(Kind::Internal, "the intent could not be written"))
    }

    /// Reads a record; `None` if it is damaged, of a newer program, or names anything but an
    /// archive.
    pub(in crate::store::files) fn read(bytes: &[u8]) -> Option<Self> {
        let value = verified(bytes)?;
        let root = match value.get("version")?.as_u64()? {
            WITHOUT_ROOT => None,
            VERSION => Some(DirId::from_value(value.get("root")?)?),
            _ => return None,
        };
        value.get("action").filter(|action| **action == FRESH)?;
        let archive =
            value.get("archive")?.as_str().filter(|name| name.starts_with(ARCHIVE_PREFIX))?;
        let state = value.get("state")?;
        Some(Self {
            root,
            archive: (!archive.contains(['/', '\0'])).then(|| archive.to_owned())?,
            state: StagedState {
                revision: Revision::from_value(state.get("revision")?)?,
                lineage: Lineage::from_value(state.get("lineage")?)?,
                digest: Digest::from_value(state.get("digest")?)?,
            },
        })
    }
}

/// Reads the record; `None` where there is none.
pub(in crate::store::files) fn read_fresh(store: &FileStore, root: &Dir) -> Result<Option<Intent>> {
    let found = store.disk.read(root, format!("{CHECKPOINTS}/{WORKSHOP}/{INTENT}"), LIMIT)?;
    Ok(found.and_then(|found| Intent::read(&found.bytes)))
}

/// The refusal of an interrupted start of a lineage in another root; `None` where there is none
/// or it is this root's. In a copy or clone nothing of it is carried out.
pub(in crate::store::files) fn foreign_start(
    store: &FileStore,
    root: &Dir,
) -> Result<Option<Error>> {
    let Some(intent) = read_fresh(store, root)? else { return Ok(None) };
    if let (Some(there), Some(here)) = (&intent.root, DirId::of(&store.disk, root)?)
        && here.is_same(there)
    {
        return Ok(None);
    }
    let message = format!(
        "{} holds the record of an interrupted `init --fresh` of another root; \
         nothing of it is carried out",
        root.path().display()
    );
    let abort = "drop the record and what it staged; the state and its history stay as they are";
    let error = Error::new(Kind::ForeignIntent, message);
    Ok(Some(error.hint_command("recover restore --abort", abort)))
}

/// Returns whether a document is the first of a lineage with an unfinished start: beside the
/// old lineage's copies it is not a foreign edit.
pub(in crate::store::files) fn is_fresh(store: &FileStore, document: &Document) -> bool {
    let intent = Root::of(store).open().and_then(|root| read_fresh(store, &root)).ok().flatten();
    let is_own = |root: &DirId| {
        let here = Root::of(store).open().and_then(|dir| Ok(DirId::of(&store.disk, &dir)?));
        here.ok().flatten().is_some_and(|here| here.is_same(root))
    };
    intent.is_some_and(|intent| {
        intent.state.digest == document.seal.digest && intent.root.as_ref().is_some_and(is_own)
    })
}
