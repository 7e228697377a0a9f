//! Contract, §1: a root is data, not authority. Hostile clones, every command in each, and a
//! witness outside: contents, modes, times and names of everything beyond the clone.

mod poisons;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use pipeline_state::document::seal::{Digest, with_digest};
use serde_json::{Value, json};

use self::poisons::POISONS;
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
