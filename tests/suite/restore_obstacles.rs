//! Obstacles to a restore are found beforehand, and a restore that cannot continue is given up.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::doctor::{brief, findings};
use crate::restore_kill::interrupted;
use crate::sandbox::{BINARY, Ran, installed};
use crate::snapshots::with_small_checkpoint;

/// Makes a file immutable during a test; `None` if that is impossible.
fn immutable<T>(path: &Path, look: impl FnOnce() -> T) -> Option<T> {
    let chattr = |mark: &str| {
        let ran = std::process::Command::new("chattr").arg(mark).arg(path).output();
        ran.is_ok_and(|output| output.status.success())
    };
    if !chattr("+i") {
        eprintln!("files cannot be made immutable here: not tested");
        return None;
    }
    let seen = look();
    assert!(chattr("-i"));
    Some(seen)
}

fn names(found: &[Value], path: &str) -> bool {
    let is_it = |finding: &Value| {
        let message = finding["message"].as_str().unwrap();
        message.starts_with("a restore, and so a guard, would be refused: ")
            && message.contains(path)
    };
    found.len() == 1 && found.iter().all(is_it)
}

#[test]
fn the_doctor_finds_immutable_targets_of_a_restore() {
    let root = with_small_checkpoint();
    root.run("recover doctor").expect(0);
    for target in ["config", "config/new", "config/rules.json"] {
        let before = root.snapshot();
        let look = || (root.run("recover guard g -- true").code, findings(&root, "recover doctor"));
        let Some((guard, found)) = immutable(&root.file(target), look) else { return };
        assert!(guard == 6 && names(&found, target), "{target}: {}", brief(&found));
        assert!(found[0]["remedy"].as_str().unwrap().contains("chattr -ia"));
        assert!(
            before.iter().all(|file| root.snapshot().contains(file)),
            "looking changes nothing"
        );
    }
    root.run("recover doctor").expect(0);
}

#[test]
fn the_doctor_finds_mounts_in_the_targets_of_a_restore() {
    if rustix::process::geteuid().as_raw() != 0 {
        eprintln!("not root: mounts are not tested");
        return;
    }
    for (target, guard) in [("config/new", 6), ("config/rules.json", 6), ("config", 0)] {
        let root = with_small_checkpoint();
        let script = format!(
            "mount --bind {target} {target}; \"$P\" recover guard g -q -- true 2>err; \
             [ $? = {guard} ] || exit 1; \"$P\" recover doctor 2>err; true"
        );
        let mut command = root.program("unshare");
        let ran =
            Ran::of(command.args(["-m", "bash", "-c", &script]).env("P", BINARY).output().unwrap())
                .expect(0);
        let is_found = ran.stdout.contains("would be refused") && ran.stdout.contains(target);
        assert_eq!(is_found, guard != 0, "{target}: {ran:?}");
    }
}

#[test]
fn a_stuck_restore_is_named_with_its_abort() {
    if !installed("strace") {
        return;
    }
    let root = interrupted(&with_small_checkpoint(), "EXCHANGE");
    let before = root.document();
    let number = before["metadata"]["revision"].as_u64().unwrap();
    let look = || {
        let doctor = root.run("recover doctor").expect(6);
        assert!(doctor.stdout.contains("was interrupted and cannot be finished"), "{doctor:?}");
        assert!(doctor.stdout.contains("recover restore --abort"), "{doctor:?}");
        for words in ["state status", "recover status"] {
            root.run(words).expect(0).showing("recover restore --abort");
        }
        let status = root.run("state status --json").expect(0).json();
        assert!(status["restore_obstacle"].as_str().unwrap().contains("immutable"), "{status}");
        let served = root.run("state get .metadata.revision").expect(0);
        assert_eq!(served.stdout, format!("{}\n", number + 1));
        root.run("recover restore --abort").expect(0).showing("dropped");
    };
    if immutable(&root.file("config"), look).is_none() {
        root.ok("recover restore --abort");
    }
    assert_eq!(root.document(), before);
    root.run("recover doctor").expect(0);
    root.ok("state set n:=8");
    assert_eq!(root.revision(), number + 2, "readers were served {}", number + 1);
    root.ok("state set n:=9");
    assert_eq!((root.revision(), root.shelf("served-")), (number + 3, Vec::new()));
    fs::write(root.file(format!(".state-backups/served-r{}", u64::MAX)), "").unwrap();
    root.ok("state set n:=10");
    assert_eq!(root.revision(), number + 4, "a number that is far off is no memory");
}
