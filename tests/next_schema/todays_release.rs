//! Files of the next release, read by today's.

use std::fs;
use std::process::Command;

use crate::sandbox::Sandbox;
use crate::states::{assert_untouched, copy, damage, of_the_next};
use crate::{Claim, Next};

pub const CLAIMS: &[Claim] = &[
    ("no_command_of_todays_touches_a_newer_state", no_command_of_todays_touches_a_newer_state),
    ("no_command_of_todays_replaces_a_newer_copy", no_command_of_todays_replaces_a_newer_copy),
    ("todays_release_keeps_newer_checkpoints", todays_release_keeps_newer_checkpoints),
    ("todays_release_reports_a_newer_state", todays_release_reports_a_newer_state),
];

const COMMANDS: [&str; 24] = [
    "state read",
    "state get .n",
    "state set n:=9",
    "state update .n=9",
    "state phase x",
    "state complete x",
    "state signal X",
    "state signal X --clear",
    "state write old.json",
    "state write old.json --force --migrate",
    "state init",
    "state init --fresh --yes",
    "state backup mine",
    "state recover",
    "state recover --dry-run",
    "state recover nightly",
    "state adopt",
    "state migrate",
    "state wait .n --timeout 5",
    "state watch .n",
    "state set n:=9 --dry-run",
    "recover checkpoint x",
    "recover degrade slow []",
    "recover restore --latest good",
];

/// Revision 5 of the next release, beside backups of today's.
fn newer(next: &Next) -> Sandbox {
    let root = of_the_next(next);
    fs::copy(root.file(".state-backups").join(&root.shelf("state-")[0]), root.file("old.json"))
        .unwrap();
    root
}

/// Every command exits 4 with newer_schema and changes nothing.
#[track_caller]
fn assert_refused(root: &Sandbox, what: &str) {
    let before = root.snapshot();
    for words in COMMANDS {
        // unknown options of this release do not matter
        let ran = root.run(&format!("{words} --json"));
        if ran.code == 64 {
            continue;
        }
        assert_eq!(ran.code, 4, "{what}, {words}: {ran:?}");
        ran.expect_json_error("newer_schema");
        assert_untouched(root, &before, &format!("{what}, {words}"));
    }
}

fn no_command_of_todays_touches_a_newer_state(next: &Next) {
    let root = Sandbox::initialized();
    root.ok("state set n:=1");
    root.ok("state backup nightly");
    root.ok("recover checkpoint good");
    next.ok(&root, "state set n:=4");
    fs::copy(root.file(".state-backups").join(&root.shelf("state-")[0]), root.file("old.json"))
        .unwrap();
    assert_refused(&root, "as it is");
}

fn no_command_of_todays_replaces_a_newer_copy(next: &Next) {
    let root = newer(next);
    let pre_migration =
        root.shelf("state-").into_iter().find(|name| name.contains("pre-migration")).unwrap();
    let old = fs::read_to_string(root.file(".state-backups").join(&pre_migration)).unwrap();

    let put_back = copy(&root);
    put_back.overwrite(&old);
    let unsealed = copy(&root);
    unsealed.overwrite(r#"{"phase":"x","completedTasks":[],"signals":{},"lastActivation":""}"#);
    let edited = copy(&root);
    edited.overwrite(old.replace("\"n\": 3", "\"n\": 30"));
    for (root, what) in &[(put_back, "an old copy"), (unsealed, "no seal"), (edited, "an edit")] {
        let before = root.snapshot();
        for words in [
            "state set n:=9",
            "state init",
            "state adopt",
            "state recover",
            "state recover nightly",
        ] {
            root.run(&format!("{words} --json")).expect_json_error("newer_schema");
            assert_untouched(root, &before, &format!("{what}, {words}"));
        }
    }
    let damaged = copy(&root);
    damage(&damaged, false);
    let before = damaged.snapshot();
    for words in
        ["state get .n", "state set n:=9", "state init", "state recover", "state recover r3"]
    {
        damaged.run(&format!("{words} --json")).expect_json_error("newer_schema");
        assert_untouched(&damaged, &before, words);
    }
}

fn todays_release_keeps_newer_checkpoints(next: &Next) {
    let root = newer(next);
    next.ok(&root, "recover checkpoint good");
    let other = Sandbox::initialized();
    let ids = root.names(".checkpoints");
    let id = ids.iter().find(|id| id.starts_with("checkpoint-")).unwrap();
    let (from, to) = (root.file(".checkpoints").join(id), other.file(".checkpoints"));
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
    let before = other.snapshot();
    other.run("recover restore --latest good --json").expect_json_error("newer_schema");
    assert_untouched(&other, &before, "restore");
}

fn todays_release_reports_a_newer_state(next: &Next) {
    let root = newer(next);
    let before = root.snapshot();
    let status = root.run("state status --json");
    assert_eq!(status.code, 4);
    assert_eq!(status.json()["health"], "newer schema");
    assert_eq!(status.json()["revision"], 5);
    for words in ["state validate", "state validate .workflow-state.json"] {
        let validated = root.run(&format!("{words} --json"));
        assert_eq!((validated.code, &validated.json()["valid"]), (4, &false.into()), "{words}");
        validated.expect_json_error("newer_schema");
    }
    assert_eq!(root.run("recover doctor").code, 4);
    for words in ["recover doctor --fix", "recover handle 7"] {
        root.run(words);
        assert_untouched(&root, &before, words);
    }
}
