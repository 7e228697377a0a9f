//! The next step of a command. The order of the steps is that of `acquire`, `line`, `commit`,
//! `release` and `gate`; each decision is made by the program's own functions.

use super::scenario::{Command, Mistake, Scenario};
use super::search::{Move, What};
use super::world::{
    Errand, Held, Op, Ops, Outcome, Peek, SCRIPTS, Step, Then, Turn, World, script_code, script_of,
};
use pipeline_state::lock::Request;
use pipeline_state::lock::admission::first_blocker;
use pipeline_state::lock::files::journal::{WriteOp, completion_ops};
use pipeline_state::lock::queue_entry::{name_of, parse_all};
use pipeline_state::name::Name;

/// One script's next step in a world that it changes, and the complaint about it, if any.
pub struct Actor<'a> {
    pub scenario: &'a Scenario,
    pub world: World,
    pub me: usize,
    pub violation: Option<String>,
}

impl Scenario {
    /// Every world that may be next, and the complaint about a step that breaks a promise.
    pub fn moves(&self, world: &World) -> (Vec<(Move, World)>, Option<String>) {
        let mut moves = Vec::new();
        let mut violation = None;
        for script in 0..SCRIPTS {
            let mut actor = Actor { scenario: self, world: *world, me: script, violation: None };
            if actor.step().is_some() {
                moves.push((Move { what: What::Steps, script }, actor.world));
            }
            violation = violation.or(actor.violation);
            self.faults_of(world, script, &mut moves);
        }
        (moves, violation)
    }

    pub fn position_of(&self, name: &Name) -> usize {
        self.names.iter().position(|other| other == name).unwrap()
    }
}

impl<'a> Actor<'a> {
    pub fn step(&mut self) -> Option<()> {
        let script = self.world.scripts[self.me];
        if script.is_stopped || script.is_frozen {
            return None;
        }
        match script.step {
            Step::End => return None,
            Step::Begin => match self.scenario.command(&self.world, self.me) {
                Command::Commit if self.scenario.mistake == Mistake::CommitReadsBeforeFlock => {
                    self.read_all()
                }
                Command::Commit => self.take_flock(Turn::ToCommit)?,
                Command::Acquire(..) if self.scenario.mistake == Mistake::SearchBeforeJoining => {
                    self.set(Step::Search);
                }
                _ => self.pass(Errand::Request)?,
            },
            Step::Pass(errand) => self.pass(errand)?,
            Step::Complete(ops, errand) => {
                let ops = self.make(ops);
                match ops.next() {
                    Some(_) => self.set(Step::Complete(ops, errand)),
                    None => self.decide(errand),
                }
            }
            Step::Write(plan) => self.write(plan),
            Step::Note(plan) => self.note_who_is_next(plan),
            Step::Anchor(plan) => self.anchor(plan),
            Step::Wake(plan) => {
                plan.wake
                    .into_iter()
                    .for_each(|code| self.notify(code, |script| script.wakeup = true));
                self.go_on(plan.then);
            }
            Step::Search => self.search(),
            Step::Listen => {
                self.drain();
                match self.scenario.mistake {
                    Mistake::SleepWithoutCheck => {
                        self.set(Step::Sleep([script_code(self.me), 0, 0]))
                    }
                    _ => self.recheck(),
                }
            }
            Step::PeekQueue(read_record) => self.peek_queue(read_record),
            Step::PeekJournal(read_record) => {
                self.set(Step::PeekRecord(Peek { journal: self.world.journal, ..read_record }))
            }
            Step::PeekRecord(read_record) => self.peek_record(read_record),
            Step::LivenessProbe(read_record) => self.judge(&read_record),
            Step::Sleep(ends) => {
                let is_over = ends.iter().any(|code| *code != 0 && !self.world.lives(*code));
                if !(is_over
                    || script.wakeup
                    || script.rechecks_soon
                    || script.is_late
                    || self.sees_by_heartbeat())
                {
                    if let Some((lock, code)) = self.scenario.idle_before(&self.world, self.me) {
                        let other = &mut self.world.scripts[script_of(code)];
                        other.is_excused |= other.is_frozen;
                        self.set(Step::Pass(Errand::PassOver(lock, code)));
                        return Some(());
                    }
                    return None;
                }
                self.drain();
                self.recheck();
            }
            Step::Flock(turn) => self.take_flock(turn)?,
            Step::Commit => {
                self.world.flock = None;
                self.end_or_leave(Outcome::Done);
            }
        }
        Some(())
    }

