//! The head of a checkpoint: its metadata, and where its content lies. It carries its own digest.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::document::seal::{Digest, hex, verified, with_digest};
use crate::error::{Error, Kind, Result};
use crate::store::checkpoint::archive::{Archive, LIMIT};
use crate::store::checkpoint::manifest::Metadata;
use crate::store::next_revision::random;

const VERSION: u64 = 1;
/// The size of a chunk: etcd takes requests of 1.5 MiB.
pub(super) const CHUNK: usize = 512 << 10;
/// The largest head, in bytes: `recover list` reads all.
const HEAD_LIMIT: usize = 256 << 10;

/// What the key of a checkpoint holds.
#[derive(Clone, Debug)]
pub(super) struct Head {
    pub metadata: Metadata,
    /// The random name of its content.
    pub blob: String,
    /// The number of chunks.
    pub chunks: usize,
    /// The digest of the content.
    pub sha256: Digest,
    /// Files and links in it.
    pub files: usize,
    /// Bytes in these.
    pub size: u64,
}

/// Why a head cannot be used.
pub(super) enum Flaw {
    Damaged,
    TooNew(u64),
}

impl Head {
    pub(super) fn new(metadata: Metadata, archive: &Archive, content: &Bytes) -> Result<Self> {
        let listing = archive.listing();
        Ok(Self {
            metadata,
            blob: hex(&random::<24>()?),
            chunks: content.len().div_ceil(CHUNK),
            sha256: Digest::of(content),
            files: listing.files(),
            size: listing.bytes(),
        })
    }

    pub(super) fn value(&self) -> Result<Vec<u8>> {
        let value = with_digest(json!({
            "version": VERSION,
            "blob": self.blob,
            "chunks": self.chunks,
            "sha256": self.sha256.as_str(),
            "files": self.files,
            "bytes": self.size,
            "checkpoint": self.metadata.to_value(),
        }));
        let value =
            value.ok_or_else(|| Error::new(Kind::Internal, "a head that cannot be written"))?;
        if value.len() > HEAD_LIMIT {
            let message = format!(
                "the metadata of the checkpoint would have {} bytes, and {} KiB is the limit in a \
                 store on other machines",
                value.len(),
                HEAD_LIMIT >> 10
            );
            return Err(Error::new(Kind::TooLarge, message).hint_command(
                "recover checkpoint --help",
                "note less, or keep it in a file of config/",
            ));
        }
        Ok(value)
    }

    /// Reads the head of the checkpoint `id`. It is data: its content has a name and a size that
    /// this program would give.
    pub(super) fn read(id: &str, bytes: &[u8]) -> std::result::Result<Self, Flaw> {
        let value = verified(bytes).ok_or(Flaw::Damaged)?;
        match value.get("version").and_then(Value::as_u64) {
            Some(VERSION) => Self::parse(&value).filter(|head| head.metadata.id == id),
            Some(newer) if newer > VERSION => return Err(Flaw::TooNew(newer)),
            _ => None,
        }
        .ok_or(Flaw::Damaged)
    }

    fn parse(value: &Value) -> Option<Self> {
        let number = |field: &str| usize::try_from(value.get(field)?.as_u64()?).ok();
        let blob = value.get("blob")?.as_str()?;
        let is_hex = !blob.is_empty() && blob.bytes().all(|byte| byte.is_ascii_hexdigit());
        Some(Self {
            metadata: Metadata::from_value(value.get("checkpoint")?.clone())?,
            blob: is_hex.then(|| blob.to_owned())?,
            chunks: number("chunks").filter(|chunks| *chunks <= LIMIT.div_ceil(CHUNK))?,
            sha256: Digest::from_value(value.get("sha256")?)?,
            files: number("files")?,
            size: value.get("bytes")?.as_u64()?,
        })
    }
}
