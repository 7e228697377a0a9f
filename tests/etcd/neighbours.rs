//! Stores above and below another one.

use std::cell::RefCell;
use std::rc::Rc;

use pipeline_state::error::{Invocation, Kind, Result};
use pipeline_state::etcd::txn::put;
use pipeline_state::store::fresh::InitMode;
use pipeline_state::store::moving::Direction;
use pipeline_state::store::options::WriteOptions;
use pipeline_state::store::remote::RemoteStore;

use crate::checkpoints::checkpoint;
use crate::faults::Plan;
use crate::moving::root;
use crate::server::PATIENT;
use crate::stores::{Place, code, document, set, signal};

fn init(store: &RemoteStore) -> Result<()> {
    store.init(InitMode::Continue, &WriteOptions::of("init")).map(drop)
}

#[test]
fn a_store_is_not_begun_above_or_below_another_one() {
    let place = Place::new();
    let of = |below: &str| Place::at(format!("{}{below}", place.url));
    init(&of("/a/hold/x").store()).unwrap();
    for prefix in ["/a", "/a/hold", "/a/hold/x/log/y"] {
        let error = init(&of(prefix).store()).unwrap_err();
        assert_eq!((code(&error), error.kind), (1, Kind::Exists), "{prefix}: {error}");
        let fresh = of(prefix).store().init(InitMode::Fresh, &WriteOptions::of("init"));
        let error = fresh.unwrap_err();
        assert_eq!(error.kind, Kind::Exists);
        let named =
            Invocation { program: "p --store etcd://h/x".to_owned(), ..Invocation::from("p") };
        let hint = error.hints[0].to_line(&named);
        assert_eq!(hint.matches("--store").count(), 1, "{hint}");
        let here = of(prefix);
        let root = root(&here);
        root.init(InitMode::Continue, &WriteOptions::of("init")).unwrap();
        let error = here.store().moves().run(Direction::Push, &root).unwrap_err();
        assert_eq!(error.kind, Kind::Exists);
        let hint = error.hints[0].to_line(&"p".into());
        assert!(hint.starts_with("p state push etcd://"), "{hint}");
        assert!(root.read().is_ok(), "nothing was moved");
    }
    for beside in ["/b", "/a/hold/y", "/a/hold/x-y"] {
        init(&of(beside).store()).unwrap();
    }
    // The one that is there goes on.
    init(&of("/a/hold/x").store()).unwrap();
}

/// Begins a store, and before each of its requests in turn another one with `other`. One of them
/// is refused, and the other one is there.
fn begin_both(begin: fn(&Place, &Plan) -> Result<()>, from: &str, other: &str) {
    for number in 0.. {
        let place = Place::new();
        let of = |below: &str| Place::at(format!("{}{below}", place.url));
        let (here, there) = (of(from), of(other));
        let plan = Plan::new(None);
        let second = Rc::new(RefCell::new(None));
        plan.before(number, {
            let (there, second) = (there.clone(), second.clone());
            move || drop(second.replace(Some(init(&there.store()))))
        });
        let first = begin(&here, &plan);
        let Some(second) = second.take() else { break };
        let context = format!("{from} {other} {number}: {first:?} {second:?}");
        assert_eq!(here.value("meta").is_some(), first.is_ok(), "{context}");
        assert_eq!(there.value("meta").is_some(), second.is_ok(), "{context}");
        let refused = match (first, second) {
            (Ok(()), Err(error)) | (Err(error), Ok(())) => error,
            _ => panic!("{context}"),
        };
        assert_eq!(refused.kind, Kind::Exists, "{context}");
    }
}

#[test]
fn of_two_stores_begun_at_once_one_above_the_other_one_is_refused() {
    let begin = |place: &Place, plan: &Plan| init(&place.faulty(plan, PATIENT));
    let begin_again = |place: &Place, plan: &Plan| {
        let store = place.faulty(plan, PATIENT);
        store.init(InitMode::Fresh, &WriteOptions::of("init")).map(drop)
    };
    let push = |place: &Place, plan: &Plan| {
        let root = root(place);
        root.init(InitMode::Continue, &WriteOptions::of("init")).unwrap();
        let pushed = place.faulty(plan, PATIENT).moves().run(Direction::Push, &root);
        assert_eq!(root.read().is_err(), pushed.is_ok(), "the state is in one place");
        pushed.map(drop)
    };
    for begin in [begin, begin_again, push] {
        for [from, other] in [["/a", "/a/hold/x"], ["/a/hold/x", "/a"]] {
            begin_both(begin, from, other);
        }
    }
}

/// Two that were begun by an earlier release.
#[test]
fn keys_of_a_store_below_are_not_taken_for_own_ones() {
    let place = Place::initialized();
    let store = place.store();
    set(&store, "phase", "a").unwrap();
    let below = ["hold/state/s", "wait/state/s", "log/s", "backup/s", "signal/s", "checkpoint/s"];
    for store in below {
        let keys = ["meta", "state", "log/00000000000000000009"];
        place.edit(keys.map(|key| put(place.key(&format!("{store}/{key}")), "x")).into());
    }
    set(&store, "phase", "b").unwrap();
    signal(&store, "ready").unwrap();
    checkpoint(&store, "deploy").unwrap();
    assert_eq!(document(&store)["phase"], "b");
    assert_eq!(store.report().history(None, None).unwrap().len(), 4);
    let (status, refusal) = store.report().status().unwrap();
    assert!(refusal.is_none() && status.locks.held == 0 && status.locks.waiting == 0, "{status:?}");
    assert_eq!((status.backups.automatic, status.checkpoints), (3, 1));
    assert_eq!(place.below("signal/s/").len(), 3);
}

#[test]
fn a_store_with_a_damaged_meta_is_a_store() {
    for damage in [None, Some("damaged")] {
        let place = Place::new();
        let of = |below: &str| Place::at(format!("{}{below}", place.url));
        init(&of("/m").store()).unwrap();
        match damage {
            Some(value) => drop(of("/m").put("meta", value)),
            None => of("/m").delete("meta"),
        }
        for prefix in ["", "/m/sub"] {
            let error = init(&of(prefix).store()).unwrap_err();
            assert_eq!(error.kind, Kind::Exists, "{damage:?} {prefix}: {error}");
        }
    }
}
