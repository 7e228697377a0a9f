//! Every lock command killed before each of its changing calls on the root: no lock is lost, none
//! is stuck, and queues keep their order.
//!
//! A death before a call on anything else (`/proc`, `/etc`) equals a death before the next call on
//! the root, and so does one before a `read`: the number of reads varies with the digits in
//! `/proc`. One before a call that changes nothing equals one before the next that does; these are
//! tried with `PROOFS=all`. After each death different first commands run in copies of the root,
//! since the next one to pass the gate completes interrupted changes.

use std::fs;
use std::time::Instant;

use crate::effort::is_exhaustive;
use crate::kill::copy_of;
use crate::lock_state::leave_tokens;
use crate::owners::{Entry, Owner, Waiting, listed, living, tokens_in};
use crate::sandbox::{Ran, Sandbox, installed};
use crate::strace::{Call, calls_in, in_parallel, injection, strace};

const TRACED: &str = "trace=%file,%desc,wait4,waitid,exit_group";

/// The calls on the root, on standard output and on pipes, and the last call.
pub fn calls_on_root(trace: &Sandbox, root: &Sandbox) -> Vec<Call> {
    let trace = fs::read_to_string(trace.file("trace")).unwrap();
    let calls = calls_in(&trace, root.path().to_str().unwrap());
    let touches = |call: &Call| {
        let line = call.line.replace("AT_FDCWD<ROOT>", "");
        line.contains("ROOT")
            || line.contains("<pipe:")
            || ["exit_group", "wait4", "waitid"].contains(&&*call.name)
    };
    calls.into_iter().filter(|call| call.name != "read" && touches(call)).collect()
}

/// The program under strace, which lists its calls.
pub fn listing(
    trace: &Sandbox,
    root: &Sandbox,
    follow: &str,
    words: &str,
) -> std::process::Command {
    let file = trace.file("trace");
    strace(
        root,
        &[follow, "-y", "-o", file.to_str().unwrap(), "-e", TRACED],
        words.split_whitespace(),
    )
}

/// The program under strace, which kills it before this call.
pub fn killing(call: &Call, root: &Sandbox, follow: &str, words: &str) -> std::process::Command {
    let options = injection(&call.name, &format!("signal=SIGKILL:when={}", call.nth));
    let options: Vec<&str> =
        [follow].into_iter().chain(options.iter().map(String::as_str)).collect();
    strace(root, &options, words.split_whitespace())
}

/// A command to kill, on locks without real waiters.
struct Job<'a> {
    words: String,
    /// Its locks.
    names: &'static [&'static str],
    start: Sandbox,
    /// The owner of its locks, before or after it.
    owner: &'a Owner,
    /// The highest token granted before.
    highest: u64,
}

/// The root after a kill, as later commands see it.
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
        let ran = self
            .start
            .run(&format!("lock acquire {names} 0 --json --owner-pid {}", owner.pid()))
            .expect(0);
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
        let mut calls = calls_on_root(&trace, &root);
        calls.retain(|call| call.changes() || is_exhaustive());
        assert_ne!(root.snapshot(), self.start.snapshot(), "it changed nothing");
        let after = living(&root);

        let cases: Vec<usize> = (0..calls.len()).collect();
        in_parallel(&cases, |index| {
            let call = &calls[*index];
            let root = copy_of(&self.start);
            let ran = Ran::of(killing(call, &root, "-f", &self.words).output().unwrap());
            let place = format!(
                "{:?}, killed before {} #{}: {}",
                self.words, call.name, call.nth, call.line
            );
            assert_eq!(ran.code, 128 + 9, "it was not killed: {place}\n{}", ran.stderr);

            // `clean`, while holding the gate, sees the same as every other command
            let cleaned = copy_of(&root);
            cleaned.run("lock clean").expect(0);
            let entries = listed(&cleaned);
            let is_new = places(&entries) == places(&after);
            assert!(
                is_new || places(&entries) == places(&before),
                "neither before nor after: {place}\n{entries:?}"
            );
            assert!(
                is_new || ran.stdout.is_empty(),
                "what was acknowledged did not happen: {place}"
            );
            assert_eq!(leftovers(&cleaned), [""; 0], "{place}");
            let shown =
                entries.iter().filter_map(|entry| entry.token).chain(tokens_in(&ran.stdout));
            let highest = shown.fold(self.highest, u64::max);
            let aftermath = Aftermath { job: &self, stranger: &stranger, entries, highest, place };
            if *index == 0 || changes_the_root(&calls[index - 1]) {
                aftermath.check_agrees(&cleaned);
                aftermath.a_stranger_gets_every_free_lock(&copy_of(&root));
                aftermath.its_owner_is_refused_with_its_token(&copy_of(&root));
                aftermath.its_owner_can_give_it_back(&root);
            } else {
                // the root has not changed since the previous call: one of the first commands is
                // enough
                match index % 3 {
                    0 => aftermath.a_stranger_gets_every_free_lock(&root),
                    1 => aftermath.its_owner_is_refused_with_its_token(&root),
                    _ => aftermath.its_owner_can_give_it_back(&root),
                }
            }
        });
        println!(
            "{:?}: killed at {} calls, {:.1} s",
            self.words,
            calls.len(),
            began.elapsed().as_secs_f64()
        );
    }
}

