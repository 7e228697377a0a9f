//! The README's examples, run unchanged.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::sandbox::{BINARY, Ran, Sandbox, installed};

const README: &str = include_str!("../../README.md");

/// The blocks of a language, in order.
fn blocks(language: &str) -> Vec<&'static str> {
    let opening = format!("```{language}\n");
    let after = README.split(opening.as_str()).skip(1);
    after.map(|rest| rest.split("```").next().unwrap()).collect()
}

/// A root in which the program is called by its name.
fn with_program_on_path(sandbox: &Sandbox, script: &str) -> Ran {
    let bin = sandbox.file("bin");
    if !bin.exists() {
        fs::create_dir(&bin).unwrap();
        std::os::unix::fs::symlink(BINARY, bin.join("pipeline-state")).unwrap();
    }
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    Ran::of(sandbox.program("bash").env("PATH", path).arg("-c").arg(script).output().unwrap())
}

/// True if a line matches the README's, where `…` stands for anything.
fn is_shown(shown: &str, line: &str) -> bool {
    let mut rest = line;
    for (place, part) in shown.split('…').enumerate() {
        match rest.find(part) {
            Some(0) => rest = &rest[part.len()..],
            Some(at) if place > 0 => rest = &rest[at + part.len()..],
            _ => return false,
        }
    }
    rest.is_empty() || shown.ends_with('…')
}

#[test]
fn the_session_at_the_top_goes_as_it_is_shown() {
    let sandbox = Sandbox::empty();
    let session = blocks("console")[0];
    let root = format!("{}/", sandbox.path().display());
    let mut steps: Vec<(&str, Vec<&str>)> = Vec::new();
    for line in session.lines() {
        match line.strip_prefix("$ ") {
            Some(command) => steps.push((command, Vec::new())),
            None => steps.last_mut().unwrap().1.push(line),
        }
    }
    assert!(steps.len() >= 6);
    for (command, shown) in steps {
        // both streams as a terminal shows them, with paths relative to the root
        let ran = with_program_on_path(&sandbox, &format!("{{ {command}\n}} 2>&1"));
        let told = ran.stdout.replace(&root, "");
        let told: Vec<&str> = told.lines().collect();
        let same = told.len() == shown.len()
            && shown.iter().zip(&told).all(|(shown, line)| is_shown(shown, line));
        assert!(same, "{command}\nshown: {shown:#?}\ntold: {told:#?}");
    }
}

#[test]
fn the_scripts_work_as_documented() {
    if !installed("jq") {
        return;
    }
    let scripts = blocks("bash");
    let find = |word: &str| *scripts.iter().find(|script| script.contains(word)).unwrap();
    let sandbox = Sandbox::initialized();
    assert_eq!(
        with_program_on_path(&sandbox, find("completedTasks")).expect(0).stdout,
        "State updated: revision 2\n"
    );
    assert_eq!(
        with_program_on_path(&sandbox, find("completedTasks")).expect(0).stdout,
        "lint was done before\n"
    );
    let several = format!("for i in 1 2 3 4; do ( {} ) & done; wait", find("until").trim());
    assert_eq!(
        with_program_on_path(&sandbox, &several).code,
        0,
        "lost races are reported, and repeated"
    );
    assert_eq!(sandbox.ok("state get .count"), "4");
    let locked = with_program_on_path(&sandbox, find("lock acquire deploy")).expect(0).stdout;
    assert!(
        locked.starts_with("Lock acquired: deploy (token ")
            && locked.ends_with("Lock released: deploy\n"),
        "{locked}"
    );
    assert_eq!(sandbox.ok("state phase"), "deploying");
    fs::write(
        sandbox.file("deploy.sh"),
        "#!/bin/sh\necho attempt\npipeline-state state phase half-done -q\nexit 4\n",
    )
    .unwrap();
    fs::set_permissions(sandbox.file("deploy.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    let recovered =
        with_program_on_path(&sandbox, find("recover checkpoint deployment")).expect(0).stdout;
    assert_eq!(recovered.matches("attempt\n").count(), 3, "{recovered}");
    assert!(
        recovered.ends_with("-deployment\n") && recovered.contains("Checkpoint restored: "),
        "{recovered}"
    );
    assert_eq!(sandbox.ok("state phase"), "deploying");
    let checked = with_program_on_path(&sandbox, find("sha256sum")).expect(0).stdout;
    let lines: Vec<&str> = checked.lines().collect();
    assert_eq!(lines[0].split(' ').next().unwrap(), lines[1], "{checked}");
}

#[test]
fn every_command_that_is_named_exists() {
    let sandbox = Sandbox::empty();
    for group in ["state", "lock", "recover", "hook"] {
        let help = sandbox.run(&format!("{group} --help")).expect(0).stdout;
        for code in README.split('`').skip(1).step_by(2) {
            let rest = code.strip_prefix(group).and_then(|rest| rest.strip_prefix(' '));
            if let Some(command) = rest.and_then(|rest| rest.split([' ', ',']).next()) {
                assert!(help.contains(&format!("\n  {command} ")), "`{code}` is no command");
            }
        }
    }
}

#[test]
fn the_scripts_with_functions_work_as_documented() {
    if !installed("jq") {
        return;
    }
    let find = |word: &str| *blocks("bash").iter().find(|script| script.contains(word)).unwrap();
    let sandbox = Sandbox::initialized();
    let ran = with_program_on_path(&sandbox, find("lock_state 30")).expect(0);
    assert_eq!(ran.stdout, "State updated successfully\n");
    assert_eq!(sandbox.ok("state phase"), "new-phase");
    let command = sandbox.file("bin/risky_command");
    let text = "#!/bin/sh\n[ \"$1 $2\" = 'arg1 arg2' ] && pipeline-state state phase half-done -q\nexit 4\n";
    fs::write(&command, text).unwrap(); // 4 is final
    fs::set_permissions(&command, fs::Permissions::from_mode(0o755)).unwrap();
    let ran = with_program_on_path(&sandbox, find("create_checkpoint"));
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (0, "Operation failed, restoring checkpoint\n"),
        "{}",
        ran.stderr
    );
    assert_eq!(sandbox.ok("state phase"), "new-phase");
}

#[test]
fn the_hooks_are_set_up_as_it_is_shown() {
    let find = |word: &str| *blocks("bash").iter().find(|script| script.contains(word)).unwrap();
    let sandbox = Sandbox::empty();
    let told = with_program_on_path(&sandbox, find("hook init-rules")).expect(0).stdout;
    let printed: serde_json::Value =
        serde_json::from_str(&told[told.find("{\n").unwrap()..]).unwrap();
    let shown: serde_json::Value = serde_json::from_str(blocks("json")[0]).unwrap();
    let called = printed["hooks"]["PostToolUse"][0]["hooks"][0]["command"].as_str().unwrap();
    let program = called.strip_suffix(" hook post-tool-use-tracker").unwrap();
    let printed = printed.to_string().replace(&program.replace('"', "\\\""), "pipeline-state");
    assert_eq!(printed, shown.to_string());
}
