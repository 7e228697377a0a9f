//! What differs on macOS, where Linux can be made to behave like it: see docs/macos.md. The other
//! half is in `src/os/`, `src/fs/watch.rs`, `restore_mounts` (ENOTSUP) and `limits` (`.DS_Store`).

use std::os::unix::fs::symlink;
use std::rc::Rc;

use pipeline_state::error::Kind;
use pipeline_state::fs::Disk;
use pipeline_state::lock::Mode;

use crate::folding::Folding;
use crate::lock_faults::{acquire, locks_on, release};
use crate::sandbox::Sandbox;

fn folding() -> Disk {
    Disk::new(Rc::new(Folding))
}

#[test]
fn names_that_differ_by_case_are_one_lock_where_case_is_ignored() {
    let sandbox = Sandbox::empty();
    let locks = locks_on(&sandbox, folding());
    let refused = acquire(&locks, "Deploy,deploy", Mode::Exclusive).unwrap_err();
    assert_eq!(refused.kind, Kind::Usage, "{refused}");
    assert!(refused.message.contains("Deploy and deploy are one lock"), "{refused}");
    acquire(&locks, "deploy,other", Mode::Exclusive).unwrap();
    let held = acquire(&locks, "Deploy", Mode::Exclusive).unwrap_err();
    assert_eq!(held.kind, Kind::AlreadyHeld, "it is held under its other spelling: {held}");
    release(&locks, "DEPLOY").unwrap();
    acquire(&locks, "Deploy", Mode::Exclusive).unwrap();
}

#[test]
fn names_that_differ_by_case_are_two_locks_elsewhere() {
    let sandbox = Sandbox::empty();
    let locks = locks_on(&sandbox, Disk::real());
    assert_eq!(acquire(&locks, "Deploy,deploy", Mode::Exclusive).unwrap().len(), 2);
}

#[test]
fn the_timeout_of_homebrew_is_warned_of_as_an_owner() {
    let sandbox = Sandbox::initialized();
    symlink("/usr/bin/timeout", sandbox.file("gtimeout")).unwrap();
    let way = format!("{} 60 $B lock acquire n", sandbox.file("gtimeout").display());
    let ran = sandbox.script("bash", &format!("{way}; :")).end().expect(0);
    assert!(ran.stderr.contains("ends with this subshell"), "{ran:?}");
}
