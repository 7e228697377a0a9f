//! The decision: may this request be granted now, given the record, and if not, what blocks it?
//!
//! First come, first served: a request waits for the holders and the earlier waiters that it
//! conflicts with, so shared requests do not overtake a waiting exclusive one. An upgrade goes to
//! the head of the queue, since the waiters after it wait for its own shared grant to go. A waiter
//! that is stopped, out of time, marked as passed over or broken blocks nothing, and keeps its
//! place. Nothing here touches the disk.

use super::identity::Identity;
use super::liveness::{Liveness, LivenessOracle, WaiterState};
use super::record::{Grant, Mode, Place, Purpose, Record, Waiter};
use super::request::{Reentrancy, RequestSpec, Requester};
use crate::name::Name;

/// The answer for one lock.
#[derive(Clone, Copy, Debug)]
pub enum Answer<'a> {
    /// The lock may be granted, or committed, now.
    Free,
    /// The owner's own grant may change its mode now.
    Change(&'a Grant),
    /// The owner or an ancestor holds the lock already, and its grant is counted up.
    Count(&'a Grant),
    /// The owner or an ancestor holds the lock already.
    AlreadyHeld(&'a Grant),
    /// Something blocks the request: see [`blockers`].
    Blocked,
}

/// A holder or waiter that blocks a request.
#[derive(Clone, Copy, Debug)]
pub enum Blocker<'a> {
    /// A holder.
    Holder(&'a Grant),
    /// An earlier waiter.
    Waiter(&'a Waiter),
}

/// Returns whether a waiter blocks later ones: by the state of its process, and by the record.
pub fn waiter_state(waiter: &Waiter, oracle: &dyn LivenessOracle) -> WaiterState {
    match oracle.waiter(waiter) {
        WaiterState::Waiting if waiter.lets_others_pass() => WaiterState::Skipped,
        state => state,
    }
}

/// Removes the proven dead from a record, holders and waiters; returns the grants of the dead.
pub fn drop_dead(record: &mut Record, oracle: &dyn LivenessOracle) -> Vec<Grant> {
    record.waiters.retain(|waiter| !oracle.is_dead_waiter(waiter));
    drop_dead_holders(record, oracle)
}

/// Removes the dead holders, and the dead waiters before the first one that is in its place. Later
/// ones block nothing, so a waiter in a long queue need not examine all of it. The waiter at
/// `place`, and those after it, stay in any case.
pub fn drop_dead_at_front(record: &mut Record, position: usize, oracle: &dyn LivenessOracle) {
    drop_dead_holders(record, oracle);
    let (mut positions, mut is_front) = (0..position, true);
    record.waiters.retain(|waiter| {
        is_front = is_front && positions.next().is_some();
        let waiter_state = is_front.then(|| waiter_state(waiter, oracle));
        is_front = is_front && waiter_state != Some(WaiterState::Waiting);
        waiter_state != Some(WaiterState::Dead)
    });
}

fn drop_dead_holders(record: &mut Record, oracle: &dyn LivenessOracle) -> Vec<Grant> {
    let (dead, kept) =
        std::mem::take(&mut record.holders).into_iter().partition(|grant| oracle.is_dead(grant));
    record.holders = kept;
    dead
}

/// The answer to a request.
pub fn answer<'a>(
    name: &Name,
    record: &'a Record,
    requester: &Requester,
    spec: RequestSpec,
    oracle: &dyn LivenessOracle,
) -> Answer<'a> {
    if spec.purpose == Purpose::Hold
        && let Some(own) = requester.own_grant(name, record)
    {
        let is_owners = own.owner.as_ref().is_some_and(|owner| owner.is(&requester.owner));
        let covers = own.mode == spec.mode || own.mode == Mode::Exclusive;
        let counted = spec.reentrancy == Reentrancy::Counted
            || spec.reentrancy == Reentrancy::OwnCounted && is_owners;
        if counted && covers {
            return Answer::Count(own);
        }
        if own.mode == spec.mode || !is_owners {
            return Answer::AlreadyHeld(own);
        }
        let alone = blockers(name, record, requester, spec, oracle).next().is_none();
        return if alone { Answer::Change(own) } else { Answer::Blocked };
    }
    if blockers(name, record, requester, spec, oracle).next().is_none() {
        Answer::Free
    } else {
        Answer::Blocked
    }
}

/// All that blocks a request: earlier waiters, nearest first, then holders. The iterator is lazy:
/// it examines nothing ahead.
pub fn blockers<'a>(
    name: &Name,
    record: &'a Record,
    requester: &Requester,
    spec: RequestSpec,
    oracle: &'a dyn LivenessOracle,
) -> impl Iterator<Item = Blocker<'a>> + use<'a> {
    let (holders, queue) = before(name, record, requester, spec);
    in_the_way(spec.mode, holders.into_iter(), queue, oracle)
}

