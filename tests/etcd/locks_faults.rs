//! Each request of each operation on locks fails: not sent; carried out and its answer lost;
//! refused; carried out twice. Once, or from then on.

use std::time::Duration;

use pipeline_state::error::{Error, Kind, Result};
use pipeline_state::lock::Mode::{Exclusive, Shared};
use pipeline_state::lock::remote::RemoteLocks;
use pipeline_state::lock::{BreakTarget, RequestSpec};

use crate::faults::{FAULTS, Fault, IMPATIENT, Plan, Span};
use crate::holders::{Script, name, names};
use crate::server::PATIENT;
use crate::stores::{Place, code};

/// An operation, where it begins, and what is there when it has succeeded, or has not.
struct Case {
    name: &'static str,
    prepare: fn(&Place, &Script, &Plan),
    run: fn(&RemoteLocks, &Script) -> Result<()>,
    /// The grants: each lock, its mode, its count.
    before: &'static [&'static str],
    after: &'static [&'static str],
}

const CASES: [Case; 10] = [
    Case {
        name: "acquire",
        prepare: |_, _, _| {},
        run: |locks, script| script.try_lock(locks, "a", Exclusive).map(drop),
        before: &[],
        after: &["a exclusive 1"],
    },
    Case {
        name: "acquire several",
        prepare: |_, _, _| {},
        run: |locks, script| script.try_lock(locks, "a,b,c", Shared).map(drop),
        before: &[],
        after: &["a shared 1", "b shared 1", "c shared 1"],
    },
    Case {
        name: "acquire from the queue",
        prepare: |place, _, plan| {
            let (place, other) = (place.clone(), Script::new());
            other.lock(&place.locks(), "a", Exclusive).unwrap();
            // It reads, has a lease granted, queues, and watches.
            plan.before(4, move || drop(other.release(&place.locks(), "a")));
        },
        run: |locks, script| {
            let spec = RequestSpec::hold(Exclusive);
            locks.acquire(&script.request("a", spec, Duration::from_secs(1))).map(drop)
        },
        before: &["a exclusive 1"],
        after: &["a exclusive 1"],
    },
    Case {
        name: "acquire again",
        prepare: |place, script, _| drop(script.lock(&place.locks(), "a", Exclusive).unwrap()),
        run: |locks, script| script.again(locks, "a,b").map(drop),
        before: &["a exclusive 1"],
        after: &["a exclusive 2", "b exclusive 1"],
    },
    Case {
        name: "upgrade",
        prepare: |place, script, _| drop(script.lock(&place.locks(), "a", Shared).unwrap()),
        run: |locks, script| script.try_lock(locks, "a", Exclusive).map(drop),
        before: &["a shared 1"],
        after: &["a exclusive 1"],
    },
    Case {
        name: "release",
        prepare: |place, script, _| drop(script.lock(&place.locks(), "a,b", Exclusive).unwrap()),
        run: |locks, script| locks.release(&names("a,b"), None, &script.requester).map(drop),
        before: &["a exclusive 1", "b exclusive 1"],
        after: &[],
    },
    Case {
        name: "release one of two",
        prepare: |place, script, _| {
            script.lock(&place.locks(), "a", Exclusive).unwrap();
            script.again(&place.locks(), "a").unwrap();
        },
        run: |locks, script| script.release(locks, "a").map(|left| assert_eq!(left, 1)),
        before: &["a exclusive 2"],
        after: &["a exclusive 1"],
    },
    Case {
        name: "renew",
        prepare: |place, script, _| drop(script.lock(&place.locks(), "a", Exclusive).unwrap()),
        run: |locks, script| locks.renew(&name("a"), None, None, &script.requester).map(drop),
        before: &["a exclusive 1"],
        after: &["a exclusive 1"],
    },
    Case {
        name: "break",
        prepare: |place, script, _| drop(script.lock(&place.locks(), "a", Shared).unwrap()),
        run: |locks, _| locks.break_lock(&name("a"), BreakTarget::All).map(drop),
        before: &["a shared 1"],
        after: &[],
    },
    Case {
        name: "list",
        prepare: |place, script, _| drop(script.lock(&place.locks(), "a", Shared).unwrap()),
        run: |locks, _| locks.list().map(|entries| assert_eq!(entries.len(), 1)),
        before: &["a shared 1"],
        after: &["a shared 1"],
    },
];

