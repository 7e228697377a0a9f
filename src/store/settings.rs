//! The location of a state, and the options it is kept with.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use crate::lock::LockEnv;

/// Whether the command that meets damage heals it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AutoRecover {
    /// The command heals it.
    Yes,
    /// Only `state recover` heals.
    No,
}

/// Treatment of a document that another program changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForeignEdits {
    /// Commands refuse to work with it.
    Refuse,
    /// It is served with a warning, and the next write seals it if it satisfies the rules.
    Accept,
}

/// The location of a state and the options it is kept with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The directory of the state file.
    pub directory: PathBuf,
    /// The state file's name in it.
    pub file_name: OsString,
    /// The directory that `config/` lies in.
    pub root: PathBuf,
    /// The time that a writer waits for the lock.
    pub lock_timeout: Duration,
    /// Automatic backups to keep.
    pub max_backups: usize,
    /// Days after which an automatic backup goes.
    pub backup_days: u64,
    /// Automatic checkpoints to keep.
    pub max_checkpoints: usize,
    /// Days after which an automatic checkpoint goes.
    pub checkpoint_days: u64,
    /// Whether commands heal damage when they meet it.
    pub auto_recover: AutoRecover,
    /// Treatment of foreign edits.
    pub foreign_edits: ForeignEdits,
    /// Lock ownership as the environment describes it.
    pub lock_env: LockEnv,
}

impl Settings {
    /// The state file's path.
    pub fn path(&self) -> PathBuf {
        self.directory.join(&self.file_name)
    }
}