/// What a request waits for, as far as a message names it: the holders that block it and the
/// nearest earlier waiter that does. The other earlier waiters are counted and not judged, since a
/// long queue has many.
#[derive(Debug)]
pub struct Nearest<'a> {
    /// The holders, then the waiter.
    pub blockers: Vec<Blocker<'a>>,
    /// The number of conflicting waiters before that one.
    pub others: usize,
}

/// The holders and the nearest earlier waiter that block a request.
pub fn nearest_blockers<'a>(
    name: &Name,
    record: &'a Record,
    requester: &Requester,
    spec: RequestSpec,
    oracle: &'a dyn LivenessOracle,
) -> Nearest<'a> {
    let (holders, queue) = before(name, record, requester, spec);
    let mut blockers: Vec<_> = in_the_way(spec.mode, holders.into_iter(), &[], oracle).collect();
    let is_waiting = |waiter: &Waiter| {
        spec.mode.conflicts(waiter.mode) && waiter_state(waiter, oracle) == WaiterState::Waiting
    };
    let nearest = queue.iter().rposition(is_waiting);
    blockers.extend(nearest.and_then(|position| queue.get(position)).map(Blocker::Waiter));
    let earlier = queue.get(..nearest.unwrap_or_default()).unwrap_or_default();
    let others = earlier.iter().filter(|waiter| spec.mode.conflicts(waiter.mode)).count();
    Nearest { blockers, others }
}

/// The holders and the waiters that come before a request, whether they block it or not.
fn before<'a>(
    name: &Name,
    record: &'a Record,
    requester: &Requester,
    spec: RequestSpec,
) -> (Vec<&'a Grant>, &'a [Waiter]) {
    let own = requester.own_grant(name, record).map(|own| own.token);
    let is_own = |grant: &Grant| match spec.purpose {
        Purpose::Commit => requester.covers(name, grant),
        Purpose::Hold => own == Some(grant.token),
    };
    // A downgrade takes nothing from other holders, and a holder does not queue for its own lock.
    if own.is_some() && spec.mode == Mode::Shared {
        return (Vec::new(), &[]);
    }
    let others = record.holders.iter().filter(|grant| !is_own(grant)).collect();
    let position = record.position_of(&requester.process).unwrap_or(record.waiters.len());
    let queue =
        if own.is_some() { &[] } else { record.waiters.get(..position).unwrap_or_default() };
    (others, queue)
}

/// All that blocks the waiter at this place of the queue, in the same order.
pub fn blockers_of_waiter<'a>(
    record: &'a Record,
    position: usize,
    waiter: &Waiter,
    oracle: &'a dyn LivenessOracle,
) -> impl Iterator<Item = Blocker<'a>> + use<'a> {
    let own = waiter.own;
    let others = record.holders.iter().filter(move |grant| Some(grant.token) != own);
    let queue =
        if own.is_some() { &[] } else { record.waiters.get(..position).unwrap_or_default() };
    in_the_way(waiter.mode, others, queue, oracle)
}

fn in_the_way<'a>(
    mode: Mode,
    others: impl Iterator<Item = &'a Grant>,
    queue: &'a [Waiter],
    oracle: &'a dyn LivenessOracle,
) -> impl Iterator<Item = Blocker<'a>> {
    let holders = others.filter(move |grant| mode.conflicts(grant.mode) && !oracle.is_dead(grant));
    let conflicting = queue.iter().rev().filter(move |earlier| mode.conflicts(earlier.mode));
    let earlier =
        conflicting.filter(|earlier| waiter_state(earlier, oracle) == WaiterState::Waiting);
    earlier.map(Blocker::Waiter).chain(holders.map(Blocker::Holder))
}

/// Puts a waiter with a file of its own at the end of the queue, or if it has a grant already,
/// after the last waiter that has one.
pub fn enqueue(record: &mut Record, waiter: Waiter) {
    // Without holders and other fields the grant that it becomes is no larger.
    let size = serde_json::to_vec(&waiter).map_or(usize::MAX, |bytes| bytes.len());
    let size = u32::try_from(size).unwrap_or(u32::MAX);
    let waiter = Waiter { place: Place::File { ticket: record.next_ticket(), size }, ..waiter };
    *record = std::mem::take(record).with_queue(vec![waiter]);
}

/// Removes a waiter from the queue.
pub fn dequeue(record: &mut Record, process: &Identity) {
    record.waiters.retain(|waiter| !waiter.process.is(process));
}

/// The waiters that may be next once a blocker is gone: all living ones, up to the first exclusive
/// one that is in its place.
pub fn waiters_to_wake(record: &Record, oracle: &dyn LivenessOracle) -> Vec<Identity> {
    let is_last = |waiter: &Waiter| {
        waiter.mode == Mode::Exclusive && waiter_state(waiter, oracle) == WaiterState::Waiting
    };
    let count = record
        .waiters
        .iter()
        .position(is_last)
        .map_or(record.waiters.len(), |position| position + 1);
    let processes = record.waiters.iter().take(count).map(|waiter| &waiter.process);
    processes.filter(|process| oracle.process(process) == Liveness::Alive).cloned().collect()
}

#[cfg(test)]
pub(super) mod tests;
