//! The marks of a timeline, collected event by event: points and spans in lanes.

mod rows;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::SystemTime;

use serde::Serialize;

use crate::journal::Origin;
use crate::journal::event::Party;
use crate::printable::one_line;
use crate::time::parse_rfc3339;
use crate::user;

/// The longest text of a fact, in characters.
const TEXT_LIMIT: usize = 2048;
/// The longest name, label or title, in characters.
const NAME_LIMIT: usize = 160;
/// The most lanes of locks; the locks with the fewest marks share one more.
const LOCK_LANES: usize = 40;
/// An event is shown at most this long before the present, in milliseconds: ten years.
const OLDEST: i64 = 10 * 365 * 86_400_000;

/// Milliseconds since 1970.
pub(super) fn millis(time: SystemTime) -> i64 {
    chrono::DateTime::<chrono::Utc>::from(time).timestamp_millis()
}

fn cut(text: &str, limit: usize) -> String {
    // An escape is longer than its character, so no more of them are needed.
    let few: String = text.chars().take(limit + 1).collect();
    let line = one_line(&few);
    match line.char_indices().nth(limit) {
        Some((end, _)) => format!("{}…", line.get(..end).unwrap_or_default()),
        None => line,
    }
}

/// A text as the page shows it: on one line, steering characters escaped, not too long.
pub(super) fn shown(text: &str) -> String {
    cut(text, TEXT_LIMIT)
}

/// The same for a name.
pub(super) fn shown_name(text: &str) -> String {
    cut(text, NAME_LIMIT)
}

/// The kind of a lane, in the order from top to bottom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LaneKind {
    /// The phase.
    Phase,
    /// Tasks that were completed.
    Tasks,
    /// Signals.
    Signals,
    /// Commits that changed none of these.
    Commits,
    /// A lock.
    Lock,
    /// The locks without a lane of their own.
    OtherLocks,
    /// Guards.
    Guards,
    /// Retried commands.
    Retries,
    /// Checkpoints and restores.
    Checkpoints,
    /// Refusals and errors.
    Errors,
}

/// A lane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Lane {
    /// Its kind.
    pub kind: LaneKind,
    /// The lock's name; empty in other lanes.
    pub name: String,
    /// The number of its rows.
    pub rows: usize,
}

/// The kind of a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// A span: the phase was this one.
    Phase,
    /// A point: tasks were completed or taken back.
    Task,
    /// A point: signals changed.
    Signal,
    /// A point: another commit.
    Commit,
    /// A span: a lock was held.
    Held,
    /// A span: a request waited for a lock.
    Waited,
    /// A span: a guard.
    Guard,
    /// A point: a step of a guard after its end.
    GuardStep,
    /// A span: a command and its retries.
    Retry,
    /// A point: a checkpoint was made.
    Checkpoint,
    /// A point: a checkpoint was removed.
    Removed,
    /// A point: a checkpoint was restored, or a restore undone.
    Restore,
    /// A point: a command was refused or failed.
    Failure,
}

/// The end of a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// As it should: released, granted, succeeded; also that of a point.
    Done,
    /// It has not ended.
    Open,
    /// It is not known how or when.
    Unknown,
    /// A request was not granted in time, or the time of all attempts was up.
    TimedOut,
    /// An operator ended it.
    Broken,
    /// Its owner died.
    OwnerDied,
    /// The command failed.
    Failed,
    /// The command of a guard failed, and what it changed was put back.
    Restored,
    /// Not everything was put back.
    Unrestored,
}

/// A named text about a mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact(pub &'static str, pub String);

impl Fact {
    /// A fact with this text, fit to be shown.
    pub(super) fn new(name: &'static str, text: &str) -> Self {
        Self(name, shown(text))
    }
}

/// A script.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Script {
    /// The name of its program.
    pub program: String,
    /// Its process id.
    pub pid: Option<u32>,
    /// `user@host`, as far as it is known.
    pub user: String,
}

/// A mark in a lane.
#[derive(Clone, Debug)]
pub struct Mark {
    /// The number of its lane.
    pub lane: usize,
    /// The number of its row in the lane.
    pub row: usize,
    /// Its kind.
    pub what: What,
    /// Its beginning.
    pub from: i64,
    /// Its end, as late as its beginning for a point; `None` if it has none, or an unknown one.
    pub until: Option<i64>,
    /// How it ended.
    pub end: End,
    /// The text in it.
    pub label: String,
    /// The number of the script that it belongs to.
    pub script: Option<usize>,
    /// What is known about it.
    pub facts: Vec<Fact>,
    /// The numbers of the marks that it waited for.
    pub waited_for: Vec<usize>,
    /// The number of the last line that it was made from.
    pub line: usize,
    /// The wait that ended with this grant.
    pub after: Option<usize>,
}

