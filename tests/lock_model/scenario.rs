//! Scenarios: the commands of the scripts, their possible faults, and deliberate mistakes in the
//! protocol.

use pipeline_state::lock::liveness::{LivenessOracle, WaiterState};
use pipeline_state::lock::{
    Deadline, Deadlocks, Grant, Identity, Liveness, Mode, Purpose, Reentrancy, Request,
    RequestSpec, Requester, STATE, Waiter,
};
use std::time::Duration;

use super::world::{
    Faults, LOCKS, Libraries, SCRIPTS, Script, Step, World, code_of, identity, process_code,
    script_code, script_of,
};
use pipeline_state::name::Name;

/// A command of a script.
#[derive(Clone, Copy, Debug)]
pub enum Command {
    Acquire(&'static [usize], Mode),
    /// Likewise; a lock that is held already is counted up.
    AcquireAgain(&'static [usize], Mode),
    Release(&'static [usize]),
    /// A commit of the state, which is lock 0.
    Commit,
    /// Takes the lock away from all its holders.
    Break(usize),
    /// The end of every script: it gives back its locks.
    GiveAllBack,
}

/// A mistake in the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    None,
    /// Grants what was seen without the gate, without a check under it.
    GrantWithoutSecondCheck,
    /// Drains commits first, and writes the record afterwards.
    RecordAfterDrain,
    DrainSkipped,
    /// Reads the record first, and takes the flock of the state afterwards.
    CommitReadsBeforeFlock,
    /// Sleeps without a check once it is queued.
    SleepWithoutCheck,
    /// Does not check before sleeping that the judged records are still in place.
    JudgedOnce,
    /// Drains the wakeup after the check, not before it.
    WakeupDrainedAfterCheck,
    /// Frees a lock without waking a waiter.
    SilentRelease,
    /// Wakes only the first waiter, although others may share.
    OnlyFirstWoken,
    /// Queues shared requests ahead of all others.
    SharedAhead,
    /// Numbers a waiter by the length of the queue, not after the last one.
    NumberedByLength,
    /// Does not watch for the death of the blocker.
    BlockerNotWatched,
    /// Changes several records without a journal.
    NoJournal,
    /// Judges a living owner as dead.
    LivingTakenForDead,
    /// Judges a waiter in its place as stopped.
    WaitingTakenForStopped,
    /// Judges a dead owner as alive.
    DeadTakenForLiving,
    NoDeadlockSearch,
    /// Searches for a cycle before it has joined the queues.
    SearchBeforeJoining,
    /// Refuses a request for a cycle that was seen without the gate.
    CycleNotConfirmed,
    /// Hands out a token without counting it.
    TokenGivenTwice,
    /// Waits for a frozen waiter.
    FrozenBlocks,
    /// Passes over a waiter that is not next.
    AnyPassedOver,
    /// Leaves the mark of a passed-over waiter that runs again in the record.
    MarkKept,
    /// Does not lock a waiter's lifeline.
    LifelineNotHeld,
    /// Waits for a dead waiter of another pid namespace.
    DeadLifelineBlocks,
}

pub struct Scenario {
    pub names: Vec<Name>,
    pub scripts: [Vec<Command>; SCRIPTS],
    pub faults: Faults,
    pub mistake: Mistake,
    /// Each run of a command is in a pid namespace of its own.
    pub is_apart: bool,
    pub libraries: Libraries,
    requests: Vec<Option<Request>>,
}

impl Scenario {
    pub fn new(names: &[&str], scripts: [&[Command]; SCRIPTS], faults: Faults) -> Self {
        let names: Vec<Name> =
            names.iter().map(|name| Name::parse("lock", name).unwrap()).collect();
        assert!(names.len() <= LOCKS);
        let scripts = scripts.map(|commands| [commands, &[Command::GiveAllBack]].concat());
        let mut requests = vec![None; 256];
        for (script, commands) in scripts.iter().enumerate() {
            for (number, command) in commands.iter().enumerate() {
                for attempt in [0, 1] {
                    let code = process_code(script, u8::try_from(number).unwrap(), attempt);
                    requests[usize::from(code)] = Some(request(&names, script, code, *command));
                }
            }
        }
        Self {
            names,
            scripts,
            faults,
            mistake: Mistake::None,
            is_apart: false,
            libraries: Libraries::new(),
            requests,
        }
    }

    pub fn with(mut self, mistake: Mistake) -> Self {
        self.mistake = mistake;
        self
    }

    pub fn apart(mut self) -> Self {
        self.is_apart = true;
        self
    }

    pub fn begin(&self) -> World {
        let script = Script {
            is_alive: true,
            command: 0,
            attempt: 0,
            step: Step::Begin,
            holds: [None; LOCKS],
            is_queued: false,
            wakeup: false,
            is_stopped: false,
            is_frozen: false,
            has_lifeline: false,
            is_excused: false,
            is_late: false,
            is_broken: false,
            rechecks_soon: false,
            seems_deadlocked: false,
        };
        let mut world = World {
            records: [0; LOCKS],
            queues: [0; LOCKS],
            journal: 0,
            gate: None,
            flock: None,
            token: 1,
            highest: 0,
            queue: [None; SCRIPTS],
            faults: self.faults,
            scripts: [script; SCRIPTS],
        };
        for (script, commands) in world.scripts.iter_mut().zip(&self.scripts) {
            if commands.len() == 1 {
                script.step = Step::End;
            }
        }
        world
    }

    pub fn command(&self, world: &World, script: usize) -> Command {
        self.scripts[script][usize::from(world.scripts[script].command)]
    }

    /// The request of a script's command; that of a release names no locks, only the requester.
    pub fn request<'a>(&'a self, world: &World, script: usize) -> &'a Request {
        self.requests[usize::from(world.code(script))].as_ref().unwrap()
    }

