//! Limits of hooks: they never block a person, wait for ever, or lose a signal silently.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::time::{Duration, Instant};

use rustix::fs::{OFlags, fcntl_setfl};
use serde_json::{Value, json};

use crate::hooks::{
    PROMPT, TOOL, context, fire, fire_with, prompted, ran_command, started, with_rules, write_rules,
};
use crate::owners::Owner;
use crate::sandbox::{BINARY, Ran, installed};
use crate::strace::{in_parallel, injection, strace};

/// Far more than a hook waits, and far less than it would wait without its bounds.
const SOON: Duration = Duration::from_secs(60);

/// A signal for `emit N`, an activation for `activate N`.
fn rules_for(count: usize) -> String {
    let skills: Vec<Value> = (0..count)
        .map(|n| {
            let conditions = json!({"user_patterns": [format!("^activate {n}$")]});
            json!({"skill": n.to_string(), "activation_code": format!("A{n}"),
                "phase": format!("p{n}"), "trigger_conditions": conditions})
        })
        .collect();
    let tool_rules: Vec<Value> = (0..count)
        .map(|n| {
            json!({"tool": "Bash", "command_regex": format!("^emit {n}$"),
            "emit_signal": format!("S{n}")})
        })
        .collect();
    json!({"skills": skills, "tool_rules": tool_rules}).to_string()
}

#[test]
fn thirty_two_hooks_at_once_lose_no_signal() {
    let sandbox = with_rules(&rules_for(32));
    let acknowledged: usize = std::thread::scope(|scope| {
        let hooks: Vec<_> = (0..32)
            .map(|n| {
                let sandbox = &sandbox;
                scope.spawn(move || {
                    // Both shapes of both events.
                    let (hook, event) = match n % 4 {
                        0 => (PROMPT, prompted(sandbox, &format!("activate {n}"))),
                        1 => (PROMPT, json!({"message": format!("activate {n}")})),
                        2 => (TOOL, ran_command(sandbox, &format!("emit {n}"))),
                        _ => (
                            TOOL,
                            json!({"tool": "Bash", "input": {"command": format!("emit {n}")}}),
                        ),
                    };
                    let ran = fire_with(sandbox, hook, &event, &[("LOCK_TIMEOUT", "30")]);
                    if hook == PROMPT {
                        assert_eq!(context(&ran, "UserPromptSubmit"), format!("[ACTIVATE:A{n}]"));
                        assert_eq!(ran.code, 0);
                    } else if ran.code != 0 {
                        // a machine this slow must report it; the signal is given again
                        let ran = ran.expect(1);
                        assert!(
                            ran.stderr.contains(&format!("the signal S{n} is not recorded")),
                            "{}",
                            ran.stderr
                        );
                        sandbox.ok(&format!("state signal S{n}"));
                        return 1;
                    }
                    usize::from(ran.stderr.is_empty())
                })
            })
            .collect();
        hooks.into_iter().map(|hook| hook.join().unwrap()).sum()
    });
    let given =
        sandbox.document()["signals"].as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    let wanted = (0..32).filter(|n| n % 4 > 1).map(|n| format!("S{n}")).collect();
    assert_eq!(given, wanted);
    assert_eq!(sandbox.names(".signals").len(), 16);
    assert_eq!(sandbox.revision(), 1 + acknowledged as u64, "a revision for each, and no gap");
    sandbox.run("recover doctor").expect(0);
}

#[test]
fn a_tracker_waits_for_a_lock_longer_than_a_second_and_loses_no_signal() {
    let sandbox = with_rules(&rules_for(24));
    let lock = fs::File::open(sandbox.file(".locks/state.lock")).unwrap();
    lock.lock().unwrap();
    std::thread::scope(|scope| {
        let fire_one = |n: usize| {
            let event = ran_command(&sandbox, &format!("emit {n}"));
            fire(&sandbox, TOOL, &event)
        };
        let trackers: Vec<_> = (0..24).map(|n| scope.spawn(move || fire_one(n))).collect();
        std::thread::sleep(Duration::from_millis(1300)); // the elapsed time itself matters
        drop(lock);
        for tracker in trackers {
            let ran = tracker.join().unwrap();
            assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
        }
    });
    assert_eq!(sandbox.document()["signals"].as_object().unwrap().len(), 24);
}

