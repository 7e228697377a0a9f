//! Hooks: settings that can be pasted, and rules to begin with.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};

use crate::hooks::*;
use crate::sandbox::Sandbox;

#[test]
fn the_settings_can_be_pasted_and_call_this_very_program() {
    let sandbox = with_rules(RULES);
    let settings = sandbox.run("hook settings").expect(0).json();
    assert_eq!(settings["hooks"]["PostToolUse"][0]["matcher"], "*");
    for (event, told, wanted) in [
        ("UserPromptSubmit", prompted(&sandbox, "write a spec"), "[ACTIVATE:SPEC_GEN_V1]"),
        (
            "PostToolUse",
            used(&sandbox, "Write", json!({"file_path": sandbox.file("docs/a.md")})),
            "well done",
        ),
    ] {
        let call = &settings["hooks"][event][0]["hooks"][0];
        assert_eq!((&call["type"], call["timeout"].as_u64()), (&json!("command"), Some(10)));
        fs::write(sandbox.file("event"), told.to_string()).unwrap();
        let ran = sandbox.bash(&format!("{} < event", call["command"].as_str().unwrap())).expect(0);
        assert!(context(&ran, event).starts_with(wanted), "{ran:?}");
    }
    // for a chosen root they name it, quoted
    let odd = sandbox.file("it's a root");
    fs::create_dir(&odd).unwrap();
    let settings = sandbox.run_args(&["--root", odd.to_str().unwrap(), "hook", "settings"]).json();
    let command =
        settings["hooks"]["PostToolUse"][0]["hooks"][0]["command"].as_str().unwrap().to_owned();
    sandbox.run_args(&["--root", odd.to_str().unwrap(), "state", "init"]).expect(0);
    fs::create_dir(odd.join("config")).unwrap();
    fs::write(odd.join("config/skill-rules.json"), RULES).unwrap();
    fs::write(sandbox.file("event"), ran_command(&sandbox, "make").to_string()).unwrap();
    sandbox.bash(&format!("{command} < event")).expect(0);
    assert!(odd.join(".signals/MADE.json").exists());
}

#[test]
fn rules_to_begin_with_lead_through_six_phases() {
    let sandbox = Sandbox::initialized();
    sandbox.run("hook init-rules").expect(0);
    let checked = sandbox.run("hook check").expect(0).stdout;
    let lines: Vec<&str> = checked.lines().collect();
    assert_eq!(
        lines[0],
        "Hook rules: PASSED (6 skills, 5 phase_transitions, 6 tool_rules can be used)"
    );
    assert_eq!(lines.len(), 2, "and the file that was read: {checked}");
    let rules = fs::read_to_string(sandbox.file("config/skill-rules.json")).unwrap();
    let parsed: Value = serde_json::from_str(&rules).unwrap();
    let transitions = parsed["phase_transitions"].as_object().unwrap().values();
    let all = parsed["skills"]
        .as_array()
        .unwrap()
        .iter()
        .chain(parsed["tool_rules"].as_array().unwrap())
        .chain(transitions);
    assert!(
        all.into_iter()
            .all(|rule| rule["description"].as_str().is_some_and(|text| text.len() > 10))
    );
    fs::create_dir(sandbox.file("docs")).unwrap();
    let written = |file: &str| {
        fs::write(sandbox.file(file), "").unwrap();
        used(&sandbox, "Write", json!({"file_path": sandbox.file(file)}))
    };
    let steps: [(&str, Value, &str, &str); 12] = [
        (
            PROMPT,
            prompted(&sandbox, "Write the spec, please"),
            "[ACTIVATE:SPEC_GEN_V1]",
            "phase1-specification",
        ),
        (TOOL, written("docs/spec.md"), "[ACTIVATE:TASK_PLAN_V1]", "phase2-planning"),
        (PROMPT, prompted(&sandbox, "plan the work"), "[ACTIVATE:TASK_PLAN_V1]", "phase2-planning"),
        (TOOL, written("docs/plan.md"), "[ACTIVATE:IMPLEMENT_V1]", "phase3-implementation"),
        (
            PROMPT,
            prompted(&sandbox, "now implement it"),
            "[ACTIVATE:IMPLEMENT_V1]",
            "phase3-implementation",
        ),
        (TOOL, ran_command(&sandbox, "git commit -m done"), "INTEGRATE_V1", "phase4-integration"),
        (PROMPT, prompted(&sandbox, "Integrate!"), "[ACTIVATE:INTEGRATE_V1]", "phase4-integration"),
        (
            TOOL,
            ran_command(&sandbox, "make integration"),
            "[ACTIVATE:VALIDATE_V1]",
            "phase5-validation",
        ),
        (
            PROMPT,
            prompted(&sandbox, "validate it end to end"),
            "[ACTIVATE:VALIDATE_V1]",
            "phase5-validation",
        ),
        (TOOL, ran_command(&sandbox, "npm run test:e2e"), "DEPLOY_V1", "phase6-deployment"),
        (PROMPT, prompted(&sandbox, "deploy"), "[ACTIVATE:DEPLOY_V1]", "phase6-deployment"),
        (TOOL, ran_command(&sandbox, "make deploy"), "It is out.", "done"),
    ];
    for (hook, event, told, phase) in steps {
        let name = if hook == PROMPT { "UserPromptSubmit" } else { "PostToolUse" };
        let context = context(&fire(&sandbox, hook, &event).expect(0), name);
        assert!(context.contains(told), "{event}: {context}");
        assert_eq!(sandbox.ok("state phase"), phase, "{event}");
    }
    assert_eq!(sandbox.document()["signals"].as_object().unwrap().len(), 6);
}

#[test]
fn init_rules_clears_leftovers_of_a_killed_one() {
    let sandbox = Sandbox::empty();
    fs::create_dir(sandbox.file("config")).unwrap();
    fs::write(sandbox.file("config/.pipeline-state-aB3xYz.tmp"), "{").unwrap();
    fs::write(sandbox.file("config/mine.tmp"), "").unwrap();
    sandbox.ok("hook init-rules");
    assert_eq!(sandbox.names("config"), ["mine.tmp", "skill-rules.json"]);
}

#[test]
fn rules_to_begin_with_never_replace_others() {
    let sandbox = Sandbox::empty();
    let told = sandbox.run("hook init-rules --json").expect(0).json();
    let file = sandbox.file("config/skill-rules.json");
    assert_eq!(told["path"], json!(file));
    // they are the user's own, writable by no other user
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o022, 0);
    assert_eq!(fs::metadata(sandbox.file("config")).unwrap().permissions().mode() & 0o022, 0);
    fs::write(&file, "mine").unwrap();
    sandbox.run("hook init-rules").expect(1).saying("is there already").saying("hook check");
    sandbox.run("hook init-rules --json").expect_json_error("exists");
    assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
    assert_eq!(sandbox.names("config"), ["skill-rules.json"]);
    sandbox.run("--root gone hook init-rules").expect(5);
}
