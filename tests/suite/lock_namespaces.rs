//! Waiters without a visible pid: in other pid namespaces, frozen, of another user. And records
//! with false claims.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::owners::Owner;
use crate::permitted::is_permitted;
use crate::sandbox::{BINARY, Ran, Sandbox, until};
use crate::script::{Script, is_root};

/// The command that enters a new pid namespace; `None` if not permitted.
fn namespace() -> Option<Vec<&'static str>> {
    let flags: &[&str] =
        if is_root() { &["-fp", "--mount-proc"] } else { &["-Urfp", "--mount-proc"] };
    is_permitted("unshare", &[flags, &["true"]].concat()).then(|| flags.to_vec())
}

/// A script in a pid namespace of its own; `$B` is the program.
fn inside(sandbox: &Sandbox, text: &str) -> Option<Script> {
    let flags = namespace()?;
    let mut command = sandbox.program("unshare");
    command.args(flags).args(["bash", "-c", text]).env("B", BINARY);
    Some(Script::of(command))
}

/// A script that waits for a lock longer than any test takes, prints `got CODE`, reads a line and
/// releases it. (Its end alone would prove nothing in another pid namespace.)
fn patient(sandbox: &Sandbox, name: &str) -> Script {
    let text = format!(
        "echo $$; $B lock acquire {name} 600 -q; echo got $?; read -r _; \
         $B lock release {name} -q 2>&1; :"
    );
    let mut script = sandbox.script("bash", &text);
    let pid: u32 = script.line().parse().unwrap();
    sandbox.await_row("waiting", pid);
    script
}

/// The waiters on record, in their order.
fn waiters(sandbox: &Sandbox) -> Vec<Value> {
    sandbox.rows().into_iter().filter(|row| row["token"].is_null()).collect()
}

#[track_caller]
fn await_waiters(sandbox: &Sandbox, statuses: &[&str]) {
    until(&format!("the waiters are {statuses:?}"), || {
        waiters(sandbox)
            .iter()
            .map(|row| row["status"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
            == statuses
    });
}

const WAITS: &str = "$B --lock-timeout 600 lock run n -- true & echo begun; wait; :";

#[test]
fn a_waiter_that_died_with_its_container_blocks_nothing() {
    let sandbox = Sandbox::initialized();
    let owner = Owner::new();
    sandbox.ok(&format!("lock acquire state 0 --owner-pid {}", owner.pid()));
    let commits = "$B --lock-timeout 600 state set a=1; echo ended; :";
    let Some(container) = inside(&sandbox, commits) else { return };
    await_waiters(&sandbox, &["waiting"]);
    assert_eq!(sandbox.ok("lock clean"), "Cleaned 0 stale locks", "it lives");
    sandbox.run("recover doctor").expect(0);
    container.kill_children();
    await_waiters(&sandbox, &["stale"]);
    sandbox.ok(&format!("lock release state --owner-pid {}", owner.pid()));
    sandbox.run("state set b=1 --lock-timeout 0").expect(0);
    assert_eq!(waiters(&sandbox), [] as [Value; 0]);
    assert!(sandbox.names(".locks").iter().all(|name| !name.starts_with(".wait-")));
}

#[test]
fn a_dead_container_is_cleaned_up_and_a_living_one_is_not() {
    let sandbox = Sandbox::initialized();
    let holder = sandbox.holder("n");
    let Some(container) = inside(&sandbox, WAITS) else { return };
    await_waiters(&sandbox, &["waiting"]);
    assert_eq!(waiters(&sandbox)[0]["place"], "another pid namespace");
    container.kill_children();
    await_waiters(&sandbox, &["stale"]);
    assert_eq!(sandbox.ok("lock clean"), "Cleaned 1 stale lock");
    assert!(sandbox.names(".locks").iter().all(|name| !name.starts_with(".wait-")));
    drop(holder);
}

#[test]
fn a_stopped_waiter_in_another_namespace_is_passed_over() {
    let sandbox = Sandbox::initialized();
    let text = "$B --lock-timeout 600 lock run n -- sh -c 'echo served' & until $B lock list json \
                | grep -q '\"waiting\"'; do :; done; flock .locks/.gate bash -c \"kill -STOP $!\"; \
                echo stopped; read -r _; kill -CONT $!; wait";
    let holder = sandbox.holder("n");
    let Some(mut container) = inside(&sandbox, text) else { return };
    container.until("stopped");
    is_passed_over(&sandbox, holder, &mut container);
}

/// The first waiter does not run. The one after it gets the lock; then the first runs again, and it
/// is next.
fn is_passed_over(sandbox: &Sandbox, holder: Script, first: &mut Script) {
    let mut second = patient(sandbox, "n");
    holder.end();
    assert_eq!(second.line(), "got 0", "the first does not run");
    await_waiters(sandbox, &["passed_over"]);
    let audit = fs::read_to_string(sandbox.file("audit.log")).unwrap();
    assert!(audit.contains("was passed over lock=n waiter="), "{audit}");
    let mut third = patient(sandbox, "n");
    first.go();
    until("the first has cleared its mark", || waiters(sandbox)[0]["status"] == "waiting");
    assert_eq!(waiters(sandbox).len(), 2, "it kept its place");
    second.end();
    first.until("served");
    assert_eq!(third.line(), "got 0");
}

/// A cgroup of the unified hierarchy; removed when dropped.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new() -> Option<Self> {
        let mounts = fs::read_to_string("/proc/mounts").unwrap();
        let mut fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let mounted = fields
            .find(|fields| fields.get(2) == Some(&"cgroup2"))
            .map(|fields| fields[1].to_owned());
        let place =
            Path::new(&mounted?).join(format!("pipeline-state-test-{}", std::process::id()));
        fs::create_dir(&place).ok()?;
        let cgroup = Self(place);
        cgroup.0.join("cgroup.freeze").exists().then_some(cgroup)
    }

    /// Freezes its processes while none of them holds the root's gate: a frozen holder of that
    /// short flock would keep every other process from the queue.
    fn freeze_outside_the_gate(&self, sandbox: &Sandbox) {
        let gate = fs::File::open(sandbox.file(".locks/.gate")).unwrap();
        gate.lock().unwrap();
        self.freeze(true);
    }

    fn freeze(&self, yes: bool) {
        fs::write(self.0.join("cgroup.freeze"), if yes { "1" } else { "0" }).unwrap();
        let events = || fs::read_to_string(self.0.join("cgroup.events")).unwrap();
        until("frozen or not", || events().contains(if yes { "frozen 1" } else { "frozen 0" }));
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::write(self.0.join("cgroup.kill"), "1");
        let _ = fs::write(self.0.join("cgroup.freeze"), "0");
        until("the cgroup is empty", || fs::remove_dir(&self.0).is_ok());
    }
}

