//! A root and three scripts at one instant: the records, the holders of the gate and of the flock
//! of the state, and the step that each script's command has reached.

use pipeline_state::lock::deadlock::Ancestry;
use pipeline_state::lock::files::encoding::encode;
use pipeline_state::lock::files::journal::PendingChange;
use pipeline_state::lock::liveness::{LivenessOracle, WaiterState};
use pipeline_state::lock::queue_entry::name_of;
use pipeline_state::lock::{Acquired, Grant, Identity, Liveness, Mode, Record, Waiter};
use pipeline_state::name::Name;
use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::rc::Rc;

pub const SCRIPTS: usize = 3;
pub const LOCKS: usize = 2;

/// Items stored once and numbered, since worlds are compared and copied a million times.
pub struct Library<T> {
    kept: RefCell<Already<T>>,
    spell: fn(&T) -> Vec<u8>,
}

/// The items, and their numbers by their bytes.
type Already<T> = (Vec<Rc<T>>, HashMap<Vec<u8>, u16, BuildHasherDefault<Quick>>);

/// A hash that is good enough for trusted input; the standard one takes half the time of a search.
#[derive(Default)]
pub struct Quick(u64);

impl Hasher for Quick {
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 29)
    }

    fn write(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while let Some((word, after)) = rest.split_first_chunk::<8>() {
            self.write_u64(u64::from_le_bytes(*word));
            rest = after;
        }
        rest.iter().for_each(|byte| self.write_u8(*byte));
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    }

    fn write_u8(&mut self, byte: u8) {
        self.write_u64(byte.into());
    }

    fn write_u16(&mut self, number: u16) {
        self.write_u64(number.into());
    }

    fn write_isize(&mut self, number: isize) {
        self.write_u64(number.cast_unsigned() as u64);
    }

    fn write_usize(&mut self, number: usize) {
        self.write_u64(number as u64);
    }
}

impl<T> Library<T> {
    /// Number 0 is `nothing`.
    pub fn new(nothing: T, spell: fn(&T) -> Vec<u8>) -> Self {
        let library = Self { kept: RefCell::default(), spell };
        library.number(nothing);
        library
    }

    pub fn number(&self, item: T) -> u16 {
        let (items, numbers) = &mut *self.kept.borrow_mut();
        *numbers.entry((self.spell)(&item)).or_insert_with(|| {
            items.push(Rc::new(item));
            u16::try_from(items.len() - 1).unwrap()
        })
    }

    pub fn get(&self, number: u16) -> Rc<T> {
        self.kept.borrow().0[usize::from(number)].clone()
    }
}

pub struct Libraries {
    pub records: Library<Record>,
    pub queues: Library<Vec<Waiter>>,
    pub journals: Library<Option<PendingChange>>,
    pub grants: Library<Vec<Acquired>>,
}

impl Libraries {
    pub fn new() -> Self {
        Self {
            records: Library::new(Record::default(), encode),
            queues: Library::new(Vec::new(), |queue| names_of(queue).join("\n").into_bytes()),
            journals: Library::new(None, |journal| serde_json::to_vec(journal).unwrap()),
            grants: Library::new(Vec::new(), |grants| format!("{grants:?}").into_bytes()),
        }
    }
}

/// The names of the files in a queue.
pub fn names_of(queue: &[Waiter]) -> Vec<String> {
    queue.iter().filter_map(name_of).collect()
}

/// Everything at one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct World {
    /// The numbers of the records in place.
    pub records: [u16; LOCKS],
    /// The numbers of the queues: the files of waiters, by name.
    pub queues: [u16; LOCKS],
    /// The number of the journal; 0 if there is none.
    pub journal: u16,
    /// The script with the command that holds the gate.
    pub gate: Option<u8>,
    /// The script with the command that holds the flock of the state.
    pub flock: Option<u8>,
    /// The next token, and the highest that was ever put on record.
    pub token: u8,
    pub highest: u8,
    /// The queued scripts in order of arrival, for the promise of order.
    pub queue: [Option<u8>; SCRIPTS],
    /// The faults that may still happen.
    pub faults: Faults,
    pub scripts: [Script; SCRIPTS],
}

