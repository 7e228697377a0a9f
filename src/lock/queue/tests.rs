//! The decision on small records, and what a long queue costs.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::lock::record::Token;

fn name() -> Name {
    Name::parse("lock", "deploy").unwrap()
}

pub fn process(pid: u32) -> Identity {
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
        place: Place::Record,
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
    let queued = record(vec![grant(1, Shared, 2)], vec![waiter(Exclusive, 3), waiter(Shared, 4)]);
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
    assert!(blockers(&name(), &queued, &requester(4), spec(Exclusive), &AllDead).next().is_none());
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
    let two = record(vec![grant(1, Shared, 2), grant(2, Shared, 4)], vec![waiter(Exclusive, 3)]);
    assert_eq!(answered(&two, 2, spec(Exclusive)), "holder 4");
    let exclusive = record(vec![grant(1, Exclusive, 2)], vec![waiter(Exclusive, 3)]);
    assert_eq!(answered(&exclusive, 2, spec(Shared)), "change 1");
    let mut queue = record(vec![], vec![]);
    enqueue(&mut queue, waiter(Exclusive, 3));
    for pid in [5, 6] {
        enqueue(&mut queue, Waiter { own: Token::new(1), ..waiter(Exclusive, pid) });
    }
    enqueue(&mut queue, waiter(Shared, 7));
    assert_eq!(
        queue.waiters.iter().map(|waiter| waiter.owner.pid).collect::<Vec<_>>(),
        [5, 6, 3, 7]
    );
    queue = std::mem::take(&mut queue).with_queue(vec![waiter(Exclusive, 8)]);
    assert_eq!(queue.waiters[0].owner.pid, 8, "an earlier version put it into the record");
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
    let shown = Requester { env_tokens: vec![(name(), Token::new(9).unwrap())], ..requester(2) };
    assert!(matches!(
        answer(&name(), &held, &shown, spec(Exclusive), &AllAlive),
        Answer::AlreadyHeld(grant) if grant.token.get() == 9
    ));
    let other = Requester { env_tokens: vec![(name(), Token::new(8).unwrap())], ..requester(2) };
    assert!(matches!(answer(&name(), &held, &other, spec(Exclusive), &AllAlive), Answer::Blocked));
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
    let waiting = |pids: &[u32]| pids.iter().map(|pid| waiter(Exclusive, *pid)).collect::<Vec<_>>();
    let left =
        |record: &Record| record.waiters.iter().map(|waiter| waiter.owner.pid).collect::<Vec<_>>();
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
