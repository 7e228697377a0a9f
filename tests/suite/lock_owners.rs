//! P5: a lock is held exactly as long as its owner lives. Choice of the owner, and detection of its
//! death.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::permitted::is_permitted;
use crate::sandbox::until;
use crate::sandbox::{BINARY, Ran, Sandbox, installed};
use crate::script::{Script, is_root};

/// Calls from a script that make the script the owner.
const BY_THE_SCRIPT: [&str; 12] = [
    "$B lock acquire n",
    "x=$($B lock acquire n); echo \"$x\"",
    "x=`$B lock acquire n --print-token --owner-pid $$`",
    "$B lock acquire n | cat",
    "$B lock acquire n & wait $!",
    "env A=b $B lock acquire n",
    "nice $B lock acquire n",
    "if $B lock acquire n; then :; fi",
    "f() { $B lock acquire n; }; f",
    "export PIPELINE_OWNER_PID=$$; ( $B lock acquire n; : )",
    "x=$($B lock acquire n --owner-pid $$ || exit)",
    "timeout 9 $B lock acquire n --owner-pid $$",
];

/// Calls through a process between the script and the program, which ends before the script
/// continues.
const BY_A_SUBSHELL: [&str; 5] = [
    "x=$($B lock acquire n || exit)",
    "( $B lock acquire n; : )",
    "x=$($B lock acquire n | cat; :)",
    "echo | { $B lock acquire n; : ; }",
    "timeout 9 $B lock acquire n",
];

#[test]
fn a_lock_that_a_script_takes_is_the_scripts_however_it_calls() {
    for shell in ["bash", "dash"]
        .into_iter()
        .filter(|shell| *shell == "bash" || is_permitted(shell, &["-c", ":"]))
    {
        let sandbox = Sandbox::initialized();
        for way in BY_THE_SCRIPT {
            let text = format!(
                "{way}\necho acquired; read -r _; $B lock release n; echo released $?; read -r _; :"
            );
            let mut script = sandbox.script(shell, &text);
            script.until("acquired");
            assert_eq!(
                sandbox.check("n"),
                (format!("locked:exclusive:{}", script.pid()), 0),
                "{shell}: {way}"
            );
            let other = sandbox.bash("$PIPELINE_BINARY lock acquire n 0");
            other.expect(2).saying(&script.pid().to_string());
            let stranger = sandbox.bash("$PIPELINE_BINARY lock release n");
            stranger.expect(1).saying("nothing was released");
            script.go();
            script.until("released 0");
            assert_eq!(sandbox.check("n"), ("unlocked".to_owned(), 1), "{shell}: {way}");
            assert_eq!(script.end().stderr, "", "{shell}: {way}");
        }
    }
}

#[test]
fn an_owner_that_ends_before_the_script_goes_on_is_warned_of() {
    for shell in ["bash", "dash"]
        .into_iter()
        .filter(|shell| *shell == "bash" || is_permitted(shell, &["-c", ":"]))
    {
        let sandbox = Sandbox::initialized();
        for way in BY_A_SUBSHELL {
            let script = sandbox.script(shell, &format!("{way}\n$B lock check n; :"));
            let ran = script.end().expect(0);
            let (_, rest) = ran
                .stderr
                .split_once("warning: owner ")
                .unwrap_or_else(|| panic!("{shell}: {way}: {ran:?}"));
            let (pid, rest) = rest.split_once(' ').unwrap();
            assert!(
                rest.starts_with("ends with this subshell; pass --owner-pid $$\n"),
                "{shell}: {way}: {ran:?}"
            );
            assert!(pid.parse::<u32>().is_ok(), "{shell}: {way}: {ran:?}");
            assert!(
                ran.stdout.ends_with("stale\n"),
                "{shell}: {way}: it is as dead as the warning said: {ran:?}"
            );
        }
        // a script in its own right is no subshell, even if a shell started it
        let script = sandbox
            .script(shell, "sh -c '$B lock acquire n; :'; sh -c '$B lock acquire n; echo $?'");
        assert!(!script.end().stderr.contains("warning"), "{shell}");
    }
}