/// All marks, and the event that is being added.
pub(super) struct Marks {
    pub now: i64,
    /// The number of events with a time in the future.
    pub future: usize,
    pub list: Vec<Mark>,
    lanes: Vec<Lane>,
    lane_of: HashMap<(LaneKind, String), usize>,
    scripts: Vec<Script>,
    script_of: HashMap<(Option<u32>, String), usize>,
    line: usize,
    time: i64,
    script: Option<usize>,
}

/// What a page shows of the marks.
pub(super) struct Chosen {
    pub scripts: Vec<Script>,
    pub lanes: Vec<Lane>,
    pub marks: Vec<Mark>,
}

impl Marks {
    pub(super) fn new(now: i64) -> Self {
        Self {
            now,
            future: 0,
            list: Vec::new(),
            lanes: Vec::new(),
            lane_of: HashMap::new(),
            scripts: Vec::new(),
            script_of: HashMap::new(),
            line: 0,
            time: 0,
            script: None,
        }
    }

    /// Makes the event of this line the one that marks are added of; its time.
    pub(super) fn begin_line(&mut self, line: usize, origin: &Origin) -> i64 {
        let time = parse_rfc3339(&origin.time).map_or(self.now, millis);
        self.future += usize::from(time > self.now);
        self.time = time.clamp(self.now.saturating_sub(OLDEST), self.now);
        self.line = line;
        let owner = &origin.owner;
        let is_known = owner.pid > 0 || !owner.program.is_empty();
        self.script = is_known.then(|| {
            let number = self.script_number(Some(owner.pid), &owner.program);
            if let Some(script) = self.scripts.get_mut(number).filter(|of| of.user.is_empty()) {
                let user = user::name(owner.uid).unwrap_or_else(|| format!("uid {}", owner.uid));
                script.user = shown_name(&format!("{user}@{}", owner.host));
            }
            number
        });
        self.time
    }

    /// The number of a process that is not the event's author.
    pub(super) fn script_of(&mut self, party: &Party) -> usize {
        self.script_number(party.pid, &party.program)
    }

    /// A script in a sentence.
    pub(super) fn describe(&self, number: Option<usize>) -> String {
        let script = number.and_then(|number| self.scripts.get(number));
        script.map_or_else(
            || "unknown".to_owned(),
            |script| match script.pid {
                Some(pid) => format!("{} (pid {pid})", script.program),
                None => script.program.clone(),
            },
        )
    }

    /// The author of the event.
    pub(super) fn author(&self) -> Option<usize> {
        self.script
    }

    fn script_number(&mut self, pid: Option<u32>, program: &str) -> usize {
        let program = if program.is_empty() { "unknown" } else { program };
        let key = (pid, shown_name(program));
        if let Some(number) = self.script_of.get(&key) {
            return *number;
        }
        let number = self.scripts.len();
        let script = Script { program: key.1.clone(), pid, user: String::new() };
        self.scripts.push(script);
        self.script_of.insert(key, number);
        number
    }

    /// The number of a lane, which is made if it is missing.
    pub(super) fn lane(&mut self, kind: LaneKind, name: &str) -> usize {
        let key = (kind, shown_name(name));
        if let Some(number) = self.lane_of.get(&key) {
            return *number;
        }
        let number = self.lanes.len();
        self.lanes.push(Lane { kind, name: key.1.clone(), rows: 1 });
        self.lane_of.insert(key, number);
        number
    }

    /// Adds a point at the time of the event; its number.
    pub(super) fn add(&mut self, lane: usize, what: What, label: &str, facts: Vec<Fact>) -> usize {
        let number = self.begin(lane, what, label, facts);
        self.end(number, End::Done);
        number
    }

    /// Adds a span that begins with the event; its number.
    pub(super) fn begin(
        &mut self,
        lane: usize,
        what: What,
        label: &str,
        facts: Vec<Fact>,
    ) -> usize {
        self.list.push(Mark {
            lane,
            row: 0,
            what,
            from: self.time,
            until: None,
            end: End::Unknown,
            label: shown_name(label),
            script: self.script,
            facts,
            waited_for: Vec::new(),
            line: self.line,
            after: None,
        });
        self.list.len() - 1
    }

    /// Ends a span with the event.
    pub(super) fn end(&mut self, number: usize, end: End) {
        let (time, line) = (self.time, self.line);
        if let Some(mark) = self.list.get_mut(number) {
            mark.until = Some(time.max(mark.from));
            mark.end = end;
            mark.line = line;
        }
    }

