//! The steps of a command that holds the gate, and the wakeups that it sends once it has left it.

use std::time::{Duration, SystemTime};

use super::scenario::{Command, Mistake, Scenario};
use super::steps::Actor;
use super::world::{
    Errand, LOCKS, Outcome, Parents, Plan, SCRIPTS, Script, Step, Then, Turn, World, code_of,
    identity, script_of,
};
use crate::lock::acquire::{Acquired, grant, take_back};
use crate::lock::break_up::{Victim, take_away};
use crate::lock::deadlock::circle;
use crate::lock::draft::{Draft, writes};
use crate::lock::hierarchy;
use crate::lock::idle;
use crate::lock::look::{Line, Verdict, ask};
use crate::lock::process::Identity;
use crate::lock::queue::{Eyes, leave, next_in_line};
use crate::lock::record::{Mode, Purpose, Record, Token};
use crate::lock::release::give_up;
use crate::lock::request::Request;
use crate::name::Name;

impl Actor<'_> {
    pub fn draft(&self, lock: usize, record: u16) -> Draft {
        let records = &self.scenario.libraries.records;
        Draft::new(&self.scenario.names[lock], records.get(record).as_ref().clone())
    }

    pub fn decide(&mut self, errand: Errand) {
        let locks = self.scenario.locks(&self.world, self.me);
        let mut drafts: Vec<Draft> =
            locks.iter().map(|lock| self.draft(*lock, self.world.records[*lock])).collect();
        let process = &self.request().asker.process;
        match errand {
            Errand::Ask => self.ask(drafts),
            Errand::Leave(outcome) => {
                drafts.iter_mut().for_each(|draft| leave(&mut draft.record, process));
                self.store(&drafts, Then::End(outcome));
            }
            Errand::PassOver(lock, code) => self.pass_over(usize::from(lock), code, drafts),
            Errand::GiveBack(granted) => {
                let acquired = self.scenario.libraries.grants.get(granted);
                drafts
                    .iter_mut()
                    .zip(acquired.iter())
                    .for_each(|(draft, acquired)| take_back(draft, acquired));
                self.store(&drafts, Then::End(Outcome::Failed));
            }
        }
    }

    pub fn ask(&mut self, mut drafts: Vec<Draft>) {
        let before = self.world;
        let eyes = self.scenario.eyes(&before, self.me);
        let asker = &self.request().asker;
        match self.scenario.command(&self.world, self.me) {
            Command::Acquire(..) | Command::AcquireAgain(..) | Command::Commit => {
                self.ask_for(drafts)
            }
            Command::Release(_) | Command::GiveAllBack => {
                let released: Result<Vec<_>, _> =
                    drafts.iter_mut().map(|draft| give_up(draft, None, asker, &eyes)).collect();
                match released {
                    Ok(_) => self.store(&drafts, Then::End(Outcome::Done)),
                    Err(_) => self.nothing_to_store(Then::End(Outcome::Failed)),
                }
            }
            Command::Break(_) => {
                for draft in &mut drafts {
                    let broken = take_away(draft, Victim::Everybody);
                    for owner in broken.iter().filter_map(|grant| grant.owner.as_ref()) {
                        let script = script_of(code_of(owner));
                        self.world.scripts[script].holds = Default::default();
                        self.world.scripts[script].is_broken = self.world.is_running(script);
                    }
                }
                self.store(&drafts, Then::End(Outcome::Done));
            }
        }
    }

    /// Ends the excuse of a waiter that runs, from the write that clears its mark. A commit that
    /// comes before its mark is excused until it has the flock, because its grace was over before
    /// it ran.
    pub fn ask_for(&mut self, drafts: Vec<Draft>) {
        let process = &self.request().asker.process;
        let was_marked = drafts.iter().any(|draft| is_marked(draft, process));
        self.answer(drafts);
        let script = &mut self.world.scripts[self.me];
        let (writes, commits) = match script.step {
            Step::Write(plan) => (true, plan.then == Then::Turn),
            step => (false, step == Step::Flock(Turn::ToCommit)),
        };
        script.is_excused &= if was_marked { writes } else { commits };
    }

    fn answer(&mut self, mut drafts: Vec<Draft>) {
        let before = self.world;
        let eyes = self.scenario.eyes(&before, self.me);
        let request = self.request();
        let wants_state = self.scenario.wants_state(request);
        let verdict = ask(&mut drafts, request, (SystemTime::UNIX_EPOCH, Duration::ZERO), &eyes);
        if self.scenario.mistake == Mistake::MarkKept {
            for draft in &mut drafts {
                let process = &request.asker.process;
                let was_marked = is_marked(draft, process);
                draft
                    .record
                    .waiter_mut(process)
                    .into_iter()
                    .for_each(|own| own.passed_over = was_marked);
            }
        }
        if matches!(verdict, Verdict::Free | Verdict::Waits(_))
            && self.is_out_of_order(request, &drafts)
        {
            return self.refuse();
        }
        match verdict {
            Verdict::OwnerEnded | Verdict::Broken => self.refuse(),
            Verdict::AlreadyHeld(..) => {
                self.nothing_to_store(if wants_state {
                    Then::DrainAgain
                } else {
                    Then::AlreadyHeld
                });
            }
            Verdict::Free if request.ask.purpose == Purpose::Commit => {
                self.store(&drafts, Then::Turn)
            }
            Verdict::Free => {
                self.look_for_overtaken(&drafts, before.excused());
                let first = u64::from(self.world.token);
                let tokens = (first..).filter_map(Token::new);
                let now = SystemTime::UNIX_EPOCH;
                let acquired: Vec<_> = drafts
                    .iter_mut()
                    .zip(tokens)
                    .map(|(draft, token)| grant(draft, request, (token, now), &eyes))
                    .collect();
                if self.scenario.mistake != Mistake::TokenGivenTwice {
                    self.world.token += u8::try_from(acquired.len()).unwrap();
                }
                let granted = self.scenario.libraries.grants.number(acquired);
                self.store(&drafts, Then::Granted(granted));
            }
            Verdict::Waits(_) if self.world.scripts[self.me].is_late => self.refuse(),
            Verdict::Waits(Line::Kept) => self.nothing_to_store(Then::Wait),
            Verdict::Waits(Line::Resumed) => self.store(&drafts, Then::WaitOn),
            Verdict::Waits(Line::Joined) => {
                if self.scenario.mistake == Mistake::SharedAhead && request.ask.mode == Mode::Shared
                {
                    drafts.iter_mut().for_each(|draft| draft.record.waiters.rotate_right(1));
                }
                if self.scenario.mistake != Mistake::DeadlocksNotLookedFor
                    && self.closes_circle(request, &drafts)
                {
                    return self.refuse();
                }
                self.store(&drafts, Then::Wait);
            }
        }
    }

    pub fn is_out_of_order(&self, request: &Request, drafts: &[Draft]) -> bool {
        let held = |name: &Name| match self.scenario.names.iter().position(|other| other == name) {
            Some(lock) => {
                Ok(self.world.effective(&self.scenario.libraries, lock, name).as_ref().clone())
            }
            None => Ok(Record::default()),
        };
        hierarchy::check(drafts, &request.asker, held).is_err()
    }

    pub fn closes_circle(&self, request: &Request, drafts: &[Draft]) -> bool {
        let mut records: Vec<(Name, Record)> =
            drafts.iter().map(|draft| (draft.name.clone(), draft.record.clone())).collect();
        for (lock, name) in self.scenario.names.iter().enumerate() {
            if !request.names.contains(name) {
                let record = self.world.effective(&self.scenario.libraries, lock, name);
                records.push((name.clone(), record.as_ref().clone()));
            }
        }
        circle(
            &request.asker.process,
            &records,
            &self.scenario.eyes(&self.world, self.me),
            &mut Parents,
        )
        .is_some()
    }

    pub fn refuse(&mut self) {
        let is_in_line = self.world.scripts[self.me].in_line;
        self.nothing_to_store(if is_in_line {
            Then::Leave(Outcome::Failed)
        } else {
            Then::End(Outcome::Failed)
        });
    }

    pub fn nothing_to_store(&mut self, then: Then) {
        self.leave_gate();
        self.go_on(then);
    }

    pub fn store(&mut self, drafts: &[Draft], then: Then) {
        self.look_for_removed(drafts);
        let changed: Vec<&Draft> = drafts.iter().filter(|draft| draft.is_changed()).collect();
        let writes = match self.scenario.mistake {
            Mistake::NoJournal => {
                changed.iter().flat_map(|draft| writes(&[*draft]).unwrap()).collect()
            }
            _ => writes(&changed).unwrap(),
        };
        let mut frees = [false; LOCKS];
        for draft in changed.iter().filter(|draft| draft.frees()) {
            frees[self.scenario.place_of(&draft.name)] = true;
        }
        let ops = self.ops(&writes);
        if ops.next().is_none() {
            return self.nothing_to_store(then);
        }
        let plan = Plan { ops, frees, wake: [0; SCRIPTS], then };
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
        if plan.frees.contains(&true) {
            return self.set(Step::Note(plan));
        }
        self.leave_gate();
        self.go_on(plan.then);
    }

    /// Marks a waiter that is next and does not take its lock.
    fn pass_over(&mut self, lock: usize, code: u8, mut drafts: Vec<Draft>) {
        let before = self.world;
        let eyes = self.scenario.eyes(&before, self.me);
        let name = &self.scenario.names[lock];
        let process = identity(code);
        let own = self.request().asker.process.clone();
        let Some(draft) = drafts.iter_mut().find(|draft| draft.name == *name) else {
            return self.nothing_to_store(Then::WaitOn);
        };
        let is_marked = match (draft.record.place_of(&own), self.scenario.mistake) {
            (None, _) => false,
            (Some(_), Mistake::AnyPassedOver) => draft
                .record
                .waiter_mut(&process)
                .is_some_and(|waiter| !std::mem::replace(&mut waiter.passed_over, true)),
            (Some(place), _) => {
                self.scenario.is_next(&self.world, code, &eyes)
                    && idle::mark(&mut draft.record, place, &process, &eyes)
            }
        };
        if !is_marked {
            return self.nothing_to_store(Then::WaitOn);
        }
        self.store(&drafts, Then::AskAgain);
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
            let process = &self.request().asker.process;
            let records = self.scenario.locks(&self.world, self.me);
            let drafts = records.into_iter().map(|lock| self.draft(lock, self.world.records[lock]));
            let was_marked = drafts.into_iter().any(|draft| is_marked(&draft, process));
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
                        self.complaint = Some(format!("token {new} is granted after {old}"));
                    }
                    self.world.highest = old.max(new);
                }
                self.world.leave_line(self.me);
            }
            Then::Wait => self.world.join_line(self.me),
            _ => {}
        }
    }

    pub fn tell(&mut self, code: u8, what: impl Fn(&mut Script)) {
        if code != 0 && self.world.lives(code) {
            what(&mut self.world.scripts[script_of(code)]);
        }
    }
}

