//! Every lock command killed before each of its calls on the root: no lock is lost, none stuck, and queues stay in order.
//!
//! A death before a call on anything else (`/proc`, `/etc`) is a death before the next call on the root, and so is one
//! before a `read`, of which there are more or fewer as the numbers in `/proc` have digits. After each death copies of the
//! root are met by different first commands, since whoever passes the gate next completes what was begun.

use std::collections::VecDeque;
use std::fs;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use serde_json::Value;

use crate::kill::{assert_settled, content, copy_of, precious};
use crate::owners::{Entry, Owner, Waiting, listed, sleeps, tokens_in, until};
use crate::sandbox::{Ran, Sandbox, installed};
use crate::strace::{Call, calls_in, in_parallel, injection, strace};

const TRACED: &str = "trace=%file,%desc,wait4,waitid,exit_group";

/// The calls on the root, on standard output and on pipes, and the last.
fn calls_on_root(trace: &Sandbox, root: &Sandbox) -> Vec<Call> {
    let trace = fs::read_to_string(trace.file("trace")).unwrap();
    let calls = calls_in(&trace, root.path().to_str().unwrap());
    let touches = |call: &Call| {
        let line = call.line.replace("AT_FDCWD<ROOT>", "");
        line.contains("ROOT") || line.contains("<pipe:") || ["exit_group", "wait4", "waitid"].contains(&&*call.name)
    };
    calls.into_iter().filter(|call| call.name != "read" && touches(call)).collect()
}

/// The program under strace, which lists its calls.
fn listing(trace: &Sandbox, root: &Sandbox, follow: &str, words: &str) -> std::process::Command {
    let file = trace.file("trace");
    strace(root, &[follow, "-y", "-o", file.to_str().unwrap(), "-e", TRACED], words.split_whitespace())
}

/// The program under strace, which kills it before this call.
fn killing(call: &Call, root: &Sandbox, follow: &str, words: &str) -> std::process::Command {
    let options = injection(&call.name, &format!("signal=SIGKILL:when={}", call.nth));
    let options: Vec<&str> = [follow].into_iter().chain(options.iter().map(String::as_str)).collect();
    strace(root, &options, words.split_whitespace())
}

/// A command that is killed, of locks that nobody waits for in earnest.
struct Job<'a> {
    words: String,
    /// The locks it is about.
    names: &'static [&'static str],
    start: Sandbox,
    /// Whose locks they are before or after it.
    owner: &'a Owner,
    /// The highest token that was handed out before.
    highest: u64,
}

/// What a root looks like to all that may come next.
struct Aftermath<'a> {
    job: &'a Job<'a>,
    stranger: &'a Owner,
    entries: Vec<Entry>,
    highest: u64,
    place: String,
}

