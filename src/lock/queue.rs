//! The decision: may this request be granted now, given the record, and if not, what blocks it?
//!
//! First come, first served: a request waits for the holders and the earlier waiters that it
//! conflicts with, so shared requests do not overtake a waiting exclusive one. An upgrade goes to
//! the head of the queue, since the waiters after it wait for its own shared grant to go. A waiter
//! that is stopped, out of time, marked as passed over or broken blocks nothing, and keeps its
//! place. Nothing here touches the disk.

use super::identity::Identity;
use super::liveness::{Liveness, LivenessOracle, WaiterState};
use super::record::{Grant, Mode, Purpose, Record, Waiter};
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

/// Puts a waiter at the end of the queue, or if it has a grant already, after the last waiter that
/// has one.
pub fn enqueue(record: &mut Record, waiter: Waiter) {
    let first = record.waiters.iter().take_while(|earlier| earlier.own.is_some()).count();
    let position = if waiter.own.is_some() { first } else { record.waiters.len() };
    record.waiters.insert(position, waiter);
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
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use super::*;
    use crate::lock::record::Token;

    fn name() -> Name {
        Name::parse("lock", "deploy").unwrap()
    }

    fn process(pid: u32) -> Identity {
        Identity { pid, start: u64::from(pid), namespace: Default::default() }
    }

    fn requester(owner: u32) -> Requester {
        Requester {
            owner: process(owner),
            ancestry: vec![process(owner), process(1)],
            explicit: false,
            process: process(owner + 1000),
            env_tokens: Vec::new(),
        }
    }

    pub fn grant(token: u64, mode: Mode, owner: u32) -> Grant {
        Grant {
            token: Token::new(token).unwrap(),
            mode,
            owner: Some(process(owner)),
            command: String::new(),
            since: String::new(),
            count: 1,
            metadata: None,
            ttl: None,
            expires: None,
            live_file: None,
            quarantined: None,
        }
    }

    pub fn waiter(mode: Mode, owner: u32) -> Waiter {
        Waiter {
            mode,
            owner: process(owner),
            process: process(owner + 1000),
            command: String::new(),
            since: String::new(),
            until: 0.0,
            own: None,
            purpose: Purpose::Hold,
            metadata: None,
            lifeline: None,
            locks: 1,
            passed_over: false,
            broken: false,
        }
    }

    fn record(holders: Vec<Grant>, waiters: Vec<Waiter>) -> Record {
        Record { holders, waiters, ..Record::default() }
    }

    fn spec(mode: Mode) -> RequestSpec {
        RequestSpec { mode, purpose: Purpose::Hold, reentrancy: Reentrancy::Refused }
    }

    /// All processes live and wait.
    pub struct AllAlive;

    impl LivenessOracle for AllAlive {
        fn process(&self, _: &Identity) -> Liveness {
            Liveness::Alive
        }

        fn grant(&self, _: &Grant) -> Liveness {
            Liveness::Alive
        }

        fn waiter(&self, _: &Waiter) -> WaiterState {
            WaiterState::Waiting
        }
    }

    /// All waiters are stopped, all holders are dead.
    struct AllDead;

    impl LivenessOracle for AllDead {
        fn process(&self, _: &Identity) -> Liveness {
            Liveness::Dead
        }

        fn grant(&self, _: &Grant) -> Liveness {
            Liveness::Dead
        }

        fn waiter(&self, _: &Waiter) -> WaiterState {
            WaiterState::Skipped
        }
    }

    fn answered(record: &Record, owner: u32, spec: RequestSpec) -> String {
        match answer(&name(), record, &requester(owner), spec, &AllAlive) {
            Answer::Free => "free".to_owned(),
            Answer::Change(grant) => format!("change {}", grant.token),
            Answer::Count(grant) => format!("count {}", grant.token),
            Answer::AlreadyHeld(grant) => format!("held {}", grant.token),
            Answer::Blocked => {
                let names =
                    blockers(&name(), record, &requester(owner), spec, &AllAlive).map(|blocker| {
                        match blocker {
                            Blocker::Holder(grant) => {
                                format!("holder {}", grant.owner.as_ref().unwrap().pid)
                            }
                            Blocker::Waiter(waiter) => format!("waiter {}", waiter.owner.pid),
                        }
                    });
                names.collect::<Vec<_>>().join(", ")
            }
        }
    }

    use Mode::{Exclusive, Shared};

    #[test]
    fn only_shared_grants_are_held_together() {
        assert_eq!(answered(&record(vec![], vec![]), 2, spec(Exclusive)), "free");
        let held = record(vec![grant(1, Exclusive, 2)], vec![]);
        assert_eq!(answered(&held, 3, spec(Exclusive)), "holder 2");
        assert_eq!(answered(&held, 3, spec(Shared)), "holder 2");
        let shared = record(vec![grant(1, Shared, 2), grant(2, Shared, 3)], vec![]);
        assert_eq!(answered(&shared, 4, spec(Shared)), "free");
        assert_eq!(answered(&shared, 4, spec(Exclusive)), "holder 2, holder 3");
    }

    #[test]
    fn shared_requests_do_not_overtake_an_exclusive_one() {
        let queued =
            record(vec![grant(1, Shared, 2)], vec![waiter(Exclusive, 3), waiter(Shared, 4)]);
        assert_eq!(answered(&queued, 5, spec(Shared)), "waiter 3");
        assert_eq!(answered(&queued, 4, spec(Shared)), "waiter 3");
        assert_eq!(answered(&queued, 3, spec(Exclusive)), "holder 2");
        let only_shared = record(vec![], vec![waiter(Shared, 3)]);
        assert_eq!(answered(&only_shared, 4, spec(Shared)), "free");
        assert_eq!(answered(&only_shared, 4, spec(Exclusive)), "waiter 3");
    }

    #[test]
    fn dead_and_stopped_processes_block_nothing() {
        let queued = record(vec![grant(1, Exclusive, 2)], vec![waiter(Exclusive, 3)]);
        assert!(
            blockers(&name(), &queued, &requester(4), spec(Exclusive), &AllDead).next().is_none()
        );
    }

    #[test]
    fn an_ancestors_grant_is_already_held_or_counted() {
        let again = RequestSpec { reentrancy: Reentrancy::Counted, ..spec(Shared) };
        let held = record(vec![grant(1, Shared, 2)], vec![waiter(Exclusive, 3)]);
        assert_eq!(answered(&held, 2, spec(Shared)), "held 1");
        assert_eq!(answered(&held, 2, again), "count 1", "and passes a queued exclusive one");
        let ancestors = record(vec![grant(7, Exclusive, 1)], vec![]);
        assert_eq!(answered(&ancestors, 2, spec(Exclusive)), "held 7");
        assert_eq!(answered(&ancestors, 2, again), "count 7");
        let only_own = RequestSpec { reentrancy: Reentrancy::OwnCounted, ..spec(Exclusive) };
        assert_eq!(answered(&ancestors, 2, only_own), "held 7");
        assert_eq!(answered(&ancestors, 1, only_own), "count 7");
        let exclusive = RequestSpec { reentrancy: Reentrancy::Counted, ..spec(Exclusive) };
        assert_eq!(
            answered(&record(vec![grant(7, Shared, 1)], vec![]), 2, exclusive),
            "held 7",
            "it is too weak"
        );
    }

    #[test]
    fn an_upgrade_waits_for_other_holders_only() {
        let alone = record(vec![grant(1, Shared, 2)], vec![waiter(Exclusive, 3)]);
        assert_eq!(answered(&alone, 2, spec(Exclusive)), "change 1");
        let two =
            record(vec![grant(1, Shared, 2), grant(2, Shared, 4)], vec![waiter(Exclusive, 3)]);
        assert_eq!(answered(&two, 2, spec(Exclusive)), "holder 4");
        let exclusive = record(vec![grant(1, Exclusive, 2)], vec![waiter(Exclusive, 3)]);
        assert_eq!(answered(&exclusive, 2, spec(Shared)), "change 1");
        let mut queue = record(vec![], vec![waiter(Exclusive, 3)]);
        for pid in [5, 6] {
            enqueue(&mut queue, Waiter { own: Token::new(1), ..waiter(Exclusive, pid) });
        }
        enqueue(&mut queue, waiter(Shared, 7));
        assert_eq!(
            queue.waiters.iter().map(|waiter| waiter.owner.pid).collect::<Vec<_>>(),
            [5, 6, 3, 7]
        );
    }

    #[test]
    fn a_commit_passes_only_grants_of_its_ancestors() {
        let commit = RequestSpec { purpose: Purpose::Commit, ..spec(Exclusive) };
        assert_eq!(
            answered(&record(vec![grant(1, Exclusive, 1)], vec![waiter(Exclusive, 3)]), 2, commit),
            "free"
        );
        assert_eq!(
            answered(&record(vec![grant(1, Shared, 1), grant(2, Shared, 4)], vec![]), 2, commit),
            "holder 4"
        );
        assert_eq!(answered(&record(vec![], vec![waiter(Shared, 3)]), 2, commit), "waiter 3");
    }

    #[test]
    fn a_shown_token_proves_descent() {
        let held = record(vec![grant(9, Exclusive, 5)], vec![]);
        let shown =
            Requester { env_tokens: vec![(name(), Token::new(9).unwrap())], ..requester(2) };
        assert!(matches!(
            answer(&name(), &held, &shown, spec(Exclusive), &AllAlive),
            Answer::AlreadyHeld(grant) if grant.token.get() == 9
        ));
        let other =
            Requester { env_tokens: vec![(name(), Token::new(8).unwrap())], ..requester(2) };
        assert!(matches!(
            answer(&name(), &held, &other, spec(Exclusive), &AllAlive),
            Answer::Blocked
        ));
    }

    /// Waiters with an odd pid are dead, and those with a pid divisible by four are stopped.
    struct SomeAreDead;

    impl LivenessOracle for SomeAreDead {
        fn process(&self, _: &Identity) -> Liveness {
            Liveness::Alive
        }

        fn grant(&self, grant: &Grant) -> Liveness {
            match grant.owner.as_ref().unwrap().pid % 2 {
                1 => Liveness::Dead,
                _ => Liveness::Alive,
            }
        }

        fn waiter(&self, waiter: &Waiter) -> WaiterState {
            match waiter.owner.pid % 4 {
                1 | 3 => WaiterState::Dead,
                0 => WaiterState::Skipped,
                _ => WaiterState::Waiting,
            }
        }
    }

    #[test]
    fn prune_front_stops_at_the_first_waiter_in_place() {
        let waiting =
            |pids: &[u32]| pids.iter().map(|pid| waiter(Exclusive, *pid)).collect::<Vec<_>>();
        let left = |record: &Record| {
            record.waiters.iter().map(|waiter| waiter.owner.pid).collect::<Vec<_>>()
        };
        let holders = || vec![grant(1, Shared, 2), grant(2, Shared, 3)];
        let queued = record(holders(), waiting(&[1, 4, 3, 2, 5, 6]));
        let mut pruned = queued.clone();
        drop_dead_at_front(&mut pruned, usize::MAX, &SomeAreDead);
        assert_eq!(left(&pruned), [4, 2, 5, 6]);
        assert_eq!(pruned.holders.len(), 1);
        let mut pruned = queued.clone();
        drop_dead_at_front(&mut pruned, 2, &SomeAreDead);
        assert_eq!(left(&pruned), [4, 3, 2, 5, 6]);
        let mut pruned = queued.clone();
        assert_eq!(drop_dead(&mut pruned, &SomeAreDead).len(), 1, "of the holders");
        assert_eq!(left(&pruned), [4, 2, 6]);
    }

    /// All processes live and wait; counts the lookups.
    #[derive(Default)]
    struct Counted(std::cell::Cell<usize>);

    impl LivenessOracle for Counted {
        fn process(&self, process: &Identity) -> Liveness {
            self.0.set(self.0.get() + 1);
            AllAlive.process(process)
        }

        fn grant(&self, grant: &Grant) -> Liveness {
            self.0.set(self.0.get() + 1);
            AllAlive.grant(grant)
        }

        fn waiter(&self, waiter: &Waiter) -> WaiterState {
            self.0.set(self.0.get() + 1);
            AllAlive.waiter(waiter)
        }
    }

    #[test]
    fn a_message_names_the_nearest_waiter_and_counts_the_others() {
        let waiters = [2, 3, 4, 5].map(|pid| waiter(Exclusive, pid));
        let queued = record(vec![grant(1, Exclusive, 9)], waiters.to_vec());
        let oracle = Counted::default();
        let Nearest { blockers, others } =
            nearest_blockers(&name(), &queued, &requester(6), spec(Shared), &oracle);
        assert!(matches!(
            blockers[..],
            [Blocker::Holder(_), Blocker::Waiter(Waiter { owner: Identity { pid: 5, .. }, .. })]
        ));
        assert_eq!((others, oracle.0.get()), (3, 2), "the holder and that waiter are judged");
    }

    #[test]
    fn a_long_queue_is_examined_at_its_ends_only() {
        let waiters = (10..1010).map(|pid| waiter(Exclusive, pid)).collect();
        let mut queued = record(vec![grant(1, Exclusive, 2)], waiters);
        let oracle = Counted::default();
        drop_dead_at_front(&mut queued, usize::MAX, &oracle);
        assert!(matches!(
            answer(&name(), &queued, &requester(5), spec(Exclusive), &oracle),
            Answer::Blocked
        ));
        assert_eq!(waiters_to_wake(&queued, &oracle).len(), 1);
        assert!(oracle.0.get() <= 6, "{} were looked at", oracle.0.get());
    }
}
