//! A live file without a seal is from before seals only where nothing in the root remembers a
//! sealed document.

use std::fs;

use serde_json::json;

use crate::sandbox::Sandbox;
use pipeline_state::document::seal::{Lineage, Revision, seal};

/// Revision 4, then an edit that dropped the seal; every copy of the document is damaged.
fn edited_without_copies() -> Sandbox {
    let root = Sandbox::with_history();
    let mut document = root.document();
    document["n"] = json!(99);
    document.as_object_mut().unwrap().remove("metadata");
    root.overwrite(document.to_string());
    fs::write(root.mirror(), "damaged").unwrap();
    for backup in root.shelf("state-") {
        fs::write(root.file(".state-backups").join(backup), "damaged").unwrap();
    }
    root
}

/// A removal from the root; the flag is set if the rest still remembers a seal.
const REMOVED: [(&[&str], bool); 5] = [
    (&[], true),
    (&["journal"], true),
    (&["state-", "mirror"], true),
    (&["journal", "state-"], true),
    (&["journal", "state-", "mirror"], false),
];

fn remove(root: &Sandbox, prefixes: &[&str]) {
    for name in prefixes.iter().flat_map(|prefix| root.shelf(prefix)) {
        fs::remove_file(root.file(".state-backups").join(name)).unwrap();
    }
}

#[test]
fn a_trace_of_sealed_history_makes_an_unsealed_file_a_foreign_edit() {
    for (removed, is_remembered) in REMOVED {
        let root = edited_without_copies();
        remove(&root, removed);
        let before = root.snapshot();
        let code = if is_remembered { 3 } else { 0 };
        for words in ["state get .n", "state read", "state validate", "state set m:=1 --dry-run"] {
            let ran = root.run(words);
            assert_eq!(ran.code, code, "{removed:?}, {words}: {ran:?}");
        }
        assert_eq!(root.snapshot(), before, "{removed:?}");
        assert_eq!(root.run("state set m:=1").code, code, "{removed:?}");
        assert_eq!(root.run("state init").code, code, "{removed:?}");
        if is_remembered {
            root.run("state get .n").expect(3).saying("state adopt");
        }
    }
}

#[test]
fn revisions_that_no_copy_is_left_of_do_not_come_again() {
    for words in ["state adopt", "state set m:=1", "state init --fresh --yes"] {
        for removed in [&[][..], &["journal"], &["state-", "mirror"]] {
            let root = edited_without_copies();
            remove(&root, removed);
            let mut command = root.command();
            let ran = command
                .env("STATE_FOREIGN_EDITS", "accept")
                .args(words.split(' '))
                .output()
                .unwrap();
            assert!(ran.status.success(), "{removed:?}, {words}: {ran:?}");
            assert_eq!(root.document()["metadata"]["revision"], 5, "{removed:?}, {words}");
        }
    }
}

#[test]
fn an_edit_without_a_copy_to_compare_with_goes_on_with_its_lineage() {
    let root = Sandbox::with_history();
    let lineage = root.document()["metadata"]["lineage"].clone();
    root.overwrite(r#"{"phase": "x", "completedTasks": [], "signals": {}, "lastActivation": ""}"#);
    fs::write(root.mirror(), "damaged").unwrap();
    remove(&root, &["state-"]);
    root.run("state adopt --if-revision 3").expect(75);
    root.ok("state adopt --if-revision 4");
    assert_eq!(root.document()["metadata"]["lineage"], lineage);
}

#[test]
fn numbers_go_on_where_only_the_journal_is_left() {
    let root = Sandbox::with_history();
    fs::remove_file(root.state()).unwrap();
    remove(&root, &["state-", "mirror"]);
    assert!(root.ok("state init").ends_with("(revision 5)"));
}

#[test]
fn a_damaged_record_of_the_state_files_name_is_written_again() {
    for name in [".workflow-state.json", "other.json"] {
        let root = Sandbox::empty();
        let run =
            |words: &str| root.run(&format!("--state-file {} {words}", root.file(name).display()));
        run("state init").expect(0);
        let record = root.file(".state-backups/owner");
        for damaged in ["", "\0\0\0\0"] {
            fs::write(&record, damaged).unwrap();
            run("state get .phase").expect(0);
            run(&format!("state set n:={}", damaged.len() + 1)).expect(0);
            assert_eq!(fs::read_to_string(&record).unwrap(), format!("{name}\n"));
        }
        fs::write(&record, "").unwrap();
        let third = format!("--state-file {} state init", root.file("third.json").display());
        root.run(&third).expect(4).saying(".state-backups/owner is damaged");
    }
}

#[test]
fn at_the_last_revision_the_way_out_works_as_it_is_typed() {
    let root = Sandbox::initialized();
    let lineage = Lineage::from_value(&root.document()["metadata"]["lineage"]).unwrap();
    let last = (1..=64).rev().find_map(|bits| Revision::new((1 << bits.min(63)) - 1)).unwrap();
    let (now, value) = ("2026-01-01T00:00:00Z", root.document());
    let sealed = seal(value, last, &lineage, now, now, [7; 32]).unwrap();
    root.overwrite(&sealed.text.whole()[..]);
    let refused = root.run("state set a:=1").expect(1).saying("the last possible revision");
    let hint = refused.stderr.lines().find_map(|line| line.split_once("mkdir ")).unwrap().1;
    let command = format!("mkdir {}", hint.split("  ").next().unwrap());
    root.bash(&command).expect(0);
    root.ok("state init");
    root.ok("state set a:=1");
}
