//! `state backup`: a copy that is made on purpose.

use super::begin::Transactions;
use super::change::Changes;
use super::preserve::{Replaced, copy_to_backup};
use super::state_lock::StateLocks;
use crate::audit::Level;
use crate::error::{Error, Kind, Result};
use crate::name::Name;
use crate::store::diagnosis::Health;
use crate::store::layout::{BackupName, manual_reason};
use crate::store::options::WriteOptions;
use crate::store::{ForeignEdits, logged};

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
        let made = copy_to_backup(&tx.lock, backup_dir, wanted, &found.bytes)?;
        self.store.disk.sync_dir(backup_dir)?;
        tx.prune_backups(&Replaced::Backup(made.clone()));
        let entry = logged::entry(Level::Info, "backup", "made").with("file", made.as_str());
        self.store
            .audit
            .record(&entry.with("pid", std::process::id()).with("path", self.store.shown()));
        Ok(backup_dir.path_of(made.as_str()))
    }
}
