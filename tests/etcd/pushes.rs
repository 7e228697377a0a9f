//! Moves that were interrupted: what the store does not know, another address, another root.

use std::cell::RefCell;
use std::fs;
use std::process::Command;
use std::rc::Rc;
use std::time::Duration;

use pipeline_state::error::Kind;
use pipeline_state::lock::Mode::Exclusive;
use pipeline_state::lock::{Deadline, LockEnv, Request, RequestSpec, owner};
use pipeline_state::name::Name;
use pipeline_state::store::checkpoint::Snapshot;
use pipeline_state::store::fresh::InitMode;
use pipeline_state::store::layout::MOVED;
use pipeline_state::store::moving::{Direction, GivenUp};
use pipeline_state::store::options::WriteOptions;
use pipeline_state::store::remote::RemoteStore;
use serde_json::json;

use crate::faults::{Fault, IMPATIENT, Plan, Span};
use crate::holders::Script;
use crate::moving::{dying_disk, half_pushed, root, root_on, with_state};
use crate::server::PATIENT;
use crate::stores::{Place, code, document, set};

/// A lock is granted before each request in turn. The holder has it where no state is, or where
/// the state is already.
#[test]
fn a_push_is_refused_while_locks_are_held_in_the_store() {
    for number in 0.. {
        let place = with_state();
        let (plan, holder, seen) = (Plan::new(None), Script::new(), Rc::new(RefCell::new(None)));
        plan.before(number, {
            let (place, holder, seen) = (place.clone(), holder.clone(), seen.clone());
            move || {
                let granted = holder.try_lock(&place.locks(), "deploy", Exclusive).is_ok();
                seen.replace(Some((granted, place.value("state").is_some())));
            }
        });
        let push = |store: &RemoteStore| store.moves().run(Direction::Push, &root(&place));
        let pushed = push(&place.faulty(&plan, PATIENT));
        let Some((is_granted, is_there)) = seen.take() else { break };
        let context = format!("{number} {pushed:?}");
        assert_eq!(pushed.is_err(), is_granted && !is_there, "{context}");
        if let Err(error) = pushed {
            assert_eq!((code(&error), error.kind), (2, Kind::LockTimeout), "{context}");
            assert!(error.message.contains("(deploy)"), "{context}");
            assert!(root(&place).read().is_ok() && place.value("meta").is_none(), "{context}");
            holder.release(&place.locks(), "deploy").unwrap();
            push(&place.store()).unwrap();
        }
    }
}

#[test]
fn a_push_that_the_store_does_not_know_yet_is_moving_on_its_host() {
    let is_marked = |place: &Place| place.root.path().join(MOVED).exists();
    let marked = (1..200).map(|nth| {
        let place = with_state();
        let pushed =
            place.store().moves().run(Direction::Push, &root_on(&place, dying_disk(nth).0));
        assert!(pushed.is_err());
        place
    });
    let place = marked.into_iter().find(is_marked).unwrap();
    assert_eq!(place.value("meta"), None);
    let store = place.store();
    let begin = |mode| store.init(mode, &WriteOptions::of("init")).unwrap_err();
    for error in [
        store.read().unwrap_err(),
        set(&store, "n", 1).unwrap_err(),
        begin(InitMode::Continue),
        begin(InitMode::Fresh),
        store.report().status().unwrap().1.unwrap(),
    ] {
        assert_eq!((code(&error), error.kind), (3, Kind::Moving), "{error}");
        assert!(error.to_text("", &"p".into()).contains("--abort"), "{error}");
    }
    // Another host knows nothing of it.
    let elsewhere = place.elsewhere().store().read().unwrap_err();
    assert_eq!(elsewhere.kind, Kind::NotInitialized);
}

/// The same store by another address.
fn by_another_address(place: &Place) -> Place {
    let url = place.url.replace("127.0.0.1", "localhost");
    assert_ne!(url, place.url);
    Place { url, ..place.clone() }
}

#[test]
fn an_interrupted_push_goes_on_by_any_address_of_its_store() {
    let place = half_pushed();
    let other = by_another_address(&place);
    let moves = |place: &Place| place.store().moves().run(Direction::Push, &root(place));
    let mark = || fs::read_to_string(place.root.path().join(MOVED)).unwrap();
    let elsewhere = Place { root: place.root.clone(), ..Place::new() };
    assert_eq!(moves(&elsewhere).unwrap_err().kind, Kind::Moving, "another store");
    moves(&other).unwrap();
    assert!(mark().contains("localhost"), "the next one is hinted: {}", mark());
    assert_eq!(document(&place.store())["n"], 1);

    let place = half_pushed();
    let done = by_another_address(&place).store().moves().give_up(Direction::Push, &root(&place));
    assert_eq!(done.unwrap(), GivenUp::TakenBack);
    assert_eq!(root(&place).read().unwrap().value.skeleton()["n"], 1);
}

