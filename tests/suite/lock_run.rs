//! `lock run`: the lock is held exactly while the command runs, and the command is not affected.

use rustix::process::Signal;

use crate::permitted::is_permitted;
use crate::sandbox::until;
use crate::sandbox::{BINARY, Ran, Sandbox};
use crate::script::{Script, is_ignored, is_root};

/// `lock run n -- sh -c SCRIPT`, with its standard input and output.
fn runner(sandbox: &Sandbox, script: &str) -> Script {
    let mut command = sandbox.command();
    command.args(["lock", "run", "n", "-t", "20", "--", "sh", "-c", script]).env("B", BINARY);
    Script::of(command)
}

#[test]
fn it_ends_with_the_commands_own_code() {
    let sandbox = Sandbox::initialized();
    for (command, code) in [
        ("sh -c 'exit 7'", 7),
        ("sh -c 'exit 0'", 0),
        ("sh -c 'exit 2'", 2),
        ("sh -c 'kill -9 $$'", 137),
        ("sh -c 'kill -TERM $$'", 143),
        ("no-such-program", 127),
        ("/no/such/program", 127),
        ("/etc/passwd", 126),
        ("/tmp", 126),
    ] {
        let ran = sandbox.bash(&format!("$PIPELINE_BINARY lock run n -- {command}"));
        assert_eq!(ran.code, code, "{command}: {ran:?}");
        assert_eq!(ran.stderr.contains("hint: "), matches!(code, 126 | 127), "{command}: {ran:?}");
        assert_eq!(sandbox.check("n"), ("unlocked".to_owned(), 1), "{command}");
    }
    assert!(
        sandbox.names(".locks").iter().all(|name| !name.starts_with(".live-")),
        "nothing is left"
    );
}

#[test]
fn a_lock_timeout_has_the_chosen_code_and_runs_no_command() {
    let sandbox = Sandbox::initialized();
    let _holder = sandbox.holder("n");
    for (options, code) in [("", 2), ("--conflict-code 9", 9), ("--lock-exit 75", 75)] {
        let mut words = format!("lock run n -t 0 {options}").trim_end().to_owned();
        words.push_str(" -- touch ran");
        let ran = sandbox.run(&words);
        assert_eq!(ran.code, code, "{ran:?}");
        assert!(ran.stderr.contains("[LOCK_TIMEOUT]"), "{ran:?}");
    }
    // success must not stand for a lock timeout
    sandbox.run("lock run n -t 0 --conflict-code 0 -- touch ran").expect(64);
    sandbox.run("lock run n -t 0 --lock-exit 0 -- touch ran").expect(64).saying("cannot be 0");
    sandbox.run("lock acquire n 0 --lock-exit 0").expect(64);
    assert!(!sandbox.file("ran").exists());
}

#[test]
fn the_commands_streams_are_its_callers() {
    let sandbox = Sandbox::initialized();
    let run = "$PIPELINE_BINARY lock run n --";
    for (line, wanted) in [
        (format!("printf x | {run} cat"), "x"),
        (format!("printf 'a\\nb\\n' | {run} sh -c 'read -r one; echo $one'; "), "a\n"),
        (format!("printf 'a\\nb\\n' | {{ {run} sh -c 'read -r one'; cat; }}"), "b\n"),
        (format!("{run} sh -c 'echo out; echo err >&2' 2>&1 >/dev/null"), "err\n"),
        (format!("{run} sh -c 'echo out; echo err >&2' 2>&1 >&-"), "err\n"),
        (format!("x=$({run} echo in); echo \"<$x>\""), "<in>\n"),
        (format!("{run} cat <&- 2>/dev/null; echo $?"), "0\n"),
        (format!("{run} sh -c 'echo three >&3' 3>&1"), "three\n"),
        (format!("set -e; {run} true; {run} echo on; {run} false; echo never"), "on\n"),
        (format!("set -o pipefail; {run} sh -c 'echo a; exit 3' | cat; echo $?"), "a\n3\n"),
        (format!("{run} yes | head -n 1; echo ${{PIPESTATUS[0]}}"), "y\n141\n"),
        (
            format!(
                "low() {{ \"$@\" ls /proc/self/fd | awk '$1 < 100'; }}; low >a; low {run} >b; \
                 cmp a b && echo same"
            ),
            "same\n",
        ),
        (format!("PIPELINE_OWNER_PID=$$ {run} sh -c 'echo \"<$PIPELINE_OWNER_PID>\"'"), "<>\n"),
    ] {
        let ran = sandbox.bash(&line);
        assert_eq!(ran.stdout, wanted, "{line}: {}", ran.stderr);
        assert!(
            !ran.stderr.contains("error:") && !ran.stderr.contains("panicked"),
            "{line}: {}",
            ran.stderr
        );
        assert_eq!(sandbox.check("n").0, "unlocked", "{line}");
    }
}

