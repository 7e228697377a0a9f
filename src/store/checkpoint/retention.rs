//! Which checkpoints are removed: the old ones by `recover cleanup`, and those that commands made
//! on their own account, of which the settings keep so many, for so many days.

use std::time::{Duration, SystemTime};

use super::id::time_of;
use super::manifest::Metadata;
use crate::error::{Error, Kind, Result};
use crate::store::Settings;

/// The retention of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retention {
    /// A user requested it: it stays until it is removed by name or by `recover cleanup`.
    Manual,
    /// A command made it on its own account.
    Automatic,
}

/// What retention asks about the checkpoints that there are.
pub trait Shelf {
    /// The metadata of one, if it has any.
    fn metadata(&self, id: &str) -> Result<Option<Metadata>>;
    /// Whether a record refers to it.
    fn is_referenced(&self, id: &str) -> Result<bool>;
    /// Whether it can be restored.
    fn is_sound(&self, id: &str) -> Result<bool>;
}

/// The checkpoints that are older than this, except the newest `kept` (at least one), the newest
/// that can be restored, and those that a record refers to. `ids` are all, oldest first.
pub fn old(
    shelf: &dyn Shelf,
    ids: &[String],
    now: SystemTime,
    older_than: Duration,
    kept: usize,
) -> Result<Vec<String>> {
    let surplus = ids.len().saturating_sub(kept.max(1));
    let mut doomed = Vec::new();
    for id in ids.iter().take(surplus) {
        if age_of(shelf, id, now)?.is_some_and(|age| age >= older_than)
            && !shelf.is_referenced(id)?
        {
            doomed.push(id.clone());
        }
    }
    if doomed.is_empty() {
        return Ok(doomed);
    }
    // A checkpoint dated in the future does not count as the newest.
    let newest = ids.iter().rev().find(|id| time_of(id).is_some_and(|time| time <= now));
    let mut sound = None;
    for id in ids.iter().rev() {
        if shelf.is_sound(id)? {
            sound = Some(id);
            break;
        }
    }
    doomed.retain(|id| Some(id) != newest && Some(id) != sound);
    Ok(doomed)
}

/// The automatic checkpoints over the limits of number and age. Never the newest checkpoint, one
/// that a record refers to, or `used`, which the caller just made or restored.
pub fn outlived(
    shelf: &dyn Shelf,
    ids: &[String],
    now: SystemTime,
    settings: &Settings,
    used: &str,
) -> Result<Vec<String>> {
    let limit = Duration::from_secs(settings.checkpoint_days.saturating_mul(86_400));
    let (mut newer, mut doomed) = (0, Vec::new());
    for (place, id) in ids.iter().rev().enumerate() {
        if shelf.metadata(id)?.is_none_or(|metadata| !metadata.automatic) {
            continue;
        }
        newer += 1;
        let is_old = || Ok::<_, Error>(age_of(shelf, id, now)?.is_some_and(|age| age > limit));
        if place > 0
            && id != used
            && (newer > settings.max_checkpoints.max(1) || is_old()?)
            && !shelf.is_referenced(id)?
        {
            doomed.push(id.clone());
        }
    }
    Ok(doomed)
}

/// The refusal to remove a checkpoint that a record refers to.
pub fn in_use(id: &str) -> Error {
    let message =
        format!("the checkpoint {id} is needed by what is on record; nothing was removed");
    Error::new(Kind::InUse, message)
        .hint_command("recover status", "see what needs it")
        .detail("checkpoint", id)
}

/// The age of a checkpoint. Where the previous checkpoint was later than the clock, its id repeats
/// that time, and its metadata has the clock's. One that both date in the future counts as made
/// now; `None` if nothing dates it.
fn age_of(shelf: &dyn Shelf, id: &str, now: SystemTime) -> Result<Option<Duration>> {
    let Some(named) = time_of(id) else { return Ok(None) };
    if let Ok(age) = now.duration_since(named) {
        return Ok(Some(age));
    }
    let noted = shelf.metadata(id)?.and_then(|metadata| metadata.time());
    Ok(Some(noted.and_then(|noted| now.duration_since(noted).ok()).unwrap_or_default()))
}
