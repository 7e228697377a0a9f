//! When an event happened, and the script that caused it.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::line::cut;
use crate::time::parse_rfc3339;

/// The longest name of a program, a host, a command or an identifier, in bytes.
pub(super) const NAME_LIMIT: usize = 128;

/// The time and the author of an event.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The time: RFC 3339, milliseconds, UTC.
    #[serde(deserialize_with = "time")]
    pub time: String,
    /// The process that wrote the line. 0 in lines of an earlier version.
    #[serde(default)]
    pub pid: u32,
    /// The script that it acted for.
    #[serde(default)]
    pub owner: Owner,
}

/// A script that commands act for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Its process id.
    pub pid: u32,
    /// The user of the command.
    pub uid: u32,
    /// The name of the machine.
    #[serde(serialize_with = "name")]
    pub host: String,
    /// The name of its program, never with arguments.
    #[serde(serialize_with = "name")]
    pub program: String,
    /// Its start, in clock ticks since boot; with the pid it identifies the process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<u64>,
}

/// Writes a name, cut to the longest.
pub(super) fn name<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(cut(text, NAME_LIMIT))
}

/// Reads a time. It is shown unchanged, so it must be valid.
fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    match parse_rfc3339(&text) {
        Some(_) => Ok(text),
        None => Err(serde::de::Error::custom("not a time of RFC 3339")),
    }
}
