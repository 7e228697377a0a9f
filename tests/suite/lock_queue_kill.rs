//! Waiters killed before each of their calls, and the wrappers of `lock run`: all others are
//! served, in order, and no lock outlives its owner. `lock_kill` defines the calls that count.
//! Kills before those that change something or wait are all tried, and every third other one
//! (`PROOFS=all`: all).

use std::collections::VecDeque;
use std::fs;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use crate::effort::sampled;
use crate::kill::{assert_settled, content, copy_of, precious};
use crate::lock_kill::{calls_on_root, killing, leftovers, listing};
use crate::owners::{Entry, Owner, Waiting, listed, living, sleeps, tokens_in};
use crate::sandbox::until;
use crate::sandbox::{Ran, Sandbox, installed};
use crate::strace::{Call, in_parallel};

// ---- waiting ----

/// A holder, a waiter to be killed, and two waiters after it; then the locks are released.
struct Queue {
    names: &'static str,
    holder: Owner,
    killed: Owner,
    later: [Owner; 2],
}

/// The calls to be killed at.
fn tried(calls: Vec<Call>) -> Vec<Call> {
    let waits = |call: &Call| call.name.contains("poll") || call.name.starts_with("wait");
    let places = calls.into_iter().enumerate();
    let is_tried = |place: usize, call: &Call| {
        call.changes() || waits(call) || place.is_multiple_of(sampled(3, 1))
    };
    places.filter(|(place, call)| is_tried(*place, call)).map(|(_, call)| call).collect()
}

/// The rehearsal with the fewest calls: wake-ups vary with the other waiters, and a long wait
/// prints a notice. Rehearsals in which it was overtaken do not count.
fn shortest(mut rehearsed: impl FnMut() -> Option<Vec<Call>>) -> Vec<Call> {
    let rehearsals = std::iter::repeat_with(&mut rehearsed).flatten().take(8);
    rehearsals.min_by_key(Vec::len).unwrap()
}

impl Queue {
    /// Forms the queue.
    fn form(&self, root: &Sandbox, mut killed: std::process::Command) -> (Waiting, [Waiting; 2]) {
        let mut killed = Waiting::new(killed.spawn().unwrap());
        let settled = |killed: &mut Waiting| {
            killed.has_ended() || sleeps(root, self.names, self.killed.pid())
        };
        until("the killed one sleeps or is dead", || settled(&mut killed));
        let later = self.later.each_ref().map(|owner| {
            let waiting = Waiting::in_queue(root, self.names, owner);
            until("the killed one sleeps again or is dead", || settled(&mut killed));
            waiting
        });
        root.ok(&format!("lock release {} --owner-pid {}", self.names, self.holder.pid()));
        (killed, later)
    }

