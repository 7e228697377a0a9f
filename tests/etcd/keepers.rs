//! Keepers: real scripts that take locks, and what becomes of the locks when something dies.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant, SystemTime};

use pipeline_state::etcd::address::Address;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use crate::server::{Server, shared};
use crate::stores::Place;

/// A host: its own home and runtime directory, and a store.
pub struct Host {
    pub place: Place,
    dir: tempfile::TempDir,
    ttl: &'static str,
}

/// So long that nothing ends by its lease.
pub const LONG: &str = "600";
/// The shortest.
pub const SHORT: &str = "2";

impl Host {
    pub fn new(ttl: &'static str) -> Self {
        Self { place: Place::new(), dir: tempfile::tempdir().unwrap(), ttl }
    }

    fn of(server: &Server, ttl: &'static str) -> Self {
        let url = server.url();
        let prefix = Address::parse(&url).unwrap().prefix;
        Self {
            place: Place { url, prefix, ..Place::new() },
            dir: tempfile::tempdir().unwrap(),
            ttl,
        }
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(&self.dir)
            .env("B", env!("CARGO_BIN_EXE_pipeline-state"))
            .env("PIPELINE_STORE", &self.place.url)
            .env("PIPELINE_LEASE_TTL", self.ttl)
            .env("HOME", self.dir.path())
            .env("XDG_RUNTIME_DIR", self.dir.path())
            .env("AUDIT_LOG", self.dir.path().join("audit.log"));
        command
    }

    /// Runs a script, and returns what it printed.
    pub fn sh(&self, script: &str) -> Output {
        self.command("sh").args(["-c", script]).output().unwrap()
    }

