//! `state push` and `state pull`: the state is in one place at a time, whatever fails.

use std::cell::Cell;
use std::fs;
use std::rc::Rc;
use std::time::Duration;

use pipeline_state::audit::Audit;
use pipeline_state::document::seal::Seal;
use pipeline_state::error::{Error, Kind, Result};
use pipeline_state::fs::Disk;
use pipeline_state::lock::Mode::Exclusive;
use pipeline_state::lock::{Deadline, LockEnv, Request, RequestSpec, owner};
use pipeline_state::store::change::Proposal;
use pipeline_state::store::fresh::InitMode;
use pipeline_state::store::layout::{AWAY, BACKUPS, MOVED, STATE_FILE};
use pipeline_state::store::moving::{Direction, GivenUp};
use pipeline_state::store::options::WriteOptions;
use pipeline_state::store::remote::RemoteStore;
use pipeline_state::store::signal::Signals;
use pipeline_state::store::{FileStore, Settings, SignalFile};
use rustix::io::Errno;
use serde_json::{Value, json};

use crate::faults::{FAULTS, Fault, IMPATIENT, Plan, Span};
use crate::holders::names;
use crate::observed::{self, Observed};
use crate::server::PATIENT;
use crate::stores::{Place, add_one, code, document, revision, settings};

/// The root of a place, as a store of files.
pub fn root(place: &Place) -> FileStore {
    root_on(place, Disk::real())
}

pub fn root_on(place: &Place, disk: Disk) -> FileStore {
    let path = place.root.path();
    let settings = Settings {
        directory: path.to_owned(),
        file_name: STATE_FILE.into(),
        root: path.to_owned(),
        lock_timeout: Duration::from_secs(20),
        lock_env: LockEnv::default(),
        ..settings()
    };
    let audit = Audit::new(Disk::real(), path.join("audit.log"), path);
    FileStore::new(disk, settings, audit).reporting_absence()
}

fn local_set(root: &FileStore, field: &str, value: impl Into<Value>) -> Result<()> {
    let value = value.into();
    let changed = root.change(&WriteOptions::of("set"), &mut |base| {
        let mut draft = base.draft();
        draft[field] = value.clone();
        Ok(draft.into())
    });
    changed.map(drop)
}

fn local_signal(root: &FileStore, name: &str) {
    let name = pipeline_state::name::Name::parse("signal", name).unwrap();
    root.change(&WriteOptions::of("signal"), &mut |base| {
        let mut draft = base.draft();
        let now = std::time::SystemTime::now();
        let file = SignalFile::give(&mut draft, &name, &json!({"by": "test"}), now)?;
        Ok(Proposal { draft: draft.into(), signals: Signals::These(vec![file]), repeats: None })
    })
    .unwrap();
}

/// A root with a state of four revisions, a signal and backups.
pub fn with_state() -> Place {
    let place = Place::new();
    let root = root(&place);
    root.init(InitMode::Continue, &WriteOptions::of("init")).unwrap();
    local_set(&root, "phase", "build").unwrap();
    local_signal(&root, "ready");
    local_set(&root, "n", 1).unwrap();
    place
}

/// A place with a state that was pushed and changed since.
fn pushed() -> Place {
    let place = with_state();
    place.store().moves().run(Direction::Push, &root(&place)).unwrap();
    add_one(&place.store(), "n").unwrap();
    place
}

/// Where the state can be used, and its `n`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Root(u64),
    Store(u64),
    /// On its way: both refuse.
    Nowhere,
}

