//! The output of `hook settings` works after pasting: in any `sh`, in any directory.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use crate::hooks::with_rules;
use crate::sandbox::{BINARY, Ran, Sandbox, installed};

const RULES: &str = r#"{"tool_rules": [{"tool": "Bash", "emit_signal": "MADE"}]}"#;

/// The command that these settings run after a tool's use.
#[track_caller]
fn command_of(settings: &Ran) -> String {
    settings.json()["hooks"]["PostToolUse"][0]["hooks"][0]["command"].as_str().unwrap().to_owned()
}

/// Runs it as an editor does, in a directory unrelated to the root, and expects the root to get its
/// signal.
#[track_caller]
fn gives_its_signal(root: &Path, shell: &str, command: &str) {
    let elsewhere = Sandbox::empty();
    let event = elsewhere.file("event");
    fs::write(&event, r#"{"tool_name": "Bash", "tool_input": {"command": "make"}}"#).unwrap();
    let mut editor = elsewhere.program(shell);
    editor.stdin(fs::File::open(event).unwrap());
    let ran = Ran::of(editor.args(["-c", command]).output().unwrap());
    assert_eq!(
        (ran.code, ran.stdout.as_str(), ran.stderr.as_str()),
        (0, "", ""),
        "{shell}: {command:?}"
    );
    let signal = fs::remove_file(root.join(".signals/MADE.json"));
    assert!(signal.is_ok(), "{shell}: the signal is lost: {command:?}");
}

#[test]
fn the_settings_mean_the_same_root_from_any_directory() {
    let root = with_rules(RULES);
    fs::create_dir(root.file("deep")).unwrap();
    type Variable = Option<(&'static str, &'static str)>;
    let given: [(&str, &str, Variable); 6] = [
        ("", "--root .", None),
        ("deep", "--root ..", None),
        ("deep", "--state-file ../.workflow-state.json", None),
        ("deep", "", Some(("PIPELINE_ROOT", ".."))),
        ("", "", Some(("STATE_FILE", ".workflow-state.json"))),
        ("deep", "--root ..", Some(("STATE_FILE", "../.workflow-state.json"))),
    ];
    for (directory, options, variable) in given {
        let mut command = root.command();
        command
            .current_dir(root.file(directory))
            .args(options.split_whitespace())
            .args(["hook", "settings"]);
        let settings = Ran::of(command.envs(variable).output().unwrap()).expect(0);
        gives_its_signal(root.path(), "sh", &command_of(&settings));
    }
}

#[test]
fn the_settings_keep_where_it_is_logged_and_how_long_a_lock_is_waited_for() {
    let root = with_rules(RULES);
    let settings = root
        .run("--root . --audit-log log --lock-timeout 0.5 --lock-exit 7 hook settings")
        .expect(0);
    let command = command_of(&settings);
    let log = root.file("log");
    assert!(
        command.contains(&format!(" --audit-log {} --lock-timeout 0.5 hook ", log.display())),
        "{command}"
    );
    gives_its_signal(root.path(), "sh", &command);
    assert!(fs::read_to_string(log).unwrap().contains("post-tool-use-tracker"));
}

/// Settings printed by a program in this directory for a state beside it.
fn settings_of(place: &Sandbox, name: &OsStr) -> Ran {
    let odd = place.file(name);
    fs::create_dir_all(odd.join("config")).unwrap();
    fs::write(odd.join("config/skill-rules.json"), RULES).unwrap();
    let program = odd.join("pipeline-state");
    // not by this process: its other children could hold the copy open, and then it could not be
    // run
    assert!(place.program("cp").arg(BINARY).arg(&program).status().unwrap().success());
    let mut root = OsString::from("--root=");
    root.push(name);
    let run = |words: [&str; 2]| {
        Ran::of(place.program(&program).arg(&root).args(words).output().unwrap())
    };
    run(["state", "init"]).expect(0);
    run(["hook", "settings"])
}

#[test]
fn the_settings_work_in_every_sh_with_any_path() {
    for name in [
        "it's a root",
        "tab\tand\nnewline",
        "\u{1b}[2J",
        "$(false) `false` \\n \"",
        "-e",
        "ü\u{9b}\u{7f}",
    ] {
        let place = Sandbox::empty();
        let settings = settings_of(&place, OsStr::new(name)).expect(0);
        let steers = |c: char| c.is_control() && c != '\n';
        assert!(!settings.stdout.contains(steers), "{:?}", settings.stdout);
        for shell in ["sh", "dash", "bash"].into_iter().filter(|shell| installed(shell)) {
            gives_its_signal(&place.file(name), shell, &command_of(&settings));
        }
    }
}

#[test]
fn settings_that_cannot_be_written_down_are_refused() {
    let settings = settings_of(&Sandbox::empty(), OsStr::from_bytes(b"not\xfftext"));
    assert_eq!(settings.stdout, "");
    settings.expect(4).saying("is not UTF-8").saying("hint: ls -ld");
}
