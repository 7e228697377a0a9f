//! The search finds mistakes: each of these protocols has one, and breaks the promise that it
//! should.

use super::scenario::{Command, Mistake, Scenario};
use super::search::search;
use super::world::Faults;
use super::{ALONE, BOTH, COMMIT, DEATH, FREEZE, KILL, NOTHING, ONE, OTHER, SHARED, STOP, Scripts};
use pipeline_state::lock::Mode::Exclusive;
use pipeline_state::lock::Mode::Shared;

#[track_caller]
fn breaks(mistake: Mistake, promise: &str, names: &[&str], scripts: Scripts<'_>, faults: Faults) {
    is_refuted(Scenario::new(names, scripts, faults), mistake, promise);
}

#[track_caller]
fn is_refuted(scenario: Scenario, mistake: Mistake, promise: &str) {
    let found = search(&scenario.with(mistake));
    let broken = found
        .broken
        .unwrap_or_else(|| panic!("{mistake:?} breaks nothing in {} states", found.states));
    let violation = broken.lines().next().unwrap_or_default();
    println!("{mistake:?}: {violation}, after {} states", found.states);
    assert!(violation.contains(promise), "{mistake:?} breaks another promise: {broken}");
}

const D: &[&str] = &["deploy"];
const S: &[&str] = &["state"];
const TWO: &[&str] = &["one", "other"];

const AT_ONCE: &str = "at once";
const NOT_WOKEN: &str = "nothing blocks it and no event will wake it";

#[test]
fn two_holders_of_one_lock_are_found() {
    breaks(Mistake::LivingTakenForDead, AT_ONCE, D, [ALONE, ALONE, &[]], NOTHING);
    let while_held = "commits while";
    breaks(Mistake::RecordAfterDrain, while_held, S, [ALONE, COMMIT, &[]], NOTHING);
    breaks(Mistake::DrainSkipped, while_held, S, [ALONE, COMMIT, &[]], NOTHING);
    breaks(Mistake::CommitReadsBeforeFlock, while_held, S, [ALONE, COMMIT, &[]], NOTHING);
    let both = &[Command::Acquire(BOTH, Exclusive)];
    breaks(Mistake::NoJournal, "one of two", TWO, [both, &[], &[]], KILL);
    // It is stopped once it has looked, and another is granted the lock meanwhile.
    breaks(Mistake::GrantWithoutSecondCheck, "granted after", D, [ALONE, ALONE, ALONE], STOP);
    breaks(Mistake::TokenGivenTwice, "token", D, [ALONE, ALONE, &[]], NOTHING);
}

#[test]
fn a_lost_wakeup_is_found() {
    breaks(Mistake::SilentRelease, NOT_WOKEN, D, [ALONE, ALONE, &[]], NOTHING);
    breaks(Mistake::SleepWithoutCheck, NOT_WOKEN, D, [ALONE, ALONE, &[]], NOTHING);
    breaks(Mistake::WakeupDrainedAfterCheck, NOT_WOKEN, D, [ALONE, ALONE, &[]], NOTHING);
    breaks(Mistake::OnlyFirstWoken, NOT_WOKEN, D, [ALONE, SHARED, SHARED], NOTHING);
    breaks(Mistake::BlockerNotWatched, NOT_WOKEN, D, [ALONE, ALONE, ALONE], DEATH);
    breaks(Mistake::JudgedOnce, NOT_WOKEN, D, [ALONE, ALONE, ALONE], KILL);
}

#[test]
fn an_overtaken_or_endless_wait_is_found() {
    breaks(Mistake::SharedAhead, "overtakes", D, [SHARED, ALONE, SHARED], NOTHING);
    let again = &[
        Command::Acquire(ONE, Exclusive),
        Command::Release(ONE),
        Command::Acquire(ONE, Exclusive),
    ];
    breaks(Mistake::NumberedByLength, "overtakes", D, [again, ALONE, ALONE], NOTHING);
    breaks(Mistake::WaitingTakenForStopped, "overtakes", D, [SHARED, ALONE, SHARED], NOTHING);
    let one_first = &[Command::Acquire(ONE, Exclusive), Command::Acquire(OTHER, Exclusive)];
    let other_first = &[Command::Acquire(OTHER, Exclusive), Command::Acquire(ONE, Exclusive)];
    breaks(Mistake::NoDeadlockSearch, "none can move", TWO, [one_first, other_first, &[]], NOTHING);
    breaks(
        Mistake::SearchBeforeJoining,
        "none can move",
        TWO,
        [one_first, other_first, &[]],
        NOTHING,
    );
    breaks(
        Mistake::CycleNotConfirmed,
        "without a cycle",
        TWO,
        [one_first, other_first, &[]],
        NOTHING,
    );
    let upgrade = &[Command::Acquire(ONE, Shared), Command::Acquire(ONE, Exclusive)];
    breaks(Mistake::NoDeadlockSearch, "none can move", D, [upgrade, upgrade, &[]], NOTHING);
    breaks(Mistake::DeadTakenForLiving, "never comes to an end", D, [ALONE, ALONE, &[]], DEATH);
}

#[test]
fn a_wrongly_passed_over_waiter_is_found() {
    let alone = [ALONE, ALONE, ALONE];
    breaks(Mistake::FrozenBlocks, "frozen and holds nothing", D, alone, FREEZE);
    breaks(Mistake::AnyPassedOver, "overtakes", D, alone, NOTHING);
    let twice = &[
        Command::Acquire(ONE, Exclusive),
        Command::Release(ONE),
        Command::Acquire(ONE, Exclusive),
    ];
    breaks(Mistake::MarkKept, "overtakes", D, [twice, ALONE, ALONE], FREEZE);
    breaks(Mistake::MarkKept, "overtakes", S, [ALONE, COMMIT, COMMIT], FREEZE);
    is_refuted(Scenario::new(D, alone, NOTHING).apart(), Mistake::LifelineNotHeld, "living waiter");
    is_refuted(Scenario::new(D, alone, KILL).apart(), Mistake::DeadLifelineBlocks, "none can move");
}
