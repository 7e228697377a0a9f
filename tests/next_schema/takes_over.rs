//! Files of today's release, read and written by the next one.

use std::fs;
use std::io::Write as _;
use std::process::{Child, Stdio};

use serde_json::{Value, json};

use crate::sandbox::{Ran, Sandbox, installed};
use crate::states::{assert_untouched, damage, interrupted_restore, todays};
use crate::{Claim, Next};

pub const CLAIMS: &[Claim] = &[
    ("a_new_state_has_the_next_schema", a_new_state_has_the_next_schema),
    (
        "readers_get_the_migrated_form_and_change_nothing",
        readers_get_the_migrated_form_and_change_nothing,
    ),
    ("every_writer_migrates_and_pins_the_old_file", every_writer_migrates_and_pins_the_old_file),
    ("conditions_compare_with_the_old_revision", conditions_compare_with_the_old_revision),
    ("a_dry_run_shows_only_what_was_asked_for", a_dry_run_shows_only_what_was_asked_for),
    (
        "a_document_read_before_the_update_can_be_written",
        a_document_read_before_the_update_can_be_written,
    ),
    ("damage_heals_from_old_copies", damage_heals_from_old_copies),
    ("old_backups_are_brought_back_migrated", old_backups_are_brought_back_migrated),
    ("an_edit_of_an_old_document_is_adopted", an_edit_of_an_old_document_is_adopted),
    ("an_old_checkpoint_is_restored_migrated", an_old_checkpoint_is_restored_migrated),
    (
        "a_restore_decided_before_the_update_is_finished",
        a_restore_decided_before_the_update_is_finished,
    ),
    ("hooks_work_on_an_old_state", hooks_work_on_an_old_state),
    ("wait_and_watch_see_the_migrated_form", wait_and_watch_see_the_migrated_form),
];

/// The live file has the next schema, a right digest and this revision.
#[track_caller]
fn assert_migrated(next: &Next, root: &Sandbox, revision: u64) {
    let document = root.document();
    let version =
        (&document["schemaVersion"], &document["pipeline"], &document["metadata"]["migratedFrom"]);
    assert_eq!(version, (&json!("1.1"), &json!("web"), &json!("1.0")));
    assert_eq!(root.revision(), revision);
    let validated = next.run(root, "state validate --json").expect(0).json();
    assert_eq!(validated, json!({"valid": true, "findings": [], "note": null}));
}

fn fed(mut child: Child, input: &[u8]) -> Ran {
    child.stdin.take().unwrap().write_all(input).unwrap();
    Ran::of(child.wait_with_output().unwrap())
}

fn feed(next: &Next, root: &Sandbox, words: &str, input: &[u8]) -> Ran {
    let mut command = next.command(root);
    fed(command.args(words.split_whitespace()).stdin(Stdio::piped()).spawn().unwrap(), input)
}

fn a_new_state_has_the_next_schema(next: &Next) {
    let root = Sandbox::empty();
    next.ok(&root, "state init");
    let document = root.document();
    assert_eq!(
        (&document["schemaVersion"], &document["pipeline"]),
        (&json!("1.1"), &json!("default"))
    );
    assert_eq!(document["metadata"].get("migrated"), None);
}

fn readers_get_the_migrated_form_and_change_nothing(next: &Next) {
    let root = todays();
    let before = root.snapshot();
    let read = next.run(&root, "state read").expect(0).json();
    assert_eq!(
        (&read["schemaVersion"], &read["pipeline"], &read["n"]),
        (&json!("1.1"), &json!("web"), &json!(3))
    );
    assert_eq!(
        (&read["metadata"]["revision"], &read["metadata"]["migratedFrom"]),
        (&json!(4), &json!("1.0"))
    );
    assert_eq!(next.ok(&root, "state get .pipeline"), "web");
    let status = next.run(&root, "state status --json").expect(0).json();
    let shown = (&status["health"], &status["schema"], &status["revision"], &status["mirror"]);
    assert_eq!(shown, (&json!("healthy"), &json!("1.1"), &json!(4), &json!("same")));
    let note = "it has schema 1.0; the next write migrates it to 1.1";
    for words in ["state validate --json", "state validate .workflow-state.json --json"] {
        let validated = next.run(&root, words).expect(0).json();
        assert_eq!(validated, json!({"valid": true, "findings": [], "note": note}), "{words}");
    }
    assert_eq!(next.ok(&root, "state migrate --dry-run"), "State would be migrated: 1.0 -> 1.1");
    assert_eq!(
        next.ok(&root, "state recover --dry-run"),
        "Current state is valid; nothing to recover"
    );
    assert_eq!(
        next.run(&root, "state history --json").expect(0).json().as_array().unwrap().len(),
        4
    );
    let changes = next.run(&root, "state diff --json").expect(0).json();
    assert_eq!(changes, json!([{"path": ".n", "old": 2, "new": 3}]));
    assert_eq!(next.ok(&root, "recover doctor"), "No problems found");
    let backups = next.run(&root, "state backups --json").expect(0).json();
    assert!(backups.as_array().unwrap().iter().all(|backup| backup["valid"] == true), "{backups}");
    assert_untouched(&root, &before, "a reader");
}

