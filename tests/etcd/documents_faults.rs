//! Each request of each command fails: not sent; carried out and its answer lost; refused; carried
//! out twice. Once, or from then on.

use std::time::Duration;

use crate::checkpoints::{check_parts, checkpoint, restore};
use crate::faults::{FAULTS, Fault, IMPATIENT, Plan, Span};
use crate::server::PATIENT;
use crate::stores::{Place, add_one, code, document, revision, set, signal};
use pipeline_state::error::{Error, Kind, Result};
use pipeline_state::store::Wanted;
use pipeline_state::store::checkpoint::catalog::Which;
use pipeline_state::store::fresh::InitMode;
use pipeline_state::store::options::{Mode, WriteOptions};
use pipeline_state::store::remote::RemoteStore;

/// A command, where it begins, and what it does when it succeeds.
struct Case {
    name: &'static str,
    prepare: fn(&Place),
    run: fn(&RemoteStore) -> Result<()>,
    /// The revisions that it makes.
    revisions: u64,
    is_done: fn(&Place) -> bool,
}

/// Makes a checkpoint of n = 1 and old files, and changes both and a signal.
fn checkpointed(place: &Place) {
    initialize(place);
    place.configure("a", "old");
    checkpoint(&place.store(), "deploy").unwrap();
    place.configure("a", "new");
    place.configure("b", "new");
    set(&place.store(), "n", 2).unwrap();
    signal(&place.store(), "ready").unwrap();
}

/// The state and this host's files are both restored, or neither is.
fn is_restored(place: &Place) -> bool {
    let is_done = document(&place.store())["n"] == 1;
    let found = ["a", "b"].map(|name| place.configured(name));
    let wanted = match is_done {
        true => [Some("old".to_owned()), None],
        false => [Some("new".to_owned()), Some("new".to_owned())],
    };
    assert_eq!(found, wanted);
    assert_eq!(place.value("signal/ready").is_none(), is_done);
    is_done
}

fn initialize(place: &Place) {
    let store = place.store();
    store.init(InitMode::Continue, &WriteOptions::of("init")).unwrap();
    set(&store, "phase", "before").unwrap();
    set(&store, "n", 1).unwrap();
}

fn n_is_2(place: &Place) -> bool {
    document(&place.store())["n"] == 2
}

