//! P3: no update is lost, revisions have no gaps, and a writer that lost a race reports it.

use std::io::{BufRead as _, BufReader};
use std::process::Child;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::sandbox::{Ran, Sandbox, installed};

#[test]
fn eight_processes_times_25_updates_make_200() {
    let sandbox = Sandbox::initialized();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..25 {
                    sandbox.run_args(&["state", "update", ".n = (.n // 0) + 1"]).expect(0);
                }
            });
        }
    });
    assert_eq!((sandbox.document()["n"].as_u64(), sandbox.revision()), (Some(200), 201));
    let history = sandbox.run("state history --json").expect(0).json();
    let revisions: Vec<u64> =
        history.as_array().unwrap().iter().map(|row| row["revision"].as_u64().unwrap()).collect();
    assert_eq!(revisions, (1..=201).rev().collect::<Vec<_>>(), "every revision is logged once");
}

#[test]
fn in_read_modify_write_every_lost_race_is_a_conflict() {
    if !installed("jq") {
        return;
    }
    for start in ["sealed", "legacy"] {
        let sandbox = match start {
            "sealed" => Sandbox::initialized(),
            _ => Sandbox::holding(
                r#"{"phase":"x","completedTasks":[],"signals":{},"lastActivation":""}"#,
            ),
        };
        let (successes, conflicts) = (AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..25 {
                        let ran = sandbox.bash(
                            r#"set -o pipefail; b=$PIPELINE_BINARY
                            $b state read | jq '.n = (.n // 0) + 1' | $b state write -"#,
                        );
                        match ran.code {
                            0 => successes.fetch_add(1, Ordering::Relaxed),
                            _ => {
                                ran.expect(75).saying("another writer committed since");
                                conflicts.fetch_add(1, Ordering::Relaxed)
                            }
                        };
                    }
                });
            }
        });
        let (successes, conflicts) = (successes.into_inner(), conflicts.into_inner());
        assert_eq!(successes + conflicts, 200);
        assert!(conflicts > 0, "{start}: without a race this shows nothing");
        assert_eq!(sandbox.document()["n"].as_u64(), Some(successes), "{start}");
    }
}

#[test]
fn killed_writers_lose_nothing_that_was_acknowledged() {
    let sandbox = Sandbox::initialized();
    let acknowledged = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let (sandbox, acknowledged) = (&sandbox, &acknowledged);
            scope.spawn(move || {
                for round in 0..40 {
                    let mut child: Child = sandbox
                        .command()
                        .args(["state", "update", ".n = (.n // 0) + 1"])
                        .spawn()
                        .unwrap();
                    if (worker + round) % 3 == 0 {
                        let _ = child.kill();
                    }
                    if child.wait().unwrap().success() {
                        acknowledged.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let (n, acknowledged) = (sandbox.document()["n"].as_u64().unwrap(), acknowledged.into_inner());
    assert!(n >= acknowledged, "{n} of {acknowledged} acknowledged updates are there");
    assert_eq!(sandbox.revision(), n + 1, "a revision for each update that took place");
    sandbox.ok("state set done=yes");
    assert!(sandbox.debris().is_empty());
}

#[test]
fn a_lock_timeout_of_a_writer_names_the_holder() {
    let sandbox = Sandbox::initialized();
    let lock = std::fs::File::open(sandbox.file(".locks/state.lock")).unwrap();
    lock.lock().unwrap();
    let me = std::process::id().to_string();
    sandbox.run("state set a=b --lock-timeout 0").expect(2).saying(&me);
    sandbox.run("state set a=b --lock-timeout 50ms").expect(2).saying(&me);
    assert_eq!(sandbox.run("state set a=b --lock-timeout 0 --lock-exit 75").code, 75);
    let error = sandbox.run("state set a=b --lock-timeout 0 --json").expect_json_error("timeout");
    assert_eq!(
        (error["code"].clone(), error["details"]["holder"]["owner"]["pid"].to_string()),
        (2.into(), me)
    );
    // readers need no lock
    sandbox.ok("state read");
    let waiting = sandbox.spawn("state set a=b");
    lock.unlock().unwrap();
    Ran::of(waiting.wait_with_output().unwrap()).expect(0);
}

#[test]
fn writers_that_waited_so_long_that_they_said_so_still_go_one_at_a_time() {
    let sandbox = Sandbox::initialized();
    for round in 1..=3 {
        let lock = std::fs::File::open(sandbox.file(".locks/state.lock")).unwrap();
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
        let mut writers: Vec<Child> =
            (0..8).map(|_| sandbox.spawn("state update .n=(.n//0)+1")).collect();
        for writer in &mut writers {
            let mut line = String::new();
            BufReader::new(writer.stderr.as_mut().unwrap()).read_line(&mut line).unwrap();
            assert!(line.starts_with("waiting for the state: held by "), "{line}");
        }
        drop(lock);
        for writer in writers {
            let ran = Ran::of(writer.wait_with_output().unwrap());
            assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
        }
        assert_eq!(
            (sandbox.document()["n"].as_u64(), sandbox.revision()),
            (Some(8 * round), 8 * round + 1)
        );
    }
}

#[test]
fn a_condition_on_the_revision_is_checked_under_the_lock() {
    let sandbox = Sandbox::with_history();
    sandbox.ok("state set a=1 --if-revision 4");
    for words in [
        "state set a=2 --if-revision 4",
        "state recover --to-revision 2 --if-revision 4",
        "state phase x --if-revision 9",
    ] {
        sandbox.run(words).expect(75).saying("revision 5");
    }
    assert_eq!(sandbox.ok("state get .a"), "1");
}

#[test]
fn writing_a_stale_copy_is_a_conflict_unless_it_is_forced() {
    let sandbox = Sandbox::with_history();
    let stale = sandbox.ok("state read");
    sandbox.ok("state set n:=4");
    sandbox.feed("state write -", stale.as_bytes()).expect(75).saying("revision 4").saying("at 5");
    assert_eq!(sandbox.document()["n"], 4);
    sandbox.feed("state write - --force", stale.as_bytes()).expect(0);
    assert_eq!((sandbox.document()["n"].clone(), sandbox.revision()), (3.into(), 6));
}
