//! Every number and duration of the command line or the environment, however large, is capped at
//! the largest usable one or refused.

use crate::owners::Owner;
use crate::sandbox::{Ran, Sandbox};

/// The largest accepted whole number, and durations beyond every calendar.
const HUGE: [&str; 4] = ["18446744073709551615", "99999999999999999", "1e18", "9999999999999h"];

#[test]
fn no_number_on_the_line_is_a_defect() {
    let owner = Owner::new();
    let me = owner.pid();
    for huge in HUGE {
        let root = Sandbox::with_history();
        for words in [
            format!("lock acquire a {huge} --owner-pid {me}"),
            format!("lock acquire b --timeout {huge} --ttl {huge} --owner-pid {me}"),
            format!("lock renew b --ttl {huge} --owner-pid {me}"),
            format!("lock run c -t {huge} -- true"),
            format!("lock release a --token {huge}"),
            format!("lock break a --token {huge}"),
            format!("--lock-timeout {huge} state set a=1"),
            format!("state wait .phase --timeout {huge}"),
            format!("state set a=2 --if-revision {huge}"),
            format!("state set a=2 --fence a:{huge}"),
            format!("state recover --to-revision {huge} --dry-run"),
            format!("recover cleanup {huge}"),
            format!("recover cleanup 1 --keep {huge}"),
            format!(
                "recover retry -n 1 --timeout {huge} --base-delay {huge} --max-delay {huge} -- true"
            ),
            format!("recover guard op --retries {huge} -- true"),
            format!("recover handle {huge}"),
            format!("lock acquire d 0 --owner-pid {huge}"),
        ] {
            let ran = root.run(&words);
            assert!(!ran.stderr.contains("defect") && ran.code < 101, "{words}: {ran:?}");
        }
        for words in
            ["lock list", "lock list json", "lock status", "recover doctor", "recover status"]
        {
            let ran = root.run(words);
            assert!(!ran.stderr.contains("defect"), "{words}: {ran:?}");
        }
    }
}

#[test]
fn no_number_in_the_environment_is_a_defect() {
    for huge in HUGE {
        for name in [
            "LOCK_TIMEOUT",
            "STATE_MAX_BACKUPS",
            "STATE_BACKUP_DAYS",
            "PIPELINE_LOCK_EXIT",
            "PIPELINE_OWNER_PID",
        ] {
            let root = Sandbox::with_history();
            for words in ["state set a=1", "lock run a -- true", "recover status"] {
                let ran = Ran::of(
                    root.command().env(name, huge).args(words.split(' ')).output().unwrap(),
                );
                assert!(
                    !ran.stderr.contains("defect") && ran.code < 101,
                    "{name}={huge} {words}: {ran:?}"
                );
            }
        }
    }
}

#[test]
fn no_time_of_a_file_is_a_defect() {
    let root = Sandbox::with_history();
    for seconds in ["9223372036854775807", "-9223372036854775808", "999999999999", "-99999999999"] {
        let touched = root
            .program("touch")
            .args(["-d", &format!("@{seconds}"), ".workflow-state.json"])
            .output()
            .unwrap();
        if !touched.status.success() {
            continue; // this file system has no such time
        }
        for words in
            ["state read", "state set n:=9", "state status", "recover doctor", "state history"]
        {
            let ran = root.run(words);
            assert!(!ran.stderr.contains("defect"), "{seconds}: {words}: {ran:?}");
        }
    }
}
