//! The real program under strace(1): killed before each of its changing calls, and with each of its
//! calls failing.
//!
//! Every command runs once undisturbed to list its calls, from the first that names the root to the
//! last; then once for each of them in a fresh copy of the same root. A death before a call that
//! changes nothing equals a death before the next one that does, so these are only tried with
//! `PROOFS=all`. Then the library, which is what the next command runs, reads and writes.

mod conditions;

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::time::Instant;

use pipeline_state::fs::Disk;
use pipeline_state::store::options::WriteOptions;
use serde_json::{Value, json};

use self::conditions::is_mirrored;
pub use self::conditions::{assert_settled, content, copy_of, precious};
use crate::effort::is_exhaustive;
use crate::faults::{set, store};
use crate::sandbox::{Ran, Sandbox, installed};
use crate::strace::{Call, calls_in, in_parallel, injection, strace};

// ---- strace ----

/// The calls that fail.
const FAILING: [&str; 11] = [
    "open",
    "openat",
    "write",
    "fsync",
    "linkat",
    "rename",
    "renameat",
    "renameat2",
    "unlinkat",
    "mkdirat",
    "flock",
];
/// Errors, their exit code, and `+` if the call fails from then on.
type Error = (&'static str, i32, &'static str);

/// The errors of one kind take turns from call to call, unless an exhaustive run tries all at each.
const KINDS: [&[Error]; 3] = [
    &[("EIO", 1, "")],
    &[("ENOSPC", 7, "+"), ("ENOSPC", 7, "")],
    &[("EROFS", 6, ""), ("EACCES", 6, ""), ("EMFILE", 10, ""), ("EINTR", 0, "")],
];

fn errors_at(place: usize) -> impl Iterator<Item = Error> {
    KINDS.iter().flat_map(move |errors| {
        let turn = place % errors.len();
        let tried = if is_exhaustive() { errors } else { &errors[turn..=turn] };
        tried.iter().copied()
    })
}

struct Job {
    words: &'static [&'static str],
    input: &'static [u8],
    start: Sandbox,
    /// The exit code that refuses the state before the command, and its remedy; none if it can be
    /// read.
    refused: Option<(i32, &'static str)>,
    /// The effect of the command: a place in the document and its value.
    proof: (&'static str, Value),
    /// The revision before and after.
    revisions: (u64, u64),
    /// Files besides the backups that must survive.
    precious: &'static [&'static str],
    /// Further conditions after a kill; printed output acknowledges the change.
    also: fn(&Sandbox, &Ran),
}

impl Job {
    fn new(words: &'static [&'static str], start: Sandbox, proof: (&'static str, Value)) -> Self {
        Self {
            words,
            input: b"",
            start,
            refused: None,
            proof,
            revisions: (4, 5),
            precious: &[".workflow-state.json"],
            also: |_, _| {},
        }
    }

    fn strace(&self, root: &Sandbox, options: &[&str]) -> Ran {
        let stdin = root.file("stdin");
        fs::write(&stdin, self.input).unwrap();
        let options: Vec<&str> = ["-f"].iter().chain(options).copied().collect();
        let mut command = strace(root, &options, self.words.iter().copied());
        Ran::of(command.stdin(File::open(&stdin).unwrap()).output().unwrap())
    }

    fn inject(&self, root: &Sandbox, call: &str, fault: &str) -> Ran {
        self.strace(root, &injection(call, fault).each_ref().map(String::as_str))
    }

    /// The calls of an undisturbed run, and the documents before and after it.
    fn rehearse(&self) -> (Vec<Call>, Option<Value>, Value) {
        let read = copy_of(&self.start).run("state read");
        assert_eq!(read.code, self.refused.map_or(0, |(code, _)| code));
        let old = (read.code == 0).then(|| content(read.stdout.as_bytes()));
        assert_eq!(old.as_ref().map_or(self.revisions.0, |old| old.1), self.revisions.0);

        let root = copy_of(&self.start);
        let trace = root.file("trace");
        let listed = ["-y", "-o", trace.to_str().unwrap(), "-e", "trace=%file,%desc,exit_group"];
        self.strace(&root, &listed).expect(0);
        let calls = calls_in(&fs::read_to_string(&trace).unwrap(), root.path().to_str().unwrap());
        let new = content(root.ok("state read").as_bytes());
        assert_eq!(new.1, self.revisions.1);
        assert_eq!(new.0.pointer(self.proof.0), Some(&self.proof.1));
        (calls, old.map(|old| old.0), new.0)
    }