#[test]
fn a_hook_without_the_lock_gives_up_and_blocks_no_prompt() {
    let sandbox = with_rules(&rules_for(1));
    let owner = Owner::new();
    let pid = owner.pid().to_string();
    sandbox.run_args(&["lock", "acquire", "state", "--owner-pid", &pid]).expect(0);
    let (prompt, tool) = (prompted(&sandbox, "activate 0"), ran_command(&sandbox, "emit 0"));
    let before = sandbox.snapshot();
    for environment in [
        &[][..],
        &[("LOCK_TIMEOUT", "0"), ("PIPELINE_LOCK_EXIT", "2")],
        &[("LOCK_TIMEOUT", "5m"), ("PIPELINE_FORMAT", "json")],
    ] {
        let began = Instant::now();
        let ran = fire_with(&sandbox, PROMPT, &prompt, environment);
        assert_eq!(context(&ran, "UserPromptSubmit"), "[ACTIVATE:A0]");
        assert_eq!((ran.code, ran.stderr.lines().count()), (0, 1), "{}", ran.stderr);
        assert!(began.elapsed() < SOON);
        ran.saying("the activation A0 is not recorded").saying(&pid);
        let began = Instant::now();
        let ran = fire_with(&sandbox, &format!("{TOOL} --lock-exit 2"), &tool, environment);
        assert_eq!((ran.code, ran.stdout.as_str()), (1, ""));
        assert!(began.elapsed() < SOON);
        let ran = ran.saying("the signal S0 is not recorded").saying(&pid);
        if environment.iter().any(|(_, value)| *value == "json") {
            let error = ran.expect_json_error("timeout");
            assert_eq!(
                (&error["details"]["exit"], &error["details"]["signals"]),
                (&json!(1), &json!(["S0"]))
            );
        }
    }
    let documents = |files: Vec<(std::path::PathBuf, Vec<u8>)>| {
        files
            .into_iter()
            .filter(|(path, _)| {
                let path = path.to_string_lossy();
                !path.contains("/.locks") && !path.ends_with("/journal.jsonl")
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(documents(sandbox.snapshot()), documents(before));
    let log = fs::read_to_string(sandbox.file(".error-recovery.log")).unwrap();
    assert!(log.contains("error-recovery/post-tool-use-tracker"), "{log}");
    drop(owner);
    fire(&sandbox, TOOL, &tool).expect(0);
}

#[test]
fn another_hanging_commit_costs_the_signal_and_not_the_person() {
    let sandbox = with_rules(&rules_for(1));
    let lock = fs::File::open(sandbox.file(".locks/state.lock")).unwrap();
    lock.lock().unwrap();
    fire(&sandbox, TOOL, &ran_command(&sandbox, "emit 0"))
        .expect(1)
        .saying("the signal S0 is not recorded");
    assert_eq!(fire(&sandbox, PROMPT, &prompted(&sandbox, "activate 0")).code, 0);
}

#[test]
fn whatever_comes_in_a_hook_ends_with_0_or_1() {
    let sandbox = with_rules(&rules_for(1));
    for hook in [PROMPT, TOOL] {
        for garbage in [
            &b"garbage"[..],
            b"",
            b" \n",
            b"[]",
            b"{}",
            b"{\"prompt\":7}",
            b"{\"tool\":{}}",
            b"\xff\xfe",
            b"{\"prompt\"",
        ] {
            let ran = sandbox.feed(hook, garbage);
            // an event without a prompt means nothing to its hook
            if hook == PROMPT && garbage.starts_with(b"{") && garbage.ends_with(b"}") {
                assert_eq!(
                    (ran.code, ran.stdout.as_str(), ran.stderr.as_str()),
                    (0, "", ""),
                    "{garbage:?}"
                );
                continue;
            }
            assert_eq!((ran.code, ran.stdout.as_str()), (1, ""), "{hook} {garbage:?}");
            let ran = ran.saying("error:");
            if garbage == b"garbage" {
                ran.saying("hint: pipeline-state ").saying(&format!(" {hook} --help "));
            }
        }
        sandbox.run(hook).expect(1).saying("it is empty");
        let closed = sandbox.bash(&format!("$PIPELINE_BINARY {hook} <&-"));
        assert_eq!(closed.code, 1, "{closed:?}");
        // wrong variables and options are usage errors, as everywhere
        assert_eq!(
            fire_with(
                &sandbox,
                hook,
                &json!({"prompt": "x", "tool": "x"}),
                &[("LOCK_TIMEOUT", "soon")]
            )
            .code,
            64
        );
        assert_eq!(sandbox.run(&format!("{hook} --nonsense")).code, 64);
    }
    let much = "x".repeat(5 << 20);
    let mut prompt = prompted(&sandbox, "activate 0");
    prompt["transcript"] = json!(much);
    fire(&sandbox, PROMPT, &prompt).expect(0);
    fire(&sandbox, PROMPT, &prompted(&sandbox, &much)).expect(0);
    let mut tool = ran_command(&sandbox, "emit 0");
    tool["tool_response"]["stdout"] = json!(much);
    tool["tool_input"]["content"] = json!(much);
    fire(&sandbox, TOOL, &tool).expect(0);
    assert_eq!(sandbox.document()["signals"].as_object().unwrap().len(), 1);
}

#[test]
fn an_input_that_stays_open_does_not_block() {
    let sandbox = with_rules(&rules_for(1));
    // a complete event is answered at once, an incomplete one times out
    let mut whole = started(&sandbox, TOOL, &[]);
    whole
        .stdin
        .as_mut()
        .unwrap()
        .write_all(ran_command(&sandbox, "emit 0").to_string().as_bytes())
        .unwrap();
    let (silent, mut half) = (started(&sandbox, PROMPT, &[]), started(&sandbox, TOOL, &[]));
    half.stdin.as_mut().unwrap().write_all(b"{\"tool\":{}").unwrap();
    let began = Instant::now();
    for (mut child, code) in [(whole, 0), (silent, 1), (half, 1)] {
        let stdin = child.stdin.take(); // waiting would close it
        let ran = Ran::of(child.wait_with_output().unwrap()).expect(code);
        assert!(code == 0 || ran.stderr.contains("still open"), "{}", ran.stderr);
        drop(stdin);
    }
    assert!(began.elapsed() < SOON);
    assert_eq!(sandbox.revision(), 2);
}

#[test]
fn an_unread_answer_does_not_block() {
    let sandbox = with_rules(&rules_for(1));
    fs::write(sandbox.file("event"), prompted(&sandbox, "activate 0").to_string()).unwrap();
    // a full pipe without a reader
    let (reader, mut full) = std::io::pipe().unwrap();
    fcntl_setfl(&full, OFlags::NONBLOCK).unwrap();
    while full.write(&[0; 4096]).is_ok() {}
    fcntl_setfl(&full, OFlags::empty()).unwrap();
    let mut hook = sandbox.program("timeout");
    hook.args(["60", BINARY]).args(PROMPT.split(' '));
    let ran = Ran::of(
        hook.stdin(fs::File::open(sandbox.file("event")).unwrap()).stdout(full).output().unwrap(),
    );
    ran.expect(1).saying("was ended after 4.7 s");
    drop(reader);
}

#[test]
fn a_disk_that_hangs_costs_the_signal_and_not_the_person() {
    if !installed("strace") {
        return;
    }
    // the delay is 7 s; strace sees the end of a process only after its delay
    in_parallel(&[PROMPT, TOOL], |hook| {
        let sandbox = with_rules(&rules_for(1));
        let event = json!({"prompt": "activate 0", "tool": "Bash", "input": "emit 0"});
        fs::write(sandbox.file("event"), event.to_string()).unwrap();
        let hang = injection("fsync", "delay_enter=7000000");
        let options: Vec<&str> =
            ["-f"].into_iter().chain(hang.iter().map(String::as_str)).collect();
        let mut command = strace(&sandbox, &options, hook.split(' '));
        let ran = Ran::of(
            command.stdin(fs::File::open(sandbox.file("event")).unwrap()).output().unwrap(),
        );
        let ran = ran.saying("was ended after 4.7 s");
        if *hook == PROMPT {
            assert_eq!(
                (ran.code, context(&ran, "UserPromptSubmit").as_str()),
                (0, "[ACTIVATE:A0]")
            );
        } else {
            assert_eq!((ran.code, ran.stdout.as_str()), (1, ""));
            ran.saying("the signal S0 may not be recorded");
        }
        assert_eq!(sandbox.revision(), 1);
        fire(&sandbox, TOOL, &ran_command(&sandbox, "emit 0")).expect(0);
        assert!(sandbox.debris().is_empty());
    });
}

#[test]
fn an_event_that_no_rule_is_about_opens_no_state_and_starts_no_thread() {
    if !installed("strace") {
        return;
    }
    let sandbox = with_rules(
        r#"{"tool_rules": [{"tool": "Bash", "command_regex": "make +[a-z]", "emit_signal": "M"},
          {"tool": "Write|Edi.", "path_glob": "docs/*.md", "emit_signal": "W"}],
          "skills": {"s": {"fileTriggers": {"pathPatterns": ["src/**"]}}}}"#,
    );
    let write = |path: &str| json!({"tool": "Write", "input": {"file_path": sandbox.file(path)}});
    let costs = |event: &Value| {
        fs::write(sandbox.file("event"), event.to_string()).unwrap();
        let options = ["-f", "-e", "trace=open,openat,clone,clone3"];
        let mut command = strace(&sandbox, &options, TOOL.split(' '));
        let event = fs::File::open(sandbox.file("event")).unwrap();
        let trace = Ran::of(command.stdin(event).output().unwrap()).expect(0).stderr;
        trace.contains("clone") || trace.contains(".workflow-state.json")
    };
    for (event, is_of_a_rule) in [
        (json!({"tool": "Bash", "input": "ls"}), false),
        (json!({"tool": "Read", "input": {"file_path": "docs/a.md"}}), false),
        (write("a.md"), false),
        (json!({"tool": "Bash", "input": "make it"}), true),
        (write("docs/a.md"), true),
        (write("src/a/b.rs"), true),
    ] {
        assert_eq!(costs(&event), is_of_a_rule, "{event}");
    }
    sandbox.overwrite("{\"phase\":");
    assert!(
        !costs(&json!({"tool": "Bash", "input": "ls"})),
        "damage stays until the state is needed"
    );
}

#[test]
fn no_pattern_takes_for_ever() {
    let patterns = ["(a+)+$", "(a|aa)*b", "(.*.*.*)*x", "(?:a?){50}a{50}b"];
    let skills: Vec<Value> = patterns
        .iter()
        .map(|pattern| {
            json!({"skill": "s", "activation_code": "A",
            "trigger_conditions": {"user_patterns": [format!("^{pattern}$")]}})
        })
        .collect();
    let sandbox = with_rules(&json!({ "skills": skills }).to_string());
    let ran = fire(&sandbox, PROMPT, &prompted(&sandbox, &format!("{}c", "a".repeat(200_000))));
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (0, "", ""));
    fire(&sandbox, PROMPT, &prompted(&sandbox, &"a".repeat(200_000))).expect(0);
}