const CASES: [Case; 21] = [
    Case {
        name: "init",
        prepare: |_| {},
        run: |store| store.init(InitMode::Continue, &WriteOptions::of("init")).map(drop),
        revisions: 1,
        is_done: |place| place.value("state").is_some(),
    },
    Case {
        name: "update",
        prepare: initialize,
        run: |store| add_one(store, "n").map(drop),
        revisions: 1,
        is_done: n_is_2,
    },
    Case {
        name: "update of a large document",
        prepare: |place| {
            initialize(place);
            set(&place.store(), "artifacts", "x".repeat(900_000)).unwrap();
        },
        run: |store| add_one(store, "n").map(drop),
        revisions: 1,
        is_done: n_is_2,
    },
    Case {
        name: "signal",
        prepare: initialize,
        run: |store| signal(store, "ready"),
        revisions: 1,
        is_done: |place| {
            let is_in_document = document(&place.store())["signals"].get("ready").is_some();
            assert_eq!(place.value("signal/ready").is_some(), is_in_document);
            is_in_document
        },
    },
    Case {
        name: "recover",
        prepare: initialize,
        run: |store| store.recover(&Wanted::Revision(1), &WriteOptions::of("recover")).map(drop),
        revisions: 1,
        is_done: |place| document(&place.store())["phase"] != "before",
    },
    Case {
        name: "read that heals",
        prepare: |place| {
            initialize(place);
            place.store().backup(None).unwrap();
            place.put("state", "torn");
        },
        run: |store| store.read().map(drop),
        revisions: 1,
        is_done: |place| place.value("state").unwrap() != b"torn",
    },
    Case {
        name: "read that heals a large document",
        prepare: |place| {
            initialize(place);
            set(&place.store(), "artifacts", "x".repeat(900_000)).unwrap();
            place.store().backup(None).unwrap();
            place.put("state", "y".repeat(900_000));
        },
        run: |store| store.read().map(drop),
        revisions: 1,
        is_done: |place| place.value("state").unwrap()[0] != b'y',
    },
    Case {
        name: "read that heals meta",
        prepare: |place| {
            initialize(place);
            place.delete("meta");
        },
        run: |store| store.read().map(drop),
        revisions: 1,
        is_done: |place| place.value("meta").is_some(),
    },
    Case {
        name: "adopt",
        prepare: |place| {
            initialize(place);
            let edited = String::from_utf8(place.value("state").unwrap()).unwrap();
            place.put("state", edited.replace("before", "after"));
        },
        run: |store| store.adopt(&WriteOptions::of("adopt")).map(drop),
        revisions: 1,
        is_done: |place| {
            place.store().read().is_ok_and(|read| read.value.skeleton()["phase"] == "after")
        },
    },
    Case {
        name: "undo",
        prepare: initialize,
        run: |store| store.undo(&WriteOptions::of("undo")).map(drop),
        revisions: 1,
        is_done: |place| document(&place.store()).get("n").is_none(),
    },
    Case {
        name: "backup",
        prepare: initialize,
        run: |store| store.backup(None).map(drop),
        revisions: 0,
        is_done: |place| {
            place.store().report().backups().unwrap().iter().any(|backup| backup.pinned)
        },
    },
    Case {
        name: "read",
        prepare: initialize,
        run: |store| store.read().map(drop),
        revisions: 0,
        is_done: |_| true,
    },
    Case {
        name: "history",
        prepare: initialize,
        run: |store| store.report().history(None, None).map(drop),
        revisions: 0,
        is_done: |_| true,
    },
    Case {
        name: "backups",
        prepare: initialize,
        run: |store| store.report().backups().map(drop),
        revisions: 0,
        is_done: |_| true,
    },
    Case {
        name: "checkpoint",
        prepare: |place| {
            initialize(place);
            place.configure("a", "small");
        },
        run: |store| checkpoint(store, "deploy").map(drop),
        revisions: 0,
        is_done: |place| place.store().checkpoints().ids().unwrap().len() == 1,
    },
    Case {
        name: "checkpoint of several parts",
        prepare: |place| {
            initialize(place);
            place.configure("a", vec![b'x'; 1_200_000]);
        },
        run: |store| checkpoint(store, "deploy").map(drop),
        revisions: 0,
        is_done: |place| place.store().checkpoints().ids().unwrap().len() == 1,
    },
    Case {
        name: "list and verify",
        prepare: checkpointed,
        run: |store| {
            store.checkpoints().list()?;
            store.checkpoints().verify("checkpoint-2")
        },
        revisions: 0,
        is_done: |_| true,
    },
    Case {
        name: "remove",
        prepare: checkpointed,
        run: |store| store.checkpoints().remove(&["checkpoint-2".to_owned()]).map(drop),
        revisions: 0,
        is_done: |place| place.store().checkpoints().ids().unwrap().is_empty(),
    },
    Case {
        name: "cleanup",
        prepare: |place| {
            checkpointed(place);
            checkpoint(&place.store(), "later").unwrap();
        },
        run: |store| store.checkpoints().clean(Duration::ZERO, 1, Mode::Commit).map(drop),
        revisions: 0,
        is_done: |place| place.store().checkpoints().ids().unwrap().len() == 1,
    },
    Case {
        name: "restore",
        prepare: checkpointed,
        run: |store| restore(store, "deploy").map(drop),
        revisions: 1,
        is_done: is_restored,
    },
    Case {
        name: "plan of a restore",
        prepare: checkpointed,
        run: |store| store.restores().plan(&Which::Latest(None)).map(drop),
        revisions: 0,
        is_done: |_| true,
    },
];