    pub fn ok(&self, script: &str) -> String {
        let output = self.sh(script);
        assert!(output.status.success(), "{script}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// A script that goes on when the test sends it a line, and has said that it is there.
    pub fn script(&self, script: &str) -> Script {
        let mut child = self
            .command("sh")
            .args(["-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Script { child, output }
    }

    /// The process that keeps the lease of the only owner.
    pub fn keeper(&self) -> Pid {
        let text = self.await_file("keeper-");
        let order: serde_json::Value =
            serde_json::from_slice(&std::fs::read(text).unwrap()).unwrap();
        loop {
            if let Some(keeper) = keepers(order["lease"].as_i64().unwrap()).pop() {
                return keeper;
            }
            std::thread::yield_now();
        }
    }

    /// Waits for a note.
    pub fn await_file(&self, prefix: &str) -> PathBuf {
        loop {
            let all = walkdir::WalkDir::new(self.dir.path().join("pipeline-state"));
            let found = all
                .into_iter()
                .flatten()
                .find(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
            match found {
                Some(entry) => return entry.into_path(),
                None => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("audit.log")).unwrap()
    }

    pub fn await_free(&self) {
        self.place.await_keys("hold/", <[_]>::is_empty);
    }
}

/// The processes that keep a lease.
fn keepers(lease: i64) -> Vec<Pid> {
    let keeper = |entry: std::fs::DirEntry| {
        let pid = entry.file_name().to_string_lossy().parse().ok()?;
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        let status = std::fs::read_to_string(entry.path().join("status"));
        let is_one = line.contains("__keep") && line.contains(&lease.to_string());
        Pid::from_raw(pid).filter(|_| is_one && catches(status))
    };
    std::fs::read_dir("/proc").unwrap().flatten().filter_map(keeper).collect()
}

/// Kills a keeper, and waits until it has ended: then another command finds its order free.
fn kill_keeper(keeper: Pid) {
    let ended = pidfd_open(keeper, PidfdFlags::empty()).unwrap();
    kill_process(keeper, Signal::KILL).unwrap();
    poll(&mut [PollFd::new(&ended, PollFlags::IN)], None).unwrap();
}

/// Returns whether a process catches SIGTERM: a keeper is at work then.
fn catches(status: std::io::Result<String>) -> bool {
    let status = status.unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.unwrap_or_default() & (1 << (Signal::TERM.as_raw() - 1)) != 0
}

pub struct Script {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
}

impl Script {
    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap()
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends it a line.
    pub fn send(&mut self) {
        std::io::Write::write_all(self.child.stdin.as_mut().unwrap(), b"\n").unwrap();
    }

    /// Lets it go on; what it printed on both streams.
    pub fn go_on(mut self) -> String {
        drop(self.child.stdin.take());
        let mut said = String::new();
        std::io::Read::read_to_string(&mut self.output, &mut said).unwrap();
        let rest = self.child.wait_with_output().unwrap();
        said + &String::from_utf8_lossy(&rest.stderr)
    }
}

#[test]
fn a_script_that_is_killed_frees_its_locks_at_once() {
    let host = Host::new(LONG);
    let mut script =
        host.script("$B -q lock acquire a,b; $B -q lock acquire c --shared; echo ready; read x");
    assert_eq!(host.place.below("hold/").len(), 3);
    assert_eq!(host.place.below("owner/").len(), 1, "they have one lease");
    script.kill();
    host.await_free();
    assert!(host.place.below("owner/").is_empty());
}

#[test]
fn a_keeper_keeps_nothing_of_its_script_open() {
    let host = Host::new(LONG);
    let mut owner = host.script("echo ready; read x");
    // Each ends only when all writers of its pipe have ended.
    let pid = owner.pid();
    let acquire =
        |lock: &str, to: &str| host.ok(&format!("$B lock acquire {lock} --owner-pid {pid} {to}"));
    // The first one starts the keeper.
    assert!(acquire("a", "3>&1 9>&1").contains("Lock acquired: a"));
    acquire("b", "");
    assert_eq!(
        host.ok(&format!(
            "x=$($B lock acquire c --print-token --owner-pid {pid}); [ $x -gt 1 ]; echo $?"
        )),
        "0\n"
    );
    let keeper = host.keeper();
    let session = rustix::process::getsid(Some(keeper)).unwrap();
    assert_eq!((session, host.place.below("hold/").len()), (keeper, 3));
    owner.kill();
    host.await_free();
}

#[test]
fn the_locks_of_a_killed_keeper_end_with_its_lease_and_that_is_said() {
    let host = Host::new(SHORT);
    let script = host.script(
        "$B -q lock acquire a; echo ready; read x; $B lock release a; echo $?; $B lock release a",
    );
    kill_process(host.keeper(), Signal::KILL).unwrap();
    host.await_free();
    let said = script.go_on();
    assert!(said.contains("1\n") && said.contains("nothing was changed"), "{said}");
    assert!(said.contains("was lost at 20") && said.contains("its keeper had ended"), "{said}");
    assert!(said.contains("a is not held"), "it is said once: {said}");
}

#[test]
fn a_lock_without_its_keeper_is_reported_and_a_commit_starts_it_again() {
    let host = Host::new(LONG);
    host.ok("$B -q state init");
    let mut script =
        host.script("$B -q lock acquire a; echo ready; read x; $B -q state set n=1; read y");
    let lease = host.place.below("hold/a/")[0].lease;
    let listed = || String::from_utf8(host.sh("$B lock list").stderr).unwrap();
    assert_eq!(listed(), "");
    kill_keeper(host.keeper());
    let said = listed();
    assert!(said.contains("the keeper of a:") && said.contains("its lease ends at 20"), "{said}");
    script.send();
    host.keeper();
    assert_eq!((listed().as_str(), keepers(lease).len()), ("", 1));
    script.kill();
    host.await_free();
}

#[test]
fn lock_run_starts_the_killed_keeper_of_its_script_again() {
    let host = Host::new(LONG);
    let mut script = host.script(
        "exec 5<&0; $B -q lock acquire a; echo ready; read x; $B lock run b -- sh -c 'read y' <&5",
    );
    let lease = host.place.below("hold/a/")[0].lease;
    kill_keeper(host.keeper());
    script.send();
    host.place.await_keys("hold/b/", |found| !found.is_empty());
    let until = Instant::now() + Duration::from_secs(60);
    while keepers(lease).is_empty() {
        assert!(Instant::now() < until, "nothing renews the lease of a");
        std::thread::yield_now();
    }
    script.kill();
    host.await_free();
}

#[test]
fn lock_run_takes_the_place_of_a_keeper_that_is_stopped() {
    keep_without(Signal::STOP);
}

#[test]
fn lock_run_takes_the_place_of_a_keeper_that_was_killed() {
    let host = keep_without(Signal::KILL);
    // And it ends a command that loses its locks.
    let script = host.script("$B lock run a -- sh -c 'echo ready; exec sleep 1000'; echo $?");
    kill_process(host.keeper(), Signal::KILL).unwrap();
    shared().client().revoke(host.place.below("hold/a/")[0].lease).unwrap();
    let said = script.go_on();
    assert!(said.contains("143\n") && said.contains("a was lost at 20"), "{said}");
}

/// Sends a signal to the keeper of a command of `lock run`, which keeps its lock all the same.
fn keep_without(signal: Signal) -> Host {
    let host = Host::new(SHORT);
    let script = host.script(
        "exec 5<&0; $B lock run a -- sh -c 'echo ready; read x; $B lock check a' <&5; echo $?",
    );
    let held = host.place.below("hold/a/").remove(0);
    let begun = SystemTime::now();
    kill_process(host.keeper(), signal).unwrap();
    // Twice as long as the lease lasts without it.
    let renewed = || std::fs::metadata(host.await_file("keeper-")).unwrap().modified().unwrap();
    while renewed() < begun + Duration::from_secs(4) {
        assert_eq!(host.place.below("hold/a/").first().map(|kv| &kv.key), Some(&held.key));
        std::thread::sleep(Duration::from_millis(50));
    }
    let said = script.go_on();
    assert!(said.starts_with("locked:exclusive:") && said.ends_with("\n0\n"), "{said}");
    host.place.await_keys("owner/", <[_]>::is_empty);
    host
}

#[test]
fn lock_run_that_was_stopped_beyond_its_lease_ends_its_command() {
    for (signal, option, ends) in [
        (Signal::KILL, "", "143\n"),
        (Signal::STOP, "", "143\n"),
        (Signal::STOP, "--on-lost keep", "3\n"),
    ] {
        let host = Host::new(SHORT);
        let command = "echo $PPID >pid; echo ready; exec 0<go; read x; exit 3";
        let script = host
            .script(&format!("mkfifo go; $B lock run a {option} -- sh -c '{command}'; echo $?"));
        let pid = std::fs::read_to_string(host.dir.path().join("pid")).unwrap();
        let wrapper = Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
        let keeper = host.keeper();
        kill_process(wrapper, Signal::STOP).unwrap();
        kill_process(keeper, signal).unwrap();
        host.await_free();
        kill_process(wrapper, Signal::CONT).unwrap();
        host.await_file("lost-");
        if !option.is_empty() {
            std::fs::write(host.dir.path().join("go"), "\n").unwrap();
        }
        let said = script.go_on();
        assert!(said.contains(ends) && said.contains("a was lost at 20"), "{option} {said}");
    }
}

#[test]
fn a_lease_in_the_foreground_has_no_keeper_in_the_background() {
    let host = Host::new(LONG);
    let script = host.script(
        "exec 5<&0; $B lock run a --foreground -- sh -c '$B -q lock renew a; echo ready; \
         read x' <&5",
    );
    assert_eq!(keepers(host.place.below("hold/a/")[0].lease), []);
    script.go_on();
}

#[test]
fn a_lease_that_etcd_does_not_keep_is_refused() {
    let host = Host::new("1");
    let refused = host.sh("$B --json lock acquire a --owner-pid $$; echo $?; $B lock list");
    let said = String::from_utf8(refused.stdout).unwrap();
    assert_eq!(said, "64\nno locks\n");
    let host = Host::new(SHORT);
    let said = host.sh("$B lock acquire a --ttl 1 --owner-pid $$; :").stderr;
    assert!(String::from_utf8(said).unwrap().contains("1 s is too short: 2 s is the least"));
}

#[test]
fn the_next_command_of_the_owner_starts_a_killed_keeper_again() {
    // Its lease outlasts the start of a command on a busy machine, and not the pause.
    let host = Host::new("8");
    let script = host.script(
        "$B -q lock acquire a,b; echo ready; read x; $B -q lock release b; sleep 10
         $B lock release a",
    );
    let lease = host.place.below("hold/a/")[0].lease;
    kill_keeper(host.keeper());
    let said = script.go_on();
    assert!(said.contains("Lock released: a\n"), "{said}");
    // The script has ended, and the new keeper ends the same lease.
    host.place.await_keys("owner/", <[_]>::is_empty);
    assert_eq!(shared().client().time_to_live(lease).unwrap(), None);
}

#[test]
fn a_keeper_that_is_asked_to_end_leaves_the_lease_of_a_living_owner() {
    let host = Host::new(SHORT);
    let mut script = host.script("$B -q lock acquire a; echo ready; read x");
    kill_process(host.keeper(), Signal::TERM).unwrap();
    host.await_free();
    assert!(host.log().contains("a keeper was ended; its lease ends unless"), "{}", host.log());
    script.kill();
}

#[test]
fn a_lease_that_ended_on_the_cluster_is_noticed_and_said_with_its_time() {
    let host = Host::new(SHORT);
    let script = host.script("$B -q lock acquire a; echo ready; read x; $B --json lock release a");
    shared().client().revoke(host.place.below("hold/a/")[0].lease).unwrap();
    host.await_file("lost-");
    let said = script.go_on();
    assert!(said.contains("was lost at 20") && said.contains("its lease had ended"), "{said}");
    assert!(said.contains(r#""lost":"20"#) && said.contains(r#""kind":"not_owner""#), "{said}");
    assert!(host.log().contains("locks were lost"), "{}", host.log());
}

#[test]
fn a_host_that_is_cut_off_counts_its_lease_as_lost() {
    let server = Server::start("http", &[]);
    server.client().status().unwrap();
    let host = Host::of(&server, SHORT);
    let script = host.script("$B -q lock acquire a; echo ready; read x; $B lock release a");
    host.keeper();
    server.signal(Signal::STOP);
    host.await_file("lost-");
    server.signal(Signal::CONT);
    // The cluster counts on from where it stopped.
    let said = loop {
        let held = server
            .client()
            .range(&pipeline_state::etcd::txn::Keys::below(&host.place.key("hold/")).read());
        if held.unwrap().kvs.is_empty() {
            break script.go_on();
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    assert!(said.contains("was lost at 20") && said.contains("this host was cut off"), "{said}");
}

#[test]
fn a_grant_is_renewed_with_another_time_to_live_and_keeps_its_token() {
    let host = Host::new(SHORT);
    let mut script = host.script(
        "t=$($B lock acquire a --print-token); $B -q lock renew a --ttl 300; echo ready; read x
         $B lock release a --token $t",
    );
    let lease = host.place.below("hold/a/")[0].lease;
    let (left, _) = shared().client().time_to_live(lease).unwrap().unwrap();
    assert!(left > Duration::from_secs(200), "{left:?}");
    script.send();
    assert_eq!(script.go_on(), "Lock released: a\n");
    let other = host.script("echo ready; read x");
    host.ok(&format!("$B -q lock acquire b --owner-pid {}", other.pid()));
    assert_eq!(host.sh("$B lock renew b").status.code(), Some(1), "it is not this script's");
    other.go_on();
}

#[test]
fn a_command_of_lock_run_holds_its_locks_while_it_lives() {
    let host = Host::new(LONG);
    assert_eq!(
        host.ok("$B lock run a,b -- sh -c '$B lock check a; echo $PIPELINE_LOCK_TOKEN'")
            .lines()
            .count(),
        2
    );
    assert!(host.place.below("hold/").is_empty());
    assert_eq!(host.sh("$B lock run a -- sh -c 'exit 7'").status.code(), Some(7));
    // The wrapper is killed, and the command lives on.
    let script = "$B lock run a -- sh -c 'echo $PPID $$ >pids; echo ready; read x' & wait";
    let script = host.script(&format!("exec 5<&0; {}", script.replace("& wait", "<&5 & wait")));
    let pids = std::fs::read_to_string(host.dir.path().join("pids")).unwrap();
    let pids: Vec<Pid> =
        pids.split_whitespace().map(|pid| Pid::from_raw(pid.parse().unwrap()).unwrap()).collect();
    kill_process(pids[0], Signal::KILL).unwrap();
    assert_eq!(
        host.ok("$B lock list json | jq '.[0].owner.pid'"),
        format!("{}\n", pids[1].as_raw_nonzero())
    );
    kill_process(pids[1], Signal::KILL).unwrap();
    host.await_free();
    script.go_on();
}

#[test]
fn a_command_that_has_lost_its_locks_is_ended_unless_it_may_go_on() {
    for option in ["", "--foreground"] {
        let host = Host::new(SHORT);
        let script = host.script(&format!(
            "$B lock run a {option} -- sh -c 'echo ready; exec sleep 1000'; echo $?"
        ));
        shared().client().revoke(host.place.below("hold/a/")[0].lease).unwrap();
        let said = script.go_on();
        assert!(said.contains("143\n") && said.contains("a was lost at 20"), "{option} {said}");
    }
    let host = Host::new(SHORT);
    let script =
        host.script("$B lock run a --on-lost keep -- sh -c 'echo ready; read x; exit 3'; echo $?");
    shared().client().revoke(host.place.below("hold/a/")[0].lease).unwrap();
    host.await_file("lost-");
    let said = script.go_on();
    assert!(said.contains("3\n") && said.contains("a was lost at 20"), "{said}");
}
