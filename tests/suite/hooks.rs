//! Hooks: the effects of an editor's events, by the rules of `config/skill-rules.json`.

use std::fs;
use std::io::Write as _;
use std::process::{Child, Stdio};

use serde_json::{Value, json};

use crate::restore_kill::interrupted;
use crate::sandbox::{Ran, Sandbox, installed};

pub const PROMPT: &str = "hook skill-activation-prompt";
pub const TOOL: &str = "hook post-tool-use-tracker";

/// The rules of most tests.
pub const RULES: &str = r#"{
  "skills": [
    {"skill": "spec", "activation_code": "SPEC_GEN_V1", "phase": "phase1",
     "trigger_conditions": {"user_patterns": ["write .*spec"]}},
    {"skill": "plan", "activation_code": "PLAN_V1", "phase": "phase2",
     "trigger_conditions": {"user_patterns": ["plan"], "file_patterns": ["docs/*.md"]}}
  ],
  "phase_transitions": {
    "SPEC_WRITTEN": {"next_activation": "PLAN_V1", "auto_trigger": true, "delay_seconds": 2},
    "TESTED": {"next_activation": "SPEC_GEN_V1", "auto_trigger": false}
  },
  "tool_rules": [
    {"tool": "Write|Edit", "path_glob": "docs/*.md", "emit_signal": "SPEC_WRITTEN",
        "phase": "phase2", "message": "well done"},
    {"tool": "Bash", "command_regex": "^make test", "requires_signal": "SPEC_WRITTEN",
        "emit_signal": "TESTED"},
    {"tool": "Bash", "command_regex": "^make", "emit_signal": "MADE", "phase": "phase3"}
  ]
}"#;

/// A state with these rules.
pub fn with_rules(rules: &str) -> Sandbox {
    let sandbox = Sandbox::initialized();
    write_rules(&sandbox, rules);
    sandbox
}

pub fn write_rules(sandbox: &Sandbox, rules: &str) {
    fs::create_dir_all(sandbox.file("config")).unwrap();
    fs::write(sandbox.file("config/skill-rules.json"), rules).unwrap();
}

/// The documented event of a prompt.
pub fn prompted(sandbox: &Sandbox, prompt: &str) -> Value {
    json!({
        "session_id": "abc123", "transcript_path": "/x/y.jsonl", "cwd": sandbox.path(),
        "permission_mode": "default",
        "hook_event_name": "UserPromptSubmit", "prompt": prompt
    })
}

/// The documented event of a command that was run.
pub fn ran_command(sandbox: &Sandbox, command: &str) -> Value {
    used(sandbox, "Bash", json!({"command": command, "description": "x"}))
}

pub fn used(sandbox: &Sandbox, tool: &str, input: Value) -> Value {
    json!({
        "session_id": "abc123", "transcript_path": "/x/y.jsonl", "cwd": sandbox.path(),
        "permission_mode": "default",
        "hook_event_name": "PostToolUse", "tool_name": tool, "tool_input": input,
        "tool_response": {"stdout": "", "stderr": "", "interrupted": false},
        "tool_use_id": "toolu_01"
    })
}

pub fn fire(sandbox: &Sandbox, hook: &str, event: &Value) -> Ran {
    fire_with(sandbox, hook, event, &[])
}

pub fn fire_with(
    sandbox: &Sandbox,
    hook: &str,
    event: &Value,
    environment: &[(&str, &str)],
) -> Ran {
    let mut child = started(sandbox, hook, environment);
    // a hook that refuses early may close its end
    let _ = child.stdin.take().unwrap().write_all(event.to_string().as_bytes());
    Ran::of(child.wait_with_output().unwrap())
}

/// Starts a hook with a pipe as standard input.
pub fn started(sandbox: &Sandbox, hook: &str, environment: &[(&str, &str)]) -> Child {
    let mut command = sandbox.command();
    command.args(hook.split(' ')).envs(environment.iter().copied()).stdin(Stdio::piped());
    command.spawn().unwrap()
}

/// The context for the agent, in the documented form and no other.
#[track_caller]
pub fn context(ran: &Ran, event: &str) -> String {
    let answer = ran.json();
    let context = answer["hookSpecificOutput"]["additionalContext"].as_str().unwrap().to_owned();
    let form =
        json!({"hookSpecificOutput": {"hookEventName": event, "additionalContext": context}});
    assert_eq!(answer, form);
    context
}

