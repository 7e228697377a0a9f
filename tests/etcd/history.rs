//! Ways back, and what others wrote: `write`, `adopt`, `undo`, `diff`.

use pipeline_state::error::Kind;
use pipeline_state::store::change::Outcome;
use pipeline_state::store::options::{Mode, WriteOptions};
use pipeline_state::store::remote::RemoteStore;
use serde_json::{Value, json};

use crate::stores::{Place, code, document, revision, set, set_with};

/// A place with the phases a, b and c in revisions 2 to 4.
fn with_phases() -> (Place, RemoteStore) {
    let place = Place::initialized();
    let store = place.store();
    for phase in ["a", "b", "c"] {
        set(&store, "phase", phase).unwrap();
    }
    (place, store)
}

fn undo(store: &RemoteStore) -> (u64, Vec<u64>) {
    let done = store.undo(&WriteOptions::of("undo")).unwrap();
    (done.to.get(), done.taken_back.iter().map(|it| it.revision).collect())
}

fn differences(store: &RemoteStore, old: Option<&str>, new: Option<&str>) -> Vec<String> {
    store.report().differences(old, new).unwrap().iter().map(ToString::to_string).collect()
}

#[test]
fn undo_goes_back_and_another_one_further() {
    let (_place, store) = with_phases();
    assert_eq!(undo(&store), (3, vec![4]));
    assert_eq!(document(&store)["phase"], "b");
    assert_eq!(undo(&store), (2, vec![3]));
    let read = document(&store);
    assert_eq!((&read["phase"], revision(&read)), (&json!("a"), 6));
    set(&store, "phase", "d").unwrap();
    let dry = WriteOptions { mode: Mode::DryRun, ..WriteOptions::of("undo") };
    assert!(matches!(store.undo(&dry).unwrap().outcome, Outcome::Planned(_)));
    assert_eq!(revision(&document(&store)), 7);
    assert_eq!(undo(&store), (6, vec![7]));
    let fresh = Place::initialized().store();
    let error = fresh.undo(&WriteOptions::of("undo")).unwrap_err();
    assert_eq!((code(&error), error.kind), (1, Kind::NotFound));
}

#[test]
fn diff_compares_revisions_and_backups() {
    let (_place, store) = with_phases();
    let last = differences(&store, None, None);
    assert!(last.len() == 1 && last[0].contains("\"b\"") && last[0].contains("\"c\""), "{last:?}");
    let first = differences(&store, Some("2"), Some("3"));
    assert!(first.len() == 1 && first[0].contains("\"a\""), "{first:?}");
    assert!(differences(&store, Some("4"), None).is_empty());
    let backups = store.report().backups().unwrap();
    assert_eq!(differences(&store, Some(&backups[0].name), None), last);
    // A copy of the current revision is not the previous one.
    store.backup(None).unwrap();
    assert_eq!(differences(&store, None, None), last);
    let error = store.report().differences(Some("77"), None).unwrap_err();
    assert_eq!((code(&error), error.kind), (1, Kind::NotFound));
}

#[test]
fn an_edit_is_adopted_as_the_next_revision() {
    let (place, store) = with_phases();
    let options = WriteOptions::of("adopt");
    assert!(matches!(store.adopt(&options).unwrap(), Outcome::Unchanged { .. }));
    let edited = String::from_utf8(place.value("state").unwrap()).unwrap();
    place.put("state", edited.replace("\"c\"", "\"z\""));
    // Against the newest copy from before it.
    assert_eq!(differences(&store, None, None).len(), 1);
    let dry = WriteOptions { mode: Mode::DryRun, ..options.clone() };
    assert!(matches!(store.adopt(&dry).unwrap(), Outcome::Planned(changes) if changes.len() == 1));
    let elsewhere = WriteOptions { if_revision: Some(3), ..options.clone() };
    assert_eq!(code(&store.adopt(&elsewhere).unwrap_err()), 75);
    let adopted = store.adopt(&options).unwrap();
    assert!(matches!(adopted, Outcome::Committed { revision, .. } if revision.get() == 5));
    assert_eq!(document(&store)["phase"], "z");
    assert!(store.take_warnings()[0].contains("REVISION 4 IS LOST"));
    let pinned =
        store.report().backups().unwrap().into_iter().find(|backup| backup.pinned).unwrap();
    assert_eq!((pinned.revision, pinned.kept.as_str()), (Some(3), "pre-adopt"));
    // What is no document is not adopted.
    place.put("state", Value::from("a text").to_string());
    assert_eq!(code(&store.adopt(&options).unwrap_err()), 4);
}

#[test]
fn a_document_from_before_seals_is_adopted_unchanged() {
    let place = Place::new();
    place.put("state", r#"{"phase": "old", "version": "1.0.0"}"#);
    let store = place.store();
    let legacy = store.adopt(&WriteOptions::of("adopt"));
    assert!(matches!(legacy, Ok(Outcome::Committed { .. })), "{legacy:?}");
    assert_eq!(document(&store)["phase"], "old");
    set_with(&store, &WriteOptions::of("set"), "phase", "new").unwrap();
}
