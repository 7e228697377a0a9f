//! `recover retry` and `recover guard`: attempts, pauses, signals, and rollback.

use std::fs;
use std::time::Instant;

use rustix::process::Signal;

use crate::sandbox::{Ran, Sandbox};
use crate::script::{Script, is_ignored};

/// A command that records its attempts in `log` and exits with these codes in turn; the last one
/// repeats.
fn ending_with(root: &Sandbox, codes: &[i32]) -> String {
    let list: Vec<String> = codes.iter().map(i32::to_string).collect();
    let script = format!(
        "#!/bin/sh\ndate +%s%N >> log\nset -- {}\nn=$(wc -l < log)\n\
         while [ $n -gt 1 ] && [ $# -gt 1 ]; do shift; n=$((n - 1)); done\nexit $1\n",
        list.join(" ")
    );
    fs::write(root.file("step"), script).unwrap();
    "sh ./step".to_owned()
}

/// The start of each attempt, in nanoseconds.
fn attempts(root: &Sandbox) -> Vec<i128> {
    let log = fs::read_to_string(root.file("log")).unwrap_or_default();
    log.lines().map(|line| line.parse().unwrap()).collect()
}

fn retry(root: &Sandbox, options: &str, codes: &[i32]) -> Ran {
    let command = ending_with(root, codes);
    root.run(&format!("recover retry {options} -- {command}"))
}

/// The program under a shell, with both streams in one, so that a test can wait for its output.
fn running(root: &Sandbox, words: &str) -> Script {
    root.script("bash", &format!("exec $B {words} 2>&1"))
}

/// Reads until a line begins with this.
fn await_line(script: &mut Script, beginning: &str) -> String {
    loop {
        let line = script.line();
        assert_ne!(line, "", "it ended before it said {beginning:?}");
        if line.starts_with(beginning) {
            return line;
        }
    }
}

#[test]
fn the_exit_code_is_that_of_the_last_attempt() {
    for (options, codes, code, count) in [
        ("-n 3 --base-delay 0", &[0][..], 0, 1),
        ("-n 3 --base-delay 0", &[1, 2, 0], 0, 3),
        ("-n 3 --base-delay 0", &[1, 2, 7], 7, 3),
        ("--base-delay 0", &[5], 5, 3),
        ("-n 1", &[9], 9, 1),
        ("--retries 5 --base-delay 0", &[1, 1, 1, 1, 3], 3, 5),
    ] {
        let root = Sandbox::empty();
        assert_eq!(retry(&root, options, codes).code, code, "{options} {codes:?}");
        assert_eq!(attempts(&root).len(), count, "{options} {codes:?}");
    }
}

#[test]
fn permanent_failures_are_not_retried() {
    for code in [126, 127, 130, 143] {
        let root = Sandbox::empty();
        assert_eq!(retry(&root, "-n 3 --base-delay 0", &[code]).code, code);
        assert_eq!(attempts(&root).len(), 1, "{code}");
    }
    let root = Sandbox::empty();
    root.run("recover retry -n 3 --base-delay 0 -- ./no-such-program")
        .expect(127)
        .saying("cannot be run");
    fs::write(root.file("plain"), "").unwrap();
    root.run("recover retry -n 3 --base-delay 0 -- ./plain").expect(126);
    for signal in ["INT", "TERM"] {
        let ran = root.run_args(&[
            "recover",
            "retry",
            "--base-delay",
            "0",
            "--",
            "sh",
            "-c",
            &format!("echo x; kill -{signal} $$"),
        ]);
        assert_eq!(
            (ran.code, ran.stdout.as_str()),
            (if signal == "INT" { 130 } else { 143 }, "x\n")
        );
    }
}

#[test]
fn only_the_codes_that_are_named_are_tried_again() {
    let root = Sandbox::empty();
    assert_eq!(retry(&root, "-n 5 --base-delay 0 --retry-on 75,111", &[75, 111, 2, 0]).code, 2);
    assert_eq!(attempts(&root).len(), 3);
    root.run("recover retry -n 0 -- true").expect(64);
    root.run("recover retry --retry-on 256 -- true").expect(64);
    root.run("recover retry").expect(64);
}

#[test]
fn the_pauses_follow_the_schedule() {
    let root = Sandbox::empty();
    let ran = retry(&root, "-n 5 --base-delay 0.1 --max-delay 0.3", &[1]);
    let times = attempts(&root);
    assert_eq!((ran.code, times.len()), (1, 5));
    for ((pair, whole), line) in times.windows(2).zip([100, 200, 300, 300]).zip(ran.stderr.lines())
    {
        let pause = (pair[1] - pair[0]) / 1_000_000;
        assert!(pause >= whole / 2, "{pause} ms instead of {whole} less up to a half");
        assert!(
            line.starts_with("attempt ") && line.contains("ended with 1; the next begins in 0."),
            "{line}"
        );
    }
    assert_eq!(ran.stderr.lines().count(), 4);
}