impl<'a> Job<'a> {
    fn new(words: &str, names: &'static [&'static str], start: Sandbox, owner: &'a Owner) -> Self {
        Self { words: format!("{words} --json"), names, start, owner, highest: 0 }
    }

    /// Lets an owner take locks beforehand.
    fn given(mut self, names: &str, owner: &Owner) -> Self {
        let ran = self.start.run(&format!("lock acquire {names} 0 --json --owner-pid {}", owner.pid())).expect(0);
        self.highest = tokens_in(&ran.stdout).into_iter().fold(self.highest, u64::max);
        self
    }

    fn killed_at_every_call(self) {
        if !installed("strace") {
            return;
        }
        let (began, trace, stranger) = (Instant::now(), Sandbox::empty(), Owner::new());
        let root = copy_of(&self.start);
        let before = living(&root);
        Ran::of(listing(&trace, &root, "-f", &self.words).output().unwrap()).expect(0);
        let calls = calls_on_root(&trace, &root);
        assert_ne!(root.snapshot(), self.start.snapshot(), "it changed nothing");
        let after = living(&root);

        let cases: Vec<usize> = (0..calls.len()).collect();
        in_parallel(&cases, |index| {
            let call = &calls[*index];
            let root = copy_of(&self.start);
            let ran = Ran::of(killing(call, &root, "-f", &self.words).output().unwrap());
            let place = format!("{:?}, killed before {} #{}: {}", self.words, call.name, call.nth, call.line);
            assert_eq!(ran.code, 128 + 9, "it was not killed: {place}\n{}", ran.stderr);

            // What `clean` finds behind the gate is what everybody would find there.
            let cleaned = copy_of(&root);
            cleaned.run("lock clean").expect(0);
            let entries = listed(&cleaned);
            let is_new = places(&entries) == places(&after);
            assert!(is_new || places(&entries) == places(&before), "neither before nor after: {place}\n{entries:?}");
            assert!(is_new || ran.stdout.is_empty(), "what was acknowledged did not happen: {place}");
            assert_eq!(leftovers(&cleaned), [""; 0], "{place}");
            let shown = entries.iter().filter_map(|entry| entry.token).chain(tokens_in(&ran.stdout));
            let highest = shown.fold(self.highest, u64::max);
            let aftermath = Aftermath { job: &self, stranger: &stranger, entries, highest, place };
            if *index == 0 || changes_the_root(&calls[index - 1]) {
                aftermath.is_told_by_check(&cleaned);
                aftermath.a_stranger_gets_what_is_free(&copy_of(&root));
                aftermath.its_owner_is_told_what_it_holds(&copy_of(&root));
                aftermath.its_owner_can_give_it_back(&root);
            } else {
                // The root is as it was before the call before: one of the first commands will do.
                match index % 3 {
                    0 => aftermath.a_stranger_gets_what_is_free(&root),
                    1 => aftermath.its_owner_is_told_what_it_holds(&root),
                    _ => aftermath.its_owner_can_give_it_back(&root),
                }
            }
        });
        println!("{:?}: killed at {} calls, {:.1} s", self.words, calls.len(), began.elapsed().as_secs_f64());
    }
}

fn changes_the_root(call: &Call) -> bool {
    ["write", "renameat", "unlinkat", "mkdirat", "linkat"].contains(&&*call.name) || call.line.contains("O_CREAT")
}

fn places(entries: &[Entry]) -> Vec<(&str, &str, &str, u64)> {
    entries.iter().map(Entry::place).collect()
}

/// What lies in `.locks` and is neither a record nor there for good.
fn leftovers(root: &Sandbox) -> Vec<String> {
    let expected = [".gate", ".tokens", ".reserved", ".reserving", "state.lock"];
    root.names(".locks").into_iter().filter(|name| !expected.contains(&&**name) && !name.ends_with(".json")).collect()
}

/// What is on record without the dead.
fn living(root: &Sandbox) -> Vec<Entry> {
    listed(root).into_iter().filter(|entry| entry.status != "stale").collect()
}

