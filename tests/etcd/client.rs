//! Reads, transactions and their guards.

use pipeline_state::error::{Error, Kind};
use pipeline_state::etcd::client::Patience;
use pipeline_state::etcd::credentials::Credentials;
use pipeline_state::etcd::failure::Failure;
use pipeline_state::etcd::messages::{Compare, RequestOp, TxnRequest};
use pipeline_state::etcd::txn::{
    Keys, absent, created_at, created_before, delete, put, put_at, snapshot,
};
use std::time::Duration;

use crate::server::{client, free_ports, shared};

fn txn(compare: &[Compare], success: &[RequestOp]) -> TxnRequest {
    TxnRequest { compare: compare.to_vec(), success: success.to_vec(), failure: Vec::new() }
}

#[test]
fn a_key_is_put_read_and_deleted() {
    let store = shared().client();
    let (key, keys) = ("/crud/a", Keys::one("/crud/a"));
    assert!(store.range(&keys.read()).unwrap().kvs.is_empty());
    let made = store.commit(&txn(&[absent(key)], &[put(key, "1")])).unwrap();
    assert!(made.succeeded);
    let [read] = &store.range(&keys.read()).unwrap().kvs[..] else { panic!("one key") };
    assert_eq!((&read.value[..], read.mod_revision), (&b"1"[..], made.revision()));
    assert!(!store.commit(&txn(&[absent(key)], &[put(key, "2")])).unwrap().succeeded);
    assert!(store.commit(&txn(&[], &[delete(&keys)])).unwrap().succeeded);
    assert!(store.range(&keys.read()).unwrap().kvs.is_empty());
}

#[test]
fn a_range_compare_sees_what_was_created_since() {
    let store = shared().client();
    let (all, key) = (Keys::below("/hold/"), "/hold/a");
    let read = store.range(&all.read()).unwrap().header.unwrap().revision;
    let unless_granted =
        |since: i64| store.commit(&txn(&[created_before(&all, since + 1)], &[])).unwrap().succeeded;
    assert!(unless_granted(read), "an empty range");
    let granted = store.commit(&txn(&[], &[put(key, "x")])).unwrap().revision();
    assert!(!unless_granted(read), "granted since");
    assert!(unless_granted(granted), "that one was seen");
    store.commit(&txn(&[], &[put(key, "a note")])).unwrap();
    assert!(unless_granted(granted), "a note is no grant");
    let still = |token: i64| store.commit(&txn(&[created_at(key, token)], &[])).unwrap().succeeded;
    assert!(still(granted));
    store.commit(&txn(&[], &[delete(&all)])).unwrap();
    store.commit(&txn(&[], &[put(key, "taken again")])).unwrap();
    assert!(!still(granted), "another holder's grant under the same key");
}

#[test]
fn a_snapshot_is_of_one_revision() {
    let store = shared().client();
    store.commit(&txn(&[], &[put("/snap/a", "1"), put("/snap/b", "1")])).unwrap();
    let ranges = [Keys::one("/snap/a").read(), Keys::below("/snap/").list()];
    let answer = store.snapshot(&snapshot(ranges)).unwrap();
    let revision = answer.revision();
    let ranges: Vec<_> = answer.ranges().collect();
    assert_eq!(ranges.len(), 2);
    assert_eq!(ranges[0].kvs[0].value, "1");
    assert_eq!((ranges[1].kvs.len(), ranges[1].kvs[1].value.len()), (2, 0));
    assert!(revision >= ranges[1].kvs[1].mod_revision);
    let last = store.range(&Keys::below("/snap/").read_last()).unwrap();
    assert_eq!((last.kvs.len(), &last.kvs[0].key[..]), (1, &b"/snap/b"[..]));
}

#[test]
fn a_commit_that_was_carried_out_fails_its_guards_when_it_is_sent_again() {
    let store = shared().client();
    let key = "/again";
    let seen = store.commit(&txn(&[], &[put(key, "0")])).unwrap().revision();
    let request = txn(&[put_at(key, seen)], &[put(key, "1")]);
    assert!(store.commit(&request).unwrap().succeeded);
    assert!(!store.commit(&request).unwrap().succeeded);
    // Also where the key is deleted and made again: revisions never come back.
    store.commit(&txn(&[], &[delete(&Keys::one(key))])).unwrap();
    store.commit(&txn(&[], &[put(key, "0")])).unwrap();
    assert!(!store.commit(&request).unwrap().succeeded);
}

