//! The guards on record: which of them run, and which a commit belongs to.

use super::on_file::OnFile;
use crate::error::Result;
use crate::etcd::messages::RequestOp;
use crate::etcd::txn::{Keys, delete};
use crate::lock::{Liveness, ancestry};
use crate::store::checkpoint::id::{number_of, time_of};
use crate::store::guard::record::{Record, Status};
use crate::store::guard::{OnRecord, Standing};
use crate::store::remote::RemoteStore;
use crate::store::remote::ground::Ground;
use crate::store::remote::keys::KeySpace;

fn liveness_of(store: &RemoteStore, guard: &Record) -> Result<Liveness> {
    store.host.as_ref().map_or(Ok(Liveness::Unknown), |host| host.liveness_of(guard))
}

/// Returns whether a guard runs, or may run.
fn is_running(store: &RemoteStore, guard: &Record) -> Result<bool> {
    let is_over = matches!(guard.status, Status::Unrestored(_));
    Ok(!is_over && liveness_of(store, guard)? != Liveness::Dead)
}

/// The standing of a guard.
pub(in crate::store::remote) fn standing_of(
    store: &RemoteStore,
    guard: &OnFile,
) -> Result<Standing> {
    let Some(record) = &guard.record else { return Ok(Standing::Damaged) };
    if let Status::Unrestored(why) = &record.status {
        return Ok(Standing::Unrestored(why.clone()));
    }
    Ok(match liveness_of(store, record)? {
        Liveness::Alive => Standing::Running,
        Liveness::Unknown => Standing::Unknown,
        Liveness::Dead => Standing::Killed,
    })
}

/// The operation that ends the record of a guard.
pub(in crate::store::remote) fn end_of_guard(keys: &KeySpace, id: &str) -> RequestOp {
    delete(&Keys::one(keys.guard(id)))
}

/// The guard of this id.
pub(in crate::store::remote) fn guard_of<'g>(
    ground: &'g Ground<'_>,
    id: &str,
) -> Option<&'g OnFile> {
    ground.guards.iter().find(|guard| guard.id == id)
}

/// The guards that run, or may run.
pub(in crate::store::remote) fn running_guards<'g>(
    ground: &'g Ground<'_>,
) -> impl Iterator<Item = (&'g OnFile, &'g Record)> {
    let records = ground.guards.iter().filter_map(|guard| Some((guard, guard.record.as_ref()?)));
    records.filter(|(_, record)| is_running(ground.store, record).unwrap_or(true))
}

/// The running guards that this process commits under.
pub(in crate::store::remote) fn guards_of_commit(ground: &Ground<'_>) -> Vec<String> {
    if ground.guards.is_empty() {
        return Vec::new();
    }
    let ancestors = ancestry(std::process::id()).unwrap_or_default();
    let shown = &ground.store.settings.lock_env.guards;
    let under = running_guards(ground).filter(|(_, it)| it.encloses(&ancestors, shown));
    under.map(|(guard, _)| guard.id.clone()).collect()
}

/// The first revision that a running guard needs to attribute changes.
pub(in crate::store::remote) fn first_guarded_revision(ground: &Ground<'_>) -> Option<u64> {
    let begin = |record: &Record| record.base.as_ref().map_or(1, |base| base.revision.get());
    running_guards(ground).map(|(_, record)| begin(record)).min()
}

/// Ends the records of guards with changes that a restore of this checkpoint puts back:
/// its own guard and later ones, unless they run.
pub(in crate::store::remote) fn guards_put_back_by(
    ground: &Ground<'_>,
    id: &str,
) -> Result<Vec<RequestOp>> {
    let order = |id: &str| (time_of(id), number_of(id));
    let mut ended = Vec::new();
    for guard in &ground.guards {
        let is_put_back = match standing_of(ground.store, guard)? {
            Standing::Running => false,
            Standing::Killed | Standing::Unrestored(_) => order(&guard.id) >= order(id),
            _ => guard.id == id,
        };
        if is_put_back {
            ended.push(end_of_guard(&ground.store.keys, &guard.id));
        }
    }
    Ok(ended)
}

/// Warns of guards that ended without putting everything back.
pub(in crate::store::remote) fn warn_of_guards(ground: &Ground<'_>) {
    for guard in &ground.guards {
        let Ok(standing) = standing_of(ground.store, guard) else { continue };
        let guard = OnRecord { id: guard.id.clone(), standing, is_restorable: true };
        if let Some(problem) = guard.problem().filter(|_| guard.standing != Standing::Unknown) {
            ground.store.warn(format!("{problem}; next: recover doctor"));
        }
    }
}
