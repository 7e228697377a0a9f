//! `state` as a script's lock, and fences.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::sandbox::until;
use crate::sandbox::{Ran, Sandbox};
use crate::script::forged;

/// The token that a script's lock has on record.
fn token(sandbox: &Sandbox, name: &str) -> u64 {
    let row = sandbox
        .rows()
        .into_iter()
        .find(|row| row["lock"] == name && row["token"].is_u64())
        .unwrap();
    row["token"].as_u64().unwrap()
}

#[test]
fn a_holder_of_the_state_writes_at_once_and_others_queue() {
    let sandbox = Sandbox::initialized();
    let mut script = sandbox.script(
        "bash",
        "set -eu -o pipefail; export LOCK_TIMEOUT=0; $B lock acquire state; read -r _
         $B state update '.n = 1' -q; x=$($B state set a=b); echo \"$x\" | grep -q updated
         $B state read | sed 's/\"n\": 1/\"n\": 1, \"m\": 1/' | $B state write - -q
         bash -c '$B state phase two -q; :'; ( $B state set c=d -q; : )
         echo done; read -r _; $B lock release state; read -r _",
    );
    assert!(script.line().starts_with("Lock acquired: state "));
    let others: Vec<_> = (0..3)
        .map(|n| {
            let other = sandbox.spawn(&format!("state update .order+=[{n}]"));
            until("its place", || {
                sandbox.rows().iter().filter(|row| row["status"] == "waiting").count() == n + 1
            });
            other
        })
        .collect();
    let refused =
        sandbox.run("state set x=y --lock-timeout 0").expect(2).saying(&script.pid().to_string());
    assert!(refused.stderr.contains("the state is locked"), "{refused:?}");
    let error = sandbox.run("state set x=y --lock-timeout 0 --json").expect_json_error("timeout");
    assert_eq!(error["details"]["blocked_by"][0]["lock"], "state");
    script.go();
    script.until("done");
    let document = sandbox.document();
    assert_eq!(
        (&document["n"], &document["m"], &document["phase"], &document["c"]),
        (&json!(1), &json!(1), &json!("two"), &json!("d"))
    );
    assert_eq!(document.get("order"), None, "the others wait");
    script.go();
    for other in others {
        Ran::of(other.wait_with_output().unwrap()).expect(0);
    }
    assert_eq!(sandbox.document()["order"], json!([0, 1, 2]));
    assert_eq!(sandbox.rows(), [] as [Value; 0]);
}

#[test]
fn a_dead_holder_of_the_state_is_followed_by_the_waiter() {
    let sandbox = Sandbox::initialized();
    let holder = sandbox.holder("state");
    let writer = sandbox.spawn("state set a=b");
    until("its place", || sandbox.rows().iter().any(|row| row["status"] == "waiting"));
    holder.kill();
    Ran::of(writer.wait_with_output().unwrap()).expect(0);
    assert_eq!(sandbox.document()["a"], "b");
}

#[test]
fn the_state_is_granted_when_the_commit_in_flight_has_ended() {
    let sandbox = Sandbox::initialized();
    let commit = fs::File::open(sandbox.file(".locks/state.lock")).unwrap();
    commit.lock().unwrap();
    let mut script =
        sandbox.script("bash", "$B lock acquire state; $B state set a=b -q; echo $?; read -r _");
    sandbox.await_row("held", script.pid());
    // it is on record but not acknowledged: the script would write, and that commit is not over
    assert_eq!(sandbox.document().get("a"), None);
    sandbox.bash("$PIPELINE_BINARY lock acquire state 0").expect(2);
    commit.unlock().unwrap();
    assert!(script.line().starts_with("Lock acquired: state "));
    assert_eq!(script.line(), "0");
    drop(script);
    // a request that does not wait gets nothing
    commit.lock().unwrap();
    sandbox.bash("$PIPELINE_BINARY lock acquire state 0").expect(2);
    assert_eq!(sandbox.rows(), [] as [Value; 0]);
}

