//! Commands of a build with the feature.

use std::process::Command;

#[test]
fn commands_say_that_this_version_cannot_use_a_store_yet() {
    let root = tempfile::tempdir().unwrap();
    let run = Command::new(env!("CARGO_BIN_EXE_pipeline-state"))
        .args(["--store", "etcd://h/p", "state", "read"])
        .current_dir(&root)
        .env("HOME", root.path())
        .env("AUDIT_LOG", root.path().join("audit.log"))
        .output()
        .unwrap();
    let message = String::from_utf8(run.stderr).unwrap();
    assert_eq!(run.status.code(), Some(5), "{message}");
    assert!(message.contains("cannot use a store on etcd yet in this version"), "{message}");
}
