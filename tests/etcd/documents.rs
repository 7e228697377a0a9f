//! The document of a store on a cluster.

use std::time::{Duration, SystemTime};

use pipeline_state::document::seal::Seal;
use pipeline_state::error::Kind;
use pipeline_state::etcd::txn::{Keys, delete};
use pipeline_state::lock::Fence;
use pipeline_state::name::Name;
use pipeline_state::store::change::{Outcome, Proposal};
use pipeline_state::store::fresh::{Done, InitMode};
use pipeline_state::store::heal::Recovered;
use pipeline_state::store::options::{Mode, WriteOptions};
use pipeline_state::store::signal::Signals;
use pipeline_state::store::{AutoRecover, ForeignEdits, Settings, SignalFile, Wanted};
use serde_json::json;

use crate::stores::{Place, add_one, code, document, revision, set, set_with, settings};

#[test]
fn init_makes_a_state_once() {
    let place = Place::new();
    let store = place.store();
    assert_eq!(code(&store.read().unwrap_err()), 1);
    assert_eq!(set(&store, "phase", "x").unwrap_err().kind, Kind::NotInitialized);
    let options = WriteOptions::of("init");
    assert_eq!(store.init(InitMode::Continue, &options).unwrap().done, Done::Created);
    let again = place.store().init(InitMode::Continue, &options).unwrap();
    assert_eq!((again.done, again.revision.get()), (Done::AlreadyThere, 1));
}

#[test]
fn what_is_acknowledged_is_read_and_its_bytes_prove_it() {
    let place = Place::initialized();
    let store = place.store();
    let done = set(&store, "phase", "build").unwrap();
    assert!(matches!(done, Outcome::Committed { revision, .. } if revision.get() == 2));
    let served = place.store().read().unwrap();
    assert_eq!(served.value.skeleton()["phase"], "build");
    assert_eq!(place.value("state").unwrap(), served.bytes);
    assert!(Seal::verify(served.value.skeleton(), &served.bytes, None).is_some());
    assert!(matches!(set(&store, "phase", "build").unwrap(), Outcome::Unchanged { .. }));
    assert_eq!(set(&store, "phase", json!(7)).unwrap_err().kind, Kind::Schema);
    assert_eq!(revision(&document(&store)), 2);
}

#[test]
fn a_lost_race_of_a_condition_is_75_and_a_dry_run_changes_nothing() {
    let store = Place::initialized().store();
    let on_first = WriteOptions { if_revision: Some(1), ..WriteOptions::of("set") };
    set_with(&store, &on_first, "phase", "a").unwrap();
    let error = set_with(&store, &on_first, "phase", "b").unwrap_err();
    assert_eq!((code(&error), &error.details["revision"]), (75, &json!(2)));
    let dry = WriteOptions { mode: Mode::DryRun, ..WriteOptions::of("set") };
    let planned = set_with(&store, &dry, "phase", "c").unwrap();
    assert!(matches!(planned, Outcome::Planned(changes) if changes.len() == 1));
    assert_eq!(document(&store)["phase"], "a");
}

#[test]
fn writers_on_connections_of_their_own_lose_no_update() {
    const WRITERS: u64 = 8;
    const EACH: u64 = 10;
    let place = Place::initialized();
    let mut revisions: Vec<u64> = std::thread::scope(|scope| {
        let writer = || {
            let store = place.store();
            (0..EACH).map(|_| add_one(&store, "n").unwrap()).collect::<Vec<_>>()
        };
        let writers: Vec<_> = (0..WRITERS).map(|_| scope.spawn(writer)).collect();
        writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect()
    });
    revisions.sort_unstable();
    assert_eq!(revisions, (2..=WRITERS * EACH + 1).collect::<Vec<_>>());
    assert_eq!(document(&place.store())["n"], WRITERS * EACH);
    assert_eq!(place.below("log/").len() as u64, WRITERS * EACH + 1);
}

#[test]
fn history_and_backups_say_what_happened() {
    let place = Place::initialized();
    let store = place.store();
    let because =
        |reason: &str| WriteOptions { reason: Some(reason.into()), ..WriteOptions::of("set") };
    set_with(&store, &because("first try"), "phase", "a").unwrap();
    set_with(&store, &because("second try"), "phase", "b").unwrap();
    let history = store.report().history(Some(2), None).unwrap();
    let reasons: Vec<_> = history.iter().map(|entry| entry.reason.as_deref()).collect();
    assert_eq!(reasons, [Some("second try"), Some("first try")]);
    assert_eq!(history[0].changes.as_ref().unwrap().len(), 1);
    assert_eq!(history[0].command.as_deref(), Some("state set"));
    let backups = store.report().backups().unwrap();
    let listed: Vec<_> = backups.iter().map(|backup| (backup.revision, backup.valid)).collect();
    assert_eq!(listed, [(Some(2), true), (Some(1), true)]);
    assert_eq!(backups[0].reason.as_deref(), Some("first try"));
    assert_eq!(backups[0].kept, "second-try");
}