#[track_caller]
fn silent(ran: &Ran) {
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (0, "", ""));
}

// ---- prompts ----

#[test]
fn a_matching_prompt_is_announced_and_recorded_once() {
    let old = |prompt: &str| json!({ "message": prompt });
    let sandbox = with_rules(RULES);
    for (event, revision) in [
        (prompted(&sandbox, "please WRITE\ta spec; write a good spec"), 2),
        (old("write another spec"), 2), // no change, no commit
    ] {
        let ran = fire(&sandbox, PROMPT, &event).expect(0);
        assert_eq!(context(&ran, "UserPromptSubmit"), "[ACTIVATE:SPEC_GEN_V1]");
        let state = sandbox.document();
        assert_eq!(
            (&state["phase"], &state["lastActivation"]),
            (&json!("phase1"), &json!("SPEC_GEN_V1"))
        );
        assert_eq!(sandbox.revision(), revision);
    }
    sandbox.ok("state phase elsewhere");
    assert_eq!(
        context(&fire(&sandbox, PROMPT, &old("write spec")), "UserPromptSubmit"),
        "[ACTIVATE:SPEC_GEN_V1]"
    );
    assert_eq!((sandbox.revision(), sandbox.ok("state phase")), (4, "phase1".to_owned()));
    silent(&fire(&sandbox, PROMPT, &prompted(&sandbox, "hello")));
    let history = sandbox.run("state history --json").json();
    assert_eq!(history[0]["command"], PROMPT, "{history}");
}

#[test]
fn a_skill_waits_for_the_files_that_it_needs() {
    let sandbox = with_rules(RULES);
    let event = prompted(&sandbox, "make a plan");
    silent(&fire(&sandbox, PROMPT, &event));
    fs::create_dir(sandbox.file("docs")).unwrap();
    fs::write(sandbox.file("docs/spec.md"), "").unwrap();
    assert_eq!(
        context(&fire(&sandbox, PROMPT, &event).expect(0), "UserPromptSubmit"),
        "[ACTIVATE:PLAN_V1]"
    );
}

// ---- tools ----

#[test]
fn a_used_tool_gives_its_signal_and_announces_the_next_step() {
    let old = json!({"tool": "Write", "input": {"file_path": "docs/spec.md"}});
    for shape in ["documented", "older"] {
        let sandbox = with_rules(RULES);
        let file = sandbox.file("docs/spec.md");
        let event = if shape == "older" {
            old.clone()
        } else {
            used(&sandbox, "Write", json!({"file_path": file, "content": "x"}))
        };
        let ran = fire(&sandbox, TOOL, &event).expect(0);
        assert_eq!(
            context(&ran, "PostToolUse"),
            "well done\n[ACTIVATE:PLAN_V1] (wait 2 s before)",
            "{shape}"
        );
        let state = sandbox.document();
        assert_eq!(
            (&state["lastSignal"], &state["phase"], &state["lastActivation"], sandbox.revision()),
            (&json!("SPEC_WRITTEN"), &json!("phase2"), &json!("PLAN_V1"), 2)
        );
        let file: Value =
            serde_json::from_slice(&fs::read(sandbox.file(".signals/SPEC_WRITTEN.json")).unwrap())
                .unwrap();
        assert!(
            file["timestamp"].is_number() && file["timestamp"] == state["signals"]["SPEC_WRITTEN"]
        );
        assert_eq!(
            (&file["phase"], &file["metadata"]),
            (&json!("phase2"), &json!({"tool": "Write"}))
        );
        let history = sandbox.run("state history --json").json();
        assert_eq!(
            (&history[0]["command"], &history[0]["reason"]),
            (&json!(TOOL), &json!("SPEC_WRITTEN"))
        );
        sandbox.run("recover doctor").expect(0);
    }
}

