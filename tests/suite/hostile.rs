//! Contract, §1: a root is data, not authority. Hostile clones, every command in each, and a
//! witness outside: contents, modes, times and names of everything beyond the clone.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use pipeline_state::document::seal::{Digest, Lineage, Revision, with_digest};
use pipeline_state::journal::event::{
    Blocker, CheckpointEvent, CheckpointStep, Commit, Event, Failure, GuardEvent, GuardStep,
    LockEvent, LockStep, Origin, Owner, Party, RestoreEvent, RestoreStep, RetryEvent, RetryStep,
    Role,
};
use serde_json::{Value, json};

use crate::sandbox::{BINARY, Ran, Sandbox, installed};
use crate::strace::in_parallel;

/// Every command that reads or writes a root, and every hook; each starts in the result of the
/// previous one.
const COMMANDS: [&str; 62] = [
    "state get .n",
    "state read",
    "state status",
    "state validate",
    "state backups",
    "state history",
    "state diff",
    "lock list",
    "lock status",
    "lock check deploy",
    "recover list",
    "recover status",
    "recover verify",
    "recover show --latest",
    "recover metrics",
    "recover metrics prometheus",
    "recover degraded",
    "recover doctor",
    "hook check",
    "hook settings",
    "hook skill-activation-prompt",
    "hook post-tool-use-tracker",
    "state set n:=8",
    "state update .n+=1",
    "state phase build",
    "state complete unit",
    "state signal GO",
    "state signal GO --clear",
    "state backup mine",
    "state migrate",
    "state adopt",
    "state edit",
    "state recover",
    "state recover evil",
    "state recover --to-revision 2",
    "lock acquire deploy 0 --owner-pid OWNER",
    "lock release deploy --owner-pid OWNER",
    "lock acquire a,b 0 --owner-pid OWNER",
    "lock renew deploy --ttl 1h --token 1",
    "lock break deploy --force",
    "lock clean",
    "lock run x -- true",
    "recover checkpoint mine",
    "recover restore --latest evil",
    "recover restore --latest",
    "recover restore checkpoint-20200101-000000-evil",
    "recover guard step -- false",
    "recover degrade slow",
    "recover recover-mode",
    "recover handle 2",
    "recover handle 3",
    "recover handle 4",
    "recover handle 7",
    "recover cleanup 0",
    "recover doctor --fix",
    "recover restore --abort",
    "state init",
    "hook init-rules",
    "hook skill-activation-prompt",
    "hook post-tool-use-tracker",
    "state init --fresh",
    "recover doctor",
];

/// The world: everything outside, and a clone in it.
struct World(Sandbox);