#[test]
fn sh_c_owns_its_lock_unless_it_execs_the_command() {
    let sandbox = Sandbox::initialized();
    let mut script = sandbox.script("sh", "$B lock acquire n; $B lock check n; echo $$; :");
    script.line();
    let shown = script.line();
    assert_eq!(shown, format!("locked:exclusive:{}", script.line()));
    // bash execs the last command of -c, so the program's parent is the caller of bash
    let mut script =
        sandbox.script("bash", "bash -c '$B lock acquire m'; $B lock check m; read -r _; :");
    script.line();
    assert_eq!(script.line(), format!("locked:exclusive:{}", script.pid()));
}

#[test]
fn a_script_that_is_killed_frees_its_lock_and_the_waiter_gets_it() {
    for shell in ["bash", "sh"] {
        let sandbox = Sandbox::initialized();
        let mut script = sandbox
            .script(shell, "$B lock acquire n 0; $B lock acquire m,o 0; echo held; read -r _; :");
        script.until("held");
        let mut waiters = [sandbox.waiter("n"), sandbox.waiter("o,m")];
        let waiting_for =
            |row: &Value| row["status"] != "waiting" || row["waiting_for"] == json!([script.pid()]);
        assert!(sandbox.rows().iter().all(waiting_for));
        script.kill();
        for waiter in &mut waiters {
            assert_eq!(waiter.line(), "got 0");
        }
        assert_eq!(sandbox.check("n").0, format!("locked:exclusive:{}", waiters[0].pid()));
        assert_eq!(sandbox.check("m").0, format!("locked:exclusive:{}", waiters[1].pid()));
    }
}

#[test]
fn a_lock_that_is_released_goes_to_the_waiters_in_their_order() {
    let sandbox = Sandbox::initialized();
    let mut holder = sandbox.script(
        "bash",
        "$B lock acquire n -q; echo held; read -r _; $B lock release n -q; read -r _",
    );
    holder.until("held");
    let mut waiters = [sandbox.waiter("n"), sandbox.waiter("n"), sandbox.waiter("n")];
    holder.go();
    for waiter in &mut waiters {
        assert_eq!(waiter.line(), "got 0");
        assert_eq!(sandbox.check("n").0, format!("locked:exclusive:{}", waiter.pid()));
        waiter.leave_a_zombie();
    }
    assert!(sandbox.is_free("n"));
}

#[test]
fn a_waiter_sleeps_until_the_owner_ends_and_does_not_look_again_and_again() {
    if !installed("strace") {
        return;
    }
    let sandbox = Sandbox::initialized();
    let holder = sandbox.holder("n");
    // the owner keeps running, and strace does not
    let text = "$B lock acquire other -q; echo ready
                strace -f -qq -e trace=poll,ppoll,/nanosleep,pidfd_open -o calls $B lock acquire n \
                    300 --owner-pid $$ 2>&1";
    let mut waiter = sandbox.script("bash", text);
    waiter.until("ready");
    sandbox.await_row("waiting", waiter.pid());
    // it sleeps until it reports the holder, and then until its deadline
    assert!(waiter.line().starts_with(&format!("waiting for n: held by {} (", holder.pid())));
    let calls = || fs::read_to_string(sandbox.file("calls")).unwrap();
    until("the second sleep", || calls().matches("pidfd_open(").count() >= 4);
    let started = Instant::now();
    holder.kill();
    assert!(waiter.line().starts_with("Lock acquired: n "));
    assert!(started.elapsed() < Duration::from_secs(60), "it woke at its deadline only");
    assert_eq!(waiter.end().code, 0);
    let calls = calls();
    assert!(!calls.contains("nanosleep"), "{calls}");
    assert!((2..=6).contains(&calls.matches("poll(").count()), "{calls}");
}

