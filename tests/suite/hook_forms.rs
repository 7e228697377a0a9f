//! Forms of existing rules: those of the shell original, and skills by name.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::{Value, json};

use crate::hooks::{PROMPT, TOOL, context, fire, fire_with, prompted, write_rules};
use crate::sandbox::{Ran, Sandbox};

/// The form of the original's rules: phases as numbers, alternative files, fields that hooks
/// ignore.
const ORIGINAL: &str = r#"{"version": "2.0", "activation_mode": "codeword", "description": "rules",
 "skills": [
  {"skill": "conduct", "activation_code": "CONDUCT_V1", "phase": 0,
   "trigger_conditions": {"user_patterns": ["start the pipeline"],
   "file_exists": ["BRIEF.md", "sign-off"],
     "phase_state": "phase0_complete"},
   "outputs": {"signals": ["STARTED"], "next_activation": "SPLIT_V1"}, "priority": 1},
  {"skill": "split", "activation_code": "SPLIT_V1", "phase": 1.5,
   "trigger_conditions": {"user_patterns": ["split the work", "item 24"],
     "file_patterns": ["gone.md", "needs", "docs/BRIEF"], "phase_state": "ready"},
   "outputs": {"files": ["work.json"], "signals": ["SPLIT"]}, "priority": 2},
  {"skill": "build", "activation_code": "BUILD_V1", "phase": 3,
   "trigger_conditions": {"user_patterns": ["build"], "signals_detected": ["SPLIT"]},
   "priority": 3}],
 "tool_rules": [{"tool": "Write", "path_glob": "work.json", "emit_signal": "SPLIT", "phase": 2},
  {"tool": "Bash", "command_regex": "^make", "emit_signal": "BUILT"}],
 "phase_transitions": {
  "SPLIT": {"next_activation": "BUILD_V1", "auto_trigger": true,
  "requires_user_confirmation": false, "delay_seconds": 0},
  "BUILT": {"next_activation": "CONDUCT_V1", "auto_trigger": true, "approval_gate": "GO",
  "note": "n"},
  "DONE": {"next_activation": null, "auto_trigger": false}},
 "error_recovery": {"max_retries": 3}, "notes": {"a": "b"}}"#;

/// Skills by name, as several hundred projects have them.
const BY_NAME: &str = r#"{"version": "1.0", "description": "d",
 "skills": {
  "style": {"type": "domain", "enforcement": "suggest", "priority": "low",
  "promptTriggers": {"keywords": ["CSS"]}},
  "database": {"type": "guardrail", "enforcement": "block", "priority": "critical",
   "promptTriggers": {"keywords": ["column"],
   "intentPatterns": ["(?=x)y", "(alter|change).*?table"]},
   "fileTriggers": {"pathPatterns": ["db/**/*.sql"], "pathExclusions": ["**/test/**"],
   "contentPatterns": ["DROP +TABLE"]},
   "blockMessage": "Look at {file_path} again.",
   "skipConditions": {"sessionSkillUsed": true, "fileMarkers": ["@checked"],
   "envOverride": "SKIP_DB"}}},
 "notes": {"enforcement_types": {"block": "x"}}}"#;

fn with_editors_rules(rules: &str) -> Sandbox {
    let sandbox = Sandbox::initialized();
    fs::create_dir_all(sandbox.file(".claude/skills")).unwrap();
    fs::write(sandbox.file(".claude/skills/skill-rules.json"), rules).unwrap();
    sandbox
}

fn touch(sandbox: &Sandbox, name: &str) {
    fs::create_dir_all(sandbox.file(name).parent().unwrap()).unwrap();
    fs::write(sandbox.file(name), "").unwrap();
}

/// The announcements of the prompt's hook.
#[track_caller]
fn asked(sandbox: &Sandbox, prompt: &str) -> String {
    let ran = fire(sandbox, PROMPT, &prompted(sandbox, prompt));
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    if ran.stdout.is_empty() { String::new() } else { context(&ran, "UserPromptSubmit") }
}

fn changed(sandbox: &Sandbox, path: &Path, environment: &[(&str, &str)]) -> Ran {
    let event = json!({
        "cwd": sandbox.path(), "hook_event_name": "PostToolUse", "tool_name": "Edit",
        "tool_input": {"file_path": path}, "tool_response": {"type": "update"},
    });
    fire_with(sandbox, TOOL, &event, environment)
}

// ---- the original's ----

