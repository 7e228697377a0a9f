//! The steps of a command that holds the gate, and the wakeups that it sends once it has left it.

use pipeline_state::lock::admission::{Admission, Now, Queued, admit};
use pipeline_state::lock::deadlock::{find_cycle, may_close_cycle};
use pipeline_state::lock::edit::RecordEdit;
use pipeline_state::lock::files::journal::write_ops;
use pipeline_state::lock::liveness::LivenessOracle;
use pipeline_state::lock::queue::{dequeue, waiters_to_wake};
use pipeline_state::lock::release::release_one;
use pipeline_state::lock::{
    Acquired, BreakTarget, Identity, Mode, Place, Purpose, Record, Request, Token, hierarchy, idle,
};
use std::time::{Duration, SystemTime};

use super::scenario::{Command, Mistake, Scenario};
use super::steps::Actor;
use super::world::{
    Errand, LOCKS, Libraries, Outcome, Parents, Plan, SCRIPTS, Script, Step, Then, Turn, World,
    code_of, identity, script_of,
};
use pipeline_state::name::Name;

impl Actor<'_> {
    /// A lock's record and queue, as they are.
    pub fn edit(&self, lock: usize) -> RecordEdit {
        self.edit_of(lock, self.world.records[lock], self.world.queues[lock])
    }

    /// A lock's record and queue, as they were.
    pub fn edit_of(&self, lock: usize, record: u16, queue: u16) -> RecordEdit {
        let record = self.scenario.record_of(record, queue);
        RecordEdit::new(&self.scenario.names[lock], record)
    }

    pub fn decide(&mut self, errand: Errand) {
        let locks = self.scenario.locks(&self.world, self.me);
        let mut edits: Vec<RecordEdit> = locks.iter().map(|lock| self.edit(*lock)).collect();
        let process = &self.request().requester.process;
        match errand {
            Errand::Request => self.admit(edits),
            Errand::Leave(outcome) => {
                edits.iter_mut().for_each(|edit| dequeue(&mut edit.record, process));
                self.store(&edits, Then::End(outcome));
            }
            Errand::PassOver(lock, code) => self.pass_over(usize::from(lock), code, edits),
            Errand::GiveBack(granted) => {
                let acquired = self.scenario.libraries.grants.get(granted);
                edits
                    .iter_mut()
                    .zip(acquired.iter())
                    .for_each(|(edit, acquired)| edit.take_back(acquired));
                self.store(&edits, Then::End(Outcome::Failed));
            }
        }
    }

    pub fn admit(&mut self, mut edits: Vec<RecordEdit>) {
        let before = self.world;
        let oracle = self.scenario.oracle(&before, self.me);
        let requester = &self.request().requester;
        match self.scenario.command(&self.world, self.me) {
            Command::Acquire(..) | Command::AcquireAgain(..) | Command::Commit => {
                self.answer_and_excuse(edits)
            }
            Command::Release(_) | Command::GiveAllBack => {
                let released: Result<Vec<_>, _> = edits
                    .iter_mut()
                    .map(|edit| release_one(edit, None, requester, &oracle))
                    .collect();
                match released {
                    Ok(_) => self.store(&edits, Then::End(Outcome::Done)),
                    Err(_) => self.nothing_to_store(Then::End(Outcome::Failed)),
                }
            }
            Command::Break(_) => {
                for edit in &mut edits {
                    let broken = edit.remove_grants(BreakTarget::All);
                    for owner in broken.iter().filter_map(|grant| grant.owner.as_ref()) {
                        let script = script_of(code_of(owner));
                        self.world.scripts[script].holds = Default::default();
                        self.world.scripts[script].is_broken = self.world.is_running(script);
                    }
                }
                self.store(&edits, Then::End(Outcome::Done));
            }
        }
    }

    /// Ends the excuse of a waiter that runs, from the write that clears its mark. A commit that
    /// comes before its mark is excused until it has the flock, because its grace was over before
    /// it ran.
    pub fn answer_and_excuse(&mut self, edits: Vec<RecordEdit>) {
        let process = &self.request().requester.process;
        let was_marked = edits.iter().any(|edit| is_marked(edit, process));
        self.answer(edits);
        let script = &mut self.world.scripts[self.me];
        let (writes, commits) = match script.step {
            Step::Write(plan) => (true, plan.then == Then::Turn),
            step => (false, step == Step::Flock(Turn::ToCommit)),
        };
        script.is_excused &= if was_marked { writes } else { commits };
    }

    fn answer(&mut self, mut edits: Vec<RecordEdit>) {
        let before = self.world;
        let oracle = self.scenario.oracle(&before, self.me);
        let request = self.request();
        let wants_state = self.scenario.wants_state(request);
        let now = Now { time: SystemTime::UNIX_EPOCH, left: Duration::ZERO };
        let admission = admit(&mut edits, request, now, &oracle);
        if self.scenario.mistake == Mistake::MarkKept {
            for edit in &mut edits {
                let process = &request.requester.process;
                let was_marked = is_marked(edit, process);
                edit.record
                    .waiter_mut(process)
                    .into_iter()
                    .for_each(|own| own.passed_over = was_marked);
            }
        }
        if matches!(admission, Admission::Grantable | Admission::Queued(_))
            && self.is_out_of_order(request, &edits)
        {
            return self.refuse();
        }
        match admission {
            Admission::OwnerEnded | Admission::Broken => self.refuse(),
            Admission::AlreadyHeld(..) => {
                self.nothing_to_store(if wants_state {
                    Then::DrainAgain
                } else {
                    Then::AlreadyHeld
                });
            }
            Admission::Grantable if request.spec.purpose == Purpose::Commit => {
                self.store(&edits, Then::Turn)
            }
            Admission::Grantable => {
                self.check_overtaken(&edits, before.excused());
                let first = u64::from(self.world.token);
                let tokens = (first..).filter_map(Token::new);
                let acquired: Vec<_> = edits
                    .iter_mut()
                    .zip(tokens)
                    .map(|(edit, token)| edit.grant(request, token, now.time, &oracle))
                    .collect();
                if self.scenario.mistake != Mistake::TokenGivenTwice {
                    self.world.token += u8::try_from(acquired.len()).unwrap();
                }
                let granted = self.scenario.libraries.grants.number(acquired);
                self.store(&edits, Then::Granted(granted));
            }
            Admission::Queued(_) if self.world.scripts[self.me].is_late => self.refuse(),
            Admission::Queued(_) if self.is_deadlocked() => {
                if !self.closes_cycle(&edits) {
                    self.violation = Some(format!("{} is refused without a cycle", self.me));
                }
                self.refuse();
            }
            Admission::Queued(Queued::Already) => self.nothing_to_store(Then::Wait),
            Admission::Queued(Queued::Resumed) => self.store(&edits, Then::WaitOn),
            Admission::Queued(Queued::Newly) => {
                if self.scenario.mistake == Mistake::SharedAhead
                    && request.spec.mode == Mode::Shared
                {
                    self.number(&mut edits, |_| 0);
                }
                if self.scenario.mistake == Mistake::NumberedByLength {
                    self.number(&mut edits, |record| record.waiters.len() as u64);
                }
                self.store(&edits, Then::Wait);
            }
        }
    }

    /// Gives this waiter another number.
    fn number(&self, edits: &mut [RecordEdit], ticket: impl Fn(&Record) -> u64) {
        for edit in edits {
            let ticket = ticket(&edit.record);
            if let Some(own) = edit.record.waiter_mut(&self.request().requester.process) {
                own.place = Place::File { ticket, size: 0 };
            }
        }
    }

    pub fn is_out_of_order(&self, request: &Request, edits: &[RecordEdit]) -> bool {
        let held = |name: &Name| match self.scenario.names.iter().position(|other| other == name) {
            Some(lock) => {
                Ok(self.world.effective(&self.scenario.libraries, lock, name).as_ref().clone())
            }
            None => Ok(Record::default()),
        };
        hierarchy::check(edits, &request.requester, held).is_err()
    }

    /// Searches for a cycle without the gate. What it finds is confirmed while holding it.
    pub fn search(&mut self) {
        let edits = self.own_edits();
        let is_closed = self.closes_cycle(&edits);
        let script = &mut self.world.scripts[self.me];
        script.seems_deadlocked = is_closed;
        let is_queued = script.is_queued;
        self.set(if is_queued && !is_closed { Step::Listen } else { Step::Pass(Errand::Request) });
    }

    /// Returns whether a cycle that was seen without the gate is there.
    fn is_deadlocked(&mut self) -> bool {
        let script = &mut self.world.scripts[self.me];
        let seems_deadlocked = std::mem::take(&mut script.seems_deadlocked);
        let edits = self.own_edits();
        seems_deadlocked
            && (self.scenario.mistake == Mistake::CycleNotConfirmed || self.closes_cycle(&edits))
    }

    /// The records of this command's locks.
    fn own_edits(&self) -> Vec<RecordEdit> {
        let locks = self.scenario.locks(&self.world, self.me);
        locks.iter().map(|lock| self.edit(*lock)).collect()
    }

    fn closes_cycle(&self, edits: &[RecordEdit]) -> bool {
        let request = self.request();
        let mut records: Vec<(Name, Record)> =
            edits.iter().map(|edit| (edit.name.clone(), edit.record.clone())).collect();
        for (lock, name) in self.scenario.names.iter().enumerate() {
            if !request.names.contains(name) {
                let record = self.world.effective(&self.scenario.libraries, lock, name);
                records.push((name.clone(), record.as_ref().clone()));
            }
        }
        let holders: Vec<&Record> = records
            .iter()
            .map(|(_, record)| record)
            .filter(|one| !one.waiters.is_empty())
            .collect();
        if !may_close_cycle(&request.requester, holders) {
            return false;
        }
        find_cycle(
            &request.requester.process,
            &records,
            &self.scenario.oracle(&self.world, self.me),
            &mut Parents,
        )
        .is_some()
    }

    pub fn refuse(&mut self) {
        let is_is_queued = self.world.scripts[self.me].is_queued;
        self.nothing_to_store(if is_is_queued {
            Then::Leave(Outcome::Failed)
        } else {
            Then::End(Outcome::Failed)
        });
    }

    pub fn nothing_to_store(&mut self, then: Then) {
        self.leave_gate();
        self.go_on(then);
    }

    pub fn store(&mut self, edits: &[RecordEdit], then: Then) {
        self.check_removed(edits);
        let changed: Vec<&RecordEdit> = edits.iter().filter(|edit| edit.is_changed()).collect();
        let writes = match self.scenario.mistake {
            Mistake::NoJournal => {
                changed.iter().flat_map(|edit| write_ops(&[*edit]).unwrap()).collect()
            }
            _ => write_ops(&changed).unwrap(),
        };
        let mut unblocks_someone = [false; LOCKS];
        for edit in changed.iter().filter(|edit| edit.unblocks_someone()) {
            unblocks_someone[self.scenario.position_of(&edit.name)] = true;
        }
        let ops = self.ops(&writes);
        if ops.next().is_none() {
            return self.nothing_to_store(then);
        }
        let plan = Plan { ops, unblocks_someone, wake: [0; SCRIPTS], then };
        match (self.scenario.mistake, then) {
            (Mistake::RecordAfterDrain, Then::Granted(_)) => {
                self.set(Step::Flock(Turn::TooEarly(plan)))
            }
            _ => self.set(Step::Write(plan)),
        }
    }

    pub fn write(&mut self, plan: Plan) {
        if plan.ops.made == 0 {
            self.note(&plan);
        }
        let ops = self.make(plan.ops);
        let plan = Plan { ops, ..plan };
        if ops.next().is_some() {
            return self.set(Step::Write(plan));
        }
        if plan.then == Then::Wait && self.scenario.is_apart {
            return self.set(Step::Anchor(plan));
        }
        self.written(plan);
    }

    /// The record that names the lifeline is in place, so a death before this leaves no unnamed
    /// file.
    pub fn anchor(&mut self, plan: Plan) {
        self.world.scripts[self.me].has_lifeline =
            self.scenario.mistake != Mistake::LifelineNotHeld;
        self.written(plan);
    }

    fn written(&mut self, plan: Plan) {
        if plan.unblocks_someone.contains(&true) {
            return self.set(Step::Note(plan));
        }
        self.leave_gate();
        self.go_on(plan.then);
    }

    /// Marks a waiter that is next and does not take its lock.
    fn pass_over(&mut self, lock: usize, code: u8, mut edits: Vec<RecordEdit>) {
        let before = self.world;
        let oracle = self.scenario.oracle(&before, self.me);
        let name = &self.scenario.names[lock];
        let process = identity(code);
        let own = self.request().requester.process.clone();
        let Some(edit) = edits.iter_mut().find(|edit| edit.name == *name) else {
            return self.nothing_to_store(Then::WaitOn);
        };
        let is_marked = match (edit.record.position_of(&own), self.scenario.mistake) {
            (None, _) => false,
            (Some(_), Mistake::AnyPassedOver) => edit
                .record
                .waiter_mut(&process)
                .is_some_and(|waiter| !std::mem::replace(&mut waiter.passed_over, true)),
            (Some(place), _) => {
                self.scenario.is_next(&self.world, code, &oracle)
                    && idle::mark(&mut edit.record, place, &process, &oracle)
            }
        };
        if !is_marked {
            return self.nothing_to_store(Then::WaitOn);
        }
        self.store(&edits, Then::AskAgain);
    }

    pub fn note_who_is_next(&mut self, mut plan: Plan) {
        let next = self.scenario.next(&self.world, self.me, &plan);
        plan.wake.iter_mut().zip(next).for_each(|(wake, code)| *wake = code);
        self.leave_gate();
        if plan.wake[0] == 0 { self.go_on(plan.then) } else { self.set(Step::Wake(plan)) }
    }

    /// The first write is the change.
    pub fn note(&mut self, plan: &Plan) {
        if plan.then != Then::AskAgain {
            let process = &self.request().requester.process;
            let records = self.scenario.locks(&self.world, self.me);
            let edits = records.into_iter().map(|lock| self.edit(lock));
            let was_marked = edits.into_iter().any(|edit| is_marked(&edit, process));
            self.world.scripts[self.me].is_excused &= !was_marked;
        }
        match plan.then {
            Then::Granted(granted) => {
                for Acquired { grant, before, .. } in
                    self.scenario.libraries.grants.get(granted).iter()
                {
                    let is_counted =
                        before.as_ref().is_some_and(|before| before.token == grant.token);
                    let (new, old) = (u8::try_from(grant.token.get()).unwrap(), self.world.highest);
                    if new <= old && !is_counted {
                        self.violation = Some(format!("token {new} is granted after {old}"));
                    }
                    self.world.highest = old.max(new);
                }
                self.world.leave_queue(self.me);
            }
            Then::Wait => self.world.jois_queued(self.me),
            _ => {}
        }
    }

    pub fn notify(&mut self, code: u8, what: impl Fn(&mut Script)) {
        if code != 0 && self.world.lives(code) {
            what(&mut self.world.scripts[script_of(code)]);
        }
    }
}