#[test]
fn old_backups_go_and_pinned_ones_stay() {
    let place = Place::initialized();
    let store = place.store_with(Settings { max_backups: 2, ..settings() });
    let name = store.backup(Some(&Name::parse("backup", "keep").unwrap())).unwrap();
    for i in 0..4 {
        set(&store, "phase", format!("p{i}")).unwrap();
    }
    let backups = store.report().backups().unwrap();
    let revisions: Vec<_> =
        backups.iter().filter(|backup| !backup.pinned).map(|backup| backup.revision).collect();
    assert_eq!(revisions, [Some(4), Some(3)]);
    assert!(backups.iter().any(|backup| backup.name == name && backup.pinned));
}

#[test]
fn a_signal_is_in_the_document_and_beside_it_in_one_step() {
    let place = Place::initialized();
    let store = place.store();
    let name = Name::parse("signal", "ready").unwrap();
    store
        .change(&WriteOptions::of("signal"), &mut |base| {
            let mut draft = base.draft();
            let file = SignalFile::give(&mut draft, &name, &json!({}), SystemTime::now())?;
            let signals = Signals::These(vec![file]);
            Ok(Proposal { draft: draft.into(), signals, repeats: None })
        })
        .unwrap();
    let file: serde_json::Value =
        serde_json::from_slice(&place.value("signal/ready").unwrap()).unwrap();
    assert_eq!(file["timestamp"], document(&store)["signals"]["ready"]);
    // A copy from before it is brought back, and the file goes.
    store.recover(&Wanted::Revision(1), &WriteOptions::of("recover")).unwrap();
    assert_eq!(place.value("signal/ready"), None);
    store.recover(&Wanted::Revision(2), &WriteOptions::of("recover")).unwrap();
    assert!(place.value("signal/ready").is_some());
}

#[test]
fn what_another_program_put_is_refused_until_it_is_recovered() {
    let place = Place::initialized();
    let store = place.store();
    set(&store, "phase", "a").unwrap();
    let older = place.value("state").unwrap();
    set(&store, "phase", "b").unwrap();
    let edited = String::from_utf8(older.clone()).unwrap().replace("\"a\"", "\"z\"");
    for edit in [edited.into_bytes(), older] {
        place.put("state", edit);
        let error = set(&store, "phase", "c").unwrap_err();
        assert_eq!((code(&error), error.kind), (3, Kind::ForeignEdit), "{error}");
        let recovered = store.recover(&Wanted::Newest, &WriteOptions::of("recover")).unwrap();
        assert!(matches!(recovered, Recovered::From { .. }));
        assert_eq!(place.below("corrupt/").len(), 1);
        set(&store, "phase", "b").unwrap();
        for evidence in place.below("corrupt/") {
            place.edit(vec![delete(&Keys::one(evidence.key))]);
        }
    }
    // Or accepted.
    let edited = String::from_utf8(place.value("state").unwrap()).unwrap();
    place.put("state", edited.replace("\"b\"", "\"z\""));
    let accepting = Settings { foreign_edits: ForeignEdits::Accept, ..settings() };
    let store = place.store_with(accepting);
    assert_eq!(document(&store)["phase"], "z");
    assert_eq!(store.take_warnings().len(), 1);
    add_one(&store, "n").unwrap();
    assert_eq!(document(&place.store())["phase"], "z");
}

#[test]
fn damage_is_healed_from_the_newest_copy_and_kept() {
    let place = Place::initialized();
    let store = place.store();
    set(&store, "phase", "a").unwrap();
    store.backup(None).unwrap();
    place.put("state", "{ half");
    let no_recover = Settings { auto_recover: AutoRecover::No, ..settings() };
    let error = place.store_with(no_recover).read().unwrap_err();
    assert_eq!((code(&error), error.kind), (3, Kind::Corrupt));
    let read = document(&store);
    assert_eq!((&read["phase"], revision(&read)), (&json!("a"), 3));
    assert!(store.take_warnings()[0].contains("was damaged"));
    assert_eq!(place.below("corrupt/")[0].value, "{ half");
    assert_eq!(store.report().history(Some(1), None).unwrap()[0].repeats, Some(2));
    // Where the newest revision is lost, that is said.
    set(&store, "phase", "b").unwrap();
    place.put("state", "");
    set(&store, "phase", "c").unwrap();
    assert!(store.take_warnings()[0].contains("REVISION 4 IS LOST"));
}

