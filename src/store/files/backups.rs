//! Backups: `state backups` lists them, `state backup` makes one.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::Serialize;

use super::change::Changes;
use super::preserve::Replaced;
use super::report::Report;
use super::root::Root;
use super::state_lock::StateLocks;
use super::transaction::Transactions;
use crate::audit::Level;
use crate::document::seal::Revision;
use crate::error::{Error, Kind, Result};
use crate::name::Name;
use crate::store::ForeignEdits;
use crate::store::copies::CopyState;
use crate::store::diagnosis::Health;
use crate::store::layout::{BackupName, manual_reason};
use crate::store::options::WriteOptions;
use crate::time;

/// A copy in the backup directory, as `state backups` lists it.
#[derive(Debug, Serialize)]
pub struct Listed {
    /// The file's name.
    pub name: String,
    /// The revision it holds.
    pub revision: Option<u64>,
    /// The reason of the commit that made this revision, if it is on record.
    pub reason: Option<String>,
    /// The reason why the copy was kept, from the file's name.
    pub kept: String,
    /// The time it was made.
    #[serde(serialize_with = "time::serialize")]
    pub time: SystemTime,
    /// Its size.
    pub bytes: u64,
    /// Whether `state backup` or a similar command made it, rather than a commit.
    pub pinned: bool,
    /// Whether it could be restored.
    pub valid: bool,
    /// The reason why it is not valid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Whether a newer program wrote it.
    #[serde(skip)]
    pub is_newer: bool,
}

impl Changes<'_> {
    /// Makes a pinned copy of the current document and returns its path.
    pub fn backup(&self, name: Option<&Name>) -> Result<std::path::PathBuf> {
        let tx = Transactions::of(self.store).begin_write(StateLocks::of(self.store).deadline())?;
        let revision = match &tx.seen.health {
            Health::Healthy(document) => Some(document.seal.revision),
            Health::Legacy(_) => None,
            Health::Foreign(_) if self.store.settings.foreign_edits == ForeignEdits::Accept => {
                drop(tx);
                self.store.lineages().seal_as_it_is(&WriteOptions::of("backup"))?;
                return self.backup(name);
            }
            _ => return Err(tx.seen.refusal()),
        };
        let (Some(found), Some(backup_dir)) = (&tx.seen.live, tx.seen.backup_dir.dir()) else {
            return Err(Error::new(Kind::Internal, "a healthy state without its files"));
        };
        tx.keep_mirror();
        let wanted = BackupName::new(self.store.disk.now(), revision, &manual_reason(name));
        let made = tx.lock.copy_to_backup(backup_dir, wanted, &found.bytes)?;
        self.store.disk.sync_dir(backup_dir)?;
        tx.prune_backups(&Replaced::Backup(made.clone()));
        let entry =
            self.store.logs().entry(Level::Info, "backup", "made").with("file", made.as_str());
        self.store
            .audit
            .record(&entry.with("pid", std::process::id()).with("path", self.store.shown()));
        Ok(backup_dir.path_of(made.as_str()))
    }
}

impl Report<'_> {
    /// The backups, newest first.
    pub fn backups(&self) -> Result<Vec<Listed>> {
        let backup_dir = Root::of(self.store).backup_dir_to_read()?;
        let Some(dir) = backup_dir.dir() else {
            return Ok(Vec::new());
        };
        let mut reasons: BTreeMap<u64, Option<String>> = BTreeMap::new();
        for row in self.history(None, None).unwrap_or_default() {
            reasons.insert(row.revision, row.reason);
        }
        let mut listed = Vec::new();
        for name in backup_dir.backups.iter().rev() {
            let copy = backup_dir.read(name.as_str())?;
            let problem = match &copy.state {
                CopyState::Invalid(why) => Some(why.clone()),
                CopyState::TooNew(too_new, _) => {
                    Some(format!("schema {} is newer than this program", too_new.version))
                }
                CopyState::Sealed(_) | CopyState::Legacy(_) => None,
            };
            let lock = copy.seal().map(|seal| seal.revision);
            let revision = lock.or(name.revision).map(Revision::get);
            listed.push(Listed {
                name: copy.name.clone(),
                revision,
                reason: revision.and_then(|revision| reasons.get(&revision).cloned().flatten()),
                kept: name.reason.clone(),
                time: name.time,
                bytes: self.store.disk.stat(dir, name.as_str())?.map_or(0, |stat| stat.size),
                pinned: name.is_pinned(),
                valid: problem.is_none(),
                problem,
                is_newer: matches!(copy.state, CopyState::TooNew(..)),
            });
        }
        Ok(listed)
    }
}