#[test]
fn unfit_owners_are_refused_with_a_next_step() {
    let sandbox = Sandbox::initialized();
    let mut gone = std::process::Command::new("true").spawn().unwrap();
    gone.wait().unwrap();
    let mut zombie = sandbox.script("sh", "read -r _");
    zombie.leave_a_zombie();
    for pid in [
        "0".to_owned(),
        gone.id().to_string(),
        zombie.pid().to_string(),
        "-1".to_owned(),
        "x".to_owned(),
    ] {
        let by_option =
            sandbox.run(&format!("lock acquire n --owner-pid={pid}")).expect(64).saying("hint: ");
        let mut command = sandbox.command();
        command.env("PIPELINE_OWNER_PID", &pid).args(["lock", "acquire", "n"]);
        let by_environment = Ran::of(command.output().unwrap()).expect(64).saying("hint: ");
        if let Ok(number) = pid.parse::<u32>() {
            for ran in [by_option, by_environment] {
                let ran = ran
                    .saying("lock acquire n --owner-pid $$")
                    .saying("lock run n")
                    .saying(&number.to_string());
                assert!(ran.stderr.contains("cannot own a lock") || number == 0, "{ran:?}");
            }
        }
    }
    sandbox.run("lock acquire n --owner-pid 0 --json").expect_json_error("usage");
    assert_eq!(sandbox.check("n"), ("unlocked".to_owned(), 1));
    // an empty variable counts as unset, and the option takes precedence over the variable
    for owner in ["", "0"] {
        let mut script = sandbox.program("bash");
        let option = if owner.is_empty() { "" } else { "--owner-pid $$" };
        let text = format!("PIPELINE_OWNER_PID={owner} $PIPELINE_BINARY lock acquire n {option} 0");
        Ran::of(script.args(["-c", &format!("{text}; exit $?")]).output().unwrap()).expect(0);
    }
}

#[test]
fn a_zombie_owns_nothing() {
    let sandbox = Sandbox::initialized();
    let mut holder = sandbox.holder("n");
    let mut waiter = sandbox.waiter("n");
    holder.leave_a_zombie();
    assert_eq!(waiter.line(), "got 0");
    waiter.leave_a_zombie();
    assert_eq!(sandbox.check("n"), ("stale".to_owned(), 1));
    assert!(sandbox.is_free("n"));
}

