//! Locks of a store with its state elsewhere, or on its way: none is granted.

use std::process::Command;
use std::thread::scope;
use std::time::{Duration, Instant};

use pipeline_state::error::Kind;
use pipeline_state::lock::Mode::Exclusive;
use pipeline_state::lock::{
    BreakTarget, Deadline, Fence, LockEnv, Request, RequestSpec, Requester, Token, owner,
};
use pipeline_state::store::FileStore;
use pipeline_state::store::moving::Direction;
use pipeline_state::store::options::WriteOptions;
use serde_json::{Value, json};

use crate::faults::Plan;
use crate::holders::{Script, name, names, token};
use crate::moving::{half_pushed, root, with_state};
use crate::server::PATIENT;
use crate::stores::{Place, set, set_with};

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
        // What is held is given back, unless a newer program may say otherwise.
        match (kind, one.release(&locks, "a")) {
            (Kind::NewerSchema, refused) => {
                assert_eq!(refused.unwrap_err().kind, kind);
                continue;
            }
            (_, released) => assert_eq!(released.unwrap(), 0),
        }
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

#[test]
fn no_command_of_locks_works_with_a_store_of_a_later_format() {
    let (place, script) = (Place::initialized(), Script::new());
    let (locks, a) = (place.locks(), name("a"));
    script.lock(&locks, "a", Exclusive).unwrap();
    let kept = |key: &str| place.below(key).into_iter().map(|kv| kv.value).collect::<Vec<_>>();
    let before = kept("hold/");
    place.put("meta", json!({"format": 2}).to_string());
    let requester = &script.request("a", RequestSpec::hold(Exclusive), Duration::ZERO).requester;
    let refusals = [
        ("check", locks.check(&a).map(drop)),
        ("list", locks.list().map(drop)),
        ("summary", locks.summary().map(drop)),
        ("renew", locks.renew(&a, None, None, requester).map(drop)),
        ("release", script.release(&locks, "a").map(drop)),
        ("break", locks.break_lock(&a, BreakTarget::All).map(drop)),
        ("clean", locks.clean().map(drop)),
    ];
    for (command, refused) in refusals {
        assert_eq!(refused.unwrap_err().kind, Kind::NewerSchema, "{command}");
    }
    assert_eq!(kept("hold/"), before);
}

/// The token of a grant in a root, which is given back.
fn token_in(root: &FileStore) -> Token {
    let requester = owner::self_and_ancestors(None, &LockEnv::default()).unwrap();
    let soon = Deadline::after(Duration::from_secs(10));
    let request = Request::new(names("x"), RequestSpec::hold(Exclusive), requester, soon);
    let acquired = root.locks().acquire(&request).unwrap();
    root.locks().give_back(&acquired);
    token(&acquired)
}

/// The token of a grant in a store, which is given back. A commit with a fence of it succeeds, and
/// one with the fence `before` does not.
fn token_on(place: &Place, before: Token) -> Token {
    let (locks, script) = (place.locks(), Script::new());
    let token = token(&script.lock(&locks, "x", Exclusive).unwrap());
    let fenced = |token| {
        let fences = vec![Fence { name: name("x"), token }];
        let options = WriteOptions { fences, ..WriteOptions::of("set") };
        set_with(&place.store(), &options, "by", token.get())
    };
    assert_eq!(fenced(before).unwrap_err().kind, Kind::Fenced);
    fenced(token).unwrap();
    script.release(&locks, "x").unwrap();
    token
}

#[test]
fn tokens_grow_wherever_the_state_goes() {
    let here = with_state();
    let there = here.elsewhere();
    let high = 1 << 40; // above the revisions of the cluster
    root(&here).locks().raise_tokens(high, Instant::now()).unwrap();
    let mut seen = vec![token_in(&root(&here))];
    assert!(seen[0].get() >= high);
    for from_and_to in [[&here, &there], [&there, &here]] {
        let [from, to] = from_and_to.map(|place| (place, root(place)));
        from.0.store().moves().run(Direction::Push, &from.1).unwrap();
        seen.push(token_on(from.0, seen[seen.len() - 1]));
        to.0.store().moves().run(Direction::Pull, &to.1).unwrap();
        seen.push(token_in(&to.1));
    }
    assert!(seen.is_sorted_by(|one, next| one < next), "{seen:?}");
}

#[test]
fn a_push_that_is_taken_back_leaves_no_grant_and_goes_on_above_those_of_the_store() {
    let place = half_pushed();
    let (locks, script) = (place.locks(), Script::new());
    place.put("tokens", "1099511627776"); // above those of the root
    let on_store = token(&script.lock(&locks, "x", Exclusive).unwrap());
    let take_back = || place.store().moves().give_up(Direction::Push, &root(&place));
    assert_eq!(take_back().unwrap_err().kind, Kind::LockTimeout);
    script.release(&locks, "x").unwrap();
    take_back().unwrap();
    assert!(token_in(&root(&place)) > on_store);
}

#[test]
fn tokens_that_cannot_be_read_grant_nothing() {
    let (place, script) = (Place::initialized(), Script::new());
    place.put("tokens", "many");
    let refused = script.lock(&place.locks(), "x", Exclusive).unwrap_err();
    assert_eq!(refused.kind, Kind::Corrupt);
    assert!(place.below("hold/").is_empty());
}

#[test]
fn a_grant_from_before_a_move_fences_nothing_after_it() {
    let place = with_state();
    let mut script = Command::new("sleep").arg("1000").spawn().unwrap();
    let own = owner::self_and_ancestors(Some(script.id()), &LockEnv::default()).unwrap();
    let owner = own.ancestry.iter().find(|one| one.pid == script.id()).unwrap().clone();
    let requester = Requester { owner, ..own };
    let soon = Deadline::after(Duration::from_secs(10));
    let request = Request::new(names("x"), RequestSpec::hold(Exclusive), requester, soon);
    let token = token(&root(&place).locks().acquire(&request).unwrap());
    script.kill().unwrap();
    script.wait().unwrap();
    let fences = vec![Fence { name: name("x"), token }];
    let options = WriteOptions { fences, ..WriteOptions::of("set") };
    let fenced = || root(&place).change(&options, &mut |base| Ok(base.draft().into()));
    fenced().unwrap(); // its record is still there
    place.store().moves().run(Direction::Push, &root(&place)).unwrap();
    place.store().moves().run(Direction::Pull, &root(&place)).unwrap();
    assert_eq!(fenced().unwrap_err().kind, Kind::Fenced);
}
