//! Reports on locks, each from one snapshot.

use super::RemoteLocks;
use super::oracle::ClusterOracle;
use crate::error::Result;
use crate::lock::report::{LockEntry, LockSummary, Standing};
use crate::name::Name;

/// What stands for the name of a file system.
const ENGINE: &str = "etcd";

/// The state of a lock.
pub(super) fn check(locks: &RemoteLocks, name: &Name) -> Result<Standing> {
    let ground = locks.observe(std::slice::from_ref(name), None)?;
    Ok(Standing::of(&ground.record(name.as_str()), &ClusterOracle::new()?))
}

/// All holders and waiters, by lock; holders first, waiters in their order.
pub(super) fn list(locks: &RemoteLocks) -> Result<Vec<LockEntry>> {
    let (ground, oracle) = (locks.observe_all()?, ClusterOracle::new()?);
    let records = ground.all_records();
    Ok(records.iter().flat_map(|(name, record)| LockEntry::all(name, record, &oracle)).collect())
}

/// The number of entries of each kind.
pub(super) fn summary(locks: &RemoteLocks) -> Result<LockSummary> {
    Ok(LockSummary::of(list(locks)?, locks.shown.clone(), ENGINE))
}
