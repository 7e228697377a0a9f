//! P3 and P5 as a history: many clients do everything at once, have their commands killed, and
//! record results with times; then [`crate::history_checker`] looks for an order that explains the
//! whole record.
//!
//! Each command is a process, and each client has a process that owns its locks.
//! `HISTORY_OPS=10000` asks for more than the default, and `HISTORY_SEED` for the dice of an
//! earlier run (timing still depends on the machine).

use std::fs::{self, File};
use std::io::{PipeReader, PipeWriter, Write as _};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use pipeline_state::document::{Reading, inspect};
use serde_json::{Value, json};

use crate::dice::Dice;
use crate::history_checker::{
    Change, Document, Event, Moment, Op, Outcome, Setting, WINDOW, check,
};
use crate::owners::Owner;
use crate::sandbox::{Ran, Sandbox};

const CLIENTS: usize = 8;
/// Operations of all clients together: enough for hundreds of races and kills, in a few seconds.
const OPS: usize = 240;
const LOCKS: [&str; 3] = ["a", "b", "state"];

/// The disturbance of writers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Disturbance {
    /// Commands are killed, and owners of locks.
    Kills,
    /// The live file is cut in half again and again. No process is killed: an unacknowledged
    /// revision may be lost with the live file.
    Damage,
}

/// State shared by all clients.
struct Arena {
    sandbox: Sandbox,
    start: Instant,
    disturbance: Disturbance,
    numbers: AtomicU64,
    left: AtomicUsize,
    /// The owners' pids with their clients, in order of creation.
    owners: Mutex<Vec<(u32, usize)>>,
}

impl Arena {
    fn now(&self) -> Moment {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap()
    }
}

struct Client<'a> {
    arena: &'a Arena,
    id: usize,
    dice: Dice,
    owner: Owner,
    events: Vec<Event>,
    /// The last revision that the client knows.
    known: u64,
    /// Typical duration of a command, so that kills hit running commands on a busy machine, too.
    usual: Duration,
    /// The last grant that the client released.
    stale: Option<(String, u64)>,
}

impl<'a> Client<'a> {
    fn new(arena: &'a Arena, id: usize, seed: usize) -> Self {
        let owner = new_owner(arena, id);
        let usual = Duration::from_millis(20);
        Self {
            usual,
            arena,
            id,
            dice: Dice::new(seed + id),
            owner,
            events: Vec::new(),
            known: 2,
            stale: None,
        }
    }

    fn work(mut self) -> Vec<Event> {
        let take = || {
            self.arena
                .left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
        };
        while take().is_ok() {
            match self.dice.below(20) {
                0..5 => self.read(),
                5..9 => self.write("update", None, None),
                9..11 => self.write("set", None, None),
                11..13 => {
                    // sometimes one that is too old
                    let known = self.known - self.dice.below(2) as u64;
                    self.write("update", Some(known), None);
                }
                13..15 => self.read_modify_write(),
                15 => self.backup(),
                16 => self.list(),
                17 => {
                    let stale = self.stale.clone();
                    self.write("set", None, stale);
                }
                _ => self.lock(),
            }
        }
        self.events
    }

    fn note(&mut self, began: Moment, op: Op, outcome: Outcome) {
        if let Outcome::Saw(revision, _) | Outcome::Committed(revision) = outcome {
            self.known = revision;
        }
        self.events.push(Event { client: self.id, began, ended: self.arena.now(), op, outcome });
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = self.arena.sandbox.command();
        command.env("PIPELINE_OWNER_PID", self.owner.pid().to_string()).args(words);
        command
    }

    /// Runs a command, which may be killed at any moment. Its input is a file: a pipe could be full
    /// at the kill.
    fn run(&mut self, words: &[&str], input: Option<&Value>) -> Ran {
        let mut command = self.command(words);
        if let Some(input) = input {
            let file = self.arena.sandbox.file(format!("input-{}", self.id));
            fs::write(&file, input.to_string()).unwrap();
            command.stdin(File::open(file).unwrap());
        }
        command.stderr(Stdio::piped());
        if self.arena.disturbance == Disturbance::Kills && self.dice.below(4) == 0 {
            return self.run_and_kill(command);
        }
        let began = Instant::now();
        let child = command.stdout(Stdio::piped()).spawn().unwrap();
        let ran = Ran::of(child.wait_with_output().unwrap());
        self.usual = (self.usual * 3 + began.elapsed()) / 4;
        ran
    }