/// Returns where it is, which is also where locks are granted.
fn found(place: &Place) -> Found {
    let n = |value: &Value| value["n"].as_u64().unwrap();
    let local = root(place).read();
    let writable =
        place.store().change(&WriteOptions::of("set"), &mut |base| Ok(base.draft().into()));
    let refusal = |error: Option<&Error>| error.map(|error| error.kind);
    // A store that knows nothing of a push refuses on the root's host, and nothing but commits.
    let is_known = place.value("meta").is_some();
    let refused = writable.as_ref().err().filter(|_| is_known);
    check_locks(place, [refusal(local.as_ref().err()), refusal(refused)]);
    match (local, writable) {
        (Ok(local), Err(_)) => {
            local_set(&root(place), "probe", 1).unwrap();
            Found::Root(n(local.value.skeleton()))
        }
        (Err(error), Ok(_)) => {
            let is_expected =
                matches!(error.kind, Kind::Moved | Kind::Moving | Kind::NotInitialized);
            assert!(is_expected, "{error}");
            Found::Store(n(&document(&place.store())))
        }
        (Err(local), Err(remote)) => {
            assert_eq!((local.kind, code(&local)), (Kind::Moving, 3), "{local}");
            let is_expected =
                matches!(remote.kind, Kind::Moving | Kind::Moved | Kind::NotInitialized);
            assert!(is_expected, "{remote}");
            Found::Nowhere
        }
        (Ok(_), Ok(_)) => panic!("the state is in two places"),
    }
}

/// Where the state was moved away, or is on its way, a lock is refused with the same error: else
/// the root and the store may both grant it.
fn check_locks(place: &Place, refusals: [Option<Kind>; 2]) {
    let requester = owner::self_and_ancestors(None, &LockEnv::default()).unwrap();
    let name = names("probe");
    let soon = Deadline::after(Duration::ZERO);
    let request = Request::new(name.clone(), RequestSpec::hold(Exclusive), requester, soon);
    let (root, locks) = (root(place), place.locks());
    let granted = [root.locks().acquire(&request), locks.acquire(&request)];
    for (granted, refusal) in granted.iter().zip(refusals) {
        let is_away = refusal.is_some_and(|kind| matches!(kind, Kind::Moved | Kind::Moving));
        let kind = granted.as_ref().err().map(|error| error.kind);
        assert_eq!(kind, refusal.filter(|_| is_away));
    }
    let [here, there] = granted;
    here.iter().for_each(|granted| root.locks().give_back(granted));
    there.iter().for_each(|granted| locks.give_back(granted));
}

#[test]
fn a_push_takes_everything_with_it_and_a_pull_brings_it_back() {
    let place = with_state();
    let text = fs::read(place.root.path().join(STATE_FILE)).unwrap();
    let moved = place.store().moves().run(Direction::Push, &root(&place)).unwrap();
    assert_eq!((moved.revision.get(), moved.backups, moved.signals), (4, 3, 1));
    let store = place.store();
    assert_eq!(store.read().unwrap().bytes, text);
    let history = store.report().history(None, None).unwrap();
    assert_eq!(history.iter().map(|it| it.revision).collect::<Vec<_>>(), [4, 3, 2, 1]);
    assert_eq!(history[1].command.as_deref(), Some("state signal"));
    assert_eq!(store.report().backups().unwrap().len(), 3);
    let signal = place.value("signal/ready").unwrap();
    let file = place.root.path().join(".signals/ready.json");
    assert_eq!(signal, fs::read(&file).unwrap());
    let refused = root(&place).read().unwrap_err();
    assert_eq!((refused.kind, code(&refused)), (Kind::Moved, 3));
    assert!(format!("{:?}", refused.hints).contains("export PIPELINE_STORE="), "{refused:?}");
    assert_eq!(local_set(&root(&place), "phase", "x").unwrap_err().kind, Kind::Moved);
    let init = root(&place).init(InitMode::Continue, &WriteOptions::of("init"));
    assert_eq!(init.unwrap_err().kind, Kind::Moved);

    assert_eq!(add_one(&store, "n").unwrap(), 5);
    let text = place.value("state").unwrap();
    // To another root.
    let other = place.elsewhere();
    let moved = other.store().moves().run(Direction::Pull, &root(&other)).unwrap();
    assert_eq!((moved.revision.get(), moved.signals), (5, 1));
    assert_eq!(fs::read(other.root.path().join(STATE_FILE)).unwrap(), text);
    assert_eq!(fs::read(other.root.path().join(".signals/ready.json")).unwrap(), signal);
    let refused = place.store().read().unwrap_err();
    assert_eq!((refused.kind, code(&refused)), (Kind::Moved, 3));
    let local = root(&other);
    let history = local.report().history(None, None).unwrap();
    assert_eq!(history.iter().map(|it| it.revision).collect::<Vec<_>>(), [5, 4, 3, 2, 1]);
    local_set(&local, "n", 7).unwrap();
    assert!(local.take_warnings().is_empty(), "{:?}", local.take_warnings());
    // And again to the same store.
    other.store().moves().run(Direction::Push, &root(&other)).unwrap();
    assert_eq!(found(&other), Found::Store(7));
    assert_eq!(revision(&document(&other.store())), 6);
}

