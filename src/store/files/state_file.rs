//! The live file: the file at the state file's path.

use std::ffi::OsStr;

use bytes::Bytes;
use rustix::io::Errno;

use crate::document::text::{Conversion, unconverted};
use crate::document::{READ_LIMIT, Reading, inspect_text};
use crate::error::{Error, Kind, Result, quote_path};
use crate::fs::{At, Completeness, Dir, Disk, FileKind, FsError, Stat};
use crate::side::{foreign_owner, unsafe_path};

/// The live file at the time it was read.
#[derive(Debug)]
pub struct StateFile {
    /// Its metadata, from the descriptor it was read by.
    pub stat: Stat,
    /// Its bytes; empty if it is over the limit. Where another program converted the text, the
    /// bytes that were sealed.
    pub bytes: Bytes,
    /// Their interpretation.
    pub reading: Reading,
    /// The conversion of the sealed bytes, if there was one.
    pub conversion: Option<Conversion>,
}

impl StateFile {
    /// Reads the file `name` in `dir`, if there is one. A link, a special file or another user's
    /// file is refused (6); only root may read other users' files.
    pub fn read(disk: &Disk, dir: &Dir, name: &OsStr) -> Result<Option<Self>> {
        let path = &dir.path_of(name);
        let content = match disk.read(dir, name, READ_LIMIT) {
            Ok(Some(content)) => content,
            Ok(None) => return Ok(None),
            Err(error) => return Err(explain(disk, dir.entry(name), error)),
        };
        let kind = match content.stat.kind {
            FileKind::Regular => None,
            FileKind::Directory => Some("a directory"),
            FileKind::Symlink => Some("a symbolic link"),
            FileKind::Special => Some("a device, pipe or socket"),
        };
        if let Some(kind) = kind {
            return Err(unsafe_path(path, &format!("is {kind}, not a regular file")));
        }
        let user = crate::user::current();
        if content.stat.uid != user && user != 0 {
            return Err(foreign_owner(path, content.stat.uid));
        }
        let bytes = Bytes::from(content.bytes);
        let reading = match content.size {
            Completeness::Whole => inspect_text(bytes.clone()),
            Completeness::OverLimit => Reading::Damaged(format!(
                "it has {} bytes, and 64 MiB is the limit",
                content.stat.size
            )),
        };
        let (bytes, conversion) = match (&reading, unconverted(&bytes)) {
            (Reading::Sealed(document), Some((sealed, conversion)))
                if document.seal.digest.seals(&sealed) =>
            {
                (sealed, Some(conversion))
            }
            _ => (bytes, None),
        };
        Ok(Some(Self { stat: content.stat, bytes, reading, conversion }))
    }

    /// Returns whether it is not a document.
    pub fn is_damaged(&self) -> bool {
        matches!(self.reading, Reading::Damaged(_))
    }

    /// Returns whether all of its bytes were read.
    pub fn is_whole(&self) -> bool {
        self.conversion.is_some() || self.stat.size == self.bytes.len() as u64
    }
}

/// Opening fails with ELOOP on a symbolic link, and with ENXIO on a socket; both need plainer
/// words. A path through a file that is not a directory counts as a missing directory.
fn explain(disk: &Disk, at: At<'_>, error: FsError) -> Error {
    let path = &at.path();
    let kind = disk.stat(at.dir, at.name).ok().flatten().map(|stat| stat.kind);
    match kind {
        Some(FileKind::Symlink) => unsafe_path(path, "is a symbolic link, not a regular file"),
        Some(FileKind::Special) => {
            unsafe_path(path, "is a device, pipe or socket, not a regular file")
        }
        _ if error.is(Errno::NOTDIR) => {
            Error::new(Kind::DependencyMissing, format!("{} is not in a directory", path.display()))
                .hint_shell(
                    format!("ls -ld {}", quote_path(path.parent().unwrap_or(path))),
                    "see what it is",
                )
        }
        _ => error.into(),
    }
}
