//! Contract, §2, §3, §5: output, exit codes and purpose of the commands.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use crate::sandbox::{Ran, Sandbox};

#[test]
fn get_answers_like_jq_and_its_exit_code_is_the_answer() {
    let sandbox = Sandbox::initialized();
    sandbox.run_args(&["state", "set", "a.b:=[1,\"two\",null]", "f:=false"]).expect(0);
    let get = |args: &[&str]| {
        let ran = sandbox.run_args(&[&["state", "get"], args].concat());
        assert_eq!(ran.stderr, "", "an answer writes nothing to stderr");
        (ran.code, ran.stdout)
    };
    assert_eq!(get(&[".a.b[0]"]), (0, "1\n".into()));
    assert_eq!(get(&[".a.b[-2]"]), (0, "two\n".into()));
    assert_eq!(get(&[".a.b[]"]), (0, "1\ntwo\nnull\n".into()));
    assert_eq!(get(&[".a.b[]", "--json", "--default", "x"]), (0, "1\n\"two\"\n\"x\"\n".into()));
    assert_eq!(get(&[".a.b[]", "--default", "x y"]), (0, "1\ntwo\nx y\n".into()));
    assert_eq!(get(&[".a.b[]", "-e"]), (1, "1\ntwo\nnull\n".into()));
    assert_eq!(get(&[".nope, .a.b[0]", "-e"]), (0, "null\n1\n".into()));
    assert_eq!(get(&[".nope, .a.nope"]), (1, String::new()));
    assert_eq!(get(&[".nope, .a.nope", "--default", "-"]), (0, "-\n-\n".into()));
    assert_eq!(get(&["empty", "--default", "-"]), (0, "-\n".into()));
    assert_eq!(get(&[".a.b | length"]), (0, "3\n".into()));
    assert_eq!(get(&[".a"]), (0, "{\"b\":[1,\"two\",null]}\n".into()));
    assert_eq!(get(&[".nope"]), (1, String::new()));
    assert_eq!(get(&[".a.nope[0].x"]), (1, String::new()));
    assert_eq!(get(&["empty"]), (1, String::new()));
    assert_eq!(get(&[".nope", "--default", "-"]), (0, "-\n".into()));
    assert_eq!(get(&[".nope", "--exit-zero"]), (0, String::new()));
    assert_eq!(get(&[".f"]), (0, "false\n".into()));
    assert_eq!(get(&[".f", "-e"]), (1, "false\n".into()));
}

