//! Unpacks `config/` from an archive, into the staging directory. What is unpacked is copied, with
//! the attributes that the archive lists, and compared with it once more.

use crate::error::{Error, Kind, Result};
use crate::fs::{Dir, Disk};
use crate::store::checkpoint::archive::Archive;
use crate::store::checkpoint::manifest;
use crate::tree::{self, What};

/// The directory that `config/` is unpacked in.
const UNPACKED: &str = "unpacked";

/// Unpacks `config/`, if the archive has one, and returns the directory that it lies in. Every
/// entry of an archive lies in a directory of it, which comes first, so no link is followed.
pub(super) fn config(disk: &Disk, staging: &Dir, archive: &Archive) -> Result<Dir> {
    tree::remove(disk, staging, UNPACKED)?;
    disk.make_dir(staging, UNPACKED)?;
    let dir = disk.open_dir(staging, UNPACKED)?;
    let is_wanted = |path: &str| path.split('/').next() == Some(manifest::CONFIG);
    for entry in archive.listing().entries().iter().filter(|entry| is_wanted(&entry.path)) {
        let path = &entry.path;
        match &entry.what {
            What::Directory => disk.make_dir(&dir, path)?,
            What::File { .. } => {
                let content = archive.content(path).ok_or_else(|| {
                    Error::new(Kind::Internal, format!("an archive without {path}"))
                })?;
                let file = disk.create(&dir, path)?;
                disk.write(&file, &dir.path_of(path), content)?;
            }
            What::Link { target } => disk.symlink(target.as_ref(), &dir, path)?,
        }
    }
    Ok(dir)
}