#[test]
fn a_time_limit_holds_for_all_attempts_together() {
    let root = Sandbox::empty();
    // the next attempt would begin too late, so the command does not wait
    let began = Instant::now();
    assert_eq!(retry(&root, "-n 3 --base-delay 3600 --max-delay 3600 --timeout 60", &[4]).code, 9);
    assert!(began.elapsed().as_secs() < 1000);
    assert_eq!(attempts(&root).len(), 1);
    // a running command gets SIGTERM
    let ran = root.run_args(&[
        "recover",
        "retry",
        "--timeout",
        "0.2",
        "--",
        "sh",
        "-c",
        "exec sleep 3600",
    ]);
    assert_eq!(ran.code, 9);
}

#[test]
fn an_end_by_the_time_limit_is_reported_with_its_length_and_9_for_a_retry() {
    let root = Sandbox::initialized();
    for (words, code) in [("retry", 9), ("guard op", 143)] {
        let ran = root.run(&format!("recover {words} --timeout 0.2 -n 5 -- sleep 3600"));
        let told = "sleep was terminated: the time limit of 0.2 s was reached in attempt 1\n";
        assert_eq!((ran.code, ran.stderr.matches(told).count()), (code, 1), "{}", ran.stderr);
    }
    let ran =
        root.run("recover retry -n 3 --base-delay 3600 --max-delay 3600 --timeout 60 -- false");
    let told = "attempt 1 of 3 ended with 1; the time of 60.0 s leaves none for another\n";
    assert!(ran.code == 9 && ran.stderr.starts_with(told), "{}", ran.stderr);
    ran.expect(9).saying(
        "the time of all attempts was up after 1 attempt; the last one ended with 1 [TIMEOUT]",
    );
}

#[test]
fn an_interrupt_ends_the_waiting_at_once() {
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
        if is_ignored(signal) {
            continue;
        }
        let root = Sandbox::empty();
        let mut script =
            running(&root, "recover retry --base-delay 3600 --max-delay 3600 -- false");
        await_line(&mut script, "attempt 1 of 3 ended with 1");
        script.signal(signal);
        assert_eq!(script.end().code, code);
    }
}

#[test]
fn an_interrupt_reaches_the_command_and_no_attempt_follows() {
    let root = Sandbox::empty();
    // one that dies of it, and one that ends in its own way
    let mut script =
        running(&root, "recover retry --base-delay 0 -- sh -c 'echo begun; exec sleep 3600'");
    script.until("begun");
    script.signal(Signal::TERM);
    assert_eq!(script.end().code, 143);
    let mut script = running(
        &root,
        "recover retry --base-delay 0 -- bash -c 'trap \"kill -9 \\$p; exit 5\" TERM; \
         sleep 3600 & p=$!; echo begun; wait'",
    );
    script.until("begun");
    script.signal(Signal::TERM);
    let ran = script.end();
    assert_eq!((ran.code, ran.stdout.as_str()), (5, ""));
}

#[test]
fn under_nohup_a_hangup_is_ignored() {
    let root = Sandbox::empty();
    let mut script = root.script(
        "bash",
        "trap '' HUP; exec $B recover retry --base-delay 0 -- sh -c 'echo begun; \
                         read -r _; echo end'",
    );
    script.until("begun");
    script.signal(Signal::HUP);
    script.go();
    assert_eq!(script.line(), "end");
    assert_eq!(script.end().code, 0);
}

#[test]
fn the_commands_streams_are_its_own() {
    let root = Sandbox::empty();
    let ran = root.feed("recover retry -- cat", b"in\0out");
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (0, "in\0out", ""));
    let ran = retry(&root, "-q -n 2 --base-delay 0", &[1]);
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (1, "", ""));
    assert!(!root.file(".error-recovery.log").exists(), "a log where there is no state");
}

// ---- guard ----

/// A root with a configuration and a signal, and a command that changes all three and then exits
/// with a code.
fn guarded() -> (Sandbox, String) {
    let root = Sandbox::with_history();
    fs::create_dir(root.file("config")).unwrap();
    fs::write(root.file("config/rules.json"), "{}\n").unwrap();
    root.ok("state signal BEFORE");
    let script = "echo attempt >> ../attempts\necho changed > config/rules.json\n\
                  echo more > config/new\n\
                  \"$PIPELINE_BINARY\" state set -q n:=99\n\
                  \"$PIPELINE_BINARY\" state signal -q AFTER\nexec \"$@\"\n";
    fs::write(root.file("change"), script.replace("../attempts", "attempts")).unwrap();
    (root, "sh ./change".to_owned())
}

