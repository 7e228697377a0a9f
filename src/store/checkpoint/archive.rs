//! A checkpoint in one piece, for a store that keeps no files: the length of its manifest, the
//! manifest, and the contents of the files that it lists, in its order. Equal trees make equal
//! archives.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::manifest::{self, Flaw};
use crate::acl::Acls;
use crate::document::seal::Digest;
use crate::error::{Error, Kind, Result};
use crate::tree::{DEPTH, Entry, Listing, What};

/// The largest archive, in bytes: the database of a store is shared with others.
pub const LIMIT: usize = 8 << 20;

/// A tree, or several, with the contents of the files.
#[derive(Clone, Debug, Default)]
pub struct Archive {
    listing: Listing,
    contents: BTreeMap<String, Bytes>,
}

impl Archive {
    /// These entries, with the content of each file.
    pub fn new(entries: Vec<Entry>, contents: BTreeMap<String, Bytes>) -> Self {
        Self { listing: Listing::new(entries), contents }
    }

    /// The same with one more file, of mode 0600.
    #[must_use]
    pub fn with_file(self, path: &str, content: Bytes) -> Self {
        let what = What::File { bytes: content.len() as u64, sha256: Digest::of(&content) };
        let mut with = self.with(path, what, 0o600);
        with.contents.insert(path.to_owned(), content);
        with
    }

    /// The same with one more directory, of mode 0700.
    #[must_use]
    pub fn with_directory(self, path: &str) -> Self {
        self.with(path, What::Directory, 0o700)
    }

    fn with(self, path: &str, what: What, mode: u32) -> Self {
        let path = path.to_owned();
        let mut entries = self.listing.entries().to_vec();
        entries.push(Entry { path, what, mode, mtime: (0, 0), acls: Acls::default() });
        Self { listing: Listing::new(entries), ..self }
    }

    /// What is in it.
    pub fn listing(&self) -> &Listing {
        &self.listing
    }

    /// The content of a file.
    pub fn content(&self, path: &str) -> Option<&Bytes> {
        self.contents.get(path)
    }

    /// The bytes. An archive over [`LIMIT`] is refused.
    pub fn write(&self) -> Result<Vec<u8>> {
        let manifest = manifest::write(&self.listing, LIMIT as u64)?;
        let mut bytes = format!("{}\n", manifest.len()).into_bytes();
        bytes.extend(manifest);
        for entry in self.listing.entries().iter().filter(|entry| is_file(entry)) {
            let content = self.contents.get(&entry.path).ok_or_else(|| {
                Error::new(Kind::Internal, format!("an archive without {}", entry.path))
            })?;
            bytes.extend_from_slice(content);
            check_size(bytes.len())?;
        }
        check_size(bytes.len())?;
        Ok(bytes)
    }

    /// Parses the output of [`Self::write`]. Every byte is compared with the manifest.
    pub fn read(bytes: &Bytes) -> std::result::Result<Self, Flaw> {
        let damaged = |why: &str| Flaw::Damaged(why.to_owned());
        let end = bytes.iter().take(20).position(|byte| *byte == b'\n');
        let end = end.ok_or_else(|| damaged("it has no length"))?;
        let length = std::str::from_utf8(bytes.get(..end).unwrap_or_default()).ok();
        let length: usize = length
            .and_then(|text| text.parse().ok())
            .filter(|length| *length <= LIMIT)
            .ok_or_else(|| damaged("it has no length"))?;
        let (start, mut at) = (end + 1, end + 1 + length);
        let text = bytes.get(start..at).ok_or_else(|| damaged("it is cut off"))?;
        let listing = manifest::read(text)?;
        let mut contents = BTreeMap::new();
        for entry in listing.entries() {
            check_parent(&listing, &entry.path)?;
            let What::File { bytes: size, sha256 } = &entry.what else { continue };
            let next = usize::try_from(*size).ok().and_then(|size| at.checked_add(size));
            let next = next.filter(|next| *next <= bytes.len());
            let next = next.ok_or_else(|| damaged("the archive is cut off"))?;
            let content = bytes.slice(at..next);
            if Digest::of(&content) != *sha256 {
                let path = &entry.path;
                return Err(Flaw::Damaged(format!("{path} is not what it was")));
            }
            contents.insert(entry.path.clone(), content);
            at = next;
        }
        match at == bytes.len() {
            true => Ok(Self { listing, contents }),
            false => Err(damaged("the archive has more than the manifest lists")),
        }
    }
}

fn is_file(entry: &Entry) -> bool {
    matches!(entry.what, What::File { .. })
}

/// Refuses an entry that does not lie in a directory of the archive: in a link, for instance.
fn check_parent(listing: &Listing, path: &str) -> std::result::Result<(), Flaw> {
    // A tree below its name: as deep as one that is copied.
    if path.split('/').count() > DEPTH + 2 {
        return Err(Flaw::Unsafe(path.to_owned()));
    }
    let Some((parent, _)) = path.rsplit_once('/') else { return Ok(()) };
    match listing.get(parent).map(|entry| &entry.what) {
        Some(What::Directory) => Ok(()),
        _ => Err(Flaw::Unsafe(path.to_owned())),
    }
}

fn check_size(size: usize) -> Result<()> {
    if size <= LIMIT { Ok(()) } else { Err(too_large(size as u64)) }
}

/// The refusal of a checkpoint of so many bytes, or more.
pub fn too_large(size: u64) -> Error {
    let message = format!(
        "the checkpoint would have {size} bytes or more, and {} MiB is the limit in a store on \
         other machines",
        LIMIT >> 20
    );
    Error::new(Kind::TooLarge, message)
        .hint_shell("du -a config | sort -n", "see what is large; keep that elsewhere")
        .detail("bytes", size)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn archive() -> Archive {
        let link = Entry {
            path: "config/link".into(),
            what: What::Link { target: "/etc".into() },
            mode: 0o777,
            mtime: (7, 0),
            acls: Acls::default(),
        };
        Archive::new(vec![link], BTreeMap::new())
            .with_directory("config")
            .with_file("config/a", Bytes::from_static(b"content of a"))
            .with_file("config/b", Bytes::new())
            .with_file("state.json", Bytes::from_static(b"{}"))
    }

    #[test]
    fn an_archive_round_trips_and_detects_bit_flips_and_cuts() {
        let bytes = archive().write().unwrap();
        let read = Archive::read(&bytes.clone().into()).unwrap();
        assert_eq!(read.listing(), archive().listing());
        assert_eq!(read.write().unwrap(), bytes);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Archive::read(&flipped.into()).is_err(), "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert!(Archive::read(&bytes[..length].to_vec().into()).is_err(), "{length}");
        }
        let longer = [&bytes[..], b"x"].concat();
        assert!(Archive::read(&longer.into()).is_err());
    }

    #[test]
    fn nothing_in_an_archive_lies_in_a_link_or_in_no_directory() {
        for path in ["config/link/passwd", "config/none/x", "signals/x.json"] {
            let bytes = archive().with_file(path, Bytes::new()).write().unwrap();
            assert_eq!(Archive::read(&bytes.into()).unwrap_err(), Flaw::Unsafe(path.into()));
        }
    }

    #[test]
    fn an_archive_over_the_limit_is_refused() {
        let large = Bytes::from(vec![0; LIMIT]);
        let error = archive().with_file("config/large", large).write().unwrap_err();
        assert_eq!(error.kind, Kind::TooLarge);
    }
}