#[test]
fn set_makes_parents_appends_and_takes_several_at_once() {
    let sandbox = Sandbox::initialized();
    sandbox
        .run_args(&["state", "set", "a.b.c=text", "list[+]=x", "list[+]:=2", "e=x=y", "phase=p"])
        .expect(0);
    assert_eq!(sandbox.revision(), 2);
    assert_eq!(sandbox.ok("state get .a"), r#"{"b":{"c":"text"}}"#);
    assert_eq!(sandbox.ok("state get .list"), r#"["x",2]"#);
    assert_eq!(sandbox.ok("state get .e"), "x=y");
    let dry = sandbox.ok("state set list[0]=z --dry-run");
    assert_eq!((dry.as_str(), sandbox.revision()), (".list[0]: \"x\" -> \"z\"", 2));
}

#[test]
fn update_binds_its_arguments() {
    let sandbox = Sandbox::initialized();
    let args = [
        "state",
        "update",
        ".a = $x | .b = $y",
        "--arg",
        "x",
        "-5",
        "--argjson",
        "y",
        "{\"k\":1e400}",
    ];
    sandbox.run_args(&args).expect(0);
    assert_eq!(
        (sandbox.ok("state get .a"), sandbox.ok("state get .b")),
        ("-5".into(), r#"{"k":1e400}"#.into())
    );
}

#[test]
fn the_everyday_changes() {
    let sandbox = Sandbox::initialized();
    sandbox.ok("state phase build");
    assert_eq!(sandbox.ok("state phase"), "build");
    sandbox.ok("state complete lint test");
    assert_eq!(sandbox.ok("state complete test deploy"), "State updated: revision 4");
    assert_eq!(sandbox.ok("state get .completedTasks"), r#"["lint","test","deploy"]"#);
    sandbox
        .run_args(&[
            "state",
            "signal",
            "BUILD_DONE",
            "--phase",
            "test",
            "--metadata",
            "{\"n\":1e400}",
        ])
        .expect(0);
    let file = fs::read_to_string(sandbox.file(".signals/BUILD_DONE.json")).unwrap();
    assert!(file.contains("1e400"), "{file}");
    let stamp = sandbox.ok("state get .signals.BUILD_DONE");
    assert!(
        file.contains(&format!("\"timestamp\": {stamp}")) && file.contains("\"phase\": \"test\""),
        "{file}"
    );
    assert!(stamp.parse::<f64>().unwrap() > 1.7e9);
    assert_eq!(sandbox.ok("state get .lastSignal"), "BUILD_DONE");
    sandbox.ok("state signal BUILD_DONE --clear");
    assert_eq!(
        (sandbox.names(".signals").len(), sandbox.run("state get .signals.BUILD_DONE").code),
        (0, 1)
    );
}

#[test]
fn the_root_is_found_from_below_and_in_dot_claude() {
    let sandbox = Sandbox::empty();
    fs::create_dir_all(sandbox.file("project/.claude")).unwrap();
    fs::create_dir_all(sandbox.file("project/src/deep")).unwrap();
    sandbox.run_args(&["--root", "project/.claude", "state", "init"]).expect(0);
    let from = |dir: &str| {
        let mut command = sandbox.command();
        Ran::of(
            command
                .current_dir(sandbox.file(dir))
                .args(["state", "get", ".phase"])
                .output()
                .unwrap(),
        )
    };
    from("project/src/deep").expect(0);
    from("project").expect(0);
    from(".").expect(1);
    fs::remove_file(sandbox.file("project/.claude/.workflow-state.json")).unwrap();
    from("project/src/deep").expect(3).saying("state recover");
}

#[test]
fn five_automatic_and_twenty_pinned_backups_are_kept() {
    let sandbox = Sandbox::initialized();
    for n in 0..9 {
        sandbox.ok(&format!("state set n:={n}"));
    }
    assert_eq!(sandbox.shelf("state-").len(), 5);
    for n in 0..23 {
        sandbox.ok(&format!("state backup keep{n}"));
    }
    let listed = sandbox.run("state backups --json").expect(0).json();
    let pinned =
        listed.as_array().unwrap().iter().filter(|backup| backup["pinned"] == true).count();
    assert_eq!((pinned, listed.as_array().unwrap().len()), (20, 25));
    let mut command = sandbox.command();
    Ran::of(
        command.env("STATE_MAX_BACKUPS", "0").args(["state", "set", "n:=99"]).output().unwrap(),
    )
    .expect(0);
    assert_eq!(sandbox.run("state backups --json").json().as_array().unwrap().len(), 21);
    // age goes by the name: the mtime of a hard link is that of the previous commit
    for (old, kept) in [
        ("state-20200101-000000-r1-old.json", false),
        ("state-20200101-000000-r1-manual-old.json", true),
    ] {
        fs::copy(sandbox.state(), sandbox.file(".state-backups").join(old)).unwrap();
        sandbox.ok(&format!("state set old={old}"));
        assert_eq!(sandbox.shelf(old).len(), usize::from(kept), "{old}");
    }
}

#[test]
fn two_backups_of_one_second_and_name_are_both_kept() {
    let sandbox = Sandbox::initialized();
    let names: Vec<String> = (0..3).map(|_| sandbox.ok("state backup same")).collect();
    assert_eq!(sandbox.shelf("state-").len(), 3, "{names:?}");
    let path = names[1].strip_prefix("Backup created: ").unwrap();
    assert!(std::path::Path::new(path).exists());
    sandbox.ok(&format!("state recover {path}"));
}

#[test]
fn closed_pipes_end_quietly_and_a_full_stdout_is_an_error() {
    let sandbox = Sandbox::initialized();
    let big = "x".repeat(1 << 20);
    fs::write(
        sandbox.file("big.json"),
        format!(r#"{{"phase":"{big}","completedTasks":[],"signals":{{}},"lastActivation":""}}"#),
    )
    .unwrap();
    sandbox.ok("state write big.json");
    let ran = sandbox.bash("set -o pipefail; $PIPELINE_BINARY state read | head -c 1 >/dev/null");
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    sandbox.bash("$PIPELINE_BINARY state read >/dev/full").expect(7);
    let ran = sandbox.bash("$PIPELINE_BINARY state set done=yes >/dev/full");
    assert_eq!(
        (ran.code, sandbox.ok("state get .done")),
        (0, "yes".into()),
        "what is committed is acknowledged"
    );
    assert!(ran.stderr.contains("could not be confirmed"));
    assert_eq!(sandbox.bash("$PIPELINE_BINARY state set closed=yes >&- 2>&-").code, 0);
}

#[test]
fn wait_returns_when_a_filter_becomes_true_and_9_if_it_does_not() {
    let sandbox = Sandbox::initialized();
    sandbox.ok("state wait .phase");
    sandbox.run("state wait .nope --timeout 20ms").expect(9).saying(".nope");
    sandbox.run("state wait .nope --timeout 0").expect(9);
    let mut waiting = sandbox.command();
    let mut waiting =
        waiting.args(["state", "wait", ".phase == \"go\"", "--timeout", "60"]).spawn().unwrap();
    sandbox.ok("state set a=b");
    assert!(waiting.try_wait().unwrap().is_none());
    sandbox.ok("state phase go");
    assert_eq!(Ran::of(waiting.wait_with_output().unwrap()).code, 0);
}

#[test]
fn watch_prints_a_line_for_each_revision() {
    let sandbox = Sandbox::initialized();
    let mut watching = sandbox.command();
    let mut watching =
        watching.args(["state", "watch", ".n"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines();
    let mut next = || lines.next().unwrap().unwrap();
    assert_eq!(next(), "null");
    for n in ["1", "2", "3"] {
        sandbox.ok(&format!("state set n:={n}"));
        assert_eq!(next(), n);
    }
    watching.kill().unwrap();
    watching.wait().unwrap();
}

#[test]
fn edit_commits_a_good_edit_and_keeps_a_bad_one() {
    let sandbox = Sandbox::initialized();
    let edit = |editor: &str| {
        let mut command = sandbox.command();
        Ran::of(
            command
                .env("EDITOR", editor)
                .env_remove("VISUAL")
                .env("TMPDIR", sandbox.path())
                .args(["state", "edit"])
                .output()
                .unwrap(),
        )
    };
    assert_eq!(edit("sed -i s/pre-init/edited/").expect(0).stdout, "State updated: revision 2\n");
    assert_eq!(edit("true").expect(0).stdout, "State unchanged: revision 2\n");
    let left = |sandbox: &Sandbox| {
        sandbox.names(".").into_iter().filter(|name| name.contains("edit")).collect::<Vec<_>>()
    };
    assert_eq!(left(&sandbox), Vec::<String>::new(), "the private copy goes");
    edit("sed -i s/edited/\\\"/").expect(4).saying("your edit is kept there").saying("state write");
    assert_eq!((left(&sandbox).len(), sandbox.ok("state get .phase")), (1, "edited".into()));
    edit("sh -c 'sed -i s/edited/late/ \"$1\"; \"$PIPELINE_BINARY\" state set first=yes' sh")
        .expect(75)
        .saying("--force");
    edit("false").expect(1);
    edit("no-such-editor-anywhere").expect(5);
}

#[test]
fn init_is_idempotent_and_creates_missing_parts() {
    let sandbox = Sandbox::initialized();
    let before = sandbox.snapshot();
    assert!(sandbox.ok("state init").ends_with("(revision 1)"));
    assert_eq!(sandbox.snapshot(), before);
    fs::remove_dir_all(sandbox.file(".signals")).unwrap();
    fs::remove_file(sandbox.mirror()).unwrap();
    sandbox.ok("state init");
    assert_eq!(sandbox.snapshot(), before);
}

#[test]
fn a_writer_without_a_state_creates_nothing() {
    let sandbox = Sandbox::empty();
    for words in [
        "state set a=b",
        "state update .",
        "state recover",
        "state backup",
        "state adopt",
        "state migrate",
        "state read",
        "state status",
        "state validate",
        "state history",
    ] {
        sandbox.run(words).expect(1).saying("state init");
    }
    assert_eq!(sandbox.snapshot(), []);
}

#[test]
fn status_and_history_show_revisions_and_reasons() {
    let sandbox = Sandbox::with_history();
    sandbox.ok("state set n:=4 --reason four");
    let status = sandbox.run("state status --json").expect(0).json();
    assert_eq!(
        (status["health"].as_str(), status["revision"].as_u64(), status["mirror"].as_str()),
        (Some("healthy"), Some(5), Some("same"))
    );
    assert!(status["disk_free"].as_u64().unwrap() > 0);
    let text = sandbox.ok("state status");
    for word in ["healthy, revision 5", "pre-init", "up to date", "4 automatic"] {
        assert!(text.contains(word), "{word} is not in {text}");
    }
    let history = sandbox.run("state history --json").expect(0).json();
    assert_eq!(
        (history[0]["revision"].as_u64(), history[0]["reason"].as_str()),
        (Some(5), Some("four"))
    );
    fs::remove_file(sandbox.file("audit.log")).unwrap();
    assert!(
        sandbox.ok("state history").lines().nth(1).unwrap().contains("four"),
        "from the backup's name"
    );
    assert_eq!(sandbox.ok("state diff"), ".n: 3 -> 4");
    assert_eq!(sandbox.ok("state diff 2 4"), ".n: 1 -> 3");
    sandbox.run("state diff 99").expect(1);
}

#[test]
fn a_number_names_a_revision_and_no_part_of_a_date() {
    let root = Sandbox::initialized();
    (1..=3).for_each(|n| drop(root.ok(&format!("state set n:={n}")))); // revisions 2 to 4
    assert!(root.ok("state recover 2").contains("-r2-"));
    assert_eq!(root.document()["n"], 1);
    root.run("state recover 20").expect(1).saying("no backup of revision 20");
}

#[test]
fn words_of_other_tools_lead_to_the_command() {
    let root = Sandbox::empty();
    for (word, command) in
        [("log", "state history"), ("delete", "state unset"), ("rollback", "state undo")]
    {
        root.run(word).expect(64).saying(&format!("hint: pipeline-state {command}"));
        root.run(&format!("{command} --help")).expect(0);
    }
    // With what was typed after the word.
    root.run("acquire x 0").expect(64).saying("hint: pipeline-state lock acquire x 0\n");
}

#[test]
fn an_empty_pattern_is_a_mistake_and_not_everything() {
    let sandbox = Sandbox::with_history();
    let before = sandbox.snapshot();
    for args in [["state", "recover", ""], ["state", "diff", ""]] {
        sandbox.run_args(&args).expect(64);
    }
    assert_eq!(sandbox.snapshot(), before);
}

#[test]
fn input_may_come_through_a_link_or_a_pipe() {
    let sandbox = Sandbox::with_history();
    sandbox
        .bash("$PIPELINE_BINARY state write <(sed s/pre-init/piped/ .workflow-state.json)")
        .expect(0);
    assert_eq!(sandbox.ok("state get .phase"), "piped");
    sandbox
        .bash("sed s/piped/stdin/ .workflow-state.json | $PIPELINE_BINARY state write /dev/stdin")
        .expect(0);
    sandbox
        .bash("cp .workflow-state.json copy; ln -s copy link; $PIPELINE_BINARY state validate link")
        .expect(0);
    sandbox.run("state write nowhere.json").expect(5).saying("hint: ls -ld nowhere.json");
}

#[test]
fn watch_ends_when_its_reader_is_gone() {
    let sandbox = Sandbox::initialized();
    let ran = sandbox.bash("set -o pipefail; $PIPELINE_BINARY state watch .phase | head -1");
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (0, "\"pre-init\"\n", ""));
}

#[test]
fn a_hint_leads_to_the_same_state_in_another_shell() {
    let sandbox = Sandbox::empty();
    let mut command = sandbox.command();
    let ran = Ran::of(
        command.env("PIPELINE_ROOT", sandbox.path()).args(["state", "read"]).output().unwrap(),
    );
    // On a cluster the hint names the store, too.
    ran.expect(1)
        .saying(&format!("hint: pipeline-state --root {} ", sandbox.path().display()))
        .saying(" state init");
}
