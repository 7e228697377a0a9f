//! The two logs: their paths, their creation, their contents.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::sandbox::{Ran, Sandbox};

#[test]
fn the_error_log_is_there_from_the_beginning_and_is_left_as_it_is() {
    let root = Sandbox::initialized();
    let log = root.file(".error-recovery.log");
    let metadata = fs::metadata(&log).unwrap();
    assert_eq!((metadata.len(), metadata.permissions().mode() & 0o777), (0, 0o600));
    fs::write(&log, "a line\n").unwrap();
    root.ok("state init");
    assert_eq!(fs::read_to_string(&log).unwrap(), "a line\n");
}

#[test]
fn a_status_names_the_log_that_is_used() {
    let root = Sandbox::initialized();
    let log = root.file("audit.log");
    let named =
        |root: &Sandbox| root.run("state status --json").expect(0).json()["audit_log"].clone();
    assert_eq!(named(&root), log.to_str().unwrap());
    fs::set_permissions(&log, PermissionsExt::from_mode(0o666)).unwrap();
    assert_eq!(named(&root), root.file(".pipeline-audit.log").to_str().unwrap());
    let shown = root.ok("state status");
    assert!(
        shown
            .lines()
            .any(|line| line.starts_with("Audit log") && line.contains(".pipeline-audit.log")),
        "{shown}"
    );
}

#[test]
fn debug_lines_go_to_a_log_that_was_named_beside_its_own() {
    let root = Sandbox::initialized();
    let debug = |log: Option<&str>| {
        let mut command = root.command();
        command.args(["state", "set", "a=b"]).env("DEBUG", "1").env_remove("AUDIT_LOG");
        if let Some(log) = log {
            command.env("AUDIT_LOG", log);
        }
        Ran::of(command.output().unwrap()).expect(0)
    };
    let ran = debug(Some("./debug.log"));
    assert!(ran.stderr.contains("DEBUG"), "they are on standard error, too");
    let log = fs::read_to_string(root.file("debug.log")).unwrap();
    assert!(log.lines().any(|line| line.contains(" [DEBUG] ")), "{log}");
    assert_eq!(log.matches("committed").count(), 1, "its own lines stand there once: {log}");
    assert_eq!(
        log.matches("[INFO] ").count() + log.matches(" [DEBUG] ").count(),
        log.lines().count(),
        "{log}"
    );
    let quiet = fs::read_to_string(root.file("audit.log")).unwrap();
    assert!(!quiet.contains("DEBUG"), "{quiet}");
}

#[test]
fn init_rules_and_doctor_fixes_are_audited() {
    let root = Sandbox::initialized();
    root.ok("hook init-rules");
    root.ok("recover doctor --fix");
    fs::set_permissions(root.state(), PermissionsExt::from_mode(0o644)).unwrap();
    root.ok("recover doctor --fix");
    let log = fs::read_to_string(root.file("audit.log")).unwrap();
    let count = |words: &str| log.lines().filter(|line| line.contains(words)).count();
    assert_eq!(
        (count("hook/init-rules: written "), count("error-recovery/doctor: mended ")),
        (1, 1),
        "{log}"
    );
}

#[test]
fn a_disk_that_stays_full_needs_a_person() {
    let root = Sandbox::with_history();
    let ran = root.bash("ulimit -f 0; exec \"$PIPELINE_BINARY\" recover handle 7");
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stdout.contains("there is still no room"), "{ran:?}");
    root.run("recover handle 7").expect(0);
    assert!(root.debris().is_empty());
}
