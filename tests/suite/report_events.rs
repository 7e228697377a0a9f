//! Events of scripts, as lines of a journal: a recorded hour, and many.

use std::fs;
use std::time::{Duration, SystemTime};

use pipeline_state::document::seal::{Digest, Lineage, Revision};
use pipeline_state::journal::changes::{Change, Changes};
use pipeline_state::journal::event::{
    Blocker, CheckpointEvent, CheckpointStep, Failure, LockEvent, LockMode, LockStep, Party,
    RestoreEvent, RestoreStep, RetryEvent, RetryStep, Role,
};
use pipeline_state::journal::{Commit, Event, Events, GuardEvent, GuardStep, Origin, Owner};
use pipeline_state::time::rfc3339_millis;

use crate::sandbox::Sandbox;

/// A script that causes events.
#[derive(Clone, Copy, Debug)]
pub struct Script {
    pub program: &'static str,
    pub pid: u32,
}

pub const BUILD: Script = Script { program: "build.sh", pid: 101 };
pub const TEST: Script = Script { program: "test.sh", pid: 102 };
pub const DEPLOY: Script = Script { program: "deploy.sh", pid: 103 };

/// Events in the order of their lines.
pub struct Recording {
    base: SystemTime,
    revision: u64,
    pub list: Vec<Event>,
}

impl Script {
    pub fn party(self, token: Option<u64>) -> Party {
        Party { pid: Some(self.pid), program: self.program.into(), host: "build1".into(), token }
    }

    pub fn holder(self, token: u64) -> Blocker {
        Blocker { role: Role::Holder, party: self.party(Some(token)) }
    }

    pub fn waiter(self) -> Blocker {
        Blocker { role: Role::Waiter, party: self.party(None) }
    }
}

impl Recording {
    pub fn new(base: SystemTime) -> Self {
        Self { base, revision: 0, list: Vec::new() }
    }

    pub fn events(self) -> Events {
        Events { list: self.list, ..Events::default() }
    }

    /// The origin of an event of a script, so many seconds after the beginning.
    pub fn origin(&self, at: f64, script: Script) -> Origin {
        Origin {
            time: rfc3339_millis(self.base + Duration::from_secs_f64(at)),
            pid: script.pid + 1000,
            owner: Owner {
                pid: script.pid,
                uid: 0,
                host: "build1".into(),
                program: script.program.into(),
                start: Some(1),
            },
        }
    }

    pub fn lock(&mut self, at: f64, script: Script, lock: &str, step: LockStep) -> &mut LockEvent {
        let event = LockEvent {
            origin: self.origin(at, script),
            lock: lock.into(),
            step,
            mode: Some(LockMode::Exclusive),
            token: None,
            waited: 0.0,
            blockers: vec![],
            subject: None,
        };
        self.list.push(Event::Lock(event));
        match self.list.last_mut() {
            Some(Event::Lock(event)) => event,
            _ => unreachable!(),
        }
    }

    pub fn granted(&mut self, at: f64, script: Script, lock: &str, token: u64) -> &mut LockEvent {
        let event = self.lock(at, script, lock, LockStep::Granted);
        event.token = Some(token);
        event
    }

    pub fn released(&mut self, at: f64, script: Script, lock: &str, token: u64) {
        self.lock(at, script, lock, LockStep::Released).token = Some(token);
    }

    pub fn commit(&mut self, at: f64, script: Script, reason: &str, list: Vec<Change>) {
        self.revision += 1;
        self.list.push(Event::Commit(Commit {
            origin: self.origin(at, script),
            lineage: Lineage::from_bytes([1; 16]),
            revision: Revision::new(self.revision).unwrap(),
            digest: Digest::of(b"x"),
            command: "state set".into(),
            reason: Some(reason.into()),
            waited: 0.0,
            blockers: vec![],
            bytes: 700,
            repeats: None,
            changes: Some(Changes { list, more: 0 }),
            guards: vec![],
        }));
    }

    pub fn guard(&mut self, at: f64, script: Script, step: GuardStep, code: Option<u8>) {
        self.list.push(Event::Guard(GuardEvent {
            origin: self.origin(at, script),
            id: "checkpoint-20260102-030405-migrate".into(),
            step,
            code,
            attempts: code.map(|_| 1),
            guards: vec![],
        }));
    }

    pub fn failure(&mut self, at: f64, script: Script, kind: &str, message: &str) {
        self.list.push(Event::Failure(Failure {
            origin: self.origin(at, script),
            command: "lock acquire".into(),
            code: 2,
            kind: kind.into(),
            message: message.into(),
        }));
    }

    /// Appends the lines to the journal of a root.
    pub fn write(&self, root: &Sandbox) {
        let lines: String = self.list.iter().map(|event| event.to_line().unwrap()).collect();
        let path = root.file(".state-backups/journal.jsonl");
        fs::write(path, lines).unwrap();
    }
}

pub fn phase(old: &str, new: &str) -> Change {
    Change::Phase { old: Some(old.into()), new: Some(new.into()) }
}

pub fn task(name: &str) -> Change {
    Change::Task { name: name.into(), is_added: true }
}