#[test]
fn several_rules_take_effect_in_one_commit() {
    let sandbox = with_rules(RULES);
    let test = ran_command(&sandbox, "make test");
    silent(&fire(&sandbox, TOOL, &test));
    assert_eq!(
        sandbox.document()["signals"].as_object().unwrap().keys().collect::<Vec<_>>(),
        ["MADE"]
    );
    sandbox.ok("state signal SPEC_WRITTEN");
    let ran = fire(&sandbox, TOOL, &test).expect(0);
    let told = context(&ran, "PostToolUse");
    assert!(told.contains("SPEC_GEN_V1") && !told.contains("ACTIVATE"), "a suggestion: {told}");
    assert_eq!((sandbox.revision(), sandbox.ok("state phase")), (4, "phase3".to_owned()));
    let signals = sandbox.document()["signals"].clone();
    assert_eq!(signals["TESTED"], signals["MADE"]);
    assert_eq!(ran.stderr, "");
    assert_eq!(sandbox.names(".signals"), ["MADE.json", "SPEC_WRITTEN.json", "TESTED.json"]);
    for signal in ["MADE", "TESTED"] {
        let file = fs::read(sandbox.file(format!(".signals/{signal}.json"))).unwrap();
        let file: Value = serde_json::from_slice(&file).unwrap();
        assert_eq!((&file["signal"], &file["timestamp"]), (&json!(signal), &signals[signal]));
    }
    assert!(sandbox.debris().is_empty());
}

#[test]
fn a_use_that_failed_or_has_not_taken_place_gives_no_signal() {
    let sandbox = with_rules(RULES);
    let mut failed = ran_command(&sandbox, "make");
    failed["tool_response"] = json!({"stdout": "", "exit_code": 2});
    silent(&fire(&sandbox, TOOL, &failed));
    let mut failed = ran_command(&sandbox, "make");
    failed["hook_event_name"] = json!("PostToolUseFailure");
    silent(&fire(&sandbox, TOOL, &failed));
    failed["hook_event_name"] = json!("PreToolUse");
    fire(&sandbox, TOOL, &failed).expect(1).saying("comes too early").saying("hook settings");
    for other in [
        used(&sandbox, "Write", json!({"file_path": "/etc/docs/x.md"})),
        ran_command(&sandbox, "cmake"),
    ] {
        silent(&fire(&sandbox, TOOL, &other));
    }
    assert_eq!(sandbox.revision(), 1);
}

#[test]
fn no_output_option_changes_the_answer_to_an_editor() {
    let sandbox = with_rules(RULES);
    let event = prompted(&sandbox, "write a spec");
    let plain = fire(&sandbox, PROMPT, &event).expect(0).stdout;
    for options in ["--json", "-q", "--format text --color always", "--lock-exit 0"] {
        assert_eq!(
            fire(&sandbox, &format!("{PROMPT} {options}"), &event).expect(0).stdout,
            plain,
            "{options}"
        );
    }
}

// ---- where ----

#[test]
fn the_root_is_the_one_named_else_the_projects_else_where_the_editor_is() {
    let (named, project, editor) = (with_rules(RULES), with_rules(RULES), with_rules(RULES));
    let elsewhere = Sandbox::empty();
    fs::create_dir_all(editor.file("deep/er")).unwrap();
    let mut event = ran_command(&editor, "make");
    event["cwd"] = json!(editor.file("deep/er"));
    let path = |root: &Sandbox| root.path().to_str().unwrap().to_owned();
    let revisions = || [&named, &project, &editor].map(Sandbox::revision);
    silent(&fire(&elsewhere, TOOL, &event));
    assert_eq!(revisions(), [1, 1, 2]);
    silent(&fire_with(&elsewhere, TOOL, &event, &[("CLAUDE_PROJECT_DIR", &path(&project))]));
    assert_eq!(revisions(), [1, 2, 2]);
    let both = [("CLAUDE_PROJECT_DIR", path(&project)), ("PIPELINE_ROOT", path(&named))];
    silent(&fire_with(
        &elsewhere,
        TOOL,
        &event,
        &both.each_ref().map(|(name, value)| (*name, value.as_str())),
    ));
    assert_eq!(revisions(), [2, 2, 2]);
    silent(&fire_with(&elsewhere, &format!("--root {} {TOOL}", path(&named)), &event, &[]));
    assert_eq!(revisions(), [3, 2, 2]);
    // a project without a state has none, wherever the editor works; without either, the working
    // directory counts
    silent(&fire_with(&elsewhere, TOOL, &event, &[("CLAUDE_PROJECT_DIR", &path(&elsewhere))]));
    silent(&fire(&project, TOOL, &json!({"tool": "Bash", "input": "make"})));
    assert_eq!(revisions(), [3, 3, 2]);
}

