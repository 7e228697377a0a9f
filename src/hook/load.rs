//! Where the rules are, and what is there.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::rules::{FILE, Finding, LIMIT, Reading, Scope, parse};
use crate::error::{Error, Kind, Result, quote_path};
use crate::store::layout::CONFIG;

/// The rules of this root.
#[must_use]
pub fn path(root: &Path) -> PathBuf {
    root.join(CONFIG).join(FILE)
}

/// Reads the rules of a root, if there are any; the inner error is of a file of which nothing can be used. It is the user's
/// own, and may be a link.
pub fn load(root: &Path, scope: Scope<'_>) -> Result<Option<std::result::Result<Reading, Finding>>> {
    let path = path(root);
    let mut bytes = Vec::new();
    let read = open(&path).and_then(|file| file.take(LIMIT + 1).read_to_end(&mut bytes));
    match read {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => {
            return Err(Error::new(Kind::of_io(&error), format!("cannot read {}: {error}", path.display()))
                .try_shell(format!("ls -lL {}", quote_path(&path)), "see what it is, and whose"));
        }
        Ok(_) if bytes.len() as u64 > LIMIT => {
            let message = format!("{} has over {} MiB, the limit of rules", path.display(), LIMIT >> 20);
            return Err(Error::new(Kind::TooLarge, message));
        }
        Ok(_) => {}
    }
    Ok(Some(parse(&bytes, scope)))
}

/// A pipe in the file's place would have its reader wait for somebody to write.
fn open(path: &Path) -> io::Result<File> {
    let nonblock = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
    let file = OpenOptions::new().read(true).custom_flags(nonblock).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    Ok(file)
}
