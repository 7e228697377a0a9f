//! A model of the lock protocol: every ordering of its steps for three scripts, searched breadth
//! first.
//!
//! The program's own functions decide: `admission`, `queue`, `deadlock`, `hierarchy`, `idle`,
//! `RecordEdit`, `release_one` and `files::journal::write_ops`, on records like those on the disk.
//! The model repeats only the order in which their callers proceed ([`steps`]): what they hold
//! meanwhile, and between which of their steps other scripts may come, die, stop or time out.
//!
//! Not modelled: times (an expired time is an event like others), the once-a-second check, except
//! after changes that give no sign (see `lock::files::park`) and in other pid namespaces, flock's
//! queue (any process may take it when it is free), damaged records.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod faults;
mod gated;
mod invariants;
mod mutants;
mod scenario;
mod search;
mod steps;
mod ungated;
mod world;

use self::scenario::Command::{Acquire, AcquireAgain, Break, Commit, Release};
use self::scenario::{Command, Mistake, Scenario};
use self::search::{Found, search};
use self::world::Faults;
use pipeline_state::lock::Mode::{Exclusive, Shared};

const ONE: &[usize] = &[0];
const OTHER: &[usize] = &[1];
const BOTH: &[usize] = &[0, 1];

const NOTHING: Faults = Faults { kills: 0, deaths: 0, stops: 0, expiries: 0, freezes: 0 };
const KILL: Faults = Faults { kills: 1, ..NOTHING };
const DEATH: Faults = Faults { deaths: 1, ..NOTHING };
const STOP: Faults = Faults { stops: 1, ..NOTHING };
const EXPIRY: Faults = Faults { expiries: 1, ..NOTHING };
const FREEZE: Faults = Faults { freezes: 1, ..NOTHING };

type Scripts<'a> = [&'a [Command]; 3];

const ALONE: &[Command] = &[Acquire(ONE, Exclusive)];
const SHARED: &[Command] = &[Acquire(ONE, Shared)];
const COMMIT: &[Command] = &[Commit];

#[track_caller]
fn holds(what: &str, names: &[&str], scripts: Scripts<'_>, faults: &[Faults]) {
    for faults in faults {
        assert_holds(&format!("{what}, {faults}"), search(&Scenario::new(names, scripts, *faults)));
    }
}

#[track_caller]
fn assert_holds(what: &str, found: Found) {
    let Found { states, moves, ends, broken } = found;
    println!("{what}: {states} states, {moves} moves, {ends} ends");
    if let Some(broken) = broken {
        panic!("{broken}");
    }
    assert!(ends > 0, "no script comes to an end");
}

#[test]
fn an_exclusive_lock_is_first_come_first_served() {
    holds("alone", &["deploy"], [ALONE, ALONE, ALONE], &[KILL, DEATH, STOP, EXPIRY]);
}

#[test]
fn shared_requests_hold_a_lock_together() {
    holds("shared", &["deploy"], [SHARED, SHARED, ALONE], &[KILL, DEATH, STOP, EXPIRY]);
}

#[test]
fn upgrades_and_downgrades_keep_the_promises() {
    let up = &[Acquire(ONE, Shared), Acquire(ONE, Exclusive)];
    let down = &[Acquire(ONE, Exclusive), Acquire(ONE, Shared)];
    holds("two upgrades", &["deploy"], [up, up, &[]], &[KILL, DEATH]);
    holds("two upgrades and shared", &["deploy"], [up, up, SHARED], &[NOTHING]);
    holds("upgrade and alone", &["deploy"], [up, ALONE, &[]], &[KILL]);
    holds("upgrade, shared and alone", &["deploy"], [up, SHARED, ALONE], &[NOTHING]);
    holds("downgrade, shared and alone", &["deploy"], [down, SHARED, ALONE], &[NOTHING]);
}

#[test]
fn a_counted_lock_takes_as_many_releases() {
    let twice = &[Acquire(ONE, Shared), AcquireAgain(ONE, Shared), Release(ONE), Release(ONE)];
    holds("counted", &["deploy"], [twice, ALONE, SHARED], &[NOTHING]);
    holds("counted", &["deploy"], [twice, ALONE, &[]], &[KILL]);
}

#[test]
fn no_commit_while_another_holds_the_state() {
    holds("commits", &["state"], [ALONE, COMMIT, COMMIT], &[KILL, DEATH, EXPIRY]);
    holds("commit, shared and alone", &["state"], [SHARED, ALONE, COMMIT], &[DEATH]);
    let own = &[Acquire(ONE, Exclusive), Commit];
    holds("own commit", &["state"], [own, ALONE, COMMIT], &[NOTHING]);
    holds("own commit", &["state"], [own, COMMIT, &[]], &[KILL]);
}

