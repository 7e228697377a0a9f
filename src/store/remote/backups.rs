//! Backups: made by commits and by `state backup`, listed by `state backups`.

use std::time::{Duration, SystemTime};

use super::RemoteStore;
use super::change::accepts_edits;
use super::ground::{Ground, copy_of};
use crate::audit::Level;
use crate::error::Result;
use crate::etcd::messages::TxnRequest;
use crate::etcd::txn::{Keys, delete, put, put_at};
use crate::name::Name;
use crate::store::backups::{Listed, Reasons};
use crate::store::diagnosis::Health;
use crate::store::layout::{BackupName, manual_reason};
use crate::store::logged;
use crate::store::options::WriteOptions;

/// Pinned backups that are kept.
const PINNED_KEPT: usize = 20;
/// Backups that are kept for running guards, which attribute changes by them.
const GUARDED: usize = 200;
/// The most backups that one commit removes: a transaction has 128 operations.
const REMOVED: usize = 32;

impl RemoteStore {
    /// Makes a pinned copy of the current document, and returns its name.
    pub fn backup(&self, name: Option<&Name>) -> Result<String> {
        self.retry(|| {
            let ground = Box::new(self.observe(&[])?);
            let ground = self.undamaged(ground, &WriteOptions::of("backup"))?;
            let revision = match &ground.health {
                Health::Healthy(document) => Some(document.seal.revision),
                Health::Legacy(_) => None,
                Health::Foreign(_) if accepts_edits(self) => {
                    self.seal_as_it_is(&WriteOptions::of("backup"))?;
                    return Ok(None);
                }
                _ => return Err(ground.refusal()),
            };
            let Some(text) = ground.text() else { return Err(ground.refusal()) };
            let now = self.now();
            let made = BackupName::new(now, revision, &manual_reason(name));
            let key = |name: &str| self.keys.backup(name);
            let surplus = ground.surplus(&made, now);
            let mut success = vec![put(key(made.as_str()), text.clone())];
            success.extend(surplus.iter().map(|name| delete(&Keys::one(key(name)))));
            let compare = vec![put_at(self.keys.state(), ground.state_put_at())];
            let is_made = self.carry_out(&TxnRequest { compare, success, failure: Vec::new() })?;
            if is_made {
                let entry = logged::entry(Level::Info, "backup", "made");
                let entry = entry.with("file", made.as_str());
                self.log(entry.with("pid", std::process::id()));
            }
            Ok(is_made.then(|| made.as_str().to_owned()))
        })
    }

    /// The backups, newest first.
    pub fn backups(&self) -> Result<Vec<Listed>> {
        let ground = self.observe_to_report()?;
        let reasons = Reasons::of(self.history(None, None).unwrap_or_default());
        let listed = ground.backups.iter().rev().map(|name| {
            let text = self.value_in(ground.source, self.keys.backup(name.as_str()))?;
            let bytes = text.as_ref().map_or(0, |text| text.len() as u64);
            let copy = copy_of(name.as_str(), text);
            Ok(Listed::of(name, &copy, bytes, &reasons))
        });
        listed.collect()
    }
}

impl Ground<'_> {
    /// The backups that fall out when `made` is added: over the limits of number and age.
    pub(super) fn surplus(&self, made: &BackupName, now: SystemTime) -> Vec<String> {
        let settings = &self.store.settings;
        let like = self.backups.iter().filter(|backup| backup.is_pinned() == made.is_pinned());
        let like: Vec<&BackupName> = like.filter(|backup| *backup != made).collect();
        let kept = if made.is_pinned() { PINNED_KEPT } else { settings.max_backups.max(1) } - 1;
        let over = like.len().saturating_sub(kept); // besides the one just made
        let oldest = Duration::from_secs(settings.backup_days.saturating_mul(86_400));
        let is_old = |name: &BackupName| {
            !made.is_pinned() && now.duration_since(name.time).is_ok_and(|age| age > oldest)
        };
        let guarded = self.first_guarded_revision();
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
}