    /// Kills the command before each of its calls.
    fn killed_at_every_call(self) {
        if !installed("strace") {
            return;
        }
        let began = Instant::now();
        let (mut calls, old, new) = self.rehearse();
        calls.retain(|call| call.changes() || is_exhaustive());
        let precious = precious(&self.start, self.precious);
        in_parallel(&calls, |call| {
            let root = copy_of(&self.start);
            let Call { name, nth, line } = call;
            let ran = self.inject(&root, name, &format!("signal=SIGKILL:when={nth}"));
            let place = format!("{:?}, killed before {name} #{nth}: {line}", self.words);
            assert_eq!(ran.code, 128 + 9, "it was not killed: {place}\n{}", ran.stderr);
            // the last call is exit_group: a death there comes after the confirmation
            let acknowledged = !ran.stdout.is_empty();
            assert!(
                !acknowledged || is_mirrored(&root, &ran),
                "no warning about the mirror: {place}"
            );
            (self.also)(&root, &ran);
            let is_new = self.old_or_new(&root, old.as_ref(), &new, &place);
            assert!(
                is_new || !acknowledged,
                "an acknowledged change is lost: {place}\n{}",
                ran.stdout
            );
            self.next_writer(&root, &precious, &place);
        });
        println!(
            "{:?}: killed at {} calls, {:.1} s",
            self.words,
            calls.len(),
            began.elapsed().as_secs_f64()
        );
    }

    /// Lets each call that can fail fail once, or from then on, with each error.
    fn failing_at_every_call(self) {
        if !installed("strace") {
            return;
        }
        let began = Instant::now();
        let (calls, old, new) = self.rehearse();
        let precious = precious(&self.start, self.precious);
        let failing = calls.iter().filter(|call| FAILING.contains(&call.name.as_str()));
        let cases: Vec<_> = failing
            .enumerate()
            .flat_map(|(place, call)| errors_at(place).map(move |error| (call, error)))
            .collect();
        in_parallel(&cases, |(call, (error, code, times))| {
            let root = copy_of(&self.start);
            let Call { name, nth, line } = call;
            let ran = self.inject(&root, name, &format!("error={error}:when={nth}{times}"));
            let place = format!(
                "{:?}, {error} from {name} #{nth}{times}: {line}\n{} {}",
                self.words, ran.code, ran.stderr
            );

            // a directory that cannot be synced after the rename has its own error code
            let unconfirmed = ran.stderr.contains("did not confirm");
            if unconfirmed || (name == "fsync" && *error == "EINTR") {
                assert!(ran.code == 1 || (ran.code == 0 && !unconfirmed), "{place}");
            } else {
                assert!([0, *code].contains(&ran.code), "not {code}: {place}");
            }
            let needed = line.contains("-state.tmp")
                || (name == "fsync" && line.contains("<ROOT>)"))
                || name == "flock";
            // an interrupted call is repeated; a full disk may be emptied meanwhile
            let repeated =
                (*error == "EINTR" && name != "fsync") || (*error == "ENOSPC" && times.is_empty());
            assert!(
                !needed || repeated || ran.code != 0,
                "what was needed failed, and it ended with 0: {place}"
            );

            assert!(
                ran.code != 0 || is_mirrored(&root, &ran),
                "no warning about the mirror: {place}"
            );
            let is_new = self.old_or_new(&root, old.as_ref(), &new, &place);
            assert_eq!(is_new, ran.code == 0 || unconfirmed, "the report is wrong: {place}");
            // a full disk costs all automatic backups except two
            let spared = if *error == "ENOSPC" { precious.len().saturating_sub(3) } else { 0 };
            self.next_writer(&root, &precious[spared..], &place);
        });
        println!(
            "{:?}: {} failures, {:.1} s",
            self.words,
            cases.len(),
            began.elapsed().as_secs_f64()
        );
    }

    /// Reads the document, which must be the one of before or after; returns true for the one of
    /// after.
    fn old_or_new(&self, root: &Sandbox, old: Option<&Value>, new: &Value, place: &str) -> bool {
        let real = store(root, Disk::real());
        let (mut read, mut is_new) = (real.read(), true);
        if let (Err(error), Some((code, remedy))) = (&read, self.refused)
            && i32::from(error.code() as u8) == code
        {
            let mended = root.run(remedy);
            assert_eq!(mended.code, 0, "{remedy}: {place}\n{}", mended.stderr);
            (read, is_new) = (real.read(), false);
        }
        let read = read.unwrap_or_else(|error| panic!("a bad read: {error}: {place}"));
        let (found, revision) = content(&read.bytes);
        // revision 0 is an unsealed document, served in today's form
        let live = fs::read(root.state()).unwrap();
        assert!(revision == 0 || *read.bytes == live, "not the file: {place}");
        if found == *new && revision == self.revisions.1 {
            return is_new;
        }
        assert_eq!(
            (Some(&found), revision),
            (old, self.revisions.0),
            "neither old nor new: {place}"
        );
        false
    }

