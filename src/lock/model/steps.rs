//! What a command does next, one step at a time: the order of the steps is that of `acquire`, `line`, `commit`, `release` and
//! `gate`; what each of them decides is decided by the program's own functions.

use std::time::{Duration, SystemTime};

use super::scenario::{Command, Mistake, Scenario};
use super::search::{Move, What};
use super::world::{
    Errand, Held, LOCKS, Op, Ops, Outcome, Parents, Peek, Plan, SCRIPTS, Script, Step, Then, Turn, World, code_of,
    script_code, script_of,
};
use crate::lock::acquire::{grant, take_back};
use crate::lock::break_up::{Victim, take_away};
use crate::lock::deadlock::circle;
use crate::lock::draft::{Draft, Write, writes};
use crate::lock::look::{Line, Verdict, ask, ends_to_await, look};
use crate::lock::queue::{Blocker, blockers, leave, next_in_line};
use crate::lock::record::{Mode, Purpose, Record, Token};
use crate::lock::release::give_up;
use crate::lock::request::Request;
use crate::name::Name;

/// One script's next step in a world that it changes; what is wrong with it, if anything is.
pub struct Actor<'a> {
    pub scenario: &'a Scenario,
    pub world: World,
    pub me: usize,
    pub complaint: Option<String>,
}

impl Scenario {
    /// Every world that may be next, and the complaint about a step that breaks a promise.
    pub fn moves(&self, world: &World) -> (Vec<(Move, World)>, Option<String>) {
        let mut moves = Vec::new();
        let mut complaint = None;
        for script in 0..SCRIPTS {
            let mut actor = Actor { scenario: self, world: *world, me: script, complaint: None };
            if actor.step().is_some() {
                moves.push((Move { what: What::Steps, script }, actor.world));
            }
            complaint = complaint.or(actor.complaint);
            self.fates_of(world, script, &mut moves);
        }
        (moves, complaint)
    }

    fn fates_of(&self, world: &World, me: usize, moves: &mut Vec<(Move, World)>) {
        let is_running = world.is_running(me);
        let script = &world.scripts[me];
        let mut befalls = |what, change: &dyn Fn(&mut Actor<'_>)| {
            let mut actor = Actor { scenario: self, world: *world, me, complaint: None };
            change(&mut actor);
            moves.push((Move { what, script: me }, actor.world));
        };
        if is_running && world.fates.kills > 0 {
            befalls(What::CommandIsKilled, &|actor| actor.is_killed());
        }
        if script.is_alive && script.step != Step::End && world.fates.deaths > 0 {
            befalls(What::ScriptDies, &|actor| actor.script_dies());
        }
        if is_running && !script.is_stopped && world.fates.stops > 0 {
            befalls(What::Stops, &|actor| {
                actor.world.fates.stops -= 1;
                actor.world.scripts[me].is_stopped = true;
                actor.others_look_soon();
            });
        }
        if script.is_stopped {
            befalls(What::Continues, &|actor| {
                actor.world.scripts[me].is_stopped = false;
                actor.others_look_soon();
            });
        }
        let waits =
            matches!(self.command(world, me), Command::Acquire(..) | Command::AcquireAgain(..) | Command::Commit);
        if is_running && waits && !script.is_late && world.fates.expiries > 0 {
            befalls(What::TimeIsUp, &|actor| {
                actor.world.fates.expiries -= 1;
                actor.world.scripts[me].is_late = true;
            });
        }
    }

    pub fn place_of(&self, name: &Name) -> usize {
        self.names.iter().position(|other| other == name).unwrap()
    }

    /// The processes that may be next once this is written.
    fn next(&self, world: &World, script: usize, plan: &Plan) -> Vec<u8> {
        let eyes = self.eyes(world);
        let freed = self.names.iter().enumerate().filter(|(lock, _)| plan.frees[*lock]);
        let records = freed.map(|(lock, name)| world.effective(&self.libraries, lock, name));
        let next = records.flat_map(|record| next_in_line(&record, &eyes));
        let mut next: Vec<u8> = next.map(|it| code_of(&it)).filter(|code| *code != world.code(script)).collect();
        next.sort_unstable();
        next.dedup();
        match self.mistake {
            Mistake::SilentRelease => next.clear(),
            Mistake::OnlyFirstWoken => next.truncate(1),
            _ => {}
        }
        next
    }

