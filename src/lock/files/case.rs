//! Names of locks on a file system that ignores case: `Deploy` and `deploy` have one record there,
//! and so are one lock.

use super::root::LockRoot;
use crate::error::{Error, Kind, Result};
use crate::fs::{Dir, Disk};
use crate::lock::layout::LOCKS;
use crate::name::Name;
use crate::side;

/// Refuses a request for two names that are one lock here.
pub(super) fn refuse_one_lock_twice(locks: &LockRoot, names: &[Name]) -> Result<()> {
    let Some((one, other)) = differing_by_case(names) else { return Ok(()) };
    let root = side::open_root(&locks.disk, &locks.directory)?;
    side::open(&locks.disk, &root, LOCKS)?;
    if !ignores_case(&locks.disk, &root)? {
        return Ok(());
    }
    let message = format!("{one} and {other} are one lock: the file system here ignores case");
    Err(Error::new(Kind::Usage, message)
        .detail("path", root.path().display().to_string())
        .hint_text(format!("name it once: {one}")))
}

fn differing_by_case(names: &[Name]) -> Option<(&Name, &Name)> {
    let pairs = names
        .iter()
        .enumerate()
        .flat_map(|(place, one)| names.iter().skip(place + 1).map(move |other| (one, other)));
    pairs
        .filter(|(one, other)| one != other)
        .find(|(one, other)| one.as_str().eq_ignore_ascii_case(other.as_str()))
}

/// Returns whether the directory of the locks has its name in capitals, too.
fn ignores_case(disk: &Disk, root: &Dir) -> Result<bool> {
    let (small, capital) = (disk.stat(root, LOCKS)?, disk.stat(root, LOCKS.to_ascii_uppercase())?);
    Ok(small.zip(capital).is_some_and(|(small, capital)| small.same_file(&capital)))
}
