//! Checkpoints and restores under strace(1): killed before each of their calls, and again while
//! another command finishes them.

use std::fs;
use std::time::Instant;

use crate::sandbox::{Ran, Sandbox, installed};
use crate::snapshots::{
    Whole, assert_tidy, restored, twin, with_checkpoint, with_small_checkpoint,
};
use crate::strace::{Call, calls_in, in_parallel, injection, strace};

/// The calls by which a command changes this root.
fn calls(start: &Sandbox, words: &str) -> Vec<Call> {
    let root = twin(start);
    let trace = root.file("trace");
    let path = trace.to_str().unwrap().to_owned();
    let ran =
        Ran::of(strace(&root, &["-f", "-y", "-o", &path], words.split(' ')).output().unwrap());
    let text = fs::read_to_string(trace).unwrap();
    let mut calls = calls_in(&text, root.path().to_str().unwrap());
    calls.retain(Call::changes);
    assert!(ran.code == 0, "{words}: {ran:?}");
    calls
}

/// Runs a command and kills it before a call.
fn killed(root: &Sandbox, words: &str, call: &Call) -> Ran {
    let options = injection(&call.name, &format!("signal=SIGKILL:when={}", call.nth));
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    Ran::of(strace(root, &options, words.split(' ')).output().unwrap())
}

/// A root after a restore was killed before the first matching call after the intent.
pub fn interrupted(start: &Sandbox, before: &str) -> Sandbox {
    let calls = calls(start, RESTORE);
    let decided = calls
        .iter()
        .position(|call| call.name.starts_with("rename") && call.line.contains("intent.json"))
        .unwrap();
    let call = calls[decided + 1..].iter().find(|call| call.line.contains(before));
    let root = twin(start);
    killed(&root, RESTORE, call.unwrap_or_else(|| panic!("no {before} after the intent")));
    assert!(root.file(".checkpoints/.in-progress/intent.json").exists());
    root
}

const RESTORE: &str = "recover restore --latest good";
/// Possible next commands. Each finishes the interruption, or finds none.
const NEXT: [&str; 6] = [
    "state read",
    "state get .n",
    "state set z:=1",
    "state init",
    "recover checkpoint after",
    "recover degraded --exit-zero",
];

#[test]
fn killed_at_any_call_a_restore_is_of_all_three_or_of_none() {
    if !installed("strace") {
        return;
    }
    let (start, began) = (with_small_checkpoint(), Instant::now());
    let (old, new) = (Whole::of(&start), restored(&start));
    assert!(old.state != new.state && old.config != new.config && old.signals != new.signals);
    let calls: Vec<(usize, Call)> = calls(&start, RESTORE).into_iter().enumerate().collect();
    in_parallel(&calls, |(place, call)| {
        let root = twin(&start);
        let ran = killed(&root, RESTORE, call);
        let next = NEXT[place % NEXT.len()];
        let place =
            format!("killed before {} #{}: {}\nthen {next}", call.name, call.nth, call.line);
        let second = root.run(next);
        assert_eq!(second.code, 0, "{place}: {}", second.stderr);
        let found = Whole::with(&root, root.ok("state read").as_bytes());
        assert!(found == old || found == new, "a mix: {place}\n{found:#?}");
        assert!(
            found == new || !ran.stdout.contains("restored"),
            "acknowledged and not done: {place}"
        );
        root.ok("state set y:=1");
        assert_tidy(&root, &place);
        root.ok("recover verify");
    });
    println!("restore: killed at {} calls, {:.1} s", calls.len(), began.elapsed().as_secs_f64());
}

#[test]
fn killed_again_while_it_is_finished_a_restore_is_finished_by_the_third() {
    if !installed("strace") {
        return;
    }
    let (start, began) = (with_small_checkpoint(), Instant::now());
    let new = restored(&start);
    let mut count = 0;
    for (before, words) in [
        ("fsync", "state set z:=1"),
        (".signals", "state read"),
        ("-state.tmp", "state get .n"),
        ("\"intent.json\"", RESTORE),
    ] {
        let root = interrupted(&start, before);
        let calls = calls(&root, words);
        count += calls.len();
        in_parallel(&calls, |call| {
            let root = twin(&root);
            killed(&root, words, call);
            let place = format!("{words} killed before {} #{}: {}", call.name, call.nth, call.line);
            let found = Whole::with(&root, root.ok("state read").as_bytes());
            assert!(found == new, "{place}\n{found:#?}");
            root.ok("state set y:=1");
            assert_tidy(&root, &place);
        });
    }
    println!("finishing: killed at {count} calls, {:.1} s", began.elapsed().as_secs_f64());
}