/// An hour with three contending scripts, a guard whose command failed, an error and a restore.
pub fn recorded_hour(base: SystemTime) -> Recording {
    let mut hour = Recording::new(base);
    hour.commit(0.0, BUILD, "start", vec![phase("none", "build")]);
    hour.granted(60.0, BUILD, "deploy", 1);
    hour.granted(90.0, TEST, "artifacts", 2).mode = Some(LockMode::Shared);
    hour.commit(200.0, BUILD, "lint is clean", vec![task("lint")]);
    hour.commit(420.0, BUILD, "unit tests pass", vec![task("unit"), phase("build", "test")]);
    hour.released(700.0, TEST, "artifacts", 2);
    hour.released(900.0, BUILD, "deploy", 1);
    let test = hour.granted(900.0, TEST, "deploy", 3);
    (test.waited, test.blockers) = (700.0, vec![BUILD.holder(1)]);
    hour.commit(1000.0, TEST, "ready to ship", vec![Change::Path(".signals.TESTED".into())]);
    let deploy = hour.lock(1200.0, DEPLOY, "deploy", LockStep::TimedOut);
    (deploy.waited, deploy.blockers) = (800.0, vec![BUILD.holder(1), TEST.waiter()]);
    hour.failure(1200.0, DEPLOY, "lock_timeout", "the lock deploy timed out after 800 s");
    hour.released(1500.0, TEST, "deploy", 3);
    let deploy = hour.granted(1500.0, DEPLOY, "deploy", 4);
    (deploy.waited, deploy.blockers) = (120.0, vec![TEST.holder(3)]);
    hour.commit(1520.0, DEPLOY, "", vec![phase("test", "deploy")]);
    hour.guard(1600.0, DEPLOY, GuardStep::Began, None);
    checkpoint(&mut hour, 1600.0, "checkpoint-20260102-030405-migrate");
    hour.commit(1700.0, DEPLOY, "migrate the schema", vec![Change::Path(".schema".into())]);
    hour.guard(2000.0, DEPLOY, GuardStep::Ended, Some(3));
    hour.guard(2001.0, DEPLOY, GuardStep::Restored, None);
    let event = Event::Restore(RestoreEvent {
        origin: hour.origin(2001.0, DEPLOY),
        lineage: None,
        id: "checkpoint-20260102-030405-migrate".into(),
        step: RestoreStep::Restored,
        revision: Some(7),
    });
    hour.list.push(event);
    retry(&mut hour, 2100.0, RetryStep::Began);
    retry(&mut hour, 2400.0, RetryStep::Succeeded);
    let broken = hour.lock(2600.0, BUILD, "deploy", LockStep::Broken);
    broken.subject = Some(DEPLOY.party(Some(4)));
    hour.granted(2600.0, BUILD, "deploy", 5);
    let died = hour.lock(3000.0, TEST, "deploy", LockStep::OwnerDied);
    died.subject = Some(BUILD.party(Some(5)));
    let test = hour.granted(3000.0, TEST, "deploy", 6);
    (test.waited, test.blockers) = (300.0, vec![BUILD.holder(5)]);
    hour.commit(3100.0, TEST, "", vec![phase("deploy", "done"), task("deploy")]);
    hour.released(3200.0, TEST, "deploy", 6);
    hour.granted(3300.0, BUILD, "cache", 7);
    hour
}

fn checkpoint(hour: &mut Recording, at: f64, id: &str) {
    let event = CheckpointEvent {
        origin: hour.origin(at, DEPLOY),
        lineage: None,
        id: id.into(),
        step: CheckpointStep::Made,
    };
    hour.list.push(Event::Checkpoint(event));
}

fn retry(hour: &mut Recording, at: f64, step: RetryStep) {
    let event = RetryEvent {
        origin: hour.origin(at, DEPLOY),
        step,
        program: "curl".into(),
        attempts: (step != RetryStep::Began).then_some(3),
        code: (step != RetryStep::Began).then_some(0),
    };
    hour.list.push(Event::Retry(event));
}

/// So many events: scripts that take turns with a lock, and commit.
pub fn many(base: SystemTime, count: usize) -> Recording {
    let scripts = [BUILD, TEST, DEPLOY];
    let mut all = Recording::new(base);
    for turn in 0_u32.. {
        let (at, token) = (f64::from(turn) * 0.2, u64::from(turn) + 1);
        let script = scripts[turn as usize % scripts.len()];
        let before = scripts[(turn as usize + scripts.len() - 1) % scripts.len()];
        let granted = all.granted(at, script, "deploy", token);
        if turn > 0 {
            (granted.waited, granted.blockers) = (0.3, vec![before.holder(token - 1)]);
        }
        all.commit(at + 0.05, script, "turn", vec![task(&format!("turn-{turn}"))]);
        all.commit(at + 0.06, script, "turn", vec![Change::Path(".turn".into())]);
        all.failure(at + 0.07, script, "conflict", "another commit came first");
        all.released(at + 0.19, script, "deploy", token);
        if all.list.len() >= count {
            break;
        }
    }
    all.list.truncate(count);
    all
}