    /// The next writer succeeds, takes the next revision and leaves the root in order.
    fn next_writer(&self, root: &Sandbox, precious: &[Vec<u8>], place: &str) {
        let real = store(root, Disk::real());
        if fs::metadata(root.state()).unwrap().nlink() > 1 {
            // it changes nothing, but it is a writer
            real.change(&WriteOptions::of("update"), &mut |base| Ok(base.draft().into())).unwrap();
            assert_eq!(
                fs::metadata(root.state()).unwrap().nlink(),
                1,
                "a dead commit's link is left: {place}"
            );
        }
        let (mut expected, revision) = content(&real.read().unwrap().bytes);
        set(&real, "z", |_| json!(1))
            .unwrap_or_else(|error| panic!("the next writer fails: {error}: {place}"));
        expected["z"] = json!(1);
        assert_eq!(content(&fs::read(root.state()).unwrap()), (expected, revision + 1), "{place}");
        assert_settled(root, precious, place);
    }
}

/// A truncated state with a history.
pub fn damaged() -> Sandbox {
    let root = Sandbox::with_history();
    let whole = fs::read(root.state()).unwrap();
    root.overwrite(&whole[..whole.len() / 2]);
    root
}

// ---- killed ----

#[test]
fn killed_at_any_call_an_update_is_old_or_new_and_acknowledged_means_new() {
    Job::new(&["state", "update", ".n += 1"], Sandbox::with_history(), ("/n", json!(4)))
        .killed_at_every_call();
}

#[test]
fn killed_at_any_call_a_written_document_is_there_whole_or_not_at_all() {
    let start = Sandbox::with_history();
    let mut job = Job::new(&["state", "write", "-"], start, ("/phase", json!("written")));
    job.input =
        br#"{"phase":"written","completedTasks":["a"],"signals":{},"lastActivation":"now"}"#;
    job.killed_at_every_call();
}

#[test]
fn killed_at_any_call_several_assignments_are_atomic() {
    let start = Sandbox::with_history();
    start.ok("state set n:=4");
    start.ok("state set n:=5"); // five backups: the sixth removes the first
    let mut job = Job::new(&["state", "set", "n:=7", "m=seven"], start, ("/m", json!("seven")));
    job.revisions = (6, 7);
    job.killed_at_every_call();
}

#[test]
fn killed_at_any_call_no_signal_file_precedes_the_state() {
    let start = Sandbox::with_history();
    let mut job = Job::new(&["state", "signal", "GO"], start, ("/lastSignal", json!("GO")));
    job.also = |root, ran| {
        let file = fs::read(root.file(".signals/GO.json"));
        assert!(file.is_ok() || ran.stdout.is_empty(), "acknowledged, and the signal has no file");
        if let Ok(bytes) = file {
            let file: Value = serde_json::from_slice(&bytes).unwrap();
            assert_eq!(file["timestamp"], root.document()["signals"]["GO"]);
        }
    };
    job.killed_at_every_call();
}

#[test]
fn killed_at_any_call_a_signal_is_cleared_with_its_file_or_keeps_it() {
    let start = Sandbox::with_history();
    start.ok("state signal GO");
    let mut job =
        Job::new(&["state", "signal", "GO", "--clear"], start, ("/lastSignal", Value::Null));
    job.revisions = (5, 6);
    job.also = |root, ran| {
        let is_there = root.file(".signals/GO.json").exists();
        assert!(!is_there || ran.stdout.is_empty(), "acknowledged, and the file is there");
        assert!(
            is_there || root.document()["signals"].get("GO").is_none(),
            "the file went before the signal"
        );
    };
    job.killed_at_every_call();
}