#[test]
fn a_waiter_in_a_frozen_cgroup_is_passed_over() {
    let Some(cgroup) = is_root().then(Cgroup::new).flatten() else {
        eprintln!("no cgroup can be frozen here: only SIGSTOP in another namespace is tested");
        return;
    };
    let sandbox = Sandbox::initialized();
    let holder = sandbox.holder("n");
    let text = format!(
        "read -r _; echo $BASHPID >{0}/cgroup.procs; exec $B --lock-timeout 600 lock run n -- sh \
         -c 'echo served'",
        cgroup.0.display()
    );
    let mut frozen = sandbox.script("bash", &text);
    frozen.go();
    await_waiters(&sandbox, &["waiting"]);
    cgroup.freeze_outside_the_gate(&sandbox);
    let mut second = patient(&sandbox, "n");
    holder.end();
    assert_eq!(second.line(), "got 0");
    await_waiters(&sandbox, &["passed_over"]);
    let mut third = patient(&sandbox, "n");
    cgroup.freeze(false);
    until("the first has cleared its mark", || waiters(&sandbox)[0]["status"] == "waiting");
    second.end();
    frozen.until("served");
    assert_eq!(third.line(), "got 0");
    assert_eq!(frozen.end().code, 0);
}

#[test]
fn an_operator_ends_one_wait_and_no_other() {
    let sandbox = Sandbox::initialized();
    let holder = sandbox.holder("n");
    let (mut first, mut second) = (patient(&sandbox, "n"), patient(&sandbox, "n"));
    let id = waiters(&sandbox)[0]["waiter"].as_str().unwrap().to_owned();
    assert!(sandbox.ok("lock list").contains(&id));
    assert_eq!(
        sandbox.ok(&format!("lock break --waiter {id}")),
        format!("Wait broken: n (waiter {id}, owner {})", first.pid())
    );
    assert_eq!(first.line(), "got 2");
    assert_eq!(waiters(&sandbox).len(), 1);
    sandbox.run(&format!("lock break --waiter {id}")).expect(1).saying("no waiter has the ID");
    sandbox.run("lock break --waiter ../../../x").expect(64);
    let audit = fs::read_to_string(sandbox.file("audit.log")).unwrap();
    assert!(audit.contains(&format!("a wait was ended lock=n waiter={id}")), "{audit}");
    drop(holder);
    assert_eq!(second.line(), "got 0");
}