/// The number of faults of each kind that may happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Faults {
    /// A command is killed; its script starts it once more.
    pub kills: u8,
    /// A script is killed; its command goes on.
    pub deaths: u8,
    /// A command is stopped, and continued later.
    pub stops: u8,
    /// A wait times out.
    pub expiries: u8,
    /// A command is frozen, which no other process can see, and runs again later.
    pub freezes: u8,
}

impl std::fmt::Display for Faults {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let all = [
            (self.kills, "kill"),
            (self.deaths, "death"),
            (self.stops, "stop"),
            (self.expiries, "expiry"),
            (self.freezes, "freeze"),
        ];
        let some: Vec<String> = all
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, of)| format!("{count} {of}"))
            .collect();
        f.write_str(if some.is_empty() { "no mishap" } else { "" })?;
        f.write_str(&some.join(", "))
    }
}

/// A script, and the command that it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Script {
    pub is_alive: bool,
    /// The number of its command, and of the attempt at it.
    pub command: u8,
    pub attempt: u8,
    pub step: Step,
    /// The locks that it may rely on.
    pub holds: [Option<Held>; LOCKS],
    /// Its command has a place in the queues.
    pub is_queued: bool,
    /// A wakeup is pending that its command has not drained.
    pub wakeup: bool,
    pub is_stopped: bool,
    pub is_frozen: bool,
    /// Its command holds the flock of its lifeline.
    pub has_lifeline: bool,
    /// It was frozen for the whole grace period: the waiter that marks it as passed over does not
    /// overtake it.
    pub is_excused: bool,
    /// Its command's time is up.
    pub is_late: bool,
    /// Its lock was taken away from it.
    pub is_broken: bool,
    /// A change without a sign has happened: it re-checks within a second.
    pub rechecks_soon: bool,
    /// Its command found a cycle without the gate.
    pub seems_deadlocked: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Held {
    Alone,
    Shared,
}

impl Held {
    pub fn of(mode: Mode) -> Self {
        match mode {
            Mode::Exclusive => Self::Alone,
            Mode::Shared => Self::Shared,
        }
    }
}

/// The next step of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// It has not begun.
    Begin,
    /// It needs the gate.
    Pass(Errand),
    /// It holds the gate, and completes the change of a dead writer.
    Complete(Ops, Errand),
    /// It holds the gate, and has decided what to write.
    Write(Plan),
    /// All is written, and it finds out which waiters may be next.
    Note(Plan),
    /// It creates its lifeline.
    Anchor(Plan),
    /// It has left the gate, and wakes the waiters that may be next.
    Wake(Plan),
    /// It searches for a cycle, without the gate.
    Search,
    /// It drains its wakeups before it reads the records.
    Listen,
    /// It lists the queues, then reads the journal and a record.
    PeekQueue(Peek),
    PeekJournal(Peek),
    PeekRecord(Peek),
    /// It judges what it has read.
    LivenessProbe(Peek),
    /// It sleeps until one of these processes ends, or it is woken.
    Sleep([u8; 3]),
    /// It needs the flock of the state, to commit or to drain.
    Flock(Turn),
    /// It holds that flock and commits.
    Commit,
    /// The script has nothing more to do.
    End,
}

/// The work to do under the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Errand {
    /// The command's own request.
    Request,
    /// Give up the place in the queues.
    Leave(Outcome),
    /// Give back the grants of this number.
    GiveBack(u16),
    /// Mark a waiter as passed over, for this lock.
    PassOver(u8, u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Turn {
    ToCommit,
    ToDrain(u16),
    /// To drain, before reporting that the lock is held already.
    ToDrainAgain,
    /// A mistake: to commit upon what was read without the flock.
    AlreadySeen,
    /// A mistake: to drain before the grant is written.
    TooEarly(Plan),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    Done,
    Failed,
}

/// The result of reading without the gate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Peek {
    pub journal: u16,
    pub queues: [u16; LOCKS],
    pub listed: u8,
    pub seen: [u16; LOCKS],
    pub count: u8,
    /// The scripts excused at that time, for a commit.
    pub excused: [bool; SCRIPTS],
    /// The judged records, which must still be in place, and the processes that the sleep awaits.
    pub judged: Option<([u16; LOCKS], [u8; 3])>,
}

/// Writes of which some are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ops {
    pub all: [Option<Op>; 10],
    pub made: u8,
}

