//! Decides if a history of many processes is consistent with one register that changes by one
//! revision at a time, and with locks that exclude each other in order. It knows nothing of the
//! program; the tests below check it with histories that break each of its rules.
//!
//! Every operation has an interval: it took effect, if at all, after it began and before its end
//! was known. A killed operation ends with its process. Revisions are numbered, so one pass decides
//! if an order of effects explains everything: each takes effect as early as possible, after its
//! predecessor and after the reads of that; if that is after its end, there is none.

use std::collections::{BTreeMap, HashMap, HashSet};

/// A moment, in nanoseconds of a monotonic clock.
pub type Moment = u64;

/// The checked fields of the document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Document {
    /// Number of the last change.
    pub register: u64,
    /// Count of changes that preserved the earlier contents.
    pub count: u64,
    /// Numbers of the last changes.
    pub recent: Vec<u64>,
}

/// Length of that list of numbers in the document.
pub const WINDOW: usize = 32;

/// Effect of a write on the document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Notes its number.
    Note,
    /// Records its number, counts, and drops numbers older than [`WINDOW`].
    Count,
}

impl Document {
    fn after(&self, change: Change, number: u64) -> Self {
        let mut next = self.clone();
        (next.register, next.count) = (number, next.count + u64::from(change == Change::Count));
        next.recent.push(number);
        if change == Change::Count {
            let older = next.recent.len().saturating_sub(WINDOW);
            next.recent.drain(..older).for_each(drop);
        }
        next
    }
}

/// A client's operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    Read,
    /// The document holds this number; `only_after` is the revision that it must follow.
    Write {
        number: u64,
        change: Change,
        only_after: Option<u64>,
        fence: Option<(String, u64)>,
    },
    Acquire {
        lock: String,
        exclusive: bool,
        once: bool,
    },
    /// Of unknown outcome if the owner died: its grant stays on record until another process takes
    /// the lock.
    Release {
        lock: String,
        token: u64,
    },
    List,
}

/// The result of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Saw(u64, Document),
    Committed(u64),
    Conflict,
    Fenced,
    Granted(u64),
    Released,
    /// Holders, with their tokens, and waiters in their order: lock, client, token.
    Listed(Vec<(String, usize, Option<u64>)>),
    /// It failed, and said that nothing was changed.
    Refused,
    /// Of a release: the grant's lease had ended, or may have.
    Lost,
    /// It was killed, or could not learn what became of it. Then its end is that of time.
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub client: usize,
    pub began: Moment,
    pub ended: Moment,
    pub op: Op,
    pub outcome: Outcome,
}

/// The rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rule {
    /// A revision has one write.
    OneOwner,
    /// A write has one revision at most, and none if it was refused.
    OneRevision,
    /// Revisions have no gaps.
    NoGap,
    /// Each document is the previous one, changed by its write.
    RightDocument,
    /// No change is visible before it was written, or lost after it was acknowledged.
    RealTime,
    /// A client never reads an older revision than before.
    NeverBack,
    /// A condition was met, or refused for a reason.
    Condition,
    /// A fence held, or was refused for a reason; of one lock later grants write later.
    Fence,
    /// Later grants have higher, distinct tokens.
    Token,
    /// No two conflicting grants of a lock are held at once.
    Exclusion,
    /// Waiters are served in order.
    Queue,
    /// No commit while another client holds the state.
    StateHeld,
}

/// A broken rule, with its events.
pub type Violation = (Rule, String);

/// The initial revision, and how often the live file was destroyed during the history.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    pub revision: u64,
    pub damages: usize,
}

/// Counts of a history.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    pub revisions: u64,
    pub heals: usize,
    /// Killed writes; below, those of them that took effect.
    pub killed: usize,
    pub killed_and_done: usize,
}

/// Returns all violations, and the counts.
pub fn check(events: &[Event], setting: Setting) -> (Vec<Violation>, Figures) {
    let mut checker = Checker {
        events,
        setting,
        violations: Vec::new(),
        owners: BTreeMap::new(),
        max: setting.revision,
    };
    let figures = checker.check_documents();
    checker.check_real_time();
    checker.check_clients();
    checker.check_conditions();
    let grants = checker.grants();
    checker.check_fences(&grants);
    checker.check_locks(&grants);
    checker.check_queues(&grants);
    checker.check_state_held(&grants);
    (checker.violations, figures)
}

