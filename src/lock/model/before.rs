//! The steps of a command without the gate, and the turn of a commit.

use super::scenario::{Mistake, Scenario};
use super::steps::Actor;
use super::world::{Errand, Peek, Step, Turn, code_of, script_code};
use crate::lock::draft::Draft;
use crate::lock::look::{ends_to_await, look};
use crate::lock::queue::{Blocker, blockers};
use crate::lock::record::{Purpose, Record};
use crate::lock::request::Request;
use crate::name::Name;

impl Actor<'_> {
    pub fn peek(&mut self, peek: Peek) {
        let has_journals = self.scenario.names.len() > 1;
        self.set(if has_journals { Step::PeekJournal(peek) } else { Step::PeekRecord(peek) });
    }

    /// Draining the wakeup and the first read are one step: a change between them would be seen.
    pub fn look(&mut self) {
        self.peek(Peek::default());
        if let Step::PeekRecord(peek) = self.world.scripts[self.me].step {
            self.peek_record(peek);
        }
    }

    pub fn peek_record(&mut self, mut peek: Peek) {
        let lock = self.scenario.locks(&self.world, self.me)[usize::from(peek.count)];
        let libraries = &self.scenario.libraries;
        let pending = libraries
            .journals
            .get(peek.journal)
            .as_ref()
            .as_ref()
            .and_then(|pending| pending.record(&self.scenario.names[lock]));
        let seen =
            pending.map_or(self.world.records[lock], |record| libraries.records.number(record));
        peek.seen[usize::from(peek.count)] = seen;
        if self.world.flock.map(usize::from) == Some(self.me) {
            peek.excused = self.world.excused();
        }
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

    pub fn judge(&mut self, peek: &Peek) {
        let before = self.world;
        let eyes = self.scenario.eyes(&before, self.me);
        let request = self.request();
        let records = self.scenario.named(request, &peek.seen);
        let has_flock = self.world.flock.map(usize::from) == Some(self.me);
        let reads_early = self.scenario.mistake == Mistake::CommitReadsBeforeFlock
            && !self.world.scripts[self.me].in_line;
        if request.ask.purpose == Purpose::Commit && (has_flock || reads_early) {
            let (name, record) = &records[0];
            let is_turn =
                blockers(name, record, &request.asker, request.ask, &eyes).next().is_none();
            match (is_turn, has_flock) {
                (true, true) => {
                    self.look_for_overtaken(&[Draft::new(name, record.clone())], peek.excused);
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
        match look(&records, request, &eyes) {
            Some(blocker) if !self.world.scripts[self.me].is_late => self.sleep(&blocker, peek),
            None if self.scenario.mistake == Mistake::GrantWithoutSecondLook => {
                let locks = self.scenario.locks(&self.world, self.me);
                let drafts = locks
                    .iter()
                    .zip(peek.seen)
                    .map(|(lock, record)| self.draft(*lock, record))
                    .collect();
                self.ask(drafts);
            }
            _ => self.set(Step::Pass(Errand::Ask)),
        }
    }

    pub fn sleep(&mut self, blocker: &Blocker<'_>, peek: &Peek) {
        let known = ends_to_await(blocker, &self.scenario.eyes(&self.world, self.me));
        let mut ends = [script_code(self.me), 0, 0];
        if self.scenario.mistake != Mistake::BlockerNotWatched {
            ends.iter_mut().skip(1).zip(&known).for_each(|(end, process)| *end = code_of(process));
        }
        let script = &mut self.world.scripts[self.me];
        script.looks_soon |= known.is_empty() && matches!(blocker, Blocker::Holder(_));
        match self.scenario.mistake {
            Mistake::JudgedOnce => self.set(Step::Sleep(ends)),
            Mistake::BellForgottenAfterLook => {
                self.world.scripts[self.me].bell = false;
                self.set(Step::Sleep(ends));
            }
            _ => self.peek(Peek { judged: Some((peek.seen, ends)), ..Peek::default() }),
        }
    }
}

impl Scenario {
    /// The names of these locks, each with its record.
    pub fn named(&self, request: &Request, records: &[u16]) -> Vec<(Name, Record)> {
        let records =
            records.iter().map(|record| self.libraries.records.get(*record).as_ref().clone());
        request.names.iter().cloned().zip(records).collect()
    }
}