#[test]
fn a_kill_after_the_grant_leaves_the_state_held() {
    let sandbox = Sandbox::initialized();
    let mut script = sandbox.script(
        "bash",
        "$B lock acquire state & read -r _; kill -9 $!; wait $!; echo killed; read -r _",
    );
    let commit = fs::File::open(sandbox.file(".locks/state.lock")).unwrap();
    commit.lock().unwrap();
    sandbox.await_row("held", script.pid());
    script.go();
    script.until("killed");
    let token = token(&sandbox, "state");
    let again = format!("lock acquire state 0 --owner-pid {}", script.pid());
    let shown = sandbox
        .run(&again)
        .expect(2)
        .saying(&format!("state is held already by this owner: exclusive, token {token}, "));
    shown.saying(&format!("hint: pipeline-state lock release state --token {token} "));
    let error = sandbox.run(&format!("{again} --json")).expect_json_error("timeout");
    assert_eq!(error["details"]["held"]["token"], token);
    commit.unlock().unwrap();
    sandbox.run(&again).expect(1).saying("held already");
}

#[test]
fn the_six_are_taken_in_order_and_others_in_any() {
    let sandbox = Sandbox::initialized();
    let ran = sandbox.bash(
        "b=$PIPELINE_BINARY; $b lock acquire config && $b lock acquire state --json; echo $?; \
         $b lock check state",
    );
    assert!(ran.stdout.ends_with("1\nunlocked\n"), "{ran:?}");
    let error = ran.expect_json_error("lock_order");
    assert_eq!((&error["code"], &error["details"]["held"]), (&json!(1), &json!("config")));
    for (first, second, code) in [
        ("state", "config", 0),
        ("user", "temp", 1),
        ("backup", "signals,user", 1),
        ("config", "config2", 0),
        ("zebra", "state", 0),
        ("state,config", "user", 0),
    ] {
        let script = format!(
            "b=$PIPELINE_BINARY; $b lock acquire {first} && $b lock acquire {second} 0; exit $?"
        );
        assert_eq!(sandbox.bash(&script).code, code, "{first}, then {second}");
        let script = format!(
            "$PIPELINE_BINARY lock run {first} -- $PIPELINE_BINARY lock run {second} -t 0 -- true"
        );
        assert_eq!(sandbox.bash(&script).code, code, "run: {first}, then {second}");
    }
    // a commit takes the state by itself, and is exempt
    let script = "b=$PIPELINE_BINARY; $b lock acquire user && $b state set a=b; exit $?";
    sandbox.bash(script).expect(0);
}

#[test]
fn a_held_lock_is_refused_with_its_token_or_counted() {
    let sandbox = Sandbox::initialized();
    let script = "b=$PIPELINE_BINARY; t=$($b lock acquire n --print-token --owner-pid $$); echo $t
        $b lock acquire n --json; echo $?; sh -c '$PIPELINE_BINARY lock acquire n; echo $?'
        $b lock acquire n --reentrant; $b lock acquire n --reentrant
        for i in 1 2 3 4; do $b lock release n; echo $?; done";
    let ran = sandbox.bash(script);
    let lines: Vec<&str> = ran.stdout.lines().collect();
    let token = lines[0];
    let again = format!("Lock acquired: n (token {token}, owner ");
    assert!(
        lines[1..3] == ["1", "1"] && lines[3].starts_with(&again) && lines[4].starts_with(&again),
        "{ran:?}"
    );
    let rest = [
        "Lock released: n (held 2 more)",
        "0",
        "Lock released: n (held 1 more)",
        "0",
        "Lock released: n",
        "0",
        "1",
    ];
    assert_eq!(lines[5..], rest);
    assert_eq!(ran.expect_json_error("already_held")["details"]["token"].to_string(), token);
    assert!(
        ran.stderr.contains(&format!("token {token}")) && ran.stderr.contains("by an ancestor"),
        "{ran:?}"
    );
}

