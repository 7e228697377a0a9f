//! Where the rules are, and what is there.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::rules::{FILE, Finding, LIMIT, Reading, Scope, parse};
use crate::error::{Error, Kind, Result, quote_path};
use crate::side::unsafe_path;
use crate::store::layout::CONFIG;

/// The rules of this root.
#[must_use]
pub fn path(root: &Path) -> PathBuf {
    root.join(CONFIG).join(FILE)
}

/// Reads the rules of a root, if there are any; the inner error is of a file of which nothing can be used. It is the user's
/// own, and it or `config/` may be a link: only who would have to replace it, as a restore would, refuses that.
pub fn load(root: &Path, scope: Scope<'_>) -> Result<Option<std::result::Result<Reading, Finding>>> {
    let path = path(root);
    let mut bytes = Vec::new();
    let read = open(&path).and_then(|file| file.take(LIMIT + 1).read_to_end(&mut bytes));
    match read {
        Err(error) => {
            if let Some(refusal) = in_the_way(root) {
                return Err(refusal);
            }
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) {
                return Ok(None);
            }
            return Err(Error::new(Kind::of_io(&error), format!("cannot read {}: {error}", path.display()))
                .try_shell(format!("ls -lL {}", quote_path(&path)), "see what it is, and whose"));
        }
        Ok(_) if bytes.len() as u64 > LIMIT => {
            let message = format!("{} has over {} MiB, the limit of rules", path.display(), LIMIT >> 20);
            return Err(Error::new(Kind::TooLarge, message)
                .try_shell(format!("ls -l {}", quote_path(&path)), "see what is in it that are no rules"));
        }
        Ok(_) => {}
    }
    Ok(Some(parse(&bytes, scope)))
}

/// The refusal of what stands where the rules belong and is no file of rules, if something does.
#[must_use]
pub fn in_the_way(root: &Path) -> Option<Error> {
    let is_wrong = |path: &Path, is_right: fn(&Metadata) -> bool, wanted: &str| {
        let is_link = path.symlink_metadata().ok()?.is_symlink();
        let is_lost = |error: &io::Error| {
            matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
                || Kind::of_io(error) == Kind::UnsafePath
        };
        let what = match path.metadata() {
            Ok(found) if is_right(&found) => return None,
            Ok(found) if found.is_dir() => "a directory",
            Ok(found) if found.is_file() => "a file",
            Ok(_) => "a device, pipe or socket",
            Err(error) if is_link && is_lost(&error) => "a symbolic link that leads nowhere",
            Err(_) => return None, // who opens it is told
        };
        let word = quote_path(path);
        // What no checkpoint could hold must not stay in `config/`.
        let away = match what {
            "a device, pipe or socket" if !is_link => format!("rm -i {word}"),
            _ => format!("mv {word} {word}.old"),
        };
        Some(
            unsafe_path(path, &format!("is {what}, not {wanted}"))
                .try_shell(away, "make room")
                .try_command("hook init-rules", "then write rules to begin with"),
        )
    };
    let path = path(root);
    is_wrong(path.parent()?, Metadata::is_dir, "a directory").or_else(|| is_wrong(&path, Metadata::is_file, "a file"))
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