#[test]
fn the_originals_rules_are_read_with_numeric_phases() {
    let sandbox = Sandbox::initialized();
    write_rules(&sandbox, ORIGINAL);
    let ran = sandbox.run("hook check").expect(0);
    assert!(
        ran.stdout.starts_with("Hook rules: PASSED (3 skills, 2 phase_transitions, 2 tool_rules"),
        "{}",
        ran.stdout
    );
    for field in ["signals_detected", "phase_state", "outputs", "priority", "error_recovery"] {
        assert_eq!(
            ran.stdout.matches(&format!("`{field}` is not used")).count(),
            1,
            "{field}: {}",
            ran.stdout
        );
    }
    assert_eq!(asked(&sandbox, "please build it"), "[ACTIVATE:BUILD_V1]");
    assert_eq!(
        (sandbox.ok("state phase"), sandbox.ok("state get .lastActivation")),
        ("3".into(), "BUILD_V1".into())
    );
    assert_eq!(asked(&sandbox, "split the work"), "", "none of the files is there");
    touch(&sandbox, "docs/BRIEF.md");
    assert_eq!(asked(&sandbox, "split the work"), "[ACTIVATE:SPLIT_V1]", "with .md");
    assert_eq!(sandbox.ok("state phase"), "1.5");
    assert_eq!(asked(&sandbox, "start the pipeline"), "", "one of two files that must exist");
    touch(&sandbox, "docs/sign-off");
    assert_eq!(asked(&sandbox, "start the pipeline"), "[ACTIVATE:CONDUCT_V1]", "both below docs/");
    assert_eq!(sandbox.ok("state phase"), "0");
}

#[test]
fn a_transition_with_an_approval_gate_is_suggested_until_the_gate_is_open() {
    let sandbox = Sandbox::initialized();
    write_rules(&sandbox, ORIGINAL);
    let made =
        json!({"cwd": sandbox.path(), "tool_name": "Bash", "tool_input": {"command": "make"}});
    let told = context(&fire(&sandbox, TOOL, &made).expect(0), "PostToolUse");
    assert!(told.contains("CONDUCT_V1") && !told.contains("ACTIVATE"), "{told}");
    sandbox.ok("state signal GO");
    assert_eq!(
        context(&fire(&sandbox, TOOL, &made).expect(0), "PostToolUse"),
        "[ACTIVATE:CONDUCT_V1]"
    );
}

// ---- by name ----

#[test]
fn skills_by_name_are_announced_by_priority_and_the_first_is_kept() {
    let sandbox = with_editors_rules(BY_NAME);
    let told = asked(&sandbox, "change the TABLE and its css");
    assert_eq!(
        told,
        "[ACTIVATE:database] (required before going on; priority critical)\n\
         [ACTIVATE:style] (suggested; priority low)"
    );
    assert_eq!(
        (sandbox.ok("state get .lastActivation"), sandbox.ok("state phase")),
        ("database".into(), "pre-init".into())
    );
    assert_eq!(asked(&sandbox, "hello"), "");
    assert_eq!(sandbox.revision(), 2, "it announces, and blocks nothing");
}

#[test]
fn a_changed_file_triggers_by_path_and_by_contents() {
    let sandbox = with_editors_rules(BY_NAME);
    let elsewhere = Sandbox::empty();
    fs::write(elsewhere.file("secret.sql"), "DROP TABLE x").unwrap();
    fs::create_dir_all(sandbox.file("db/test")).unwrap();
    fs::create_dir_all(sandbox.file("db/in")).unwrap();
    symlink(elsewhere.file("secret.sql"), sandbox.file("db/link.sql")).unwrap();
    symlink(elsewhere.path(), sandbox.file("db/out")).unwrap();
    for (name, text) in [
        ("db/in/a.sql", "drop; DROP  TABLE x"),
        ("db/in/fine.sql", "SELECT"),
        ("db/in/checked.sql", "DROP TABLE x -- @checked"),
        ("db/test/a.sql", "DROP TABLE x"),
    ] {
        fs::write(sandbox.file(name), text).unwrap();
    }
    let large = format!("DROP TABLE x{}", " ".repeat(1 << 20));
    fs::write(sandbox.file("db/in/large.sql"), large).unwrap();
    let path = sandbox.file("db/in/a.sql");
    let told = context(&changed(&sandbox, &path, &[]).expect(0), "PostToolUse");
    let shown = path.display();
    assert_eq!(
        told,
        format!(
            "[ACTIVATE:database] (required before going on; priority critical)\n\
             Look at {shown} again."
        )
    );
    for quiet in [
        "db/in/fine.sql",
        "db/in/checked.sql",
        "db/in/large.sql",
        "db/test/a.sql",
        "db/link.sql",
        "db/out/secret.sql",
        "db/gone.sql",
    ] {
        assert_eq!(changed(&sandbox, &sandbox.file(quiet), &[]).expect(0).stdout, "", "{quiet}");
    }
    assert_eq!(changed(&sandbox, &path, &[("SKIP_DB", "1")]).expect(0).stdout, "");
    assert_eq!(sandbox.revision(), 1, "an announcement alone is no change");
}