// ---- bad rules ----

const BAD: &str = r#"{
  "skills": [
    {"skill": "bad", "activation_code": "BAD",
     "trigger_conditions": {"user_patterns": ["("]}},
    {"skill": "good", "activation_code": "GOOD", "trigger_conditions": {"user_patterns": ["go"]}}
  ],
  "tool_rules": [
    {"tool": "Bash", "emit_signal": "../../etc/passwd"},
    {"tool": "Bash", "emit_signal": "a b"},
    {"tool": "Bash", "emit_signal": "GOOD", "emit_signl": "x"}
  ]
}"#;

#[test]
fn a_bad_rule_is_skipped_and_logged_once_and_the_good_ones_work() {
    let sandbox = with_rules(BAD);
    let rules = sandbox.file("config/skill-rules.json").display().to_string();
    for _ in 0..3 {
        let ran = fire(&sandbox, PROMPT, &prompted(&sandbox, "go")).expect(0);
        assert_eq!(context(&ran, "UserPromptSubmit"), "[ACTIVATE:GOOD]");
        ran.saying(&format!("{rules}:4: skills[0].trigger_conditions.user_patterns[0]: "));
        let ran = fire(&sandbox, TOOL, &ran_command(&sandbox, "x")).expect(0);
        ran.saying(&format!("{rules}:8: tool_rules[0].emit_signal: "));
    }
    assert_eq!(
        sandbox.document()["signals"].as_object().unwrap().keys().collect::<Vec<_>>(),
        ["GOOD"]
    );
    assert_eq!(sandbox.names(".signals"), ["GOOD.json"]);
    let log = fs::read_to_string(sandbox.file(".error-recovery.log")).unwrap();
    assert_eq!(log.matches("error-recovery/hook: ").count(), 3, "{log}");
    assert!(sandbox.run("recover status").expect(0).stdout.contains("skill-rules.json:4"));
}