/// Returns whether the original record marks this waiter as passed over.
pub fn is_marked(edit: &RecordEdit, process: &Identity) -> bool {
    edit.original().waiters.iter().any(|waiter| waiter.passed_over && waiter.process.is(process))
}

impl Scenario {
    /// The record of this number with the queue of this number.
    pub fn record_of(&self, record: u16, queue: u16) -> Record {
        let Libraries { records, queues, .. } = &self.libraries;
        let record = records.get(record).as_ref().clone();
        record.with_queue(queues.get(queue).as_ref().clone())
    }

    /// Returns whether a request that has joined the queues searches for a cycle.
    pub fn searches(&self) -> bool {
        !matches!(self.mistake, Mistake::NoDeadlockSearch | Mistake::SearchBeforeJoining)
    }

    /// Returns whether a waiter could acquire all locks that it waits for. The state is not free
    /// for a commit while another process has its flock.
    pub fn is_next(&self, world: &World, code: u8, oracle: &dyn LivenessOracle) -> bool {
        let commits = matches!(self.command(world, script_of(code)), Command::Commit);
        if commits && world.flock.is_some() {
            return false;
        }
        let records: Vec<Record> = (0..self.names.len())
            .map(|lock| world.effective(&self.libraries, lock, &self.names[lock]).as_ref().clone())
            .collect();
        idle::is_next_for_all(&identity(code), &records, oracle)
    }