    /// Changes how a span ended, and not when.
    pub(super) fn set_end(&mut self, number: usize, end: End) {
        let line = self.line;
        if let Some(mark) = self.list.get_mut(number) {
            mark.end = end;
            mark.line = line;
        }
    }

    /// Makes a mark that of another script.
    pub(super) fn set_script(&mut self, number: usize, script: Option<usize>) {
        if let Some(mark) = self.list.get_mut(number) {
            mark.script = script;
        }
    }

    /// Labels a mark with its script.
    pub(super) fn label_with_script(&mut self, number: usize) {
        let scripts = &self.scripts;
        if let Some(mark) = self.list.get_mut(number)
            && let Some(script) = mark.script.and_then(|script| scripts.get(script))
        {
            mark.label.clone_from(&script.program);
        }
    }

    /// Returns whether a span has ended.
    pub(super) fn is_ended(&self, number: usize) -> bool {
        self.list.get(number).is_some_and(|mark| mark.until.is_some())
    }

    /// Adds a fact to a mark.
    pub(super) fn add_fact(&mut self, number: usize, fact: Fact) {
        if let Some(mark) = self.list.get_mut(number) {
            mark.facts.push(fact);
        }
    }

    /// The marks of lines from `first` on that did not end before `since`, in lanes and rows.
    pub(super) fn choose(mut self, first: usize, since: Option<i64>) -> Chosen {
        let is_kept = |mark: &Mark| {
            let is_late = since.is_none_or(|since| mark.until.is_none_or(|until| until >= since));
            mark.line >= first && is_late
        };
        let kept: Vec<usize> = (0..self.list.len())
            .filter(|number| self.list.get(*number).is_some_and(is_kept))
            .collect();
        let lanes = self.order_lanes(&kept);
        for mark in &mut self.list {
            mark.lane = lanes.of.get(&mark.lane).copied().unwrap_or_default();
        }
        let place =
            |number: &usize| self.list.get(*number).map(|mark| (mark.lane, mark.from, mark.line));
        let mut order = kept;
        order.sort_by_key(place);
        let new: HashMap<usize, usize> =
            order.iter().enumerate().map(|(new, old)| (*old, new)).collect();
        let mut marks: Vec<Mark> = order
            .iter()
            .filter_map(|old| self.list.get(*old).cloned())
            .map(|mut mark| {
                mark.waited_for =
                    mark.waited_for.iter().filter_map(|old| new.get(old)).copied().collect();
                mark.after = mark.after.and_then(|old| new.get(&old).copied());
                mark
            })
            .collect();
        let mut lanes = lanes.list;
        rows::assign(&mut lanes, &mut marks);
        Chosen { scripts: self.scripts, lanes, marks }
    }

    /// The lanes of these marks, in their order.
    fn order_lanes(&self, kept: &[usize]) -> Lanes {
        let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
        for mark in kept.iter().filter_map(|number| self.list.get(*number)) {
            *counts.entry(mark.lane).or_default() += 1;
        }
        let lane = |number: &usize| self.lanes.get(*number);
        let mut used: Vec<usize> = counts.keys().copied().collect();
        let mut locks: Vec<usize> = used
            .iter()
            .copied()
            .filter(|number| lane(number).is_some_and(|lane| lane.kind == LaneKind::Lock))
            .collect();
        locks.sort_by_key(|number| std::cmp::Reverse(counts.get(number).copied()));
        let others: BTreeSet<usize> = locks.into_iter().skip(LOCK_LANES).collect();
        used.retain(|number| !others.contains(number));
        used.sort_by_key(|number| lane(number).map(|lane| (lane.kind, lane.name.clone())));
        let mut list: Vec<Lane> = used.iter().filter_map(lane).cloned().collect();
        let mut of: HashMap<usize, usize> =
            used.iter().enumerate().map(|(new, old)| (*old, new)).collect();
        if !others.is_empty() {
            let place = list.partition_point(|lane| lane.kind < LaneKind::OtherLocks);
            let name = format!("{} other locks", others.len());
            list.insert(place, Lane { kind: LaneKind::OtherLocks, name, rows: 1 });
            of.values_mut().filter(|new| **new >= place).for_each(|new| *new += 1);
            of.extend(others.into_iter().map(|old| (old, place)));
        }
        Lanes { list, of }
    }
}

/// The lanes of a page, and where the collected ones are among them.
struct Lanes {
    list: Vec<Lane>,
    of: HashMap<usize, usize>,
}
