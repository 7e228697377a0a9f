//! Keys that another program put, changed or deleted.

use std::time::Duration;

use pipeline_state::error::Kind;
use pipeline_state::store::checkpoint::catalog::Which;
use pipeline_state::store::fresh::{InitMode, Replaced};
use pipeline_state::store::options::WriteOptions;
use pipeline_state::store::remote::RemoteStore;
use pipeline_state::store::{AutoRecover, Settings, Wanted};

use crate::checkpoints::checkpoint;
use crate::stores::{Place, code, document, revision, set, settings, signal};

/// A document of almost the largest size.
fn large(place: &Place) {
    let store = place.store();
    set(&store, "log", "a".repeat(1_000_000)).unwrap();
    set(&store, "n", 1).unwrap();
}

/// The same without its end, which is no document, and as edited by hand.
fn torn_and_edited(place: &Place) -> [Vec<u8>; 2] {
    let text = place.value("state").unwrap();
    let edited = String::from_utf8(text.clone()).unwrap().replace("\"n\": 1", "\"n\": 7");
    [text[..text.len() - 3].to_vec(), edited.into_bytes()]
}

#[test]
fn a_large_document_that_was_damaged_or_edited_is_healed_adopted_recovered_or_begun_again() {
    type Way = fn(&RemoteStore);
    let heal: Way = |store| drop(store.read().unwrap());
    let adopt: Way = |store| drop(store.adopt(&WriteOptions::of("adopt")).unwrap());
    let recover: Way =
        |store| drop(store.recover(&Wanted::Newest, &WriteOptions::of("recover")).unwrap());
    let fresh: Way = |store| drop(store.init(InitMode::Fresh, &WriteOptions::of("init")).unwrap());
    for (way, is_torn) in
        [(heal, true), (recover, true), (adopt, false), (recover, false), (fresh, false)]
    {
        let place = Place::initialized();
        large(&place);
        let [torn, edited] = torn_and_edited(&place);
        let found = if is_torn { torn } else { edited };
        place.put("state", found.clone());
        way(&place.store());
        assert_eq!(revision(&document(&place.store())), 4);
        // An adoption keeps what was there before the edit.
        let kept = place.below("corrupt/");
        assert!(way as usize == adopt as usize || kept[0].value == found);
        assert!(kept.iter().all(|kv| kv.lease == 0), "what is kept ends with no lease");
        assert!(place.below("backup/").iter().all(|kv| kv.lease == 0));
    }
}

#[test]
fn evidence_that_is_larger_than_any_document_is_kept_in_parts() {
    let place = Place::initialized();
    set(&place.store(), "phase", "a").unwrap();
    let found = vec![b'x'; 1_560_000];
    place.put("state", found.clone());
    place.store().read().unwrap();
    let parts = place.below("corrupt/");
    assert_eq!(parts.len(), 2);
    assert_eq!(parts.iter().flat_map(|kv| kv.value.to_vec()).collect::<Vec<_>>(), found);
}