#[test]
fn the_record_names_the_command_and_a_dead_wrapper_frees_nothing() {
    let sandbox = Sandbox::initialized();
    let mut run = runner(&sandbox, "echo $$; read -r _; :");
    let pid = run.line();
    assert_ne!(pid, run.pid().to_string());
    let held = (format!("locked:exclusive:{pid}"), 0);
    assert_eq!(sandbox.check("n"), held);
    assert_eq!(sandbox.rows()[0]["command"], "sh -c echo $$; read -r _; :");
    let mut waiter = sandbox.waiter("n");
    run.leave_a_zombie();
    assert_eq!(sandbox.check("n"), held);
    assert!(!sandbox.is_free("n"));
    run.go();
    assert_eq!(waiter.line(), "got 0", "it is free when the command ends");
    waiter.kill();
    assert_eq!(sandbox.ok("lock clean"), "Cleaned 1 stale lock");
    assert!(
        sandbox.names(".locks").iter().all(|name| !name.starts_with(".live-")),
        "{:?}",
        sandbox.names(".locks")
    );
}

#[test]
fn a_command_that_is_killed_frees_the_lock() {
    let sandbox = Sandbox::initialized();
    let mut run = runner(&sandbox, "echo $$; read -r _; :");
    let pid: i32 = run.line().parse().unwrap();
    let mut waiter = sandbox.waiter("n");
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), Signal::KILL)
        .unwrap();
    assert_eq!(waiter.line(), "got 0");
    assert_eq!(run.end().code, 137);
}

#[test]
fn a_wrapper_that_is_killed_while_it_waits_never_runs_the_command() {
    for signal in [Signal::KILL, Signal::TERM, Signal::INT] {
        if is_ignored(signal) {
            continue;
        }
        let sandbox = Sandbox::initialized();
        let mut holder = sandbox.script(
            "bash",
            "$B lock acquire n -q; echo held; read -r _; $B lock release n; read -r _",
        );
        holder.until("held");
        let run = runner(&sandbox, "touch ran");
        until("the wrapper's place", || {
            sandbox.rows().iter().any(|row| row["status"] == "waiting")
        });
        run.signal(signal);
        // its output ends when the child that was to become the command has ended, too
        assert_eq!(run.end().code, 128 + signal.as_raw());
        holder.go();
        assert_eq!(holder.line(), "Lock released: n");
        assert!(sandbox.is_free("n"));
        assert!(!sandbox.file("ran").exists());
        sandbox.ok("lock clean");
        assert!(
            sandbox.names(".locks").iter().all(|name| !name.starts_with(".live-")),
            "{:?}",
            sandbox.names(".locks")
        );
    }
}

#[test]
fn signals_reach_the_command() {
    let sandbox = Sandbox::initialized();
    for signal in [Signal::TERM, Signal::INT, Signal::HUP, Signal::USR1, Signal::USR2, Signal::QUIT]
    {
        if is_ignored(signal) {
            continue;
        }
        let mut run = runner(&sandbox, "echo up; exec sleep 1000");
        run.until("up");
        run.signal(signal);
        assert_eq!(run.end().code, 128 + signal.as_raw(), "{signal:?}");
        let mut run = runner(
            &sandbox,
            "trap 'kill -9 $p; echo told; exit 5' TERM INT HUP USR1 USR2 QUIT; sleep 1000 & p=$!; \
             echo up; wait",
        );
        run.until("up");
        run.signal(signal);
        let ran = run.end();
        assert_eq!((ran.stdout.as_str(), ran.code), ("told\n", 5), "{signal:?}");
        assert_eq!(sandbox.check("n").0, "unlocked", "{signal:?}");
    }
    let mut run = runner(&sandbox, "trap '' TERM; echo up; read -r _; exit 4");
    run.until("up");
    run.signal(Signal::TERM);
    assert_eq!(
        sandbox.check("n").1,
        0,
        "a command that does not heed it goes on, and so does the wrapper"
    );
    assert_eq!(run.end().code, 4);
}

#[test]
fn a_child_that_outlives_the_command_does_not_hold_the_lock() {
    let sandbox = Sandbox::initialized();
    let mut script = sandbox.script(
        "bash",
        "$B lock run n -- sh -c '(setsid sleep 1000 >/dev/null 2>&1 & echo $! >left)'; echo $?
         $B lock check n; read -r _",
    );
    assert_eq!(script.line(), "0");
    assert_eq!(script.line(), "unlocked");
    let left = std::fs::read_to_string(sandbox.file("left")).unwrap();
    let left = rustix::process::Pid::from_raw(left.trim().parse().unwrap()).unwrap();
    rustix::process::test_kill_process(left).unwrap();
    assert!(sandbox.is_free("n"));
    rustix::process::kill_process(left, Signal::KILL).unwrap();
}