    /// Kills a command at a random moment: while it runs, or when its work is done and its
    /// confirmation waits for a full pipe.
    fn run_and_kill(&mut self, mut command: Command) -> Ran {
        let moment = self.dice.below(100) as u32;
        let (full, moment) = match self.dice.below(3) {
            0 => (Some(full_pipe()), self.usual * (100 + moment) / 50),
            _ => (None, self.usual * moment / 80),
        };
        command.stdout(
            full.as_ref().map_or_else(Stdio::piped, |(_, end)| end.try_clone().unwrap().into()),
        );
        let mut child = command.spawn().unwrap();
        std::thread::sleep(moment);
        child.kill().unwrap();
        Ran::of(child.wait_with_output().unwrap())
    }

    fn read(&mut self) {
        let began = self.arena.now();
        let ran = Ran::of(self.command(&["state", "read"]).output().unwrap()).expect(0);
        let (revision, document) = seen(ran.stdout.as_bytes());
        self.note(began, Op::Read, Outcome::Saw(revision, document));
    }

    /// A backup is a read with a file as its answer.
    fn backup(&mut self) {
        let began = self.arena.now();
        let ran = self.run(&["state", "backup", "--json"], None);
        if ran.code == 0 {
            // other clients make backups as well, and the oldest are removed
            let file = ran.json()["file"].as_str().unwrap().to_owned();
            if let Ok(bytes) = fs::read(file) {
                let (revision, document) = seen(&bytes);
                self.note(began, Op::Read, Outcome::Saw(revision, document));
            }
        } else {
            assert_eq!(ran.code, 128 + 9, "{ran:?}");
        }
    }

    fn write(&mut self, how: &str, only_after: Option<u64>, fence: Option<(String, u64)>) {
        let number = self.arena.numbers.fetch_add(1, Ordering::Relaxed);
        let (change, made): (Change, Vec<String>) = match how {
            "set" => {
                (Change::Note, vec![format!("register:={number}"), format!("recent[+]:={number}")])
            }
            _ => {
                let last = format!(".recent = (.recent + [{number}])[-{WINDOW}:]");
                (Change::Count, vec![format!(".register = {number} | .count += 1 | {last}")])
            }
        };
        let mut words = vec!["state".to_owned(), how.to_owned(), "--json".to_owned()];
        words.extend(made);
        words.extend(only_after.map(|revision| format!("--if-revision={revision}")));
        words.extend(fence.as_ref().map(|(lock, token)| format!("--fence={lock}:{token}")));
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let began = self.arena.now();
        let ran = self.run(&words, None);
        self.note(began, Op::Write { number, change, only_after, fence }, outcome_of(&ran));
    }

    /// The pipeline of the shell original: `read | modify | write -`.
    fn read_modify_write(&mut self) {
        self.read();
        let Some(Outcome::Saw(revision, _)) = self.events.last().map(|event| &event.outcome) else {
            return;
        };
        let (revision, number) = (*revision, self.arena.numbers.fetch_add(1, Ordering::Relaxed));
        let began = self.arena.now();
        let ran = Ran::of(self.command(&["state", "read"]).output().unwrap()).expect(0);
        let (found, document) = seen(ran.stdout.as_bytes());
        self.note(began, Op::Read, Outcome::Saw(found, document.clone()));
        let mut value = ran.json();
        let mut recent = document.recent;
        recent.push(number);
        let recent = &recent[recent.len().saturating_sub(WINDOW)..];
        (value["register"], value["count"], value["recent"]) =
            (json!(number), json!(document.count + 1), json!(recent));
        assert!(found >= revision);
        let began = self.arena.now();
        let ran = self.run(&["state", "write", "-", "--json"], Some(&value));
        let op = Op::Write { number, change: Change::Count, only_after: Some(found), fence: None };
        self.note(began, op, outcome_of(&ran));
    }

