//! Place of locks: in the root that is named or found, and only there.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::Path;

use crate::owners::Owner;
use crate::sandbox::{Ran, Sandbox};

#[test]
fn a_lock_is_refused_where_no_root_is_found() {
    let (sandbox, owner) = (Sandbox::empty(), Owner::new());
    for words in [
        "lock acquire deploy",
        "lock release deploy",
        "lock check deploy",
        "lock run deploy -- true",
    ] {
        let ran = sandbox.run(words).expect(1).saying("hint: pipeline-state state init ");
        let again = words.replace("-- true", "-- COMMAND");
        ran.saying(&format!("hint: pipeline-state --root . {again} "));
        sandbox.run(&format!("--json {words}")).expect_json_error("not_initialized");
    }
    sandbox.run("lock list").expect(0);
    sandbox.run("lock clean").expect(0);
    assert_eq!(sandbox.snapshot(), [], "nothing is made");
    sandbox.ok(&format!("--root . lock acquire deploy --owner-pid {}", owner.pid()));
    assert_eq!(
        sandbox.ok("lock check deploy"),
        format!("locked:exclusive:{}", owner.pid()),
        "it is a root now"
    );
}

#[test]
fn a_root_that_is_named_needs_no_state() {
    let named = ["--root .", "--state-file .workflow-state.json"];
    for option in named {
        Sandbox::empty().run(&format!("{option} lock run deploy -- true")).expect(0);
    }
    for variable in ["PIPELINE_ROOT", "STATE_FILE"] {
        let sandbox = Sandbox::empty();
        let value =
            if variable == "STATE_FILE" { sandbox.state() } else { sandbox.path().to_owned() };
        let mut command = sandbox.command();
        let output = command
            .env(variable, value)
            .args(["lock", "run", "deploy", "--", "true"])
            .output()
            .unwrap();
        Ran::of(output).expect(0);
    }
}

#[test]
fn below_a_root_it_is_the_roots_lock() {
    let owner = Owner::new();
    for root in [Sandbox::initialized(), Sandbox::with_locks()] {
        fs::create_dir_all(root.file("a/b")).unwrap();
        let mut below = root.command();
        below.current_dir(root.file("a/b")).args([
            "lock",
            "acquire",
            "deploy",
            "--owner-pid",
            &owner.pid().to_string(),
        ]);
        Ran::of(below.output().unwrap()).expect(0);
        assert_eq!(root.ok("lock check deploy"), format!("locked:exclusive:{}", owner.pid()));
        assert!(!root.file("a/b/.locks").exists());
    }
}

const LOCK_COMMANDS: [&str; 4] =
    ["lock acquire deploy", "lock release deploy", "lock check deploy", "lock run deploy -- true"];

fn is_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        eprintln!("not root: roots of other users are not tested");
    }
    is_root
}

/// Gives a sandbox to user 4242, and opens its directory to others.
fn give_away(root: &Sandbox) {
    let give = |path: &Path| chown(path, Some(4242), Some(4242)).unwrap();
    root.snapshot().iter().for_each(|(path, _)| give(path));
    give(root.path());
    fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
}

/// Runs the program as user 4343 in this directory; `None` if that user cannot run it.
fn as_stranger(sandbox: &Sandbox, dir: &Path, words: &str) -> Option<Ran> {
    let run = |words: &str| {
        let mut command = sandbox.command();
        command.current_dir(dir).uid(4343).gid(4343).args(words.split(' '));
        command.output().map(Ran::of)
    };
    run("--version").ok().filter(|ran| ran.code == 0)?;
    run(words).ok()
}

#[test]
fn a_refusal_names_another_users_root_and_offers_no_state() {
    if !is_root() {
        return;
    }
    for root in [Sandbox::initialized(), Sandbox::with_locks()] {
        give_away(&root);
        let before = root.snapshot();
        for words in LOCK_COMMANDS {
            let ran = root
                .run(words)
                .expect(6)
                .saying("belongs to uid 4242")
                .saying("hint: sudo -u '#4242'");
            assert!(!ran.stderr.contains("state init"), "{words}: {}", ran.stderr);
            if let Some(ran) = as_stranger(&root, root.path(), words) {
                let ran = ran.expect(6).saying("belongs to uid 4242");
                assert!(!ran.stderr.contains("state init"), "{words}: {}", ran.stderr);
            }
        }
        root.run("lock clean").expect(6);
        root.run("recover doctor");
        let of_root = |path: &Path| {
            path.metadata().is_ok_and(|found| std::os::unix::fs::MetadataExt::uid(&found) == 0)
        };
        let left: Vec<_> = root.snapshot().into_iter().filter(|(path, _)| of_root(path)).collect();
        assert_eq!(left, [], "root leaves nothing there");
        assert_eq!(root.snapshot(), before);
    }
}

#[test]
fn below_another_users_root_init_is_offered_only_if_it_works() {
    if !is_root() {
        return;
    }
    let root = Sandbox::initialized();
    let below = root.file("below");
    fs::create_dir(&below).unwrap();
    give_away(&root);
    for words in LOCK_COMMANDS {
        let mut command = root.command();
        let ran = Ran::of(command.current_dir(&below).args(words.split(' ')).output().unwrap());
        ran.expect(1).saying("belongs to uid 4242").saying("hint: pipeline-state state init");
        if let Some(ran) = as_stranger(&root, &below, words) {
            let ran = ran.expect(1).saying("belongs to uid 4242").saying("--root DIR lock");
            assert!(!ran.stderr.contains("state init"), "{words}: {}", ran.stderr);
        }
    }
}