fn changes_the_root(call: &Call) -> bool {
    ["write", "renameat", "unlinkat", "mkdirat", "linkat"].contains(&&*call.name)
        || call.line.contains("O_CREAT")
}

fn places(entries: &[Entry]) -> Vec<(&str, &str, &str, u64)> {
    entries.iter().map(Entry::place).collect()
}

/// Files in `.locks` other than records, permanent files, and queues and lifelines of waiters.
pub fn leftovers(root: &Sandbox) -> Vec<String> {
    let list = root.run("lock list json").expect(0).json();
    let waiters: Vec<String> = list
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|entry| Some(format!(".wait-{}", entry["waiter"].as_str()?)))
        .collect();
    let expected = [
        ".gate",
        ".tokens",
        ".reserved",
        ".reserving",
        ".spare-1",
        ".spare-2",
        ".spare-3",
        "state.lock",
    ];
    let is_known = |name: &String| {
        let is_queue = name == ".queue" && !waiters.is_empty();
        expected.contains(&&**name) || name.ends_with(".json") || waiters.contains(name) || is_queue
    };
    root.names(".locks").into_iter().filter(|name| !is_known(name)).collect()
}

/// The ID of an owner's waiter.
pub fn waiter_id(root: &Sandbox, owner: &Owner) -> String {
    let list = root.run("lock list json").expect(0).json();
    let mut entries =
        list.as_array().unwrap().iter().filter(|entry| entry["owner"]["pid"] == owner.pid());
    entries.find_map(|entry| entry["waiter"].as_str()).unwrap().to_owned()
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
        let ran =
            root.run(&format!("lock acquire {names} 0 {mode} --json --owner-pid {}", owner.pid()));
        for token in tokens_in(&ran.stdout) {
            assert!(
                token > self.highest,
                "token {token} is not above {}: {}",
                self.highest,
                self.place
            );
        }
        ran
    }

    fn check_agrees(&self, root: &Sandbox) {
        for name in self.job.names {
            let holders: Vec<&Entry> =
                self.entries.iter().filter(|entry| entry.lock == *name && entry.holds()).collect();
            let pids =
                holders.iter().map(|entry| entry.pid.to_string()).collect::<Vec<_>>().join(",");
            let (code, shown) = match holders.first() {
                Some(first) => (0, format!("locked:{}:{pids}", first.mode)),
                None => (1, "unlocked".to_owned()),
            };
            let ran = root.run(&format!("lock check {name}"));
            assert_eq!((ran.code, ran.stdout.trim()), (code, shown.as_str()), "{}", self.place);
        }
    }

    /// Every free lock is granted at once, and no other.
    fn a_stranger_gets_every_free_lock(&self, root: &Sandbox) {
        let (free, taken): (Vec<&str>, Vec<&str>) =
            self.job.names.iter().partition(|name| self.is_free(name));
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

    fn its_owner_is_refused_with_its_token(&self, root: &Sandbox) {
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
        let held: Vec<&str> =
            self.job.names.iter().copied().filter(|name| self.held(name).is_some()).collect();
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
        let free: Vec<&str> =
            held.into_iter().filter(|name| left.iter().all(|entry| entry.lock != *name)).collect();
        if !free.is_empty() {
            let ran = self.try_to_acquire(root, &free.join(","), "exclusive", self.stranger);
            assert_eq!(ran.code, 0, "not given back: {}\n{}", self.place, ran.stderr);
        }
    }
}

// ---- acquire ----

#[test]
fn killed_at_any_call_the_first_acquire_in_a_root_is_granted_or_not_made() {
    let owner = Owner::new();
    let words = format!("lock acquire deploy 0 --owner-pid {}", owner.pid());
    Job::new(&words, &["deploy"], Sandbox::named(), &owner).killed_at_every_call();
}

#[test]
fn killed_at_any_call_a_shared_acquire_leaves_the_others_their_share() {
    let (owner, other) = (Owner::new(), Owner::new());
    let words = format!("lock acquire cache 0 shared --owner-pid {}", owner.pid());
    Job::new(&words, &["cache"], Sandbox::with_locks(), &owner)
        .given("cache --shared", &other)
        .killed_at_every_call();
}

