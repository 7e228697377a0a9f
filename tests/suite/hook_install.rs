//! `hook install` and `uninstall`: what becomes of an editor's settings files, and of hostile ones.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::Path;

use serde_json::{Value, json};

use crate::hooks::with_rules;
use crate::sandbox::{BINARY, Ran, Sandbox, installed};
use crate::strace::{calls_in, injection, strace};

const SHARED: &str = ".claude/settings.json";

fn with(text: &str) -> Sandbox {
    let root = Sandbox::initialized();
    fs::create_dir(root.file(".claude")).unwrap();
    fs::write(root.file(SHARED), text).unwrap();
    root
}

fn text(root: &Sandbox) -> String {
    fs::read_to_string(root.file(SHARED)).unwrap()
}

fn settings(root: &Sandbox) -> Value {
    serde_json::from_str(&text(root)).unwrap()
}

/// The commands of an event.
fn commands(settings: &Value, event: &str) -> Vec<String> {
    let groups = settings["hooks"][event].as_array().into_iter().flatten();
    groups
        .flat_map(|group| group["hooks"].as_array().unwrap())
        .map(|hook| hook["command"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn the_documented_form_is_written_and_names_no_path_of_this_machine() {
    let root = Sandbox::initialized();
    root.run("--root . hook install").expect(0).showing("added");
    assert_eq!(
        settings(&root),
        json!({"hooks": {
            "SessionStart": [{"hooks": [
                {"type": "command", "command": "pipeline-state hook session-start",
                    "timeout": 10}]}],
            "UserPromptSubmit": [{"hooks": [
                {"type": "command", "command": "pipeline-state hook skill-activation-prompt",
                    "timeout": 10}]}],
            "PostToolUse": [{"matcher": "*", "hooks": [
                {"type": "command", "command": "pipeline-state hook post-tool-use-tracker",
                    "timeout": 10}]}],
        }})
    );
    assert_eq!(root.file(SHARED).metadata().unwrap().mode() & 0o777, 0o644);
    assert_eq!(root.file(".claude").metadata().unwrap().mode() & 0o777, 0o755);
    let before = text(&root);
    let again = root.run("hook install --json").expect(0).json();
    assert_eq!((&again["changed"], text(&root)), (&json!(false), before));
}

/// Settings as people have them.
const OTHERS: [&str; 6] = [
    "{\n    \"permissions\": { \"allow\": [\"Bash(ls)\", \"Read\"] },\n    \"model\": \"x\"\n}\n",
    "{\n\t\"hooks\": {\n\t\t\"Stop\": [\n\t\t\t{ \"hooks\": [ { \"type\": \"command\", \
     \"command\": \"say \\\"}]\\\"\" } ] }\n\t\t]\n\t},\n\t\"n\": 1.0e400\n}",
    "{\"hooks\":{\"PostToolUse\":[{\"matcher\":\"Bash\",\
     \"hooks\":[{\"type\":\"command\",\"command\":\"x\"}]}]},\"a\":[]}",
    "{\r\n  \"hooks\": {\r\n    \"PostToolUse\": [{\"hooks\": [{\"type\": \"command\", \
     \"command\": \"make | pipeline-state hook post-tool-use-tracker\"}]}]\r\n  }\r\n}\r\n",
    "\u{feff}{\n  \"a\": {}\n}\n",
    "{}\n",
];

#[test]
fn everything_that_is_there_stays_as_it_is_written() {
    for before in OTHERS {
        let root = with(before);
        root.run("hook install").expect(0);
        let after = text(&root);
        let parsed: Value = serde_json::from_str(after.trim_start_matches('\u{feff}')).unwrap();
        for (event, name) in [
            ("SessionStart", "session-start"),
            ("UserPromptSubmit", "skill-activation-prompt"),
            ("PostToolUse", "post-tool-use-tracker"),
        ] {
            let command = format!("pipeline-state hook {name}");
            let ours = commands(&parsed, event).into_iter().filter(|other| *other == command);
            assert_eq!(ours.count(), 1, "{event}: {after}");
        }
        assert_eq!(before.contains('\r'), after.contains('\r'));
        assert!(!before.contains('\r') || !after.replace("\r\n", "").contains('\n'), "{after:?}");
        root.run("hook uninstall").expect(0);
        assert_eq!(text(&root), before);
    }
}

#[test]
fn hooks_that_are_there_are_updated_in_place_and_doubles_go() {
    let root = with(
        &json!({"hooks": {"PostToolUse": [
            {"matcher": "Write", "hooks": [
                {"type": "command", "command": "mine"},
                {"type": "command", "command": "/old/pipeline-state hook post-tool-use-tracker",
                    "timeout": 3}]},
            {"hooks": [{"type": "command",
                "command": "pipeline-state hook post-tool-use-tracker"}]}]}})
        .to_string(),
    );
    root.run("hook install").expect(0).showing("PostToolUse (post-tool-use-tracker): updated");
    assert_eq!(
        settings(&root)["hooks"]["PostToolUse"],
        json!([{"matcher": "Write", "hooks": [
            {"type": "command", "command": "mine"},
            {"type": "command", "command": "pipeline-state hook post-tool-use-tracker",
                "timeout": 3}]}])
    );
    root.run("hook uninstall").expect(0);
    assert_eq!(commands(&settings(&root), "PostToolUse"), ["mine"]);
}

#[test]
fn a_file_that_is_no_plain_json_is_refused_and_untouched() {
    for bad in [
        "{\n  // a comment\n  \"a\": 1\n}",
        "{\"a\": 1,}",
        "{\"a\": 1",
        "[]",
        "\"x\"",
        "{\"hooks\": []}",
        "{\"hooks\": {\"PostToolUse\": {}}}",
        "{\"hooks\": {}, \"hooks\": {}}",
        "{\"hooks\": {\"SessionStart\": [], \"SessionStart\": []}}",
    ] {
        let root = with(bad);
        for command in ["hook install", "hook uninstall", "hook install --dry-run"] {
            root.run(command).expect(4).saying("settings.json").saying("it was not changed");
        }
        assert_eq!(text(&root), bad);
    }
    let root = with("");
    fs::write(root.file(SHARED), b"{\"a\": \"\xff\"}").unwrap();
    root.run("hook install").expect(4).saying("UTF-8");
}

#[test]
fn a_dry_run_changes_nothing() {
    let root = Sandbox::initialized();
    let before = root.snapshot();
    let ran = root.run("hook install --dry-run --json").expect(0).json();
    assert_eq!((&ran["changed"], &ran["dry_run"]), (&json!(true), &json!(true)));
    assert_eq!(root.snapshot(), before);
}

#[test]
fn each_scope_has_its_file() {
    let root = Sandbox::initialized();
    let run = |words: &str| {
        let mut command = root.command();
        command.env("HOME", root.file("home")).env_remove("CLAUDE_CONFIG_DIR");
        Ran::of(command.args(words.split(' ')).output().unwrap()).expect(0)
    };
    fs::create_dir(root.file("home")).unwrap();
    run("hook install --local");
    run("hook install --user").saying("--local");
    for (file, mode) in
        [(".claude/settings.local.json", 0o600), ("home/.claude/settings.json", 0o600)]
    {
        assert_eq!(root.file(file).metadata().unwrap().mode() & 0o777, mode, "{file}");
    }
    assert!(!root.file(SHARED).exists());
    run("hook uninstall --local");
    let left = fs::read_to_string(root.file(".claude/settings.local.json")).unwrap();
    assert_eq!(left.trim(), "{}");
}

#[test]
fn the_project_of_a_root_in_the_editors_directory_is_its_parent() {
    let root = Sandbox::empty();
    fs::create_dir(root.file(".claude")).unwrap();
    root.ok("--root .claude state init");
    root.run("hook install").expect(0);
    assert!(root.file(SHARED).exists() && !root.file(".claude/.claude").exists());
}

#[test]
fn what_a_team_commits_works_in_every_clone() {
    let root = with_rules(r#"{"tool_rules": [{"tool": "Bash", "emit_signal": "MADE"}]}"#);
    root.run("hook install").expect(0);
    let command = commands(&settings(&root), "PostToolUse").remove(0);
    let bin = root.file("bin");
    fs::create_dir(&bin).unwrap();
    symlink(BINARY, bin.join("pipeline-state")).unwrap();
    let elsewhere = Sandbox::empty();
    let event = elsewhere.file("event");
    fs::write(&event, r#"{"tool_name": "Bash", "tool_input": {"command": "make"}}"#).unwrap();
    let mut editor = elsewhere.program("sh");
    editor
        .env("CLAUDE_PROJECT_DIR", root.path())
        .env("PATH", format!("{}:{}", bin.display(), std::env::var("PATH").unwrap()));
    editor.stdin(fs::File::open(event).unwrap());
    let ran = Ran::of(editor.args(["-c", &command]).output().unwrap());
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    assert!(root.file(".signals/MADE.json").exists());
    // a state of another name is named from the project's directory
    root.run("--state-file .workflow-state.json hook install --dry-run").expect(0);
    root.run("--state-file .workflow-state.json hook install").expect(0);
    let command = commands(&settings(&root), "PostToolUse").remove(0);
    let named = "pipeline-state --state-file \"$CLAUDE_PROJECT_DIR\"/.workflow-state.json hook ";
    assert!(command.starts_with(named), "{command}");
    root.run("--audit-log log hook install").expect(64).saying("--local");
}

/// Makes settings that lead out of the project, or are no file.
type Trap = fn(&Sandbox, &Path);

#[test]
fn no_settings_lead_out_of_the_project() {
    let traps: [(&str, Trap); 6] = [
        ("outside the project", |root, elsewhere| {
            symlink(elsewhere, root.file(".claude")).unwrap();
        }),
        ("outside the project", |root, elsewhere| {
            fs::create_dir(root.file(".claude")).unwrap();
            symlink(elsewhere.join("settings.json"), root.file(SHARED)).unwrap();
        }),
        ("cannot be followed", |root, elsewhere| {
            fs::create_dir(root.file(".claude")).unwrap();
            symlink(elsewhere.join("nothing.json"), root.file(SHARED)).unwrap();
        }),
        ("is not a regular file", |root, _| {
            fs::create_dir_all(root.file(SHARED)).unwrap();
        }),
        ("is not a regular file", |root, _| {
            fs::create_dir(root.file(".claude")).unwrap();
            let (path, mode) = (root.file(SHARED), rustix::fs::Mode::RUSR);
            let fifo = rustix::fs::FileType::Fifo;
            rustix::fs::mknodat(rustix::fs::CWD, path, fifo, mode, 0).unwrap();
        }),
        ("is a link, or not a directory", |root, _| {
            fs::write(root.file(".claude"), "x").unwrap();
        }),
    ];
    for (why, trap) in traps {
        let (root, elsewhere) = (Sandbox::initialized(), Sandbox::empty());
        fs::write(elsewhere.file("settings.json"), "{}\n").unwrap();
        trap(&root, elsewhere.path());
        let (before, outside) = (root.snapshot().len(), elsewhere.snapshot());
        for command in ["hook install", "hook install --local", "hook uninstall"] {
            let ran = root.run(command);
            if command != "hook install --local" {
                ran.expect(6).saying(why);
            }
        }
        assert_eq!(elsewhere.snapshot(), outside, "{why}");
        assert!(root.snapshot().len() <= before + 1, "{why}");
    }
    let root = with("{}");
    fs::File::options().append(true).open(root.file(SHARED)).unwrap().set_len(1 << 40).unwrap();
    root.run("hook install").expect(4).saying("over 4 MiB");
}

#[test]
fn links_within_the_project_and_in_the_users_own_directory_are_kept() {
    let root = Sandbox::initialized();
    fs::create_dir_all(root.file("tools/claude")).unwrap();
    fs::write(root.file("tools/shared.json"), "{}\n").unwrap();
    symlink("tools/claude", root.file(".claude")).unwrap();
    symlink("../shared.json", root.file("tools/claude/settings.json")).unwrap();
    root.run("hook install").expect(0);
    assert!(root.file("tools/claude/settings.json").symlink_metadata().unwrap().is_symlink());
    assert!(fs::read_to_string(root.file("tools/shared.json")).unwrap().contains("session-start"));
}

#[test]
fn a_link_to_a_file_of_a_state_is_refused() {
    let root = Sandbox::with_history();
    fs::create_dir(root.file(".claude")).unwrap();
    let own = root.snapshot();
    for target in [".workflow-state.json", ".state-backups/mirror.json", ".pipeline-state.toml"] {
        symlink(format!("../{target}"), root.file(SHARED)).unwrap();
        fs::write(root.file(".pipeline-state.toml"), "").unwrap();
        for command in ["hook install", "hook uninstall"] {
            root.run(command).expect(6).saying("a file of a state");
        }
        fs::remove_file(root.file(SHARED)).unwrap();
        fs::remove_file(root.file(".pipeline-state.toml")).unwrap();
        assert_eq!(root.snapshot(), own, "{target}");
    }
    // A state may have any name.
    let root = Sandbox::empty();
    root.ok("--state-file my.json state init");
    fs::create_dir(root.file(".claude")).unwrap();
    symlink("../my.json", root.file(SHARED)).unwrap();
    root.run("--state-file my.json hook install").expect(6).saying("a file of a state");
}

#[test]
fn mode_and_group_stay_and_other_users_files_are_refused() {
    let root = with("{}\n");
    fs::set_permissions(root.file(SHARED), fs::Permissions::from_mode(0o664)).unwrap();
    let is_root = rustix::process::geteuid().is_root();
    if is_root {
        chown(root.file(SHARED), None, Some(4343)).unwrap();
    }
    root.run("hook install").expect(0);
    let found = root.file(SHARED).metadata().unwrap();
    assert_eq!(found.mode() & 0o777, 0o664);
    assert!(!is_root || found.gid() == 4343);
    if is_root {
        chown(root.file(SHARED), Some(4343), None).unwrap();
        root.run("hook install").expect(6).saying("belongs to uid 4343");
        fs::remove_dir_all(root.file(".claude")).unwrap();
        chown(root.path(), Some(4343), None).unwrap();
        root.run("hook install").expect(6).saying("belongs to uid 4343");
        assert!(!root.file(".claude").exists());
    }
}

#[test]
fn a_killed_or_failing_install_leaves_the_old_file_or_the_new_one() {
    if !installed("strace") {
        return;
    }
    const OLD: &str = "{\n  \"a\": 1\n}\n";
    let root = with(OLD);
    let trace = root.file("trace");
    let options = ["-o", trace.to_str().unwrap()];
    assert!(strace(&root, &options, ["hook", "install"]).output().unwrap().status.success());
    let new = text(&root);
    let trace = fs::read_to_string(trace).unwrap();
    let calls = calls_in(&trace, root.path().to_str().unwrap());
    let changes: Vec<_> = calls.iter().filter(|call| call.changes()).collect();
    assert!(changes.len() >= 6, "{}", changes.len());
    for call in changes {
        for fault in ["signal=KILL", "error=ENOSPC", "error=EROFS"] {
            if call.name == "exit_group" && fault != "signal=KILL" {
                continue;
            }
            let root = with(OLD);
            let options = injection(&call.name, &format!("{fault}:when={}", call.nth));
            let options = options.each_ref().map(String::as_str);
            let ran = Ran::of(strace(&root, &options, ["hook", "install"]).output().unwrap());
            let place = format!("{fault} at {}", call.line);
            let now = text(&root);
            assert!(now == new || now == OLD && ran.code != 0, "{place}: {ran:?} {now}");
            root.run("hook install").expect(0);
            assert_eq!(text(&root), new, "{place}");
            assert_eq!(root.names(".claude"), ["settings.json"], "{place}");
        }
    }
}

#[test]
fn a_session_begins_with_where_the_pipeline_stands() {
    let root = Sandbox::with_history();
    root.ok("state signal GO");
    root.ok("state phase build");
    let start = |root: &Sandbox| {
        let event = br#"{"hook_event_name":"SessionStart","source":"compact"}"#;
        root.feed("hook session-start", event)
    };
    let answer = start(&root).expect(0).json();
    let output = &answer["hookSpecificOutput"];
    assert_eq!(output["hookEventName"], "SessionStart");
    let context = output["additionalContext"].as_str().unwrap();
    assert!(
        context.contains("phase: \"build\"") && context.contains("open signals: \"GO\""),
        "{context}"
    );
    let nowhere = start(&Sandbox::empty());
    assert_eq!((nowhere.code, nowhere.stdout.as_str(), nowhere.stderr.as_str()), (0, "", ""));
}

#[test]
fn a_test_explains_each_rule_and_changes_nothing() {
    let root = with_rules(
        r#"{"skills": [
            {"skill": "spec", "activation_code": "SPEC", "phase": "p1",
             "trigger_conditions": {"user_patterns": ["spec"]}},
            {"skill": "plan", "activation_code": "PLAN",
             "trigger_conditions": {"user_patterns": ["spec|plan"]}},
            {"skill": "ship", "activation_code": "SHIP",
             "trigger_conditions": {"user_patterns": ["spec"], "file_exists": ["gone"]}}],
          "tool_rules": [
            {"tool": 1},
            {"tool": "Write", "path_glob": "docs/*.md", "emit_signal": "MADE"},
            {"tool": "Write", "requires_signal": "MADE", "phase": "p2"},
            {"tool": "Bash", "command_regex": "^make", "message": "well done"}]}"#,
    );
    root.ok("state set n:=1");
    let before = root.snapshot();
    let unmet = |ran: &Ran| -> Vec<(String, Option<String>)> {
        let rules = ran.json()["rules"].as_array().unwrap().clone();
        let text = |value: &Value| value.as_str().map(str::to_owned);
        rules.iter().map(|rule| (text(&rule["rule"]).unwrap(), text(&rule["unmet"]))).collect()
    };
    let ran = Ran::of(
        root.command().args(["hook", "test", "--json", "--prompt", "a SPEC"]).output().unwrap(),
    );
    let no = |why: &str| Some(why.to_owned());
    assert_eq!(
        unmet(&ran),
        [
            ("skills[0] spec (SPEC)".to_owned(), None),
            ("skills[1] plan (PLAN)".to_owned(), no("it matches, and another skill comes first")),
            ("skills[2] ship (SHIP)".to_owned(), no("a file that must exist is missing")),
        ]
    );
    let (shown, prompted) = (ran.json(), root.feed("hook test", b"{\"prompt\":\"a SPEC\"}"));
    assert_eq!((&shown["phase"], &shown["activation"]), (&json!("p1"), &json!("SPEC")));
    prompted.expect(0).showing("yes skills[0]").showing("would announce: [ACTIVATE:SPEC]");
    let ran = root.run("hook test --json --tool Write --file docs/a.md");
    assert_eq!(
        unmet(&ran),
        [
            ("tool_rules[1]".to_owned(), None),
            ("tool_rules[2]".to_owned(), no("the signal that it requires is missing")),
            ("tool_rules[3]".to_owned(), no("it is for other tools")),
        ]
    );
    assert_eq!(ran.json()["signals"], json!(["MADE"]));
    root.run("hook test --tool Bash --command cmake").showing("does not match the command");
    assert_eq!(root.snapshot(), before);
    root.run("hook test --file x").expect(64);
}

#[test]
fn a_test_says_that_hooks_do_nothing_without_a_state() {
    let root = Sandbox::empty();
    root.ok("hook init-rules");
    let warning = "there is no state here, and so hooks do nothing";
    root.run("hook install --dry-run").expect(0).saying(warning);
    root.run("hook test --prompt specification").expect(0).saying(warning);
    root.ok("state init");
    let ran = root.run("hook test --prompt specification");
    assert!(!ran.stderr.contains(warning), "{ran:?}");
}
