//! Every ordering of the lock protocol's steps for three scripts, searched breadth first.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod promises;
mod scenario;
mod search;
mod steps;
mod world;

use self::scenario::Command::{Acquire, AcquireAgain, Break, Commit, Release};
use self::scenario::{Mistake, Scenario};
use self::search::search;
use self::world::Fates;
use super::record::Mode::{Exclusive, Shared};

const A: &[usize] = &[0];

#[track_caller]
fn holds(scenario: Scenario) {
    let began = std::time::Instant::now();
    let found = search(&scenario);
    println!("{} states, {} moves, {} ends in {:?}", found.states, found.moves, found.ends, began.elapsed());
    if let Some(broken) = found.broken {
        panic!("{broken}");
    }
}

#[test]
fn one_at_a_time() {
    let script = &[Acquire(A, Exclusive), Release(A)];
    let fates = Fates::default();
    holds(Scenario::new(&["deploy"], [script, script, script], fates));
}

#[test]
fn one_death() {
    let script = &[Acquire(A, Exclusive), Release(A)];
    let fates = Fates { kills: 1, deaths: 1, ..Fates::default() };
    holds(Scenario::new(&["deploy"], [script, script, script], fates));
}