fn code(failure: Failure) -> (u8, Kind) {
    let error = Error::from(failure);
    assert!(!error.hints.is_empty(), "{error}");
    (error.code() as u8, error.kind)
}

#[test]
fn what_is_over_a_limit_of_the_cluster_is_refused_with_4() {
    let store = shared().client();
    let large = vec![b'x'; 1_600_000];
    let failure = store.commit(&txn(&[], &[put("/large", large.clone())])).unwrap_err();
    assert_eq!(code(failure), (4, Kind::TooLarge));
    // One that passes is read back over several frames.
    let fits = large[..1_500_000].to_vec();
    store.commit(&txn(&[], &[put("/large", fits.clone())])).unwrap();
    assert_eq!(store.range(&Keys::one("/large").read()).unwrap().kvs[0].value, fits);
    let many: Vec<_> = (0..129).map(|i| put(format!("/many/{i}"), "")).collect();
    assert_eq!(code(store.commit(&txn(&[], &many)).unwrap_err()), (4, Kind::TooLarge));
    assert!(store.commit(&txn(&[], &many[..128])).unwrap().succeeded);
}

#[test]
fn a_store_that_is_not_there_is_8_and_every_endpoint_is_named() {
    let [first, second] = free_ports();
    let url = format!("etcd://127.0.0.1:{first},127.0.0.1:{second}/p");
    let patience = Patience { reach: Duration::from_millis(300), settle: Duration::from_secs(60) };
    let store = client(&url, Credentials::default(), patience);
    let failure = store.commit(&txn(&[], &[put("a", "b")])).unwrap_err();
    let said = failure.to_string();
    assert!(said.contains(&first.to_string()) && said.contains(&second.to_string()), "{said}");
    assert_eq!(code(failure), (8, Kind::Unreachable));
}

#[test]
fn an_endpoint_that_is_no_etcd_is_8() {
    // Something that answers every connection with a line of text.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("etcd://{}/p", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = std::io::Write::write_all(&mut stream, b"220 mail.example ESMTP\r\n");
        }
    });
    let patience = Patience { reach: Duration::from_millis(300), settle: Duration::from_secs(60) };
    let store = client(&url, Credentials::default(), patience);
    let failure = store.range(&Keys::one("a").read()).unwrap_err();
    assert_eq!(code(failure), (8, Kind::Unreachable));
}

#[test]
fn a_connection_that_was_idle_is_tried_out_before_a_request_goes_out_on_it() {
    let [port] = free_ports();
    let proxy = format!("127.0.0.1:{port}");
    let listener = std::net::TcpListener::bind(&proxy).unwrap();
    let to = shared().port;
    // Passes the first connection on, and drops it when asked to; later ones go through.
    let (cut, is_cut) = std::sync::mpsc::channel::<()>();
    std::thread::spawn(move || {
        let mut cut = Some(is_cut);
        for near in listener.incoming().flatten() {
            let far = std::net::TcpStream::connect(("127.0.0.1", to)).unwrap();
            for (mut from, mut into) in [
                (near.try_clone().unwrap(), far.try_clone().unwrap()),
                (far, near.try_clone().unwrap()),
            ] {
                std::thread::spawn(move || std::io::copy(&mut from, &mut into));
            }
            if let Some(cut) = cut.take() {
                std::thread::spawn(move || {
                    let _ = cut.recv();
                    near.shutdown(std::net::Shutdown::Both).unwrap();
                });
            }
        }
    });
    let patience = Patience { reach: Duration::from_secs(60), settle: Duration::ZERO };
    let store = client(&format!("etcd://{proxy}/p"), Credentials::default(), patience);
    store.range(&Keys::one("a").read()).unwrap();
    cut.send(()).unwrap();
    std::thread::sleep(Duration::from_millis(1_100)); // what "idle" means
    // No fate is open: the connection was known to be gone before the commit was written to it.
    store.commit(&txn(&[], &[put("/idle", "")])).unwrap();
}