#[test]
fn every_command_refuses_a_store_of_a_later_format() {
    let place = Place::initialized();
    let store = place.store();
    let id = checkpoint(&store, "deploy").unwrap().id;
    place.put("meta", r#"{"format":2,"lineage":"x"}"#);
    let options = WriteOptions::of("set");
    for error in [
        store.read().unwrap_err(),
        store.report().status().unwrap_err(),
        store.report().history(None, None).unwrap_err(),
        store.report().backups().unwrap_err(),
        store.report().validate().unwrap_err(),
        store.checkpoints().list().unwrap_err(),
        store.checkpoints().remove(std::slice::from_ref(&id)).unwrap_err(),
        store.restores().restore(&Which::Id(id), &options).unwrap_err(),
        store.init(InitMode::Fresh, &options).unwrap_err(),
        store.backup(None).unwrap_err(),
        set(&store, "phase", "a").unwrap_err(),
    ] {
        assert_eq!((code(&error), error.kind), (4, Kind::NewerSchema), "{error}");
    }
}

#[test]
fn a_meta_that_is_gone_or_of_something_else_is_damage_that_costs_nothing() {
    let foreign = r#"{"format":1,"lineage":"00000000000000000000000000000000"}"#;
    for damage in [None, Some("garbage"), Some("{}"), Some(foreign)] {
        let place = Place::initialized();
        let store = place.store();
        set(&store, "phase", "a").unwrap();
        let before = place.value("meta").unwrap();
        match damage {
            None => place.delete("meta"),
            Some(damage) => drop(place.put("meta", damage)),
        }
        let no_recover = Settings { auto_recover: AutoRecover::No, ..settings() };
        let careful = place.store_with(no_recover);
        for error in [careful.read().unwrap_err(), set(&careful, "n", 1).unwrap_err()] {
            assert_eq!((code(&error), error.kind), (3, Kind::Corrupt), "{error}");
            assert!(error.message.contains(&place.key("meta")), "{error}");
        }
        assert_eq!(code(&store.report().status().unwrap().1.unwrap()), 3);
        assert_eq!(document(&store)["phase"], "a");
        let warnings = store.take_warnings();
        assert!(warnings[0].contains("was damaged"), "{warnings:?}");
        assert!(!warnings[0].contains("LOST"), "{warnings:?}");
        let kept: Vec<_> = place.below("corrupt/").iter().map(|kv| kv.value.to_vec()).collect();
        let damage: Vec<_> = damage.iter().map(|damage| damage.as_bytes().to_vec()).collect();
        assert_eq!(kept, damage);
        let lineage = |meta: &[u8]| {
            serde_json::from_slice::<serde_json::Value>(meta).unwrap()["lineage"].clone()
        };
        assert_eq!(lineage(&place.value("meta").unwrap()), lineage(&before));
        set(&store, "phase", "b").unwrap();
        assert_eq!(revision(&document(&store)), 4);
    }
}

/// A state that was handed over may be in a root: only an operator brings another copy back.
#[test]
fn without_meta_and_document_nothing_is_brought_back_unasked() {
    let place = Place::initialized();
    let store = place.store();
    set(&store, "phase", "a").unwrap();
    for key in ["meta", "state"] {
        place.delete(key);
    }
    let error = store.read().unwrap_err();
    assert_eq!((code(&error), error.kind), (3, Kind::Missing));
    assert_eq!(set(&store, "phase", "b").unwrap_err().kind, Kind::Missing);
    store.recover(&Wanted::Newest, &WriteOptions::of("recover")).unwrap();
    assert_eq!(revision(&document(&store)), 3);
}

#[test]
fn damaged_records_of_the_log_stop_nothing_and_are_said() {
    let place = Place::initialized();
    let store = place.store();
    set(&store, "phase", "a").unwrap();
    let newest = format!("log/{:020}", 2);
    place.put(&newest, "garbage");
    assert_eq!(document(&store)["phase"], "a");
    assert_eq!(store.report().history(None, None).unwrap().len(), 1);
    let warnings = store.take_warnings();
    assert_eq!(warnings, ["1 record of the log skipped: damaged"]);
    // A damaged document with it: the next revision is a new one all the same.
    place.put("state", "torn");
    assert_eq!(revision(&document(&store)), 3);
    set(&store, "phase", "b").unwrap();
    assert_eq!(revision(&document(&store)), 4);
    place.put(&format!("log/{:020}", 4), "garbage");
    place.put("state", place.value("state").unwrap().to_ascii_uppercase());
    store.recover(&Wanted::Newest, &WriteOptions::of("recover")).unwrap();
    assert_eq!(revision(&document(&store)), 5);
}

#[test]
fn signals_and_claims_that_are_garbage_stop_no_command() {
    let place = Place::initialized();
    let store = place.store();
    signal(&store, "ready").unwrap();
    for key in ["signal/ready", "signal/other", "signal/not a name", "operation/x", "blob/x/0000"] {
        place.put(key, [0xff, 0]);
    }
    place.put("checkpoint/checkpoint-1-x", "garbage");
    place.put("backup/state-20260101-000000-r1-x.json", "garbage");
    let id = checkpoint(&store, "deploy").unwrap().id;
    set(&store, "n", 1).unwrap();
    let error = store.checkpoints().verify("checkpoint-1-x").unwrap_err();
    assert_eq!((code(&error), error.kind), (3, Kind::Corrupt));
    store.restores().restore(&Which::Id(id), &WriteOptions::of("restore")).unwrap();
    store.recover(&Wanted::Revision(1), &WriteOptions::of("recover")).unwrap();
    assert_eq!(place.value("signal/ready"), None);
    store.checkpoints().remove(&["checkpoint-1-x".to_owned()]).unwrap();
    assert_eq!(store.report().status().unwrap().1.map(|error| error.kind), None);
}

#[test]
fn a_new_lineage_says_where_the_state_before_it_is() {
    let place = Place::initialized();
    let store = place.store();
    set(&store, "phase", "a").unwrap();
    let begun = store.init(InitMode::Fresh, &WriteOptions::of("init")).unwrap();
    let Some(Replaced::Backup(name)) = begun.replaced else { panic!("{begun:?}") };
    store.recover(&Wanted::named(&name), &WriteOptions::of("recover")).unwrap();
    assert_eq!(document(&store)["phase"], "a");
    place.put("state", "torn");
    let begun = store.init(InitMode::Fresh, &WriteOptions::of("init")).unwrap();
    let Some(Replaced::Evidence(key)) = begun.replaced else { panic!("{begun:?}") };
    let kept = key.strip_prefix(&place.key("")).unwrap();
    assert_eq!(place.value(kept).unwrap(), b"torn");
    assert_eq!(document(&store)["phase"], "pre-init");
}

#[test]
fn a_commit_names_the_grant_that_it_waits_for_where_that_cannot_be_read() {
    let place = Place::initialized();
    place.put("hold/state/x", "garbage");
    let impatient = Settings { lock_timeout: Duration::from_millis(100), ..settings() };
    let error = set(&place.store_with(impatient), "n", 1).unwrap_err();
    assert_eq!((code(&error), error.kind), (2, Kind::LockTimeout));
    assert!(error.message.contains(&place.key("hold/state/x")), "{error}");
    assert!(!error.message.contains("since"), "{error}");
}
