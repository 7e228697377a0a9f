//! The error log of one root: `TIME [LEVEL] error-recovery/COMPONENT: message (code: N)`.

use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{Level, append, fitted, open_to_read};
use crate::error::{ExitCode, one_line};
use crate::fs::Disk;
use crate::placement::ERROR_LOG;
use crate::time::rfc3339;

/// The part of the log's end that is read, in bytes.
const TAIL: u64 = 1 << 20;

/// The log, beside the state file.
#[derive(Debug)]
pub struct ErrorLog {
    disk: Disk,
    path: PathBuf,
}

impl ErrorLog {
    /// The log's name, beside the state file.
    pub const NAME: &str = ERROR_LOG;

    /// The log in this directory.
    pub fn new(disk: Disk, directory: &Path) -> Self {
        Self { disk, path: directory.join(Self::NAME) }
    }

    /// Creates an empty log where it is missing, for processes that watch it. Otherwise the first
    /// line creates it.
    pub fn make(&self) {
        let _ = append(&self.disk, &self.path, "");
    }

    /// Appends a line, where that is possible. Errors are reported on standard error as well.
    pub fn record(&self, level: Level, component: &str, message: &str, code: ExitCode) {
        self.note(level, component, message, code as u8);
    }

    /// The same with a code that need not be this program's.
    pub fn note(&self, level: Level, component: &str, message: &str, code: u8) {
        let (time, level) = (rfc3339(self.disk.now()), level.name());
        let message = fitted(one_line(message));
        let line =
            format!("{time} [{level}] error-recovery/{component}: {message} (code: {code})\n");
        let _ = append(&self.disk, &self.path, &line);
    }

    /// The lines at its end, oldest first; invalid ones are skipped.
    pub fn last(&self) -> Vec<ErrorLogEntry> {
        let Ok(Some(mut file)) = open_to_read(&self.disk, &self.path) else { return Vec::new() };
        let length = file.metadata().map_or(0, |metadata| metadata.len());
        let start = length.saturating_sub(TAIL);
        let mut bytes = Vec::new();
        if file
            .seek(SeekFrom::Start(start))
            .and_then(|_| file.take(TAIL).read_to_end(&mut bytes))
            .is_err()
        {
            return Vec::new();
        }
        let text = String::from_utf8_lossy(&bytes);
        let whole = text.lines().skip(usize::from(start > 0));
        whole.filter_map(ErrorLogEntry::parse).collect()
    }
}

/// A line of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ErrorLogEntry {
    /// Its time, RFC 3339.
    #[serde(serialize_with = "crate::time::serialize_text")]
    pub time: String,
    /// INFO, WARN or ERROR.
    pub level: String,
    /// The component that failed.
    pub component: String,
    /// The message.
    pub message: String,
    /// The exit code.
    pub code: u8,
}

impl ErrorLogEntry {
    /// Returns whether a command of this program failed. The line of a wrapped command's failure
    /// has code 0.
    pub fn is_ours(&self) -> bool {
        self.code != 0
    }

    /// Returns whether the line reports a problem.
    pub fn is_error(&self) -> bool {
        self.is_ours() || self.level != Level::Info.name()
    }

    fn parse(line: &str) -> Option<Self> {
        let (time, rest) = line.split_once(" [")?;
        let (level, rest) = rest.split_once("] error-recovery/")?;
        let (component, rest) = rest.split_once(": ")?;
        let (message, code) = rest.strip_suffix(')')?.rsplit_once(" (code: ")?;
        let owned = str::to_owned;
        let code = code.parse().ok()?;
        Some(Self {
            time: owned(time),
            level: owned(level),
            component: owned(component),
            message: owned(message),
            code,
        })
    }
}
