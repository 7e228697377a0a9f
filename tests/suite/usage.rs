//! Contract, §2, §3: wrong usage, help, and hints.

use std::fs;

use crate::sandbox::{Ran, Sandbox};

#[test]
fn wrong_usage_is_64_with_a_suggestion() {
    let sandbox = Sandbox::initialized();
    for (words, saying) in [
        ("state sttatus", "hint: pipeline-state state status   # did you mean this one?"),
        ("state set", "state set --help"),
        ("state read --nonsense", "--nonsense"),
        ("state wait .x --timeout soon", "soon"),
        ("state set a=b --if-revision many", "many"),
        ("--format xml state read", "xml"),
        ("nonsense", "nonsense"),
    ] {
        sandbox.run(words).expect(64).saying(saying).saying("hint: ");
        sandbox.run(&format!("{words} --json")).expect_json_error("usage");
    }
    for words in ["", "state"] {
        assert_eq!(sandbox.run(words).code, 64, "{words:?}");
    }
    let mut command = sandbox.command();
    Ran::of(command.env("LOCK_TIMEOUT", "soon").args(["state", "read"]).output().unwrap())
        .expect(64)
        .saying("LOCK_TIMEOUT");
    for words in ["--help", "--version", "state --help", "state set --help"] {
        assert!(!sandbox.run(words).expect(0).stdout.is_empty());
    }
}

#[test]
fn help_is_a_word_too() {
    let sandbox = Sandbox::empty();
    for (words, meant) in [
        ("help", "--help"),
        ("help state", "state --help"),
        ("--json help state set", "state set --help"),
        ("state help", "state --help"),
        ("lock help acquire -q", "lock acquire --help"),
        ("help man", "man --help"),
    ] {
        assert_eq!(
            sandbox.run(words).expect(0).stdout,
            sandbox.run(meant).expect(0).stdout,
            "{words}"
        );
    }
    let told = sandbox.run("help lock nope").expect(64).stderr;
    assert!(told.contains("hint: pipeline-state lock --help\n"), "{told}");
    let unknown = sandbox.run("help nonsense").expect(64);
    unknown.saying("unrecognized subcommand 'nonsense'").saying("hint: pipeline-state help pages");
    sandbox.run("man help").expect(5); // at the destination there is a directory
}

#[test]
fn misspelt_words_get_the_corrected_line_unless_none_is_near() {
    let sandbox = Sandbox::empty();
    for (words, meant) in [
        ("--root . state complet lint", "--root . state complete lint"),
        ("recover restore --lates", "recover restore --latest"),
        ("--format jsn state read", "--format json state read"),
        ("lokc list", "lock list"),
    ] {
        sandbox
            .run(words)
            .expect(64)
            .saying(&format!("hint: pipeline-state {meant}   # did you mean this one?\n"));
    }
    for words in ["state nope", "state read --nonsense", "nonsense"] {
        let told = sandbox.run(words).expect(64).stderr;
        assert!(!told.contains("did you mean"), "{words}: {told}");
    }
    for words in [
        "recover retry -n two -- true",
        "recover handle x",
        "recover handle -- ",
        "state set a=b --if-revision x",
    ] {
        assert!(!sandbox.run(words).expect(64).stderr.contains("digit found"), "{words}");
    }
}

#[test]
fn a_value_without_its_equals_sign_is_completed() {
    let sandbox = Sandbox::initialized();
    for (words, meant) in [
        ("state set phase biuld", "state set phase=biuld"),
        ("set phase biuld n 3", "state set phase=biuld n=3"),
    ] {
        let hint = format!("hint: pipeline-state {meant}   # did you mean this one?\n");
        sandbox.run(words).expect(4).saying("\"phase\" has no value").saying(&hint);
    }
    let ran = sandbox.run("state set phase").expect(4).saying("write phase=VALUE");
    assert!(!ran.stderr.contains("did you mean"), "{}", ran.stderr);
}