#[test]
fn a_check_names_the_file_its_form_and_its_unused_parts() {
    let sandbox = with_editors_rules(BY_NAME);
    let ran = sandbox.run("hook check").expect(4).saying("1 problem found");
    for words in [
        "FAILED (2 skills",
        "read: ",
        ".claude/skills/skill-rules.json (skills as an object)",
        "look-around",
        "intentPatterns[0]",
        "`type` is not used (2 times)",
        "`sessionSkillUsed` is not used",
    ] {
        assert!(ran.stdout.contains(words), "{words}: {}", ran.stdout);
    }
    let told: Value = sandbox.run("hook check --json").json();
    assert_eq!((&told["form"], &told["unread"]), (&json!("object"), &json!(null)));
    // the rules in config/ come first, whatever they are; nothing is merged
    write_rules(&sandbox, ORIGINAL);
    let told: Value = sandbox.run("hook check --json").expect(0).json();
    let unread = sandbox.file(".claude/skills/skill-rules.json");
    assert_eq!((&told["form"], &told["unread"]), (&json!("array"), &json!(unread)));
    assert!(sandbox.ok("hook check").contains(&format!("not read: {}", unread.display())));
    assert_eq!(asked(&sandbox, "the css"), "");
}

#[test]
fn in_a_root_that_is_the_editors_own_directory_its_skills_are_meant() {
    let sandbox = Sandbox::empty();
    fs::create_dir_all(sandbox.file(".claude/skills")).unwrap();
    fs::write(sandbox.file(".claude/skills/skill-rules.json"), BY_NAME).unwrap();
    sandbox.ok("--root .claude state init");
    assert!(asked(&sandbox, "the css").contains("[ACTIVATE:style]"));
    touch(&sandbox, "db/a.sql");
    fs::write(sandbox.file("db/a.sql"), "DROP TABLE x").unwrap();
    let told = context(&changed(&sandbox, &sandbox.file("db/a.sql"), &[]).expect(0), "PostToolUse");
    assert!(told.contains("[ACTIVATE:database]"), "{told}");
}

#[test]
fn skills_by_name_in_config_are_read_and_the_check_says_where_they_belong() {
    let sandbox = Sandbox::initialized();
    write_rules(&sandbox, &BY_NAME.replace("\"(?=x)y\", ", ""));
    assert!(asked(&sandbox, "the css").contains("[ACTIVATE:style]"));
    let ran = sandbox.run("hook check").expect(4);
    assert!(
        ran.stdout.contains("belongs in") && ran.stdout.contains(".claude/skills/skill-rules.json"),
        "{}",
        ran.stdout
    );
}

// ---- events ----

#[test]
fn empty_prompts_and_byte_order_marks_are_ignored() {
    let sandbox = Sandbox::initialized();
    write_rules(
        &sandbox,
        concat!(
            r#"{"skills": [{"skill": "s", "activation_code": "S", "#,
            r#""trigger_conditions": {"file_patterns": ["*"]}}]}"#
        ),
    );
    for event in [
        r#"{"hook_event_name":"UserPromptSubmit"}"#,
        r#"{"hook_event_name":"UserPromptSubmit","prompt":""}"#,
        r#"{"prompt":null}"#,
        r#"{"prompt":[{"type":"image"}]}"#,
        r#"{"prompt":7}"#,
    ] {
        let ran = sandbox.feed(PROMPT, event.as_bytes());
        assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (0, "", ""), "{event}");
    }
    let ran = sandbox.feed(PROMPT, "\u{feff}{\"prompt\":\"x\"}".as_bytes()).expect(0);
    assert_eq!(context(&ran, "UserPromptSubmit"), "[ACTIVATE:S]");
}
