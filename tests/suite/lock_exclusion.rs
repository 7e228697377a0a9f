//! P5, exclusion: an exclusive lock is never held together with another grant, whatever is killed,
//! at any moment.
//!
//! Many owners take a few locks in both modes over and over, and are killed at random, or have
//! their commands killed. Two checks run, neither of which asks the program under test:
//!
//! - The log. An owner writes a line after it gets the lock and one before it releases it, to one
//!   shared pipe. Lines this short are written atomically (pipe(7)), so their order in the pipe is
//!   the order of writing, and between the two lines the owner certainly held the lock: no
//!   conflicting owner's first line may be there. Of two conflicting grants the later must have the
//!   higher token.
//! - The witness. Between the two lines an owner holds flock(2) on a file, tried without waiting.
//!   No other owner may have it. This covers killed owners, too: the kernel drops the flock of a
//!   dying process before it shows the process as dead. So no child may inherit the witness, which
//!   would hold it a little longer; it is opened close-on-exec and closed before the next child is
//!   started. A shell cannot do that, which is why the owners are not scripts.

use std::collections::{HashMap, HashSet};
use std::fs::{File, TryLockError};
use std::io::{BufRead as _, BufReader, PipeWriter, Write as _};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use crate::dice::Dice;
use crate::sandbox::{BINARY, Ran, Sandbox};
use crate::shell::on_record;

/// Enough to reveal a broken exclusion many times over. `LOCK_ACQUISITIONS=10000` asks for more.
const ACQUISITIONS: usize = 600;
const OWNERS: usize = 32;
const LOCKS: [&str; 3] = ["one", "two", "three"];

#[test]
fn exclusive_locks_stay_exclusive_while_owners_are_killed() {
    if let Ok(seed) = std::env::var(SEED) {
        own_locks_until_killed(seed.parse().unwrap());
    }
    let acquisitions = std::env::var("LOCK_ACQUISITIONS")
        .map_or(ACQUISITIONS, |number| number.parse().expect("a number"));
    let began = Instant::now();
    let sandbox = Sandbox::with_locks();
    let (reader, writer) = std::io::pipe().unwrap();
    let mut owners: Vec<Killed> =
        (0..OWNERS).map(|seed| Killed(owner(&sandbox, seed, &writer))).collect();
    let mut dice = Dice::new(7);
    let (mut log, mut kills, mut next) = (Log::default(), 0, dice.below(40));
    for line in BufReader::new(reader).lines() {
        log.check(&line.unwrap());
        if log.grants >= acquisitions {
            break;
        }
        if log.grants >= next {
            // at any point of its work
            let victim = dice.below(OWNERS);
            owners[victim] = Killed(owner(&sandbox, OWNERS + kills, &writer));
            (kills, next) = (kills + 1, next + 1 + dice.below(40));
        }
    }
    drop(owners);

    println!(
        "{} acquisitions, {} of them exclusive; {kills} owners killed at any time, {} while they \
         held a lock; {} commands killed; {:.1} s",
        log.grants,
        log.exclusive,
        log.over.len(),
        log.commands_killed,
        began.elapsed().as_secs_f64()
    );
    assert!(
        kills > 0 && log.commands_killed > 0 && !log.over.is_empty(),
        "no kill came at a bad moment"
    );
    // grants of dead owners block no request, and are removed
    for name in LOCKS {
        sandbox
            .run(&format!("lock acquire {name} 10 --owner-pid {}", std::process::id()))
            .expect(0);
    }
    sandbox.ok("lock clean");
    let left = on_record(&sandbox);
    assert_eq!(left.len(), LOCKS.len(), "what the dead left is still there: {left:?}");
    assert!(sandbox.debris().is_empty(), "{:?}", sandbox.debris());
}

/// A process that is killed when it is dropped or replaced.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

// ---- the log ----

#[derive(Default)]
struct Log {
    grants: usize,
    exclusive: usize,
    commands_killed: usize,
    tokens: HashSet<u64>,
    /// For each lock the highest token of an exclusive grant, and of any.
    highest: HashMap<String, (u64, u64)>,
    /// Held locks, or locks of dead holders: token to lock and exclusivity.
    held: HashMap<u64, (String, bool)>,
    /// Grants that are certainly over, because a conflicting owner had the lock: their owners must
    /// be dead.
    over: HashSet<u64>,
}

