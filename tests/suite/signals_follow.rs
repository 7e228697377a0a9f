//! The files of signals follow `signals` in every commit that restores an old document.

use std::fs;

use serde_json::{Value, json};

use crate::sandbox::{Sandbox, make_old};

/// Each signal of the state has its file, and each file its signal.
fn agree(root: &Sandbox, signals: &[&str]) {
    let document = root.document();
    let mut known: Vec<_> =
        document["signals"].as_object().unwrap().keys().map(String::as_str).collect();
    known.sort_unstable();
    assert_eq!(known, signals);
    let files: Vec<String> = signals.iter().map(|name| format!("{name}.json")).collect();
    assert_eq!(root.names(".signals"), files);
    root.run("recover doctor").expect(0);
}

fn file(root: &Sandbox, name: &str) -> Value {
    serde_json::from_slice(&fs::read(root.file(format!(".signals/{name}.json"))).unwrap()).unwrap()
}

/// A backup `b1` with the signals A and B; after it B was cleared and C given.
fn with_backup() -> Sandbox {
    let root = Sandbox::initialized();
    root.ok("state signal A --metadata {\"x\":1}");
    root.ok("state signal B");
    root.ok("state backup b1");
    root.ok("state signal --clear B");
    root.ok("state signal C");
    agree(&root, &["A", "C"]);
    root
}

fn backup(root: &Sandbox) -> String {
    root.shelf("state-").into_iter().find(|name| name.contains("b1")).unwrap()
}

#[test]
fn a_recovered_document_has_its_signals_files_back() {
    let root = with_backup();
    root.ok("state recover b1");
    agree(&root, &["A", "B"]);
    assert_eq!(file(&root, "A")["metadata"], json!({"x": 1}), "it was there all the time");
    let blank = json!({"signal": "B", "phase": null, "timestamp": root.document()["signals"]["B"],
        "metadata": {}});
    assert_eq!(file(&root, "B"), blank, "nothing remembers more");
}

#[test]
fn a_backup_that_is_written_back_has_its_signals_files_back() {
    let root = with_backup();
    root.ok(&format!("state write --force .state-backups/{}", backup(&root)));
    agree(&root, &["A", "B"]);
    fs::remove_file(root.file(".signals/B.json")).unwrap();
    root.ok("state write .workflow-state.json");
    agree(&root, &["A", "B"]);
}

#[test]
fn a_healed_document_has_its_signals_files_back() {
    let root = with_backup();
    for copy in [root.mirror(), root.state()] {
        fs::write(&copy, "").unwrap();
        make_old(&copy);
    }
    root.run("state get .signals").expect(0);
    agree(&root, &["A"]);
}

#[test]
fn an_adopted_document_has_its_signals_files_back() {
    for accept in [false, true] {
        let root = with_backup();
        fs::copy(root.file(format!(".state-backups/{}", backup(&root))), root.state()).unwrap();
        make_old(&root.state());
        let (command, edits) =
            if accept { ("state set n:=1", "accept") } else { ("state adopt", "refuse") };
        let mut ran = root.command();
        ran.args(command.split(' ')).env("STATE_FOREIGN_EDITS", edits);
        assert!(ran.status().unwrap().success());
        agree(&root, &["A", "B"]);
    }
}

#[test]
fn undoing_init_fresh_restores_the_files_of_signals() {
    let root = Sandbox::initialized();
    root.ok("state signal A --metadata {\"x\":1}");
    root.ok("recover checkpoint early");
    root.ok("state signal B --metadata {\"y\":2}");
    let (a, b) = (file(&root, "A"), file(&root, "B"));
    let said = root.ok("state init --fresh --yes");
    agree(&root, &[]);
    root.ok(said
        .lines()
        .find_map(|line| line.strip_prefix("The way back: pipeline-state "))
        .unwrap());
    agree(&root, &["A", "B"]);
    assert_eq!((file(&root, "A"), file(&root, "B")), (a, b));
}

#[test]
fn foreign_files_among_signals_stay_and_stop_no_commit() {
    let root = with_backup();
    fs::write(root.file(".signals/notes.json"), "[1]").unwrap();
    fs::write(root.file(".signals/readme"), "x").unwrap();
    fs::create_dir_all(root.file(".signals/B.json/x")).unwrap();
    root.run("state recover b1").expect(0).saying("B.json");
    assert_eq!(root.names(".signals"), ["A.json", "B.json", "notes.json", "readme"]);
    fs::remove_dir_all(root.file(".signals")).unwrap();
    fs::write(root.file(".signals"), "no directory").unwrap();
    root.ok(&format!("state write --force .state-backups/{}", backup(&root)));
    assert_eq!(root.document()["signals"].as_object().unwrap().len(), 2);
}