impl Ops {
    pub fn next(&self) -> Option<Op> {
        self.all.get(usize::from(self.made)).copied().flatten()
    }
}

/// One replacement of a file, or a queue in which one name is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    Record(u8, u16),
    Journal(u16),
    Queue(u8, u16),
}

/// The writes under the gate, and what follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Plan {
    pub ops: Ops,
    /// The locks that may be free for a waiter.
    pub unblocks_someone: [bool; LOCKS],
    /// The processes to wake.
    pub wake: [u8; SCRIPTS],
    pub then: Then,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Then {
    /// The command ends.
    End(Outcome),
    /// The request was granted, with the grants of this number.
    Granted(u16),
    /// It is queued.
    Wait,
    /// It keeps its place, and has cleared its passed-over mark.
    WaitOn,
    /// It is its turn to commit.
    Turn,
    /// The place in the queue is given up before the command ends.
    Leave(Outcome),
    /// The lock is held already.
    AlreadyHeld,
    /// Likewise, and commits are drained before that is reported.
    DrainAgain,
    /// A waiter was passed over, and the request is checked again.
    AskAgain,
}

/// A process, as a number: 0 for none.
pub fn process_code(script: usize, command: u8, attempt: u8) -> u8 {
    1 + u8::try_from(script).unwrap() * 32 + command * 2 + attempt
}

pub fn script_code(script: usize) -> u8 {
    200 + u8::try_from(script).unwrap()
}

/// No process has such a pid.
const FIRST_PID: u32 = 2_000_000_000;

pub fn identity(code: u8) -> Identity {
    Identity { pid: FIRST_PID + u32::from(code), start: 1, namespace: Default::default() }
}

pub fn code_of(identity: &Identity) -> u8 {
    u8::try_from(identity.pid - FIRST_PID).unwrap()
}

/// The script that a process is, or belongs to.
pub fn script_of(code: u8) -> usize {
    usize::from(if code >= 200 { code - 200 } else { (code - 1) / 32 })
}

impl World {
    pub fn code(&self, script: usize) -> u8 {
        process_code(script, self.scripts[script].command, self.scripts[script].attempt)
    }

    pub fn lives(&self, code: u8) -> bool {
        let script = script_of(code);
        if code >= 200 {
            self.scripts[script].is_alive
        } else {
            self.is_running(script) && self.code(script) == code
        }
    }

    pub fn is_running(&self, script: usize) -> bool {
        !matches!(self.scripts[script].step, Step::Begin | Step::End)
    }

    /// The record that every reader sees.
    pub fn effective(&self, libraries: &Libraries, lock: usize, name: &Name) -> Rc<Record> {
        let journal = libraries.journals.get(self.journal);
        let pending = journal.as_ref().as_ref().and_then(|pending| pending.record(name));
        let record =
            pending.unwrap_or_else(|| libraries.records.get(self.records[lock]).as_ref().clone());
        Rc::new(record.with_queue(libraries.queues.get(self.queues[lock]).as_ref().clone()))
    }
}

/// The world as the decision functions see it.
impl LivenessOracle for World {
    fn process(&self, process: &Identity) -> Liveness {
        if self.lives(code_of(process)) { Liveness::Alive } else { Liveness::Dead }
    }

    fn grant(&self, grant: &Grant) -> Liveness {
        grant.owner.as_ref().map_or(Liveness::Unknown, |owner| self.process(owner))
    }

    fn waiter(&self, waiter: &Waiter) -> WaiterState {
        let script = self.scripts[script_of(code_of(&waiter.process))];
        // A frozen process looks like one that is about to run.
        if [&waiter.process, &waiter.owner]
            .iter()
            .any(|process| self.process(process) == Liveness::Dead)
        {
            WaiterState::Dead
        } else if script.is_stopped || script.is_late {
            WaiterState::Skipped
        } else {
            WaiterState::Waiting
        }
    }
}

/// A command's parent is its script.
pub struct Parents;

impl Ancestry for Parents {
    fn ancestry_of(&mut self, process: &Identity) -> Vec<Identity> {
        let code = code_of(process);
        let script = identity(script_code(script_of(code)));
        if code >= 200 { vec![script] } else { vec![process.clone(), script] }
    }
}
