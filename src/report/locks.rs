//! The marks of locks: each grant paired with its end, each wait with the grants it waited for.

use std::collections::{HashMap, HashSet};

use super::HeldGrant;
use super::marks::{End, Fact, LaneKind, Marks, What};
use crate::journal::Commit;
use crate::journal::event::{Blocker, LockEvent, LockMode, LockStep, Party, Role};
use crate::lock::STATE;

/// The longest wait that is drawn, in milliseconds: a week.
const LONGEST_WAIT: f64 = 7.0 * 86_400_000.0;
/// The shortest wait without a known blocker that is drawn, in seconds.
const SHORTEST_WAIT: f64 = 0.001;
/// The marks of a process that are compared with the time of a wait, before and after it.
const NEAR: usize = 8;

/// The locks, as their events are added.
pub(super) struct LockLanes<'a> {
    held: &'a HashSet<HeldGrant>,
    /// The grants that have not ended, by lane.
    open: HashMap<usize, Vec<Grant>>,
    /// All grants, by lane and token.
    grants: HashMap<(usize, u64), usize>,
    /// All marks of a process in a lane, in the order of their lines.
    of_process: HashMap<Process, Vec<usize>>,
    waits: Vec<Wait>,
}

/// A process in the lane of a lock, and how it is there.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Process {
    lane: usize,
    script: usize,
    what: What,
}

/// A grant that has not ended.
struct Grant {
    token: Option<u64>,
    mode: LockMode,
    lock: String,
    mark: usize,
}

/// A wait, and what it waited for.
struct Wait {
    lane: usize,
    mark: usize,
    blockers: Vec<Blocker>,
}

impl<'a> LockLanes<'a> {
    pub(super) fn new(held: &'a HashSet<HeldGrant>) -> Self {
        Self {
            held,
            open: HashMap::new(),
            grants: HashMap::new(),
            of_process: HashMap::new(),
            waits: Vec::new(),
        }
    }

    /// Adds the wait of a commit for the state.
    pub(super) fn add_commit(&mut self, commit: &Commit, marks: &mut Marks) {
        if commit.blockers.is_empty() {
            return;
        }
        let lane = marks.lane(LaneKind::Lock, STATE);
        let wait = self.add_wait(lane, commit.waited, &commit.blockers, marks);
        if let Some(wait) = wait {
            marks.end(wait, End::Done);
        }
    }

    pub(super) fn add(&mut self, event: &LockEvent, marks: &mut Marks) {
        let lane = marks.lane(LaneKind::Lock, &event.lock);
        match event.step {
            LockStep::Granted => self.grant(lane, event, marks),
            LockStep::Released => self.end(lane, event, End::Done, marks),
            LockStep::Broken => self.end(lane, event, End::Broken, marks),
            LockStep::OwnerDied => self.end(lane, event, End::OwnerDied, marks),
            LockStep::TimedOut => self.end_wait(lane, event, End::TimedOut, marks),
            LockStep::WaitBroken => self.end_wait(lane, event, End::Broken, marks),
        }
    }

    fn grant(&mut self, lane: usize, event: &LockEvent, marks: &mut Marks) {
        let is_long = event.waited >= SHORTEST_WAIT || !event.blockers.is_empty();
        let wait =
            is_long.then(|| self.add_wait(lane, event.waited, &event.blockers, marks)).flatten();
        if let Some(wait) = wait {
            marks.end(wait, End::Done);
        }
        let mode = event.mode.unwrap_or(LockMode::Exclusive);
        let open = self.open.entry(lane).or_default();
        if event.token.is_some() && open.iter().any(|grant| grant.token == event.token) {
            return; // granted again to its owner
        }
        // Grants that exclude this one ended before it, without a line.
        open.retain(|grant| {
            let is_over = mode == LockMode::Exclusive || grant.mode == LockMode::Exclusive;
            if is_over {
                marks.end(grant.mark, End::Unknown);
                let why = "without a line: its owner died, or the line was lost";
                marks.add_fact(grant.mark, Fact::new("Ended", why));
            }
            !is_over
        });
        let mark = marks.begin(lane, What::Held, "", facts(event));
        marks.label_with_script(mark);
        if let Some(held) = marks.list.get_mut(mark) {
            held.after = wait;
        }
        self.remember(lane, mark, event.token, What::Held, marks);
        let grant = Grant { token: event.token, mode, lock: event.lock.clone(), mark };
        self.open.entry(lane).or_default().push(grant);
    }

    /// Ends the grant that the event names.
    fn end(&mut self, lane: usize, event: &LockEvent, end: End, marks: &mut Marks) {
        let subject = event.subject.as_ref();
        let token = subject.and_then(|party| party.token).or(event.token);
        let owner = subject.map(|party| marks.script_of(party)).or(marks.author());
        let open = self.open.entry(lane).or_default();
        let is_of = |grant: &Grant, marks: &Marks| match token {
            Some(_) => grant.token == token,
            None => marks.list.get(grant.mark).is_some_and(|mark| mark.script == owner),
        };
        let place = open.iter().position(|grant| is_of(grant, marks));
        let mark = match place {
            Some(place) => open.remove(place).mark,
            None => {
                let mark = marks.begin(lane, What::Held, "", facts(event));
                marks.add_fact(mark, Fact::new("Granted", "before the first line of the journal"));
                marks.set_script(mark, owner);
                marks.label_with_script(mark);
                self.remember(lane, mark, token, What::Held, marks);
                mark
            }
        };
        marks.end(mark, end);
        let author = marks.describe(marks.author());
        match end {
            End::Broken => marks.add_fact(mark, Fact::new("Broken by", &author)),
            End::OwnerDied => {
                let how = format!("its owner died; found by {author}");
                marks.add_fact(mark, Fact::new("Ended", &how));
            }
            _ => {}
        }
    }

