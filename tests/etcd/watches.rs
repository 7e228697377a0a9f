//! Watches.

use std::time::{Duration, Instant};

use pipeline_state::etcd::messages::{EventKind, TxnRequest};
use pipeline_state::etcd::txn::{Keys, delete, put};

use crate::server::shared;

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

#[test]
fn a_watch_sees_every_change_since_it_is_open() {
    let store = shared().client();
    let writer = shared().client();
    let mut watch = store.watch(&Keys::below("/watched/")).unwrap();
    for operation in
        [put("/watched/a", "1"), put("/elsewhere", ""), delete(&Keys::one("/watched/a"))]
    {
        writer.commit(&TxnRequest { success: vec![operation], ..Default::default() }).unwrap();
    }
    let mut kinds = Vec::new();
    while kinds.len() < 2 {
        for event in watch.next(soon()).unwrap() {
            assert_eq!(event.kv.as_ref().unwrap().key, "/watched/a");
            kinds.push(event.kind);
        }
    }
    assert_eq!(kinds, [EventKind::Put as i32, EventKind::Delete as i32]);
    // The connection is free for requests meanwhile.
    store.status().unwrap();
}

#[test]
fn a_watch_of_several_keys_sees_changes_of_each() {
    let store = shared().client();
    let mut watch = store.watch_all(&["/first", "/second"].map(Keys::one)).unwrap();
    for key in ["/second", "/first", "/second"] {
        store.commit(&TxnRequest { success: vec![put(key, "")], ..Default::default() }).unwrap();
        let events = watch.next(soon()).unwrap();
        assert_eq!(events[0].kv.as_ref().unwrap().key, key);
    }
}

#[test]
fn a_watch_without_changes_returns_at_its_deadline_and_goes_on() {
    let store = shared().client();
    let mut watch = store.watch(&Keys::one("/quiet")).unwrap();
    assert!(watch.next(Instant::now()).unwrap().is_empty());
    assert!(watch.next(Instant::now() + Duration::from_millis(20)).unwrap().is_empty());
    store.commit(&TxnRequest { success: vec![put("/quiet", "")], ..Default::default() }).unwrap();
    assert_eq!(watch.next(soon()).unwrap().len(), 1);
}