    fn killed_at_every_call(names: &'static str) {
        if !installed("strace") {
            return;
        }
        let began = Instant::now();
        let (start, trace) = (Sandbox::with_locks(), Sandbox::empty());
        let queue = Self {
            names,
            holder: Owner::new(),
            killed: Owner::new(),
            later: [Owner::new(), Owner::new()],
        };
        let held = start
            .run(&format!("lock acquire {names} 0 --json --owner-pid {}", queue.holder.pid()))
            .expect(0);
        let words = format!("lock acquire {names} 300 --json --owner-pid {}", queue.killed.pid());

        let rehearsed = || {
            let root = copy_of(&start);
            let (mut killed, [mut first, _]) =
                queue.form(&root, listing(&trace, &root, "-f", &words));
            until("a waiter is served", || killed.has_ended() || first.has_ended());
            (!first.has_ended())
                .then(|| killed.ended().expect(0))
                .map(|_| calls_on_root(&trace, &root))
        };
        let calls = tried(shortest(rehearsed));
        let survivors = AtomicUsize::new(0);
        in_parallel(&calls, |call| {
            let root = copy_of(&start);
            let place =
                format!("{words:?}, killed before {} #{}: {}", call.name, call.nth, call.line);
            let (killed, later) = queue.form(&root, killing(call, &root, "-f", &words));
            let mut highest = tokens_in(&held.stdout).into_iter().max().unwrap();
            let mut served = |owner: &Owner| {
                let holders = living(&root).into_iter().filter(Entry::holds);
                let (owners, tokens): (Vec<u64>, Vec<u64>) =
                    holders.map(|entry| (entry.pid, entry.token.unwrap())).unzip();
                assert_eq!(
                    owners,
                    vec![u64::from(owner.pid()); names.split(',').count()],
                    "{place}"
                );
                assert!(
                    tokens.iter().all(|token| *token > highest),
                    "{tokens:?} after {highest}: {place}"
                );
                highest = tokens.into_iter().max().unwrap();
                root.ok(&format!("lock release {names} --owner-pid {}", owner.pid()));
            };
            // strace stops it again and again, and a stopped waiter is passed over: it may be
            // served late
            let mut killed = Some(killed);
            let mut later: VecDeque<_> = later.into_iter().zip(&queue.later).collect();
            while killed.is_some() || !later.is_empty() {
                until("a waiter is served or dead", || {
                    killed.as_mut().is_some_and(Waiting::has_ended)
                        || later.front_mut().is_some_and(|(first, _)| first.has_ended())
                });
                let Some(dead) = killed.take_if(|killed| killed.has_ended()) else {
                    let (first, owner) = later.pop_front().unwrap();
                    first.ended().expect(0);
                    served(owner);
                    continue;
                };
                let ran = dead.ended();
                survivors.fetch_add(usize::from(ran.code == 0), Ordering::Relaxed);
                assert!([0, 128 + 9].contains(&ran.code), "{place}\n{}", ran.stderr);
                let pid = u64::from(queue.killed.pid());
                // its owner lives, so a grant before the kill is held, even if it is only in the
                // journal
                root.ok("lock clean");
                if living(&root).iter().any(|entry| entry.pid == pid && entry.holds()) {
                    let again =
                        root.run(&format!("lock acquire {names} 0 --json --owner-pid {pid}"));
                    again.expect_json_error("already_held");
                    served(&queue.killed);
                } else {
                    assert_eq!(ran.stdout, "", "acknowledged and lost: {place}");
                }
            }
            root.ok("lock clean");
            assert_eq!((listed(&root), leftovers(&root)), (vec![], vec![]), "{place}");
        });
        let survivors = survivors.into_inner();
        assert!(survivors * 10 <= calls.len(), "{survivors} of {} were not killed", calls.len());
        println!(
            "{words:?}: killed at {} calls, {survivors} of them not reached, {:.1} s",
            calls.len(),
            began.elapsed().as_secs_f64()
        );
    }
}

#[test]
fn killed_at_any_call_a_waiter_delays_no_later_waiter() {
    Queue::killed_at_every_call("turn");
}

#[test]
fn killed_at_any_call_a_waiter_leaves_all_its_queues() {
    Queue::killed_at_every_call("one,two");
}

// ---- lock run ----

#[test]
fn killed_at_any_call_a_wrappers_lock_ends_with_its_command() {
    if !installed("strace") {
        return;
    }
    let began = Instant::now();
    let (trace, root, stranger) = (Sandbox::empty(), Sandbox::with_locks(), Owner::new());
    let words = "lock run deploy -- cat";
    Ran::of(listing(&trace, &root, "-y", words).output().unwrap()).expect(0);
    let calls = tried(calls_on_root(&trace, &root));
    let place_of = |wanted: &dyn Fn(&Call) -> bool| calls.iter().position(wanted).unwrap();
    let word = place_of(&|call| call.name == "write" && call.line.contains("\"deploy:1"));
    let wait = place_of(&|call| ["wait4", "waitid"].contains(&&*call.name));
    assert!(word < wait);
    let cases: Vec<usize> = (0..calls.len()).collect();
    in_parallel(&cases, |index| {
        let (call, root) = (&calls[*index], copy_of(&Sandbox::with_locks()));
        let place = format!("{words:?}, killed before {} #{}: {}", call.name, call.nth, call.line);
        let mut command = killing(call, &root, "-y", words);
        let mut wrapper = command.stdin(Stdio::piped()).spawn().unwrap();
        let mut input = wrapper.stdin.take();
        let acquire = format!("lock acquire deploy 0 --owner-pid {}", stranger.pid());
        if *index > wait {
            drop(input.take());
        } else {
            wrapper.wait().unwrap(); // the command lives on: its input is open
        }
        if input.is_some() && *index > word {
            assert!(root.ok("lock check deploy").starts_with("locked:exclusive:"), "{place}");
            assert_eq!(root.run(&acquire).code, 2, "its work goes on: {place}");
            let waiting = Waiting::in_queue(&root, "deploy", &stranger);
            drop(input);
            waiting.ended().expect(0);
            root.ok(&format!("lock release deploy --owner-pid {}", stranger.pid()));
        } else {
            drop(input);
        }
        // its output ends when all possible holders have ended, except for their last steps
        let ran = Ran::of(wrapper.wait_with_output().unwrap());
        // its signal thread's sockets are closed by that thread or the main one, whichever is later
        let is_uncounted = call.name == "close" && *index > wait && ran.code == 0;
        assert!(is_uncounted || ran.code == 128 + 9, "it was not killed: {place}\n{ran:?}");
        until("the command is gone", || root.run(&acquire).code == 0);
        root.ok(&format!("lock release deploy --owner-pid {}", stranger.pid()));
        root.ok("lock clean");
        assert_eq!((listed(&root), leftovers(&root)), (vec![], vec![]), "{place}");
    });
    println!("{words:?}: killed at {} calls, {:.1} s", calls.len(), began.elapsed().as_secs_f64());
}