#[test]
fn owner_kin_and_token_bearer_can_release_a_lock() {
    let sandbox = Sandbox::initialized();
    sandbox.run("lock release n").expect(1);
    sandbox.run("lock release n --json").expect_json_error("not_found");
    let holder = sandbox.holder("n");
    sandbox.run("lock release n --json").expect_json_error("not_owner");
    sandbox.run("lock release n").expect(1).saying(&holder.pid().to_string());
    let token = token(&sandbox, "n");
    sandbox.run(&format!("lock release n --token {}", token + 1)).expect(1);
    assert_eq!(sandbox.check("n").1, 0);
    assert_eq!(sandbox.ok(&format!("lock release n --token {token}")), "Lock released: n");
    assert_eq!(sandbox.check("n").0, "unlocked");
    let by_a_child = sandbox.bash(
        "$PIPELINE_BINARY lock acquire n && sh -c '$PIPELINE_BINARY lock release n; \
                      exit $?'; exit $?",
    );
    by_a_child.expect(0);
    let all_or_none = sandbox.bash(
        "b=$PIPELINE_BINARY; $b lock acquire a,b -q; $b lock release a,c; $b lock check a; exit",
    );
    assert!(
        all_or_none.stdout.starts_with("locked:") && all_or_none.stderr.contains("c is not held"),
        "{all_or_none:?}"
    );
}

const WRITERS: [&str; 14] = [
    "set a=b",
    "set n:=3",
    "update .x=1",
    "write new.json",
    "phase two",
    "complete T",
    "signal S",
    "signal S --clear",
    "recover",
    "recover --to-revision 2",
    "adopt",
    "migrate",
    "edit",
    "set a=b --dry-run",
];

fn fenced(sandbox: &Sandbox, words: &str, fence: &str) -> Ran {
    let mut command = sandbox.command();
    command.env("EDITOR", "sed -i s/3$/4/");
    Ran::of(command.arg("state").args(words.split(' ')).args(["--fence", fence]).output().unwrap())
}

fn with_all_that_writers_need() -> Sandbox {
    let sandbox = Sandbox::with_history();
    fs::write(
        sandbox.file("new.json"),
        r#"{"phase":"w","completedTasks":[],"signals":{},"lastActivation":""}"#,
    )
    .unwrap();
    sandbox
}

#[test]
fn a_fenced_write_needs_its_grant_on_record() {
    for words in WRITERS {
        let sandbox = with_all_that_writers_need();
        let holder = sandbox.holder("deploy");
        let fence = format!("deploy:{}", token(&sandbox, "deploy"));
        let before = sandbox.revision();
        // even by a process unrelated to the holder: the token is enough
        let ran = fenced(&sandbox, words, &fence).expect(0);
        let writes = !matches!(
            words,
            "set n:=3" | "recover" | "adopt" | "migrate" | "signal S --clear" | "set a=b --dry-run"
        );
        assert_eq!(sandbox.revision() > before, writes, "{words}: {ran:?}");

        let sandbox = with_all_that_writers_need();
        let first = sandbox.holder("deploy");
        let fence = format!("deploy:{}", token(&sandbox, "deploy"));
        sandbox.ok("lock break deploy --force");
        let _next = sandbox.holder("deploy");
        let before = sandbox.snapshot();
        let ran = fenced(&sandbox, words, &fence).expect(1);
        assert!(
            ran.stderr.contains(&format!("the grant {fence} is no longer on record")),
            "{words}: {ran:?}"
        );
        let kept: Vec<_> =
            sandbox.snapshot().into_iter().filter(|(path, _)| !path.ends_with("kept")).collect();
        if words != "edit" {
            assert_eq!(kept, before, "{words}");
        }
        assert_eq!(
            fs::read(sandbox.state()).unwrap(),
            before.iter().find(|(path, _)| *path == sandbox.state()).unwrap().1
        );
        fenced(&sandbox, &format!("{words} --json"), &fence).expect_json_error("fenced");
        drop((holder, first));
    }
}

