//! Conversions by editors, git and other tools: marks, line ends, conflict markers, old copies,
//! other documents.

use std::fs;

use serde_json::{Value, json};

use crate::hooks::{PROMPT, prompted, with_rules};
use crate::sandbox::{Sandbox, make_old};

const MARK: &str = "\u{feff}";

fn live(root: &Sandbox) -> String {
    fs::read_to_string(root.state()).unwrap()
}

/// The name of the backup of a revision.
fn backup(root: &Sandbox, revision: u64) -> String {
    root.shelf("state-").into_iter().find(|name| name.contains(&format!("-r{revision}-"))).unwrap()
}

#[test]
fn a_byte_order_mark_before_any_input_is_skipped() {
    const RULES: &str = r#"{"skills": [{
        "skill": "spec", "activation_code": "SPEC_V1", "phase": "phase1",
        "trigger_conditions": {"user_patterns": ["write .*spec"]}}]}"#;
    let root = with_rules(&format!("{MARK}{RULES}"));
    root.run("hook check").expect(0);
    let event = format!("{MARK}{}", prompted(&root, "write a spec"));
    assert!(root.feed(PROMPT, event.as_bytes()).expect(0).stdout.contains("SPEC_V1"));
    let mut document: Value = root.document();
    document["n"] = json!(7);
    root.feed("state write -", format!("{MARK}{document}").as_bytes()).expect(0);
    assert_eq!(root.ok("state get .n"), "7");
    root.run_args(&["state", "signal", "GO", "--metadata", &format!("{MARK}{{\"a\":1}}")])
        .expect(0);
    root.feed("state validate -", format!("{MARK}{}", root.document()).as_bytes()).expect(0);
    let unsealed = r#"{"phase":"a","completedTasks":[],"signals":{},"lastActivation":""}"#;
    let old = Sandbox::holding(&format!("{MARK}{unsealed}"));
    old.ok("state init");
    assert_eq!(old.ok("state get .phase"), "a");
}

#[test]
fn a_converted_file_is_its_revision_and_the_next_write_seals_it_again() {
    for (convert, words) in [
        ((|text| format!("{MARK}{text}")) as fn(String) -> String, "a byte order mark (BOM),"),
        (|text| text.replace('\n', "\r\n"), "CR LF line ends"),
        (
            |text| format!("{MARK}{}", text.replace('\n', "\r\n")),
            "a byte order mark (BOM) and CR LF line ends",
        ),
    ] {
        let converted = || {
            let root = Sandbox::with_history();
            let text = live(&root);
            root.overwrite(convert(text.clone()));
            (root, text)
        };
        let (root, text) = converted();
        let before = root.snapshot();
        let read = root.run("state read").expect(0).saying(words);
        assert_eq!(
            (read.stdout.as_str(), read.stderr.matches("warning:").count()),
            (text.as_str(), 1),
            "{words}"
        );
        root.run("state validate").expect(0);
        let status = root.run("state status --json").expect(0).json();
        assert_eq!(
            (&status["health"], &status["mirror"]),
            (&json!("healthy"), &json!("same")),
            "{words}"
        );
        assert_eq!(root.snapshot(), before);
        for writer in ["state set a=b", "state set n:=3", "state init", "state write -"] {
            let (root, text) = converted();
            root.feed(writer, convert(text).as_bytes()).expect(0);
            assert_eq!(root.revision(), 5, "{words}, {writer}");
            assert!(
                !live(&root).contains([MARK.chars().next().unwrap(), '\r']),
                "{words}, {writer}"
            );
            assert_eq!(
                fs::read(root.mirror()).unwrap(),
                fs::read(root.state()).unwrap(),
                "{words}, {writer}"
            );
        }
        let (root, text) = converted();
        let edited = convert(text.replace("\"n\": 3", "\"n\": 30"));
        root.overwrite(edited);
        root.run("state set a=b").expect(3).saying(".n: 3 -> 30");
    }
}

#[test]
fn converted_copies_heal() {
    let root = Sandbox::with_history();
    for name in root.names(".state-backups") {
        let file = root.file(".state-backups").join(name);
        let text = fs::read_to_string(&file).unwrap().replace('\n', "\r\n");
        fs::write(&file, text).unwrap();
    }
    root.overwrite("");
    assert_eq!(root.ok("state get .n"), "3");
    root.ok("state recover --to-revision 2");
    assert_eq!(root.ok("state get .n"), "1");
}