impl Aftermath<'_> {
    fn is_free(&self, name: &str) -> bool {
        self.entries.iter().all(|entry| entry.lock != name)
    }

    fn held(&self, name: &str) -> Option<&Entry> {
        let owner = u64::from(self.job.owner.pid());
        self.entries.iter().find(|entry| entry.lock == name && entry.pid == owner && entry.holds())
    }

    fn try_to_acquire(&self, root: &Sandbox, names: &str, mode: &str, owner: &Owner) -> Ran {
        let ran = root.run(&format!("lock acquire {names} 0 {mode} --json --owner-pid {}", owner.pid()));
        for token in tokens_in(&ran.stdout) {
            assert!(token > self.highest, "token {token} is not above {}: {}", self.highest, self.place);
        }
        ran
    }

    fn is_told_by_check(&self, root: &Sandbox) {
        for name in self.job.names {
            let holders: Vec<&Entry> =
                self.entries.iter().filter(|entry| entry.lock == *name && entry.holds()).collect();
            let pids = holders.iter().map(|entry| entry.pid.to_string()).collect::<Vec<_>>().join(",");
            let (code, told) = match holders.first() {
                Some(first) => (0, format!("locked:{}:{pids}", first.mode)),
                None => (1, "unlocked".to_owned()),
            };
            let ran = root.run(&format!("lock check {name}"));
            assert_eq!((ran.code, ran.stdout.trim()), (code, told.as_str()), "{}", self.place);
        }
    }

    /// All that is free at once, and nothing else.
    fn a_stranger_gets_what_is_free(&self, root: &Sandbox) {
        let (free, taken): (Vec<&str>, Vec<&str>) = self.job.names.iter().partition(|name| self.is_free(name));
        if !free.is_empty() {
            let ran = self.try_to_acquire(root, &free.join(","), "exclusive", self.stranger);
            assert_eq!(ran.code, 0, "stuck: {}\n{}", self.place, ran.stderr);
            for name in &free {
                let ran = self.try_to_acquire(root, name, "exclusive", self.job.owner);
                assert_eq!(ran.code, 2, "given twice: {}\n{}", self.place, ran.stderr);
            }
        }
        for name in taken {
            let ran = self.try_to_acquire(root, name, "exclusive", self.stranger);
            assert_eq!(ran.code, 2, "lost: {}\n{}", self.place, ran.stderr);
        }
    }

    fn its_owner_is_told_what_it_holds(&self, root: &Sandbox) {
        for name in self.job.names {
            let Some(held) = self.held(name) else {
                let ran = self.try_to_acquire(root, name, "exclusive", self.job.owner);
                let code = if self.is_free(name) { 0 } else { 2 };
                assert_eq!(ran.code, code, "{name}: {}\n{}", self.place, ran.stderr);
                continue;
            };
            let ran = self.try_to_acquire(root, name, &held.mode, self.job.owner);
            assert_eq!(ran.code, 1, "{}\n{}", self.place, ran.stderr);
            let error = ran.expect_json_error("already_held");
            assert_eq!(error["details"]["token"].as_u64(), held.token, "{}", self.place);
        }
    }

    fn its_owner_can_give_it_back(&self, root: &Sandbox) {
        let held: Vec<&str> = self.job.names.iter().copied().filter(|name| self.held(name).is_some()).collect();
        let names = if held.is_empty() { self.job.names.join(",") } else { held.join(",") };
        let ran = root.run(&format!("lock release {names} --owner-pid {}", self.job.owner.pid()));
        assert_eq!(ran.code, i32::from(held.is_empty()), "{}\n{}", self.place, ran.stderr);
        let left: Vec<Entry> = self
            .entries
            .iter()
            .filter(|entry| !held.contains(&&*entry.lock) || self.held(&entry.lock) != Some(entry))
            .cloned()
            .collect();
        assert_eq!(living(root), left, "others are not as they were: {}", self.place);
        let free: Vec<&str> = held.into_iter().filter(|name| left.iter().all(|entry| entry.lock != *name)).collect();
        if !free.is_empty() {
            let ran = self.try_to_acquire(root, &free.join(","), "exclusive", self.stranger);
            assert_eq!(ran.code, 0, "not given back: {}\n{}", self.place, ran.stderr);
        }
    }
}

// ---- taking ----

#[test]
fn killed_at_any_call_the_first_acquire_in_a_root_is_granted_or_not_made() {
    let owner = Owner::new();
    let words = format!("lock acquire deploy 0 --owner-pid {}", owner.pid());
    Job::new(&words, &["deploy"], Sandbox::empty(), &owner).killed_at_every_call();
}

#[test]
fn killed_at_any_call_a_shared_acquire_leaves_the_others_their_share() {
    let (owner, other) = (Owner::new(), Owner::new());
    let words = format!("lock acquire cache 0 shared --owner-pid {}", owner.pid());
    Job::new(&words, &["cache"], Sandbox::empty(), &owner).given("cache --shared", &other).killed_at_every_call();
}

#[test]
fn killed_at_any_call_several_locks_are_taken_together_or_not_at_all() {
    let (owner, other) = (Owner::new(), Owner::new());
    let words = format!("lock acquire a,b,c 0 --owner-pid {}", owner.pid());
    let job = Job::new(&words, &["a", "b", "c"], Sandbox::empty(), &owner).given("b,z", &other);
    job.start.ok(&format!("lock release b --owner-pid {}", other.pid()));
    job.killed_at_every_call();
}

#[test]
fn killed_at_any_call_an_upgrade_leaves_the_lock_shared_or_exclusive() {
    let owner = Owner::new();
    let words = format!("lock acquire cache 0 exclusive --owner-pid {}", owner.pid());
    Job::new(&words, &["cache"], Sandbox::empty(), &owner).given("cache --shared", &owner).killed_at_every_call();
}

#[test]
fn killed_at_any_call_the_lock_of_the_state_is_granted_or_not_taken() {
    let owner = Owner::new();
    let words = format!("lock acquire state 0 --owner-pid {}", owner.pid());
    Job::new(&words, &["state"], Sandbox::initialized(), &owner).killed_at_every_call();
}