#[test]
fn killed_at_any_call_an_undo_puts_everything_back() {
    if !installed("strace") {
        return;
    }
    let start = with_small_checkpoint();
    let old = Whole::of(&start);
    // `config/` is exchanged already, and the other half is lost
    let root = interrupted(&start, ".signals");
    fs::remove_dir_all(root.file(".pipeline-state-restore-1-signals")).unwrap();
    let words = "state set z:=1";
    let calls = calls(&root, words);
    in_parallel(&calls, |call| {
        let root = twin(&root);
        killed(&root, words, call);
        let place = format!("killed before {} #{}: {}", call.name, call.nth, call.line);
        let found = Whole::with(&root, root.ok("state read").as_bytes());
        assert!(found == old, "{place}\n{found:#?}");
        root.ok("state set y:=1");
        assert_tidy(&root, &place);
    });
    println!("undo: killed at {} calls", calls.len());
}

#[test]
fn killed_at_any_call_a_checkpoint_is_complete_or_absent() {
    if !installed("strace") {
        return;
    }
    let start = with_checkpoint();
    let old = Whole::of(&start);
    let words = "recover checkpoint again";
    let calls = calls(&start, words);
    in_parallel(&calls, |call| {
        let root = twin(&start);
        let ran = killed(&root, words, call);
        let place = format!("killed before {} #{}: {}", call.name, call.nth, call.line);
        root.ok("recover verify");
        let ids = root.run("recover list --json").expect(0).json();
        let made = ids.as_array().unwrap().len() == 2;
        assert!(made || !ran.stdout.contains("created"), "acknowledged and not there: {place}");
        root.ok("state set y:=1");
        assert_tidy(&root, &place);
        assert_eq!(Whole::of(&root), old, "{place}");
        root.ok("recover verify");
    });
    println!("checkpoint: killed at {} calls", calls.len());
}

#[test]
fn killed_at_any_call_a_cleanup_leaves_no_half_of_a_checkpoint() {
    if !installed("strace") {
        return;
    }
    let start = with_small_checkpoint();
    start.ok("recover checkpoint newest");
    let words = "recover cleanup 0";
    in_parallel(&calls(&start, words), |call| {
        let root = twin(&start);
        killed(&root, words, call);
        root.ok("recover verify");
        root.ok("state set y:=1");
        assert_tidy(&root, &call.line);
        let left = root.names(".checkpoints");
        assert!(left.iter().any(|id| id.ends_with("-newest")), "{left:?}");
    });
}

#[test]
fn read_only_commands_report_an_interrupted_restore() {
    if !installed("strace") {
        return;
    }
    let root = interrupted(&with_small_checkpoint(), ".signals");
    let before = root.snapshot();
    for (words, code, tells) in [
        ("state validate", 0, true),
        ("state status", 0, true),
        ("state history", 0, false),
        ("state backups", 0, false),
        ("recover list", 0, true),
        ("recover verify", 0, true),
        ("recover status", 0, true),
        ("recover metrics", 0, false),
        ("recover doctor", 1, true),
        ("recover restore --latest --dry-run", 0, false),
        ("lock check config", 1, false),
        ("lock list", 0, false),
        ("lock status", 0, false),
    ] {
        let ran = root.run(words);
        assert_eq!(ran.code, code, "{words}: {}", ran.stderr);
        assert!(!tells || (ran.stdout + &ran.stderr).contains("was interrupted"), "{words}");
        assert_eq!(root.snapshot(), before, "{words}");
    }
    let fixed = twin(&root);
    assert!(fixed.run("recover doctor --fix").expect(0).stdout.contains("fixed: restore: "));
    assert_eq!(fixed.document()["n"], 3);
    let told = root.run("state get .n").expect(0);
    assert_eq!(told.stdout, "3\n");
    assert!(
        told.stderr.contains("an interrupted restore of checkpoint-")
            && told.stderr.contains("was finished"),
        "{told:?}"
    );
    let log = fs::read_to_string(root.file(".error-recovery.log")).unwrap();
    assert!(log.contains("was finished"), "{log}");
}

