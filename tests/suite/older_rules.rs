//! Sealed documents of an older rule than the present one.

use crate::sandbox::{Sandbox, make_old};
use pipeline_state::document::seal::{Lineage, Revision, seal};
use serde_json::json;
use std::fs;

/// A root with a state, mirror and backup that an older rule allowed and sealed.
fn sealed_under_an_older_rule() -> Sandbox {
    let root = Sandbox::initialized();
    let lineage = Lineage::from_value(&root.document()["metadata"]["lineage"]).unwrap();
    for revision in [2, 3] {
        let old = json!({"schemaVersion": "1.0", "phase": revision, "completedTasks": null,
            "signals": null,
            "lastActivation": 7, "degradedMode": null, "n": revision});
        let revision = Revision::new(revision).unwrap();
        let sealed =
            seal(old, revision, &lineage, "2023", "2024", [revision.get() as u8; 32]).unwrap();
        let text = sealed.text.whole();
        let backup = format!(".state-backups/state-20231101-103000-r{revision}-set.json");
        for file in [root.state(), root.mirror(), root.file(backup)] {
            fs::write(file, &text).unwrap();
        }
    }
    make_old(&root.state());
    root
}

#[test]
fn a_sealed_document_of_an_older_rule_is_read_migrated_and_written() {
    let root = sealed_under_an_older_rule();
    let before = root.snapshot();
    let read = root.run("state read").expect(0).json();
    assert_eq!(
        (&read["phase"], &read["signals"], &read["lastActivation"]),
        (&json!("3"), &json!({}), &json!("7"))
    );
    assert_eq!(root.ok("state get .phase"), "3");
    assert_eq!(root.run("state status --json").expect(0).json()["phase"], "3");
    root.run("state validate").expect(0);
    assert_eq!(root.ok("state migrate --dry-run"), "State would be migrated: legacy -> 1.0");
    assert_eq!(root.snapshot(), before);
    for words in [
        "state set a=b",
        "state phase x",
        "state signal GO",
        "state migrate",
        "state init",
        "state update .",
    ] {
        let root = sealed_under_an_older_rule();
        let old = fs::read(root.state()).unwrap();
        root.run(words).expect(0);
        assert_eq!(
            (root.revision(), &root.document()["metadata"]["migratedFrom"]),
            (4, &json!("legacy")),
            "{words}"
        );
        let pinned = root
            .shelf("state-")
            .into_iter()
            .find(|name| name.ends_with("-r3-pre-migration.json"))
            .unwrap();
        assert_eq!(fs::read(root.file(".state-backups").join(pinned)).unwrap(), old, "{words}");
    }
}

#[test]
fn sealed_copies_of_an_older_rule_heal_and_are_brought_back() {
    let root = sealed_under_an_older_rule();
    root.overwrite("{\"torn");
    assert_eq!(root.ok("state get .phase"), "3");
    assert_eq!((root.revision(), &root.document()["phase"]), (4, &json!("3")));
    root.ok("state recover --to-revision 2");
    assert_eq!((root.revision(), &root.document()["phase"]), (5, &json!("2")));

    let root = sealed_under_an_older_rule();
    root.ok("recover checkpoint good");
    let metadata = root.run("recover list --json").expect(0).json();
    assert_eq!(metadata[0]["phase"], "3", "{metadata}");
    root.ok("state set n:=9");
    root.ok("recover restore --latest good");
    assert_eq!((&root.document()["phase"], &root.document()["n"]), (&json!("3"), &json!(3)));

    let root = sealed_under_an_older_rule();
    let text = fs::read_to_string(root.state()).unwrap();
    root.overwrite(text.replace("\"n\": 3", "\"n\": 30"));
    root.run("state set a=b").expect(3).saying(".n: 3 -> 30");
    root.ok("state adopt");
    assert_eq!((&root.document()["phase"], &root.document()["n"]), (&json!("3"), &json!(30)));
}
