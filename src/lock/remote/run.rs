//! `lock run`: the locks are the command's, which a keeper of its own watches. This process watches
//! the keeper.

use std::process::ExitStatus;

use super::acquire::acquire;
use super::keeper_process::{Keeping, revive};
use super::lost::lost_of;
use super::{RemoteLocks, release};
use crate::error::Result;
use crate::lock::edit::Acquired;
use crate::lock::process::owner;
use crate::lock::process::waiting_child::WaitingChild;
use crate::lock::run::{KeeperPlace, RunSpec};

/// Runs a command while its locks are held; returns its exit status.
pub(super) fn run(locks: &RemoteLocks, spec: &RunSpec) -> Result<ExitStatus> {
    let waiting = WaitingChild::start(spec, None)?;
    let keeping = match spec.keeper {
        KeeperPlace::Background => Keeping::Watched(spec.on_lost),
        KeeperPlace::Foreground => Keeping::Here(spec.on_lost),
    };
    let request = spec.request_for(waiting.id(), &locks.env);
    let acquired = request.and_then(|request| {
        revive(locks, &request.requester);
        let (acquired, keeper) = acquire(locks, &request, keeping)?;
        Ok((request.requester.owner, acquired, keeper))
    });
    let (command, acquired, keeper) = match acquired {
        Ok(acquired) => acquired,
        Err(error) => {
            waiting.abandon();
            return Err(error);
        }
    };
    let ended = waiting.supervise(&acquired);
    if let Some(lost) = lost_of(locks, &command) {
        locks.warn(format!("{} was lost at {}: {}", spec.shown(), lost.time, lost.why));
    }
    // Its keeper does the same: this is sooner.
    give_back(locks, &acquired);
    if let Some(keeper) = keeper {
        keeper.end();
    }
    ended
}

fn give_back(locks: &RemoteLocks, acquired: &[Acquired]) {
    for Acquired { name, grant, .. } in acquired {
        let names = std::slice::from_ref(name);
        let released = owner::self_and_ancestors(None, &locks.env)
            .and_then(|requester| release::release(locks, names, Some(grant.token), &requester));
        if let Err(error) = released {
            tracing::debug!(%error, "the lock was not there to be released");
        }
    }
}
