//! Other files in the place of hook rules.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::json;

use crate::hooks::{PROMPT, TOOL, fire, ran_command, with_rules};
use crate::sandbox::{BINARY, Ran, Sandbox};

#[test]
fn an_obstacle_to_the_rules_is_named_and_its_remedy_works() {
    for (what, put_there, is_named) in [
        (
            "a link to nothing",
            "ln -s nowhere config/skill-rules.json",
            "config/skill-rules.json is a symbolic link that",
        ),
        (
            "a link to itself",
            "ln -s skill-rules.json config/skill-rules.json",
            "is a symbolic link that leads nowhere",
        ),
        (
            "a link to a directory",
            "ln -s . config/skill-rules.json",
            "config/skill-rules.json is a directory",
        ),
        (
            "a directory",
            "mkdir config/skill-rules.json",
            "config/skill-rules.json is a directory, not a file",
        ),
        (
            "a pipe",
            "mkfifo config/skill-rules.json",
            "config/skill-rules.json is a device, pipe or socket",
        ),
        ("a file for config", "rmdir config; touch config", "config is a file, not a directory"),
        (
            "a link to nothing for config",
            "rmdir config; ln -s nowhere config",
            "config is a symbolic link that",
        ),
    ] {
        let root = Sandbox::initialized();
        fs::create_dir(root.file("config")).unwrap();
        root.bash(put_there).expect(0);
        let before = root.snapshot();
        // a pipe could make its reader wait
        let run = |words: &[&str]| {
            Ran::of(root.program("timeout").args(["20", BINARY]).args(words).output().unwrap())
        };
        let checked = run(&["hook", "check"]).expect(6).saying(is_named);
        run(&["hook", "check", "--json"]).expect_json_error("unsafe_path");
        let of_config = what.ends_with("config");
        let refused = if of_config { "config is not a directory of its own" } else { is_named };
        run(&["hook", "init-rules"]).expect(6).saying(refused);
        for (hook, event) in [(PROMPT, json!({"prompt": "go"})), (TOOL, ran_command(&root, "make"))]
        {
            fire(&root, hook, &event).expect(1).saying(is_named);
        }
        assert!(root.snapshot() == before, "{what}: something was touched");
        let hints = checked.stderr.lines().filter_map(|line| line.strip_prefix("hint: "));
        let script: Vec<String> = hints
            .map(|line| {
                line.replace("pipeline-state ", "\"$PIPELINE_BINARY\" ").replace("rm -i", "rm")
            })
            .collect();
        let followed = root.bash(&format!("set -e\n{}", script.join("\n"))).expect(0);
        assert!(followed.stdout.contains("Rules written"), "{what}: {}", checked.stderr);
        root.run("hook check").expect(0);
    }
}

#[test]
fn rules_are_read_by_way_of_a_link_and_never_written_that_way() {
    let root = with_rules(r#"{"tool_rules": [{"tool": "Bash", "emit_signal": "MADE"}]}"#);
    fs::rename(root.file("config"), root.file("elsewhere")).unwrap();
    symlink("elsewhere", root.file("config")).unwrap();
    root.ok("hook check");
    fire(&root, TOOL, &ran_command(&root, "make")).expect(0);
    assert_eq!(root.ok("state get .lastSignal"), "MADE");
    fs::rename(root.file("elsewhere/skill-rules.json"), root.file("rules")).unwrap();
    let refusal = "config is not a directory of its own (it is a symbolic link or a file)";
    root.run("hook init-rules").expect(6).saying(refusal).saying("hint: ls -ld");
    root.run("recover checkpoint same").expect(6).saying(refusal);
    assert!(root.names("elsewhere").is_empty());
    // a file may be a link; if it leads somewhere, it has an owner
    fs::remove_file(root.file("config")).unwrap();
    fs::create_dir(root.file("config")).unwrap();
    symlink("../rules", root.file("config/skill-rules.json")).unwrap();
    root.ok("hook check");
    root.run("hook init-rules").expect(1).saying("is there already").saying("hook check");
    // a link out of the project is refused
    let other = Sandbox::empty();
    fs::rename(root.file("rules"), other.file("rules")).unwrap();
    fs::remove_file(root.file("config/skill-rules.json")).unwrap();
    symlink(other.file("rules"), root.file("config/skill-rules.json")).unwrap();
    root.run("hook check").expect(6).saying("outside the project");
    fire(&root, TOOL, &ran_command(&root, "make")).expect(1).saying("outside the project");
}