fn every_writer_migrates_and_pins_the_old_file(next: &Next) {
    for words in [
        "state set a=b",
        "state set n:=3",
        "state update .a=1",
        "state phase build",
        "state complete a",
        "state signal GO",
        "state migrate",
        "state init",
        "state write same.json",
        "recover degrade slow []",
    ] {
        let root = todays();
        let old = fs::read(root.state()).unwrap();
        fs::copy(root.state(), root.file("same.json")).unwrap();
        let said = next.run(&root, words).expect(0).stdout;
        assert!(
            words != "state migrate" || said.starts_with("State migrated: 1.0 -> 1.1"),
            "{said}"
        );
        assert_migrated(next, &root, 5);
        let pinned: Vec<String> = root
            .shelf("state-")
            .into_iter()
            .filter(|name| name.ends_with("-r4-pre-migration.json"))
            .collect();
        assert_eq!(pinned.len(), 1, "{words}");
        assert_eq!(fs::read(root.file(".state-backups").join(&pinned[0])).unwrap(), old, "{words}");
        assert!(next.ok(&root, "state recover").contains(&pinned[0]), "{words}");
        assert_eq!(
            next.run(&root, "state migrate").expect(0).stdout,
            "State is already at schema 1.1\n"
        );
    }
}

fn conditions_compare_with_the_old_revision(next: &Next) {
    let root = todays();
    let refused = next.run(&root, "state set a=b --if-revision 3 --json");
    assert_eq!(refused.expect_json_error("conflict")["details"]["revision"], 4);
    next.run(&root, "state set a=b --if-revision 4").expect(0);
    assert_migrated(next, &root, 5);
}

fn a_dry_run_shows_only_what_was_asked_for(next: &Next) {
    let root = todays();
    let before = root.snapshot();
    let changes = next.run(&root, "state set a=b --dry-run --json").expect(0).json();
    assert_eq!(changes, json!([{"path": ".a", "new": "b"}]));
    assert_untouched(&root, &before, "a reader");
}

fn a_document_read_before_the_update_can_be_written(next: &Next) {
    let root = todays();
    let mut read: Value = serde_json::from_str(&root.ok("state read")).unwrap();
    read["n"] = json!(7);
    let written = feed(next, &root, "state write -", read.to_string().as_bytes()).expect(0);
    assert!(written.stderr.contains("older form (1.0)"), "{}", written.stderr);
    assert_migrated(next, &root, 5);
    assert_eq!(root.document()["n"], 7);
    // And once more: now it is stale.
    let stale = feed(next, &root, "state write - --json", read.to_string().as_bytes());
    stale.expect_json_error("conflict");
    // The migrated document is written unchanged.
    let root = todays();
    let read = next.ok(&root, "state read");
    let written = feed(next, &root, "state write -", read.as_bytes()).expect(0);
    assert_eq!(written.stderr, "");
    assert_migrated(next, &root, 5);
}

fn damage_heals_from_old_copies(next: &Next) {
    for (also_mirror, n) in [(false, 3), (true, 2)] {
        for words in ["state get .pipeline", "state set a=b", "state init", "recover doctor --fix"]
        {
            let root = todays();
            damage(&root, also_mirror);
            let ran = next.run(&root, words);
            assert!(words.starts_with("recover") || ran.code == 0, "{words}: {ran:?}");
            let document = root.document();
            assert_eq!(
                (&document["schemaVersion"], &document["n"]),
                (&json!("1.1"), &json!(n)),
                "{words}"
            );
            assert_migrated(next, &root, if words == "state set a=b" { 6 } else { 5 });
        }
        let root = todays();
        fs::remove_file(root.state()).unwrap();
        if also_mirror {
            fs::remove_file(root.mirror()).unwrap();
        }
        next.run(&root, "state recover").expect(0);
        assert_eq!(root.document()["n"], n);
        assert_eq!(root.document()["schemaVersion"], "1.1");
    }
}

fn old_backups_are_brought_back_migrated(next: &Next) {
    for wanted in ["nightly", "--to-revision 2"] {
        let root = todays();
        root.ok("state backup nightly");
        root.ok("state set n:=4");
        let planned =
            next.run(&root, &format!("state recover {wanted} --dry-run --json")).expect(0).json();
        let paths: Vec<&Value> =
            planned.as_array().unwrap().iter().map(|change| &change["path"]).collect();
        assert_eq!(paths, [".n"], "{planned}");
        next.run(&root, &format!("state recover {wanted}")).expect(0);
        assert_migrated(next, &root, 6);
    }
}

