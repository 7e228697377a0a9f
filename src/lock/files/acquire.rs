//! Acquires locks: several at once or none.

use std::time::Instant;

use super::case::refuse_one_lock_twice;
use super::events::{Happened, Waits};
use super::flock::{ShortLock, lock_dir};
use super::gate::Gate;
use super::load::load_all;
use super::root::LockRoot;
use super::tokens;
use super::wait::{Grantable, Wait};
use crate::error::{Error, Kind, Result};
use crate::journal::event::LockStep;
use crate::lock::author::{origin, origin_of};
use crate::lock::edit::Acquired;
use crate::lock::refusal::undrained;
use crate::lock::request::{CLEANUP_TIMEOUT, Request};
use crate::name::Name;

/// Acquires all of the requested locks, waiting until the deadline.
pub(in crate::lock) fn acquire(locks: &LockRoot, request: &Request) -> Result<Vec<Acquired>> {
    let (started, deadline) = (Instant::now(), request.deadline.at);
    refuse_one_lock_twice(locks, &request.names)?;
    let mut slot = None;
    let acquired = loop {
        let granted = Wait::new(locks, request).until_grantable(&mut slot);
        let Grantable { gate, mut edits, waits } = match granted {
            // The existing grant may be that of a command that was killed before it drained the
            // commits.
            Err(held) if held.kind == Kind::AlreadyHeld && request.wants_state() => {
                return Err(match drain_commits(locks, deadline) {
                    Ok(()) => held,
                    Err(late) => undrained(late, held),
                });
            }
            granted => granted?,
        };
        let Some(tokens) = tokens::take(&gate, edits.len())? else {
            drop(gate);
            tokens::reserve(locks, deadline)?;
            continue;
        };
        let (probe, now) = (gate.records().probe()?, locks.disk.now());
        let grants = edits.iter_mut().zip(tokens);
        let acquired: Vec<Acquired> =
            grants.map(|(edit, token)| edit.grant(request, token, now, &probe)).collect();
        let author = || origin_of(now, request);
        gate.commit(
            &edits,
            author,
            steps(&acquired, LockStep::Released, LockStep::Granted),
            &waits,
        )?;
        if let Some(slot) = slot.take() {
            slot.disarm();
        }
        gate.reserve_space();
        break acquired;
    };
    if request.wants_state()
        && let Err(error) = drain_commits(locks, deadline)
    {
        give_back(locks, &acquired, GiveBack::Unused);
        return Err(error);
    }
    for Acquired { name, grant, .. } in &acquired {
        let waited = format!("{:.6}", started.elapsed().as_secs_f64());
        let entry = locks.log.grant("acquire", "granted", name, grant);
        locks.log.record(entry.with("waited", waited));
    }
    Ok(acquired)
}

/// The steps of grants, or of undoing them. One that replaced another has two, and one that was
/// only counted again has none.
fn steps(acquired: &[Acquired], of_replaced: LockStep, of_grant: LockStep) -> Vec<Happened> {
    let mut steps = Vec::new();
    for Acquired { name, grant, before } in acquired {
        match before {
            Some(before) if before.token == grant.token => continue,
            Some(before) => steps.push(Happened::to_grant(name, of_replaced, before)),
            None => {}
        }
        steps.push(Happened::to_grant(name, of_grant, grant));
    }
    steps
}

/// Waits for commits that read the record before `state` was granted.
fn drain_commits(locks: &LockRoot, deadline: Instant) -> Result<()> {
    lock_dir(locks, ShortLock::State, deadline).map(drop)
}

/// The occasion on which grants are given back, for the audit log.
#[derive(Clone, Copy)]
pub(in crate::lock) enum GiveBack {
    /// The command cannot use them.
    Unused,
    /// The command has finished.
    Finished,
}

/// Gives grants back, all at once or none.
pub(in crate::lock) fn give_back(locks: &LockRoot, acquired: &[Acquired], occasion: GiveBack) {
    let names: Vec<Name> = acquired.iter().map(|acquired| acquired.name.clone()).collect();
    let author = || {
        let owner = acquired.first().and_then(|first| first.grant.owner.as_ref());
        origin(locks.disk.now(), owner.map_or(0, |owner| owner.pid))
    };
    let undo = || -> Result<()> {
        let gate = Gate::enter(locks, Instant::now() + CLEANUP_TIMEOUT)?;
        let mut edits = load_all(&gate, &names)?;
        for (edit, acquired) in edits.iter_mut().zip(acquired) {
            edit.take_back(acquired);
        }
        gate.commit(
            &edits,
            author,
            steps(acquired, LockStep::Granted, LockStep::Released),
            &Waits::default(),
        )
    };
    match undo() {
        Ok(()) => {
            let (action, text) = match occasion {
                GiveBack::Unused => ("acquire", "given back"),
                GiveBack::Finished => ("release", "released"),
            };
            for Acquired { name, grant, .. } in acquired {
                locks.log.record(locks.log.grant(action, text, name, grant));
            }
        }
        Err(error) => warn(locks, &error),
    }
}

fn warn(locks: &LockRoot, error: &Error) {
    locks.warn(format!("what was granted could not be given back: {error}; see `lock list`"));
}
