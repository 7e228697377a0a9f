//! Locks on a cluster: grants, and their order.

use std::process::Command;
use std::thread::scope;

use pipeline_state::error::Kind;
use pipeline_state::lock::Mode::{Exclusive, Shared};
use pipeline_state::lock::{BreakTarget, EntryStatus, Identity, Lifeline, Standing};

use crate::faults::Plan;
use crate::holders::{Script, name, names, token};
use crate::server::{PATIENT, shared};
use crate::stores::{Place, code};

#[test]
fn a_lock_is_held_by_one_and_handed_on_under_a_higher_token() {
    let (place, one, other) = (Place::new(), Script::new(), Script::new());
    let locks = place.locks();
    let first = token(&one.lock(&locks, "deploy", Exclusive).unwrap());
    let error = other.try_lock(&locks, "deploy", Exclusive).unwrap_err();
    assert_eq!((code(&error), error.kind), (2, Kind::LockTimeout));
    assert!(error.message.contains("held by 10") && error.message.contains("host-"), "{error}");
    scope(|scope| {
        let waiter =
            scope.spawn(|| token(&other.lock(&place.locks(), "deploy", Exclusive).unwrap()));
        place.await_queue("deploy", 1);
        assert_eq!(one.release(&locks, "deploy").unwrap(), 0);
        assert!(waiter.join().unwrap() > first);
    });
    assert!(place.below("wait/").is_empty());
    assert_eq!(place.below("hold/deploy/").len(), 1);
}

#[test]
fn of_two_requests_that_saw_a_lock_free_one_is_granted() {
    for names in ["deploy", "deploy,x"] {
        let (place, one) = (Place::new(), Script::new());
        // It reads, has a lease granted, notes it; before it takes the lock, another one does.
        let plan = Plan::new(None);
        let others = place.clone();
        plan.before(3, move || {
            drop(Script::new().lock(&others.locks(), "deploy", Exclusive).unwrap());
        });
        let error = one.try_lock(&place.faulty_locks(&plan, PATIENT), names, Exclusive);
        assert_eq!(error.unwrap_err().kind, Kind::LockTimeout);
        assert_eq!(place.below("hold/").len(), 1);
    }
}

#[test]
fn waiters_are_granted_in_the_order_in_which_they_queued() {
    let (place, one) = (Place::new(), Script::new());
    let locks = place.locks();
    one.lock(&locks, "deploy", Exclusive).unwrap();
    let tokens: Vec<_> = scope(|scope| {
        let waiters: Vec<_> = (1..=4)
            .map(|length| {
                let waiter = scope.spawn(|| {
                    let (script, locks) = (Script::new(), place.locks());
                    let token = token(&script.lock(&locks, "deploy", Exclusive).unwrap());
                    script.release(&locks, "deploy").unwrap();
                    token
                });
                place.await_queue("deploy", length);
                waiter
            })
            .collect();
        one.release(&locks, "deploy").unwrap();
        waiters.into_iter().map(|waiter| waiter.join().unwrap()).collect()
    });
    assert!(tokens.is_sorted(), "{tokens:?}");
}

#[test]
fn shared_holders_hold_together_and_do_not_overtake_an_exclusive_waiter() {
    let place = Place::new();
    let [one, other, writer, late] = [(); 4].map(|()| Script::new());
    let locks = place.locks();
    one.lock(&locks, "tree", Shared).unwrap();
    other.try_lock(&locks, "tree", Shared).unwrap();
    assert!(writer.try_lock(&locks, "tree", Exclusive).is_err());
    scope(|scope| {
        let exclusive = scope.spawn(|| {
            let locks = place.locks();
            writer.lock(&locks, "tree", Exclusive).unwrap();
            assert_eq!(place.below("hold/tree/").len(), 1);
            writer.release(&locks, "tree").unwrap();
        });
        place.await_queue("tree", 1);
        assert_eq!(late.try_lock(&locks, "tree", Shared).unwrap_err().kind, Kind::LockTimeout);
        one.release(&locks, "tree").unwrap();
        other.release(&locks, "tree").unwrap();
        exclusive.join().unwrap();
    });
    late.try_lock(&locks, "tree", Shared).unwrap();
}