struct Checker<'a> {
    events: &'a [Event],
    setting: Setting,
    violations: Vec<Violation>,
    /// The writes by revision; a healed revision has none.
    owners: BTreeMap<u64, &'a Event>,
    max: u64,
}

/// A grant: certainly held from the grant's end to the release's begin, possibly from begin to end.
struct Grant<'a> {
    lock: &'a str,
    exclusive: bool,
    token: u64,
    acquired: &'a Event,
    released: Option<&'a Event>,
    /// The begin of the last commit that the grant fenced.
    confirmed: Moment,
    perhaps_until: Moment,
}

impl Grant<'_> {
    fn surely_until(&self) -> Moment {
        match self.released {
            None => Moment::MAX,
            Some(event) if event.outcome == Outcome::Lost => self.confirmed,
            Some(event) => event.began,
        }
    }

    fn surely_during(&self, event: &Event) -> bool {
        self.acquired.ended < event.began && event.ended < self.surely_until()
    }
}

impl<'a> Checker<'a> {
    fn broken(&mut self, rule: Rule, what: String) {
        self.violations.push((rule, what));
    }

    // ---- documents ----

    /// Assigns each revision to its write, and checks that its document is the previous one with
    /// that change.
    fn check_documents(&mut self) -> Figures {
        let mut seen: BTreeMap<u64, &'a Document> = BTreeMap::new();
        let mut numbers: HashMap<u64, &'a Event> = HashMap::new();
        for event in self.events {
            match (&event.op, &event.outcome) {
                (Op::Write { number, .. }, outcome) => {
                    numbers.insert(*number, event);
                    if let Outcome::Committed(revision) = outcome
                        && let Some(other) = self.owners.insert(*revision, event)
                    {
                        self.broken(
                            Rule::OneOwner,
                            format!("revision {revision} is of {event:?} and of {other:?}"),
                        );
                    }
                }
                (Op::Read, Outcome::Saw(revision, document)) => {
                    if let Some(other) =
                        seen.insert(*revision, document).filter(|other| *other != document)
                    {
                        self.broken(
                            Rule::RightDocument,
                            format!("revision {revision}: {document:?} and {other:?}"),
                        );
                    }
                }
                _ => {}
            }
        }
        let last = |keys: Option<&u64>| keys.copied().unwrap_or(0);
        self.max =
            self.max.max(last(self.owners.keys().next_back())).max(last(seen.keys().next_back()));
        let mut document =
            seen.get(&self.setting.revision).map_or_else(Document::default, |seen| (*seen).clone());
        let mut owned: HashSet<u64> =
            self.owners.values().filter_map(|event| number_of(event)).collect();
        let mut figures =
            Figures { revisions: self.max - self.setting.revision, ..Figures::default() };
        for revision in self.setting.revision + 1..=self.max {
            let owner = self.owners.get(&revision).copied();
            let owner = owner.or_else(|| {
                let number =
                    next_number(&document, seen.range(revision..).next().map(|(_, seen)| *seen)?)?;
                numbers.get(&number).copied()
            });
            let known = seen.get(&revision);
            // the write of another number follows a heal: it is the next revision's
            let owner = owner.filter(|owner| match owner.outcome {
                Outcome::Committed(its) => its == revision,
                _ => true,
            });
            if owner.is_none()
                && (known.is_none_or(|known| **known == document))
                && figures.heals < self.setting.damages
            {
                figures.heals += 1;
                continue;
            }
            let Some(owner) = owner else {
                self.broken(
                    Rule::NoGap,
                    format!(
                        "revision {revision} has no writer; seen: {known:?}, before: {document:?}"
                    ),
                );
                document = known.map_or(document, |known| (*known).clone());
                continue;
            };
            let Op::Write { number, change, .. } = owner.op else { continue };
            if owner.outcome != Outcome::Committed(revision) {
                if owner.outcome != Outcome::Unknown {
                    self.broken(
                        Rule::OneRevision,
                        format!("it was refused and is revision {revision}: {owner:?}"),
                    );
                } else if !owned.insert(number) {
                    self.broken(
                        Rule::OneRevision,
                        format!("revision {revision} is its second: {owner:?}"),
                    );
                }
                self.owners.insert(revision, owner);
                figures.killed_and_done += 1;
            }
            document = document.after(change, number);
            if let Some(known) = known.filter(|known| ***known != document) {
                self.broken(
                    Rule::RightDocument,
                    format!(
                        "revision {revision} is {known:?} and should be {document:?}, by {owner:?}"
                    ),
                );
                document = (*known).clone();
            }
        }
        let killed = self
            .events
            .iter()
            .filter(|event| number_of(event).is_some() && event.outcome == Outcome::Unknown);
        figures.killed = killed.count();
        figures
    }