#[test]
fn waits_for_several_locks_and_of_commits_can_be_ended() {
    let sandbox = Sandbox::initialized();
    let (one, other) = (sandbox.holder("one"), Owner::new());
    let text = "$B --json --lock-timeout 600 lock run one,two -- true 2>&1; echo ended";
    let Some(mut container) = inside(&sandbox, text) else { return };
    await_waiters(&sandbox, &["waiting", "waiting"]);
    let id = waiters(&sandbox)[0]["waiter"].as_str().unwrap().to_owned();
    let shown = sandbox.run(&format!("--json lock break --waiter {id}")).expect(0).json();
    assert_eq!(shown["locks"], json!(["one", "two"]));
    let lines: Vec<String> =
        std::iter::repeat_with(|| container.line()).take_while(|line| line != "ended").collect();
    assert!(
        lines
            .iter()
            .any(|line| line.contains("\"kind\":\"broken\"") && line.contains("\"code\":2")),
        "{lines:?}"
    );
    drop(one);
    sandbox.ok(&format!("lock acquire state 0 --owner-pid {}", other.pid()));
    let commit = sandbox.spawn("state set a=1 --lock-timeout 600 --json");
    await_waiters(&sandbox, &["waiting"]);
    let id = waiters(&sandbox)[0]["waiter"].as_str().unwrap().to_owned();
    sandbox.ok(&format!("lock break --waiter {id}"));
    let ran = Ran::of(commit.wait_with_output().unwrap());
    assert_eq!(ran.code, 2);
    ran.expect_json_error("broken");
}

#[test]
fn doctor_in_a_container_does_not_accuse_the_living() {
    let sandbox = Sandbox::initialized();
    let mut running = sandbox.script("bash", "$B lock run foo -- bash -c 'echo up; read -r _'; :");
    running.until("up");
    let mut waiter = patient(&sandbox, "foo");
    sandbox.run("recover doctor").expect(0);
    let Some(container) =
        inside(&sandbox, "$B recover doctor 2>&1; $B recover doctor --fix 2>&1; exit $?")
    else {
        return;
    };
    let ran = container.end();
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(!ran.stdout.contains("killed"), "{ran:?}");
    running.go();
    assert_eq!(waiter.line(), "got 0");
}

#[test]
fn another_users_waiter_that_died_in_a_container_blocks_nothing() {
    if !is_root() || namespace().is_none() || !is_permitted("setpriv", &["--version"]) {
        return;
    }
    let sandbox = Sandbox::empty();
    for path in [sandbox.path().to_owned(), sandbox.file("audit.log")] {
        let _ = fs::File::options().append(true).create(true).open(&path);
        std::os::unix::fs::chown(path, Some(65534), Some(65534)).unwrap();
    }
    let run = |words: &str| {
        let mut command = sandbox.command();
        Ran::of(command.uid(65534).gid(65534).args(words.split(' ')).output().unwrap())
    };
    if run("--version").code != 0 {
        eprintln!("the binary cannot be run by another user here: its waiters are not tested");
        return;
    }
    run("state init").expect(0);
    let owner = Owner::new();
    run(&format!("lock acquire n 0 --owner-pid {}", owner.pid())).expect(0);
    let user = "setpriv --reuid 65534 --regid 65534 --clear-groups $B --lock-timeout 600 lock run \
                n -- true; :";
    let container = inside(&sandbox, user).unwrap();
    await_waiters(&sandbox, &["waiting"]);
    container.kill_children();
    await_waiters(&sandbox, &["stale"]);
    run(&format!("lock release n --owner-pid {}", owner.pid())).expect(0);
    run("lock run n -t 0 -- true").expect(0);
}

