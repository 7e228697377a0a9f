//! What makes a clone hostile.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::process::Command;

use pipeline_state::document::seal::{Digest, Lineage, Revision};
use pipeline_state::journal::event::{
    Blocker, CheckpointEvent, CheckpointStep, Commit, Event, Failure, GuardEvent, GuardStep,
    LockEvent, LockStep, Origin, Owner, Party, RestoreEvent, RestoreStep, RetryEvent, RetryStep,
    Role,
};
use serde_json::{Value, json};

use super::World;

pub type Poison = (&'static str, fn(&World));

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
pub const POISONS: [Poison; 22] = [
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
