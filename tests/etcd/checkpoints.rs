//! Checkpoints and restores on a cluster.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::time::Duration;

use bytes::Bytes;
use pipeline_state::error::{Kind, Result};
use pipeline_state::name::Name;
use pipeline_state::store::Settings;
use pipeline_state::store::checkpoint::Snapshot;
use pipeline_state::store::checkpoint::archive::{Archive, LIMIT};
use pipeline_state::store::checkpoint::catalog::{Made, Which};
use pipeline_state::store::options::{Mode, WriteOptions};
use pipeline_state::store::remote::RemoteStore;
use pipeline_state::store::restore::{Aborted, Interrupted, Restored};
use serde_json::{Value, json};

use crate::faults::{Fault, IMPATIENT, Plan, Span};
use crate::server::{PATIENT, shared};
use crate::stores::{Place, code, document, set, settings, signal};

pub fn checkpoint(store: &RemoteStore, operation: &str) -> Result<Made> {
    let operation = Name::parse("operation", operation)?;
    store.checkpoints().create(&Snapshot { operation, phase: None, metadata: json!({}) })
}

/// Restores the newest checkpoint of an operation.
pub fn restore(store: &RemoteStore, operation: &str) -> Result<Restored> {
    let which = Which::Latest(Some(Name::parse("operation", operation)?));
    let options = WriteOptions { group: "recover", ..WriteOptions::of("restore") };
    store.restores().restore(&which, &options)
}

/// Each checkpoint has all its parts and they stay; other parts end with their lease.
pub fn check_parts(place: &Place) {
    let store = place.store();
    let ids = store.checkpoints().ids().unwrap();
    ids.iter().for_each(|id| store.checkpoints().verify(id).unwrap());
    let heads: Vec<Value> = place
        .below("checkpoint/")
        .iter()
        .map(|kv| serde_json::from_slice(&kv.value).unwrap())
        .collect();
    let mut wanted: BTreeMap<String, u64> = heads
        .iter()
        .map(|head| (head["blob"].as_str().unwrap().into(), head["chunks"].as_u64().unwrap()))
        .collect();
    for part in place.below("blob/").iter().filter(|part| part.lease == 0) {
        let key = String::from_utf8(part.key.to_vec()).unwrap();
        let blob = key.rsplit('/').nth(1).unwrap();
        *wanted.get_mut(blob).unwrap_or_else(|| panic!("{key} belongs to nothing")) -= 1;
    }
    assert!(wanted.values().all(|missing| *missing == 0), "{wanted:?}");
}

#[test]
fn a_checkpoint_has_state_signals_and_this_hosts_config() {
    let place = Place::initialized();
    let store = place.store();
    place.configure("a/b.toml", "x = 1");
    symlink("/etc", place.root.path().join("config/link")).unwrap();
    set(&store, "phase", "build").unwrap();
    signal(&store, "ready").unwrap();
    let made = checkpoint(&store, "deploy").unwrap();
    let listed = store.checkpoints().list().unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!((&listed[0].id, listed[0].phase.as_deref()), (&made.id, Some("build")));
    assert_eq!((listed[0].revision, listed[0].files), (Some(3), Some(4)));
    let found = store.checkpoints().find(&Which::Latest(None)).unwrap();
    let content = |path: &str| found.archive.content(path).unwrap().to_vec();
    assert_eq!(content("config/a/b.toml"), b"x = 1");
    assert_eq!(content("state.json"), place.value("state").unwrap());
    assert_eq!(content("signals/ready.json"), place.value("signal/ready").unwrap());
    store.checkpoints().verify(&made.id).unwrap();
    // Equal trees make equal archives.
    let again = checkpoint(&store, "deploy").unwrap();
    let again = store.checkpoints().find(&Which::Id(again.id)).unwrap();
    assert_eq!(again.archive.write().unwrap(), found.archive.write().unwrap());
}

