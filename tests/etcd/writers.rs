//! The queue of writers.

use std::time::{Duration, Instant};

use pipeline_state::error::Kind;
use pipeline_state::etcd::messages::KeyValue;
use pipeline_state::etcd::txn::{Keys, delete, put_with_lease};
use pipeline_state::store::Settings;
use pipeline_state::store::change::Outcome;
use pipeline_state::store::options::WriteOptions;
use pipeline_state::store::remote::RemoteStore;

use crate::faults::{FAULTS, Fault, IMPATIENT, Plan, Span};
use crate::server::{PATIENT, shared};
use crate::stores::{Place, add_one, code, document, set, settings};

const QUEUE: &str = "wait/state/";
/// A place that is there before all others.
const AHEAD: &str = "wait/state/ahead";

/// Waits until the queue is as it should be.
fn await_queue(place: &Place, is_so: impl Fn(&[KeyValue]) -> bool) -> Vec<KeyValue> {
    let client = shared().client();
    let mut watch = client.watch(&Keys::below(&place.key(QUEUE))).unwrap();
    loop {
        let queued = place.below(QUEUE);
        if is_so(&queued) {
            return queued;
        }
        let events = watch.next(Instant::now() + Duration::from_secs(60)).unwrap();
        assert!(!events.is_empty(), "the queue stays as it is: {queued:?}");
    }
}

/// Puts a place that is there before all others, and that nothing but its lease ends.
fn put_ahead(place: &Place) {
    let lease = i64::from_be_bytes([1; 8]);
    shared().client().grant(lease, Duration::from_secs(3600)).unwrap();
    place.edit(vec![put_with_lease(place.key(AHEAD), "", lease)]);
}

fn is_behind(kv: &KeyValue) -> bool {
    !kv.key.ends_with(b"/ahead")
}

#[test]
fn thirty_two_writers_need_few_transactions_and_lose_no_update() {
    const WRITERS: u64 = 32;
    const EACH: u64 = 3;
    let place = Place::initialized();
    let done: Vec<(u64, usize)> = std::thread::scope(|scope| {
        let writer = || {
            let plan = Plan::new(None);
            let store = place.faulty(&plan, PATIENT);
            let commit = |_| (add_one(&store, "n").unwrap(), plan.commits.take());
            (0..EACH).map(commit).collect::<Vec<_>>()
        };
        let writers: Vec<_> = (0..WRITERS).map(|_| scope.spawn(writer)).collect();
        writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect()
    });
    let (mut revisions, mut transactions): (Vec<_>, Vec<_>) = done.into_iter().unzip();
    revisions.sort_unstable();
    assert_eq!(revisions, (2..=WRITERS * EACH + 1).collect::<Vec<_>>());
    assert_eq!(document(&place.store())["n"], WRITERS * EACH);
    transactions.sort_unstable();
    assert!(transactions[transactions.len() / 2] <= 3, "{transactions:?}");
    assert!(place.below(QUEUE).is_empty());
}

#[test]
fn writers_commit_in_the_order_in_which_they_queued() {
    let place = Place::initialized();
    put_ahead(&place);
    let revisions: Vec<u64> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..4)
            .map(|i| {
                let writer = scope.spawn(|| add_one(&place.store(), "n").unwrap());
                await_queue(&place, |queued| queued.len() == i + 2);
                writer
            })
            .collect();
        place.delete(AHEAD);
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    });
    assert_eq!(revisions, [2, 3, 4, 5]);
}

#[test]
fn a_writer_that_is_killed_leaves_the_queue_with_its_lease() {
    let place = Place::initialized();
    put_ahead(&place);
    // It reads, has a lease granted, queues, and does nothing from then on.
    let plan = Plan::new(Some((3, Fault::NotSent, Span::FromThenOn)));
    let error = add_one(&place.faulty(&plan, IMPATIENT), "n").unwrap_err();
    assert_eq!((code(&error), error.kind), (8, Kind::Unreachable));
    let lease = place.below(QUEUE).into_iter().find(is_behind).unwrap().lease;
    let client = shared().client();
    let (left, keys) = client.time_to_live(lease).unwrap().unwrap();
    assert!(left <= Duration::from_secs(10) && keys.len() == 1, "{left:?}");
    std::thread::scope(|scope| {
        let next = scope.spawn(|| add_one(&place.store(), "n").unwrap());
        await_queue(&place, |queued| queued.len() == 3);
        place.delete(AHEAD);
        assert_eq!(document(&place.store())["n"], serde_json::Value::Null);
        client.revoke(lease).unwrap(); // as the cluster does at its end
        assert_eq!(next.join().unwrap(), 2);
    });
    assert!(place.below(QUEUE).is_empty());
}