fn is_as_before(root: &Sandbox) -> bool {
    root.document()["n"] == 3
        && root.names(".signals") == ["BEFORE.json"]
        && root.names("config") == ["rules.json"]
        && fs::read_to_string(root.file("config/rules.json")).unwrap() == "{}\n"
}

#[test]
fn a_permanent_failure_is_undone_and_keeps_its_code() {
    let (root, change) = guarded();
    let ran =
        root.run(&format!("recover guard deploy --retries 3 --base-delay 0 -- {change} false"));
    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""));
    assert_eq!(fs::read_to_string(root.file("attempts")).unwrap().lines().count(), 3);
    assert!(is_as_before(&root), "{}", root.document());
    let said: Vec<&str> = ran.stderr.lines().collect();
    assert!(
        said[0].starts_with("Checkpoint created: checkpoint-") && said[0].ends_with("-deploy"),
        "{said:?}"
    );
    assert!(
        said[3].starts_with("Checkpoint restored: checkpoint-") && said[3].ends_with("-deploy"),
        "{said:?}"
    );
    let log = fs::read_to_string(root.file(".error-recovery.log")).unwrap();
    assert!(log.lines().last().unwrap().ends_with("-deploy (code: 0)"), "{log}");
}

#[test]
fn changes_of_a_successful_command_stay() {
    let (root, change) = guarded();
    root.run(&format!("recover guard deploy -q -- {change} true")).expect(0);
    assert_eq!(root.document()["n"], 99);
    assert_eq!(root.names("config"), ["new", "rules.json"]);
    assert!(root.names(".checkpoints").iter().all(|id| id.ends_with("-deploy")));
}

#[test]
fn an_interrupt_in_the_middle_puts_things_back() {
    // during an attempt, and during a pause
    let (root, change) = guarded();
    fs::write(root.file("hang"), "echo begun; exec sleep 3600\n").unwrap();
    let mut script = running(&root, &format!("recover guard deploy -- {change} sh ./hang"));
    script.until("begun");
    assert!(!is_as_before(&root));
    script.signal(Signal::INT);
    assert_eq!(script.end().code, 130);
    assert!(is_as_before(&root));

    let mut script = running(
        &root,
        &format!("recover guard deploy -n 2 --base-delay 3600 --max-delay 3600 -- {change} false"),
    );
    await_line(&mut script, "attempt 1 of 2");
    script.signal(Signal::INT);
    assert_eq!(script.end().code, 130);
    assert!(is_as_before(&root));
}

#[test]
fn where_no_checkpoint_can_be_made_nothing_is_run() {
    let root = Sandbox::empty();
    root.run("recover guard deploy -- touch ran").expect(1).saying("state init");
    assert!(!root.file("ran").exists());
    let root = Sandbox::initialized();
    root.run("recover guard ../x -- touch ran").expect(4);
    assert!(!root.file("ran").exists());
    // a command that cannot be run has changed nothing
    let revision = root.revision();
    root.run("recover guard deploy -- ./no-such-program").expect(127);
    assert_eq!(root.revision(), revision);
}

#[test]
fn a_restore_that_fails_is_said_last_and_ends_with_the_code_for_it() {
    let (root, change) = guarded();
    fs::write(root.file("spoil"), "rm -r .checkpoints; exit 7\n").unwrap();
    let ran = root.run(&format!("recover guard deploy -- {change} sh ./spoil"));
    assert_eq!(ran.code, 3);
    assert!(
        ran.stderr.contains("did not put everything back: there is no checkpoint")
            && ran.stderr.contains("hint: "),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_killed_guard_leaves_a_checkpoint_that_brings_things_back() {
    let (root, change) = guarded();
    fs::write(root.file("hang"), "echo begun; read -r _\n").unwrap();
    let mut script = running(&root, &format!("recover guard deploy -- {change} sh ./hang"));
    script.until("begun");
    script.kill();
    assert!(!is_as_before(&root));
    root.ok("recover restore --latest deploy");
    assert!(is_as_before(&root));
}

#[test]
fn guards_may_be_nested() {
    let (root, change) = guarded();
    let inner = format!("$PIPELINE_BINARY recover guard -q inner -- {change} false");
    fs::write(
        root.file("outer"),
        format!("$PIPELINE_BINARY state set -q outer:=1\n{inner}\nexit 3\n"),
    )
    .unwrap();
    let ran = root.run("recover guard -q outer -- sh ./outer");
    assert_eq!(ran.code, 3, "{}", ran.stderr);
    assert!(is_as_before(&root) && root.document().get("outer").is_none());
}