#[test]
fn what_cannot_move_is_refused_and_stays_usable() {
    // A store with another state.
    let place = with_state();
    let other = Place { root: place.root.clone(), ..Place::initialized() };
    let refused = other.store().moves().run(Direction::Push, &root(&other)).unwrap_err();
    assert_eq!((refused.kind, code(&refused)), (Kind::Exists, 1));
    assert!(root(&place).read().is_ok());
    assert!(!place.root.path().join(MOVED).exists());
    // A root with a state.
    let refused = other.store().moves().run(Direction::Pull, &root(&other)).unwrap_err();
    assert_eq!((refused.kind, code(&refused)), (Kind::Exists, 1));
    add_one(&other.store(), "n").unwrap();
    // A document over the limit of a store.
    local_set(&root(&place), "artifacts", vec!["x".repeat(1 << 20)]).unwrap();
    let refused = place.store().moves().run(Direction::Push, &root(&place)).unwrap_err();
    assert_eq!((refused.kind, code(&refused)), (Kind::TooLarge, 4));
    assert!(place.below("").is_empty());
    assert_eq!(found(&place), Found::Root(1));
    // A store that holds locks.
    let place = pushed();
    place.put("hold/deploy/1", "held");
    let refused = place.store().moves().run(Direction::Pull, &root(&place)).unwrap_err();
    assert_eq!((refused.kind, code(&refused)), (Kind::LockTimeout, 2));
    assert_eq!(found(&place), Found::Store(2));
    // Nothing to bring back.
    let place = Place::new();
    let refused = place.store().moves().run(Direction::Pull, &root(&place)).unwrap_err();
    assert_eq!(refused.kind, Kind::NotInitialized);
    root(&place).init(InitMode::Continue, &WriteOptions::of("init")).unwrap();
}

type Command = fn(&RemoteStore, &FileStore) -> Result<()>;

/// A move: where it begins, and where the state is before and after.
struct Case {
    name: &'static str,
    prepare: fn() -> Place,
    run: Command,
    abort: fn(&RemoteStore, &FileStore) -> Result<GivenUp>,
    before: Found,
    after: Found,
}

const CASES: [Case; 4] = [
    Case {
        name: "push",
        prepare: with_state,
        run: |store, root| store.moves().run(Direction::Push, root).map(drop),
        abort: |store, root| store.moves().give_up(Direction::Push, root),
        before: Found::Root(1),
        after: Found::Store(1),
    },
    Case {
        name: "push to a store that had it before",
        prepare: || {
            let place = pushed();
            place.store().moves().run(Direction::Pull, &root(&place)).unwrap();
            place
        },
        run: |store, root| store.moves().run(Direction::Push, root).map(drop),
        abort: |store, root| store.moves().give_up(Direction::Push, root),
        before: Found::Root(2),
        after: Found::Store(2),
    },
    Case {
        name: "pull",
        prepare: pushed,
        run: |store, root| store.moves().run(Direction::Pull, root).map(drop),
        abort: |store, root| store.moves().give_up(Direction::Pull, root),
        before: Found::Store(2),
        after: Found::Root(2),
    },
    Case {
        name: "pull to another root",
        prepare: || pushed().elsewhere(),
        run: |store, root| store.moves().run(Direction::Pull, root).map(drop),
        abort: |store, root| store.moves().give_up(Direction::Pull, root),
        before: Found::Store(2),
        after: Found::Root(2),
    },
];