#[test]
fn several_locks_are_granted_together_or_not_at_all() {
    let (place, one, other) = (Place::new(), Script::new(), Script::new());
    let locks = place.locks();
    one.lock(&locks, "b", Exclusive).unwrap();
    assert!(other.try_lock(&locks, "a,b,c", Exclusive).is_err());
    assert_eq!(place.below("hold/").len(), 1);
    scope(|scope| {
        let waiter = scope.spawn(|| other.lock(&place.locks(), "a,b,c", Exclusive).unwrap());
        place.await_keys("wait/", |kvs| kvs.len() == 3);
        one.release(&locks, "b").unwrap();
        let acquired = waiter.join().unwrap();
        let together = |acquired: &&pipeline_state::lock::Acquired| {
            acquired.grant.token == token(std::slice::from_ref(*acquired))
        };
        assert!(acquired.len() == 3 && acquired.iter().all(|one| together(&one)));
    });
    other.release(&locks, "a,b,c").unwrap();
    let most: Vec<String> = (0..64).map(|number| format!("l{number}")).collect();
    one.lock(&locks, &most.join(","), Exclusive).unwrap();
    scope(|scope| {
        // And from the queue.
        let waiter =
            scope.spawn(|| other.lock(&place.locks(), &most.join(","), Exclusive).unwrap());
        place.await_keys("wait/", |kvs| kvs.len() == 64);
        one.release(&locks, &most.join(",")).unwrap();
        assert_eq!(waiter.join().unwrap().len(), 64);
    });
}

#[test]
fn a_shared_grant_becomes_exclusive_when_no_other_is_left() {
    let [one, other, third] = [(); 3].map(|()| Script::new());
    let place = Place::new();
    let locks = place.locks();
    let before = token(&one.lock(&locks, "tree", Shared).unwrap());
    other.lock(&locks, "tree", Shared).unwrap();
    scope(|scope| {
        let third = scope.spawn(|| token(&third.lock(&place.locks(), "tree", Exclusive).unwrap()));
        place.await_queue("tree", 1);
        let upgrade = scope.spawn(|| token(&one.lock(&place.locks(), "tree", Exclusive).unwrap()));
        place.await_queue("tree", 2);
        other.release(&locks, "tree").unwrap();
        let upgraded = upgrade.join().unwrap();
        assert!(upgraded > before);
        // And back, without a wait.
        let shared = token(&one.try_lock(&locks, "tree", Shared).unwrap());
        assert!(shared > upgraded);
        one.release(&locks, "tree").unwrap();
        assert!(third.join().unwrap() > shared);
    });
}

#[test]
fn a_grant_of_an_ancestor_is_the_owners_own() {
    let (place, script) = (Place::new(), Script::new());
    let (locks, child) = (place.locks(), script.child());
    let first = token(&script.lock(&locks, "deploy", Exclusive).unwrap());
    for again in [&script, &child] {
        let error = again.try_lock(&locks, "deploy", Exclusive).unwrap_err();
        assert_eq!(error.kind, Kind::AlreadyHeld, "{error}");
    }
    let counted = child.again(&locks, "deploy").unwrap();
    assert_eq!((token(&counted), counted[0].grant.count), (first, 2));
    assert_eq!(child.release(&locks, "deploy").unwrap(), 1);
    assert_eq!(script.release(&locks, "deploy").unwrap(), 0);
    let error = script.release(&locks, "deploy").unwrap_err();
    assert_eq!((code(&error), error.kind), (1, Kind::NotFound));
    // A token shows it where pids do not.
    let mut stranger = Script::new();
    let held = token(&script.lock(&locks, "deploy", Exclusive).unwrap());
    assert_eq!(stranger.release(&locks, "deploy").unwrap_err().kind, Kind::NotOwner);
    stranger.requester.env_tokens = vec![(name("deploy"), held)];
    assert_eq!(stranger.try_lock(&locks, "deploy", Exclusive).unwrap_err().kind, Kind::AlreadyHeld);
    stranger.release(&locks, "deploy").unwrap();
}

#[test]
fn exactly_the_request_that_closes_a_cycle_is_refused() {
    for length in [2, 3] {
        let place = Place::new();
        let locks = place.locks();
        let scripts: Vec<Script> = (0..length).map(|_| Script::new()).collect();
        let lock = |number: usize| format!("l{}", number % length);
        for (number, script) in scripts.iter().enumerate() {
            script.lock(&locks, &lock(number), Exclusive).unwrap();
        }
        scope(|scope| {
            let waiters: Vec<_> = (0..length - 1)
                .map(|number| {
                    let script = &scripts[number];
                    let wanted = lock(number + 1);
                    let place = &place;
                    let waiter = scope.spawn(move || {
                        // A child of the script asks: descent counts.
                        let locks = place.locks();
                        script.child().lock(&locks, &wanted, Exclusive).unwrap();
                        script.child().release(&locks, &wanted).unwrap();
                        script.release(&locks, &lock(number)).unwrap();
                    });
                    place.await_keys("wait/", |kvs| kvs.len() == number + 1);
                    waiter
                })
                .collect();
            let last = &scripts[length - 1];
            let error = last.child().lock(&locks, &lock(0), Exclusive).unwrap_err();
            assert_eq!((code(&error), error.kind), (2, Kind::Deadlock), "{error}");
            assert_eq!(error.details["cycle"].as_array().unwrap().len(), length);
            assert_eq!(place.below("wait/").len(), length - 1, "the others wait on");
            last.release(&locks, &lock(length - 1)).unwrap();
            waiters.into_iter().for_each(|waiter| waiter.join().unwrap());
        });
        assert!(place.below("hold/").is_empty() && place.below("wait/").is_empty());
    }
}