#[test]
fn a_grant_that_is_taken_away_while_the_write_is_being_made_stops_it() {
    let sandbox = Sandbox::with_history();
    let _holder = sandbox.holder("deploy");
    let fence = format!("deploy:{}", token(&sandbox, "deploy"));
    let before = fs::read(sandbox.state()).unwrap();
    let gate = fs::File::open(sandbox.file(".locks/.gate")).unwrap();
    gate.lock().unwrap();
    let writer = sandbox.spawn(&format!("state set a=b --fence {fence}"));
    let pid = writer.id().to_string();
    // proc_locks(5): a waiter's line has an arrow
    let is_waiting =
        |line: &str| line.contains("->") && line.split_whitespace().any(|word| word == pid);
    until("the gate", || fs::read_to_string("/proc/locks").unwrap().lines().any(is_waiting));
    fs::remove_file(sandbox.record_of("deploy")).unwrap();
    gate.unlock().unwrap();
    Ran::of(writer.wait_with_output().unwrap())
        .expect(1)
        .saying(&format!("the grant {fence} is no longer on record"));
    assert_eq!(fs::read(sandbox.state()).unwrap(), before);
    assert!(sandbox.debris().is_empty());
    assert_eq!(
        sandbox.shelf("state-").len(),
        3,
        "the backup that the commit would have needed is gone again"
    );
}

#[test]
fn several_fences_must_all_hold_and_invalid_ones_are_refused() {
    let sandbox = Sandbox::initialized();
    let _holders = ["a", "b"].map(|name| sandbox.holder(name));
    let [a, b] = ["a", "b"].map(|name| token(&sandbox, name));
    sandbox.ok(&format!("state set x=1 --fence a:{a} --fence b:{b}"));
    sandbox.run(&format!("state set x=2 --fence a:{a} --fence b:{a}")).expect(1);
    for nonsense in ["a", "a:", ":1", "a:0", "a:-1", "a:x", "../a:1", ""] {
        let ran = Ran::of(
            sandbox
                .command()
                .args(["state", "set", "x=3", &format!("--fence={nonsense}")])
                .output()
                .unwrap(),
        );
        assert!(matches!(ran.code, 64 | 4), "{nonsense:?}: {ran:?}");
    }
    assert_eq!(sandbox.document()["x"], "1");
}

#[test]
fn tokens_grow_whatever_becomes_of_the_locks_and_their_counter() {
    let sandbox = Sandbox::initialized();
    let mut last = 0;
    let mut grown = |what: &str| {
        let holder = sandbox.holder("n");
        let token = token(&sandbox, "n");
        assert!(token > last, "{what}: {token} after {last}");
        last = token;
        (holder, token)
    };
    let (_, first) = grown("the first");
    let counter = sandbox.file(".locks/.tokens");
    let of_earlier_boot = || forged(&counter, |counter| counter["boot"] = json!("earlier"));
    let early = of_earlier_boot();
    grown("a kill").0.kill();
    let (_holder, broken) = grown("a kill");
    sandbox.ok(&format!("lock break n --token {broken}"));
    let (_holder, released) = grown("a break");
    sandbox.ok(&format!("lock release n --token {released}"));
    grown("a release").0.kill();
    // the counter is never synced: after a power cut any earlier one may be there
    fs::write(&counter, early).unwrap();
    grown("a reboot").0.kill();
    fs::remove_file(&counter).unwrap();
    grown("a lost counter").0.kill();
    fs::write(&counter, [0; 64]).unwrap();
    grown("a torn counter").0.kill();
    fs::write(&counter, [b' '; 4096]).unwrap();
    grown("a counter of another length").0.kill();
    fs::remove_file(sandbox.file(".locks/.reserved")).unwrap();
    grown("a lost reservation").0.kill();
    fs::write(&counter, of_earlier_boot()).unwrap();
    let (_holder, token) = grown("a lost reservation and a reboot");
    assert!(token > first);
}