/// After a failed command: again finishes it; or it is taken back, and then nothing is left of it.
fn check_ways_on(case: &Case, context: &str, fail: impl Fn(&Place) -> Option<Error>) -> bool {
    let mut has_failed = false;
    for takes_back in [false, true] {
        let place = (case.prepare)();
        let Some(error) = fail(&place) else { break };
        has_failed = true;
        let context = format!("{context}, {error}");
        let is = found_after(case, &place);
        if is == case.after {
            continue;
        }
        if takes_back {
            match (case.abort)(&place.store(), &root(&place)) {
                Ok(_) => assert_eq!(found(&place), case.before, "{context}"),
                // It was decided, and is finished.
                Err(error) if error.kind == Kind::Conflict => {}
                Err(error) => panic!("{context}: {error}"),
            }
            if found(&place) == case.before {
                assert!(!place.root.path().join(MOVED).exists() || case.before == Found::Store(2));
                assert!(place.below("operation/").len() <= 1, "{context}");
            }
        }
        if found(&place) != case.after {
            let again = (case.run)(&place.store(), &root(&place));
            again.unwrap_or_else(|again| panic!("{context}: again: {again}"));
        }
        assert_eq!(found(&place), case.after, "{context}");
        check_arrived(&place, &context);
    }
    has_failed
}

/// Where the state is: where it was, on its way, or where it goes.
fn found_after(case: &Case, place: &Place) -> Found {
    let is = found(place);
    assert!([case.before, case.after, Found::Nowhere].contains(&is), "{is:?}");
    is
}

/// What came has its signal, its backups and its history.
fn check_arrived(place: &Place, context: &str) {
    match found(place) {
        Found::Store(_) => {
            let store = place.store();
            assert!(place.value("signal/ready").is_some(), "{context}");
            assert!(store.report().backups().unwrap().len() >= 3, "{context}");
            let history = store.report().history(None, None).unwrap();
            assert!(history.len() >= 4, "{context}: {}", history.len());
        }
        Found::Root(_) => {
            let local = root(place);
            let path = place.root.path();
            assert!(path.join(".signals/ready.json").exists(), "{context}");
            assert!(!path.join(MOVED).exists() && !path.join(BACKUPS).join(AWAY).exists());
            let text = fs::read(path.join(STATE_FILE)).unwrap();
            let document: Value = serde_json::from_slice(&text).unwrap();
            assert!(Seal::verify(&document, &text, None).is_some());
            assert!(local.report().history(None, None).unwrap().len() >= 4, "{context}");
        }
        Found::Nowhere => panic!("{context}"),
    }
}

#[test]
fn one_request_that_fails_costs_nothing() {
    for case in &CASES {
        for fault in FAULTS {
            for number in 0.. {
                assert!(number < 60, "{} makes ever more requests", case.name);
                let place = (case.prepare)();
                let plan = Plan::new(Some((number, fault, Span::Once)));
                let context = format!("{} {fault:?} {number}", case.name);
                (case.run)(&place.faulty(&plan, PATIENT), &root(&place))
                    .unwrap_or_else(|error| panic!("{context}: {error}"));
                assert_eq!(found(&place), case.after, "{context}");
                check_arrived(&place, &context);
                if plan.calls.get() <= number {
                    break;
                }
            }
        }
    }
}

#[test]
fn after_requests_that_fail_from_then_on_it_is_finished_or_taken_back() {
    for case in &CASES {
        for fault in [Fault::NotSent, Fault::AnswerLost, Fault::Refused] {
            for number in 0.. {
                let context = format!("{} {fault:?} {number}", case.name);
                let has_failed = check_ways_on(case, &context, |place| {
                    let plan = Plan::new(Some((number, fault, Span::FromThenOn)));
                    let ran = (case.run)(&place.faulty(&plan, IMPATIENT), &root(place));
                    let error = ran.err()?;
                    if error.kind == Kind::Unreachable {
                        let is = found_after(case, place);
                        assert!(is == case.before || is == Found::Nowhere, "{context}: {is:?}");
                    }
                    assert!(matches!(error.kind, Kind::Unreachable | Kind::DurabilityUnknown));
                    Some(error)
                });
                if !has_failed {
                    break;
                }
            }
        }
    }
}