#[test]
fn the_end_of_a_lease_frees_the_lock_and_wakes_the_next() {
    let (place, one, other) = (Place::new(), Script::new(), Script::new());
    let locks = place.locks();
    one.lock(&locks, "deploy", Exclusive).unwrap();
    scope(|scope| {
        let waiter = scope.spawn(|| other.lock(&place.locks(), "deploy", Exclusive).unwrap());
        place.await_queue("deploy", 1);
        let lease = place.below("hold/deploy/")[0].lease;
        shared().client().revoke(lease).unwrap(); // as the cluster does at its end
        waiter.join().unwrap();
    });
    assert_eq!(one.release(&locks, "deploy").unwrap_err().kind, Kind::NotOwner);
    // The owner gets another lease.
    other.release(&locks, "deploy").unwrap();
    one.try_lock(&locks, "deploy", Exclusive).unwrap();
}

#[test]
fn a_waiter_whose_lease_ended_queues_again() {
    let (place, one, other) = (Place::new(), Script::new(), Script::new());
    let locks = place.locks();
    one.lock(&locks, "deploy", Exclusive).unwrap();
    scope(|scope| {
        let waiter = scope.spawn(|| other.lock(&place.locks(), "deploy", Exclusive).unwrap());
        let lost = place.await_queue("deploy", 1).remove(0);
        shared().client().revoke(lost.lease).unwrap();
        place.await_keys("wait/deploy/", |kvs| kvs.len() == 1 && kvs[0].key != lost.key);
        one.release(&locks, "deploy").unwrap();
        waiter.join().unwrap();
    });
}

#[test]
fn what_died_on_this_host_waits_for_no_lease() {
    let (place, other) = (Place::new(), Script::new());
    let locks = place.locks();
    let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
    let mut dying = Script::new();
    let owner = Identity::of(child.id()).unwrap().unwrap();
    dying.requester.ancestry = vec![owner.clone()];
    dying.requester.owner = owner;
    dying.lock(&locks, "deploy", Exclusive).unwrap();
    let pid = child.id().to_string();
    assert_eq!(locks.check(&name("deploy")).unwrap(), Standing::Locked(Exclusive, vec![pid]));
    scope(|scope| {
        let waiter = scope.spawn(|| other.lock(&place.locks(), "deploy", Exclusive).unwrap());
        place.await_queue("deploy", 1);
        child.kill().unwrap();
        child.wait().unwrap();
        waiter.join().unwrap();
    });
    assert_eq!(locks.clean().unwrap(), 0);
}

#[test]
fn operators_see_everything_and_may_end_it() {
    let (place, one, other) = (Place::new(), Script::new(), Script::new());
    let locks = place.locks();
    assert_eq!(locks.check(&name("deploy")).unwrap(), Standing::Unlocked);
    assert_eq!(
        locks.break_lock(&name("deploy"), BreakTarget::All).unwrap_err().kind,
        Kind::NotFound
    );
    let held = token(&one.lock(&locks, "deploy", Exclusive).unwrap());
    assert!(
        locks.check(&name("deploy")).unwrap().to_string().starts_with("locked:exclusive:10 in ")
    );
    scope(|scope| {
        let waiter = scope.spawn(|| other.lock(&place.locks(), "deploy,x", Exclusive).unwrap_err());
        place.await_keys("wait/", |kvs| kvs.len() == 2);
        let list = locks.list().unwrap();
        let statuses: Vec<_> = list.iter().map(|entry| (&*entry.lock, entry.status)).collect();
        use EntryStatus::{Held, Waiting};
        assert_eq!(statuses, [("deploy", Held), ("deploy", Waiting), ("x", Waiting)]);
        assert_eq!((list[0].token, &*list[1].waiting_for), (Some(held.get()), &[10][..]));
        let summary = locks.summary().unwrap();
        assert_eq!((summary.held, summary.waiting, summary.file_system), (1, 2, "etcd"));
        let lifeline = Lifeline::of_waiter(list[1].waiter.as_ref().unwrap()).unwrap();
        let broken = locks.break_waiter(&lifeline).unwrap();
        assert_eq!(broken.names, names("deploy,x"));
        let error = waiter.join().unwrap();
        assert_eq!((code(&error), error.kind), (2, Kind::Broken));
        assert_eq!(locks.break_waiter(&lifeline).unwrap_err().kind, Kind::NotFound);
    });
    let broken = locks.break_lock(&name("deploy"), BreakTarget::Token(held)).unwrap();
    assert_eq!((broken.len(), broken[0].token), (1, held));
    assert!(place.below("hold/").is_empty() && place.below("wait/").is_empty());
}
