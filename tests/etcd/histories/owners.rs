//! Clients that own locks, write under them, and release them, or die, or lose them.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::arena::{Client, KILLED, Notes};
use crate::history_checker::{Change, Op, Outcome};

/// `state` among them: no other client commits while it is held.
const LOCKS: [&str; 4] = ["a", "b", "a", "state"];
/// Longer than a lease lasts that is not renewed.
const PAST_TTL: Duration = Duration::from_millis(3500);

/// A process that only owns locks. It ends with the test in any case: its input does.
struct Owner(Child);

impl Owner {
    fn new() -> Self {
        let mut command = Command::new("cat");
        Self(command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap())
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What happens while a lock is held.
enum Mishap {
    None,
    OwnerKilled,
    KeeperKilled,
    KeeperStopped,
}

/// Takes locks and uses them until the history is over.
pub fn own_locks(mut client: Client<'_>) -> Notes {
    let mut owner = Owner::new();
    while !client.arena.is_over() {
        let lock = LOCKS[client.dice.below(LOCKS.len())];
        let exclusive = lock == "state" || client.dice.below(3) > 0;
        match client.acquire(&owner, lock, exclusive) {
            Some(token) if !client.hold(&mut owner, lock, token) => owner = Owner::new(),
            Some(_) => {}
            None => owner = Owner::new(),
        }
    }
    client.notes
}

impl Client<'_> {
    /// Asks until there is an answer: a killed attempt may have been granted the lock. `None` if
    /// it was not granted, or that could not be learnt.
    fn acquire(&mut self, owner: &Owner, lock: &str, exclusive: bool) -> Option<u64> {
        let began = self.arena.now();
        let mode = if exclusive { "exclusive" } else { "shared" };
        let pid = owner.pid().to_string();
        for attempt in 1..5 {
            let words = ["lock", "acquire", lock, "5", mode, "--owner-pid", &pid];
            let ran = self.run(&words, Some(owner.pid()), 8);
            let token = match (ran.code, ran.kind().as_str()) {
                (0, _) => serde_json::from_str::<serde_json::Value>(&ran.stdout).unwrap()["token"]
                    .as_u64(),
                (1, "already_held") => ran.error()["details"]["token"].as_u64(),
                (2, "timeout" | "deadlock") => {
                    self.notes.count("requests for locks that timed out, or were part of a cycle");
                    return None;
                }
                (8, "unreachable") => {
                    self.notes.count("requests for locks that were refused");
                    return None;
                }
                (1, "durability_unknown") => {
                    self.notes.count("requests for locks of unknown outcome");
                    None
                }
                (KILLED, _) => {
                    self.notes.count("requests for locks killed");
                    None
                }
                _ => panic!("{ran:?}"),
            };
            if let Some(token) = token {
                let op = Op::Acquire { lock: lock.to_owned(), exclusive, once: attempt == 1 };
                self.note(began, op, Outcome::Granted(token));
                return Some(token);
            }
        }
        None
    }

    /// Writes under the lock and gives it back, unless a mishap comes; false if the owner must not
    /// go on, or is dead.
    fn hold(&mut self, owner: &mut Owner, lock: &str, token: u64) -> bool {
        let mishap = match self.dice.below(10) {
            0 => Mishap::OwnerKilled,
            1 => Mishap::KeeperKilled,
            2 => Mishap::KeeperStopped,
            _ => Mishap::None,
        };
        self.write_under(owner, lock, token);
        match mishap {
            Mishap::None => {}
            Mishap::OwnerKilled => {
                let _ = owner.0.kill();
                let _ = owner.0.wait();
                self.notes.count("owners killed");
                let op = Op::Release { lock: lock.to_owned(), token };
                let began = self.arena.now();
                self.note(began, op, Outcome::Lost);
                if self.dice.below(2) == 0 {
                    self.write_fenced(owner, lock, token);
                }
                return false;
            }
            Mishap::KeeperKilled => {
                self.signal_keepers(owner, Signal::KILL);
                self.notes.count("keepers killed");
                let wait = self.dice.below(2) as u32;
                std::thread::sleep(PAST_TTL * wait);
            }
            Mishap::KeeperStopped => {
                let stopped = self.signal_keepers(owner, Signal::STOP);
                self.notes.count("keepers stopped");
                std::thread::sleep(PAST_TTL);
                // Going on late, or after the owner's next command.
                if self.dice.below(2) == 0 {
                    resume(&stopped);
                    self.write_under(owner, lock, token);
                    return self.release(owner, lock, token);
                }
                self.write_under(owner, lock, token);
                let is_released = self.release(owner, lock, token);
                resume(&stopped);
                return is_released;
            }
        }
        self.write_under(owner, lock, token);
        self.release(owner, lock, token)
    }

    fn write_under(&mut self, owner: &Owner, lock: &str, token: u64) {
        if lock == "state" {
            self.write(Change::Count, None, None, (Some(owner.pid()), 8));
        } else {
            self.write_fenced(owner, lock, token);
        }
    }

    fn write_fenced(&mut self, owner: &Owner, lock: &str, token: u64) {
        let fence = Some((lock.to_owned(), token));
        self.write(Change::Count, None, fence, (Some(owner.pid()), 8));
    }

    /// Gives the lock back; false if it may still be held.
    fn release(&mut self, owner: &Owner, lock: &str, token: u64) -> bool {
        let began = self.arena.now();
        let op = Op::Release { lock: lock.to_owned(), token };
        let pid = owner.pid().to_string();
        let words = ["lock", "release", lock, "--owner-pid", &pid];
        let ran = self.run(&words, Some(owner.pid()), 8);
        let (outcome, is_free) = match (ran.code, ran.kind().as_str()) {
            (0, _) => (Outcome::Released, true),
            (1, "not_owner" | "not_found") => {
                let said = ran.error()["details"]["lost"].is_null();
                self.notes.count(match said {
                    true => "locks lost, as the cluster says",
                    false => "locks lost, as the keeper says",
                });
                (Outcome::Lost, true)
            }
            (8, "unreachable") | (1, "durability_unknown") | (KILLED, _) => {
                self.notes.count("releases that failed or were killed");
                (Outcome::Lost, false)
            }
            _ => panic!("{ran:?}"),
        };
        self.note(began, op, outcome);
        is_free
    }

    /// Sends a signal to the keepers of an owner, and returns them.
    fn signal_keepers(&mut self, owner: &Owner, signal: Signal) -> Vec<Pid> {
        let (dir, owner) = (self.dir.path().to_string_lossy(), format!("\"pid\":{}", owner.pid()));
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let is_keeper = |entry: &std::fs::DirEntry| {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line);
            line.contains("__keep") && line.contains(&*dir) && line.contains(&owner)
        };
        let found = processes.filter(is_keeper).filter_map(|entry| {
            let pid = Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)?;
            kill_process(pid, signal).ok().map(|()| pid)
        });
        found.collect()
    }
}

fn resume(keepers: &[Pid]) {
    for keeper in keepers {
        let _ = kill_process(*keeper, Signal::CONT);
    }
}