    /// Nothing wakes a process in another pid namespace: it re-checks once a second.
    fn sees_by_heartbeat(&self) -> bool {
        let scenario = self.scenario;
        let record = |lock: &usize| {
            let name = &scenario.names[*lock];
            (name.clone(), self.world.effective(&scenario.libraries, *lock, name).as_ref().clone())
        };
        let records =
            || scenario.locks(&self.world, self.me).iter().map(record).collect::<Vec<_>>();
        scenario.is_apart
            && first_blocker(&records(), self.request(), &scenario.oracle(&self.world, self.me))
                .is_none()
    }

    pub fn set(&mut self, step: Step) {
        self.world.scripts[self.me].step = step;
    }

    pub fn request(&self) -> &'a Request {
        self.scenario.request(&self.world, self.me)
    }

    pub fn drain(&mut self) {
        let script = &mut self.world.scripts[self.me];
        script.rechecks_soon = false;
        if self.scenario.mistake != Mistake::WakeupDrainedAfterCheck {
            script.wakeup = false;
        }
    }

    // The gate.

    pub fn pass(&mut self, errand: Errand) -> Option<()> {
        if self.world.gate.is_some() {
            return None;
        }
        self.world.gate = Some(u8::try_from(self.me).unwrap());
        self.set(Step::Pass(errand)); // it runs, for all readers
        match self.scenario.libraries.journals.get(self.world.journal).as_ref() {
            Some(pending) => {
                let ops = self.ops(&completion_ops(pending).unwrap());
                self.set(Step::Complete(ops, errand));
            }
            None => self.decide(errand),
        }
        Some(())
    }

    pub fn leave_gate(&mut self) {
        if self.world.gate.map(usize::from) == Some(self.me) {
            self.world.gate = None;
        }
    }

    pub fn ops(&self, writes: &[WriteOp]) -> Ops {
        let libraries = &self.scenario.libraries;
        let mut ops = Ops::default();
        let mut queues = self.world.queues;
        let mut queue_op = |name: &Name, gone: Option<&String>, new: Option<&String>| {
            let lock = self.scenario.position_of(name);
            let mut queue = libraries.queues.get(queues[lock]).as_ref().clone();
            queue.retain(|waiter| gone.is_none() || name_of(waiter).as_ref() != gone);
            queue.extend(parse_all(new.into_iter().map(String::as_str)));
            queue.sort_by_key(name_of); // as a directory is listed
            queues[lock] = libraries.queues.number(queue);
            Op::Queue(u8::try_from(lock).unwrap(), queues[lock])
        };
        for (op, write) in ops.all.iter_mut().zip(writes) {
            *op = Some(match write {
                WriteOp::Join(name, waiter) => queue_op(name, None, Some(waiter)),
                WriteOp::Mark(name, before, now) => queue_op(name, Some(before), Some(now)),
                WriteOp::Leave(name, waiter) => queue_op(name, Some(waiter), None),
                WriteOp::Record(name, record) => {
                    let number = libraries.records.number(record.clone().unwrap_or_default());
                    Op::Record(u8::try_from(self.scenario.position_of(name)).unwrap(), number)
                }
                WriteOp::Journal(pending) => {
                    Op::Journal(libraries.journals.number(Some(pending.clone())))
                }
                WriteOp::NoJournal => Op::Journal(0),
            });
        }
        assert!(writes.len() <= ops.all.len());
        ops
    }

    pub fn make(&mut self, ops: Ops) -> Ops {
        match ops.next() {
            Some(Op::Record(lock, record)) => self.world.records[usize::from(lock)] = record,
            Some(Op::Journal(journal)) => self.world.journal = journal,
            Some(Op::Queue(lock, queue)) => self.world.queues[usize::from(lock)] = queue,
            None => {}
        }
        Ops { made: ops.made + 1, ..ops }
    }

    // After the gate.

    pub fn go_on(&mut self, then: Then) {
        match then {
            Then::End(outcome) => self.end(outcome),
            Then::Leave(outcome) => self.set(Step::Pass(Errand::Leave(outcome))),
            Then::Wait if self.scenario.searches() => self.set(Step::Search),
            Then::Wait | Then::WaitOn => self.set(Step::Listen),
            Then::AskAgain => self.set(Step::Pass(Errand::Request)),
            Then::Turn => self.set(Step::Flock(Turn::ToCommit)),
            Then::AlreadyHeld => self.holds(),
            Then::DrainAgain => self.set(Step::Flock(Turn::ToDrainAgain)),
            Then::Granted(granted) => {
                let is_drained = matches!(
                    self.scenario.mistake,
                    Mistake::DrainSkipped | Mistake::RecordAfterDrain
                );
                if self.scenario.wants_state(self.request()) && !is_drained {
                    self.set(Step::Flock(Turn::ToDrain(granted)));
                } else {
                    self.holds();
                }
            }
        }
    }

    /// Records that the script has what it requested.
    pub fn holds(&mut self) {
        let held = Held::of(self.request().spec.mode);
        for lock in self.scenario.locks(&self.world, self.me) {
            let script = &mut self.world.scripts[self.me];
            let is_counted = matches!(
                self.scenario.scripts[self.me][usize::from(script.command)],
                Command::AcquireAgain(..)
            );
            if script.is_alive && !script.is_broken && !(is_counted && script.holds[lock].is_some())
            {
                script.holds[lock] = Some(held);
            }
        }
        self.end(Outcome::Done);
    }

    pub fn end_or_leave(&mut self, outcome: Outcome) {
        if self.world.scripts[self.me].is_queued {
            self.set(Step::Pass(Errand::Leave(outcome)));
        } else {
            self.end(outcome);
        }
    }

    /// Ends the command; the script goes on to its next, or gives back its locks.
    pub fn end(&mut self, outcome: Outcome) {
        self.world.leave_queue(self.me);
        let commands = &self.scenario.scripts[self.me];
        let last = u8::try_from(commands.len() - 1).unwrap();
        let ended = self.scenario.command(&self.world, self.me);
        let freed = self.scenario.locks(&self.world, self.me);
        let script = &mut self.world.scripts[self.me];
        (script.wakeup, script.rechecks_soon, script.is_stopped, script.is_late) =
            (false, false, false, false);
        (script.is_frozen, script.has_lifeline, script.is_excused) = (false, false, false);
        script.seems_deadlocked = false;
        let is_release = matches!(ended, Command::Release(_) | Command::GiveAllBack);
        if is_release || script.is_broken {
            // A lock that was counted twice is still held, as the record shows.
            let request = self.scenario.request(&self.world, self.me);
            for lock in freed {
                let record = self.world.effective(
                    &self.scenario.libraries,
                    lock,
                    &self.scenario.names[lock],
                );
                let own = request.requester.own_grant(&self.scenario.names[lock], &record);
                if own.is_none() {
                    self.world.scripts[self.me].holds[lock] = None;
                }
            }
        }
        let script = &mut self.world.scripts[self.me];
        // A killed command may have acquired the lock, and its successor failed before it could
        // report so: the script ends.
        let is_acquire = matches!(ended, Command::Acquire(..) | Command::AcquireAgain(..));
        if outcome == Outcome::Failed && script.attempt > 0 && is_acquire {
            (script.is_alive, script.holds) = (false, Default::default());
        }
        script.is_broken = false;
        script.attempt = 0;
        script.command = match outcome {
            Outcome::Done => (script.command + 1).min(last),
            Outcome::Failed => last,
        };
        let has_more = script.command < last || script.holds.iter().any(Option::is_some);
        let goes_on = script.is_alive
            && has_more
            && !matches!(ended, Command::GiveAllBack if outcome == Outcome::Failed);
        if !goes_on {
            (script.command, script.holds) = (last, Default::default());
        }
        script.step = if goes_on { Step::Begin } else { Step::End };
    }

    // The flock of the state.

    pub fn take_flock(&mut self, turn: Turn) -> Option<()> {
        if self.world.flock.is_some() {
            if !self.world.scripts[self.me].is_late {
                return None;
            }
            match turn {
                Turn::ToCommit | Turn::AlreadySeen => self.end_or_leave(Outcome::Failed),
                Turn::ToDrain(granted) => self.set(Step::Pass(Errand::GiveBack(granted))),
                Turn::ToDrainAgain => self.end(Outcome::Failed),
                Turn::TooEarly(_) => self.refuse(),
            }
            return Some(());
        }
        match turn {
            Turn::ToCommit => {
                self.world.flock = Some(u8::try_from(self.me).unwrap());
                self.read_all();
            }
            Turn::AlreadySeen => {
                self.world.flock = Some(u8::try_from(self.me).unwrap());
                self.set(Step::Commit);
            }
            // Taken and dropped.
            Turn::ToDrain(_) | Turn::ToDrainAgain => self.holds(),
            Turn::TooEarly(plan) => self.set(Step::Write(plan)),
        }
        Some(())
    }
}
