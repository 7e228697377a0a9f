//! The examples of `docs/cluster.md`, run unchanged.

use std::os::unix::fs::symlink;
use std::process::Command;

#[test]
fn the_examples_of_the_page_run() {
    let page = include_str!("../../docs/cluster.md");
    let blocks = page.split("```sh cluster\n").skip(1);
    let blocks: Vec<&str> = blocks.filter_map(|rest| rest.split("```").next()).collect();
    assert_eq!(blocks.len(), 2);
    let dir = tempfile::tempdir().unwrap();
    let path = format!("{}:{}", dir.path().display(), std::env::var("PATH").unwrap());
    symlink(env!("CARGO_BIN_EXE_pipeline-state"), dir.path().join("pipeline-state")).unwrap();
    let ends = "trap 'kill %1; wait; rm -rf \"$data\"' EXIT";
    let ran = Command::new("bash")
        .args(["-c", &["set -e", blocks[0], ends, blocks[1]].join("\n")])
        .current_dir(&dir)
        .env("PATH", path)
        .env("HOME", dir.path())
        .env("AUDIT_LOG", dir.path().join("audit.log"))
        .env("TMPDIR", dir.path())
        .output()
        .unwrap();
    let shown = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success(), "{ran:?}");
    assert!(shown.contains("revision 3") && shown.contains("Tasks       1 completed"), "{shown}");
}