impl Log {
    fn check(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        match *words.as_slice() {
            ["enter", lock, mode, token] => {
                self.enter(lock, mode == "exclusive", token.parse().unwrap())
            }
            ["leave", token] => {
                let token = token.parse().unwrap();
                let (lock, _) = self
                    .held
                    .remove(&token)
                    .unwrap_or_else(|| panic!("{token} left without entering"));
                assert!(
                    !self.over.contains(&token),
                    "{lock} was held by token {token} and by another that conflicts"
                );
            }
            ["killed", _] => self.commands_killed += 1,
            _ => panic!("an owner says: {line}"),
        }
    }

    fn enter(&mut self, lock: &str, exclusive: bool, token: u64) {
        assert!(self.tokens.insert(token), "token {token} was given twice");
        let (highest_exclusive, highest) = self.highest.entry(lock.to_owned()).or_default();
        let before = if exclusive { *highest } else { *highest_exclusive };
        assert!(token > before, "{lock}: token {token} comes after {before}");
        *highest = token.max(*highest);
        if exclusive {
            *highest_exclusive = token;
            self.exclusive += 1;
        }
        let conflicting =
            self.held.iter().filter(|(_, (name, alone))| name == lock && (exclusive || *alone));
        self.over.extend(conflicting.map(|(token, _)| *token));
        self.held.insert(token, (lock.to_owned(), exclusive));
        self.grants += 1;
    }
}

// ---- the owners ----

const SEED: &str = "LOCK_EXCLUSION_SEED";
const TEST: &str = "lock_exclusion::exclusive_locks_stay_exclusive_while_owners_are_killed";

/// A process that owns locks: this program, running only the test above, which sees the seed.
fn owner(sandbox: &Sandbox, seed: usize, log: &PipeWriter) -> Child {
    let mut command = sandbox.program(std::env::current_exe().unwrap());
    command.args(["--exact", TEST, "--nocapture"]);
    command
        .env_remove("PIPELINE_OWNER_PID")
        .env_remove("PIPELINE_LOCK_TOKEN")
        .env(SEED, seed.to_string());
    command.stdout(Stdio::null()).stderr(log.try_clone().unwrap()).spawn().unwrap()
}

fn own_locks_until_killed(seed: usize) -> ! {
    std::panic::set_hook(Box::new(|what| say(&what.to_string().replace('\n', " "))));
    let mut dice = Dice::new(seed);
    loop {
        let lock = LOCKS[dice.below(LOCKS.len())];
        let mode = ["exclusive", "shared"][dice.below(2)];
        let acquire = ["acquire", lock, "60", mode, "--print-token"];
        let Some(ran) = perhaps_killed(&acquire, &mut dice) else {
            // it may have been granted before the kill, and then it belongs to this owner
            give_back(lock, &mut dice);
            continue;
        };
        let token = ran.expect(0).stdout;
        let token = token.trim();

        let witness = File::create(lock.to_owned() + ".witness").unwrap();
        let witnessed =
            if mode == "exclusive" { witness.try_lock() } else { witness.try_lock_shared() };
        match witnessed {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                say(&format!("{lock} is held by another owner, too: {mode} {token}"))
            }
            Err(TryLockError::Error(error)) => panic!("{error}"),
        }
        say(&format!("enter {lock} {mode} {token}"));
        for _ in 0..dice.below(20) {
            std::thread::yield_now();
        }
        if dice.below(40) == 0 {
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)
                .unwrap();
        }
        say(&format!("leave {token}"));
        drop(witness);

        give_back(lock, &mut dice);
    }
}

/// Releases the lock, or finds that a killed command did.
fn give_back(lock: &str, dice: &mut Dice) {
    loop {
        if let Some(ran) = perhaps_killed(&["release", lock], dice) {
            let words = ["is not held", "not by this process"];
            assert!(
                ran.code == 0 || words.iter().any(|words| ran.stderr.contains(words)),
                "{ran:?}"
            );
            return;
        }
    }
}

/// Runs a `lock` command; `None` if it was killed.
fn perhaps_killed(args: &[&str], dice: &mut Dice) -> Option<Ran> {
    let mut command = Command::new(BINARY);
    command
        .arg("lock")
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    if dice.below(30) == 0 {
        for _ in 0..dice.below(1000) {
            std::thread::yield_now();
        }
        child.kill().unwrap();
        say(&format!("killed {}", args[0]));
    }
    let ran = Ran::of(child.wait_with_output().unwrap());
    (ran.code != 128 + 9).then_some(ran)
}

/// A line in one write.
fn say(line: &str) {
    std::io::stderr().write_all(format!("{line}\n").as_bytes()).unwrap();
}