#[test]
fn a_check_explains_each_bad_rule_with_its_line() {
    let sandbox = with_rules(BAD);
    let rules = sandbox.file("config/skill-rules.json").display().to_string();
    let checked = sandbox.run("hook check").expect(4).saying("3 problems found");
    for line in [
        "4: skills[0]",
        "8: tool_rules[0]",
        "9: tool_rules[1]",
        "10: note: tool_rules[2].emit_signl",
    ] {
        assert!(
            checked.stdout.contains(&format!("\n{rules}:{line}")),
            "{line}: {}",
            checked.stdout
        );
    }
    let told = sandbox.run("hook check --json");
    let error = told.expect_json_error("schema");
    assert_eq!(
        (&told.json()["valid"], &told.json()["findings"]),
        (&json!(false), &error["details"]["findings"])
    );
    assert_eq!(told.json()["findings"][0]["line"], 4);
    // an odd rule is no reason to fail
    write_rules(&sandbox, r#"{"tool_rule": []}"#);
    let checked = sandbox.run("hook check").expect(0).stdout;
    assert!(
        checked.starts_with("Hook rules: PASSED") && checked.contains("did you mean `tool_rules`?"),
        "{checked}"
    );
    fs::remove_file(rules).unwrap();
    sandbox.run("hook check").expect(5).saying("hook init-rules");
}

#[test]
fn unreadable_rules_are_an_error_that_does_not_block() {
    let sandbox = with_rules("{\n  \"skills\": [,]\n}");
    let rules = sandbox.file("config/skill-rules.json").display().to_string();
    for (hook, event) in [(PROMPT, prompted(&sandbox, "go")), (TOOL, ran_command(&sandbox, "x"))] {
        let ran = fire(&sandbox, hook, &event)
            .expect(1)
            .saying(&format!("error: {rules}:2: "))
            .saying("hook check");
        assert_eq!(
            ran.stderr.matches("it is not valid JSON").count(),
            1,
            "once is enough: {}",
            ran.stderr
        );
    }
    assert!(
        sandbox
            .run("hook check")
            .expect(4)
            .stdout
            .contains(&format!("{rules}:2: it is not valid JSON"))
    );
    let log = fs::read_to_string(sandbox.file(".error-recovery.log")).unwrap();
    assert_eq!(log.matches("it is not valid JSON").count(), 1, "{log}");
    assert_eq!(sandbox.revision(), 1);
}
