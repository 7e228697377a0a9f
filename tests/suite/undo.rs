//! `state undo` and `state unset`, and the limits of `history`.

use std::fs;

use serde_json::json;

use crate::sandbox::{BINARY, Sandbox};

/// The names of all files of signals.
fn signal_files(root: &Sandbox) -> String {
    let files = fs::read_dir(root.file(".signals")).unwrap().flatten();
    files.map(|file| file.file_name().to_string_lossy().into_owned() + "\n").collect()
}

fn set(root: &Sandbox, n: u32) {
    root.ok(&format!("state set n:={n} --reason step{n}"));
}

#[test]
fn an_undo_goes_back_one_revision_and_another_one_further() {
    let root = Sandbox::initialized();
    (1..=2).for_each(|n| set(&root, n)); // revisions 2 and 3
    let said = root.ok("state undo");
    let head = "State of revision 2 again: revision 4; taken back:\n  3  ";
    assert!(said.starts_with(head) && said.ends_with("state set: step2"), "{said}");
    assert_eq!(root.document()["n"], 1);
    // A change after an undo is undone by itself.
    set(&root, 9);
    root.ok("state undo");
    assert_eq!(root.document()["n"], 1);
    root.ok("state undo"); // below revision 2, which revisions 4 and 6 repeat
    assert_eq!(root.document().get("n"), None);
    root.run("state undo").expect(1).saying("no earlier revision is kept");
    let rows = root.run("state history --json").json();
    assert_eq!((&rows[0]["repeats"], &rows[0]["command"]), (&json!(1), &json!("state undo")));
}

#[test]
fn an_undo_after_an_undo_and_a_healing_goes_further_back() {
    for edit in ["", "{\"phase\":\"x\"}"] {
        let root = Sandbox::initialized();
        (1..=3).for_each(|n| set(&root, n)); // revisions 2 to 4
        root.ok("state undo");
        fs::write(root.state(), edit).unwrap();
        root.ok("state recover");
        assert_eq!(root.document()["n"], 2);
        root.ok("state undo");
        assert_eq!(root.document()["n"], 1, "{edit:?}");
        // A rollback is a change, and taken back like one.
        root.ok("state recover --to-revision 4");
        root.ok("state undo");
        assert_eq!(root.document()["n"], 1, "{edit:?}");
    }
}

#[test]
fn an_undo_passes_over_a_guard_that_was_put_back() {
    let root = Sandbox::initialized();
    set(&root, 1);
    set(&root, 2);
    root.run(&format!("recover guard deploy -- {BINARY} state set n:=9")).expect(0);
    root.ok("state undo");
    assert_eq!(root.document()["n"], 2);
    let failing = format!("{BINARY} state set n:=9; exit 42");
    let ran = root.run_args(&["recover", "guard", "deploy", "--", "sh", "-c", &failing]);
    assert_eq!(ran.code, 42, "{ran:?}");
    assert_eq!(root.document()["n"], 2);
    root.ok("state undo");
    assert_eq!(root.document()["n"], 1, "not what the guard put back");
}

#[test]
fn an_undo_honours_the_conditions_of_a_writer_and_its_signals_follow() {
    let root = Sandbox::initialized();
    root.ok("state signal GO");
    root.ok("state signal STOP");
    let before = root.document();
    root.run("state undo --if-revision 1").expect(75);
    let planned = root.ok("state undo --dry-run");
    assert!(planned.contains("revision 2") && planned.contains("STOP"), "{planned}");
    assert_eq!(root.document(), before);
    root.ok("state undo");
    let files = signal_files(&root);
    assert!(files.contains("GO") && !files.contains("STOP"), "{files}");
}

#[test]
fn unset_removes_values_and_the_files_of_signals() {
    let root = Sandbox::initialized();
    root.ok("state set list:=[0,1,2,3,4] a.b:=1 a.c:=2");
    root.ok("state signal GO");
    root.ok("state unset list[0] list[-1] list[4] .a.b .signals.GO");
    let document = root.document();
    assert_eq!((&document["list"], &document["a"]), (&json!([1, 2, 3]), &json!({"c": 2})));
    assert_eq!(document["signals"], json!({}));
    assert!(!signal_files(&root).contains("GO"));
    let said = root.ok("state unset .a.b .none.deep");
    assert!(said.starts_with("State unchanged"), "{said}");
    root.run("state unset .phase").expect(4);
    root.run("state unset .metadata.revision").expect(4);
    root.run("state unset .a.c=1").expect(4).saying("the end of the path");
}

#[test]
fn history_names_authors_and_changes_and_is_limited_by_number_and_time() {
    let root = Sandbox::initialized();
    (1..=3).for_each(|n| set(&root, n));
    let rows = root.run("state history -n 2 --json").json();
    assert_eq!(rows.as_array().unwrap().len(), 2);
    assert_eq!((&rows[0]["revision"], &rows[0]["changes"]), (&json!(4), &json!([{"path": ".n"}])));
    assert_eq!(rows[0]["owner"]["uid"], rustix::process::geteuid().as_raw());
    assert_eq!(root.run("state history --since 1h --json").json().as_array().unwrap().len(), 4);
    assert_eq!(root.run("state history --since 2100-01-01T00:00:00Z --json").json(), json!([]));
    root.run("state history --since yesterday").expect(64);
    let text = root.ok("state history");
    let newest = text.lines().nth(1).unwrap();
    assert!(newest.contains("state set") && newest.ends_with("step3   .n"), "{text}");
}
