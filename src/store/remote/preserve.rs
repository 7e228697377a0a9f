//! What is kept of the document that a commit replaces.

use bytes::Bytes;

use super::ground::Ground;
use super::keys::KeySpace;
use crate::document::seal::{Digest, to_bytes};
use crate::store::diagnosis::{ForeignEdit, Health};
use crate::store::fresh::Replaced;
use crate::store::layout::{BackupName, EVIDENCE_PREFIX, pinned};
use crate::time::compact;

/// The most bytes of values in one request: etcd takes 1.5 MiB. What is kept of the replaced
/// document goes ahead of a commit that would be larger, in parts of this size.
pub(super) const REQUEST_ROOM: usize = 1_400_000;

/// What is kept of the document that a commit replaces.
#[derive(Debug)]
pub(super) enum Kept {
    /// These bytes become a backup.
    Backup(BackupName, Bytes),
    /// These bytes become evidence of what was wrong, under this name.
    Evidence(String, Bytes),
    /// There is none.
    Nothing,
}

impl Kept {
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Backup(_, bytes) | Self::Evidence(_, bytes) => bytes.len(),
            Self::Nothing => 0,
        }
    }

    /// Where it is found.
    pub(super) fn replaced(&self, keys: &KeySpace) -> Option<Replaced> {
        match self {
            Self::Backup(name, _) => Some(Replaced::Backup(name.as_str().to_owned())),
            Self::Evidence(name, _) => Some(Replaced::Evidence(keys.evidence(name))),
            Self::Nothing => None,
        }
    }

    /// The keys that hold it. Evidence may be larger than any document: it may have several.
    pub(super) fn values(&self, keys: &KeySpace) -> Vec<(String, Bytes)> {
        match self {
            Self::Backup(name, bytes) => vec![(keys.backup(name.as_str()), bytes.clone())],
            Self::Evidence(name, bytes) if bytes.len() <= REQUEST_ROOM => {
                vec![(keys.evidence(name), bytes.clone())]
            }
            Self::Evidence(name, bytes) => (0..bytes.len())
                .step_by(REQUEST_ROOM)
                .map(|start| bytes.slice(start..bytes.len().min(start + REQUEST_ROOM)))
                .enumerate()
                .map(|(number, part)| (keys.evidence(&format!("{name}.{number}")), part))
                .collect(),
            Self::Nothing => Vec::new(),
        }
    }
}

/// The document as a backup with this reason, or what is damaged as evidence.
pub(super) fn backup_or_evidence(ground: &Ground<'_>, reason: &str) -> Kept {
    let revision = match (ground.sealed(), &ground.health) {
        (Some(document), _) => Some(document.seal.revision),
        (None, Health::Legacy(_)) => None,
        _ => return evidence(ground),
    };
    let name = BackupName::new(ground.store.now(), revision, reason);
    ground.text().map_or(Kept::Nothing, |text| Kept::Backup(name, text.clone()))
}

/// What is kept when a foreign edit is sealed: the newest copy from before it; where there is
/// none, the edit as it was found.
pub(super) fn kept_of(ground: &Ground<'_>, edit: &ForeignEdit) -> Kept {
    let kept = edit.reference.as_ref().and_then(|reference| {
        let text = to_bytes(reference.as_sealed())?;
        let revision = Some(reference.seal.revision);
        let name = BackupName::new(ground.store.now(), revision, pinned::PRE_ADOPT);
        Some(Kept::Backup(name, Bytes::from(text)))
    });
    kept.unwrap_or_else(|| evidence(ground))
}

/// What is damaged, as evidence.
pub(super) fn evidence(ground: &Ground<'_>) -> Kept {
    let Some(text) = ground.damaged() else { return Kept::Nothing };
    let tag: String = Digest::of(text).as_str().chars().take(16).collect();
    let name = format!("{EVIDENCE_PREFIX}{}-{tag}.json", compact(ground.store.now()));
    Kept::Evidence(name, text.clone())
}
