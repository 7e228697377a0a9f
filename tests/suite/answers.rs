//! Reports of commands: lost races, the results of `init`, adopted states; and their questions.

use std::fs;
use std::io::Write as _;
use std::process::Stdio;

use serde_json::json;

use crate::sandbox::{BINARY, Ran, Sandbox, installed};

/// Runs a line of sh at a terminal, with this typed into it.
fn at_terminal(root: &Sandbox, line: &str, typed: &str) -> Ran {
    let mut command = root.program("script");
    command.args(["-qec", line, "/dev/null"]).stdin(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let _ = child.stdin.take().unwrap().write_all(typed.as_bytes());
    Ran::of(child.wait_with_output().unwrap())
}

// ---- a lost race ----

#[test]
fn a_lost_race_has_a_code_of_its_own_and_is_worth_repeating() {
    let root = Sandbox::with_history();
    let error = root.run("state set a=b --if-revision 2 --json").expect_json_error("conflict");
    assert_eq!((&error["code"], &error["name"]), (&json!(75), &json!("CONFLICT")));
    let handled = root.run("recover handle 75 --json").expect(0).json();
    assert_eq!((&handled["try_again"], &handled["name"]), (&json!(true), &json!("CONFLICT")));
    assert!(root.ok("--help").contains("75 conflict: read again, repeat"));
    // a third attempt succeeds after two lost races
    let script = "n=$(($(cat count 2>/dev/null || echo 0) + 1)); echo $n >count
        [ $n -ge 3 ] && exit 0; exec $PIPELINE_BINARY state set a=b --if-revision 1";
    fs::write(root.file("late.sh"), script).unwrap();
    root.bash(
        "$PIPELINE_BINARY recover retry --base-delay 0 --retry-on 75 -q -- bash late.sh \
               2>/dev/null",
    )
    .expect(0);
    fs::remove_file(root.file("count")).unwrap();
    let functions = "eval \"$($PIPELINE_BINARY shell bash)\"; late() { bash late.sh; }; \
                     retry_with_backoff late 3 0";
    assert_eq!(root.bash(&format!("{functions} 2>/dev/null; echo $?; cat count")).stdout, "0\n3\n");
    let log = fs::read_to_string(root.file(".error-recovery.log")).unwrap_or_default();
    assert!(
        !log.contains("(code: 75)\n") || log.contains("handle: "),
        "a lost race is no error of the state: {log}"
    );
}

// ---- init ----

#[test]
fn init_reports_its_changes() {
    let root = Sandbox::empty();
    let did = |root: &Sandbox| root.run("state init --json").expect(0).json()["done"].clone();
    let said = root.ok("state init");
    assert!(said.starts_with("State created: ") && said.ends_with("(revision 1)"), "{said}");
    assert_eq!(did(&root), "already there");
    root.overwrite("");
    assert_eq!(did(&root), "healed");
    let old =
        Sandbox::holding(r#"{"phase":"x","completedTasks":[],"signals":{},"lastActivation":""}"#);
    assert_eq!(did(&old), "migrated");
    assert!(old.ok("state init").starts_with("State already there: "));
}

#[test]
fn init_names_the_state_of_another_directory_that_it_uses() {
    let root = Sandbox::initialized();
    let below = root.file("a/b");
    fs::create_dir_all(&below).unwrap();
    let init = |words: &[&str]| {
        let mut command = root.command();
        Ran::of(command.current_dir(&below).args(words).output().unwrap()).expect(0)
    };
    let told = format!("using the state of {}", root.path().canonicalize().unwrap().display());
    for words in [&["state", "init"][..], &["state", "init", "-q"]] {
        assert!(init(words).stderr.contains(&told), "{words:?}: {}", init(words).stderr);
    }
    assert_eq!(init(&["--root", ".", "state", "init"]).stderr, "");
    assert_eq!(init(&["state", "init"]).stderr, "", "it has one of its own now");
}

#[test]
fn a_state_that_can_be_read_is_archived_only_after_a_yes() {
    let root = Sandbox::with_history();
    let before = root.snapshot();
    root.run("state init --fresh")
        .expect(64)
        .saying("is at revision 4")
        .saying("hint: ")
        .saying("--fresh --yes");
    assert_eq!(root.snapshot(), before);
    root.run("state init --yes").expect(64);
    if installed("script") {
        let fresh = format!("{BINARY} state init --fresh");
        for no in ["n\n", "\n", "maybe\n"] {
            let ran = at_terminal(&root, &fresh, no);
            assert!(ran.code == 1 && ran.stdout.contains("Start a new one? [y/N]"), "{ran:?}");
        }
        assert_eq!(root.snapshot(), before);
        assert_eq!(at_terminal(&root, &fresh, "y\n").code, 0);
        assert_eq!(root.revision(), 5);
    }
    root.ok("state set n=last");
    let facts = root.run("state init --fresh --yes --json").expect(0).json();
    assert!(fs::metadata(facts["archive"].as_str().unwrap()).unwrap().is_dir());
    // the printed way back
    let said = root.ok("state set n=late").len().min(1) + root.ok("state init --fresh --yes").len();
    assert!(said > 1);
    root.ok("state set n=other");
    let said = root.ok("state init --fresh --yes");
    let way_back =
        said.lines().find_map(|line| line.strip_prefix("The way back: pipeline-state ")).unwrap();
    root.ok(way_back);
    assert_eq!(root.ok("state get .n"), "other");
    // an unreadable state needs no question; files unknown to the program are copied back
    for document in ["garbage", "{\"a\":1}"] {
        let root = Sandbox::holding(document);
        let said = root.ok("state init --fresh");
        let way_back = said.lines().find_map(|line| line.strip_prefix("The way back: ")).unwrap();
        assert!(
            root.program("sh").args(["-c", way_back]).status().unwrap().success(),
            "{way_back}"
        );
        assert_eq!(fs::read_to_string(root.state()).unwrap(), document);
    }
}

// ---- set, and the paths it names ----

#[test]
fn the_programs_own_fields_cannot_be_set() {
    let root = Sandbox::with_history();
    for field in ["created", "lastModified", "revision", "lineage", "digest"] {
        for path in [format!("metadata.{field}"), format!(".metadata[\"{field}\"].x")] {
            let ran =
                root.run_args(&["state", "set", &format!("{path}:=5")]).expect(4).saying("hint: ");
            assert!(ran.stderr.contains(&format!(".metadata.{field}")), "{}", ran.stderr);
        }
    }
    assert_eq!(root.revision(), 4);
    root.ok("state set metadata.owner=me metadata.revisions:=5 revision:=6");
}

#[test]
fn array_elements_have_two_spellings_and_errors_name_a_remedy() {
    let root = Sandbox::initialized();
    root.ok("state set list:=[1,[2,3]] object:={}");
    root.ok("state set list.0=a list.1.1=b");
    root.ok("state set list[1].0=c .list[-1][1]=d");
    assert_eq!(root.ok("state get .list --json"), r#"["a",["c","d"]]"#);
    assert_eq!(
        (root.ok("state get .list.1.0"), root.ok("state get .list[0]")),
        ("c".into(), "a".into())
    );
    for (argument, said) in [
        ("object.1=x", r#"state set '.object."1"=TEXT'"#),
        ("2024-01=x", r#"state set '."2024-01"=TEXT'"#),
        ("list.7=x", "state set '.list[+]=TEXT'"),
        ("list.a=x", "state set '.list[0]=TEXT'"),
        ("phase.a=x", "state set '.phase:={}'"),
        (".=x", "state write -"),
    ] {
        let ran = root.run_args(&["state", "set", argument]).expect(4).saying(said);
        assert!(ran.stderr.starts_with(&format!("error: {argument:?}: ")), "{}", ran.stderr);
    }
}

#[test]
fn backups_are_listed_with_usable_names_and_reasons() {
    let root = Sandbox::initialized();
    for (value, reason) in [("1", "first"), ("2", "second"), ("3", "third")] {
        root.run_args(&["state", "set", &format!("n={value}"), "--reason", reason]).expect(0);
    }
    let listed = root.run("state backups --json").expect(0).json();
    let newest = &listed[0];
    assert_eq!(
        (&newest["revision"], &newest["reason"], &newest["kept"]),
        (&json!(3), &json!("second"), &json!("third"))
    );
    let table = root.ok("state backups");
    let name = table.lines().nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
    assert!(newest["name"].as_str().unwrap().contains(&name), "{table}");
    assert!(root.ok(&format!("state diff {name}")).contains("\"2\" -> \"3\""));
    root.ok(&format!("state recover {name}"));
    assert_eq!(root.ok("state get .n"), "2");
}

#[test]
fn every_refusal_of_input_has_a_next_step() {
    let root = Sandbox::with_history();
    fs::write(root.file("bad.json"), "{").unwrap();
    fs::write(root.file("newer.json"), r#"{"schemaVersion":"9.9","phase":"x"}"#).unwrap();
    fs::write(root.file("rules.json"), "[]").unwrap();
    fs::create_dir(root.file("config")).unwrap();
    let long = "x".repeat(65 << 10);
    let long = format!("\"{long}\"");
    let deep = "[".repeat(130) + &"]".repeat(130);
    let cases: &[&[&str]] = &[
        &["state", "get", ".a |"],
        &["state", "get", ".phase.x"],
        &["state", "get", "error"],
        &["state", "set", "a"],
        &["state", "set", "=x"],
        &["state", "set", "a:={"],
        &["state", "set", &format!("a:={long}")],
        &["state", "set", &format!("a:={deep}")],
        &["state", "set", "phase:=1"],
        &["state", "update", ".phase = 1"],
        &["state", "update", "1"],
        &["state", "update", "empty"],
        &["state", "update", ".", "--argjson", "a", "{"],
        &["state", "update", ".", "--arg", "1", "x"],
        &["state", "write", "bad.json"],
        &["state", "write", "newer.json"],
        &["state", "write", "rules.json"],
        &["state", "validate", "bad.json"],
        &["state", "validate", "newer.json"],
        &["state", "phase", " "],
        &["state", "complete", ""],
        &["state", "signal", "a b"],
        &["state", "signal", "A", "--metadata", "{"],
        &[
            "state",
            "signal",
            "A",
            "--metadata",
            &"[".repeat(128).chars().chain("]".repeat(128).chars()).collect::<String>(),
        ],
        &["state", "backup", "a/b"],
        &["state", "wait", ".a |"],
        &["lock", "acquire", "a b", "0"],
        &["lock", "acquire", "a", "0", "{"],
        &["lock", "check", "../x"],
        &["recover", "checkpoint", "a b"],
        &["recover", "checkpoint", "a", "[1]"],
        &["recover", "checkpoint", "a", "{"],
        &["recover", "restore", "../x"],
        &["recover", "restore", "--latest", "a/b"],
        &["recover", "remove", "a/b"],
        &["recover", "degrade", "x", "[1]"],
        &["recover", "handle", "4", "--operation", "a b"],
    ];
    for words in cases {
        let ran = root.run_args(words);
        let shown: String = words.join(" ").chars().take(80).collect();
        assert_eq!(ran.code, 4, "{shown}: {}", ran.stderr);
        assert!(ran.stderr.contains("\nhint: "), "{shown}: {}", ran.stderr);
    }
}

// ---- restore ----

#[test]
fn an_interactive_restore_lists_undone_revisions_and_asks() {
    if !installed("script") {
        return;
    }
    let root = Sandbox::with_history();
    root.ok("recover checkpoint op");
    root.run_args(&["state", "set", "n=after", "--reason", "by-another"]).expect(0);
    let restore = format!("exec {BINARY} recover restore --latest op");
    let ran = at_terminal(&root, &restore, "n\n");
    assert!(
        ran.code == 1
            && ran.stdout.contains("undoes revision 5: ")
            && ran.stdout.contains("by-another")
            && ran.stdout.contains("recover restore --latest pre-restore"),
        "{ran:?}"
    );
    assert_eq!(root.ok("state get .n"), "after");
    // a script at the same terminal is not asked, nor is a command with --yes
    for (line, typed) in [
        (format!("{BINARY} recover restore --latest op; exit $?"), ""),
        (format!("{restore} --yes"), ""),
        (restore, "y\n"),
    ] {
        root.ok("state set n=after");
        let ran = at_terminal(&root, &line, typed);
        assert_eq!(ran.code, 0, "{line}");
        assert_eq!(root.ok("state get .n"), "3", "{line}");
        let way_back = ran.stdout.split("To undo it: pipeline-state ").nth(1);
        assert_eq!(way_back.is_some(), line.starts_with("exec"), "{ran:?}");
        if let Some(way_back) = way_back {
            root.ok(way_back.lines().next().unwrap().trim());
            assert_eq!(root.ok("state get .n"), "after", "{line}");
        }
    }
}
