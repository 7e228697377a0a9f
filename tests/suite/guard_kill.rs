//! Guards that are killed while they put things back beside the commits of others, and one that
//! cannot.

use std::fs;

use serde_json::json;

use crate::guard::{SET, on_record, start_as};
use crate::sandbox::{Ran, Sandbox, installed};
use crate::strace::{injection, strace};

/// What a guard has to put back in one case.
#[derive(Clone, Copy)]
struct Case {
    /// Whether its command also changes `config/`.
    config: bool,
    /// Whether the journal lacks a line, so that not everything can be put back.
    unclear: bool,
}

/// Runs a guard under strace whose command fails after another's commit; the id of the guard.
fn run(root: &Sandbox, options: &[String], case: Case) -> String {
    fs::create_dir(root.file("config")).unwrap();
    fs::write(root.file("config/a"), "1").unwrap();
    root.ok("state signal Z -q");
    let edit = if case.config { "echo 2 >config/a" } else { ":" };
    let script = format!(
        "{SET} n:=99\n{edit}\n\"$PIPELINE_BINARY\" state signal G -q\n\
         \"$PIPELINE_BINARY\" state signal --clear Z -q"
    );
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let guard = start_as((root, strace(root, &options, [])), "deploy", "", &script, 7);
    root.ok("state set theirs:=1 -q");
    if case.unclear {
        let journal = root.file(".state-backups/journal.jsonl");
        let text = fs::read_to_string(&journal).unwrap();
        let kept: Vec<_> = text.lines().filter(|line| !line.contains("theirs")).collect();
        assert!(kept.len() < text.lines().count());
        fs::write(&journal, kept.join("\n")).unwrap();
    }
    guard.go_on(root).1
}

/// A root whose guard was killed before its last rename to this name.
fn killed_before(name: &str, case: Case) -> (Sandbox, String) {
    let whole = Sandbox::with_history();
    let trace = whole.file("trace").display().to_string();
    run(&whole, &["-o", &trace, "-e", "trace=renameat"].map(str::to_owned), case);
    let trace = fs::read_to_string(trace).unwrap();
    let renames = trace.lines().filter(|line| line.starts_with("renameat("));
    let nth =
        renames.enumerate().filter(|(_, line)| line.contains(&format!("\"{name}\") = "))).last();
    let nth = nth.unwrap_or_else(|| panic!("no rename to {name}: {trace}")).0 + 1;
    let root = Sandbox::with_history();
    let id = run(&root, &injection("renameat", &format!("signal=SIGKILL:when={nth}")), case);
    (root, id)
}

fn standings(root: &Sandbox) -> serde_json::Value {
    root.run("state status --json").json()["guards"].clone()
}

#[track_caller]
fn all_is_put_back(root: &Sandbox) {
    let document = root.document();
    let signals: Vec<_> = document["signals"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(
        (&document["n"], &document["theirs"], signals),
        (&json!(3), &json!(1), vec!["Z".to_owned()])
    );
    assert_eq!(root.names(".signals"), ["Z.json"]);
    assert_eq!(fs::read_to_string(root.file("config/a")).unwrap().trim(), "1");
    assert!(on_record(root).is_empty());
    let journal = fs::read_to_string(root.file(".state-backups/journal.jsonl")).unwrap();
    let of_guard = journal.lines().filter(|line| line.contains("\"event\":\"guard\""));
    let settled = of_guard.filter(|line| line.contains("\"step\":\"restored\"")).count();
    assert_eq!(settled, 1, "{journal}");
    root.ok("lock clean");
    root.run("recover doctor").expect(0);
}

#[test]
fn a_guard_that_is_killed_after_its_commit_has_put_everything_back() {
    if !installed("strace") {
        return;
    }
    let (root, _) = killed_before("Z.json", Case { config: false, unclear: false });
    assert_eq!((standings(&root), on_record(&root).len()), (json!([]), 1));
    let doctor = root.run("recover doctor").stdout;
    assert!(!doctor.contains("the guard") && !doctor.contains("recover restore"), "{doctor}");
    let next: Ran = root.run("state set later:=1").expect(0);
    assert!(!next.stderr.contains("guard"), "{}", next.stderr);
    all_is_put_back(&root);
}

#[test]
fn a_guard_that_is_killed_before_its_commit_has_put_nothing_back() {
    if !installed("strace") {
        return;
    }
    let (root, id) = killed_before(".workflow-state.json", Case { config: false, unclear: false });
    for turn in 0..2 {
        assert_eq!(standings(&root), json!([{"id": id, "standing": "killed"}]));
        root.run(&format!("state set later:={turn}")).expect(0).saying("was killed");
        assert_eq!(
            (root.document()["n"].clone(), root.names(".signals")),
            (json!(99), vec!["G.json".to_owned()])
        );
    }
}

#[test]
fn a_guard_that_is_killed_after_it_put_a_part_back_is_unrestored() {
    if !installed("strace") {
        return;
    }
    let (root, _) = killed_before("Z.json", Case { config: false, unclear: true });
    for turn in 0..2 {
        assert_eq!(standings(&root)[0]["standing"], "unrestored");
        root.run(&format!("state set later:={turn}"))
            .expect(0)
            .saying("the journal has no line of revision");
        assert_eq!(
            (root.document()["n"].clone(), root.names(".signals")),
            (json!(3), vec!["Z.json".to_owned()])
        );
    }
}

#[test]
fn the_command_that_finishes_a_killed_guards_restore_puts_the_files_of_signals_in_place() {
    if !installed("strace") {
        return;
    }
    for name in [".workflow-state.json", "Z.json"] {
        let (root, _) = killed_before(name, Case { config: true, unclear: false });
        assert!(root.file(".checkpoints/.in-progress/intent.json").exists());
        assert_eq!(standings(&root), json!([]), "its restore is decided");
        let next = root.run("state set later:=1").expect(0);
        assert!(!next.stderr.contains("the guard"), "{}", next.stderr);
        all_is_put_back(&root);
    }
}

#[test]
fn a_guard_that_did_not_get_the_lock_for_its_verdict_says_so_and_was_not_killed() {
    let root = Sandbox::with_history();
    let guard =
        start_as((&root, root.command()), "deploy", "--lock-timeout 0", &format!("{SET} n:=99"), 7);
    let holder = root.holder("state");
    let (ran, id) = guard.go_on(&root);
    assert_eq!(ran.code, 3, "{}", ran.stderr);
    assert!(!ran.stderr.contains("not on record"), "{}", ran.stderr);
    holder.kill();
    let found = standings(&root);
    assert_eq!((&found[0]["id"], &found[0]["standing"]), (&json!(id), &json!("unrestored")));
    assert!(found[0]["why"].as_str().unwrap().contains("state"), "{found}");
    root.run("state set later:=1").expect(0).saying("did not put everything back");
    assert_eq!(
        root.shelf(".pipeline-state-"),
        [] as [String; 0],
        "nothing is left of writing the record"
    );
}