    /// Adds a wait without a grant.
    fn end_wait(&mut self, lane: usize, event: &LockEvent, end: End, marks: &mut Marks) {
        let wait = self.add_wait(lane, event.waited, &event.blockers, marks);
        let Some(wait) = wait else { return };
        if let Some(subject) = &event.subject {
            let author = marks.describe(marks.author());
            let script = marks.script_of(subject);
            marks.set_script(wait, Some(script));
            marks.label_with_script(wait);
            marks.add_fact(wait, Fact::new("Broken by", &author));
            self.remember(lane, wait, None, What::Waited, marks);
        }
        marks.end(wait, end);
    }

    /// Adds a wait that ends with the event.
    fn add_wait(
        &mut self,
        lane: usize,
        waited: f64,
        blockers: &[Blocker],
        marks: &mut Marks,
    ) -> Option<usize> {
        let mut facts = vec![Fact::new("Waited", &format!("{waited:.3} s"))];
        for Blocker { role, party } in blockers {
            // A holder may have run another program when its grant was recorded.
            let granted = party.token.and_then(|token| self.grants.get(&(lane, token)));
            let known = granted.and_then(|mark| marks.list.get(*mark)?.script);
            let script = known.unwrap_or_else(|| marks.script_of(party));
            let text = marks.describe(Some(script));
            let how = match role {
                Role::Holder => "held it",
                Role::Waiter => "came first",
            };
            facts.push(Fact::new("For", &format!("{text}, which {how}")));
        }
        let mark = marks.begin(lane, What::Waited, "", facts);
        marks.label_with_script(mark);
        #[allow(clippy::cast_possible_truncation)] // clamped
        let length = (waited * 1000.0).clamp(0.0, LONGEST_WAIT) as i64;
        if let Some(wait) = marks.list.get_mut(mark) {
            wait.from -= length;
        }
        self.remember(lane, mark, None, What::Waited, marks);
        self.waits.push(Wait { lane, mark, blockers: blockers.to_vec() });
        Some(mark)
    }

    fn remember(
        &mut self,
        lane: usize,
        mark: usize,
        token: Option<u64>,
        what: What,
        marks: &Marks,
    ) {
        if let Some(token) = token {
            self.grants.insert((lane, token), mark);
        }
        if let Some(script) = marks.list.get(mark).and_then(|mark| mark.script) {
            self.of_process.entry(Process { lane, script, what }).or_default().push(mark);
        }
    }

    /// Says how the grants without an end are, and links the waits.
    pub(super) fn finish(self, marks: &mut Marks) {
        for grant in self.open.values().flatten() {
            let is_held = grant.token.is_some_and(|token| {
                self.held.contains(&HeldGrant { lock: grant.lock.clone(), token })
            });
            let Some(mark) = marks.list.get_mut(grant.mark) else { continue };
            mark.end = if is_held { End::Open } else { End::Unknown };
            let fact = if is_held { "it is held" } else { "not on record" };
            marks.add_fact(grant.mark, Fact::new("Ended", fact));
        }
        for wait in &self.waits {
            let mut links = Vec::new();
            for blocker in &wait.blockers {
                links.extend(self.find(wait, blocker, marks).filter(|mark| *mark != wait.mark));
            }
            if let Some(mark) = marks.list.get_mut(wait.mark) {
                mark.waited_for = links;
            }
        }
    }

    /// The mark of a blocker at the time of a wait.
    fn find(&self, wait: &Wait, blocker: &Blocker, marks: &mut Marks) -> Option<usize> {
        let Blocker { role, party } = blocker;
        let by_token = party.token.filter(|_| *role == Role::Holder);
        let found = by_token.and_then(|token| self.grants.get(&(wait.lane, token)).copied());
        let what = match role {
            Role::Holder => What::Held,
            Role::Waiter => What::Waited,
        };
        found.or_else(|| self.find_by_process(wait, what, party, marks))
    }

    fn find_by_process(
        &self,
        wait: &Wait,
        what: What,
        party: &Party,
        marks: &mut Marks,
    ) -> Option<usize> {
        let script = marks.script_of(party);
        let list = self.of_process.get(&Process { lane: wait.lane, script, what })?;
        let place = list.partition_point(|mark| *mark < wait.mark);
        let near = list.get(place.saturating_sub(NEAR)..list.len().min(place + NEAR))?;
        let own = marks.list.get(wait.mark)?;
        near.iter().rev().copied().find(|mark| {
            marks.list.get(*mark).is_some_and(|mark| {
                mark.from <= own.from && mark.until.is_none_or(|until| until >= own.from)
            })
        })
    }
}

fn facts(event: &LockEvent) -> Vec<Fact> {
    let mode = event.mode.map(|mode| match mode {
        LockMode::Exclusive => "exclusive",
        LockMode::Shared => "shared",
    });
    let mut facts: Vec<Fact> = mode.map(|mode| Fact::new("Mode", mode)).into_iter().collect();
    facts.extend(event.token.map(|token| Fact::new("Token", &token.to_string())));
    facts
}