    /// Checks that all operations can have taken effect within their intervals, in the order of the
    /// revisions.
    fn check_real_time(&mut self) {
        let mut reads: BTreeMap<u64, Vec<&Event>> = BTreeMap::new();
        for event in self.events {
            if let Outcome::Saw(revision, _) = &event.outcome {
                reads.entry(*revision).or_default().push(event);
            }
        }
        let mut now: (Moment, Option<&Event>) = (0, None);
        for revision in self.setting.revision..=self.max {
            if let Some(write) = self.owners.get(&revision).copied() {
                if now.0 > write.ended {
                    let after = now.1;
                    self.broken(
                        Rule::RealTime,
                        format!("revision {revision}, {write:?}, comes after {after:?}"),
                    );
                }
                now = if write.began > now.0 { (write.began, Some(write)) } else { now };
            }
            let mut next = now;
            for read in reads.remove(&revision).unwrap_or_default() {
                if now.0 > read.ended {
                    let after = now.1;
                    self.broken(
                        Rule::RealTime,
                        format!(
                            "revision {revision} is seen by {read:?}, and comes after {after:?}"
                        ),
                    );
                }
                next = if read.began > next.0 { (read.began, Some(read)) } else { next };
            }
            now = next;
        }
    }

    fn check_clients(&mut self) {
        let mut known: HashMap<usize, u64> = HashMap::new();
        let mut events: Vec<&Event> = self.events.iter().collect();
        events.sort_by_key(|event| event.began);
        for event in events {
            let (Outcome::Saw(revision, _) | Outcome::Committed(revision)) = event.outcome else {
                continue;
            };
            let before = known.insert(event.client, revision).unwrap_or(0);
            if revision < before {
                self.broken(Rule::NeverBack, format!("it knew revision {before}: {event:?}"));
            }
        }
    }

    fn check_conditions(&mut self) {
        for event in self.events {
            let Op::Write { only_after: Some(wanted), .. } = event.op else { continue };
            let owned = self
                .owners
                .iter()
                .find(|(_, owner)| **owner == event)
                .map(|(revision, _)| *revision);
            if owned.is_some_and(|revision| revision != wanted + 1) {
                self.broken(Rule::Condition, format!("it is revision {owned:?}: {event:?}"));
            }
            if event.outcome == Outcome::Conflict && self.is_current_during(wanted, event) {
                self.broken(Rule::Condition, format!("it was refused without reason: {event:?}"));
            }
        }
    }

    /// True if this was certainly the current revision from begin to end.
    fn is_current_during(&self, revision: u64, event: &Event) -> bool {
        let is_written = revision == self.setting.revision
            || self.owners.get(&revision).is_some_and(|owner| owner.ended < event.began);
        let is_replaced = revision < self.max
            && self.owners.get(&(revision + 1)).is_none_or(|next| next.began <= event.ended);
        is_written && !is_replaced
    }

    // ---- locks ----