// ---- giving back, taking away, prolonging, cleaning ----

/// A root where somebody holds `a` and `b`, and two sleep in the queue for `a`.
fn queued<'a>(words: &str, owner: &'a Owner, waiters: &[Owner; 2]) -> (Job<'a>, Vec<Waiting>) {
    let job = Job::new(words, &["a", "b"], Sandbox::empty(), owner).given("a,b", owner);
    let waiting = waiters.iter().map(|waiter| Waiting::in_queue(&job.start, "a", waiter)).collect();
    (job, waiting)
}

#[test]
fn killed_at_any_call_a_release_frees_the_lock_or_leaves_it_and_the_queue_is_intact() {
    let (owner, waiters) = (Owner::new(), [Owner::new(), Owner::new()]);
    let (job, _waiting) = queued(&format!("lock release a --owner-pid {}", owner.pid()), &owner, &waiters);
    job.killed_at_every_call();
}

#[test]
fn killed_at_any_call_several_locks_are_given_back_together_or_not_at_all() {
    let (owner, waiters) = (Owner::new(), [Owner::new(), Owner::new()]);
    let (job, _waiting) = queued(&format!("lock release a,b --owner-pid {}", owner.pid()), &owner, &waiters);
    job.killed_at_every_call();
}

#[test]
fn killed_at_any_call_a_release_that_reserves_tokens_hands_out_none_twice() {
    let owner = Owner::new();
    let words = format!("lock release deploy --owner-pid {}", owner.pid());
    let job = Job::new(&words, &["deploy"], Sandbox::empty(), &owner).given("deploy", &owner);
    // The last tokens of the block.
    let counter = job.start.file(".locks/.tokens");
    let mut tokens: Value = serde_json::from_slice(&fs::read(&counter).unwrap()).unwrap();
    tokens["next"] = (tokens["end"].as_u64().unwrap() - 3).into();
    fs::write(counter, tokens.to_string()).unwrap();
    job.killed_at_every_call();
}

#[test]
fn killed_at_any_call_a_break_takes_the_lock_away_or_leaves_it_and_the_queue_is_intact() {
    let (owner, waiters) = (Owner::new(), [Owner::new(), Owner::new()]);
    let (job, _waiting) = queued("lock break a --force", &owner, &waiters);
    job.killed_at_every_call();
}

#[test]
fn killed_at_any_call_a_renewal_costs_nobody_the_lock() {
    let owner = Owner::new();
    let words = format!("lock renew deploy --ttl 2h --owner-pid {}", owner.pid());
    Job::new(&words, &["deploy"], Sandbox::empty(), &owner).given("deploy --ttl 1h", &owner).killed_at_every_call();
}

#[test]
fn killed_at_any_call_a_cleaning_takes_nothing_from_the_living() {
    let (owner, dead, waiter) = (Owner::new(), Owner::new(), Owner::new());
    let job = Job::new("lock clean", &["a", "b", "c", "d"], Sandbox::empty(), &owner);
    let job = job.given("a,d", &dead).given("b,c", &owner);
    drop([Waiting::in_queue(&job.start, "b", &waiter)]);
    let living = Waiting::in_queue(&job.start, "b", &waiter);
    drop(dead);
    for leftover in [".live-1-1", ".pipeline-state-1-lock.tmp"] {
        fs::write(job.start.file(".locks").join(leftover), "").unwrap();
    }
    job.killed_at_every_call();
    drop(living);
}

// ---- waiting ----

/// Somebody holds locks, one queues for them and is to be killed, and two more queue behind it; then the locks are
/// given back.
struct Queue {
    names: &'static str,
    holder: Owner,
    killed: Owner,
    behind: [Owner; 2],
}

impl Queue {
    /// Brings it about.
    fn form(&self, root: &Sandbox, mut killed: std::process::Command) -> (Waiting, [Waiting; 2]) {
        let mut killed = Waiting::new(killed.spawn().unwrap());
        let settled = |killed: &mut Waiting| killed.has_ended() || sleeps(root, self.names, self.killed.pid());
        until("the killed one sleeps or is dead", || settled(&mut killed));
        let behind = self.behind.each_ref().map(|owner| {
            let waiting = Waiting::in_queue(root, self.names, owner);
            until("the killed one sleeps again or is dead", || settled(&mut killed));
            waiting
        });
        root.ok(&format!("lock release {} --owner-pid {}", self.names, self.holder.pid()));
        (killed, behind)
    }