#[test]
fn a_process_that_proc_hides_is_not_said_to_have_ended() {
    if !is_root()
        || !is_permitted("unshare", &["-m", "true"])
        || !is_permitted("setpriv", &["--version"])
    {
        return;
    }
    let sandbox = Sandbox::empty();
    fs::set_permissions(sandbox.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let script = "mount -t proc -o hidepid=2 proc /proc && exec setpriv --reuid 65534 --regid \
                  65534 --clear-groups sh -c '$B --version >/dev/null || exit 99; \
                  $B state init -q; $B lock acquire n 0 --owner-pid 1'";
    let mut command = sandbox.program("unshare");
    command.args(["-m", "sh", "-c", script]).env("B", BINARY).env("AUDIT_LOG", "/dev/null");
    let ran = Ran::of(command.output().unwrap());
    if ran.code == 99 {
        eprintln!("the binary cannot be run by another user here: a hidden owner is not tested");
        return;
    }
    assert_eq!(ran.code, 64, "{ran:?}");
    assert!(
        ran.stderr.contains("process 1 cannot be seen") && ran.stderr.contains("lock run n --"),
        "{ran:?}"
    );
    assert!(
        !ran.stderr.contains("not running") && !ran.stderr.contains("--owner-pid $$"),
        "{ran:?}"
    );
}

/// A root with a record that names this file as the lifeline of its owner.
#[test]
fn a_record_that_names_a_hostile_file_opens_nothing_outside() {
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().join("target");
    let absolute = target.to_str().unwrap().to_owned();
    for hostile in [
        "../target",
        ".live-../../target",
        absolute.as_str(),
        ".live-link",
        ".live-pipe",
        ".live-dir",
        "state.lock",
    ] {
        let sandbox = Sandbox::initialized();
        let elsewhere = |identity: &mut Value| identity["place"]["pid_namespace"] = json!(1);
        let (_holder, _waiter) = (sandbox.holder("n"), patient(&sandbox, "n"));
        fs::write(&target, "precious").unwrap();
        fs::write(sandbox.file("target"), "precious").unwrap();
        std::os::unix::fs::symlink(&target, sandbox.file(".locks/.live-link")).unwrap();
        fs::create_dir(sandbox.file(".locks/.live-dir")).unwrap();
        let pipe = sandbox.file(".locks/.live-pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        sandbox.put_waiters_into_record("n");
        sandbox.forge("n", |record| {
            record["holders"][0]["live_file"] = json!(hostile);
            record["waiters"][0]["lifeline"] = json!(hostile);
            elsewhere(&mut record["holders"][0]["owner"]);
            elsewhere(&mut record["waiters"][0]["process"]);
            elsewhere(&mut record["waiters"][0]["owner"]);
        });
        for words in [
            "lock check n",
            "lock list",
            "lock status",
            "recover doctor",
            "lock clean",
            "recover doctor --fix",
        ] {
            sandbox.run(words);
        }
        sandbox.run("lock acquire n 0 --owner-pid 1");
        sandbox.run("lock break n --force");
        sandbox.run("lock clean");
        assert_eq!(fs::read_to_string(&target).unwrap(), "precious", "{hostile}");
        assert_eq!(fs::read_to_string(sandbox.file("target")).unwrap(), "precious", "{hostile}");
        assert!(sandbox.file(".locks/state.lock").exists(), "{hostile}");
    }
}

#[test]
fn the_doctor_names_a_waiter_of_another_machine_and_how_to_end_it() {
    let sandbox = Sandbox::initialized();
    let owner = Owner::new();
    sandbox.ok(&format!("lock acquire n --owner-pid {}", owner.pid()));
    let other = Owner::new();
    let pid = other.pid();
    let mut waiter = sandbox.spawn(&format!("lock acquire n 600 --owner-pid {pid}"));
    await_waiters(&sandbox, &["waiting"]);
    sandbox.run("recover doctor").expect(0);
    waiter.kill().unwrap();
    waiter.wait().unwrap();
    sandbox.put_waiters_into_record("n");
    sandbox.forge("n", |record| {
        for process in ["owner", "process"] {
            let place = &mut record["waiters"][0][process]["place"];
            place["boot"] = json!("another");
            place["machine"] = json!("another");
            place["host"] = json!("far.example");
        }
    });
    let id = waiters(&sandbox)[0]["waiter"].as_str().unwrap().to_owned();
    // Its lifeline would prove its death; another kind of file proves nothing.
    let lifeline = sandbox.file(format!(".locks/.wait-{id}"));
    fs::remove_file(&lifeline).unwrap();
    fs::create_dir(&lifeline).unwrap();
    let ran = sandbox.run("recover doctor").expect(1);
    let line = ran.stderr.clone() + &ran.stdout;
    let named = format!("the liveness of the waiter for the lock n of {pid} (");
    assert!(
        line.contains(&named) && line.contains("in another machine, far.example is unknown here"),
        "{line}"
    );
    assert!(line.contains(&format!("lock break --waiter {id}")), "{line}");
    sandbox.ok(&format!("lock break --waiter {id}"));
    sandbox.run("recover doctor").expect(0);
}