#[test]
fn a_reader_that_cannot_finish_it_serves_the_state_as_it_is_going_to_be() {
    if !installed("strace") {
        return;
    }
    let root = interrupted(&with_small_checkpoint(), ".signals");
    let before = root.snapshot();
    let unlocked = |files: Vec<(std::path::PathBuf, Vec<u8>)>| {
        files
            .into_iter()
            .filter(|(path, _)| !path.to_string_lossy().contains("/.locks"))
            .collect::<Vec<_>>()
    };
    for lock in ["state", "config"] {
        let holder = root.holder(lock);
        let ran =
            root.run("state get .n").expect(0).saying("the state as it is going to be is served");
        assert_eq!(ran.stdout, "3\n");
        assert_eq!(unlocked(root.snapshot()), unlocked(before.clone()), "{lock}");
        root.run("state set z:=1 --lock-timeout 0").expect(2);
        holder.kill();
    }
    assert_eq!(root.run("state get .n").expect(0).stdout, "3\n");
    assert_tidy(&twin(&root), "finished");
}

#[test]
fn a_stuck_restore_is_refused_until_another_replaces_it() {
    if !installed("strace") {
        return;
    }
    let start = with_small_checkpoint();
    let (old, new) = (Whole::of(&start), restored(&start));
    // a staged file is damaged: the restore is undone
    for spoil in
        [".pipeline-state-restore-1-signals/EARLY.json", ".checkpoints/.in-progress/state-1.json"]
    {
        let root = interrupted(&start, ".signals");
        fs::write(root.file(spoil), "{}").unwrap();
        root.run("state read").expect(0).saying("it was undone");
        assert_eq!(Whole::of(&root), old, "{spoil}");
        assert_tidy(&root, spoil);
    }
    // and the pre-restore checkpoint as well
    let root = interrupted(&start, ".signals");
    fs::write(root.file(".pipeline-state-restore-1-signals/EARLY.json"), "{}").unwrap();
    let before =
        root.names(".checkpoints").into_iter().find(|id| id.ends_with("pre-restore")).unwrap();
    fs::write(root.file(".checkpoints").join(before).join("config/rules.json"), "spoiled").unwrap();
    let served =
        root.run("state get .n").expect(0).saying("the state as it is going to be is served");
    assert_eq!(served.stdout, "3\n");
    for words in ["state set z:=1", "state init", "recover checkpoint x"] {
        root.run(words).expect(3).saying("recover restore checkpoint-");
    }
    root.run(RESTORE).expect(0);
    assert_eq!(Whole::of(&root), new);
    assert_tidy(&root, "replaced");
    // its intent is damaged: the restore's contents are unknown
    let root = interrupted(&start, ".signals");
    fs::write(root.file(".checkpoints/.in-progress/intent.json"), "{}").unwrap();
    root.run("state read").expect(3).saying("recover list");
    root.run(RESTORE).expect(0);
    assert_eq!(Whole::of(&root), new);
    assert_tidy(&root, "replaced");
}

#[test]
fn a_reader_that_finishes_a_restore_journals_the_commit() {
    if !installed("strace") {
        return;
    }
    let root = interrupted(&with_small_checkpoint(), "\"mirror.json\"");
    let read = root.run("state get .n");
    assert_eq!(read.code, 0, "{}", read.stderr);
    assert!(!root.file(".checkpoints/.in-progress/intent.json").exists());
    let bytes = |name: &str| fs::read(root.file(name)).unwrap();
    assert!(bytes(".workflow-state.json") == bytes(".state-backups/mirror.json"));
    let journal = fs::read_to_string(root.file(".state-backups/journal.jsonl")).unwrap();
    assert_eq!(journal.matches("\"recover restore\"").count(), 1, "{journal}");
}

#[test]
fn finishing_a_killed_guards_restore_settles_the_guard() {
    if !installed("strace") {
        return;
    }
    let start = with_small_checkpoint();
    fs::write(start.file("g.sh"), "echo other > \"$1\"; exit 9\n").unwrap();
    let mut finished = 0;
    for nth in 1..40 {
        let root = twin(&start);
        let words = format!(
            "recover guard op -- sh {} {}",
            root.file("g.sh").display(),
            root.file("config/a").display()
        );
        let call = Call { name: "renameat".to_owned(), nth, line: String::new() };
        killed(&root, &words, &call);
        if !root.file(".checkpoints/.in-progress/intent.json").exists() {
            continue;
        }
        finished += 1;
        let next = root.run("state set z:=1");
        assert_eq!(next.code, 0, "{}", next.stderr);
        assert!(!next.stderr.contains("the guard"), "renameat {nth}: {}", next.stderr);
        let names = fs::read_dir(root.file(".state-backups")).unwrap();
        let mut names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        assert!(!names.any(|name| name.starts_with("guard-")), "renameat {nth}");
    }
    assert!(finished > 0);
}