fn grants(place: &Place) -> Vec<String> {
    let entries = place.locks().list().unwrap();
    let held = entries.iter().filter(|entry| entry.token.is_some());
    held.map(|one| format!("{} {} {}", one.lock, one.mode, one.count.unwrap())).collect()
}

/// Runs `check` for each request of each operation and each fault, until a run has no such request.
fn for_each_fault(span: Span, check: impl Fn(&Case, &Place, &Script, &Plan, &str)) {
    for case in &CASES {
        for fault in FAULTS {
            for number in 0.. {
                assert!(number < 50, "{} makes ever more requests", case.name);
                let (place, script) = (Place::new(), Script::new());
                let plan = Plan::new(Some((number, fault, span)));
                (case.prepare)(&place, &script, &plan);
                check(case, &place, &script, &plan, &format!("{} {:?}", case.name, plan.fails));
                if plan.calls.get() <= number {
                    break;
                }
            }
        }
    }
}

#[test]
fn one_fault_costs_nothing_and_happens_once() {
    for_each_fault(Span::Once, |case, place, script, plan, context| {
        let done = (case.run)(&place.faulty_locks(plan, PATIENT), script);
        done.unwrap_or_else(|error| panic!("{context}: {error}"));
        assert_eq!(grants(place), case.after, "{context}");
        assert!(place.below("wait/").is_empty(), "{context}");
    });
}

#[test]
fn a_fault_that_stays_ends_with_the_code_that_is_true() {
    for_each_fault(Span::FromThenOn, |case, place, script, plan, context| {
        let result = (case.run)(&place.faulty_locks(plan, IMPATIENT), script);
        let found = grants(place);
        match result {
            Ok(()) => assert_eq!(found, case.after, "{context}"),
            Err(error) => check_error(case, &error, &found, context),
        }
        // A place that could not be left ends with its lease.
        assert!(place.below("wait/").iter().all(|kv| kv.lease != 0), "{context}");
        assert!(place.below("hold/").iter().all(|kv| kv.lease != 0), "{context}");
    });
}

fn check_error(case: &Case, error: &Error, found: &[String], context: &str) {
    let is_before = found == case.before || case.name == "acquire from the queue";
    match error.kind {
        // Nothing was changed.
        Kind::Unreachable => assert_eq!((code(error), is_before), (8, true), "{context}"),
        // It may have been.
        Kind::DurabilityUnknown => assert!(is_before || found == case.after, "{context}"),
        _ => panic!("{context}: {error}"),
    }
}

#[test]
fn a_grant_that_was_made_unanswered_is_known_after_others_came_and_went() {
    let (place, script) = (Place::new(), Script::new());
    let locks = place.locks();
    script.lock(&locks, "b", Exclusive).unwrap(); // it has a lease
    // It reads, and the answer to its grant is lost; before it is sent again, another one queues.
    let plan = Plan::new(Some((1, Fault::AnswerLost, Span::Once)));
    plan.before(2, {
        let place = place.clone();
        move || assert!(Script::new().try_lock(&place.locks(), "a", Exclusive).is_err())
    });
    let acquired = script.try_lock(&place.faulty_locks(&plan, PATIENT), "a", Exclusive).unwrap();
    let held = place.below("hold/a/").remove(0);
    assert_eq!(acquired[0].grant.token.get(), held.create_revision as u64);
}

#[test]
fn a_waiter_that_hears_no_more_answers_leaves_the_queue_all_the_same() {
    let (place, one, other) = (Place::new(), Script::new(), Script::new());
    one.lock(&place.locks(), "a", Exclusive).unwrap();
    // It has read, was granted a lease, has queued, and watches.
    let plan = Plan::new(Some((4, Fault::AnswerLost, Span::FromThenOn)));
    let refused = other.lock(&place.faulty_locks(&plan, IMPATIENT), "a", Exclusive).unwrap_err();
    assert_eq!(code(&refused), 8, "{refused}");
    assert!(place.below("wait/").is_empty());
}