/// Leaves this many tokens in the reserved block; returns its end.
pub fn leave_tokens(counter: &Path, left: u64) -> u64 {
    let now: Value = serde_json::from_slice(&fs::read(counter).unwrap()).unwrap();
    let end: u64 = now["end"].as_str().unwrap().parse().unwrap();
    fs::write(
        counter,
        forged(counter, |counter| counter["next"] = json!(format!("{:020}", end - left))),
    )
    .unwrap();
    end
}

#[test]
fn more_tokens_than_a_block_reserves_are_all_different() {
    let sandbox = Sandbox::initialized();
    drop(sandbox.holder("n"));
    let counter = sandbox.file(".locks/.tokens");
    let end = leave_tokens(&counter, 2);
    let mut holders: Vec<_> = (0..2).map(|n| sandbox.holder(&format!("one-{n}"))).collect();
    // several at once at the end of the block, without retries
    let names: Vec<String> = (0..6).map(|n| format!("many-{n}")).collect();
    let scripts = names.iter().map(|name| {
        sandbox.script("bash", &format!("$B lock acquire {name} 0 || exit; echo held; read -r _"))
    });
    let scripts: Vec<_> = scripts.collect();
    for mut script in scripts {
        script.until("held");
        holders.push(script);
    }
    let mut tokens: Vec<u64> = sandbox
        .rows()
        .iter()
        .map(|row| row["token"].as_u64().unwrap())
        .filter(|token| *token > 1)
        .collect();
    tokens.sort_unstable();
    tokens.dedup();
    assert_eq!(tokens, (end - 2..end + 6).collect::<Vec<_>>());
}

#[test]
fn readers_meet_damage_while_a_script_holds_the_state() {
    let sandbox = Sandbox::with_history();
    let mut holder = sandbox
        .script("bash", "$B lock acquire state -q; echo held; read -r _; $B state read; read -r _");
    holder.until("held");
    sandbox.overwrite("{\"phase\": ");
    let started = Instant::now();
    let ran = sandbox.run("state get .n").expect(0).saying("warning: ");
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    assert_eq!(ran.stdout, "3\n");
    assert_eq!(fs::read_to_string(sandbox.state()).unwrap(), "{\"phase\": ", "nothing was changed");
    sandbox.run("state set a=b --lock-timeout 0").expect(2);
    // its holder's own commands heal
    holder.go();
    holder.line();
    until("healing", || fs::read_to_string(sandbox.state()).unwrap().contains("\"n\": 3"));
}

#[test]
fn a_commit_that_waits_for_its_flock_is_not_passed_over() {
    let sandbox = Sandbox::initialized();
    let holder = sandbox.holder("state");
    let waiting = |count| {
        until("its place", || {
            sandbox.rows().iter().filter(|row| row["status"] == "waiting").count() == count
        });
    };
    let first = sandbox.spawn("state update .order+=[1]");
    waiting(1);
    // it probes the one before it, and would mark it after a second
    let second = sandbox.spawn("state update .order+=[2]");
    waiting(2);
    let flock = fs::File::open(sandbox.file(".locks/state.lock")).unwrap();
    flock.lock().unwrap();
    holder.end();
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(1500) {
        let rows = sandbox.rows();
        assert!(rows.iter().all(|row| row["status"] != "passed_over"), "{rows:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
    drop(flock);
    for commit in [first, second] {
        Ran::of(commit.wait_with_output().unwrap()).expect(0);
    }
    assert_eq!(sandbox.document()["order"], json!([1, 2]));
    let audit = fs::read_to_string(sandbox.file("audit.log")).unwrap();
    assert!(!audit.contains("was passed over"), "{audit}");
}