#[test]
fn a_state_in_the_projects_own_directory_means_the_projects_files() {
    let sandbox = Sandbox::empty();
    fs::create_dir_all(sandbox.file(".claude/config")).unwrap();
    fs::write(sandbox.file(".claude/config/skill-rules.json"), RULES).unwrap();
    sandbox.ok("--root .claude state init");
    let event = used(&sandbox, "Edit", json!({"file_path": sandbox.file("docs/a.md")}));
    context(&fire(&sandbox, TOOL, &event).expect(0), "PostToolUse");
    assert_eq!(sandbox.ok("state get .lastSignal"), "SPEC_WRITTEN");
}

#[test]
fn without_state_or_rules_a_hook_is_silent() {
    let sandbox = Sandbox::empty();
    write_rules(&sandbox, RULES);
    let before = sandbox.snapshot();
    for (hook, event) in
        [(PROMPT, prompted(&sandbox, "write a spec")), (TOOL, ran_command(&sandbox, "make"))]
    {
        silent(&fire(&sandbox, hook, &event));
        silent(&fire(
            &sandbox,
            &format!("--root {}/gone {hook}", sandbox.path().display()),
            &event,
        ));
        assert_eq!(sandbox.snapshot(), before);
        let without = Sandbox::initialized();
        silent(&fire(&without, hook, &event));
        assert_eq!(without.revision(), 1);
    }
}

// ---- a damaged or missing state ----

#[test]
fn a_foreign_edit_is_never_sealed_by_a_hook() {
    for accept in ["", "accept"] {
        let sandbox = with_rules(RULES);
        sandbox
            .overwrite(fs::read_to_string(sandbox.state()).unwrap().replace("pre-init", "by-hand"));
        let before = sandbox.snapshot();
        let fire = |hook: &str, event: Value| {
            fire_with(&sandbox, hook, &event, &[("STATE_FOREIGN_EDITS", accept)])
        };
        let ran = fire(PROMPT, prompted(&sandbox, "write a spec")).expect(0);
        assert_eq!(context(&ran, "UserPromptSubmit"), "[ACTIVATE:SPEC_GEN_V1]");
        assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
        ran.saying("SPEC_GEN_V1 is not recorded").saying("something else");
        let ran = fire(TOOL, ran_command(&sandbox, "make"))
            .expect(1)
            .saying("the signal MADE is not recorded");
        assert_eq!(ran.saying("state adopt").stdout, "");
        assert_eq!(sandbox.snapshot(), before);
    }
}

#[test]
fn a_hook_heals_a_damaged_state_and_reports_a_missing_one() {
    let sandbox = with_rules(RULES);
    sandbox.ok("state set n:=1");
    sandbox.overwrite("{\"phase\":");
    fire(&sandbox, TOOL, &ran_command(&sandbox, "make")).expect(0).saying("restored");
    assert_eq!(
        (sandbox.ok("state get .lastSignal"), sandbox.ok("state get .n")),
        ("MADE".into(), "1".into())
    );
    fs::remove_file(sandbox.state()).unwrap();
    fire(&sandbox, TOOL, &ran_command(&sandbox, "make"))
        .expect(1)
        .saying("the signal MADE is not recorded");
    let ran = fire(&sandbox, PROMPT, &prompted(&sandbox, "write a spec")).expect(0);
    assert_eq!(context(&ran, "UserPromptSubmit"), "[ACTIVATE:SPEC_GEN_V1]");
    silent(&fire(&sandbox, TOOL, &ran_command(&sandbox, "ls")));
}

#[test]
fn a_hook_first_finishes_an_interrupted_restore() {
    if !installed("strace") {
        return;
    }
    let start = with_rules(RULES);
    start.ok("state set n:=3");
    start.ok("recover checkpoint good");
    start.ok("state set n:=4");
    write_rules(&start, &RULES.replace("MADE", "OTHER"));
    let root = interrupted(&start, "config");
    fire(&root, TOOL, &ran_command(&root, "make")).expect(0).saying("was finished");
    let state = root.document();
    assert_eq!((&state["n"], &state["lastSignal"]), (&json!(3), &json!("MADE")));
    assert!(!root.file(".checkpoints/.in-progress/intent.json").exists());
}