#[test]
fn a_writer_whose_lease_ended_queues_again() {
    let place = Place::initialized();
    put_ahead(&place);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| add_one(&place.store(), "n").unwrap());
        let queued = await_queue(&place, |queued| queued.len() == 2);
        let lost = queued.into_iter().find(is_behind).unwrap();
        shared().client().revoke(lost.lease).unwrap();
        await_queue(&place, |queued| queued.iter().any(|kv| is_behind(kv) && kv.key != lost.key));
        place.delete(AHEAD);
        assert_eq!(writer.join().unwrap(), 2);
    });
}

#[test]
fn a_writer_that_gives_up_leaves_the_queue_at_once() {
    let place = Place::initialized();
    put_ahead(&place);
    let impatient = Settings { lock_timeout: Duration::from_millis(200), ..settings() };
    let error = set(&place.store_with(impatient), "phase", "x").unwrap_err();
    assert_eq!((code(&error), error.kind), (2, Kind::LockTimeout));
    assert!(!place.below(QUEUE).iter().any(is_behind));
    // So does one that has nothing to write.
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let same = |base: &pipeline_state::store::change::Base| Ok(base.draft().into());
            place.store().change(&WriteOptions::of("set"), &mut { same }).unwrap()
        });
        await_queue(&place, |queued| queued.len() == 2);
        place.delete(AHEAD);
        assert!(matches!(writer.join().unwrap(), Outcome::Unchanged { .. }));
    });
    assert!(place.below(QUEUE).is_empty());
}

/// Adds one to `n`, after it lost so many races that it queues.
fn add_one_queued(place: &Place, store: &RemoteStore) -> pipeline_state::error::Result<()> {
    let rival = place.store();
    let mut lost = 0;
    let added = store.change(&WriteOptions::of("update"), &mut |base| {
        if lost < 3 {
            lost += 1;
            add_one(&rival, "m").unwrap();
        }
        let mut draft = base.draft();
        draft["n"] = (draft["n"].as_u64().unwrap_or(0) + 1).into();
        Ok(draft.into())
    });
    added.map(drop)
}

#[test]
fn a_fault_on_the_way_through_the_queue_costs_no_update() {
    for span in [Span::Once, Span::FromThenOn] {
        for fault in FAULTS {
            for number in 0.. {
                let place = Place::initialized();
                let plan = Plan::new(Some((number, fault, span)));
                let patience = if let Span::Once = span { PATIENT } else { IMPATIENT };
                let result = add_one_queued(&place, &place.faulty(&plan, patience));
                if plan.calls.get() <= number {
                    break;
                }
                let context = format!("{:?} {result:?}", plan.fails);
                let is_done = document(&place.store())["n"] == 1;
                match (span, result) {
                    (Span::Once | Span::EachTime, result) => {
                        assert!(result.is_ok() && is_done, "{context}")
                    }
                    (Span::FromThenOn, Ok(())) => assert!(is_done, "{context}"),
                    (Span::FromThenOn, Err(error)) => match error.kind {
                        Kind::Unreachable => assert!(!is_done, "{context}"),
                        kind => {
                            assert_eq!(kind, Kind::DurabilityUnknown, "{context}");
                            assert!(error.details["operation"].is_string(), "{context}");
                        }
                    },
                }
                // A place that could not be left ends with its lease.
                let left = place.below(QUEUE);
                let is_left = |kv: &KeyValue| kv.lease != 0 && matches!(span, Span::FromThenOn);
                assert!(left.iter().all(is_left), "{context}");
                place.edit(vec![delete(&Keys::below(&place.key(QUEUE)))]);
                add_one(&place.store(), "n").unwrap();
            }
        }
    }
}

#[test]
fn a_writer_that_hears_no_more_answers_leaves_the_queue_all_the_same() {
    let place = Place::initialized();
    put_ahead(&place);
    // It has read, was granted a lease, has queued, and watches.
    let plan = Plan::new(Some((4, Fault::AnswerLost, Span::FromThenOn)));
    let refused = set(&place.faulty(&plan, IMPATIENT), "n", 1).unwrap_err();
    assert_eq!(code(&refused), 8, "{refused}");
    assert!(place.below(QUEUE).iter().all(|kv| !is_behind(kv)));
}
