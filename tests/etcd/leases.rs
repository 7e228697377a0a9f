//! Leases: keys that end with them.

use std::time::Duration;

use pipeline_state::etcd::messages::TxnRequest;
use pipeline_state::etcd::txn::{Keys, absent, put, put_with_lease};

use crate::server::shared;

const TTL: Duration = Duration::from_secs(600);

#[test]
fn a_key_ends_with_its_lease() {
    let store = shared().client();
    let (id, key) = (0x51, "/leased");
    assert_eq!(store.grant(id, TTL).unwrap(), TTL);
    let bound = TxnRequest { success: vec![put_with_lease(key, "", id)], ..Default::default() };
    store.commit(&bound).unwrap();
    let (left, keys) = store.time_to_live(id).unwrap().unwrap();
    assert!(left <= TTL && keys == [key], "{left:?} {keys:?}");
    assert_eq!(store.renew(id).unwrap(), Some(TTL));
    store.revoke(id).unwrap();
    assert!(store.range(&Keys::one(key).read()).unwrap().kvs.is_empty());
    assert_eq!(store.renew(id).unwrap(), None);
    assert_eq!(store.time_to_live(id).unwrap(), None);
}

#[test]
fn a_lease_in_its_last_second_has_not_ended() {
    let store = shared().client();
    let id = 0x55;
    store.grant(id, Duration::from_secs(2)).unwrap();
    let (mut last, mut is_there) = (Duration::MAX, true);
    while is_there {
        let left = store.time_to_live(id).unwrap().map(|(left, _)| left);
        last = left.unwrap_or(last);
        is_there = left.is_some();
    }
    assert_eq!(last, Duration::ZERO);
}

#[test]
fn granting_and_ending_a_lease_twice_is_as_once() {
    let store = shared().client();
    store.grant(0x52, TTL).unwrap();
    store.grant(0x52, TTL).unwrap();
    store.revoke(0x52).unwrap();
    store.revoke(0x52).unwrap();
}

#[test]
fn a_transaction_with_a_lease_that_has_ended_does_nothing_at_all() {
    let store = shared().client();
    let both = TxnRequest {
        compare: vec![absent("/half")],
        success: vec![put("/half", ""), put_with_lease("/other-half", "", 0x53)],
        failure: Vec::new(),
    };
    store.commit(&both).unwrap_err();
    assert!(store.range(&Keys::one("/half").read()).unwrap().kvs.is_empty());
}

#[test]
fn a_lease_lasts_no_shorter_than_the_cluster_can_keep_track() {
    let store = shared().client();
    let lasts = store.grant(0x54, Duration::from_millis(1)).unwrap();
    assert!(lasts >= Duration::from_secs(2), "{lasts:?}");
    store.revoke(0x54).unwrap();
}
