//! Decides if a history of many processes is consistent with one register that changes by one
//! revision at a time, and with locks that exclude each other in order. It knows nothing of the
//! program.
//!
//! Every operation has an interval: it took effect, if at all, after it began and before its end
//! was known. A killed operation ends with its process. Revisions are numbered, so one pass decides
//! if an order of effects explains everything: each takes effect as early as possible, after its
//! predecessor and after the reads of that; if that is after its end, there is none.

use std::collections::{BTreeMap, HashMap, HashSet};

pub use crate::operations::*;

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
