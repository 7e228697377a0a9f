//! Where locks are: in the root that is named or found, and nowhere else.

use std::fs;

use crate::owners::Owner;
use crate::sandbox::{Ran, Sandbox};

#[test]
fn a_lock_is_refused_where_no_root_is_found() {
    let (sandbox, owner) = (Sandbox::empty(), Owner::new());
    for words in ["lock acquire deploy", "lock release deploy", "lock check deploy", "lock run deploy -- true"] {
        let ran = sandbox.run(words).expect(1).saying("hint: pipeline-state state init ");
        let again = words.replace("-- true", "-- COMMAND");
        ran.saying(&format!("hint: pipeline-state --root . {again} "));
        sandbox.run(&format!("--json {words}")).expect_json_error("not_initialized");
    }
    sandbox.run("lock list").expect(0);
    sandbox.run("lock clean").expect(0);
    assert_eq!(sandbox.snapshot(), [], "nothing is made");
    sandbox.ok(&format!("--root . lock acquire deploy --owner-pid {}", owner.pid()));
    assert_eq!(sandbox.ok("lock check deploy"), format!("locked:exclusive:{}", owner.pid()), "it is a root now");
}

#[test]
fn a_root_that_is_named_needs_no_state() {
    let named = ["--root .", "--state-file .workflow-state.json"];
    for option in named {
        Sandbox::empty().run(&format!("{option} lock run deploy -- true")).expect(0);
    }
    for variable in ["PIPELINE_ROOT", "STATE_FILE"] {
        let sandbox = Sandbox::empty();
        let value = if variable == "STATE_FILE" { sandbox.state() } else { sandbox.path().to_owned() };
        let mut command = sandbox.command();
        let output = command.env(variable, value).args(["lock", "run", "deploy", "--", "true"]).output().unwrap();
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