    fn list(&mut self) {
        let began = self.arena.now();
        let ran = Ran::of(self.command(&["lock", "list", "json"]).output().unwrap()).expect(0);
        let owners = self.arena.owners.lock().unwrap().clone();
        let entry = |entry: &Value| {
            let pid = entry["owner"]["pid"].as_u64()?;
            let (_, client) = owners.iter().rev().find(|(owner, _)| u64::from(*owner) == pid)?;
            // dead entries are shown until they are removed, and commits queue as well
            let shown = ["held", "waiting"].contains(&entry["status"].as_str()?);
            shown.then(|| {
                (entry["lock"].as_str().unwrap().to_owned(), *client, entry["token"].as_u64())
            })
        };
        let entries = ran.json().as_array().unwrap().iter().filter_map(entry).collect();
        self.note(began, Op::List, Outcome::Listed(entries));
    }

    /// Takes a lock, uses it, and releases it or dies.
    fn lock(&mut self) {
        let (lock, exclusive) = (LOCKS[self.dice.below(LOCKS.len())], self.dice.below(3) > 0);
        let exclusive = exclusive || lock == "state";
        let token = self.acquire(lock, exclusive);
        match lock {
            "state" => {
                self.read();
                self.write("update", None, None);
                self.read();
            }
            _ => {
                for _ in 0..=self.dice.below(2) {
                    self.write("update", None, Some((lock.to_owned(), token)));
                }
                self.list();
            }
        }
        self.release(lock, token);
        self.stale = Some((lock.to_owned(), token));
    }

    /// Retries until it has an answer: a killed attempt may have been granted the lock.
    fn acquire(&mut self, lock: &str, exclusive: bool) -> u64 {
        let began = self.arena.now();
        let mode = if exclusive { "exclusive" } else { "shared" };
        let owner = self.owner.pid().to_string();
        for attempt in 1.. {
            let ran = self
                .run(&["lock", "acquire", lock, "60", mode, "--json", "--owner-pid", &owner], None);
            let token = match ran.code {
                0 => ran.json()["token"].as_u64(),
                1 => ran.expect_json_error("already_held")["details"]["token"].as_u64(),
                code => {
                    assert_eq!(code, 128 + 9, "{ran:?}");
                    // the grant that it printed before it died
                    serde_json::from_str::<Value>(&ran.stdout)
                        .ok()
                        .and_then(|granted| granted["token"].as_u64())
                }
            };
            if let Some(token) = token {
                let op = Op::Acquire { lock: lock.to_owned(), exclusive, once: attempt == 1 };
                self.note(began, op, Outcome::Granted(token));
                return token;
            }
        }
        unreachable!()
    }

    fn release(&mut self, lock: &str, token: u64) {
        let began = self.arena.now();
        let mut outcome = Outcome::Released;
        if self.arena.disturbance == Disturbance::Kills && self.dice.below(4) == 0 {
            self.owner = new_owner(self.arena, self.id); // and the old one dies
            outcome = Outcome::Unknown;
        } else {
            let owner = self.owner.pid().to_string();
            loop {
                let ran =
                    self.run(&["lock", "release", lock, "--json", "--owner-pid", &owner], None);
                match ran.code {
                    0 => break,
                    1 if ran.stderr.contains("not_found") || ran.stderr.contains("not_owner") => {
                        break;
                    } // released by a killed attempt
                    code => assert_eq!(code, 128 + 9, "{ran:?}"),
                }
            }
        }
        self.note(began, Op::Release { lock: lock.to_owned(), token }, outcome);
    }
}

fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let flags = rustix::fs::fcntl_getfl(&writer).unwrap();
    rustix::fs::fcntl_setfl(&writer, flags | rustix::fs::OFlags::NONBLOCK).unwrap();
    for piece in [4096, 1] {
        while writer.write(&vec![0; piece]).is_ok() {}
    }
    rustix::fs::fcntl_setfl(&writer, flags).unwrap();
    (reader, writer)
}

fn new_owner(arena: &Arena, client: usize) -> Owner {
    let owner = Owner::new();
    arena.owners.lock().unwrap().push((owner.pid(), client));
    owner
}

/// The revision and the checked fields of a document that must be whole.
fn seen(bytes: &[u8]) -> (u64, Document) {
    let Reading::Sealed(document) = inspect(bytes) else {
        panic!("a bad read: {}", String::from_utf8_lossy(bytes))
    };
    let number = |field: &str| document.value[field].as_u64().unwrap();
    let recent = document.value["recent"]
        .as_array()
        .unwrap()
        .iter()
        .map(|number| number.as_u64().unwrap())
        .collect();
    (
        document.seal.revision.get(),
        Document { register: number("register"), count: number("count"), recent },
    )
}

