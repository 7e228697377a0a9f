//! Opens what keeps the state of a command.

#[cfg(feature = "etcd")]
pub(super) mod cluster;

use std::rc::Rc;

use crate::audit::Audit;
use crate::config::Config;
use crate::error::Result;
use crate::fs::Disk;
use crate::lock::{FileLocks, LockEntry, LockSummary, Locks};
use crate::recovery::strategy::Member;
use crate::store::{FileStore, Store, refusal_of_grants, works_on_files_only};

/// The store that keeps the state. Nothing is read or sent yet.
pub(super) fn store(config: &Config, disk: Disk) -> Result<Store> {
    #[cfg(feature = "etcd")]
    if let Some(url) = &config.store {
        return Ok(Store::Remote(Box::new(cluster::open(url, config, disk)?)));
    }
    Ok(Store::Files(Box::new(files(config, disk)?)))
}

/// The locks beside the state. Nothing is read or sent yet.
pub(super) fn locks(config: &Config, disk: Disk, audit: Rc<Audit>) -> Result<Locks> {
    #[cfg(feature = "etcd")]
    if let Some(url) = &config.store {
        return Ok(Locks::Remote(Box::new(cluster::locks(url, config, disk, audit)?)));
    }
    let (directory, env) = (&config.settings.directory, config.settings.lock_env.clone());
    let refusal = refusal_of_grants(&disk, &config.settings);
    let locks = FileLocks::new(disk, directory, env, audit);
    locks.refuse_grants(refusal);
    Ok(Locks::Files(Box::new(locks)))
}

/// All holders and waiters of the state that `store` keeps.
pub(super) fn lock_entries(config: &Config, store: &Store) -> Result<Vec<LockEntry>> {
    match store.as_files() {
        Some(files) => files.locks().list(),
        None => own_locks(config)?.list(),
    }
}

fn own_locks(config: &Config) -> Result<Locks> {
    let disk = Disk::real();
    let audit = Rc::new(audit(config, &disk));
    locks(config, disk, audit)
}

/// The number of locks of each kind, of the state that `store` keeps.
pub(super) fn lock_summary(config: &Config, store: &Store) -> Result<LockSummary> {
    match store.as_files() {
        Some(files) => files.locks().summary(),
        None => own_locks(config)?.summary(),
    }
}

/// The store in files, for a command that works with nothing else.
pub(super) fn files(config: &Config, disk: Disk) -> Result<FileStore> {
    needs_files(config)?;
    let audit = audit(config, &disk);
    Ok(FileStore::new(disk, config.settings.clone(), audit))
}

/// Asks each member of the cluster that keeps the state; none where files do.
pub(super) fn try_members(config: &Config) -> Result<Vec<Member>> {
    #[cfg(feature = "etcd")]
    if let Some(url) = &config.store {
        return cluster::try_members(url);
    }
    let _ = config;
    Ok(Vec::new())
}

/// The warning that a store is spoken to in the clear over a network, if it is.
pub(super) fn exposure(config: &Config) -> Option<String> {
    #[cfg(feature = "etcd")]
    if let Some(url) = &config.store {
        return cluster::exposure(url);
    }
    let _ = config;
    None
}

/// The store in files, wherever the state is kept.
pub(super) fn local(config: &Config, disk: Disk) -> FileStore {
    let audit = audit(config, &disk);
    FileStore::new(disk, config.settings.clone(), audit)
}

/// Refuses a command that works on files only where they do not keep the state.
pub(super) fn needs_files(config: &Config) -> Result<()> {
    config.store.as_ref().map_or(Ok(()), |url| Err(works_on_files_only(&url.to_string())))
}

/// The log of what is done.
pub(super) fn audit(config: &Config, disk: &Disk) -> Audit {
    Audit::new(disk.clone(), config.audit_log.clone(), &config.settings.root)
}
