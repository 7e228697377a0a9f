//! P4: an edit by something else is never taken for a commit, and never lost.

use std::fs;

use crate::damage::*;
use crate::sandbox::{Ran, Sandbox};

/// Still a document, but not the acknowledged one: refused until a person decides.
const FOREIGN_EDITS: [Damage; 7] = [
    ("a bit in a value", |bytes| flip(bytes, "pre-init")),
    ("a bit in a key", |bytes| flip(bytes, "phase")),
    ("a bit in the digest", |bytes| {
        let at = find(bytes, "\"digest\": \"") + 11;
        let mut bytes = bytes.to_vec();
        bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
        bytes
    }),
    ("a bit in the digest's key", |bytes| flip(bytes, "digest")),
    ("a bit in schemaVersion", |bytes| replace(bytes, "\"1.0\"", "\"3.0\"")),
    ("a bit in the key of metadata", |bytes| flip(bytes, "metadata")),
    ("a hand edit", |bytes| replace(bytes, "\"pre-init\"", "\"by-hand\"")),
];

#[test]
fn a_foreign_edit_is_refused_until_it_is_adopted_or_discarded() {
    for (what, damage) in FOREIGN_EDITS {
        let sandbox = Sandbox::with_history();
        let edited = damage(&fs::read(sandbox.state()).unwrap());
        sandbox.overwrite(&edited);
        is_reported(&sandbox);
        for words in [
            "state read",
            "state get .n",
            "state set a=b",
            "state init",
            "state backup",
            "state migrate",
        ] {
            sandbox.run(words).expect(3).saying("state recover");
        }
        // only a valid document is offered for adoption
        let adoptable = sandbox.run("state adopt --dry-run").code == 0;
        assert_eq!(sandbox.run("state read").stderr.contains("state adopt"), adoptable, "{what}");
        assert_eq!(fs::read(sandbox.state()).unwrap(), edited, "{what}");
        assert!(sandbox.ok("state recover").contains("revision 5"), "{what}");
        assert_eq!(
            (sandbox.document()["n"].clone(), sandbox.document()["phase"].clone()),
            (3.into(), "pre-init".into())
        );
        assert_eq!(sandbox.shelf("corrupt-").len(), 1, "{what}: the edit is kept");
    }
}

#[test]
fn a_foreign_edit_is_shown_against_the_last_acknowledged_revision() {
    let sandbox = Sandbox::with_history();
    let edited =
        fs::read_to_string(sandbox.state()).unwrap().replace("\"pre-init\"", "\"by-hand\"");
    sandbox.overwrite(edited);
    sandbox
        .run("state read")
        .expect(3)
        .saying(".phase: \"pre-init\" -> \"by-hand\"")
        .saying("revision 4");
    let ran = sandbox.run("state read --json").expect_json_error("foreign_edit");
    assert_eq!(ran["details"]["changes"][0]["path"], ".phase");
    assert!(sandbox.ok("state adopt --dry-run").contains("by-hand"));
    assert_eq!(sandbox.ok("state adopt --reason on-purpose"), "State adopted: revision 5");
    assert_eq!(sandbox.ok("state get .phase"), "by-hand");
    let pinned =
        sandbox.shelf("state-").into_iter().find(|name| name.contains("-r4-pre-adopt")).unwrap();
    sandbox.ok(&format!("state recover {pinned}"));
    assert_eq!(sandbox.ok("state get .phase"), "pre-init");
}

#[test]
fn foreign_edits_can_be_accepted_as_a_matter_of_policy() {
    let sandbox = Sandbox::with_history();
    let accept = |words: &str| {
        let mut command = sandbox.command();
        Ran::of(
            command.env("STATE_FOREIGN_EDITS", "accept").args(words.split(' ')).output().unwrap(),
        )
    };
    sandbox.overwrite(
        fs::read_to_string(sandbox.state()).unwrap().replace("\"pre-init\"", "\"by-hand\""),
    );
    assert_eq!(accept("state get .phase").expect(0).saying("warning:").stdout, "by-hand\n");
    accept("state set more=yes").expect(0);
    assert_eq!((sandbox.ok("state get .phase"), sandbox.revision()), ("by-hand".into(), 5));
    assert!(sandbox.shelf("state-").iter().any(|name| name.contains("-r4-pre-adopt")));
    sandbox.overwrite(fs::read_to_string(sandbox.state()).unwrap().replace("\"by-hand\"", "[7]"));
    accept("state get .phase").expect(3).saying(".phase: must be a string").saying("state recover");
    sandbox.run("state adopt").expect(4);
}

#[test]
fn an_old_copy_put_back_is_a_foreign_edit() {
    for mirror in ["there", "gone"] {
        let sandbox = Sandbox::with_history();
        let old = sandbox.shelf("state-").into_iter().find(|name| name.contains("-r2-")).unwrap();
        let bytes = fs::read(sandbox.file(".state-backups").join(old)).unwrap();
        sandbox.overwrite(bytes);
        if mirror == "gone" {
            fs::remove_file(sandbox.mirror()).unwrap();
        }
        is_reported(&sandbox);
        sandbox.run("state set a=b").expect(3).saying("it is revision 2, and revision");
        sandbox.ok("state recover");
        assert_eq!(
            sandbox.document()["n"],
            if mirror == "there" { 3 } else { 2 },
            "mirror {mirror}"
        );
    }
}

#[test]
fn a_document_of_another_lineage_is_a_foreign_edit() {
    let (sandbox, other) = (Sandbox::with_history(), Sandbox::initialized());
    sandbox.overwrite(fs::read(other.state()).unwrap());
    sandbox.run("state set a=b").expect(3).saying("lineage");
    sandbox.ok("state adopt");
    assert_eq!(sandbox.revision(), 5);
}

#[test]
fn a_condition_on_the_revision_holds_for_an_accepted_edit_too() {
    let sandbox = Sandbox::with_history();
    sandbox.overwrite(
        fs::read_to_string(sandbox.state()).unwrap().replace("\"pre-init\"", "\"by-hand\""),
    );
    let set = |revision: &str| {
        let mut command = sandbox.command();
        let args = ["state", "set", "m:=1", "--if-revision", revision];
        Ran::of(command.env("STATE_FOREIGN_EDITS", "accept").args(args).output().unwrap())
    };
    set("0").expect(75);
    set("4").expect(0);
    assert_eq!(sandbox.revision(), 5);
}