/// A killed command acknowledged its change if it printed that.
fn outcome_of(ran: &Ran) -> Outcome {
    if let Ok(said) = serde_json::from_str::<Value>(&ran.stdout) {
        assert_eq!(said["changed"], true, "{ran:?}");
        return Outcome::Committed(said["revision"].as_u64().unwrap());
    }
    match ran.code {
        75 if ran.stderr.contains(r#""kind":"conflict""#) => Outcome::Conflict,
        1 if ran.stderr.contains(r#""kind":"fenced""#) => Outcome::Fenced,
        code => {
            assert_eq!(code, 128 + 9, "{ran:?}");
            Outcome::Unknown
        }
    }
}

/// Cuts the live file in half, with an old mtime, until the clients are done; returns how often.
fn destroy(arena: &Arena) -> usize {
    let mut damages = 0;
    while arena.left.load(Ordering::Relaxed) > 0 {
        let written = arena.numbers.load(Ordering::Relaxed);
        let file = File::options().write(true).open(arena.sandbox.state()).unwrap();
        file.set_len(file.metadata().unwrap().len() / 2).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(10)).unwrap();
        damages += 1;
        while arena.left.load(Ordering::Relaxed) > 0
            && arena.numbers.load(Ordering::Relaxed) < written + 8
        {
            std::thread::yield_now();
        }
    }
    damages
}

fn number_from(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |number| number.parse().expect("a number"))
}

fn history(disturbance: Disturbance, ops: usize) {
    let began = Instant::now();
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos();
    let seed = number_from("HISTORY_SEED", clock as usize);
    println!("HISTORY_SEED={seed}, {disturbance:?}");
    let sandbox = Sandbox::initialized();
    sandbox.ok("state set register:=0 count:=0 recent:=[]");
    let ops = number_from("HISTORY_OPS", ops);
    let arena = Arena {
        sandbox,
        start: Instant::now(),
        disturbance,
        numbers: AtomicU64::new(1),
        left: AtomicUsize::new(ops),
        owners: Mutex::default(),
    };
    let (mut events, damages) = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..CLIENTS)
            .map(|id| {
                scope.spawn({
                    let arena = &arena;
                    move || Client::new(arena, id, seed).work()
                })
            })
            .collect();
        let damages = if disturbance == Disturbance::Damage { destroy(&arena) } else { 0 };
        let events: Vec<Event> =
            workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect();
        (events, damages)
    });
    let mut last = Client::new(&arena, CLIENTS, seed);
    last.read();
    last.write("update", None, None);
    last.read();
    events.append(&mut last.events);

    let (violations, figures) = check(&events, Setting { revision: 2, damages });
    let count = |is: fn(&Event) -> bool| events.iter().filter(|event| is(event)).count();
    println!(
        "{} events: {} reads, {} writes acknowledged, {} conflicts, {} fenced off, {} grants, \
         {} lists; {} writes killed, {} of them done; {damages} damages, {} healed; {} revisions; \
         {:.1} s",
        events.len(),
        count(|event| event.op == Op::Read),
        count(|event| matches!(event.outcome, Outcome::Committed(_))),
        count(|event| event.outcome == Outcome::Conflict),
        count(|event| event.outcome == Outcome::Fenced),
        count(|event| matches!(event.outcome, Outcome::Granted(_))),
        count(|event| event.op == Op::List),
        figures.killed,
        figures.killed_and_done,
        figures.heals,
        figures.revisions,
        began.elapsed().as_secs_f64()
    );
    for (rule, what) in &violations {
        println!("{rule:?}: {what}");
    }
    assert!(
        violations.is_empty(),
        "{} violations, see above; HISTORY_SEED={seed}",
        violations.len()
    );
    let happened = match disturbance {
        Disturbance::Kills => figures.killed > 0,
        Disturbance::Damage => figures.heals > 0,
    };
    assert!(happened || ops < OPS, "without disturbance this shows nothing");
    arena.sandbox.ok("state set done=yes");
    arena.sandbox.ok("lock clean");
    assert_eq!(arena.sandbox.debris(), Vec::<std::path::PathBuf>::new());
}

#[test]
fn a_history_with_kills_is_linearizable() {
    history(Disturbance::Kills, OPS);
}

#[test]
fn a_history_with_a_damaged_live_file_loses_no_revision() {
    history(Disturbance::Damage, OPS / 2);
}