#[test]
fn many_at_once_have_names_of_their_own() {
    let place = Place::initialized();
    std::thread::scope(|scope| {
        (0..8).for_each(|_| drop(scope.spawn(|| checkpoint(&place.store(), "deploy").unwrap())));
    });
    assert_eq!(place.store().checkpoints().ids().unwrap().len(), 8);
    check_parts(&place);
}

#[test]
fn parts_of_a_checkpoint_that_was_never_complete_end_with_their_lease() {
    let place = Place::initialized();
    place.configure("large", vec![7; 1_200_000]);
    // Snapshot, lease, three parts, head.
    let plan = Plan::new(Some((5, Fault::NotSent, Span::FromThenOn)));
    let error = checkpoint(&place.faulty(&plan, IMPATIENT), "deploy").unwrap_err();
    assert_eq!(code(&error), 8);
    let parts = place.below("blob/");
    assert_eq!(parts.len(), 3);
    assert!(place.store().checkpoints().ids().unwrap().is_empty());
    shared().client().revoke(parts[0].lease).unwrap();
    assert!(place.below("blob/").is_empty());
    // Where they ended too early, they are put again.
    let plan = Plan::new(None);
    plan.before(5, {
        let place = place.clone();
        move || shared().client().revoke(place.below("blob/")[0].lease).unwrap()
    });
    checkpoint(&place.faulty(&plan, PATIENT), "deploy").unwrap();
    assert_eq!(place.store().checkpoints().ids().unwrap().len(), 1);
    check_parts(&place);
}

#[test]
fn what_is_too_large_is_refused_before_anything_is_put() {
    let place = Place::initialized();
    place.configure("large", vec![7; LIMIT]);
    let error = checkpoint(&place.store(), "deploy").unwrap_err();
    assert_eq!((error.kind, code(&error)), (Kind::TooLarge, 4));
    assert!(place.below("blob/").is_empty());
}

#[test]
fn what_was_damaged_is_not_restored_and_another_is_named() {
    let place = Place::initialized();
    let store = place.store();
    let sound = checkpoint(&store, "first").unwrap().id;
    let id = checkpoint(&store, "second").unwrap().id;
    let part = place.below("blob/").into_iter().max_by_key(|kv| kv.create_revision).unwrap();
    let part = String::from_utf8(part.key.to_vec()).unwrap();
    let part = part.strip_prefix(&format!("{}/", place.prefix)).unwrap().to_owned();
    place.put(&part, "other");
    let error = store.checkpoints().verify(&id).unwrap_err();
    assert_eq!((error.kind, code(&error)), (Kind::Corrupt, 3));
    let error = restore(&store, "second").unwrap_err();
    let hints = format!("{:?}", error.hints);
    assert!(hints.contains(&format!("recover restore {sound}")), "{hints}");
    place.delete(&part);
    assert_eq!(store.checkpoints().verify(&id).unwrap_err().kind, Kind::Corrupt);
    place.put(&format!("checkpoint/{id}"), "{}");
    let listed = store.checkpoints().list().unwrap();
    assert!(listed[0].problem.as_ref().unwrap().contains("damaged"), "{listed:?}");
    // It can still be removed.
    assert_eq!(store.checkpoints().remove(std::slice::from_ref(&id)).unwrap(), [id]);
    assert_eq!(store.checkpoints().ids().unwrap(), [sound]);
}

