//! The lines of checkpoints, restores, guards, retries and failures.

use serde::{Deserialize, Serialize};

use super::super::line::cut;
use super::super::origin::{self, Origin};
use crate::error::Error;

/// The longest message of a failure, in bytes; a longer one is cut.
pub const MESSAGE_LIMIT: usize = 512;
/// The most guards that one line names: those that are nested around its event.
pub const GUARDS_LIMIT: usize = 8;

/// A checkpoint that was made or removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointEvent {
    /// Its time and author.
    #[serde(flatten)]
    pub origin: Origin,
    /// The lineage of its document, if it has a sealed one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lineage: Option<String>,
    /// The checkpoint's id.
    #[serde(rename = "checkpoint", serialize_with = "origin::name")]
    pub id: String,
    /// What happened to it.
    pub step: CheckpointStep,
}

/// What happened to a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckpointStep {
    /// It was made.
    Made,
    /// It was removed.
    Removed,
}

/// A checkpoint was put in the place of what was there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreEvent {
    /// Its time and author.
    #[serde(flatten)]
    pub origin: Origin,
    /// The lineage of the document afterwards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lineage: Option<String>,
    /// The checkpoint's id.
    #[serde(rename = "checkpoint", serialize_with = "origin::name")]
    pub id: String,
    /// What happened.
    pub step: RestoreStep,
    /// The revision that it committed, if it committed one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
}

/// What happened to a restore.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RestoreStep {
    /// The checkpoint was restored.
    Restored,
    /// A restore that could not be finished was undone.
    Undone,
}

/// A step of a guard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuardEvent {
    /// Its time and author.
    #[serde(flatten)]
    pub origin: Origin,
    /// The guard.
    #[serde(rename = "guard")]
    pub id: String,
    /// What happened.
    pub step: GuardStep,
    /// The exit code of its command, where it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<u8>,
    /// The number of attempts, where it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
    /// The guards that enclose it, outermost first.
    #[serde(default, serialize_with = "nested")]
    pub guards: Vec<String>,
}

/// What happened to a guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GuardStep {
    /// It began.
    Began,
    /// Its command ended, with this code.
    Ended,
    /// What its command changed was put back.
    Restored,
    /// Not everything was put back.
    Unrestored,
    /// An operator removed its record.
    Forgotten,
}

/// A step of `recover retry`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryEvent {
    /// Its time and author. The end has the process of the begin.
    #[serde(flatten)]
    pub origin: Origin,
    /// What happened.
    pub step: RetryStep,
    /// The name of the command's program, never with arguments.
    #[serde(serialize_with = "origin::name")]
    pub program: String,
    /// The number of attempts, where it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
    /// The last exit code, where it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<u8>,
}

/// What happened to a retried command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RetryStep {
    /// The first attempt began.
    Began,
    /// An attempt succeeded.
    Succeeded,
    /// No attempt succeeded.
    Failed,
    /// The time of all attempts was up.
    TimedOut,
}

/// A command that was refused or failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Its time and author.
    #[serde(flatten)]
    pub origin: Origin,
    /// The command: `state set`.
    #[serde(serialize_with = "origin::name")]
    pub command: String,
    /// The exit code.
    pub code: u8,
    /// The kind of error: `lock_timeout`.
    #[serde(serialize_with = "origin::name")]
    pub kind: String,
    /// The sentence, cut to [`MESSAGE_LIMIT`].
    #[serde(serialize_with = "message")]
    pub message: String,
}

impl Failure {
    /// The failure of a command.
    pub fn of(origin: Origin, command: &str, error: &Error) -> Self {
        Self {
            origin,
            command: command.to_owned(),
            code: error.code() as u8,
            kind: error.kind.name().to_owned(),
            message: error.message.clone(),
        }
    }
}

fn message<S: serde::Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(cut(text, MESSAGE_LIMIT))
}

#[allow(clippy::ptr_arg)] // as serde calls it
fn nested<S: serde::Serializer>(guards: &Vec<String>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(guards.iter().take(GUARDS_LIMIT))
}