#[test]
fn killed_at_any_call_several_locks_are_taken_together_or_not_at_all() {
    let (owner, other) = (Owner::new(), Owner::new());
    let words = format!("lock acquire a,b,c 0 --owner-pid {}", owner.pid());
    let job =
        Job::new(&words, &["a", "b", "c"], Sandbox::with_locks(), &owner).given("b,z", &other);
    job.start.ok(&format!("lock release b --owner-pid {}", other.pid()));
    job.killed_at_every_call();
}

#[test]
fn killed_at_any_call_an_upgrade_leaves_the_lock_shared_or_exclusive() {
    let owner = Owner::new();
    let words = format!("lock acquire cache 0 exclusive --owner-pid {}", owner.pid());
    Job::new(&words, &["cache"], Sandbox::with_locks(), &owner)
        .given("cache --shared", &owner)
        .killed_at_every_call();
}

#[test]
fn killed_at_any_call_the_lock_of_the_state_is_granted_or_not_taken() {
    let owner = Owner::new();
    let words = format!("lock acquire state 0 --owner-pid {}", owner.pid());
    Job::new(&words, &["state"], Sandbox::initialized(), &owner).killed_at_every_call();
}

// ---- release, break, renew, clean ----

/// A root in which `a` and `b` are held, with two waiters asleep in the queue for `a`.
fn queued<'a>(words: &str, owner: &'a Owner, waiters: &[Owner; 2]) -> (Job<'a>, Vec<Waiting>) {
    let job = Job::new(words, &["a", "b"], Sandbox::with_locks(), owner).given("a,b", owner);
    let waiting = waiters.iter().map(|waiter| Waiting::in_queue(&job.start, "a", waiter)).collect();
    (job, waiting)
}

#[test]
fn killed_at_any_call_a_release_is_atomic_and_keeps_the_queue() {
    let (owner, waiters) = (Owner::new(), [Owner::new(), Owner::new()]);
    let (job, _waiting) =
        queued(&format!("lock release a --owner-pid {}", owner.pid()), &owner, &waiters);
    job.killed_at_every_call();
}

#[test]
fn killed_at_any_call_several_locks_are_given_back_together_or_not_at_all() {
    let (owner, waiters) = (Owner::new(), [Owner::new(), Owner::new()]);
    let (job, _waiting) =
        queued(&format!("lock release a,b --owner-pid {}", owner.pid()), &owner, &waiters);
    job.killed_at_every_call();
}

#[test]
fn killed_at_any_call_a_release_that_reserves_tokens_hands_out_none_twice() {
    let owner = Owner::new();
    let words = format!("lock release deploy --owner-pid {}", owner.pid());
    let start = Sandbox::with_locks();
    start.ok("lock run deploy -- true");
    // the last tokens of the block
    leave_tokens(&start.file(".locks/.tokens"), 3);
    let job = Job::new(&words, &["deploy"], start, &owner).given("deploy", &owner);
    assert!(job.highest > 1000);
    job.killed_at_every_call();
}

#[test]
fn killed_at_any_call_a_break_is_atomic_and_keeps_the_queue() {
    let (owner, waiters) = (Owner::new(), [Owner::new(), Owner::new()]);
    let (job, _waiting) = queued("lock break a --force", &owner, &waiters);
    job.killed_at_every_call();
}

#[test]
fn killed_at_any_call_a_break_of_a_wait_is_atomic() {
    let (owner, waiters) = (Owner::new(), [Owner::new(), Owner::new()]);
    let (mut job, _waiting) = queued("", &owner, &waiters);
    job.words = format!("lock break --waiter {} --json", waiter_id(&job.start, &waiters[0]));
    job.killed_at_every_call();
}

#[test]
fn killed_at_any_call_a_renewal_keeps_the_lock() {
    let owner = Owner::new();
    let words = format!("lock renew deploy --ttl 2h --owner-pid {}", owner.pid());
    Job::new(&words, &["deploy"], Sandbox::with_locks(), &owner)
        .given("deploy --ttl 1h", &owner)
        .killed_at_every_call();
}

#[test]
fn killed_at_any_call_a_cleaning_takes_nothing_from_the_living() {
    let (owner, dead, waiter) = (Owner::new(), Owner::new(), Owner::new());
    let job = Job::new("lock clean", &["a", "b", "c", "d"], Sandbox::with_locks(), &owner);
    let job = job.given("a,d", &dead).given("b,c", &owner);
    drop([Waiting::in_queue(&job.start, "b", &waiter)]);
    let living = Waiting::in_queue(&job.start, "b", &waiter);
    drop(dead);
    for leftover in [".live-1-1", ".wait-0123456789abcdef", ".pipeline-state-1-lock.tmp"] {
        fs::write(job.start.file(".locks").join(leftover), "").unwrap();
    }
    job.killed_at_every_call();
    drop(living);
}