#[test]
fn a_detached_child_proves_its_descent_by_its_token() {
    let sandbox = Sandbox::initialized();
    assert!(sandbox.program("mkfifo").args(["go", "done"]).status().unwrap().success());
    // a process of setsid -f is no descendant any more; the command runs until all is done
    let detached = |env: &str| {
        let write = "read -r _ <go; $PIPELINE_BINARY state set a=b --lock-timeout 0; echo $? >done";
        let inner = format!("setsid -f {env} sh -c '{write}'; echo >go; cat done");
        Ran::of(
            sandbox
                .command()
                .args(["lock", "run", "state", "--", "sh", "-c", &inner])
                .output()
                .unwrap(),
        )
    };
    assert_eq!(detached("").stdout.lines().last(), Some("0"));
    assert_eq!(
        detached("env -u PIPELINE_LOCK_TOKEN").stdout.lines().last(),
        Some("2"),
        "without the token it is a stranger"
    );
    assert_eq!(
        detached("env PIPELINE_LOCK_TOKEN=state:1").stdout.lines().last(),
        Some("2"),
        "an old token proves nothing"
    );
}

#[test]
fn nested_runs_append_tokens_and_share_the_outer_locks() {
    let sandbox = Sandbox::initialized();
    let script = "echo $PIPELINE_LOCK_TOKEN; $PIPELINE_BINARY lock run n,m -- sh -c 'echo \
                  $PIPELINE_LOCK_TOKEN'; $PIPELINE_BINARY lock run o -- true; echo $?; \
                  $PIPELINE_BINARY state set a=b -q; echo $?";
    let ran = Ran::of(
        sandbox
            .command()
            .args(["lock", "run", "o,state", "--", "sh", "-c", script])
            .output()
            .unwrap(),
    );
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(lines, ["o:1,state:2", "o:1,state:2,n:3,m:4", "1", "0"], "{ran:?}");
    assert!(ran.stderr.contains("o is held already"), "{ran:?}");
    let ran = sandbox.bash(
        "PIPELINE_LOCK_TOKEN=,,nonsense $PIPELINE_BINARY lock run n -- sh -c 'echo \
                      $PIPELINE_LOCK_TOKEN'",
    );
    assert!(ran.stdout.starts_with(",,nonsense,n:"), "{ran:?}");
}

#[test]
fn shared_runs_run_together() {
    let sandbox = Sandbox::initialized();
    let start = || {
        let mut command = sandbox.command();
        command.args([
            "lock",
            "run",
            "n",
            "--shared",
            "-t",
            "0",
            "--",
            "sh",
            "-c",
            "echo $$; read -r _; :",
        ]);
        Script::of(command)
    };
    let (mut one, mut two) = (start(), start());
    let pids = format!("{},{}", one.line(), two.line());
    assert!(sandbox.check("n").0.starts_with("locked:shared:"));
    assert!(pids.split(',').all(|pid| sandbox.check("n").0.contains(pid)));
    assert!(!sandbox.is_free("n"));
    assert_eq!((one.end().code, two.end().code), (0, 0));
    assert!(sandbox.is_free("n"));
}

#[test]
fn containers_that_start_together_do_not_get_in_each_others_way() {
    let flags: &[&str] =
        if is_root() { &["-fp", "--mount-proc"] } else { &["-Urfp", "--mount-proc"] };
    if !is_permitted("unshare", &[flags, &["true"]].concat()) {
        return;
    }
    let sandbox = Sandbox::initialized();
    // each has a process 2 with the start time of another's, in most rounds
    for round in 0..3 {
        let start = |n: u32| {
            let script = format!("$PIPELINE_BINARY lock run n-{n} -- cat; exit $?");
            let mut command = sandbox.program("unshare");
            command.args(flags).args(["sh", "-c", &script]);
            Script::of(command)
        };
        let all: Vec<Script> = (0..6).map(start).collect();
        for script in all {
            let ran = script.end();
            assert_eq!(ran.code, 0, "{round}: {ran:?}");
        }
    }
}

#[test]
fn in_another_pid_namespace_the_inherited_file_proves_life() {
    let flags: &[&str] =
        if is_root() { &["-fp", "--mount-proc"] } else { &["-Urfp", "--mount-proc"] };
    if !is_permitted("unshare", &[flags, &["true"]].concat()) {
        return;
    }
    // scripts use descriptor 3 freely, and some programs close all inherited ones
    for command in [
        "echo up; read -r _; :",
        "exec 3>/dev/null; echo up; read -r _; :",
        "eval 'exec '{3..120}'>&-;'; echo up; read -r _; :",
    ] {
        for ended in ["by itself", "with its namespace"] {
            let sandbox = Sandbox::initialized();
            let mut inside = sandbox.program("unshare");
            inside
                .args(flags)
                .args([
                    "sh",
                    "-c",
                    "\"$B\" lock run n -- bash -c \"$0\"; echo over; read -r _; :",
                    command,
                ])
                .env("B", BINARY);
            let mut inside = Script::of(inside);
            inside.until("up");
            let (told, code) = sandbox.check("n");
            assert!(
                code == 0 && (told.starts_with("locked:") || told.starts_with("unknown:")),
                "{command}: {told}"
            );
            assert!(!sandbox.is_free("n"), "{command}");
            assert_eq!(sandbox.ok("lock clean"), "Cleaned 0 stale locks", "{command}");
            let mut waiter = sandbox.waiter("n");
            if ended == "by itself" {
                inside.go();
                inside.until("over");
            } else {
                inside.kill_children();
            }
            assert_eq!(waiter.line(), "got 0", "{command}: {ended}");
        }
    }
}
