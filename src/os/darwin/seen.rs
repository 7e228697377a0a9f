//! Which names of a directory changed: a kqueue says that one did, and not which.

use std::ffi::{OsStr, OsString};
use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, Stat, statat};

/// What stat(2) showed of the names to watch.
#[derive(Debug, Default)]
pub struct Seen(Vec<(OsString, Option<Look>)>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Look {
    device: u64,
    inode: u64,
    size: i64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Look {
    // The widths of these fields differ between systems.
    #[allow(clippy::unnecessary_cast)]
    fn of(stat: &Stat) -> Self {
        Self {
            device: stat.st_dev as u64,
            inode: stat.st_ino as u64,
            size: stat.st_size as i64,
            modified: (stat.st_mtime as i64, stat.st_mtime_nsec as i64),
            changed: (stat.st_ctime as i64, stat.st_ctime_nsec as i64),
        }
    }
}

fn look(dir: BorrowedFd<'_>, name: &OsStr) -> Option<Look> {
    statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).ok().map(|stat| Look::of(&stat))
}

impl Seen {
    /// These names as they are now.
    pub fn of(dir: BorrowedFd<'_>, names: &[OsString]) -> Self {
        Self(names.iter().map(|name| (name.clone(), look(dir, name))).collect())
    }

    /// The names, as they were given.
    pub fn names(&self) -> impl Iterator<Item = &OsStr> {
        self.0.iter().map(|(name, _)| name.as_os_str())
    }

    /// Looks again, and calls `each` with the names that came, went or changed since.
    pub fn renew(&mut self, dir: BorrowedFd<'_>, mut each: impl FnMut(&OsStr)) {
        for (name, before) in &mut self.0 {
            let now = look(dir, name);
            if std::mem::replace(before, now) != now {
                each(name);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn only_names_that_changed_are_reported_however_often_it_looks() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        let dir = fs::File::open(place.path()).unwrap();
        let mut seen = Seen::of(dir.as_fd(), &["file".into(), "other".into()]);
        let mut changed = || {
            let mut names = Vec::new();
            seen.renew(dir.as_fd(), |name| names.push(name.to_owned()));
            names
        };
        fs::write(at("unrelated"), "x").unwrap();
        assert!(changed().is_empty(), "a spurious wake-up");
        fs::write(at("file"), "one").unwrap();
        assert_eq!(changed(), ["file"], "it came");
        assert!(changed().is_empty());
        fs::write(at("new"), "two").unwrap();
        fs::rename(at("new"), at("file")).unwrap();
        assert_eq!(changed(), ["file"], "it was replaced by one of equal size");
        fs::OpenOptions::new().append(true).open(at("file")).unwrap().set_len(1).unwrap();
        assert_eq!(changed(), ["file"], "it was edited in place");
        fs::remove_file(at("file")).unwrap();
        assert_eq!(changed(), ["file"], "it went");
        assert!(changed().is_empty());
    }
}