    /// The processes that a command has yet to wake for a change that is made.
    pub fn to_wake(&self, world: &World, script: usize) -> Vec<u8> {
        match world.scripts[script].step {
            Step::Write(plan) if plan.ops.made > 0 => self.next(world, script, &plan),
            Step::Note(plan) => self.next(world, script, &plan),
            Step::Wake(plan) => plan.wake.to_vec(),
            _ => Vec::new(),
        }
    }

    /// The names of these locks with what is on record for each.
    pub fn named(&self, request: &Request, records: &[u16]) -> Vec<(Name, Record)> {
        let records = records.iter().map(|record| self.libraries.records.get(*record));
        request.names.iter().cloned().zip(records).collect()
    }
}

impl Actor<'_> {
    fn step(&mut self) -> Option<()> {
        let script = self.world.scripts[self.me];
        if script.is_stopped {
            return None;
        }
        match script.step {
            Step::End => return None,
            Step::Begin => match self.scenario.command(&self.world, self.me) {
                Command::Commit if self.scenario.mistake == Mistake::CommitReadsBeforeFlock => {
                    self.peek(Peek::default())
                }
                Command::Commit => self.take_flock(Turn::ToCommit)?,
                _ => self.pass(Errand::Ask)?,
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
            Step::Wake(plan) => {
                plan.wake.into_iter().for_each(|code| self.tell(code, |script| script.bell = true));
                self.go_on(plan.then);
            }
            Step::Listen => {
                self.listen_anew();
                match self.scenario.mistake {
                    Mistake::SleepWithoutLook => self.set(Step::Sleep([script_code(self.me), 0, 0])),
                    _ => self.peek(Peek::default()),
                }
            }
            Step::PeekJournal(peek) => self.set(Step::PeekRecord(Peek { journal: self.world.journal, ..peek })),
            Step::PeekRecord(peek) => self.peek_record(peek),
            Step::Judge(peek) => self.judge(&peek),
            Step::Sleep(ends) => {
                let is_over = ends.iter().any(|code| *code != 0 && !self.world.lives(*code));
                if !(is_over || script.bell || script.looks_soon || script.is_late) {
                    return None;
                }
                self.listen_anew();
                self.peek(Peek::default());
            }
            Step::Flock(turn) => self.take_flock(turn)?,
            Step::Commit => {
                self.world.flock = None;
                self.end_or_leave(Outcome::Done);
            }
        }
        Some(())
    }

    fn set(&mut self, step: Step) {
        self.world.scripts[self.me].step = step;
    }

    fn request(&self) -> &Request {
        self.scenario.request(&self.world, self.me)
    }

    fn listen_anew(&mut self) {
        let script = &mut self.world.scripts[self.me];
        script.looks_soon = false;
        if self.scenario.mistake != Mistake::BellForgottenAfterLook {
            script.bell = false;
        }
    }

    // The gate.

    fn pass(&mut self, errand: Errand) -> Option<()> {
        if self.world.gate.is_some() {
            return None;
        }
        self.world.gate = Some(u8::try_from(self.me).unwrap());
        match self.scenario.libraries.journals.get(self.world.journal) {
            Some(pending) => {
                let ops = self.ops(&pending.completion().unwrap());
                self.set(Step::Complete(ops, errand));
            }
            None => self.decide(errand),
        }
        Some(())
    }

    fn leave_gate(&mut self) {
        if self.world.gate.map(usize::from) == Some(self.me) {
            self.world.gate = None;
        }
    }

    fn ops(&self, writes: &[Write]) -> Ops {
        let libraries = &self.scenario.libraries;
        let mut ops = Ops::default();
        for (op, write) in ops.all.iter_mut().zip(writes) {
            *op = Some(match write {
                Write::Record(name, record) => {
                    let number = libraries.records.number(record.clone().unwrap_or_default());
                    Op::Record(u8::try_from(self.scenario.place_of(name)).unwrap(), number)
                }
                Write::Journal(pending) => Op::Journal(libraries.journals.number(Some(pending.clone()))),
                Write::NoJournal => Op::Journal(0),
            });
        }
        assert!(writes.len() <= ops.all.len());
        ops
    }

    fn make(&mut self, ops: Ops) -> Ops {
        match ops.next() {
            Some(Op::Record(lock, record)) => self.world.records[usize::from(lock)] = record,
            Some(Op::Journal(journal)) => self.world.journal = journal,
            None => {}
        }
        Ops { made: ops.made + 1, ..ops }
    }

    // Behind the gate.

    fn draft(&self, lock: usize, record: u16) -> Draft {
        let record = self.scenario.libraries.records.get(record);
        let before = if record.is_empty() { Vec::new() } else { record.to_bytes() };
        Draft::new(&self.scenario.names[lock], record, before)
    }

    fn decide(&mut self, errand: Errand) {
        let locks = self.scenario.locks(&self.world, self.me);
        let mut drafts: Vec<Draft> = locks.iter().map(|lock| self.draft(*lock, self.world.records[*lock])).collect();
        let process = self.request().asker.process.clone();
        match errand {
            Errand::Ask => self.ask(drafts),
            Errand::Leave(outcome) => {
                drafts.iter_mut().for_each(|draft| leave(&mut draft.record, &process));
                self.store(&drafts, Then::End(outcome));
            }
            Errand::GiveBack(granted) => {
                let acquired = self.scenario.libraries.grants.get(granted);
                drafts.iter_mut().zip(&acquired).for_each(|(draft, acquired)| take_back(draft, acquired));
                self.store(&drafts, Then::End(Outcome::Failed));
            }
        }
    }

    fn ask(&mut self, mut drafts: Vec<Draft>) {
        let before = self.world;
        let eyes = self.scenario.eyes(&before);
        let asker = self.request().asker.clone();
        match self.scenario.command(&self.world, self.me) {
            Command::Acquire(..) | Command::AcquireAgain(..) | Command::Commit => self.ask_for(drafts),
            Command::Release(_) | Command::GiveAllBack => {
                let released: Result<Vec<_>, _> =
                    drafts.iter_mut().map(|draft| give_up(draft, None, &asker, &eyes)).collect();
                match released {
                    Ok(_) => self.store(&drafts, Then::End(Outcome::Done)),
                    Err(_) => self.nothing_to_store(Then::End(Outcome::Failed)),
                }
            }
            Command::Break(_) => {
                for draft in &mut drafts {
                    let broken = take_away(draft, Victim::Everybody);
                    for owner in broken.iter().filter_map(|grant| grant.owner.as_ref()) {
                        self.world.scripts[script_of(code_of(owner))].is_broken = true;
                    }
                }
                self.store(&drafts, Then::End(Outcome::Done));
            }
        }
    }

    fn ask_for(&mut self, mut drafts: Vec<Draft>) {
        let before = self.world;
        let eyes = self.scenario.eyes(&before);
        let request = self.request().clone();
        let wants_state = self.scenario.wants_state(&request);
        match ask(&mut drafts, &request, (SystemTime::UNIX_EPOCH, Duration::ZERO), &eyes) {
            Verdict::OwnerEnded => self.refuse(),
            Verdict::AlreadyHeld(..) => {
                self.nothing_to_store(if wants_state { Then::DrainAgain } else { Then::AlreadyHeld });
            }
            Verdict::Free if request.ask.purpose == Purpose::Commit => self.nothing_to_store(Then::Turn),
            Verdict::Free => {
                self.look_for_overtaken(&drafts);
                let first = u64::from(self.world.token);
                let tokens = (first..).filter_map(Token::new);
                let now = SystemTime::UNIX_EPOCH;
                let acquired: Vec<_> = drafts
                    .iter_mut()
                    .zip(tokens)
                    .map(|(draft, token)| grant(draft, &request, (token, now), &eyes))
                    .collect();
                if self.scenario.mistake != Mistake::TokenGivenTwice {
                    self.world.token += u8::try_from(acquired.len()).unwrap();
                }
                let granted = self.scenario.libraries.grants.number(acquired);
                self.store(&drafts, Then::Granted(granted));
            }
            Verdict::Waits(_) if self.world.scripts[self.me].is_late => self.refuse(),
            Verdict::Waits(Line::Kept) => self.nothing_to_store(Then::Wait),
            Verdict::Waits(Line::Joined) => {
                if self.scenario.mistake == Mistake::SharedAhead && request.ask.mode == Mode::Shared {
                    drafts.iter_mut().for_each(|draft| draft.record.waiters.rotate_right(1));
                }
                if self.scenario.mistake != Mistake::DeadlocksNotLookedFor && self.closes_circle(&request, &drafts) {
                    return self.refuse();
                }
                self.store(&drafts, Then::Wait);
            }
        }
    }

    fn closes_circle(&self, request: &Request, drafts: &[Draft]) -> bool {
        let mut records: Vec<(Name, Record)> =
            drafts.iter().map(|draft| (draft.name.clone(), draft.record.clone())).collect();
        for (lock, name) in self.scenario.names.iter().enumerate() {
            if !request.names.contains(name) {
                records.push((name.clone(), self.world.effective(&self.scenario.libraries, lock, name)));
            }
        }
        circle(&request.asker.process, &records, &self.scenario.eyes(&self.world), &mut Parents).is_some()
    }

    fn refuse(&mut self) {
        let is_in_line = self.world.scripts[self.me].in_line;
        self.nothing_to_store(if is_in_line { Then::Leave(Outcome::Failed) } else { Then::End(Outcome::Failed) });
    }

    fn nothing_to_store(&mut self, then: Then) {
        self.leave_gate();
        self.go_on(then);
    }

    fn store(&mut self, drafts: &[Draft], then: Then) {
        let changed: Vec<&Draft> = drafts.iter().filter(|draft| draft.is_changed()).collect();
        let writes = match self.scenario.mistake {
            Mistake::NoJournal => changed.iter().flat_map(|draft| writes(&[*draft]).unwrap()).collect(),
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
        let tokens = drafts.iter().flat_map(|draft| draft.record.holders.iter().map(|grant| grant.token.get()));
        let highest = u8::try_from(tokens.max().unwrap_or(0)).unwrap();
        let plan = Plan { ops, frees, wake: [0; SCRIPTS], highest, then };
        match (self.scenario.mistake, then) {
            (Mistake::RecordAfterDrain, Then::Granted(_)) => self.set(Step::Flock(Turn::TooEarly(plan))),
            _ => self.set(Step::Write(plan)),
        }
    }

    fn write(&mut self, plan: Plan) {
        if plan.ops.made == 0 {
            self.note(&plan);
        }
        let ops = self.make(plan.ops);
        let plan = Plan { ops, ..plan };
        if ops.next().is_some() {
            return self.set(Step::Write(plan));
        }
        if plan.frees.contains(&true) {
            return self.set(Step::Note(plan));
        }
        self.leave_gate();
        self.go_on(plan.then);
    }

    fn note_who_is_next(&mut self, mut plan: Plan) {
        let next = self.scenario.next(&self.world, self.me, &plan);
        plan.wake.iter_mut().zip(next).for_each(|(wake, code)| *wake = code);
        self.leave_gate();
        if plan.wake[0] == 0 { self.go_on(plan.then) } else { self.set(Step::Wake(plan)) }
    }

    /// The first write is the change.
    fn note(&mut self, plan: &Plan) {
        match plan.then {
            Then::Granted(_) => {
                if plan.highest <= self.world.highest {
                    let (new, old) = (plan.highest, self.world.highest);
                    self.complaint = Some(format!("token {new} is granted after {old}"));
                }
                self.world.highest = self.world.highest.max(plan.highest);
                self.world.leave_line(self.me);
            }
            Then::Wait => self.world.join_line(self.me),
            _ => {}
        }
    }

    fn tell(&mut self, code: u8, what: impl Fn(&mut Script)) {
        if code != 0 && self.world.lives(code) {
            what(&mut self.world.scripts[script_of(code)]);
        }
    }

    // What comes after the gate.

    fn go_on(&mut self, then: Then) {
        match then {
            Then::End(outcome) => self.end(outcome),
            Then::Leave(outcome) => self.set(Step::Pass(Errand::Leave(outcome))),
            Then::Wait => self.set(Step::Listen),
            Then::Turn => self.set(Step::Flock(Turn::ToCommit)),
            Then::AlreadyHeld => self.holds(),
            Then::DrainAgain => self.set(Step::Flock(Turn::ToDrainAgain)),
            Then::Granted(granted) => {
                let is_drained = matches!(self.scenario.mistake, Mistake::DrainSkipped | Mistake::RecordAfterDrain);
                if self.scenario.wants_state(self.request()) && !is_drained {
                    self.set(Step::Flock(Turn::ToDrain(granted)));
                } else {
                    self.holds();
                }
            }
        }
    }

    /// The script is told that it has what it asked for.
    fn holds(&mut self) {
        let held = Held::of(self.request().ask.mode);
        for lock in self.scenario.locks(&self.world, self.me) {
            let script = &mut self.world.scripts[self.me];
            let is_counted =
                matches!(self.scenario.scripts[self.me][usize::from(script.command)], Command::AcquireAgain(..));
            if script.is_alive && !script.is_broken && !(is_counted && script.holds[lock].is_some()) {
                script.holds[lock] = Some(held);
            }
        }
        self.end(Outcome::Done);
    }

    fn end_or_leave(&mut self, outcome: Outcome) {
        if self.world.scripts[self.me].in_line {
            self.set(Step::Pass(Errand::Leave(outcome)));
        } else {
            self.end(outcome);
        }
    }

    /// The command ends, and the script goes on to its next, or gives back what it has.
    fn end(&mut self, outcome: Outcome) {
        self.world.leave_line(self.me);
        let commands = &self.scenario.scripts[self.me];
        let last = u8::try_from(commands.len() - 1).unwrap();
        let ended = self.scenario.command(&self.world, self.me);
        let freed = self.scenario.locks(&self.world, self.me);
        let script = &mut self.world.scripts[self.me];
        (script.bell, script.looks_soon, script.is_stopped, script.is_late) = (false, false, false, false);
        let is_release = matches!(ended, Command::Release(_) | Command::GiveAllBack);
        if is_release || script.is_broken {
            // A lock that was counted twice is held on; the record knows.
            let request = self.scenario.request(&self.world, self.me);
            for lock in freed {
                let record = self.world.effective(&self.scenario.libraries, lock, &self.scenario.names[lock]);
                let own = request.asker.own_grant(&self.scenario.names[lock], &record);
                if own.is_none() {
                    self.world.scripts[self.me].holds[lock] = None;
                }
            }
        }
        let script = &mut self.world.scripts[self.me];
        script.is_broken = false;
        script.attempt = 0;
        script.command = match outcome {
            Outcome::Done => (script.command + 1).min(last),
            Outcome::Failed => last,
        };
        let has_more = script.command < last || script.holds.iter().any(Option::is_some);
        let goes_on =
            script.is_alive && has_more && !matches!(ended, Command::GiveAllBack if outcome == Outcome::Failed);
        if !goes_on {
            (script.command, script.holds) = (last, Default::default());
        }
        script.step = if goes_on { Step::Begin } else { Step::End };
    }

    // Before the gate.

    fn peek(&mut self, peek: Peek) {
        let has_journals = self.scenario.names.len() > 1;
        self.set(if has_journals { Step::PeekJournal(peek) } else { Step::PeekRecord(peek) });
    }

    fn peek_record(&mut self, mut peek: Peek) {
        let lock = self.scenario.locks(&self.world, self.me)[usize::from(peek.count)];
        let libraries = &self.scenario.libraries;
        let pending =
            libraries.journals.get(peek.journal).and_then(|pending| pending.record(&self.scenario.names[lock]));
        let seen = pending.map_or(self.world.records[lock], |record| libraries.records.number(record));
        peek.seen[usize::from(peek.count)] = seen;
        peek.count += 1;
        peek.journal = 0;
        if usize::from(peek.count) < self.request().names.len() {
            return self.peek(peek);
        }
        self.set(match peek.judged {
            None => Step::Judge(peek),
            Some((judged, ends)) if judged == peek.seen => Step::Sleep(ends),
            Some(_) => Step::Listen,
        });
    }

    fn judge(&mut self, peek: &Peek) {
        let before = self.world;
        let eyes = self.scenario.eyes(&before);
        let request = self.request().clone();
        let records = self.scenario.named(&request, &peek.seen);
        let has_flock = self.world.flock.map(usize::from) == Some(self.me);
        let reads_early =
            self.scenario.mistake == Mistake::CommitReadsBeforeFlock && !self.world.scripts[self.me].in_line;
        if request.ask.purpose == Purpose::Commit && (has_flock || reads_early) {
            let (name, record) = &records[0];
            let is_turn = blockers(name, record, &request.asker, request.ask, &eyes).next().is_none();
            match (is_turn, has_flock) {
                (true, true) => {
                    self.look_for_overtaken(&[Draft::new(name, record.clone(), Vec::new())]);
                    self.set(Step::Commit);
                }
                (true, false) => self.set(Step::Flock(Turn::AlreadySeen)),
                (false, _) => {
                    self.world.flock = self.world.flock.filter(|_| !has_flock);
                    self.set(Step::Pass(Errand::Ask));
                }
            }
            return;
        }
        match look(&records, &request, &eyes) {
            Some(blocker) if !self.world.scripts[self.me].is_late => self.sleep(&blocker, peek),
            None if self.scenario.mistake == Mistake::GrantWithoutSecondLook => {
                let locks = self.scenario.locks(&self.world, self.me);
                let drafts = locks.iter().zip(peek.seen).map(|(lock, record)| self.draft(*lock, record)).collect();
                self.ask(drafts);
            }
            _ => self.set(Step::Pass(Errand::Ask)),
        }
    }

    fn sleep(&mut self, blocker: &Blocker<'_>, peek: &Peek) {
        let known = ends_to_await(blocker, &self.scenario.eyes(&self.world));
        let mut ends = [script_code(self.me), 0, 0];
        if self.scenario.mistake != Mistake::BlockerNotWatched {
            ends.iter_mut().skip(1).zip(&known).for_each(|(end, process)| *end = code_of(process));
        }
        let script = &mut self.world.scripts[self.me];
        script.looks_soon |= known.is_empty() && matches!(blocker, Blocker::Holder(_));
        if self.scenario.mistake == Mistake::BellForgottenAfterLook {
            script.bell = false;
        }
        match self.scenario.mistake {
            Mistake::JudgedOnce => self.set(Step::Sleep(ends)),
            _ => self.peek(Peek { judged: Some((peek.seen, ends)), ..Peek::default() }),
        }
    }

    // The flock of the state.

    fn take_flock(&mut self, turn: Turn) -> Option<()> {
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
                self.peek(Peek::default());
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

    // What befalls somebody.

    fn is_killed(&mut self) {
        let me = Some(u8::try_from(self.me).unwrap());
        self.world.fates.kills -= 1;
        self.world.gate = self.world.gate.filter(|_| self.world.gate != me);
        self.world.flock = self.world.flock.filter(|_| self.world.flock != me);
        // It did not come to waking those that it was to wake.
        for code in self.scenario.to_wake(&self.world, self.me) {
            self.tell(code, |script| script.looks_soon = true);
        }
        let script = self.world.scripts[self.me];
        if script.is_alive && script.attempt == 0 {
            self.world.leave_line(self.me);
            let script = &mut self.world.scripts[self.me];
            (script.bell, script.looks_soon, script.is_stopped, script.is_late) = (false, false, false, false);
            script.attempt = 1;
            script.step = Step::Begin;
        } else {
            self.end(Outcome::Failed);
        }
    }

    fn script_dies(&mut self) {
        self.world.fates.deaths -= 1;
        let script = &mut self.world.scripts[self.me];
        script.is_alive = false;
        script.holds = Default::default();
        if script.step == Step::Begin {
            script.step = Step::End;
        }
    }

    /// A waiter that is stopped, or goes on, gives no sign.
    fn others_look_soon(&mut self) {
        for (number, script) in self.world.scripts.iter_mut().enumerate() {
            script.looks_soon |= number != self.me && matches!(script.step, Step::Sleep(_));
        }
    }
}