// ---- the state ----

#[test]
fn killed_at_any_call_a_queued_commit_frees_the_state() {
    if !installed("strace") {
        return;
    }
    let began = Instant::now();
    let (start, trace, words) =
        (Sandbox::with_history(), Sandbox::empty(), "state set n:=4 --lock-timeout 300");
    let (holder, next) = (Owner::new(), Owner::new());
    start.ok(&format!("lock acquire state 0 --owner-pid {}", holder.pid()));
    let precious = precious(&start, &[".workflow-state.json"]);
    let old = content(&fs::read(start.state()).unwrap());

    // it queues after the holder, the next one after it; then the holder releases
    let queued = |root: &Sandbox, mut commit: std::process::Command| {
        let mut commit = Waiting::new(commit.spawn().unwrap());
        let mut settled = || commit.has_ended() || waits_for_state(root);
        until("the commit sleeps or is dead", &mut settled);
        let waiting = Waiting::in_queue(root, "state", &next);
        until("the commit sleeps again or is dead", &mut settled);
        root.ok(&format!("lock release state --owner-pid {}", holder.pid()));
        (commit, waiting)
    };
    let calls = tried(shortest(|| {
        let root = copy_of(&start);
        let (mut commit, mut waiting) = queued(&root, listing(&trace, &root, "-f", words));
        until("a waiter is served", || commit.has_ended() || waiting.has_ended());
        (!waiting.has_ended())
            .then(|| commit.ended().expect(0))
            .map(|_| calls_on_root(&trace, &root))
    }));
    in_parallel(&calls, |call| {
        let root = copy_of(&start);
        let place = format!("{words:?}, killed before {} #{}: {}", call.name, call.nth, call.line);
        let (mut commit, waiting) = queued(&root, killing(call, &root, "-f", words));
        let mut waiting = Some(waiting);
        // strace stops it again and again, and a stopped waiter is passed over: then it waits for
        // the next one
        until("a waiter is served or dead", || {
            commit.has_ended() || waiting.as_mut().is_some_and(Waiting::has_ended)
        });
        let release = format!("lock release state --owner-pid {}", next.pid());
        let ran = if commit.has_ended() {
            let ran = commit.ended();
            waiting.take().unwrap().ended().expect(0);
            let check = root.ok("lock check state");
            assert_eq!(check, format!("locked:exclusive:{}", next.pid()), "{place}");
            assert_eq!(
                root.run("state set z:=0 --lock-timeout 0").code,
                2,
                "it is held by another: {place}"
            );
            let mut by_next = root.command();
            by_next
                .env("PIPELINE_OWNER_PID", next.pid().to_string())
                .args(["state", "set", "y:=1"]);
            Ran::of(by_next.output().unwrap()).expect(0);
            root.ok(&release);
            ran
        } else {
            waiting.take().unwrap().ended().expect(0);
            root.ok(&release);
            let ran = commit.ended();
            root.ok("state set y:=1");
            ran
        };
        assert!([0, 128 + 9].contains(&ran.code), "{place}\n{}", ran.stderr);
        let (found, revision) = content(root.run("state read").expect(0).stdout.as_bytes());
        let is_new = found["n"] == 4;
        assert!(is_new || found["n"] == old.0["n"], "neither old nor new: {place}");
        assert_eq!(revision, old.1 + 1 + u64::from(is_new), "{place}");
        assert!(is_new || ran.stdout.is_empty(), "an acknowledged change is lost: {place}");
        root.ok("lock clean");
        assert_eq!((listed(&root), leftovers(&root)), (vec![], vec![]), "{place}");
        assert_settled(&root, &precious, &place);
    });
    println!("{words:?}: killed at {} calls, {:.1} s", calls.len(), began.elapsed().as_secs_f64());
}

/// True if a commit sleeps in the queue.
fn waits_for_state(root: &Sandbox) -> bool {
    let commit = listed(root).into_iter().find(|entry| !entry.holds());
    commit.is_some_and(|commit| sleeps(root, "state", u32::try_from(commit.pid).unwrap()))
}