#[test]
fn killed_at_any_call_a_hook_gives_all_signals_of_an_event_or_none() {
    let start = Sandbox::with_history();
    fs::create_dir(start.file("config")).unwrap();
    let rules = concat!(
        r#"{"tool_rules": [{"tool": "T", "emit_signal": "GO"}, {"tool": "T", "#,
        r#""emit_signal": "ON", "message": "m"}]}"#
    );
    fs::write(start.file("config/skill-rules.json"), rules).unwrap();
    let mut job = Job::new(&["hook", "post-tool-use-tracker"], start, ("/lastSignal", json!("ON")));
    job.input = br#"{"tool_name": "T"}"#;
    job.also = |root, ran| {
        for signal in ["GO", "ON"] {
            let file = fs::read(root.file(format!(".signals/{signal}.json")));
            assert!(file.is_ok() || ran.stdout.is_empty(), "announced, and the signal has no file");
            if let Ok(bytes) = file {
                let file: Value = serde_json::from_slice(&bytes).unwrap();
                assert_eq!(file["timestamp"], root.document()["signals"][signal]);
            }
        }
    };
    job.killed_at_every_call();
}

#[test]
fn killed_at_any_call_init_leaves_nothing_or_the_first_document() {
    let mut job = Job::new(&["state", "init"], Sandbox::empty(), ("/phase", json!("pre-init")));
    (job.refused, job.revisions, job.precious) = (Some((1, "state init")), (0, 1), &[]);
    job.killed_at_every_call();
}

#[test]
fn killed_at_any_call_a_fresh_beginning_loses_no_revision_of_the_old_one() {
    let start = Sandbox::with_history();
    start.ok("state phase late");
    let mut job =
        Job::new(&["state", "init", "--fresh", "--yes"], start, ("/phase", json!("pre-init")));
    job.revisions = (5, 6);
    job.killed_at_every_call();
}

#[test]
fn killed_at_any_call_a_recovery_is_finished_by_the_next_reader() {
    let mut job = Job::new(&["state", "recover"], damaged(), ("/n", json!(3)));
    job.revisions = (5, 5);
    job.killed_at_every_call();
}

#[test]
fn killed_at_any_call_a_reader_that_heals_leaves_it_to_the_next_one() {
    let mut job = Job::new(&["state", "read"], damaged(), ("/n", json!(3)));
    job.revisions = (5, 5);
    job.killed_at_every_call();
}

#[test]
fn killed_at_any_call_a_rollback_brings_back_all_of_a_backup_or_nothing() {
    Job::new(&["state", "recover", "r2-"], Sandbox::with_history(), ("/n", json!(1)))
        .killed_at_every_call();
}

#[test]
fn killed_at_any_call_a_migration_keeps_the_legacy_document() {
    let legacy = concat!(
        r#"{"phase":3,"completedTasks":[],"signals":{"A":null},"lastActivation":1,"#,
        r#""created":"then"}"#
    );
    let start = Sandbox::holding(legacy);
    let mut job =
        Job::new(&["state", "migrate"], start, ("/metadata/migratedFrom", json!("legacy")));
    job.revisions = (0, 1);
    job.killed_at_every_call();
}

#[test]
fn killed_at_any_call_a_backup_is_whole_or_absent() {
    let mut job = Job::new(&["state", "backup", "mine"], Sandbox::with_history(), ("/n", json!(3)));
    job.revisions = (4, 4);
    job.also = |root, ran| {
        let mine = root.shelf("state-").into_iter().find(|name| name.contains("mine"));
        assert!(mine.is_some() || ran.stdout.is_empty(), "acknowledged, and there is no backup");
        if let Some(name) = mine {
            assert_eq!(
                fs::read(root.file(".state-backups").join(name)).unwrap(),
                fs::read(root.state()).unwrap()
            );
        }
    };
    job.killed_at_every_call();
}

#[test]
fn killed_at_any_call_an_adoption_leaves_the_edit_or_seals_it() {
    let start = Sandbox::with_history();
    start.overwrite(fs::read_to_string(start.state()).unwrap().replace("\"n\": 3", "\"n\": 33"));
    let mut job = Job::new(&["state", "adopt"], start, ("/n", json!(33)));
    (job.refused, job.revisions) = (Some((3, "state adopt")), (4, 5));
    job.precious = &[".state-backups/mirror.json"];
    job.killed_at_every_call();
}

// ---- failing ----

#[test]
fn a_failed_update_reports_the_resulting_document_and_the_cause() {
    Job::new(&["state", "update", ".n += 1"], Sandbox::with_history(), ("/n", json!(4)))
        .failing_at_every_call();
}

#[test]
fn a_failed_init_reports_the_resulting_document_and_the_cause() {
    let mut job = Job::new(&["state", "init"], Sandbox::empty(), ("/phase", json!("pre-init")));
    (job.refused, job.revisions, job.precious) = (Some((1, "state init")), (0, 1), &[]);
    job.failing_at_every_call();
}