    fn killed_at_every_call(names: &'static str) {
        if !installed("strace") {
            return;
        }
        let began = Instant::now();
        let (start, trace) = (Sandbox::empty(), Sandbox::empty());
        let queue = Self { names, holder: Owner::new(), killed: Owner::new(), behind: [Owner::new(), Owner::new()] };
        let held = start.run(&format!("lock acquire {names} 0 --json --owner-pid {}", queue.holder.pid())).expect(0);
        let words = format!("lock acquire {names} 300 --json --owner-pid {}", queue.killed.pid());

        // Who waits for long says so, with calls that it does not make otherwise.
        let calls = loop {
            let root = copy_of(&start);
            let (mut killed, [mut first, _]) = queue.form(&root, listing(&trace, &root, "-f", &words));
            until("somebody is served", || killed.has_ended() || first.has_ended());
            if !first.has_ended() && killed.ended().expect(0).stderr.is_empty() {
                break calls_on_root(&trace, &root);
            }
        };
        let survivors = AtomicUsize::new(0);
        in_parallel(&calls, |call| {
            let root = copy_of(&start);
            let place = format!("{words:?}, killed before {} #{}: {}", call.name, call.nth, call.line);
            let (killed, behind) = queue.form(&root, killing(call, &root, "-f", &words));
            let mut highest = tokens_in(&held.stdout).into_iter().max().unwrap();
            let mut served = |owner: &Owner| {
                let holders = living(&root).into_iter().filter(Entry::holds);
                let (owners, tokens): (Vec<u64>, Vec<u64>) =
                    holders.map(|entry| (entry.pid, entry.token.unwrap())).unzip();
                assert_eq!(owners, vec![u64::from(owner.pid()); names.split(',').count()], "{place}");
                assert!(tokens.iter().all(|token| *token > highest), "{tokens:?} after {highest}: {place}");
                highest = tokens.into_iter().max().unwrap();
                root.ok(&format!("lock release {names} --owner-pid {}", owner.pid()));
            };
            // Strace stops it again and again, and who is stopped is passed over: it may be served late.
            let mut killed = Some(killed);
            let mut behind: VecDeque<_> = behind.into_iter().zip(&queue.behind).collect();
            while killed.is_some() || !behind.is_empty() {
                until("somebody is served or dead", || {
                    killed.as_mut().is_some_and(Waiting::has_ended)
                        || behind.front_mut().is_some_and(|(first, _)| first.has_ended())
                });
                let Some(dead) = killed.take_if(|killed| killed.has_ended()) else {
                    let (first, owner) = behind.pop_front().unwrap();
                    first.ended().expect(0);
                    served(owner);
                    continue;
                };
                let ran = dead.ended();
                survivors.fetch_add(usize::from(ran.code == 0), Ordering::Relaxed);
                assert!([0, 128 + 9].contains(&ran.code), "{place}\n{}", ran.stderr);
                let pid = u64::from(queue.killed.pid());
                // Its owner lives, so what it was granted before it died is held, even if it is only in the journal.
                root.ok("lock clean");
                if living(&root).iter().any(|entry| entry.pid == pid && entry.holds()) {
                    let again = root.run(&format!("lock acquire {names} 0 --json --owner-pid {pid}"));
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
        println!("{words:?}: killed at {} calls, {:.1} s", calls.len(), began.elapsed().as_secs_f64());
    }
}

#[test]
fn killed_at_any_call_a_waiter_keeps_nobody_behind_it_waiting() {
    Queue::killed_at_every_call("turn");
}

#[test]
fn killed_at_any_call_a_waiter_for_several_locks_leaves_no_place_in_any_queue() {
    Queue::killed_at_every_call("one,two");
}

// ---- lock run ----

#[test]
fn killed_at_any_call_the_wrapper_of_a_command_leaves_its_lock_no_longer_than_the_command_lives() {
    if !installed("strace") {
        return;
    }
    let (trace, root, stranger) = (Sandbox::empty(), Sandbox::empty(), Owner::new());
    let words = "lock run deploy -- cat";
    Ran::of(listing(&trace, &root, "-y", words).output().unwrap()).expect(0);
    let calls = calls_on_root(&trace, &root);
    let place_of = |wanted: &dyn Fn(&Call) -> bool| calls.iter().position(wanted).unwrap();
    let word = place_of(&|call| call.name == "write" && call.line.contains("\"deploy:1"));
    let wait = place_of(&|call| ["wait4", "waitid"].contains(&&*call.name));
    assert!(word < wait);
    let cases: Vec<usize> = (0..calls.len()).collect();
    in_parallel(&cases, |index| {
        let (call, root) = (&calls[*index], copy_of(&Sandbox::empty()));
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
        // Its output ends when all have ended that may hold the lock, but for the last steps of their way out.
        let ran = Ran::of(wrapper.wait_with_output().unwrap());
        assert_eq!(ran.code, 128 + 9, "it was not killed: {place}\n{}", ran.stderr);
        until("the command is gone", || root.run(&acquire).code == 0);
        root.ok(&format!("lock release deploy --owner-pid {}", stranger.pid()));
        root.ok("lock clean");
        assert_eq!((listed(&root), leftovers(&root)), (vec![], vec![]), "{place}");
    });
}

// ---- the state ----

#[test]
fn killed_at_any_call_a_commit_whose_turn_came_lets_the_next_in_the_queue_have_the_state() {
    if !installed("strace") {
        return;
    }
    let (start, trace, words) = (Sandbox::with_history(), Sandbox::empty(), "state set n:=4 --lock-timeout 300");
    let (holder, next) = (Owner::new(), Owner::new());
    start.ok(&format!("lock acquire state 0 --owner-pid {}", holder.pid()));
    let precious = precious(&start, &[".workflow-state.json"]);
    let old = content(&fs::read(start.state()).unwrap());

    // It queues behind the holder, the next behind it; then the holder goes.
    let queued = |root: &Sandbox, mut commit: std::process::Command| {
        let mut commit = Waiting::new(commit.spawn().unwrap());
        let mut settled = || commit.has_ended() || waits_for_state(root);
        until("the commit sleeps or is dead", &mut settled);
        let waiting = Waiting::in_queue(root, "state", &next);
        until("the commit sleeps again or is dead", &mut settled);
        root.ok(&format!("lock release state --owner-pid {}", holder.pid()));
        (commit, waiting)
    };
    let calls = loop {
        let root = copy_of(&start);
        let (mut commit, mut waiting) = queued(&root, listing(&trace, &root, "-f", words));
        until("somebody is served", || commit.has_ended() || waiting.has_ended());
        if !waiting.has_ended() && commit.ended().expect(0).stderr.is_empty() {
            break calls_on_root(&trace, &root);
        }
    };
    in_parallel(&calls, |call| {
        let root = copy_of(&start);
        let place = format!("{words:?}, killed before {} #{}: {}", call.name, call.nth, call.line);
        let (mut commit, waiting) = queued(&root, killing(call, &root, "-f", words));
        let mut waiting = Some(waiting);
        // Strace stops it again and again, and who is stopped is passed over: then it waits for the next.
        until("somebody is served or dead", || commit.has_ended() || waiting.as_mut().is_some_and(Waiting::has_ended));
        let release = format!("lock release state --owner-pid {}", next.pid());
        let ran = if commit.has_ended() {
            let ran = commit.ended();
            waiting.take().unwrap().ended().expect(0);
            let check = root.ok("lock check state");
            assert_eq!(check, format!("locked:exclusive:{}", next.pid()), "{place}");
            assert_eq!(root.run("state set z:=0 --lock-timeout 0").code, 2, "it is held by another: {place}");
            let mut by_next = root.command();
            by_next.env("PIPELINE_OWNER_PID", next.pid().to_string()).args(["state", "set", "y:=1"]);
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
}

/// Whether a commit sleeps in the queue.
fn waits_for_state(root: &Sandbox) -> bool {
    let commit = listed(root).into_iter().find(|entry| !entry.holds());
    commit.is_some_and(|commit| sleeps(root, "state", u32::try_from(commit.pid).unwrap()))
}
