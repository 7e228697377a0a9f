//! Reports on locks, each from one snapshot.

use super::RemoteLocks;
use super::ground::Ground;
use super::keeper_process::Host;
use super::notes::Renewal;
use super::oracle::ClusterOracle;
use crate::error::Result;
use crate::lock::describe::describe_holder;
use crate::lock::liveness::{Liveness, LivenessOracle as _};
use crate::lock::report::{LockEntry, LockSummary, Standing};
use crate::name::Name;
use crate::time::rfc3339_millis;

/// What stands for the name of a file system.
const ENGINE: &str = "etcd";

/// The state of a lock.
pub(super) fn check(locks: &RemoteLocks, name: &Name) -> Result<Standing> {
    let ground = Ground::observe(locks, std::slice::from_ref(name), None)?;
    Ok(Standing::of(&ground.record(name.as_str()), &ClusterOracle::new()?))
}

/// All holders and waiters, by lock; holders first, waiters in their order.
pub(super) fn list(locks: &RemoteLocks) -> Result<Vec<LockEntry>> {
    let (ground, oracle) = (Ground::of_all(locks)?, ClusterOracle::new()?);
    warn_of_unkept(locks, &ground, &oracle);
    for kv in &ground.strays {
        let key = String::from_utf8_lossy(&kv.key);
        let end = if kv.lease == 0 { "`lock clean` deletes it" } else { "its lease ends it" };
        locks.warn(format!("the key {key} is not the place of a waiter that can be read; {end}"));
    }
    let records = ground.all_records();
    Ok(records.iter().flat_map(|(name, record)| LockEntry::all(name, record, &oracle)).collect())
}

/// Warns of leases of living owners on this host that nothing renews.
fn warn_of_unkept(locks: &RemoteLocks, ground: &Ground, oracle: &ClusterOracle) {
    let Some(all) = locks.host.as_ref().map(Host::notes).filter(|all| !all.is_empty()) else {
        return;
    };
    let mut seen = Vec::new();
    for (name, held) in ground.everything_held() {
        let Some(owner) = &held.grant.owner else { continue };
        if oracle.process(owner) != Liveness::Alive || seen.contains(&held.lease) {
            continue;
        }
        seen.push(held.lease);
        let notes = all.of(owner).ok().flatten();
        let renewal = notes.and_then(|notes| notes.renewal(held.lease).ok()?);
        if let Some(Renewal { until, .. }) = renewal.filter(|renewal| !renewal.is_kept) {
            locks.warn(format!(
                "the keeper of {name}:{} has ended, so its lease ends at {} unless its owner, {}, \
                 runs a command that changes a lock or the state",
                held.grant.token,
                rfc3339_millis(until),
                describe_holder(&held.grant)
            ));
        }
    }
}

/// The number of entries of each kind.
pub(super) fn summary(locks: &RemoteLocks) -> Result<LockSummary> {
    Ok(LockSummary::of(list(locks)?, locks.shown.clone(), ENGINE))
}