#[test]
fn a_deleted_document_is_missing_and_comes_back() {
    let place = Place::initialized();
    let store = place.store();
    set(&store, "phase", "a").unwrap();
    set(&store, "phase", "b").unwrap();
    place.delete("state");
    let error = store.read().unwrap_err();
    assert_eq!((code(&error), error.kind), (3, Kind::Missing));
    assert_eq!(
        store.init(InitMode::Continue, &WriteOptions::of("init")).unwrap_err().kind,
        Kind::Missing
    );
    store.recover(&Wanted::Newest, &WriteOptions::of("recover")).unwrap();
    let back = document(&store);
    assert_eq!((&back["phase"], revision(&back)), (&json!("a"), 4));
}

#[test]
fn a_document_may_have_a_mebibyte() {
    let place = Place::initialized();
    let store = place.store();
    for letter in ["a", "b", "c"] {
        set(&store, "artifacts", json!({"log": letter.repeat(1_000_000)})).unwrap();
    }
    assert_eq!(store.report().backups().unwrap().iter().filter(|backup| backup.valid).count(), 3);
    let error = set(&store, "artifacts", json!({"log": "d".repeat(1 << 20)})).unwrap_err();
    assert_eq!((code(&error), error.kind), (4, Kind::TooLarge));
    assert_eq!(revision(&document(&store)), 4);
}

#[test]
fn a_fence_holds_as_long_as_its_grant_is_there() {
    let place = Place::initialized();
    let store = place.store();
    let token = place.put("hold/deploy/me", "");
    let fence: Fence = format!("deploy:{token}").parse().unwrap();
    let fenced = WriteOptions { fences: vec![fence], ..WriteOptions::of("set") };
    set_with(&store, &fenced, "phase", "a").unwrap();
    place.put("hold/deploy/me", "a note");
    set_with(&store, &fenced, "phase", "b").unwrap();
    // The grant ends between the read and the commit.
    let error = store
        .change(&fenced, &mut |base| {
            place.delete("hold/deploy/me");
            let mut draft = base.draft();
            draft["phase"] = "c".into();
            Ok(draft.into())
        })
        .unwrap_err();
    assert_eq!((code(&error), error.kind), (1, Kind::Fenced));
    place.put("hold/deploy/me", "taken again");
    assert_eq!(set_with(&store, &fenced, "phase", "d").unwrap_err().kind, Kind::Fenced);
    assert_eq!(document(&store)["phase"], "b");
}

#[test]
fn a_holder_of_the_lock_state_keeps_writers_out() {
    let place = Place::initialized();
    let store = place.store();
    // Granted between the read and the commit: the commit is tried again, and waits.
    let mut is_granted = false;
    std::thread::scope(|scope| {
        set_with(&store, &WriteOptions::of("set"), "phase", "before").unwrap();
        store
            .change(&WriteOptions::of("set"), &mut |base| {
                if !is_granted {
                    is_granted = true;
                    place.put("hold/state/other", "");
                    scope.spawn(|| {
                        // Long enough for the writer to meet it, and no matter if not.
                        std::thread::sleep(Duration::from_millis(100));
                        place.delete("hold/state/other");
                    });
                }
                let mut draft = base.draft();
                draft["phase"] = "after".into();
                Ok(draft.into())
            })
            .unwrap();
        assert!(place.below("hold/state/").is_empty());
    });
    place.put("hold/state/other", "");
    let impatient = Settings { lock_timeout: Duration::from_millis(200), ..settings() };
    let kept_out = place.store_with(impatient);
    for error in [
        set(&kept_out, "phase", "x").unwrap_err(),
        kept_out.recover(&Wanted::Revision(2), &WriteOptions::of("recover")).unwrap_err(),
        kept_out.adopt(&WriteOptions::of("adopt")).unwrap_err(),
    ] {
        assert_eq!((code(&error), error.kind), (2, Kind::LockTimeout));
    }
    assert_eq!(document(&store)["phase"], "after");
}

#[test]
fn a_store_of_a_later_format_is_left_alone() {
    let place = Place::initialized();
    place.put("meta", r#"{"format":2}"#);
    assert_eq!(set(&place.store(), "phase", "a").unwrap_err().kind, Kind::NewerSchema);
}
