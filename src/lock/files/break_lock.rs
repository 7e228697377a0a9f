//! Operator actions: breaking a lock, and ending a wait.

use std::time::Instant;

use super::events::{Happened, Waits};
use super::gate::Gate;
use super::load::{load, load_all};
use super::records::{self, Records};
use super::root::LockRoot;
use super::tokens;
use crate::audit::Level;
use crate::error::Result;
use crate::journal::event::LockStep;
use crate::lock::author::party_of;
use crate::lock::edit::BreakTarget;
use crate::lock::lifeline::Lifeline;
use crate::lock::liveness::{Liveness, LivenessOracle as _};
use crate::lock::process::owner_view;
use crate::lock::queue::dequeue;
use crate::lock::record::{Grant, Waiter};
use crate::lock::refusal::{no_waiter, nothing_to_break};
use crate::name::Name;
use crate::owner_view::OwnerView;

/// A wait that was ended.
#[derive(Clone, Debug)]
pub struct BrokenWait {
    /// The locks that the wait was for.
    pub names: Vec<Name>,
    /// The owner that the locks were for.
    pub owner: OwnerView,
}

/// Takes a lock away from its holders, alive or not. Waiters keep their places in the queue.
pub(in crate::lock) fn break_lock(
    locks: &LockRoot,
    name: &Name,
    target: BreakTarget,
    deadline: Instant,
) -> Result<Vec<Grant>> {
    let not_held = || nothing_to_break(name, target);
    let Some(dir) = records::open(locks)? else { return Err(not_held()) };
    // While this record still shows which tokens were given.
    tokens::reserve_ahead(Records { locks, dir: &dir }, deadline);
    let gate = Gate::enter(locks, deadline)?;
    let mut edit = load(&gate, name)?;
    let broken = edit.remove_grants(target);
    if broken.is_empty() {
        return Err(not_held());
    }
    let steps = broken.iter().map(|grant| Happened::to_grant(name, LockStep::Broken, grant));
    let edits = std::slice::from_ref(&edit);
    gate.commit(edits, || locks.author(), steps.collect(), &Waits::default())?;
    drop(gate);
    for grant in &broken {
        locks.log.record(locks.log.grant("break", "broken", name, grant));
    }
    Ok(broken)
}

/// Ends the wait of the waiter with this lifeline, in all its queues: its command ends with
/// [`Kind::Broken`]. A waiter that is proven dead is removed.
pub(in crate::lock) fn break_waiter(
    locks: &LockRoot,
    lifeline: &Lifeline,
    deadline: Instant,
) -> Result<BrokenWait> {
    let not_found = || no_waiter(lifeline);
    let Some(dir) = records::open(locks)? else { return Err(not_found()) };
    let is_it = |waiter: &Waiter| waiter.lifeline.as_ref() == Some(lifeline);
    let records = Records { locks, dir: &dir }.valid()?;
    let queued = records.into_iter().filter(|(_, record)| record.waiters.iter().any(is_it));
    let names: Vec<Name> = queued.map(|(name, _)| name).collect();
    let gate = Gate::enter(locks, deadline)?;
    let (mut edits, probe) = (load_all(&gate, &names)?, gate.records().probe()?);
    let mut found: Option<Waiter> = None;
    for edit in &mut edits {
        let Some(waiter) = edit.record.waiters.iter_mut().find(|waiter| is_it(waiter)) else {
            continue;
        };
        waiter.broken = true;
        let waiter = waiter.clone();
        if probe.is_dead_waiter(&waiter) {
            dequeue(&mut edit.record, &waiter.process);
        }
        found = Some(waiter);
    }
    edits.retain(|edit| edit.original().waiters.iter().any(is_it));
    let Some(waiter) = found.map(|waiter| probe.detailed(&waiter)) else {
        return Err(not_found());
    };
    let steps = edits.iter().map(|edit| Happened {
        lock: edit.name.clone(),
        step: LockStep::WaitBroken,
        mode: Some(waiter.mode),
        token: None,
        subject: Some(party_of(&waiter.owner, &waiter.command)),
    });
    gate.commit(&edits, || locks.author(), steps.collect(), &Waits::default())?;
    if probe.process(&waiter.process) == Liveness::Alive {
        gate.wake_later(waiter.process.clone());
    }
    drop(gate);
    let names: Vec<Name> = edits.into_iter().map(|edit| edit.name).collect();
    for name in &names {
        let entry = locks.log.entry(Level::Info, "break", "a wait was ended").with("lock", name);
        let entry = entry.with("waiter", lifeline.id()).with("owner", waiter.owner.pid);
        locks.log.record(entry.with("pid", std::process::id()));
    }
    Ok(BrokenWait { names, owner: owner_view(&waiter.owner, &waiter.command) })
}
