//! A name that is not taken.

use std::ffi::OsStr;

use rustix::io::Errno;

use super::{At, Dir, Disk, FsError, FsResult};

/// More names than this are not tried: a directory never holds so many of one second.
const MOST: u32 = 1_000_000;

/// Calls `make` with `stem` and `end`, and with `-2`, `-3` … between them while it returns
/// `EEXIST`. Returns the name that was made, or the last error: never a name that is taken.
pub fn first_free(
    stem: &str,
    end: &str,
    mut make: impl FnMut(&str) -> FsResult<()>,
) -> FsResult<String> {
    let mut name = format!("{stem}{end}");
    let mut number = 1;
    loop {
        match make(&name) {
            Err(error) if error.is(Errno::EXIST) && number < MOST => {
                number += 1;
                name = format!("{stem}-{number}{end}");
            }
            result => return result.map(|()| name),
        }
    }
}

impl Disk {
    /// Renames a file to a free name: `EEXIST` where it is taken. The caller ensures that no other
    /// process creates names there meanwhile.
    pub fn rename_to_free(&self, from: At<'_>, to: At<'_>) -> FsResult<()> {
        self.check_free(to.dir, to.name)?;
        self.rename(from, to)
    }

    /// `EEXIST` if a name is taken.
    pub fn check_free(&self, dir: &Dir, name: impl AsRef<OsStr>) -> FsResult<()> {
        match self.stat(dir, &name)? {
            Some(_) => Err(FsError {
                operation: "create",
                path: dir.path_of(name),
                source: Errno::EXIST.into(),
            }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn a_name_that_is_taken_is_never_returned() {
        let taken = |error: Errno| FsError {
            operation: "make",
            path: Path::new("x").into(),
            source: error.into(),
        };
        let mut tried = Vec::new();
        let made = first_free("a", ".json", |name| {
            tried.push(name.to_owned());
            if tried.len() > 5000 { Ok(()) } else { Err(taken(Errno::EXIST)) }
        });
        assert_eq!(made.unwrap(), "a-5001.json");
        assert_eq!(tried[..2], ["a.json", "a-2.json"]);
        assert!(first_free("a", "", |_| Err(taken(Errno::EXIST))).unwrap_err().is(Errno::EXIST));
        assert!(first_free("a", "", |_| Err(taken(Errno::NOSPC))).unwrap_err().is_full());
    }
}
