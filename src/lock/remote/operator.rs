//! Operator actions: breaking a lock, ending a wait, and deleting the keys of the dead.

use super::acquire::{delete_keys, sweep};
use super::encoding::waiter_value;
use super::ground::Ground;
use super::oracle::ClusterOracle;
use super::release::is_held;
use super::{RemoteLocks, failed};
use crate::audit::Level;
use crate::error::Result;
use crate::etcd::messages::{RequestOp, TxnRequest};
use crate::etcd::txn::{Keys, delete, put_at, put_with_lease};
use crate::lock::BrokenWait;
use crate::lock::edit::{BreakTarget, RecordEdit};
use crate::lock::lifeline::Lifeline;
use crate::lock::liveness::LivenessOracle as _;
use crate::lock::process::owner_view;
use crate::lock::queue::drop_dead;
use crate::lock::record::{Grant, Waiter};
use crate::lock::refusal::{no_waiter, nothing_to_break};
use crate::name::Name;

/// Takes a lock away from its holders, alive or not. Waiters keep their places in the queue.
pub(super) fn break_lock(
    locks: &RemoteLocks,
    name: &Name,
    target: BreakTarget,
) -> Result<Vec<Grant>> {
    let names = std::slice::from_ref(name);
    loop {
        let ground = Ground::observe(locks, names, None)?;
        let mut edit = RecordEdit::new(name, ground.record(name.as_str()));
        let broken = edit.remove_grants(target);
        if broken.is_empty() {
            return Err(nothing_to_break(name, target));
        }
        let mut request = TxnRequest::default();
        for held in broken.iter().filter_map(|grant| ground.held(name, grant.token)) {
            request.compare.push(is_held(held));
            request.success.push(delete(&Keys::one(held.key.clone())));
        }
        request.failure = locks.keys.ranges(names).into_iter().map(RequestOp::from).collect();
        let answer = locks.client.commit(&request);
        let answer = answer.map_err(|failure| failed(failure, names, "broken"))?;
        let (is_done, left_over) = (answer.succeeded, Ground::of(&locks.keys, answer)?);
        let is_there = |grant: &&Grant| left_over.held(name, grant.token).is_some();
        // Guards that do not hold: some are gone already, perhaps by an attempt whose answer was
        // lost. If all are, that is what was asked for.
        if is_done || !broken.iter().any(|grant| is_there(&grant)) {
            for grant in &broken {
                locks.log.record(locks.log.grant("break", "broken", name, grant));
            }
            return Ok(broken);
        }
    }
}

/// Ends the wait of the waiter with this id, in all its queues: its command ends with
/// [`Kind::Broken`](crate::error::Kind::Broken). A waiter that is proven dead is removed.
pub(super) fn break_waiter(locks: &RemoteLocks, lifeline: &Lifeline) -> Result<BrokenWait> {
    loop {
        let ground = Ground::of_all(locks)?;
        let oracle = ClusterOracle::new()?;
        let is_it = |waiter: &Waiter| waiter.lifeline.as_ref() == Some(lifeline);
        let mut request = TxnRequest::default();
        let (mut names, mut found) = (Vec::new(), None);
        for (name, waiting) in ground.all_waiting().filter(|(_, one)| is_it(&one.waiter)) {
            names.extend(Name::parse("lock", name));
            let waiter = Waiter { broken: true, ..waiting.waiter.clone() };
            request.compare.push(put_at(waiting.key.clone(), waiting.put_at));
            request.success.push(match oracle.is_dead_waiter(&waiter) {
                true => delete(&Keys::one(waiting.key.clone())),
                false => {
                    let value = waiter_value(&waiter, &waiting.line)?;
                    put_with_lease(waiting.key.clone(), value, waiting.lease)
                }
            });
            found = Some((waiter, waiting.waiter.broken));
        }
        let Some((waiter, was_broken)) = found else { return Err(no_waiter(lifeline)) };
        let is_done = was_broken
            || locks
                .client
                .commit(&request)
                .map_err(|failure| failed(failure, &names, "left by that waiter"))?
                .succeeded;
        if is_done {
            for name in &names {
                let entry = locks.log.entry(Level::Info, "break", "a wait was ended");
                let entry = entry.with("lock", name).with("waiter", lifeline.id());
                let entry = entry.with("owner", waiter.owner.pid);
                locks.log.record(entry.with("pid", std::process::id()));
            }
            return Ok(BrokenWait { names, owner: owner_view(&waiter.owner, &waiter.command) });
        }
    }
}

/// Deletes the keys of owners and waiters that have ended on this host, and keys in queues that no
/// lease ends; returns how many.
pub(super) fn clean(locks: &RemoteLocks) -> Result<usize> {
    let ground = Ground::of_all(locks)?;
    let oracle = ClusterOracle::new()?;
    let mut edits = Vec::new();
    for (name, record) in ground.all_records() {
        let mut edit = RecordEdit::new(&name, record);
        drop_dead(&mut edit.record, &oracle);
        edits.push(edit);
    }
    // Of the others a lease ends each.
    let strays = ground.strays.iter().filter(|kv| kv.lease == 0).map(|kv| kv.key.clone()).collect();
    Ok(sweep(locks, &ground, &edits)? + delete_keys(locks, strays)?)
}