impl World {
    fn new() -> Self {
        let world = Self(Sandbox::empty());
        let victim = world.outside("victim");
        for name in [
            "config",
            ".signals",
            ".pipeline-state-restore-1-config",
            ".pipeline-state-restore-1-signals",
        ] {
            fs::create_dir_all(victim.join(name)).unwrap();
            fs::write(victim.join(name).join("mine"), "mine").unwrap();
        }
        fs::write(victim.join("secret"), "a secret\n").unwrap();
        fs::write(victim.join("pointed"), "pointed at").unwrap();
        fs::write(victim.join("payload"), format!("#!/bin/sh\n: >{}/owned\n", victim.display()))
            .unwrap();
        for (name, mode) in [("secret", 0o640), ("pointed", 0o644), ("payload", 0o755)] {
            fs::set_permissions(victim.join(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        let other = Sandbox::with_history();
        copy(other.path(), &world.outside("other"));
        let start = Sandbox::with_history();
        fs::create_dir(start.file("config")).unwrap();
        fs::create_dir(start.file("docs")).unwrap();
        fs::write(start.file("config/rules.json"), "{}").unwrap();
        start.ok("hook init-rules");
        start.ok("recover checkpoint good");
        start.run("lock acquire deploy --owner-pid 1").expect(0);
        start.ok("state signal DONE");
        copy(start.path(), &world.clone_dir());
        world
    }

    fn outside(&self, name: &str) -> PathBuf {
        self.0.file(name)
    }

    fn victim(&self, name: &str) -> PathBuf {
        self.outside("victim").join(name)
    }

    fn clone_dir(&self) -> PathBuf {
        self.0.file("clone")
    }

    /// A path in the clone, free to be made.
    fn place(&self, name: &str) -> PathBuf {
        let path = self.clone_dir().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let _ = fs::remove_dir_all(&path);
        let _ = fs::remove_file(&path);
        path
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.place(name), bytes).unwrap();
    }

    fn sealed(&self, name: &str, value: Value) {
        self.write(name, with_digest(value).unwrap());
    }

    fn command(&self, words: &str, program: &str, options: &[&str]) -> Command {
        let mut command = self.0.program(program);
        command.args(options).current_dir(self.clone_dir());
        let owner = std::process::id().to_string();
        command.args(words.split(' ').map(|word| word.replace("OWNER", &owner)));
        command
            .env("AUDIT_LOG", self.outside("audit.log"))
            .env("EDITOR", "false")
            .env_remove("VISUAL");
        command.env("LOCK_TIMEOUT", "0");
        command
    }

    /// A command, with an event on its standard input if it is a hook.
    fn run(&self, words: &str, program: &str, options: &[&str]) -> Ran {
        let event = json!({
            "hook_event_name": "PostToolUse", "prompt": "write a specification",
            "tool_name": "Write",
            "tool_input": {"file_path": "docs/spec.md"}, "cwd": self.clone_dir(),
        });
        let mut command = self.command(words, program, options);
        let input = self.outside("input");
        fs::write(&input, event.to_string()).unwrap();
        command.stdin(Stdio::from(fs::File::open(&input).unwrap()));
        let ran = Ran::of(command.output().unwrap());
        fs::remove_file(input).unwrap();
        ran
    }

    /// Name, kind, mode, content and times of everything outside. Two files may have a second name
    /// in the clone; the kernel sets their ctime when that name is removed, so it does not count.
    fn witness(&self) -> BTreeMap<PathBuf, String> {
        let mut seen = BTreeMap::new();
        let mut open = vec![self.outside("victim"), self.outside("other")];
        while let Some(path) = open.pop() {
            let found = path.symlink_metadata().unwrap();
            let content = if found.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
            if found.is_dir() {
                open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            }
            let is_linked = path.ends_with("pointed") || path.ends_with("secret");
            let changed = (!is_linked).then(|| (found.ctime(), found.ctime_nsec()));
            let facts = (
                found.mode(),
                found.uid(),
                found.mtime(),
                found.mtime_nsec(),
                Digest::of(&content),
            );
            seen.insert(path, format!("{facts:?} {changed:?}"));
        }
        seen
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    let from = format!("{}/.", from.display());
    assert!(Command::new("cp").args(["-a", &from]).arg(to).status().unwrap().success());
}

type Poison = (&'static str, fn(&World));

fn link(world: &World, name: &str, target: &str) {
    let target =
        if target.starts_with("other") { world.outside(target) } else { world.victim(target) };
    symlink(target, world.place(name)).unwrap();
}

fn hard_link(world: &World, name: &str, target: &str) {
    fs::hard_link(world.victim(target), world.place(name)).unwrap();
}

fn intent(world: &World) {
    let swap = json!({"new": Digest::of(b"new").as_str(), "old": Digest::of(b"old").as_str()});
    world.sealed(
        ".checkpoints/.in-progress/intent.json",
        json!({
            "version": 1, "action": "restore", "number": 1,
            "checkpoint": "checkpoint-20200101-000000-evil",
            "preRestore": "../../victim", "configRoot": world.outside("victim"),
            "config": swap, "signals": swap, "state": null,
        }),
    );
}

fn manifest(world: &World) {
    let at = |name: &str| format!(".checkpoints/checkpoint-20200101-000000-evil/{name}");
    let state = fs::read(world.clone_dir().join(".workflow-state.json")).unwrap();
    world.write(&at("state.json"), &state);
    world.write(&at("config/tool"), "#!/bin/sh\n");
    let metadata = json!({
        "id": "checkpoint-20200101-000000-evil", "operation": "evil", "phase": null, "pid": 1,
        "timestamp": "2020-01-01T00:00:00Z", "hostname": "\u{1b}[2Jelsewhere", "revision": 1,
        "metadata": {},
    });
    world.write(&at("metadata.json"), metadata.to_string());
    let file = |path: &str, bytes: &[u8], mode: &str| {
        json!({"path": path, "type": "file", "bytes": bytes.len(),
            "sha256": Digest::of(bytes).as_str(),
               "mode": mode, "mtime": "0.000000000"})
    };
    let files = json!([
        file("state.json", &state, "0600"),
        file("metadata.json", metadata.to_string().as_bytes(), "0600"),
        {"path": "config", "type": "directory", "mode": "0755", "mtime": "0.000000000"},
        file("config/tool", b"#!/bin/sh\n", "6755"),
        file("../../../victim/secret", b"", "0777"),
    ]);
    world.sealed(&at("manifest.json"), json!({"version": 1, "files": files}));
}

fn records(world: &World) {
    let identity = json!({"pid": 999_999, "start": 1, "place": {
        "boot": "x", "pid_namespace": 1, "time_namespace": 1, "machine": "other",
        "host": "\u{202e}elsewhere"}});
    for (name, file) in
        [("deploy", "../../victim/secret"), ("a", "/etc/hostname"), ("x", "../../victim/pointed")]
    {
        let grant = json!({
            "token": 1, "mode": "exclusive", "owner": identity, "command": "\u{1b}]0;owned\u{7}",
            "since": "2020-01-01T00:00:00Z", "count": 1, "live_file": file, "quarantined": file,
            "expires": 1.0,
        });
        world.sealed(
            &format!(".locks/{name}.json"),
            json!({"version": 1, "holders": [grant], "waiters": []}),
        );
    }
    world.sealed(
        ".locks/.pending",
        json!({"records": {"../../victim/secret": null,
            "../../victim/new": {"version": 1, "holders": [], "waiters": []}}}),
    );
}

/// Guards on record that name this root, one that runs and one that could not put back, and a
/// journal that ends with lines of the state's own lineage.
fn guards(world: &World) {
    let root = world.clone_dir().metadata().unwrap();
    let state: Value =
        serde_json::from_slice(&fs::read(world.clone_dir().join(".workflow-state.json")).unwrap())
            .unwrap();
    let seal = &state["metadata"];
    let place = json!({"boot": "x", "pid_namespace": 1, "host": "\u{1b}[2Jelsewhere"});
    for (name, why) in
        [("evil", Value::Null), ("$(touch owned)", json!("../../victim\n\u{202e}why"))]
    {
        let id = format!("checkpoint-20200101-000000-{name}");
        world.sealed(
            &format!(".state-backups/guard-{id}.json"),
            json!({
                "version": 1, "id": id, "operation": "\u{1b}]0;owned\u{7}$(touch owned)",
                "started": "2020-01-01T00:00:00.000Z",
                "process": {"pid": 1, "start": 1, "place": place},
                "token_sha256": Digest::of(b"").as_str(),
                "root": {"dev": root.dev(), "ino": root.ino()},
                "base": {"revision": 1, "lineage": seal["lineage"], "digest": seal["digest"]},
                "beside": "../../victim", "unrestored": why,
            }),
        );
    }
    let evil = "\u{1b}[2J$(touch owned)\u{202e}../../victim/secret";
    // an invalid time makes the line no event; with a valid one the rest is read
    let origin = |time: &str| Origin {
        time: time.to_owned(),
        pid: u32::MAX,
        owner: Owner {
            pid: u32::MAX,
            uid: u32::MAX,
            host: evil.to_owned(),
            program: evil.to_owned(),
            start: Some(u64::MAX),
        },
    };
    let party = Party { pid: Some(1), program: evil.into(), host: evil.into(), token: Some(1) };
    let commit = |time: &str| Commit {
        origin: origin(time),
        lineage: Lineage::from_value(&seal["lineage"]).unwrap(),
        revision: Revision::from_value(&json!(999)).unwrap(),
        digest: Digest::of(b"x"),
        command: evil.to_owned(),
        reason: Some(evil.to_owned()),
        waited: 1e300,
        blockers: vec![Blocker { role: Role::Holder, party: party.clone() }],
        bytes: u64::MAX,
        repeats: Some(Revision::from_value(&json!(1)).unwrap()),
        changes: None,
        guards: vec![evil.to_owned()],
    };
    let guard = |time: &str| GuardEvent {
        origin: origin(time),
        id: evil.to_owned(),
        step: GuardStep::Unrestored,
        code: Some(1),
        attempts: Some(u32::MAX),
        guards: vec![evil.to_owned()],
    };
    let lock = |time: &str| LockEvent {
        origin: origin(time),
        lock: evil.to_owned(),
        step: LockStep::TimedOut,
        mode: None,
        token: Some(u64::MAX),
        waited: 1e300,
        blockers: vec![Blocker { role: Role::Waiter, party: party.clone() }],
        subject: Some(party.clone()),
    };
    let checkpoint = |time: &str| CheckpointEvent {
        origin: origin(time),
        lineage: Some(evil.to_owned()),
        id: evil.to_owned(),
        step: CheckpointStep::Removed,
    };
    let restore = |time: &str| RestoreEvent {
        origin: origin(time),
        lineage: Some(evil.to_owned()),
        id: evil.to_owned(),
        step: RestoreStep::Restored,
        revision: Some(u64::MAX),
    };
    let retry = |time: &str| RetryEvent {
        origin: origin(time),
        step: RetryStep::Failed,
        program: evil.to_owned(),
        attempts: Some(u32::MAX),
        code: Some(255),
    };
    let failure = |time: &str| Failure {
        origin: origin(time),
        command: evil.to_owned(),
        code: 2,
        kind: evil.to_owned(),
        message: evil.to_owned(),
    };
    let path = world.clone_dir().join(".state-backups/journal.jsonl");
    let mut journal = fs::read(&path).unwrap_or_default();
    for time in [evil, "2020-01-01T00:00:00.000Z"] {
        for event in [
            Event::Commit(commit(time)),
            Event::Guard(guard(time)),
            Event::Lock(lock(time)),
            Event::Checkpoint(checkpoint(time)),
            Event::Restore(restore(time)),
            Event::Retry(retry(time)),
            Event::Failure(failure(time)),
        ] {
            journal.extend(event.to_line().unwrap().into_bytes());
        }
    }
    world.write(".state-backups/journal.jsonl", journal);
}

/// Hostile contents of a root.
const POISONS: [Poison; 22] = [
    ("guards and a journal", guards),
    ("an intent", intent),
    ("a manifest", manifest),
    ("lock records", records),
    ("linked side directories", |world| {
        for name in [".checkpoints", ".locks", ".signals", ".state-backups"] {
            link(world, name, "");
        }
    }),
    ("linked checkpoints", |world| link(world, ".checkpoints", "")),
    ("linked signals", |world| link(world, ".signals", ".signals")),
    ("linked staging directory", |world| link(world, ".checkpoints/.in-progress", "")),
    ("linked config", |world| link(world, "config", "config")),
    ("a linked state", |world| link(world, ".workflow-state.json", "other/.workflow-state.json")),
    ("a state that is a hard link", |world| {
        let state = fs::read(world.clone_dir().join(".workflow-state.json")).unwrap();
        fs::write(world.victim("pointed"), state).unwrap();
        hard_link(world, ".workflow-state.json", "pointed");
    }),
    ("linked files of the backups", |world| {
        for name in
            ["mirror.json", "owner", "journal.jsonl", "guard-checkpoint-20200101-000000-evil.json"]
        {
            link(world, &format!(".state-backups/{name}"), "secret");
        }
    }),
    ("hard links in the side directories", |world| {
        for name in ["mirror.json", "journal.jsonl", "corrupt-20200101-000000-x.json", "x"] {
            hard_link(world, &format!(".state-backups/{name}"), "secret");
        }
        hard_link(world, ".signals/GO.json", "pointed");
        for name in [".state-backups", ".signals", ".locks", ".checkpoints"] {
            fs::set_permissions(world.clone_dir().join(name), fs::Permissions::from_mode(0o755))
                .unwrap();
        }
    }),
    ("linked lock files", |world| {
        for name in
            ["state.lock", ".gate", ".tokens", ".reserved", ".reserving", ".pending", "deploy.json"]
        {
            link(world, &format!(".locks/{name}"), "secret");
        }
    }),
    ("hard links for lock files", |world| {
        for name in ["state.lock", ".gate", ".tokens", ".reserved", ".reserving", ".live-1-1-1-x"] {
            hard_link(world, &format!(".locks/{name}"), "pointed");
        }
    }),
    ("linked logs", |world| {
        symlink(world.victim("secret"), world.outside("audit.log")).unwrap();
        link(world, ".pipeline-audit.log", "secret");
        hard_link(world, ".error-recovery.log", "pointed");
    }),
    ("leftovers that are links", |world| {
        for name in [".pipeline-state-1-state.tmp", ".state-backups/.pipeline-state-1-mirror.tmp"] {
            link(world, name, "secret");
        }
        for name in [
            ".pipeline-state-restore-1-config",
            ".checkpoints/.in-progress/checkpoint",
            "config/sub",
        ] {
            link(world, name, "");
        }
        world.write(
            ".state-backups/.pipeline-state-1-signal-0.tmp",
            r#"{"signal":"../../victim/x","timestamp":null}"#,
        );
    }),
    ("rules and settings", |world| {
        link(world, "config/skill-rules.json", "secret");
        link(world, ".claude/skills/skill-rules.json", "secret");
        let payload = world.victim("payload");
        let hooks = json!({"hooks": {"PostToolUse": [{"hooks": [{"type": "command",
            "command": payload}]}]}});
        world.write(".claude/settings.json", hooks.to_string());
        world.write(
            ".pipeline-state.toml",
            format!(
                "audit-log = {0:?}\nstore = \"etcd://127.0.0.1:1/x\"\nlock-exit = 0\n",
                world.victim("secret")
            ),
        );
        fs::remove_dir(world.clone_dir().join("docs")).unwrap();
        link(world, "docs", "");
    }),
    ("an inner root elsewhere", |world| {
        fs::remove_file(world.clone_dir().join(".workflow-state.json")).unwrap();
        fs::remove_dir_all(world.clone_dir().join(".state-backups")).unwrap();
        link(world, ".claude", "other");
    }),
    ("names that a shell would read", |world| {
        world.write(".state-backups/state-20200101-000000-r1-$(touch owned);\u{1b}[2J.json", "{}");
        world.write(".state-backups/owner", "../../victim/secret\n");
        world.write(".signals/$(touch owned).json", r#"{"timestamp":1}"#);
        fs::create_dir(world.place(".checkpoints/checkpoint-20200101-000000-x;touch owned"))
            .unwrap();
        world.write(".locks/..json", "{}");
    }),
    ("a state that names what is outside", |world| {
        let path = world.clone_dir().join(".workflow-state.json");
        let mut state: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        state["phase"] = json!("$(touch owned)\u{1b}[2J");
        state["signals"] = json!({"../../victim/x": 1, "/etc/x": 2});
        state["lastSignal"] = json!("../../victim/x");
        state["degradedMode"] =
            json!({"enabled": true, "reason": "`touch owned`\u{202e}", "disabledFeatures": []});
        world.write(".workflow-state.json", state.to_string());
    }),
    ("sockets and pipes", |world| {
        drop(UnixListener::bind(world.place(".signals/s.json")).unwrap());
        for name in [
            ".locks/deploy.json",
            ".state-backups/mirror.json",
            ".error-recovery.log",
            "config/pipe",
        ] {
            assert!(Command::new("mkfifo").arg(world.place(name)).status().unwrap().success());
        }
    }),
];

#[test]
fn nothing_outside_a_hostile_clone_changes_whatever_is_run_in_it() {
    let all: Vec<usize> = (0..POISONS.len()).collect();
    let mut clones: Vec<Vec<usize>> = all.iter().map(|one| vec![*one]).collect();
    // obstacles that block nothing else, in one clone
    let blocks = |name: &str| {
        name.contains("linked")
            || name.contains("hard link")
            || name.contains("elsewhere")
            || name.contains("pipes")
    };
    clones.push(all.into_iter().filter(|one| !blocks(POISONS[*one].0)).collect());
    in_parallel(&clones, |poisons| {
        let world = World::new();
        poisons.iter().for_each(|one| POISONS[*one].1(&world));
        let names: Vec<&str> = poisons.iter().map(|one| POISONS[*one].0).collect();
        let before = world.witness();
        for words in COMMANDS {
            let ran = world.run(words, BINARY, &[]);
            let after = world.witness();
            assert!(after == before, "{names:?}: {words}: {}", difference(&before, &after));
            let steers = |c: char| pipeline_state::printable::is_steering(c) && c != '\n';
            let is_raw = ["state read", "state get .n"].contains(&words);
            assert!(is_raw || !ran.stdout.contains(steers), "{names:?}: {words}: {:?}", ran.stdout);
            assert!(!ran.stderr.contains(steers), "{names:?}: {words}: {:?}", ran.stderr);
            assert!(
                !ran.stdout.contains("a secret") && !ran.stderr.contains("a secret"),
                "{names:?}: {words}: {ran:?}"
            );
            assert_ne!(ran.code, 101, "{names:?}: {words}: {}", ran.stderr);
        }
        assert!(!world.clone_dir().join("owned").exists(), "{names:?}");
    });
}

/// The same at the level of system calls: files opened for writing are in the clone or the audit
/// log; only programs that the user named are run; nothing is sent.
#[test]
fn in_a_hostile_clone_nothing_else_is_opened_for_writing_run_or_sent() {
    if !installed("strace") {
        return;
    }
    let poisons = [
        "guards and a journal",
        "an intent",
        "a manifest",
        "lock records",
        "leftovers that are links",
        "rules and settings",
    ];
    let world = World::new();
    POISONS
        .iter()
        .filter(|(name, _)| poisons.contains(name))
        .for_each(|(_, poison)| poison(&world));
    let trace = world.outside("trace");
    let calls = "trace=open,openat,creat,truncate,execve,socket,connect,sendto,sendmsg,kill,\
                 pidfd_send_signal";
    for words in COMMANDS {
        let options = ["-f", "-y", "-qq", "-o", trace.to_str().unwrap(), "-e", calls, BINARY];
        world.run(words, "strace", &options);
        let traced = fs::read_to_string(&trace).unwrap();
        let runs_something = words.contains(" -- ") || words == "state edit";
        let runs = traced.lines().filter(|line| line.contains("execve(")).count();
        // The doctor watches the end of a shell that does nothing.
        let doctors_child = "execve(\"/bin/sh\", [\"/bin/sh\", \"-c\", \"read line\"], ";
        let tests_a_child = words.contains("doctor") && traced.contains(doctors_child);
        assert!(runs_something || runs == 1 + usize::from(tests_a_child), "{words}: {traced}");
        for line in traced.lines().filter(|line| !line.contains("= -1 ")) {
            let is_written = ["O_WRONLY", "O_RDWR", "O_CREAT", "creat(", "truncate("]
                .iter()
                .any(|how| line.contains(how));
            // A call that another thread interrupts in the trace shows its directory and name only.
            let opened = match line.strip_suffix(" <unfinished ...>") {
                Some(begun) => begun.split(['<', '>']).nth(1).unwrap_or_default(),
                None => line.rsplit_once('<').map_or("", |(_, path)| path.trim_end_matches('>')),
            };
            let is_ours = Path::new(opened).starts_with(world.clone_dir())
                || Path::new(opened) == world.outside("audit.log")
                || opened.contains("/pipeline-state-edit-")
                || opened.starts_with("/dev/");
            assert!(!is_written || is_ours, "{words}: {line}");
            // A wrapped command's end wakes the thread that forwards signals, by one byte.
            let is_wake_up = line.contains("sendto(") && line.contains("\"X\", 1, MSG_DONTWAIT");
            // The system's database of users is asked for names, by way of a local daemon.
            let is_name_service = line.contains("socket(AF_UNIX");
            let is_sent = !is_wake_up
                && !is_name_service
                && ["connect(", "sendto(", "sendmsg(", "socket("]
                    .iter()
                    .any(|call| line.contains(call));
            let is_signal = line.contains("kill(") && !line.contains(", 0)");
            assert!(!is_sent && (runs_something || tests_a_child || !is_signal), "{words}: {line}");
        }
    }
}

fn difference(before: &BTreeMap<PathBuf, String>, after: &BTreeMap<PathBuf, String>) -> String {
    let changed = after.iter().filter(|(path, facts)| before.get(*path) != Some(facts));
    let gone = before.keys().filter(|path| !after.contains_key(*path));
    format!(
        "changed or new: {:?}; gone: {:?}",
        changed.map(|(path, facts)| (path, before.get(path), facts)).collect::<Vec<_>>(),
        gone.collect::<Vec<_>>()
    )
}
