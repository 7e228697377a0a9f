//! The backups that a commit removes.

use std::time::{Duration, SystemTime};

use super::ground::Ground;
use super::guard::on_record::first_guarded_revision;
use crate::store::layout::BackupName;

/// Pinned backups that are kept.
const PINNED_KEPT: usize = 20;
/// Backups that are kept for running guards, which attribute changes by them.
const GUARDED: usize = 200;
/// The most backups that one commit removes: a transaction has 128 operations.
const REMOVED: usize = 32;

/// The backups that fall out when `made` is added: over the limits of number and age.
pub(super) fn surplus(ground: &Ground<'_>, made: &BackupName, now: SystemTime) -> Vec<String> {
    let settings = &ground.store.settings;
    let like = ground.backups.iter().filter(|backup| backup.is_pinned() == made.is_pinned());
    let like: Vec<&BackupName> = like.filter(|backup| *backup != made).collect();
    let kept = if made.is_pinned() { PINNED_KEPT } else { settings.max_backups.max(1) } - 1;
    let over = like.len().saturating_sub(kept); // besides the one just made
    let oldest = Duration::from_secs(settings.backup_days.saturating_mul(86_400));
    let is_old = |name: &BackupName| {
        !made.is_pinned() && now.duration_since(name.time).is_ok_and(|age| age > oldest)
    };
    let guarded = first_guarded_revision(ground);
    let is_guarded = |name: &BackupName| {
        guarded.is_some_and(|first| name.revision.is_some_and(|it| it.get() >= first))
    };
    let falls_out = |(place, name): &(usize, &BackupName)| {
        let is_needed = is_guarded(name) && place + GUARDED >= over;
        !is_needed && (*place < over || is_old(name))
    };
    let out = like.into_iter().enumerate().filter(falls_out).take(REMOVED);
    out.map(|(_, name)| name.as_str().to_owned()).collect()
}
