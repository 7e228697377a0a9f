//! Trust in the store that a root's file names: a root may have come from elsewhere, and its store
//! counts only once the user has seen it.
//!
//! The user's own directory has one record for each trusted file, `trusted/DIGEST.json`, named
//! after the digest of the file's path; it holds the path and the digest of the file's bytes. A
//! copy of the root has another path, a changed file another digest, and neither is trusted.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::environment::Environment;
use super::file::ConfigFile;
use crate::digest::Digest;
use crate::error::{Error, Kind, Result};
use crate::fs::{Completeness, Dir, Disk, FileKind};
use crate::user;

/// The directory of the records.
const TRUSTED: &str = "trusted";
/// The largest record, in bytes.
const LIMIT: u64 = 16 << 10;

/// The user's own directory for this program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserDir(PathBuf);

impl UserDir {
    /// The directory that the environment names: `$XDG_CONFIG_HOME/pipeline-state`, or else
    /// `$HOME/.config/pipeline-state`. Relative paths do not count.
    pub fn of(env: &dyn Environment) -> Option<Self> {
        let absolute = |name| env.get(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let config = absolute("XDG_CONFIG_HOME")
            .or_else(|| absolute("HOME").map(|home| home.join(".config")))?;
        Some(Self(config.join("pipeline-state")))
    }

    /// The user's own configuration file.
    pub fn file(&self) -> PathBuf {
        self.0.join("config.toml")
    }

    fn record_of(&self, file: &Path) -> PathBuf {
        let name = format!("{}.json", Digest::of(file.as_os_str().as_encoded_bytes()).as_str());
        self.0.join(TRUSTED).join(name)
    }
}

/// A file that the user trusts.
#[derive(Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Trusted {
    /// Its path, without links.
    pub path: String,
    /// The digest of its bytes.
    pub sha256: String,
}

impl Trusted {
    /// What is to be trusted of a file.
    fn of(file: &ConfigFile, path: &Path) -> Self {
        Self { path: path.display().to_string(), sha256: file.digest.as_str().to_owned() }
    }
}

/// The path that a file's trust is bound to.
fn place_of(file: &ConfigFile) -> PathBuf {
    file.path.canonicalize().unwrap_or_else(|_| file.path.clone())
}

/// Returns whether the user trusts a file as it is.
pub fn is_trusted(disk: &Disk, dir: &UserDir, file: &ConfigFile) -> bool {
    let place = place_of(file);
    let Ok(Some(content)) = disk.read(&Dir::working(), dir.record_of(&place), LIMIT) else {
        return false;
    };
    let stat = &content.stat;
    stat.kind == FileKind::Regular
        && content.size == Completeness::Whole
        && stat.uid == user::current()
        && stat.mode & 0o022 == 0
        && serde_json::from_slice::<Trusted>(&content.bytes)
            .is_ok_and(|record| record == Trusted::of(file, &place))
}

/// Records that the user trusts a file as it is.
pub fn trust(disk: &Disk, dir: &UserDir, file: &ConfigFile) -> Result<Trusted> {
    let place = place_of(file);
    let trusted = Trusted::of(file, &place);
    let text = serde_json::to_string(&trusted).map_err(|error| {
        Error::new(Kind::Internal, format!("this is a defect of pipeline-state: {error}"))
    })?;
    let directory = make_path(disk, &dir.0.join(TRUSTED))?;
    let record = dir.record_of(&place);
    let name = record.file_name().unwrap_or_default();
    disk.replace_whole(&directory, name, format!("{text}\n").as_bytes())?;
    Ok(trusted)
}

/// Opens a directory, and makes what is missing of its path.
fn make_path(disk: &Disk, path: &Path) -> Result<Dir> {
    match (disk.open_root(path), path.parent(), path.file_name()) {
        (Err(error), Some(parent), Some(name)) if error.is(rustix::io::Errno::NOENT) => {
            let parent = make_path(disk, parent)?;
            disk.make_dir(&parent, name)?;
            Ok(disk.open_dir(&parent, name)?)
        }
        (result, _, _) => Ok(result?),
    }
}
