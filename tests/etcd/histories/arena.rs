//! What all clients of a history share, and what each of them notes.

use std::collections::BTreeMap;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use pipeline_state::document::{Reading, inspect};
use serde_json::Value;
use tempfile::TempDir;

use super::network::Machine;
use crate::dice::Dice;
use crate::history_checker::{Change, Document, Event, Moment, Op, Outcome, WINDOW};

/// The time to live of leases, in seconds: the shortest.
pub const TTL: &str = "2";

/// What all clients share.
#[derive(Debug)]
pub struct Arena {
    pub url: String,
    pub start: Instant,
    pub is_over: AtomicBool,
    numbers: AtomicU64,
}

impl Arena {
    pub fn new(url: String) -> Self {
        let numbers = AtomicU64::new(1);
        Self { url, start: Instant::now(), is_over: AtomicBool::new(false), numbers }
    }

    pub fn now(&self) -> Moment {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap()
    }

    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    pub fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }
}

/// What clients did and heard.
#[derive(Debug, Default)]
pub struct Notes {
    pub events: Vec<Event>,
    /// The operations of writes of unknown outcome, by the number that they wrote.
    pub unknown: BTreeMap<u64, String>,
    /// How often each answer came that is none of a history.
    pub other: BTreeMap<&'static str, usize>,
}

impl Notes {
    pub fn join(&mut self, other: Self) {
        self.events.extend(other.events);
        self.unknown.extend(other.unknown);
        for (what, times) in other.other {
            *self.other.entry(what).or_default() += times;
        }
    }

    pub fn count(&mut self, what: &'static str) {
        *self.other.entry(what).or_default() += 1;
    }
}

/// A client: a thread on a machine, with a directory of its own.
#[derive(Debug)]
pub struct Client<'a> {
    pub arena: &'a Arena,
    pub id: usize,
    pub dice: Dice,
    pub dir: TempDir,
    pub notes: Notes,
    /// The last revision that the client knows.
    pub known: u64,
    /// How long a command takes, so that kills hit running ones on a busy machine, too.
    usual: Duration,
}

impl<'a> Client<'a> {
    /// A client that stays on `machine`, as does the calling thread.
    pub fn on(machine: &Machine, arena: &'a Arena, id: usize, seed: usize) -> Self {
        machine.enter();
        Self {
            arena,
            id,
            dice: Dice::new(seed + 97 * id),
            dir: tempfile::tempdir().unwrap(),
            notes: Notes::default(),
            known: 0,
            usual: Duration::from_millis(50),
        }
    }

    /// Notes what came of an operation. One of unknown outcome may take effect at any later time.
    pub fn note(&mut self, began: Moment, op: Op, outcome: Outcome) {
        if let Outcome::Saw(revision, _) | Outcome::Committed(revision) = outcome {
            self.known = revision;
        }
        let ended = match outcome {
            Outcome::Unknown => Moment::MAX,
            _ => self.arena.now(),
        };
        self.notes.events.push(Event { client: self.id, began, ended, op, outcome });
    }