/// Kills a script while its `command` waits for the table of locks; its parent then takes the lock
/// `name`. Returns the parent's output once `awaited` is true of the command, which continues.
fn left_behind(sandbox: &Sandbox, command: &str, name: &str, awaited: &str) -> Vec<String> {
    let script = r#"
        # Without a process that reaps it, a zombie counts as ended.
        has_ended() { ! grep -q '^State:.[RSDT]' /proc/$command/status 2>/dev/null; }
        bash -c '$FIRST && mkfifo go && read <go; "$PIPELINE_BINARY" COMMAND; :' & child=$!
        until [ -p go ]; do :; done
        exec 9>>.locks/.gate; flock 9
        echo >go
        # It has determined the owner of its command.
        until command=$(tr -d ' ' </proc/$child/task/$child/children) && [ "$command" ] &&
            grep -q -- "-> FLOCK .* $command " /proc/locks; do :; done
        kill -STOP $command; kill -9 $child; wait $child
        # All its threads: one of them waits for the table.
        while grep -q '^State:.[RSD]' /proc/$command/task/*/status; do :; done
        exec 9>&-
        "$PIPELINE_BINARY" lock acquire NAME 10 -q; echo "acquired: $?"
        kill -CONT $command
        until AWAITED; do :; done
        "$PIPELINE_BINARY" lock check NAME | sed "s/:$$\$/:parent/"
    "#;
    let first =
        if command.contains("release") { "\"$PIPELINE_BINARY\" lock acquire NAME -q" } else { ":" };
    let script = script
        .replace("$FIRST", first)
        .replace("AWAITED", awaited)
        .replace("COMMAND", command)
        .replace("NAME", name);
    // a missing event ends in a timeout
    let ran =
        Ran::of(sandbox.program("timeout").args(["60", "bash", "-c", &script]).output().unwrap());
    ran.stdout.lines().map(str::to_owned).collect()
}

#[test]
fn a_killed_scripts_release_does_not_affect_its_parent() {
    if !installed("flock") {
        return;
    }
    let said = left_behind(&Sandbox::initialized(), "lock release deploy", "deploy", "has_ended");
    assert_eq!(said, ["acquired: 0", "locked:exclusive:parent"]);
}

#[test]
fn a_killed_scripts_command_waits_for_its_parents_new_lock() {
    if !installed("flock") {
        return;
    }
    let sandbox = Sandbox::initialized();
    let waits = r#""$PIPELINE_BINARY" lock list json | grep -q '"status":"waiting"' || has_ended"#;
    let said = left_behind(&sandbox, "recover checkpoint build c", "config", waits);
    let [acquired, checked, made] = &said[..] else { panic!("{said:?}") };
    assert_eq!((acquired.as_str(), checked.as_str()), ("acquired: 0", "locked:exclusive:parent"));
    assert!(made.starts_with("Checkpoint created"), "{made}: not when its parent had ended");
}

#[test]
fn pid_1_may_own_a_lock_if_it_is_named() {
    let sandbox = Sandbox::initialized();
    sandbox.ok("lock acquire n --owner-pid 1");
    assert_eq!(sandbox.check("n"), ("locked:exclusive:1".to_owned(), 0));
    sandbox.run("lock acquire n 0").expect(1).saying("held already by an ancestor, 1 ");
    if !is_root() {
        return; // it is root's process, and this was another user
    }
    let record = fs::read(sandbox.record_of("n")).unwrap();
    let theirs = Sandbox::empty();
    for path in [theirs.path().to_owned(), theirs.file("audit.log")] {
        let _ = fs::File::options().append(true).create(true).open(&path);
        std::os::unix::fs::chown(path, Some(65534), Some(65534)).unwrap();
    }
    let as_nobody = |program: &str, args: &[&str]| {
        Ran::of(theirs.program(program).uid(65534).gid(65534).args(args).output().unwrap())
    };
    if as_nobody(BINARY, &["--version"]).code != 0 {
        eprintln!("the binary cannot be run by another user here: that part is not tested");
        return;
    }
    as_nobody(BINARY, &["state", "init"]).expect(0);
    as_nobody(BINARY, &["lock", "acquire", "n", "--owner-pid", "1"]).expect(0);
    assert_eq!(as_nobody(BINARY, &["lock", "check", "n"]).stdout, "locked:exclusive:1\n");
    as_nobody(BINARY, &["lock", "acquire", "n", "0"]).expect(1).saying("an ancestor");
    // where /proc hides it, only EPERM proves that it exists
    if is_permitted("unshare", &["-m", "true"]) && is_permitted("setpriv", &["--version"]) {
        let script = "mount -t proc -o hidepid=2 proc /proc && exec setpriv --reuid 65534 --regid \
                      65534 --clear-groups sh -c 'test ! -e /proc/1 && $PIPELINE_BINARY lock check \
                      n; sh -c \"$PIPELINE_BINARY lock acquire n 0; exit\"'";
        let ran =
            Ran::of(theirs.program("unshare").args(["-m", "sh", "-c", script]).output().unwrap());
        assert_eq!((ran.stdout.as_str(), ran.code), ("locked:exclusive:1\n", 2), "{ran:?}");
    }
    assert_eq!(fs::read(sandbox.record_of("n")).unwrap(), record);
}

#[test]
fn an_owner_in_another_pid_namespace_is_unknown() {
    let flags: &[&str] =
        if is_root() { &["-fp", "--mount-proc"] } else { &["-Urfp", "--mount-proc"] };
    if !is_permitted("unshare", &[flags, &["true"]].concat()) {
        return;
    }
    let sandbox = Sandbox::initialized();
    let script =
        "$B lock acquire n 0; echo $?; $B lock acquire n 0 --owner-pid $$; $B lock check n; \
         echo held; read -r _
                  $B lock check n; read -r _";
    let mut command = sandbox.program("unshare");
    command.args(flags).args(["bash", "-c", script]).env("B", BINARY);
    let mut inside = Script::of(command);
    assert_eq!(inside.line(), "64", "process 1 by default");
    inside.line();
    assert_eq!(inside.line(), "locked:exclusive:1", "by name it may");
    inside.until("held");
    let (shown, code) = sandbox.check("n");
    assert!(shown == "unknown:exclusive:1 in another pid namespace" && code == 0, "{shown}");
    assert!(!sandbox.is_free("n"));
    assert_eq!(sandbox.ok("lock clean"), "Cleaned 0 stale locks");
    let mut waiter = sandbox.waiter("n");
    inside.go();
    assert_eq!(
        inside.line(),
        "locked:exclusive:1",
        "the waiter outside is not taken for dead either"
    );
    let ran = inside.end();
    assert!(ran.stderr.contains("--owner-pid"), "{ran:?}");
    assert!(sandbox.check("n").0.starts_with("unknown:"), "that it ended cannot be seen");
    sandbox.run("lock break n --force").expect(0);
    assert_eq!(waiter.line(), "got 0");
}

#[test]
fn a_command_cannot_own_its_lock_itself() {
    let sandbox = Sandbox::initialized();
    // a shell execs its last command
    for script in [
        "bash -c '$PIPELINE_BINARY lock acquire n --owner-pid $$'",
        "(exec $PIPELINE_BINARY lock acquire n --owner-pid $BASHPID)",
    ] {
        let ran = sandbox.bash(&format!("{script}; exit $?")).expect(64);
        assert!(ran.stderr.contains("ends at once") && ran.stderr.contains("lock run"), "{ran:?}");
    }
    assert_eq!(sandbox.check("n"), ("unlocked".to_owned(), 1));
}

#[test]
fn tokens_go_out_in_one_write_and_a_reader_that_left_takes_no_lock_away() {
    let sandbox = Sandbox::initialized();
    let script = "set -o pipefail
        $PIPELINE_BINARY lock acquire a,b --print-token --owner-pid $$ | head -n 1
        $PIPELINE_BINARY lock acquire c --print-token --owner-pid $$ | true
        for name in a b c; do $PIPELINE_BINARY lock check $name; done; exit 0";
    let ran = sandbox.bash(script);
    assert_eq!(ran.stdout.matches("locked:exclusive:").count(), 3, "{ran:?}");
    let full = sandbox.bash(
        "$PIPELINE_BINARY lock acquire d --print-token --owner-pid $$ \
                             >/dev/full; echo $?; $PIPELINE_BINARY lock check d; :",
    );
    assert_eq!(full.stdout, "7\nunlocked\n", "its token is unknown: {full:?}");
    let log = std::fs::read_to_string(sandbox.file("audit.log")).unwrap();
    assert!(
        log.lines().any(|line| line.contains("given back") && line.contains("lock=d")),
        "{log}"
    );
}

#[test]
fn a_directory_of_locks_that_others_may_write_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let sandbox = Sandbox::initialized();
    let locks = sandbox.file(".locks");
    fs::set_permissions(&locks, fs::Permissions::from_mode(0o777)).unwrap();
    for words in ["lock acquire n --owner-pid 1", "state set a=b", "lock run n -- true"] {
        sandbox.run(words).expect(6).saying("may be written by others").saying("chmod 700");
    }
    fs::set_permissions(&locks, fs::Permissions::from_mode(0o755)).unwrap();
    sandbox.ok("state set a=b");
}

#[test]
fn metadata_is_an_object_and_is_shown_of_those_that_wait_too() {
    let sandbox = Sandbox::initialized();
    for words in ["--metadata [1]", "--metadata 5", "{1"] {
        sandbox.run(&format!("lock acquire n --owner-pid 1 {words}")).expect(4);
    }
    let _holder = sandbox.holder("n");
    let script = "echo $$; $B lock acquire n 20 '{\"for\":\"tests\"}'; read -r _; :";
    let mut waiter = sandbox.script("bash", script);
    let pid: u32 = waiter.line().parse().unwrap();
    sandbox.await_row("waiting", pid);
    let rows = sandbox.rows();
    assert_eq!(
        rows.iter().find(|row| row["owner"]["pid"] == pid).unwrap()["metadata"]["for"],
        "tests"
    );
}