    /// A frozen waiter that a sleeper sees to be next, for longer than a running one would be: the
    /// lock and the process.
    pub fn idle_before(&self, world: &World, me: usize) -> Option<(u8, u8)> {
        let oracle = self.oracle(world, me);
        let own = &self.request(world, me).requester.process;
        self.locks(world, me).into_iter().find_map(|lock| {
            let record = world.effective(&self.libraries, lock, &self.names[lock]);
            let place = record.position_of(own)?;
            let code = match self.mistake {
                Mistake::FrozenBlocks => return None,
                Mistake::AnyPassedOver => code_of(
                    &record.waiters[..place].iter().find(|waiter| !waiter.passed_over)?.process,
                ),
                _ => {
                    let code = code_of(&idle::next_waiter(&record, place, &oracle)?.process);
                    world.scripts[script_of(code)].is_frozen.then_some(code)?
                }
            };
            let is_next =
                self.mistake == Mistake::AnyPassedOver || self.is_next(world, code, &oracle);
            is_next.then_some((u8::try_from(lock).unwrap(), code))
        })
    }

    /// The processes that may be next once this is written.
    fn next(&self, world: &World, script: usize, plan: &Plan) -> Vec<u8> {
        let oracle = self.oracle(world, script);
        let freed = self.names.iter().enumerate().filter(|(lock, _)| plan.unblocks_someone[*lock]);
        let records = freed.map(|(lock, name)| world.effective(&self.libraries, lock, name));
        let next = records.flat_map(|record| waiters_to_wake(&record, &oracle));
        let mut next: Vec<u8> =
            next.map(|it| code_of(&it)).filter(|code| *code != world.code(script)).collect();
        next.sort_unstable();
        next.dedup();
        match self.mistake {
            Mistake::SilentRelease => next.clear(),
            Mistake::OnlyFirstWoken => next.truncate(1),
            _ => {}
        }
        next
    }

    /// The processes that a command has yet to wake for a change that it has made.
    pub fn wakeups(&self, world: &World, script: usize) -> Vec<u8> {
        match world.scripts[script].step {
            Step::Write(plan) if plan.ops.made > 0 => self.next(world, script, &plan),
            Step::Note(plan) => self.next(world, script, &plan),
            Step::Wake(plan) => plan.wake.to_vec(),
            _ => Vec::new(),
        }
    }
}