#[test]
fn a_pull_that_another_root_was_faster_with_is_given_up() {
    let place = with_state();
    place.store().moves().run(Direction::Push, &root(&place)).unwrap();
    // It is killed after it put its mark.
    let plan = Plan::new(Some((4, Fault::AnswerLost, Span::FromThenOn)));
    place.faulty(&plan, IMPATIENT).moves().run(Direction::Pull, &root(&place)).unwrap_err();
    let mark = fs::read(place.root.path().join(MOVED)).unwrap();
    place.store().moves().give_up(Direction::Pull, &root(&place)).unwrap();
    fs::write(place.root.path().join(MOVED), mark).unwrap();
    let other = place.elsewhere();
    other.store().moves().run(Direction::Pull, &root(&other)).unwrap();

    let error = place.store().moves().run(Direction::Pull, &root(&place)).unwrap_err();
    assert_eq!(error.kind, Kind::Moved);
    let hints = format!("{:?}", error.hints);
    assert!(hints.contains("--abort") && !hints.contains("go on"), "{hints}");
    place.store().moves().give_up(Direction::Pull, &root(&place)).unwrap();
    assert_eq!(root(&place).read().unwrap_err().kind, Kind::Moved);
}

/// A copy of a place's root.
fn copy_of(place: &Place) -> Place {
    let copy = place.elsewhere();
    let [from, to] = [place, &copy].map(|place| place.root.path().display().to_string());
    let copied = Command::new("cp").args(["-a", &format!("{from}/."), &to]).status();
    assert!(copied.unwrap().success());
    copy
}

#[test]
fn a_copy_of_a_root_goes_on_with_no_move_and_can_end_it() {
    for direction in [Direction::Push, Direction::Pull] {
        let place = with_state();
        let run = |place: &Place| place.store().moves().run(direction, &root(place));
        if direction == Direction::Pull {
            place.store().moves().run(Direction::Push, &root(&place)).unwrap();
        }
        // It is killed once the store knows of it.
        let plan = Plan::new(Some((5, Fault::AnswerLost, Span::FromThenOn)));
        place.faulty(&plan, IMPATIENT).moves().run(direction, &root(&place)).unwrap_err();
        let copy = copy_of(&place);
        let refused = run(&copy).unwrap_err();
        assert_eq!(refused.kind, Kind::ForeignIntent, "{refused}");
        assert!(refused.to_text("", &"p".into()).contains("--abort"), "{refused}");
        let given_up = copy.store().moves().give_up(direction, &root(&copy)).unwrap();
        assert_eq!(given_up, GivenUp::TakenBack);
        let is_here = |place: &Place| root(place).read().is_ok();
        assert_eq!(is_here(&copy), direction == Direction::Push, "as any copy of a root");
        run(&place).unwrap();
        assert_eq!(is_here(&place), direction == Direction::Pull);
    }
}

#[test]
fn a_state_does_not_move_while_a_guard_runs() {
    let place = with_state();
    let snapshot = || Snapshot {
        operation: Name::parse("operation", "deploy").unwrap(),
        phase: None,
        metadata: json!({}),
    };
    let run = |direction| place.store().moves().run(direction, &root(&place));
    let (files, store) = (root(&place), place.store());
    let guard = files.guards().begin(&snapshot()).unwrap();
    assert_eq!(run(Direction::Push).unwrap_err().kind, Kind::Conflict);
    files.guards().end(&guard.id).unwrap();
    run(Direction::Push).unwrap();
    let guard = store.guards().begin(&snapshot()).unwrap();
    assert_eq!(run(Direction::Pull).unwrap_err().kind, Kind::Conflict);
    store.guards().end(&guard.id).unwrap();
    run(Direction::Pull).unwrap();
}

#[test]
fn a_push_that_never_took_the_state_away_takes_no_lock_when_it_is_given_up() {
    let begun = (1..200).map(|nth| {
        let place = with_state();
        let dying = root_on(&place, dying_disk(nth).0);
        place.store().moves().run(Direction::Push, &dying).unwrap_err();
        place
    });
    let is_marked = |place: &Place| place.root.path().join(MOVED).exists();
    let place = begun.into_iter().find(is_marked).unwrap();
    let files = root(&place);
    files.read().unwrap(); // it is here still
    let requester = owner::self_and_ancestors(None, &LockEnv::default()).unwrap();
    let soon = Deadline::after(Duration::from_secs(10));
    let deploy = Name::parse("lock", "deploy").unwrap();
    let request = Request::new(vec![deploy.clone()], RequestSpec::hold(Exclusive), requester, soon);
    files.locks().acquire(&request).unwrap();
    place.store().moves().give_up(Direction::Push, &files).unwrap();
    assert!(files.locks().check(&deploy).unwrap().is_held());
}