#[test]
fn cleanup_keeps_the_newest_and_restores_keep_as_many_as_the_settings_say() {
    let place = Place::initialized();
    let store = place.store_with(Settings { max_checkpoints: 2, ..settings() });
    for operation in ["a", "b", "c"] {
        checkpoint(&store, operation).unwrap();
    }
    let all = store.checkpoints().ids().unwrap();
    let clean = |mode| store.checkpoints().clean(Duration::ZERO, 1, mode).unwrap();
    assert_eq!(clean(Mode::DryRun), all[..2]);
    assert_eq!(store.checkpoints().ids().unwrap(), all);
    assert_eq!(clean(Mode::Commit), all[..2]);
    assert_eq!(store.checkpoints().ids().unwrap(), all[2..]);
    (0..4).for_each(|_| drop(restore(&store, "c").unwrap()));
    let left = store.checkpoints().list().unwrap();
    let operations: Vec<_> = left.iter().map(|it| it.operation.as_deref().unwrap()).collect();
    assert_eq!(operations, ["pre-restore", "pre-restore", "c"]);
    check_parts(&place);
}

#[test]
fn a_restore_brings_back_all_three_and_can_be_taken_back() {
    let place = Place::initialized();
    let store = place.store();
    place.configure("a", "old");
    signal(&store, "early").unwrap();
    let id = checkpoint(&store, "deploy").unwrap().id;
    place.configure("a", "new");
    place.configure("b", "new");
    set(&store, "phase", "later").unwrap();
    signal(&store, "late").unwrap();
    let planned = store.restores().plan(&Which::Latest(None)).unwrap();
    let changed: Vec<_> = planned.changes.iter().map(|change| change.path.as_str()).collect();
    assert!(
        changed.contains(&"config/a") && changed.contains(&".signals/late.json"),
        "{changed:?}"
    );
    let restored = restore(&store, "deploy").unwrap();
    assert_eq!((restored.id, restored.revision), (id, 5));
    assert_ne!(document(&store)["phase"], "later");
    assert_eq!((place.configured("a").as_deref(), place.configured("b")), (Some("old"), None));
    assert!(place.value("signal/early").is_some() && place.value("signal/late").is_none());
    assert!(place.below("operation/").is_empty());
    restore(&store, "pre-restore").unwrap();
    assert_eq!(document(&store)["phase"], "later");
    assert_eq!(place.configured("b").as_deref(), Some("new"));
    assert!(place.value("signal/late").is_some());
    assert_eq!(store.take_warnings(), [""; 0]);
}

#[test]
fn a_restore_keeps_conditions_and_touches_no_other_hosts_config() {
    let place = Place::initialized();
    let other = place.elsewhere();
    other.configure("a", "of another host");
    place.configure("a", "old");
    checkpoint(&place.store(), "deploy").unwrap();
    place.configure("a", "new");
    let options = WriteOptions { if_revision: Some(7), ..WriteOptions::of("restore") };
    let error = place.store().restores().restore(&Which::Latest(None), &options).unwrap_err();
    assert_eq!(code(&error), 75);
    assert_eq!(place.configured("a").as_deref(), Some("new"));
    restore(&place.store(), "deploy").unwrap();
    assert_eq!(other.configured("a").as_deref(), Some("of another host"));
}

/// Lets the k-th call fail, from then on, where the transaction of a restore is sent.
fn interrupted(fault: Fault) -> Place {
    let place = Place::initialized();
    place.configure("a", "old");
    checkpoint(&place.store(), "deploy").unwrap();
    place.configure("a", "new");
    set(&place.store(), "phase", "later").unwrap();
    // Heads, content, locks, ground, moment, checkpoint, claim.
    let plan = Plan::new(Some((7, fault, Span::FromThenOn)));
    restore(&place.faulty(&plan, IMPATIENT), "deploy").unwrap_err();
    let pending = place.store().intents().interrupted().unwrap();
    assert!(matches!(pending, Some(Interrupted::Ours(_))), "{pending:?}");
    assert_eq!(place.configured("a").as_deref(), Some("new"));
    place
}

#[test]
fn a_restore_that_was_committed_is_finished_by_the_next_reader() {
    let place = interrupted(Fault::AnswerLost);
    let store = place.store();
    assert_ne!(document(&store)["phase"], "later");
    assert_eq!(place.configured("a").as_deref(), Some("old"));
    assert!(store.take_warnings().concat().contains("was finished"));
    assert!(store.intents().interrupted().unwrap().is_none());
}