fn an_edit_of_an_old_document_is_adopted(next: &Next) {
    let edited = |root: &Sandbox| {
        let text = fs::read_to_string(root.state()).unwrap();
        root.overwrite(text.replace("\"n\": 3", "\"n\": 30"));
    };
    let root = todays();
    edited(&root);
    let refused = next.run(&root, "state set a=b --json");
    let error = refused.expect_json_error("foreign_edit");
    assert_eq!(error["details"]["changes"], json!([{"path": ".n", "old": 3, "new": 30}]));
    next.run(&root, "state adopt").expect(0);
    assert_migrated(next, &root, 5);
    let kept = root.shelf("state-").into_iter().find(|name| name.contains("pre-adopt")).unwrap();
    let kept = next.run(&root, &format!("state recover {kept}")).expect(0);
    assert!(
        kept.stdout.contains("revision 6"),
        "the reference verifies as it was sealed: {kept:?}"
    );
    assert_eq!(root.document()["n"], 3);

    let root = todays();
    edited(&root);
    let mut accepting = next.command(&root);
    let set = accepting
        .env("STATE_FOREIGN_EDITS", "accept")
        .args(["state", "set", "a=b"])
        .output()
        .unwrap();
    Ran::of(set).expect(0);
    assert_migrated(next, &root, 5);
    assert_eq!(root.document()["n"], 30);

    let root = todays();
    edited(&root);
    next.run(&root, "state recover").expect(0);
    assert_migrated(next, &root, 5);
}

fn an_old_checkpoint_is_restored_migrated(next: &Next) {
    let root = todays();
    root.ok("recover checkpoint good");
    root.ok("state set n:=4");
    next.run(&root, "recover verify").expect(0);
    next.run(&root, "recover restore --latest good").expect(0);
    assert_migrated(next, &root, 6);
    assert_eq!(root.document()["n"], 3);
    // The checkpoint made by the restore holds the old form, and restores as well.
    next.run(&root, "recover restore --latest pre-restore").expect(0);
    assert_migrated(next, &root, 7);
    assert_eq!(root.document()["n"], 4);
    // So does a guard's checkpoint, which holds an old document.
    let root = todays();
    let mut guard = next.command(&root);
    let guard = guard.args([
        "recover",
        "guard",
        "try",
        "--",
        "sh",
        "-c",
        "$PIPELINE_BINARY state set n:=9; exit 7",
    ]);
    assert_eq!(guard.output().unwrap().status.code(), Some(7));
    assert_eq!(root.document()["n"], 3);
}

fn a_restore_decided_before_the_update_is_finished(next: &Next) {
    if !installed("strace") {
        return;
    }
    let root = todays();
    root.ok("recover checkpoint good");
    root.ok("state set n:=4");
    let interrupted = interrupted_restore(&root);
    let read = next.run(&interrupted, "state read").expect(0).json();
    assert_eq!(
        (&read["n"], &read["pipeline"], &read["schemaVersion"]),
        (&json!(3), &json!("web"), &json!("1.1"))
    );
    next.run(&interrupted, "state set a=b").expect(0);
    assert_migrated(next, &interrupted, 7);
}

fn hooks_work_on_an_old_state(next: &Next) {
    const RULES: &str = r#"{"skills": [{
        "skill": "spec", "activation_code": "SPEC_V1", "phase": "phase1",
        "trigger_conditions": {"user_patterns": ["write .*spec"]}}],
        "tool_rules": [{"tool": "Write", "path_glob": "docs/*.md", "emit_signal": "WRITTEN"}]}"#;
    let root = todays();
    fs::create_dir(root.file("config")).unwrap();
    fs::write(root.file("config/skill-rules.json"), RULES).unwrap();
    let cwd = root.path();
    let prompt =
        json!({"prompt": "write the spec", "cwd": cwd, "hook_event_name": "UserPromptSubmit"})
            .to_string();
    let answer = feed(next, &root, "hook skill-activation-prompt", prompt.as_bytes()).expect(0);
    assert!(answer.stdout.contains("SPEC_V1"), "{answer:?}");
    let tool = json!({"tool_name": "Write", "tool_input": {"file_path": cwd.join("docs/a.md")},
        "cwd": cwd,
        "hook_event_name": "PostToolUse", "tool_response": {}});
    feed(next, &root, "hook post-tool-use-tracker", tool.to_string().as_bytes()).expect(0);
    assert!(root.document()["signals"]["WRITTEN"].is_number(), "{}", root.document());
    assert_eq!(root.document()["schemaVersion"], "1.1");
    assert!(root.file(".signals/WRITTEN.json").exists());
}

fn wait_and_watch_see_the_migrated_form(next: &Next) {
    let root = todays();
    next.run(&root, "state wait .pipeline --timeout 60").expect(0);
    let mut command = next.command(&root);
    let mut watch =
        command.args(["state", "watch", ".pipeline"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(
        &mut std::io::BufReader::new(watch.stdout.take().unwrap()),
        &mut line,
    )
    .unwrap();
    watch.kill().unwrap();
    watch.wait().unwrap();
    assert_eq!(line, "\"web\"\n");
}
