//! The durable reservation of tokens, `.reserved`: see [`super::tokens`].
//!
//! Since each boot reserves tokens before it grants a lock, it also distinguishes a record torn by
//! a power cut from one damaged while its lock may be held: see `is_of_previous_boot`.

use serde::{Deserialize, Serialize};

use crate::digest;
use crate::error::Result;
use crate::fs::{Dir, Disk};
use crate::lock::identity::{BootMatch, Namespace};
use crate::lock::layout::RESERVED;
use crate::os::files::file_system;

/// Larger than the file.
const LIMIT: u64 = 1024;

/// The content of `.reserved`.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Reservation {
    /// The first token that is not reserved.
    pub end: u64,
    pub boot: String,
    pub machine: String,
}

impl Reservation {
    pub fn read(disk: &Disk, dir: &Dir) -> Result<Option<Self>> {
        let content = disk.read(dir, RESERVED, LIMIT)?;
        Ok(content.and_then(|content| Self::parse(&content.bytes)))
    }

    pub fn parse(bytes: &[u8]) -> Option<Self> {
        digest::decode(bytes).or_else(|| Self::from_line(std::str::from_utf8(bytes).ok()?))
    }

    /// Parses the line of an earlier version: these words, or only the first, without a digest.
    fn from_line(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        let end = words.next()?.parse().ok()?;
        let mut word = || words.next().unwrap_or_default().to_owned();
        Some(Self { end, boot: word(), machine: word() })
    }
}

/// Returns whether all records were written before this boot of this machine, so that their holders
/// are dead. Records are not synced: a power cut may leave nothing of one but its name.
pub(super) fn is_of_previous_boot(disk: &Disk, dir: &Dir) -> Result<bool> {
    let here = Namespace::here()?;
    let Some(reservation) = Reservation::read(disk, dir)? else { return Ok(false) };
    let same_machine = !here.machine.is_empty() && reservation.machine == here.machine;
    let another_boot = here.compare_boot(&reservation.boot) == BootMatch::Different;
    Ok(another_boot && same_machine && file_system(dir.at()).is_local())
}
