//! Rules to begin with.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::load::in_the_way;
use super::rules::FILE;
use crate::error::{Error, Kind, Result, quote_path};
use crate::fs::Disk;
use crate::fs::stage::is_temporary;
use crate::os::hints::mount_of;
use crate::store::layout::{BACKUPS, CONFIG};
use crate::{side, tree, user};

/// Rules for a pipeline of six phases.
pub const STARTER: &str = include_str!("starter.json");

/// Writes rules to begin with, atomically, and never replaces a file. Files in `config/` are the
/// user's and most likely under version control: their modes are the usual ones, without write
/// access for others.
pub fn write_rules(disk: &Disk, root: &Path) -> Result<PathBuf> {
    // Root's files in another user's root would prevent that user's checkpoints.
    let owner = disk
        .stat(&side::open_root(disk, root)?, BACKUPS)?
        .map_or_else(user::current, |stat| stat.uid);
    if owner != user::current() {
        return Err(side::foreign_owner(root, owner));
    }
    // Through a link they would land where no checkpoint keeps them.
    tree::check(disk, &side::open_root(disk, root)?, CONFIG)?;
    let directory = root.join(CONFIG);
    let path = directory.join(FILE);
    let made = || -> io::Result<()> {
        match DirBuilder::new().mode(0o755).create(&directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        clear_leftovers(&directory)?;
        let mut temporary = tempfile::Builder::new();
        // tempfile's own errors hide the system's error
        let mut open = OpenOptions::new();
        open.write(true).create_new(true).mode(0o644);
        let mut file = temporary
            .prefix(".pipeline-state-")
            .suffix(".tmp")
            .make_in(&directory, |path| open.open(path))?;
        file.write_all(STARTER.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist_noclobber(&path)?;
        File::open(&directory)?.sync_all()?;
        File::open(root)?.sync_all()
    };
    made().map_err(|error| in_the_way(root).unwrap_or_else(|| refusal(&path, &error)))?;
    Ok(path)
}

/// Removes leftovers of killed writers. If two run at once, the one that removes the other's file
/// has yet to write its own, so one of them succeeds.
fn clear_leftovers(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(is_temporary) && entry.file_type()?.is_file() {
            match fs::remove_file(entry.path()) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}

fn refusal(path: &Path, error: &io::Error) -> Error {
    let (shown, word) = (path.display().to_string(), quote_path(path));
    match error.kind() {
        io::ErrorKind::AlreadyExists => {
            Error::new(Kind::Exists, format!("{shown} is there already; nothing was written"))
                .hint_command("hook check", "see whether it is right")
                .hint_shell(format!("mv {word} {word}.old"), "or move it away first")
        }
        _ => {
            let directory = quote_path(path.parent().unwrap_or(path));
            let error = Error::new(Kind::of_io(error), format!("cannot write {shown}: {error}"));
            match error.kind {
                Kind::DiskFull => error.hint_shell(
                    format!("df -h {directory}; df -i {directory}"),
                    "see what is left",
                ),
                Kind::PermissionDenied => error.hint_shell(
                    format!("ls -ld {directory}; {}", mount_of(&directory)),
                    "whose it is, and where it lies",
                ),
                _ => {
                    error.hint_shell(format!("ls -ld {directory}"), "see what is there, and whose")
                }
            }
        }
    }
    .detail("path", shown)
}
