//! The records of guards: what proves that a guard runs, whose they are, and what they lead to.

use std::fs;

use serde_json::json;

use crate::guard::{SET, on_record, start, start_as};
use crate::permitted::is_permitted;
use crate::sandbox::{BINARY, Ran, Sandbox, until};
use crate::script::{forged, is_root};

/// A guard whose command failed beside a commit of another, after the root was spoilt.
fn unrestored(spoil: &str) -> (Sandbox, Ran, String) {
    let root = Sandbox::with_history();
    fs::create_dir(root.file("config")).unwrap();
    fs::write(root.file("config/a"), "1").unwrap();
    let guard = start(&root, "deploy", "", &format!("{SET} n:=99"), 7);
    root.ok("state set n:=100");
    root.bash(spoil).expect(0);
    let (ran, id) = guard.go_on(&root);
    (root, ran, id)
}

#[test]
fn no_hint_names_a_checkpoint_that_is_gone_or_damaged() {
    for spoil in ["rm -rf .checkpoints", "echo x >>$(ls .checkpoints/*-deploy/config/a)"] {
        let (root, ran, id) = unrestored(spoil);
        assert_eq!(ran.code, 3, "{spoil}: {}", ran.stderr);
        for told in [ran, root.run("recover doctor"), root.run("recover status")] {
            let told = format!("{}{}", told.stdout, told.stderr);
            assert!(!told.contains(&format!("recover restore {id}")), "{spoil}: {told}");
            assert!(told.contains(&format!("recover guard --forget {id}")), "{spoil}: {told}");
        }
        root.ok(&format!("recover guard --forget {id}"));
    }
}

#[test]
fn a_guard_whose_record_is_gone_puts_back_what_it_can() {
    let root = Sandbox::with_history();
    fs::write(root.file("run.sh"), format!("{SET} n:=99\nrm .state-backups/guard-*\nexit 7\n"))
        .unwrap();
    let ran = root.run("recover guard deploy -- sh ./run.sh");
    assert_eq!((ran.code, root.document()["n"].clone()), (7, json!(3)), "{}", ran.stderr);
    let (root, ran, id) = unrestored("rm .state-backups/guard-*");
    assert_eq!((ran.code, on_record(&root).len()), (3, 1), "{}", ran.stderr);
    root.run("recover doctor").expect_finding(&id);
}

#[test]
fn a_guard_keeps_the_config_of_another_one_even_where_it_alone_committed() {
    let root = Sandbox::with_history();
    fs::create_dir(root.file("config")).unwrap();
    let b = start(&root, "b", "", "echo b >config/b", 0);
    let a = start(&root, "a", "", &format!("{SET} n:=99\necho a >config/a"), 7);
    let (ran, _) = a.go_on(&root);
    assert_eq!((ran.code, root.document()["n"].clone()), (3, json!(3)), "{}", ran.stderr);
    assert!(ran.stderr.contains(&format!("since the guard {} ran meanwhile", b.id)), "{ran:?}");
    assert_eq!(root.names("config"), ["a", "b"]);
    let (ran, _) = b.go_on(&root);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
}

#[test]
fn a_pipe_that_a_guard_beside_other_commits_moves_aside_is_named() {
    let root = Sandbox::with_history();
    fs::create_dir(root.file("config")).unwrap();
    let guard = start(&root, "deploy", "", &format!("{SET} n:=99\nmkfifo config/p"), 7);
    root.ok("state set theirs:=1");
    let (ran, _) = guard.go_on(&root);
    assert_eq!((ran.code, root.document()["n"].clone()), (7, json!(3)), "{}", ran.stderr);
    assert!(ran.stderr.contains("config/p "), "{}", ran.stderr);
}

#[test]
fn a_file_whose_name_holds_no_checkpoint_is_no_guard() {
    let root = Sandbox::with_history();
    fs::write(root.file(".state-backups/guard-checkpoint-1-x;touch pwned.json"), "{}").unwrap();
    root.bash("chmod 600 .state-backups/guard-*").expect(0);
    for words in ["recover doctor", "recover status", "state set a:=1"] {
        let ran = root.run(words);
        assert!(!format!("{}{}", ran.stdout, ran.stderr).contains("pwned"), "{words}: {ran:?}");
    }
}

#[test]
fn a_guard_is_recognised_by_the_creation_time_of_its_root_and_not_by_its_device() {
    let root = Sandbox::with_history();
    let mut guard = start(&root, "deploy", "", &format!("{SET} n:=99"), 7);
    guard.child.kill().unwrap();
    guard.child.wait().unwrap();
    let file = root.file(".state-backups").join(&on_record(&root)[0]);
    let moved = |record: &mut serde_json::Value| record["root"]["dev"] = json!(u64::MAX);
    fs::write(&file, forged(&file, moved)).unwrap();
    root.run("recover doctor").expect_finding("was killed");
    let copied = |record: &mut serde_json::Value| record["root"]["created"] = json!([1, 2]);
    fs::write(&file, forged(&file, copied)).unwrap();
    root.run("recover doctor").expect_finding("of another root");
    fs::write(root.file("deploy-go"), "go\n").unwrap();
}

#[test]
fn a_guard_in_another_pid_namespace_shows_by_its_lifeline_whether_it_runs() {
    let flags = if is_root() { "-fp" } else { "-Urfp" };
    if !is_permitted("unshare", &[flags, "--mount-proc", "true"]) {
        return;
    }
    let root = Sandbox::with_history();
    let mut command = root.program("unshare");
    command.args(["--kill-child=KILL", flags, "--mount-proc"]).arg(BINARY);
    let mut guard = start_as((&root, command), "deploy", "", &format!("{SET} n:=99"), 7);
    let standing = || root.run("state status --json").json()["guards"][0]["standing"].clone();
    assert_eq!(standing(), "running");
    let names = root.names(".locks");
    let lifeline = names.iter().find(|name| name.starts_with(".guard-")).unwrap();
    let lifeline = root.file(".locks").join(lifeline);
    let aside = root.file("aside");
    fs::rename(&lifeline, &aside).unwrap();
    assert_eq!(standing(), "unknown", "a lifeline that is missing proves nothing");
    fs::rename(&aside, &lifeline).unwrap();
    guard.child.kill().unwrap();
    guard.child.wait().unwrap();
    until("the namespace has ended", || standing() == "killed");
    root.run("state set later:=1").expect(0).saying("was killed");
    let file = root.file(".state-backups").join(&on_record(&root)[0]);
    let nameless = |record: &mut serde_json::Value| record["lifeline"] = json!(null);
    fs::write(&file, forged(&file, nameless)).unwrap();
    assert_eq!(standing(), "unknown");
    root.run("recover doctor").expect(1).showing("cannot be determined");
    root.ok(&format!("recover guard --forget {}", guard.id));
    root.ok("lock clean");
    root.run("recover doctor").expect(0);
}

#[test]
fn a_restore_of_an_older_checkpoint_settles_the_guards_that_were_killed_since() {
    let root = Sandbox::initialized();
    root.ok("recover checkpoint before");
    let guard = "\"$PIPELINE_BINARY\" state set a:=1 -q; kill -9 $PPID";
    root.bash(&format!("\"$PIPELINE_BINARY\" recover guard -q one -- sh -c '{guard}'; :"));
    assert_eq!(root.shelf("guard-checkpoint-").len(), 1);
    root.ok("recover restore --latest before");
    assert_eq!(root.shelf("guard-checkpoint-"), [] as [String; 0]);
}