/// Whether the original record marks this waiter as passed over.
pub fn is_marked(draft: &Draft, process: &Identity) -> bool {
    draft.original().waiters.iter().any(|waiter| waiter.passed_over && waiter.process.is(process))
}

impl Scenario {
    /// Whether a waiter could acquire all locks that it waits for. The state is not free for a
    /// commit while another process has its flock.
    pub fn is_next(&self, world: &World, code: u8, eyes: &dyn Eyes) -> bool {
        let commits = matches!(self.command(world, script_of(code)), Command::Commit);
        if commits && world.flock.is_some() {
            return false;
        }
        let records: Vec<Record> = (0..self.names.len())
            .map(|lock| world.effective(&self.libraries, lock, &self.names[lock]).as_ref().clone())
            .collect();
        idle::is_next_everywhere(&identity(code), &records, eyes)
    }

    /// A frozen waiter that a sleeper sees to be next, for longer than a running one would be: the
    /// lock and the process.
    pub fn idle_before(&self, world: &World, me: usize) -> Option<(u8, u8)> {
        let eyes = self.eyes(world, me);
        let own = &self.request(world, me).asker.process;
        self.locks(world, me).into_iter().find_map(|lock| {
            let record = world.effective(&self.libraries, lock, &self.names[lock]);
            let place = record.place_of(own)?;
            let code = match self.mistake {
                Mistake::FrozenBlocks => return None,
                Mistake::AnyPassedOver => code_of(
                    &record.waiters[..place].iter().find(|waiter| !waiter.passed_over)?.process,
                ),
                _ => {
                    let code = code_of(&idle::next_up(&record, place, &eyes)?.process);
                    world.scripts[script_of(code)].is_frozen.then_some(code)?
                }
            };
            let is_next =
                self.mistake == Mistake::AnyPassedOver || self.is_next(world, code, &eyes);
            is_next.then_some((u8::try_from(lock).unwrap(), code))
        })
    }

    /// The processes that may be next once this is written.
    fn next(&self, world: &World, script: usize, plan: &Plan) -> Vec<u8> {
        let eyes = self.eyes(world, script);
        let freed = self.names.iter().enumerate().filter(|(lock, _)| plan.frees[*lock]);
        let records = freed.map(|(lock, name)| world.effective(&self.libraries, lock, name));
        let next = records.flat_map(|record| next_in_line(&record, &eyes));
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
    pub fn to_wake(&self, world: &World, script: usize) -> Vec<u8> {
        match world.scripts[script].step {
            Step::Write(plan) if plan.ops.made > 0 => self.next(world, script, &plan),
            Step::Note(plan) => self.next(world, script, &plan),
            Step::Wake(plan) => plan.wake.to_vec(),
            _ => Vec::new(),
        }
    }
}