#[test]
fn several_locks_are_granted_all_or_none() {
    let both = &[Acquire(BOTH, Exclusive)];
    let other = &[Acquire(OTHER, Exclusive)];
    holds("both and other", &["one", "other"], [both, both, other], &[NOTHING]);
    holds("both", &["one", "other"], [both, both, &[]], &[KILL, DEATH]);
    holds("both, commit and other", &["state", "other"], [both, COMMIT, other], &[NOTHING]);
    holds("both and commit", &["state", "other"], [both, COMMIT, &[]], &[KILL]);
}

#[test]
fn a_request_that_closes_a_cycle_is_refused() {
    let one_first = &[Acquire(ONE, Exclusive), Acquire(OTHER, Exclusive)];
    let other_first = &[Acquire(OTHER, Exclusive), Acquire(ONE, Exclusive)];
    holds("cycle", &["one", "other"], [one_first, other_first, ALONE], &[NOTHING]);
    holds("cycle", &["one", "other"], [one_first, other_first, &[]], &[KILL, DEATH]);
    let commits = &[Acquire(OTHER, Exclusive), Commit];
    holds("cycle with a commit", &["state", "other"], [one_first, commits, &[]], &[KILL]);
}

#[test]
fn ordered_requests_need_no_cycle_search() {
    let state_first = &[Acquire(ONE, Exclusive), Acquire(OTHER, Exclusive)];
    let config_first = &[Acquire(OTHER, Exclusive), Acquire(ONE, Exclusive)];
    let scenario = Scenario::new(&["state", "config"], [state_first, config_first, ALONE], NOTHING);
    assert_holds("in order", search(&scenario.with(Mistake::NoDeadlockSearch)));
}

/// With `PROOFS=all` the last two run with one fault of each kind, too: half as many states again
/// as all the rest.
#[test]
fn faults_come_together() {
    let each = Faults { kills: 1, deaths: 1, stops: 1, expiries: 1, freezes: 0 };
    holds("alone", &["deploy"], [ALONE, ALONE, &[]], &[each]);
    holds("alone and commit", &["state"], [ALONE, COMMIT, &[]], &[each]);
    let is_all = std::env::var("PROOFS").is_ok_and(|value| value == "all");
    let some = if is_all { each } else { Faults { kills: 1, deaths: 1, ..NOTHING } };
    let up = &[Acquire(ONE, Shared), Acquire(ONE, Exclusive)];
    holds("two upgrades", &["deploy"], [up, up, &[]], &[some]);
    let both = &[Acquire(BOTH, Exclusive)];
    holds("both", &["one", "other"], [both, both, &[]], &[some]);
}

#[test]
fn a_frozen_waiter_is_passed_over_and_keeps_its_place() {
    holds("alone", &["deploy"], [ALONE, ALONE, ALONE], &[FREEZE]);
    holds("shared", &["deploy"], [SHARED, ALONE, SHARED], &[FREEZE]);
    holds("commits", &["state"], [ALONE, COMMIT, COMMIT], &[FREEZE]);
    let both = &[Acquire(BOTH, Exclusive)];
    holds("both", &["one", "other"], [both, both, &[]], &[FREEZE, Faults { kills: 1, ..FREEZE }]);
    holds("alone", &["deploy"], [ALONE, ALONE, &[]], &[Faults { kills: 1, deaths: 1, ..FREEZE }]);
}

#[test]
fn an_flock_proves_waiters_across_pid_namespaces() {
    let both = &[Acquire(BOTH, Exclusive)];
    let roots: [(&[&str], Scripts<'_>); 3] = [
        (&["deploy"], [ALONE, ALONE, ALONE]),
        (&["deploy"], [SHARED, ALONE, SHARED]),
        (&["one", "other"], [both, both, &[]]),
    ];
    for (names, scripts) in roots {
        for faults in [KILL, FREEZE] {
            let scenario = Scenario::new(names, scripts, faults).apart();
            assert_holds(&format!("apart, {names:?}, {faults}"), search(&scenario));
        }
    }
}

#[test]
fn a_broken_lock_goes_to_the_next_waiter() {
    holds("break", &["state"], [ALONE, ALONE, &[Break(0)]], &[NOTHING, KILL]);
}