    pub fn command(&self, words: &[&str], owner: Option<u32>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pipeline-state"));
        command
            .arg("--json")
            .args(words)
            .current_dir(&self.dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .env("HOME", self.dir.path())
            .env("XDG_CONFIG_HOME", self.dir.path())
            .env("XDG_RUNTIME_DIR", self.dir.path())
            .env("AUDIT_LOG", self.dir.path().join("audit.log"))
            .env("PIPELINE_STORE", &self.arena.url)
            .env("PIPELINE_LEASE_TTL", TTL)
            .env("LOCK_TIMEOUT", "4");
        for name in ["STATE_FILE", "PIPELINE_ROOT", "PIPELINE_OWNER_PID", "PIPELINE_LOCK_TOKEN"] {
            command.env_remove(name);
        }
        if let Some(owner) = owner {
            command.env("PIPELINE_OWNER_PID", owner.to_string());
        }
        command
    }

    /// Runs a command, which may be killed with SIGKILL at any moment.
    pub fn run(&mut self, words: &[&str], owner: Option<u32>, killed_in: usize) -> Ran {
        let mut child = self.command(words, owner).spawn().unwrap();
        let began = Instant::now();
        if self.dice.below(killed_in) == 0 {
            std::thread::sleep(self.usual * self.dice.below(120) as u32 / 100);
            child.kill().unwrap();
            return Ran::of(child.wait_with_output().unwrap());
        }
        let ran = Ran::of(child.wait_with_output().unwrap());
        if ran.is_ok() {
            self.usual = (self.usual * 3 + began.elapsed()) / 4;
        }
        ran
    }

    /// Writes with a command.
    pub fn write(
        &mut self,
        change: Change,
        only_after: Option<u64>,
        fence: Option<(String, u64)>,
        (owner, killed_in): (Option<u32>, usize),
    ) {
        let number = self.arena.number();
        let filter = match change {
            Change::Note => format!(".register = {number} | .recent += [{number}]"),
            Change::Count => format!(
                ".register = {number} | .count += 1 | .recent = (.recent + [{number}])[-{WINDOW}:]"
            ),
        };
        let mut words = vec!["state".to_owned(), "update".to_owned(), filter];
        words.extend(only_after.map(|revision| format!("--if-revision={revision}")));
        words.extend(fence.as_ref().map(|(lock, token)| format!("--fence={lock}:{token}")));
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let began = self.arena.now();
        let ran = self.run(&words, owner, killed_in);
        let outcome = self.outcome_of(&ran, number);
        self.note(began, Op::Write { number, change, only_after, fence }, outcome);
    }

    /// A killed command acknowledged its change if it printed that.
    fn outcome_of(&mut self, ran: &Ran, number: u64) -> Outcome {
        if let Ok(said) = serde_json::from_str::<Value>(&ran.stdout) {
            assert_eq!(said["changed"], true, "{ran:?}");
            return Outcome::Committed(said["revision"].as_u64().unwrap());
        }
        match (ran.code, ran.kind().as_str()) {
            (75, "conflict") => Outcome::Conflict,
            (1, "fenced") => Outcome::Fenced,
            (8, "unreachable") => Outcome::Refused,
            (2, "timeout") => {
                self.notes.count("writes that timed out in the queue");
                Outcome::Refused
            }
            // The writers of the library are ancestors of all owners.
            (2, "deadlock") => {
                self.notes.count("writes that would have waited for their own children");
                Outcome::Refused
            }
            (1, "durability_unknown") => {
                let operation = ran.error()["details"]["operation"].as_str().unwrap().to_owned();
                self.notes.unknown.insert(number, operation);
                Outcome::Unknown
            }
            (KILLED, _) => {
                self.notes.count("writing commands killed");
                Outcome::Unknown
            }
            _ => panic!("{ran:?}"),
        }
    }

    /// Reads with a command, where the cluster answers.
    pub fn read(&mut self) {
        let began = self.arena.now();
        let ran = Ran::of(self.command(&["state", "read"], None).output().unwrap());
        if ran.is_ok() {
            let (revision, document) = seen(ran.stdout.as_bytes());
            self.note(began, Op::Read, Outcome::Saw(revision, document));
        } else {
            assert_eq!((ran.code, ran.kind().as_str()), (8, "unreachable"), "{ran:?}");
            self.notes.count("reads that were refused");
        }
    }
}

/// The code of a command that was killed with SIGKILL.
pub const KILLED: i32 = 128 + 9;

/// What a command printed, and its code.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    pub fn of(output: Output) -> Self {
        use std::os::unix::process::ExitStatusExt as _;
        let signal = || 128 + output.status.signal().unwrap();
        Self {
            code: output.status.code().unwrap_or_else(signal),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    pub fn is_ok(&self) -> bool {
        self.code == 0
    }

    /// The error.
    pub fn error(&self) -> Value {
        let last = self.stderr.lines().last().unwrap_or_default();
        serde_json::from_str::<Value>(last).unwrap_or_default()["error"].take()
    }

    /// Its kind.
    pub fn kind(&self) -> String {
        self.error()["kind"].as_str().unwrap_or_default().to_owned()
    }
}

/// The revision and the checked fields of a document, which must be whole.
pub fn seen(bytes: &[u8]) -> (u64, Document) {
    let Reading::Sealed(document) = inspect(bytes) else {
        panic!("a bad read: {}", String::from_utf8_lossy(bytes))
    };
    (document.seal.revision.get(), fields(&document.value))
}

/// The checked fields; those of a new state are empty.
pub fn fields(value: &Value) -> Document {
    let number = |field: &str| value[field].as_u64().unwrap_or_default();
    let recent = value["recent"].as_array().into_iter().flatten();
    Document {
        register: number("register"),
        count: number("count"),
        recent: recent.map(|number| number.as_u64().unwrap()).collect(),
    }
}
