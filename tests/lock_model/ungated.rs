//! The steps of a command without the gate, and the turn of a commit.

use super::scenario::{Mistake, Scenario};
use super::steps::Actor;
use super::world::{Errand, Peek, Step, Turn, code_of, script_code};
use pipeline_state::lock::admission::{first_blocker, processes_to_watch};
use pipeline_state::lock::edit::RecordEdit;
use pipeline_state::lock::queue::{Blocker, blockers};
use pipeline_state::lock::{Purpose, Record, Request};
use pipeline_state::name::Name;

impl Actor<'_> {
    /// Reads everything: a waiter is in a queue until its grant is on record, so the queues come
    /// first.
    pub fn read_all(&mut self) {
        self.set(Step::PeekQueue(Peek::default()));
    }

    pub fn peek_queue(&mut self, mut read_record: Peek) {
        let locks = self.scenario.locks(&self.world, self.me);
        let lock = locks[usize::from(read_record.listed)];
        read_record.queues[usize::from(read_record.listed)] = self.world.queues[lock];
        if self.world.flock.map(usize::from) == Some(self.me) {
            read_record.excused = self.world.excused();
        }
        read_record.listed += 1;
        if usize::from(read_record.listed) < locks.len() {
            return self.set(Step::PeekQueue(read_record));
        }
        self.read_record(read_record);
    }

    pub fn read_record(&mut self, read_record: Peek) {
        let has_journals = self.scenario.names.len() > 1;
        self.set(if has_journals {
            Step::PeekJournal(read_record)
        } else {
            Step::PeekRecord(read_record)
        });
    }

    /// Draining the wakeup and the first read are one step: a change between them would be seen.
    pub fn recheck(&mut self) {
        self.peek_queue(Peek::default());
    }

    pub fn peek_record(&mut self, mut read_record: Peek) {
        let lock = self.scenario.locks(&self.world, self.me)[usize::from(read_record.count)];
        let libraries = &self.scenario.libraries;
        let pending = libraries
            .journals
            .get(read_record.journal)
            .as_ref()
            .as_ref()
            .and_then(|pending| pending.record(&self.scenario.names[lock]));
        let seen =
            pending.map_or(self.world.records[lock], |record| libraries.records.number(record));
        read_record.seen[usize::from(read_record.count)] = seen;
        read_record.count += 1;
        read_record.journal = 0;
        if usize::from(read_record.count) < self.request().names.len() {
            return self.read_record(read_record);
        }
        self.set(match read_record.judged {
            None => Step::LivenessProbe(read_record),
            Some((judged, ends)) if judged == read_record.seen => Step::Sleep(ends),
            Some(_) => Step::Listen,
        });
    }

    pub fn judge(&mut self, read_record: &Peek) {
        let before = self.world;
        let oracle = self.scenario.oracle(&before, self.me);
        let request = self.request();
        let records = self.scenario.named(request, read_record);
        let has_flock = self.world.flock.map(usize::from) == Some(self.me);
        let reads_early = self.scenario.mistake == Mistake::CommitReadsBeforeFlock
            && !self.world.scripts[self.me].is_queued;
        if request.spec.purpose == Purpose::Commit && (has_flock || reads_early) {
            let (name, record) = &records[0];
            let is_turn =
                blockers(name, record, &request.requester, request.spec, &oracle).next().is_none();
            match (is_turn, has_flock) {
                (true, true) => {
                    self.check_overtaken(
                        &[RecordEdit::new(name, record.clone())],
                        read_record.excused,
                    );
                    self.set(Step::Commit);
                }
                (true, false) => self.set(Step::Flock(Turn::AlreadySeen)),
                (false, _) => {
                    self.world.flock = self.world.flock.filter(|_| !has_flock);
                    self.set(Step::Pass(Errand::Request));
                }
            }
            return;
        }
        match first_blocker(&records, request, &oracle) {
            Some(blocker) if !self.world.scripts[self.me].is_late => {
                self.sleep(&blocker, read_record)
            }
            None if self.scenario.mistake == Mistake::GrantWithoutSecondCheck => {
                let locks = self.scenario.locks(&self.world, self.me);
                let edits = locks
                    .iter()
                    .zip(read_record.seen.into_iter().zip(read_record.queues))
                    .map(|(lock, (record, queue))| self.edit_of(*lock, record, queue))
                    .collect();
                self.admit(edits);
            }
            _ => self.set(Step::Pass(Errand::Request)),
        }
    }

    pub fn sleep(&mut self, blocker: &Blocker<'_>, read_record: &Peek) {
        let known = processes_to_watch(blocker, &self.scenario.oracle(&self.world, self.me));
        let mut ends = [script_code(self.me), 0, 0];
        if self.scenario.mistake != Mistake::BlockerNotWatched {
            ends.iter_mut().skip(1).zip(&known).for_each(|(end, process)| *end = code_of(process));
        }
        let script = &mut self.world.scripts[self.me];
        script.rechecks_soon |= known.is_empty() && matches!(blocker, Blocker::Holder(_));
        match self.scenario.mistake {
            Mistake::JudgedOnce => self.set(Step::Sleep(ends)),
            Mistake::WakeupDrainedAfterCheck => {
                self.world.scripts[self.me].wakeup = false;
                self.set(Step::Sleep(ends));
            }
            // The end of a living waiter wakes this one, whatever the records say.
            _ if matches!(blocker, Blocker::Waiter(_)) => self.set(Step::Sleep(ends)),
            _ => {
                self.read_record(Peek { judged: Some((read_record.seen, ends)), ..Peek::default() })
            }
        }
    }
}

impl Scenario {
    /// The names of a request's locks, each with its record as it was read.
    pub fn named(&self, request: &Request, peek: &Peek) -> Vec<(Name, Record)> {
        let numbers = peek.seen.into_iter().zip(peek.queues);
        let records = numbers.map(|(record, queue)| self.record_of(record, queue));
        request.names.iter().cloned().zip(records).collect()
    }
}