#[test]
fn a_restore_that_was_not_committed_is_given_up() {
    let place = interrupted(Fault::NotSent);
    let claims = place.below("operation/");
    assert_eq!(claims.len(), 1);
    let store = place.store();
    assert_eq!(document(&store)["phase"], "later");
    assert!(store.take_warnings().concat().contains("was given up"));
    assert_eq!(place.configured("a").as_deref(), Some("new"));
    assert!(place.below("operation/").is_empty());
    restore(&store, "deploy").unwrap();
    assert_eq!(place.configured("a").as_deref(), Some("old"));
}

#[test]
fn a_transaction_of_a_restore_that_was_given_up_comes_too_late() {
    let place = Place::initialized();
    place.configure("a", "old");
    let id = checkpoint(&place.store(), "deploy").unwrap().id;
    place.configure("a", "new");
    set(&place.store(), "phase", "later").unwrap();
    let plan = Plan::new(None);
    plan.before(7, {
        let place = place.clone();
        move || {
            let key = String::from_utf8(place.below("operation/")[0].key.to_vec()).unwrap();
            let key = key.strip_prefix(&format!("{}/", place.prefix)).unwrap();
            place.put(key, "given up");
        }
    });
    let store = place.faulty(&plan, PATIENT);
    let error = store.restores().restore(&Which::Id(id), &WriteOptions::of("restore")).unwrap_err();
    assert_eq!((error.kind, code(&error)), (Kind::Conflict, 75));
    assert_eq!(document(&place.store())["phase"], "later");
    assert_eq!(place.configured("a").as_deref(), Some("new"));
    assert!(place.store().intents().interrupted().unwrap().is_none());
}

#[test]
fn an_abort_gives_up_what_was_not_committed() {
    let place = interrupted(Fault::NotSent);
    assert!(matches!(place.store().restores().abort().unwrap(), Aborted::Dropped { .. }));
    assert_eq!(place.store().restores().abort().unwrap(), Aborted::Nothing);
    let place = interrupted(Fault::AnswerLost);
    assert_eq!(place.store().restores().abort().unwrap(), Aborted::Nothing);
    assert_eq!(place.configured("a").as_deref(), Some("old"));
}

#[test]
fn a_restore_on_a_busy_store_keeps_what_it_replaced() {
    let place = Place::initialized();
    let id = checkpoint(&place.store(), "deploy").unwrap().id;
    set(&place.store(), "phase", "later").unwrap();
    let plan = Plan::new(None);
    // Just before its transaction another writer commits.
    plan.before(7, {
        let place = place.elsewhere();
        move || drop(set(&place.store(), "phase", "latest").unwrap())
    });
    let store = place.faulty(&plan, PATIENT);
    let restored = store.restores().restore(&Which::Id(id), &WriteOptions::of("restore")).unwrap();
    let before = store.checkpoints().find(&Which::Id(restored.pre_restore)).unwrap();
    let state: Value =
        serde_json::from_slice(before.archive.content("state.json").unwrap()).unwrap();
    assert_eq!(state["phase"], "latest");
    assert_eq!(restored.revision, 4);
}

#[test]
fn a_manifest_that_leads_out_of_config_is_refused() {
    let place = Place::initialized();
    let store = place.store();
    let id = checkpoint(&store, "deploy").unwrap().id;
    let archive = |path: &str| {
        let content = store.checkpoints().find(&Which::Id(id.clone())).unwrap().archive;
        let content = content.with_directory("config").with_file(path, Bytes::from_static(b"x"));
        Archive::read(&content.write().unwrap().into())
    };
    for path in ["config/../x", "../x", "/etc/x", "config/none/x", "config//x"] {
        assert!(archive(path).is_err(), "{path}");
    }
    assert!(archive("config/x").is_ok());
}
