//! Failed system calls, and what to do about each.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::denied::{self, Denied};
use super::temporary::is_temporary;
use crate::error::{Error, Kind, quote_path};
use crate::os::hints;

/// What EBUSY means of a name.
const MOUNT_POINT: &str = "it is a mount point";

/// A failed system call and its path.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {}: {}", path.display(), describe(source))]
pub struct FsError {
    /// The operation: a verb.
    pub operation: &'static str,
    /// Its path.
    pub path: PathBuf,
    /// The original error.
    pub source: io::Error,
}

/// The operating system's message without Rust's "(os error 28)".
fn describe(error: &io::Error) -> String {
    if Errno::from_io_error(error) == Some(Errno::MLINK) {
        return "it has a second name (a hard link), which may be anywhere".to_owned();
    }
    let text = error.to_string();
    let plain = text.split(" (os error").next().unwrap_or_default();
    let mut chars = plain.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}

impl FsError {
    /// The reason, without the operation and the path.
    pub fn reason(&self) -> String {
        match self.explanation() {
            Some(denied) => denied.why,
            None if self.is(Errno::BUSY) => MOUNT_POINT.to_owned(),
            None => describe(&self.source),
        }
    }

    fn explanation(&self) -> Option<Denied> {
        self.is(Errno::ACCESS).then(|| denied::explain(&self.path)).flatten()
    }

    /// Returns whether the error has this number.
    pub fn is(&self, errno: Errno) -> bool {
        Errno::from_io_error(&self.source) == Some(errno)
    }

    /// Returns whether the kernel or the file system lacks the operation.
    pub fn is_unsupported(&self) -> bool {
        is_unsupported(&self.source)
    }

    /// Returns whether space, quota or permitted file size ran out.
    pub fn is_full(&self) -> bool {
        [Errno::NOSPC, Errno::DQUOT, Errno::FBIG].into_iter().any(|errno| self.is(errno))
    }
}

/// A result that fails with [`FsError`].
pub type FsResult<T> = std::result::Result<T, FsError>;

/// Returns whether the kernel or the file system lacks the operation. ENOTSUP and EOPNOTSUPP are
/// one number on Linux and two on a Mac, where file systems answer with either.
pub(super) fn is_unsupported(error: &io::Error) -> bool {
    let answers = [Errno::NOSYS, Errno::NOTSUP, Errno::OPNOTSUPP];
    Errno::from_io_error(error).is_some_and(|errno| answers.contains(&errno))
}

impl From<FsError> for Error {
    fn from(error: FsError) -> Self {
        let kind = Kind::of_io(&error.source);
        let path = error.path.display().to_string();
        let denied = error.explanation();
        let message = match &denied {
            Some(denied) => format!("{error}: {}", denied.why),
            None if error.is(Errno::BUSY) => {
                format!("cannot {} {path}: {MOUNT_POINT}", error.operation)
            }
            None => error.to_string(),
        };
        let failure = Self::new(kind, message)
            .detail("path", path.clone())
            .detail("operation", error.operation)
            .detail("errno", error.source.raw_os_error());
        // A temporary file no longer exists when the error is read; its directory does.
        let directory = error.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let name = error.path.file_name().and_then(OsStr::to_str);
        let near = quote_path(match directory {
            Some(directory) if name.is_some_and(is_temporary) => directory,
            _ => &error.path,
        });
        let around = quote_path(directory.unwrap_or(Path::new(".")));
        if let Some(denied) = denied {
            return Self { hints: vec![denied.hint], ..failure.caused_by(error) };
        }
        let failure = match error.source.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::FBIG) => {
                failure.hint_shell("ulimit -f", "the largest file this shell permits, in KiB")
            }
            _ if kind == Kind::DiskFull => failure.hint_shell(
                format!("df -h {around}; df -i {around}"),
                "see what is left of space and inodes",
            ),
            Some(Errno::BUSY) => failure.hint_shell(
                hints::mount_of(&near),
                "see what is mounted there; mount its directory instead",
            ),
            Some(Errno::PERM) => failure
                .hint_shell(hints::look_at_flags(&near), "see if it is immutable or append-only"),
            Some(Errno::ROFS) => {
                let place = if error.path.is_dir() { near } else { around };
                failure.hint_shell(hints::mount_of(&place), "it is mounted read-only")
            }
            _ if kind == Kind::ResourceExhausted => {
                failure.hint_shell("ulimit -a", "see which limit was reached")
            }
            _ if around == near => {
                failure.hint_shell(format!("ls -ld {near}"), "see what is there, and whose")
            }
            _ => failure
                .hint_shell(format!("ls -ld {around} {near}"), "see what is there, and whose"),
        };
        failure.caused_by(error)
    }
}