/// A disk on which every change from the `nth` on fails, as for a process that is dead.
pub fn dying_disk(nth: usize) -> (Disk, Rc<Cell<usize>>) {
    let count = Rc::new(Cell::new(0));
    let counted = count.clone();
    let observed = Observed::new(move |call| {
        counted.set(counted.get() + usize::from(call.changes()));
        match call.changes() && counted.get() >= nth {
            true => observed::Fault::Fails(Errno::IO),
            false => observed::Fault::None,
        }
    });
    (Disk::new(Rc::new(observed)), count)
}

#[test]
fn killed_before_any_change_of_the_disk_it_is_finished_or_taken_back() {
    for case in &CASES {
        for nth in 1.. {
            assert!(nth < 200, "{} makes ever more calls", case.name);
            let context = format!("{} at change {nth}", case.name);
            let seen = Cell::new(0);
            check_ways_on(case, &context, |place| {
                let (disk, count) = dying_disk(nth);
                let ran = (case.run)(&place.store(), &root_on(place, disk));
                seen.set(count.get());
                ran.err()
            });
            if seen.get() < nth {
                break;
            }
        }
    }
}

#[test]
fn an_abort_that_is_killed_can_be_repeated() {
    for case in &CASES {
        for number in 0.. {
            let place = (case.prepare)();
            // The first request after the store knows.
            let plan = Plan::new(Some((5, Fault::NotSent, Span::FromThenOn)));
            (case.run)(&place.faulty(&plan, IMPATIENT), &root(&place)).unwrap_err();
            let plan = Plan::new(Some((number, Fault::AnswerLost, Span::FromThenOn)));
            let first = (case.abort)(&place.faulty(&plan, IMPATIENT), &root(&place));
            if first.is_err() {
                (case.abort)(&place.store(), &root(&place)).unwrap();
            }
            assert_eq!(found(&place), case.before, "{} {number}", case.name);
            if first.is_ok() {
                break;
            }
        }
    }
}

/// A place with its state in the store, and the root does not know it.
pub fn half_pushed() -> Place {
    let place = with_state();
    let has_begun = Cell::new(false);
    let observed = Observed::new(move |call| {
        let is_mark = call.name == "rename" && call.path.ends_with(MOVED);
        match is_mark && has_begun.replace(true) {
            true => observed::Fault::Fails(Errno::IO),
            false => observed::Fault::None,
        }
    });
    let disk = Disk::new(Rc::new(observed));
    place.store().moves().run(Direction::Push, &root_on(&place, disk)).unwrap_err();
    place
}

#[test]
fn a_push_that_was_used_since_cannot_be_taken_back() {
    let place = half_pushed();
    assert_eq!(found(&place), Found::Store(1));
    add_one(&place.store(), "n").unwrap();
    let error = place.store().moves().give_up(Direction::Push, &root(&place)).unwrap_err();
    assert_eq!((error.kind, code(&error)), (Kind::Conflict, 75));
    place.store().moves().run(Direction::Push, &root(&place)).unwrap();
    assert_eq!(found(&place), Found::Store(2));
}

#[test]
fn transactions_of_a_push_that_was_taken_back_come_too_late() {
    for call in 3..8 {
        let place = with_state();
        let plan = Plan::new(None);
        plan.before(call, {
            let place = place.clone();
            move || {
                // What an abort puts and deletes, while the root is locked.
                let mark = fs::read(place.root.path().join(MOVED)).unwrap();
                let mark: Value = serde_json::from_slice(&mark).unwrap();
                let operation = mark["operation"].as_str().unwrap().to_owned();
                place.delete("meta");
                place.put(&format!("operation/{operation}"), "given up");
            }
        });
        let ran = place.faulty(&plan, PATIENT).moves().run(Direction::Push, &root(&place));
        assert!(ran.is_err(), "{call}");
        assert!(place.value("state").is_none(), "{call}");
    }
}
