//! Opens what keeps the state of a command.

#[cfg(feature = "etcd")]
mod cluster;

use crate::audit::Audit;
use crate::config::Config;
use crate::error::Result;
use crate::fs::Disk;
use crate::store::{FileStore, Store, works_on_files_only};

/// The store that keeps the state. Nothing is read or sent yet.
pub(super) fn store(config: &Config, disk: Disk) -> Result<Store> {
    #[cfg(feature = "etcd")]
    if let Some(url) = &config.store {
        return Ok(Store::Remote(Box::new(cluster::open(url, config, disk)?)));
    }
    Ok(Store::Files(Box::new(files(config, disk)?)))
}

/// The store in files, for a command that works with nothing else.
pub(super) fn files(config: &Config, disk: Disk) -> Result<FileStore> {
    needs_files(config)?;
    let audit = audit(config, &disk);
    Ok(FileStore::new(disk, config.settings.clone(), audit))
}

/// Refuses a command that works on files only where they do not keep the state.
pub(super) fn needs_files(config: &Config) -> Result<()> {
    config.store.as_ref().map_or(Ok(()), |url| Err(works_on_files_only(&url.to_string())))
}

/// The log of what is done.
pub(super) fn audit(config: &Config, disk: &Disk) -> Audit {
    Audit::new(disk.clone(), config.audit_log.clone(), &config.settings.root)
}
