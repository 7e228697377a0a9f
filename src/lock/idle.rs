//! A waiter that is next and does not take its free lock: frozen, swapped out, stopped in another
//! pid namespace.
//!
//! Nothing distinguishes these from a waiter that is about to run, so the other waiters watch. A
//! waiter that sees for `GRACE` on its own clock that the same earlier waiter is next and its
//! lock is free takes the gate, checks again and marks that waiter as passed over. The mark is in
//! the record, so every process sees it. The marked waiter keeps its place; when it runs, it takes
//! the gate and clears the mark or acquires the lock. A wrong mark, on a waiter that was only slow,
//! costs it one turn.
//!
//! The age of a file or of an entry proves nothing here.

use std::time::{Duration, Instant};

use super::identity::Identity;
use super::liveness::{LivenessOracle, WaiterState};
use super::queue::{blockers_of_waiter, waiter_state};
use super::record::{Record, Waiter};
use crate::name::Name;

/// The time that a waiter may leave a free lock before others go first.
pub(super) const GRACE: Duration = Duration::from_secs(1);
/// Checks further apart than this do not add up: the watching process was itself stopped in
/// between.
const LONGEST_GAP: Duration = Duration::from_secs(5);

/// A waiter that was next when last seen, and since when.
#[derive(Clone, Debug)]
pub struct IdleWaiter {
    /// The lock.
    pub lock: Name,
    /// The waiter's process.
    pub process: Identity,
    since: Instant,
    seen: Instant,
}

/// The waiter before `place` that could acquire the lock now: the first waiter in its place, if
/// nothing blocks it.
pub fn next_waiter<'a>(
    record: &'a Record,
    position: usize,
    oracle: &'a dyn LivenessOracle,
) -> Option<&'a Waiter> {
    let mut earlier = record.waiters.iter().take(position).enumerate();
    let (at, first) =
        earlier.find(|(_, waiter)| waiter_state(waiter, oracle) == WaiterState::Waiting)?;
    blockers_of_waiter(record, at, first, oracle).next().is_none().then_some(first)
}

/// Returns whether a waiter for several locks could acquire all of them now. `records`: all that it
/// is queued in.
pub fn is_next_for_all<'a>(
    process: &Identity,
    records: impl IntoIterator<Item = &'a Record>,
    oracle: &'a dyn LivenessOracle,
) -> bool {
    let blocked = |record: &'a Record| {
        let position = record.position_of(process);
        let waiter = position.and_then(|position| Some((position, record.waiters.get(position)?)));
        waiter.is_some_and(|(position, waiter)| {
            blockers_of_waiter(record, position, waiter, oracle).next().is_some()
        })
    };
    !records.into_iter().any(blocked)
}

/// Marks a waiter as passed over, if it is still next before `place`; returns whether it was.
pub fn mark(
    record: &mut Record,
    position: usize,
    process: &Identity,
    oracle: &dyn LivenessOracle,
) -> bool {
    let is_next =
        next_waiter(record, position, oracle).is_some_and(|next| next.process.is(process));
    if let Some(waiter) = record.waiter_mut(process).filter(|_| is_next) {
        waiter.passed_over = true;
    }
    is_next
}

impl IdleWaiter {
    /// The state after one more check, at `now`, which found `next`; `None` if no waiter is next.
    pub fn seen(
        before: Option<Self>,
        next: Option<(&Name, &Waiter)>,
        now: Instant,
    ) -> Option<Self> {
        let (lock, waiter) = next?;
        let is_same = |idle: &Self| {
            let gap = now.saturating_duration_since(idle.seen);
            idle.lock == *lock && idle.process.is(&waiter.process) && gap <= LONGEST_GAP
        };
        let since = before.filter(is_same).map_or(now, |idle| idle.since);
        Some(Self { lock: lock.clone(), process: waiter.process.clone(), since, seen: now })
    }

    /// When other waiters may go first.
    pub fn until(&self) -> Instant {
        self.since + GRACE
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::lock::queue::tests::{AllAlive, waiter};
    use crate::lock::record::Mode;

    fn queue(pids: &[u32]) -> Record {
        let waiters = pids.iter().map(|pid| waiter(Mode::Exclusive, *pid)).collect();
        Record { waiters, ..Record::default() }
    }

    #[test]
    fn the_first_unmarked_waiter_is_next() {
        let mut record = queue(&[2, 3, 4]);
        let next = |record: &Record, position| {
            next_waiter(record, position, &AllAlive).map(|next| next.owner.pid)
        };
        assert_eq!((next(&record, 2), next(&record, 0)), (Some(2), None));
        let first = record.waiters[0].process.clone();
        assert!(mark(&mut record, 2, &first, &AllAlive));
        assert!(!mark(&mut record, 2, &first, &AllAlive), "once is enough");
        assert_eq!(next(&record, 2), Some(3));
    }

    #[test]
    fn the_grace_period_restarts_with_each_waiter() {
        let (record, name, start) =
            (queue(&[2, 3]), Name::parse("lock", "n").unwrap(), Instant::now());
        let at = |millis| start + Duration::from_millis(millis);
        let look = |before, position: usize, millis| {
            IdleWaiter::seen(before, Some((&name, &record.waiters[position])), at(millis))
        };
        let idle = look(None, 0, 0);
        let idle = look(idle, 0, 900);
        assert_eq!(idle.as_ref().unwrap().until(), at(1000));
        assert_eq!(look(idle.clone(), 1, 950).unwrap().until(), at(1950), "another is next");
        assert_eq!(
            look(idle.clone(), 0, 6000).unwrap().until(),
            at(7000),
            "this process was stopped"
        );
        assert!(IdleWaiter::seen(idle, None, at(1000)).is_none());
    }
}