#[test]
fn an_old_copy_with_the_latest_contents_is_no_edit() {
    let root = Sandbox::with_history();
    root.ok("state set n:=4");
    root.ok("state set n:=3");
    let old = fs::read(root.file(".state-backups").join(backup(&root, 4))).unwrap();
    root.overwrite(&old);
    root.run("state validate").expect(0);
    root.ok("state backup mine");
    root.ok("state set a=b");
    assert_eq!((root.revision(), root.ok("state get .n")), (7, "3".to_owned()));

    let root = Sandbox::with_history();
    let old = fs::read(root.file(".state-backups").join(backup(&root, 3))).unwrap();
    root.overwrite(&old);
    root.run("state set a=b").expect(3).saying("revision 4 was acknowledged");
}

#[test]
fn conflict_markers_are_an_edit_that_only_a_person_resolves() {
    let conflicted = || {
        let root = Sandbox::with_history();
        let text = live(&root);
        let conflict =
            "<<<<<<< HEAD\n  \"n\": 3,\n=======\n  \"n\": 9,\n>>>>>>> theirs\n  \"n\": 3";
        root.overwrite(text.replace("  \"n\": 3", conflict));
        root
    };
    let root = conflicted();
    let before = root.snapshot();
    for words in [
        "state read",
        "state get .n",
        "state set a=b",
        "state init",
        "state adopt",
        "recover checkpoint x",
    ] {
        root.run(words).expect(3).saying("conflict markers").saying("state recover");
    }
    root.run("state validate").expect(3);
    root.run("state validate .workflow-state.json").expect(4);
    let mut accepting = root.command();
    let read = accepting
        .env("STATE_FOREIGN_EDITS", "accept")
        .args(["state", "set", "a=b"])
        .output()
        .unwrap();
    assert_eq!(read.status.code(), Some(3));
    assert_eq!(
        fs::read(root.state()).unwrap(),
        before.iter().find(|(path, _)| *path == root.state()).unwrap().1
    );
    let text = fs::read(root.state()).unwrap();
    root.ok("state recover");
    assert_eq!(root.ok("state get .n"), "3");
    let evidence = root.shelf("corrupt-");
    assert_eq!(fs::read(root.file(".state-backups").join(&evidence[0])).unwrap(), text);

    let root = conflicted();
    let resolved: Vec<String> = live(&root)
        .lines()
        .filter(|line| !line.contains("\"n\": 3") && !"<=>".contains(&line[..1]))
        .map(str::to_owned)
        .collect();
    root.overwrite(resolved.join("\n").replace("\"n\": 9,", "\"n\": 9"));
    root.ok("state adopt");
    assert_eq!((root.ok("state get .n"), root.revision()), ("9".to_owned(), 5));
}

#[test]
fn another_tools_document_is_left_alone() {
    for text in [r#"{"name":"x","version":2}"#, "[]", "\"x\"", "null"] {
        let root = Sandbox::holding(text);
        let before = root.snapshot();
        for words in
            ["state init", "state read", "state set a=b", "state validate", "recover checkpoint x"]
        {
            root.run(words).expect(4);
            assert_eq!(root.snapshot(), before, "{text}, {words}");
        }
        let refused = root.run("state init --json");
        let error = refused.expect_json_error("not_a_state");
        let hints = error["hints"].to_string();
        assert!(hints.contains("--state-file") && hints.contains("init --fresh"), "{hints}");
        let answer =
            root.feed(PROMPT, prompted(&root, "write a spec").to_string().as_bytes()).expect(0);
        assert_eq!((answer.stdout, answer.stderr), (String::new(), String::new()), "{text}");
        assert_eq!(root.snapshot(), before, "{text}");
    }
}

#[test]
fn a_refused_init_creates_nothing() {
    for (text, code) in [
        (r#"{"phase":[],"completedTasks":[],"signals":{},"lastActivation":""}"#, 4),
        (r#"{"schemaVersion":"7.0","phase":"x"}"#, 4),
        ("{\"torn", 3),
        ("", 3),
    ] {
        let root = Sandbox::holding(text);
        let before = root.snapshot();
        root.run("state init").expect(code);
        assert_eq!(root.snapshot(), before, "{text}");
    }
}

#[test]
fn objects_in_the_place_of_signals_are_kept_with_a_warning() {
    let old = concat!(
        r#"{"phase":1,"completedTasks":[],"signals":{"A":{"timestamp":5,"by":"x"},"B":7},"#,
        r#""lastActivation":""}"#
    );
    let root = Sandbox::holding(old);
    root.run("state init")
        .expect(0)
        .saying("signals hold objects instead of times, and keep them: A");
    assert_eq!(root.ok("state get .signals.A.by"), "x");
    assert_eq!(root.run("state set a=b").expect(0).stderr, "", "once is enough");
    root.run("state validate").expect(0);
    make_old(&root.state());
}