    fn grants(&self) -> Vec<Grant<'a>> {
        let mut releases: HashMap<(&str, u64), &Event> = HashMap::new();
        let mut confirmed: HashMap<(&str, u64), Moment> = HashMap::new();
        for event in self.events {
            if let (Op::Write { fence: Some((lock, token)), .. }, Outcome::Committed(_)) =
                (&event.op, &event.outcome)
            {
                let last = confirmed.entry((lock, *token)).or_default();
                *last = event.began.max(*last);
            }
            if let Op::Release { lock, token } = &event.op {
                releases.insert((lock, *token), event);
            }
        }
        let granted = self.events.iter().filter_map(|event| match (&event.op, &event.outcome) {
            (Op::Acquire { lock, exclusive, .. }, Outcome::Granted(token)) => Some(Grant {
                lock,
                exclusive: *exclusive,
                token: *token,
                acquired: event,
                released: releases.get(&(lock.as_str(), *token)).copied(),
                confirmed: confirmed.get(&(lock.as_str(), *token)).copied().unwrap_or(0),
                perhaps_until: Moment::MAX,
            }),
            _ => None,
        });
        let mut grants: Vec<Grant<'a>> = granted.collect();
        let ends = grants.iter().map(|grant| match grant.released {
            Some(event) if event.outcome == Outcome::Released => event.ended,
            _ => {
                let later = grants
                    .iter()
                    .filter(|later| later.lock == grant.lock && later.token > grant.token);
                let conflicting = later.filter(|later| later.exclusive || grant.exclusive);
                conflicting.map(|later| later.acquired.ended).min().unwrap_or(Moment::MAX)
            }
        });
        let ends: Vec<Moment> = ends.collect();
        grants.iter_mut().zip(ends).for_each(|(grant, end)| grant.perhaps_until = end);
        grants
    }

    fn check_fences(&mut self, grants: &[Grant<'_>]) {
        let mut last: HashMap<&str, u64> = HashMap::new();
        for (revision, event) in self.owners.clone() {
            let Op::Write { fence: Some((lock, token)), .. } = &event.op else { continue };
            let grant = grants.iter().find(|grant| grant.lock == lock && grant.token == *token);
            if !grant.is_some_and(|grant| {
                grant.acquired.began <= event.ended && event.began <= grant.perhaps_until
            }) {
                self.broken(
                    Rule::Fence,
                    format!("revision {revision}, and the grant was not on record: {event:?}"),
                );
            }
            let before = last.insert(lock, *token).unwrap_or(0);
            if *token < before && grant.is_some_and(|grant| grant.exclusive) {
                self.broken(
                    Rule::Fence,
                    format!("revision {revision} is of token {token} after {before}: {event:?}"),
                );
            }
        }
        for event in self.events.iter().filter(|event| event.outcome == Outcome::Fenced) {
            let Op::Write { fence: Some((lock, token)), .. } = &event.op else { continue };
            let grant = grants.iter().find(|grant| grant.lock == lock && grant.token == *token);
            if grant.is_some_and(|grant| grant.surely_during(event)) {
                self.broken(Rule::Fence, format!("it was refused without reason: {event:?}"));
            }
        }
    }

    fn check_locks(&mut self, grants: &[Grant<'_>]) {
        for (place, one) in grants.iter().enumerate() {
            for other in &grants[..place] {
                let (first, second) =
                    if one.token < other.token { (one, other) } else { (other, one) };
                let (a, b) = (first.acquired, second.acquired);
                if first.token == second.token || b.ended < a.began {
                    self.broken(Rule::Token, format!("{a:?} and then {b:?}"));
                }
                let conflict = first.lock == second.lock && (first.exclusive || second.exclusive);
                if conflict
                    && first.acquired.ended < second.surely_until()
                    && second.acquired.ended < first.surely_until()
                {
                    self.broken(Rule::Exclusion, format!("{a:?} and {b:?}"));
                }
            }
        }
        for event in self.events {
            let Outcome::Listed(entries) = &event.outcome else { continue };
            for (lock, client, token) in
                entries.iter().filter_map(|(lock, client, token)| Some((lock, client, (*token)?)))
            {
                let grant = grants.iter().find(|grant| grant.token == token);
                let is_gone = |grant: &Grant<'_>| {
                    event.ended < grant.acquired.began || grant.perhaps_until < event.began
                };
                if grant.is_some_and(|grant| grant.lock != lock || is_gone(grant)) {
                    self.broken(
                        Rule::Exclusion,
                        format!("{lock} of {client}, token {token}, is listed: {event:?}"),
                    );
                }
                let excluded = grants.iter().find(|other| {
                    other.lock == lock
                        && other.exclusive
                        && other.token != token
                        && other.surely_during(event)
                });
                if let Some(other) = excluded.map(|other| other.token) {
                    self.broken(
                        Rule::Exclusion,
                        format!("{lock}: {token} is listed while {other} holds it: {event:?}"),
                    );
                }
            }
        }
    }

    /// A waiter that was in the queue before another is granted before it, unless both share.
    fn check_queues(&mut self, grants: &[Grant<'_>]) {
        for event in self.events {
            let Outcome::Listed(entries) = &event.outcome else { continue };
            let waiting = entries.iter().filter(|(_, _, token)| token.is_none());
            let waiting: Vec<(&str, &Grant<'_>)> = waiting
                .filter_map(|(lock, client, _)| {
                    let mut its = self.events.iter().filter(|other| {
                        let asks =
                            matches!(&other.op, Op::Acquire { lock: wanted, .. } if wanted == lock);
                        asks && other.client == *client
                            && other.began < event.ended
                            && event.began < other.ended
                    });
                    let (asked, more) = (its.next()?, its.next());
                    // a waiter that was killed and asked again has lost its place
                    let clear =
                        more.is_none() && matches!(asked.op, Op::Acquire { once: true, .. });
                    let grant =
                        grants.iter().find(|grant| *grant.acquired == *asked).filter(|_| clear)?;
                    Some((lock.as_str(), grant))
                })
                .collect();
            for (place, (lock, later)) in waiting.iter().enumerate() {
                for (_, earlier) in waiting[..place].iter().filter(|(other, _)| other == lock) {
                    if earlier.token > later.token && (earlier.exclusive || later.exclusive) {
                        let (first, second) = (earlier.acquired, later.acquired);
                        self.broken(
                            Rule::Queue,
                            format!("{second:?} overtook {first:?}, see {event:?}"),
                        );
                    }
                }
            }
        }
    }

    fn check_state_held(&mut self, grants: &[Grant<'_>]) {
        for (revision, write) in self.owners.clone() {
            let holds = |grant: &&Grant<'_>| {
                let of_other = grant.lock == "state" && grant.acquired.client != write.client;
                of_other && grant.surely_during(write)
            };
            if let Some(holder) = grants.iter().find(holds).map(|grant| grant.acquired) {
                self.broken(
                    Rule::StateHeld,
                    format!("revision {revision}, {write:?}, while it was held: {holder:?}"),
                );
            }
        }
    }
}

fn number_of(event: &Event) -> Option<u64> {
    match event.op {
        Op::Write { number, .. } => Some(number),
        _ => None,
    }
}

/// The number of the change after a document, taken from a later document.
fn next_number(document: &Document, later: &Document) -> Option<u64> {
    match document.recent.last() {
        None => later.recent.first().copied(),
        Some(last) => {
            let place = later.recent.iter().position(|number| number == last)?;
            later.recent.get(place + 1).copied()
        }
    }
}

// ---- the checker itself ----

fn event(client: usize, (began, ended): (Moment, Moment), op: Op, outcome: Outcome) -> Event {
    Event { client, began, ended, op, outcome }
}

fn document(count: u64, recent: &[u64]) -> Document {
    Document { register: recent.last().copied().unwrap_or(0), count, recent: recent.to_vec() }
}

fn counts(number: u64) -> Op {
    Op::Write { number, change: Change::Count, only_after: None, fence: None }
}

fn counts_after(number: u64, revision: u64) -> Op {
    Op::Write { number, change: Change::Count, only_after: Some(revision), fence: None }
}

fn fenced(number: u64, token: u64) -> Op {
    Op::Write {
        number,
        change: Change::Count,
        only_after: None,
        fence: Some(("a".to_owned(), token)),
    }
}

fn acquires(lock: &str) -> Op {
    Op::Acquire { lock: lock.to_owned(), exclusive: true, once: true }
}

fn releases(lock: &str, token: u64) -> Op {
    Op::Release { lock: lock.to_owned(), token }
}

fn saw(revision: u64, count: u64, recent: &[u64]) -> Outcome {
    Outcome::Saw(revision, document(count, recent))
}

/// A history with every permitted event: concurrent writes, killed ones with and without effect,
/// refusals, a fence that held and one that did not, a queue.
fn sound() -> Vec<Event> {
    use Outcome::{Committed, Conflict, Fenced, Granted, Listed, Released, Unknown};
    let note = Op::Write { number: 12, change: Change::Note, only_after: None, fence: None };
    let waiting = |client| ("a".to_owned(), client, None);
    vec![
        event(0, (0, 5), Op::Read, saw(1, 0, &[])),
        event(1, (2, 20), counts(10), Committed(3)),
        event(2, (3, 21), counts(11), Committed(2)),
        event(3, (22, 30), note, Unknown),
        event(4, (22, 31), counts(13), Unknown),
        event(0, (24, 32), Op::Read, saw(3, 2, &[11, 10])),
        event(1, (33, 40), counts_after(14, 3), Conflict),
        event(1, (41, 50), counts_after(15, 4), Committed(5)),
        event(0, (51, 55), Op::Read, saw(5, 3, &[11, 10, 12, 15])),
        event(5, (60, 62), acquires("a"), Granted(7)),
        event(6, (63, 84), acquires("a"), Granted(8)),
        event(7, (66, 95), acquires("a"), Granted(9)),
        event(
            0,
            (70, 72),
            Op::List,
            Listed(vec![("a".to_owned(), 5, Some(7)), waiting(6), waiting(7)]),
        ),
        event(5, (73, 76), fenced(16, 7), Committed(6)),
        event(5, (80, 83), releases("a", 7), Released),
        event(5, (85, 86), fenced(17, 7), Fenced),
        event(6, (87, 89), fenced(18, 8), Committed(7)),
        event(6, (90, 92), releases("a", 8), Released),
        event(7, (96, 97), releases("a", 9), Released),
        event(5, (98, 100), acquires("state"), Granted(10)),
        event(5, (101, 105), counts(19), Committed(8)),
        event(5, (106, 108), releases("state", 10), Released),
        event(0, (110, 115), Op::Read, saw(8, 6, &[11, 10, 12, 15, 16, 18, 19])),
        event(0, (116, 117), counts(20), Outcome::Refused),
        event(5, (120, 122), acquires("b"), Granted(11)),
        event(6, (123, 126), acquires("b"), Granted(12)),
        event(6, (128, 140), releases("b", 12), Released),
        event(5, (130, 135), releases("b", 11), Outcome::Lost),
    ]
}

const SETTING: Setting = Setting { revision: 1, damages: 0 };

#[test]
fn a_history_in_which_all_is_well_passes_the_checker() {
    let (violations, figures) = check(&sound(), SETTING);
    assert_eq!(violations, []);
    assert_eq!((figures.revisions, figures.killed, figures.killed_and_done), (7, 2, 1));
    // healed revisions have no write; there may be as many as damages
    let healed = vec![
        event(0, (0, 1), counts(10), Outcome::Committed(2)),
        event(0, (2, 3), Op::Read, saw(3, 1, &[10])),
        event(0, (4, 5), counts(11), Outcome::Committed(5)),
    ];
    assert_eq!(check(&healed, Setting { damages: 2, ..SETTING }).0, []);
    let rules: Vec<Rule> =
        check(&healed, Setting { damages: 1, ..SETTING }).0.iter().map(|broken| broken.0).collect();
    assert_eq!(rules, [Rule::NoGap]);
}

#[test]
fn the_checker_finds_every_kind_of_violation() {
    type Spoil = fn(&mut Vec<Event>);
    /// The event with this begin.
    fn at(events: &mut [Event], began: Moment) -> &mut Event {
        events.iter_mut().find(|event| event.began == began).unwrap()
    }
    let cases: [(&str, Rule, Spoil); 32] = [
        ("two writes are acknowledged with one revision", Rule::OneOwner, |events| {
            at(events, 3).outcome = Outcome::Committed(3);
        }),
        ("a refused write took place", Rule::OneRevision, |events| {
            at(events, 22).outcome = Outcome::Conflict
        }),
        ("a killed write took place twice", Rule::OneRevision, |events| {
            at(events, 51).outcome = saw(5, 2, &[11, 10, 12, 12]);
            at(events, 41).outcome = Outcome::Unknown;
        }),
        ("a revision is skipped", Rule::NoGap, |events| {
            at(events, 101).outcome = Outcome::Committed(9)
        }),
        ("a revision has no writer", Rule::NoGap, |events| {
            at(events, 110).outcome = saw(9, 6, &[11, 10, 12, 15, 16, 18, 19]);
        }),
        ("an update is lost", Rule::RightDocument, |events| {
            at(events, 24).outcome = saw(3, 1, &[10])
        }),
        ("a count is lost", Rule::RightDocument, |events| {
            at(events, 24).outcome = saw(3, 1, &[11, 10])
        }),
        ("two documents have one revision", Rule::RightDocument, |events| {
            events.push(event(9, (25, 26), Op::Read, saw(3, 9, &[11, 10])));
        }),
        ("a document comes from nowhere", Rule::NoGap, |events| {
            at(events, 110).outcome = saw(9, 7, &[11, 10, 12, 15, 16, 18, 19, 99]);
        }),
        ("an acknowledged write is not seen", Rule::RealTime, |events| {
            at(events, 51).outcome = saw(3, 2, &[11, 10])
        }),
        ("a write is seen before it began", Rule::RealTime, |events| {
            events.push(event(9, (0, 1), Op::Read, saw(2, 1, &[11])));
        }),
        ("a later write has a lower revision", Rule::RealTime, |events| {
            (at(events, 2).began, at(events, 3).began) = (0, 30);
            at(events, 30).ended = 31;
        }),
        ("a stale read between two fresh ones", Rule::RealTime, |events| {
            events.push(event(9, (52, 53), Op::Read, saw(4, 2, &[11, 10, 12])));
        }),
        ("a client goes back", Rule::NeverBack, |events| {
            events.push(event(1, (21, 22), Op::Read, saw(2, 1, &[11])));
        }),
        ("a condition was not met", Rule::Condition, |events| {
            at(events, 41).op = counts_after(15, 3)
        }),
        ("a condition was met and refused", Rule::Condition, |events| {
            events.push(event(1, (56, 58), counts_after(20, 5), Outcome::Conflict));
        }),
        ("a killed write whose condition was not met", Rule::Condition, |events| {
            at(events, 22).op =
                Op::Write { number: 12, change: Change::Note, only_after: Some(2), fence: None };
        }),
        ("a fenced write behind its release", Rule::Fence, |events| {
            at(events, 73).op = fenced(16, 6)
        }),
        ("a late fenced write", Rule::Fence, |events| at(events, 87).op = fenced(18, 7)),
        ("a dead owner's fenced write behind the next grant", Rule::Fence, |events| {
            at(events, 80).outcome = Outcome::Unknown;
            at(events, 87).op = fenced(18, 7);
        }),
        ("a fence that held was refused", Rule::Fence, |events| {
            events.push(event(5, (77, 78), fenced(21, 7), Outcome::Fenced));
        }),
        ("an earlier grant writes later", Rule::Fence, |events| {
            // both grants may be on record, and the earlier one's write is the later
            at(events, 80).ended = 94;
            at(events, 73).op = fenced(16, 8);
            at(events, 63).began = 60;
            at(events, 87).op = fenced(18, 7);
        }),
        ("a token is given twice", Rule::Token, |events| {
            at(events, 98).outcome = Outcome::Granted(9)
        }),
        ("a token goes back", Rule::Token, |events| at(events, 98).outcome = Outcome::Granted(6)),
        ("a lock is held twice", Rule::Exclusion, |events| at(events, 63).ended = 78),
        ("a lease ended, and the release does not say it", Rule::Exclusion, |events| {
            at(events, 130).outcome = Outcome::Released
        }),
        ("a grant whose lease ended fences a write", Rule::Fence, |events| {
            let op = Op::Write {
                number: 21,
                change: Change::Count,
                only_after: None,
                fence: Some(("b".to_owned(), 11)),
            };
            events.push(event(5, (127, 129), op, Outcome::Committed(9)));
        }),
        ("a write took place that said it did not", Rule::OneRevision, |events| {
            events.push(event(
                0,
                (141, 142),
                Op::Read,
                saw(9, 7, &[11, 10, 12, 15, 16, 18, 19, 20]),
            ));
        }),
        ("a released lock is listed as held", Rule::Exclusion, |events| {
            let listed = vec![("a".to_owned(), 5, Some(7))];
            events.push(event(0, (88, 89), Op::List, Outcome::Listed(listed)));
        }),
        ("two are listed as holders", Rule::Exclusion, |events| {
            let listed = vec![("a".to_owned(), 5, Some(7)), ("a".to_owned(), 6, Some(8))];
            events.push(event(0, (77, 78), Op::List, Outcome::Listed(listed)));
        }),
        ("a waiter is overtaken", Rule::Queue, |events| {
            (at(events, 63).outcome, at(events, 66).outcome) =
                (Outcome::Granted(9), Outcome::Granted(8));
        }),
        ("a stranger commits while the state is held", Rule::StateHeld, |events| {
            at(events, 101).client = 4
        }),
    ];
    let found: Vec<HashSet<Rule>> = cases
        .iter()
        .map(|(what, rule, spoil)| {
            let mut events = sound();
            spoil(&mut events);
            let rules: HashSet<Rule> =
                check(&events, SETTING).0.into_iter().map(|(rule, _)| rule).collect();
            assert!(rules.contains(rule), "{what}: {rules:?}");
            rules
        })
        .collect();
    println!(
        "{} violating histories, {} of one rule alone",
        found.len(),
        found.iter().filter(|rules| rules.len() == 1).count()
    );
}