/// Messages are plain English. The list grows with each form that comes back.
#[test]
fn messages_avoid_the_old_dialect() {
    let forms = [
        " is no ",
        " are no ",
        " anew",
        "was not had",
        "stands behind",
        "in the way",
        "somebody",
        "nobody",
        "whoever",
        "as it should",
        " do without",
        " things are",
        " vouches",
    ];
    let sources = walkdir::WalkDir::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src"));
    let mut found = Vec::new();
    for entry in sources.into_iter().map(Result::unwrap) {
        let Ok(text) = fs::read_to_string(entry.path()) else { continue };
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        for literal in code.flat_map(|line| line.split('"').skip(1).step_by(2)) {
            let plain = literal.replace("there is no ", "").replace("is no longer", "");
            found.extend(
                forms
                    .iter()
                    .filter(|form| plain.contains(**form))
                    .map(|form| format!("{}: {form:?} in {literal:?}", entry.path().display())),
            );
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn the_examples_of_the_first_page_can_be_pasted() {
    let sandbox = Sandbox::initialized();
    let help = sandbox.run("--help").expect(0).stdout;
    let lines: Vec<&str> =
        help.lines().filter(|line| line.starts_with("  pipeline-state ")).collect();
    assert!(lines.len() >= 8 && lines.iter().all(|line| line.contains("  # ")), "{help}");
    let set = lines.iter().find(|line| line.contains(" state set ")).unwrap();
    let line = set.replace("pipeline-state", "\"$PIPELINE_BINARY\"");
    sandbox.bash(&line).expect(0);
    assert_eq!(sandbox.ok("state phase"), "build");
}

#[test]
fn missing_dashes_before_a_command_are_suggested() {
    let sandbox = Sandbox::empty();
    for (words, meant) in [
        ("lock run deploy make", "lock run deploy -- make"),
        ("lock run make make -j4 make", "lock run make -- make -j4 make"),
        ("--root . lock run -t 5 deploy make it -q", "--root . lock run -t 5 deploy -- make it -q"),
        ("recover guard op ./run.sh", "recover guard op -- ./run.sh"),
        ("recover retry -n 2 retry", "recover retry -n 2 -- retry"),
    ] {
        let hint = format!("hint: pipeline-state {meant}   # the command to run goes after --\n");
        sandbox.run(words).expect(64).saying(&hint);
    }
    for words in [
        "lock run deploy --nonsense",
        "lock run deploy -- make --nonsense x",
        "state get .a .b",
        "lock check a b",
    ] {
        assert!(!sandbox.run(words).stderr.contains("goes after --"), "{words}");
    }
}

#[test]
fn every_command_has_examples_in_its_help() {
    let sandbox = Sandbox::empty();
    let help = sandbox.run("state --help").expect(0).stdout;
    let commands: Vec<&str> = help
        .lines()
        .skip_while(|line| !line.starts_with("Commands:"))
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| {
            line.split_whitespace()
                .next()
                .filter(|_| line.starts_with("  ") && !line.starts_with("   "))
        })
        .collect();
    assert!(commands.len() >= 21, "{commands:?}");
    for command in commands {
        let help = sandbox.run(&format!("state {command} --help")).expect(0).stdout;
        assert!(help.contains("pipeline-state state"), "{command}");
    }
}

#[test]
fn errors_are_one_line_of_json_where_json_is_asked_for() {
    let sandbox = Sandbox::empty();
    let error = sandbox.run("state read --json").expect_json_error("not_initialized");
    assert_eq!((error["code"].as_u64(), error["name"].as_str()), (Some(1), Some("GENERAL_ERROR")));
    let hint = error["hint"].as_str().unwrap();
    assert!(hint.starts_with("pipeline-state ") && hint.contains(" state init"), "{hint}");
    let mut command = sandbox.command();
    let ran =
        Ran::of(command.env("PIPELINE_FORMAT", "json").args(["state", "bogus"]).output().unwrap());
    ran.expect_json_error("usage");
}

#[test]
fn a_hint_repeats_the_options_that_chose_the_state() {
    let sandbox = Sandbox::empty();
    fs::create_dir(sandbox.file("a b")).unwrap();
    let ran = sandbox.run_args(&["--root", "a b", "state", "read"]).expect(1);
    let hint =
        ran.stderr.lines().find_map(|line| line.strip_prefix("hint: pipeline-state ")).unwrap();
    assert_eq!(
        sandbox.bash(&format!("$PIPELINE_BINARY {hint}")).code,
        0,
        "the hint can be typed: {hint}"
    );
    sandbox.run_args(&["--root", "a b", "state", "read"]).expect(0);
}

#[test]
fn global_options_work_before_and_after_the_command() {
    let sandbox = Sandbox::initialized();
    assert_eq!(sandbox.run("--json state get .phase").expect(0).stdout, "\"pre-init\"\n");
    assert_eq!(sandbox.run("state get .phase --json").expect(0).stdout, "\"pre-init\"\n");
    assert_eq!(sandbox.run("state set a=b -q").expect(0).stdout, "");
    assert_eq!(sandbox.run("state set a=c --json").expect(0).json()["revision"], 3);
}

#[test]
fn stderr_stays_empty_without_warnings_or_verbose() {
    let sandbox = Sandbox::initialized();
    assert_eq!(sandbox.run("state set a=b").expect(0).stderr, "");
    let mut command = sandbox.command();
    let ran = Ran::of(command.env("DEBUG", "1").args(["state", "set", "a=c"]).output().unwrap());
    assert!(ran.stderr.contains("DEBUG") && ran.stderr.contains("sync"), "{}", ran.stderr);
    assert_eq!(ran.stdout, "State updated: revision 3\n");
}
