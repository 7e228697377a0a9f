//! Processes that own locks or wait for them, and the entries on record.

use std::fs;
use std::process::{Child, Stdio};

use pipeline_state::lock::{Waiter, queue_entry};
use serde_json::Value;

use crate::sandbox::{Ran, Sandbox, until};

/// A process that only owns locks. It ends with the test in any case: its input does.
pub struct Owner(Child);

impl Owner {
    pub fn new() -> Self {
        Self(
            std::process::Command::new("cat")
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .spawn()
                .unwrap(),
        )
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A command that waits for a lock.
pub struct Waiting(Child);

impl Waiting {
    pub fn new(child: Child) -> Self {
        Self(child)
    }

    /// `lock acquire` for this owner, once it sleeps in the queue.
    #[track_caller]
    pub fn in_queue(root: &Sandbox, names: &str, owner: &Owner) -> Self {
        let mut waiting = Self(
            root.spawn(&format!("lock acquire {names} 300 --json --owner-pid {}", owner.pid())),
        );
        until("the waiter sleeps in its queue", || {
            waiting.has_ended() || sleeps(root, names, owner.pid())
        });
        waiting
    }

    pub fn has_ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }

    /// Its end, which must come by itself long before its deadline.
    #[track_caller]
    pub fn ended(mut self) -> Ran {
        until("the end of a waiter", || self.has_ended());
        let output = |pipe: Option<&mut dyn std::io::Read>| {
            let mut text = Vec::new();
            pipe.unwrap().read_to_end(&mut text).unwrap();
            text
        };
        let stdout = output(self.0.stdout.as_mut().map(|pipe| pipe as _));
        let stderr = output(self.0.stderr.as_mut().map(|pipe| pipe as _));
        Ran::of(std::process::Output { status: self.0.wait().unwrap(), stdout, stderr })
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// True if an owner's waiter for all of these locks is asleep.
pub fn sleeps(root: &Sandbox, names: &str, owner: u32) -> bool {
    names.split(',').all(|name| {
        let waiters = queued(root, name);
        let waiter = waiters.iter().find(|waiter| waiter.owner.pid == owner);
        waiter.is_some_and(|waiter| {
            let stat = fs::read_to_string(format!("/proc/{}/stat", waiter.process.pid))
                .unwrap_or_default();
            stat.rsplit_once(") ").is_some_and(|(_, fields)| fields.starts_with('S'))
        })
    })
}

/// The waiters with files in the queue of a lock.
pub fn queued(root: &Sandbox, name: &str) -> Vec<Waiter> {
    let queue = root.file(format!(".locks/.queue/{name}"));
    let files = fs::read_dir(queue).into_iter().flatten();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let names: Vec<String> = names.collect();
    queue_entry::parse_all(names.iter().map(String::as_str))
}

/// A holder or a waiter of a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub lock: String,
    pub mode: String,
    pub status: String,
    pub pid: u64,
    pub token: Option<u64>,
}

impl Entry {
    pub fn holds(&self) -> bool {
        self.token.is_some()
    }

    /// Without its token, which depends on the grants to commands that died.
    pub fn place(&self) -> (&str, &str, &str, u64) {
        (&self.lock, &self.mode, &self.status, self.pid)
    }
}

/// The entries of `lock list`: by name, holders first, waiters in their order.
#[track_caller]
pub fn listed(root: &Sandbox) -> Vec<Entry> {
    let list = root.run("lock list json").expect(0).json();
    let text = |entry: &Value, field: &str| entry[field].as_str().unwrap().to_owned();
    let entry = |entry: &Value| Entry {
        lock: text(entry, "lock"),
        mode: text(entry, "mode"),
        status: text(entry, "status"),
        pid: entry["owner"]["pid"].as_u64().unwrap(),
        token: entry["token"].as_u64(),
    };
    list.as_array().unwrap().iter().map(entry).collect()
}

/// The entries on record without dead ones.
#[track_caller]
pub fn living(root: &Sandbox) -> Vec<Entry> {
    listed(root).into_iter().filter(|entry| entry.status != "stale").collect()
}

/// The tokens in the output of `lock … --json`.
pub fn tokens_in(stdout: &str) -> Vec<u64> {
    let lines = stdout.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter_map(|line| line["token"].as_u64()).collect()
}