    /// The locks that a command concerns.
    pub fn locks(&self, world: &World, script: usize) -> Vec<usize> {
        match self.command(world, script) {
            Command::Acquire(locks, _)
            | Command::AcquireAgain(locks, _)
            | Command::Release(locks) => locks.to_vec(),
            Command::Commit => vec![0],
            Command::Break(lock) => vec![lock],
            Command::GiveAllBack => {
                let holds = &world.scripts[script].holds;
                (0..LOCKS).filter(|lock| holds[*lock].is_some()).collect()
            }
        }
    }

    pub fn wants_state(&self, request: &Request) -> bool {
        request.names.iter().any(|name| name.as_str() == STATE)
    }

    pub fn oracle<'a>(&self, world: &'a World, me: usize) -> View<'a> {
        View {
            world,
            mistake: self.mistake,
            apart: self.is_apart.then(|| [world.code(me), script_code(me)]),
        }
    }
}

/// A view of the world that a mistake may distort.
pub struct View<'a> {
    world: &'a World,
    mistake: Mistake,
    /// The processes that it can judge by their pids: itself and its script. `None`: all.
    apart: Option<[u8; 2]>,
}

impl View<'_> {
    fn is_elsewhere(&self, code: u8) -> bool {
        self.apart.is_some_and(|here| !here.contains(&code))
    }
}

impl LivenessOracle for View<'_> {
    fn process(&self, process: &Identity) -> Liveness {
        match self.mistake {
            Mistake::DeadTakenForLiving => Liveness::Alive,
            _ if self.is_elsewhere(code_of(process)) => Liveness::Unknown,
            _ => self.world.process(process),
        }
    }

    fn grant(&self, grant: &Grant) -> Liveness {
        match self.mistake {
            Mistake::LivingTakenForDead => Liveness::Dead,
            _ => grant.owner.as_ref().map_or(Liveness::Unknown, |owner| self.process(owner)),
        }
    }

    fn waiter(&self, waiter: &Waiter) -> WaiterState {
        let code = code_of(&waiter.process);
        if self.is_elsewhere(code) {
            // Only the flock of its lifeline is visible.
            let is_held =
                self.world.lives(code) && self.world.scripts[script_of(code)].has_lifeline;
            let is_waited_for = is_held || self.mistake == Mistake::DeadLifelineBlocks;
            return if is_waited_for { WaiterState::Waiting } else { WaiterState::Dead };
        }
        match (self.mistake, self.world.waiter(waiter)) {
            (Mistake::WaitingTakenForStopped, WaiterState::Waiting) => WaiterState::Skipped,
            (Mistake::DeadTakenForLiving, WaiterState::Dead) => WaiterState::Waiting,
            (_, state) => state,
        }
    }
}

fn request(names: &[Name], script: usize, code: u8, command: Command) -> Request {
    let (script, process) = (identity(script_code(script)), identity(code));
    let of_script = Requester {
        owner: script.clone(),
        ancestry: vec![script.clone()],
        explicit: false,
        process: process.clone(),
        env_tokens: Vec::new(),
    };
    // A commit or a release acts for the process and its ancestors: see
    // `owner::self_and_ancestors`.
    let of_process = Requester {
        owner: process.clone(),
        ancestry: vec![process.clone(), script],
        explicit: false,
        process,
        env_tokens: Vec::new(),
    };
    let hold = |mode, reentrancy| RequestSpec { mode, purpose: Purpose::Hold, reentrancy };
    let (locks, spec, requester) = match command {
        Command::Acquire(locks, mode) => (locks, hold(mode, Reentrancy::Refused), of_script),
        Command::AcquireAgain(locks, mode) => (locks, hold(mode, Reentrancy::Counted), of_script),
        Command::Commit => {
            let spec = RequestSpec {
                mode: Mode::Exclusive,
                purpose: Purpose::Commit,
                reentrancy: Reentrancy::Refused,
            };
            ([0].as_slice(), spec, of_process)
        }
        Command::Release(_) | Command::Break(_) | Command::GiveAllBack => {
            ([].as_slice(), hold(Mode::Exclusive, Reentrancy::Refused), of_process)
        }
    };
    Request {
        names: locks.iter().map(|lock| names[*lock].clone()).collect(),
        spec,
        requester,
        command: String::new(),
        deadline: Deadline::after(Duration::ZERO),
        deadlocks: Deadlocks::Refused,
        metadata: None,
        ttl: None,
        live_file: None,
    }
}