/// The revisions in the log: each once, without gaps.
fn logged(place: &Place) -> u64 {
    let records = place.below("log/");
    let mut operations: Vec<_> = records
        .iter()
        .map(|kv| String::from_utf8_lossy(&kv.value).lines().next().unwrap().to_owned())
        .collect();
    for (i, kv) in records.iter().enumerate() {
        assert_eq!(kv.key, place.key(&format!("log/{:020}", i + 1)));
        assert_eq!(kv.version, 1, "a record is put once");
    }
    operations.sort();
    operations.dedup();
    assert_eq!(operations.len(), records.len(), "an operation makes one revision");
    records.len() as u64
}

/// Runs `check` for each request of each command and each fault, until a run has no such request.
fn for_each_fault(span: Span, check: impl Fn(&Case, &Place, Fault, &Plan, u64) + Sync) {
    let check_all = |fault| {
        for case in &CASES {
            for number in 0.. {
                assert!(number < 50, "{} makes ever more requests", case.name);
                let place = Place::new();
                (case.prepare)(&place);
                let before = logged(&place);
                let plan = Plan::new(Some((number, fault, span)));
                check(case, &place, fault, &plan, before);
                if plan.calls.get() <= number {
                    break;
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for fault in &FAULTS {
            scope.spawn(|| check_all(*fault));
        }
    });
}

#[test]
fn one_fault_costs_nothing_and_happens_once() {
    for_each_fault(Span::Once, |case, place, fault, plan, before| {
        let store = place.faulty(plan, PATIENT);
        (case.run)(&store).unwrap_or_else(|error| panic!("{} {fault:?}: {error}", case.name));
        assert!((case.is_done)(place), "{} {fault:?}", case.name);
        check_parts(place);
        assert_eq!(logged(place), before + case.revisions, "{} {fault:?}", case.name);
    });
}

#[test]
fn a_fault_that_stays_ends_with_the_code_that_is_true() {
    for_each_fault(Span::FromThenOn, |case, place, fault, plan, before| {
        let result = (case.run)(&place.faulty(plan, IMPATIENT));
        let context = format!("{} {fault:?} {:?}", case.name, plan.fails);
        let after = logged(place);
        match result {
            Ok(()) => {
                assert_eq!(after, before + case.revisions, "{context}");
                assert!((case.is_done)(place), "{context}");
            }
            Err(error) => check_error(case, &error, after - before, &context),
        }
        // What is there is whole, and another writer goes on.
        if before > 0 {
            let store = place.store();
            // Where that is what failed.
            let _ = store.adopt(&WriteOptions::of("adopt"));
            let read = document(&store);
            assert_eq!(revision(&read), logged(place), "{context}");
            (case.is_done)(place);
            check_parts(place);
            add_one(&store, "m").unwrap();
        }
    });
}

fn check_error(case: &Case, error: &Error, made: u64, context: &str) {
    match error.kind {
        // Nothing was changed.
        Kind::Unreachable => {
            assert_eq!((code(error), made), (8, 0), "{context}: {error}");
        }
        // It may have been, and the error says which revision by which operation.
        Kind::DurabilityUnknown => {
            assert!(made <= case.revisions, "{context}");
            if case.revisions == 0 {
                return; // a backup has no revision of its own
            }
            assert!(error.details["revision"].is_u64(), "{context}: {error}");
            assert!(error.details["operation"].is_string(), "{context}: {error}");
        }
        _ => panic!("{context}: {error}"),
    }
}

#[test]
fn what_was_committed_unanswered_and_overtaken_is_still_known() {
    // The first commit is carried out, and its answer is lost; before it is sent again, another
    // writer commits.
    let place = Place::initialized();
    let plan = Plan::new(Some((1, Fault::AnswerLost, Span::Once)));
    let store = place.faulty(&plan, PATIENT);
    plan.before(2, {
        let place = place.clone();
        move || {
            add_one(&place.store(), "n").unwrap();
        }
    });
    assert_eq!(add_one(&store, "n").unwrap(), 2);
    assert_eq!(document(&store)["n"], 2);
}
