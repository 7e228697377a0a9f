//! Locks of a store with its state elsewhere, or on its way: none is granted.

use std::thread::scope;

use pipeline_state::error::Kind;
use pipeline_state::lock::Mode::Exclusive;
use serde_json::{Value, json};

use crate::faults::Plan;
use crate::holders::Script;
use crate::server::PATIENT;
use crate::stores::{Place, set};

/// What `meta` says of a state that moves, is elsewhere, or is kept by a newer program.
fn marks() -> [(Value, Kind); 4] {
    let note = json!({
        "operation": "0123456789abcdef0123456789abcdef", "root": "host:/root/state.json",
        "revision": 1, "digest": "0".repeat(64),
    });
    let mark = |field: &str| json!({"format": 1, "lineage": "0".repeat(32), field: note});
    [
        (mark("arriving"), Kind::Moving),
        (mark("departing"), Kind::Moving),
        (mark("departed"), Kind::Moved),
        (json!({"format": 2}), Kind::NewerSchema),
    ]
}

#[test]
fn a_lock_is_refused_as_a_commit_is() {
    for (mark, kind) in marks() {
        let (place, one, other) = (Place::initialized(), Script::new(), Script::new());
        let locks = place.locks();
        one.lock(&locks, "a", Exclusive).unwrap();
        place.put("meta", mark.to_string());
        let commit = set(&place.store(), "x", 1).unwrap_err();
        for wanted in ["a", "b", "a,b"] {
            let refused = other.try_lock(&locks, wanted, Exclusive).unwrap_err();
            assert_eq!((refused.kind, &refused.message), (kind, &commit.message));
            let refused = other.lock(&locks, wanted, Exclusive).unwrap_err();
            assert_eq!((refused.kind, refused.code()), (kind, commit.code()), "{refused}");
        }
        assert!(place.below("wait/").is_empty());
        // What is held is given back.
        one.release(&locks, "a").unwrap();
        assert_eq!(one.try_lock(&locks, "a", Exclusive).unwrap_err().kind, kind);
        assert!(place.below("hold/").is_empty());
    }
}

#[test]
fn a_move_that_begins_after_the_look_is_noticed_by_the_transaction() {
    for (mark, kind) in marks() {
        for is_held in [false, true] {
            let (place, one, other) = (Place::initialized(), Script::new(), Script::new());
            if is_held {
                one.lock(&place.locks(), "deploy", Exclusive).unwrap();
            }
            // It reads, has its lease granted, notes it, and takes the lock; or it reads, has a
            // lease granted, and takes a place in the queue.
            let (plan, others, mark) = (Plan::new(None), place.clone(), mark.to_string());
            plan.before(if is_held { 2 } else { 3 }, move || {
                others.put("meta", mark);
            });
            let refused = other.lock(&place.faulty_locks(&plan, PATIENT), "deploy", Exclusive);
            assert_eq!(refused.unwrap_err().kind, kind);
            assert_eq!(place.below("hold/").len(), usize::from(is_held));
            assert!(place.below("wait/").is_empty());
        }
    }
}

#[test]
fn a_waiter_is_refused_when_its_turn_comes() {
    let (place, one, other) = (Place::initialized(), Script::new(), Script::new());
    one.lock(&place.locks(), "deploy", Exclusive).unwrap();
    scope(|scope| {
        let waiter = scope.spawn(|| other.lock(&place.locks(), "deploy", Exclusive).unwrap_err());
        place.await_queue("deploy", 1);
        place.put("meta", marks()[2].0.to_string());
        one.release(&place.locks(), "deploy").unwrap();
        assert_eq!(waiter.join().unwrap().kind, Kind::Moved);
    });
    assert!(place.below("wait/").is_empty());
}
