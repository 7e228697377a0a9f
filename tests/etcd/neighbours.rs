//! Stores above and below another one.

use pipeline_state::error::Kind;
use pipeline_state::etcd::txn::put;
use pipeline_state::store::fresh::InitMode;
use pipeline_state::store::moving::Direction;
use pipeline_state::store::options::WriteOptions;
use pipeline_state::store::remote::RemoteStore;

use crate::checkpoints::checkpoint;
use crate::moving::root;
use crate::stores::{Place, code, document, set, signal};

fn init(store: &RemoteStore) -> pipeline_state::error::Result<()> {
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
        assert_eq!(fresh.unwrap_err().kind, Kind::Exists);
        let here = of(prefix);
        let root = root(&here);
        root.init(InitMode::Continue, &WriteOptions::of("init")).unwrap();
        let error = here.store().moves().run(Direction::Push, &root).unwrap_err();
        assert_eq!(error.kind, Kind::Exists);
        assert!(root.read().is_ok(), "nothing was moved");
    }
    for beside in ["/b", "/a/hold/y", "/a/hold/x-y"] {
        init(&of(beside).store()).unwrap();
    }
    // The one that is there goes on.
    init(&of("/a/hold/x").store()).unwrap();
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
