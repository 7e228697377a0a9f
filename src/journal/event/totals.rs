//! Totals of the events that no longer have a line in the journal.
//!
//! A rotated journal begins with a line of totals, of all events before that line. Counters are
//! computed from the last totals and the events after them, so that no counter falls when the
//! oldest file is removed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{
    Commit, Event, GuardEvent, GuardStep, LockEvent, LockStep, RetryEvent, RetryStep, seconds,
};
use crate::document::seal::{Lineage, Revision};
use crate::journal::line::cut;
use crate::time::parse_rfc3339;

/// The upper bounds, in seconds, of the buckets in which waits are counted.
pub const BOUNDS: [f64; 15] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
/// The most actions that are counted separately, and the longest name of one, in bytes.
const ACTIONS: (usize, usize) = (32, 32);
/// The most locks that are counted separately; the first ones are.
const LOCKS: usize = 16;
/// The most lineages that are kept: the latest.
const LINEAGES: usize = 16;
/// The name under which the rest is counted. No lock has it.
pub const OTHER: &str = "other";
const OTHER_LOCKS: &str = "(other)";

/// The totals of a root's events.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Totals {
    /// The time of the first one, RFC 3339; empty where there is none.
    pub since: String,
    /// The size of the document after the first commit, in bytes.
    pub first_bytes: u64,
    /// The number of commits by action: `set`.
    pub commits: BTreeMap<String, u64>,
    /// The waits of commits.
    pub commit_waits: WaitTotals,
    /// The waits of the locks that were granted.
    pub lock_waits: WaitTotals,
    /// The events of each lock.
    pub locks: BTreeMap<String, LockTotals>,
    /// The number of guards by step.
    pub guards: Counts<GuardStep>,
    /// The guarded commands that succeeded and that failed.
    pub guarded: (u64, u64),
    /// The number of retried commands by step.
    pub retries: Counts<RetryStep>,
    /// The first and the last revision of each lineage, in the order in which they began.
    pub ranges: Vec<(Lineage, u64, u64)>,
}

/// The number of events of each kind.
pub type Counts<K> = BTreeMap<K, u64>;

/// Waits, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct WaitTotals {
    /// Their number.
    pub count: u64,
    /// Their sum, in seconds.
    pub sum: f64,
    /// The number of waits up to each of [`BOUNDS`].
    pub within: [u64; BOUNDS.len()],
}

/// The events of one lock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LockTotals {
    /// The number of grants.
    pub granted: u64,
    /// The sum of the waits for them, in seconds.
    #[serde(with = "seconds")]
    pub waited: f64,
    /// The longest wait for one, in seconds.
    #[serde(with = "seconds")]
    pub longest: f64,
    /// The number of requests that were not granted in time.
    pub timed_out: u64,
    /// The number of grants and waits that operators ended.
    pub broken: u64,
    /// The number of grants that ended with their owners.
    pub owner_died: u64,
}

impl Totals {
    /// The totals of all of these events.
    pub fn of<'a>(events: impl IntoIterator<Item = &'a Event>) -> Self {
        events.into_iter().fold(Self::default(), Self::and)
    }

    fn and(mut self, event: &Event) -> Self {
        if self.since.is_empty()
            && let Some(origin) = event.origin()
        {
            self.since.clone_from(&origin.time);
        }
        match event {
            Event::Totals(before) => return before.clone(),
            Event::Commit(commit) => self.count_commit(commit),
            Event::Lock(event) => self.count_lock(event),
            Event::Guard(GuardEvent { step, code, .. }) => {
                count(&mut self.guards, *step);
                match code {
                    Some(0) => self.guarded.0 = self.guarded.0.saturating_add(1),
                    Some(_) => self.guarded.1 = self.guarded.1.saturating_add(1),
                    None => {}
                }
            }
            Event::Retry(RetryEvent { step, .. }) => count(&mut self.retries, *step),
            Event::Checkpoint(_) | Event::Restore(_) | Event::Failure(_) => {}
        }
        self
    }

    fn count_commit(&mut self, commit: &Commit) {
        if self.commits.is_empty() {
            self.first_bytes = commit.bytes;
        }
        let action = cut(commit.default_reason(), ACTIONS.1);
        let is_room = self.commits.len() < ACTIONS.0 || self.commits.contains_key(action);
        count(&mut self.commits, if is_room { action } else { OTHER }.to_owned());
        self.commit_waits.add(commit.waited);
        let revision = commit.revision.get();
        match self.ranges.iter_mut().find(|(lineage, ..)| *lineage == commit.lineage) {
            Some((_, first, last)) => (*first, *last) = (revision.min(*first), revision.max(*last)),
            None => self.ranges.push((commit.lineage.clone(), revision, revision)),
        }
        if self.ranges.len() > LINEAGES {
            self.ranges.remove(0);
        }
    }

    fn count_lock(&mut self, event: &LockEvent) {
        let is_room = self.locks.len() < LOCKS || self.locks.contains_key(&event.lock);
        let name = if is_room { event.lock.as_str() } else { OTHER_LOCKS };
        let lock = self.locks.entry(name.to_owned()).or_default();
        let counter = match event.step {
            LockStep::Granted => {
                lock.waited += event.waited;
                lock.longest = lock.longest.max(event.waited);
                self.lock_waits.add(event.waited);
                &mut lock.granted
            }
            LockStep::TimedOut => &mut lock.timed_out,
            LockStep::Broken | LockStep::WaitBroken => &mut lock.broken,
            LockStep::OwnerDied => &mut lock.owner_died,
            LockStep::Released => return,
        };
        *counter = counter.saturating_add(1);
    }

    /// Returns whether no event is counted.
    pub fn is_empty(&self) -> bool {
        self.since.is_empty()
    }

    /// The number of commits.
    pub fn count(&self) -> u64 {
        self.commits.values().sum()
    }

    /// Returns whether a commit is among them.
    pub fn covers(&self, lineage: &str, revision: u64) -> bool {
        let covers = |(own, first, last): &(Lineage, u64, u64)| {
            own.as_str() == lineage && (*first..=*last).contains(&revision)
        };
        self.ranges.iter().any(covers)
    }

    pub(super) fn to_fields(&self) -> Map<String, Value> {
        let lineages =
            self.ranges.iter().map(|(lineage, first, last)| json!([lineage.as_str(), first, last]));
        let fields = [
            ("since", json!(self.since)),
            ("first_bytes", json!(self.first_bytes)),
            ("commits", json!(self.commits)),
            ("waited", json!(format!("{:.6}", self.commit_waits.sum))),
            ("within", json!(self.commit_waits.within)),
            ("lineages", lineages.collect()),
            ("lock_waits", self.lock_waits.to_value()),
            ("locks", json!(self.locks)),
            ("guards", json!(self.guards)),
            ("guarded", json!(self.guarded)),
            ("retries", json!(self.retries)),
        ];
        fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// Reads a line's fields. Lines of an earlier version count only commits.
    pub(super) fn read(value: &Value) -> Option<Self> {
        fn of<T: Default + for<'de> Deserialize<'de>>(value: &Value, field: &str) -> Option<T> {
            value
                .get(field)
                .map_or(Some(T::default()), |field| serde_json::from_value(field.clone()).ok())
        }
        let since = value.get("since")?.as_str()?;
        parse_rfc3339(since)?;
        let counted = |(action, count): (&String, &Value)| Some((action.clone(), number(count)?));
        let commits: BTreeMap<String, u64> =
            value.get("commits")?.as_object()?.iter().map(counted).collect::<Option<_>>()?;
        if commits.len() > ACTIONS.0 + 1 {
            return None; // this program writes no such line, and their sum could overflow
        }
        let range = |range: &Value| {
            let lineage = Lineage::from_value(range.get(0)?)?;
            Some((lineage, number(range.get(1)?)?, number(range.get(2)?)?))
        };
        let lock_waits = match value.get("lock_waits") {
            Some(waits) => WaitTotals::read(waits)?,
            None => WaitTotals::default(),
        };
        Some(Self {
            since: since.to_owned(),
            first_bytes: number(value.get("first_bytes")?)?,
            commit_waits: WaitTotals {
                count: commits.values().sum(),
                sum: seconds::parse(value.get("waited")?.as_str()?)?,
                within: within(value.get("within")?)?,
            },
            commits,
            lock_waits,
            locks: of(value, "locks")?,
            guards: of(value, "guards")?,
            guarded: of(value, "guarded")?,
            retries: of(value, "retries")?,
            ranges: value.get("lineages")?.as_array()?.iter().map(range).collect::<Option<_>>()?,
        })
    }
}

impl WaitTotals {
    fn add(&mut self, seconds: f64) {
        self.count = self.count.saturating_add(1);
        self.sum += seconds;
        for (count, bound) in self.within.iter_mut().zip(BOUNDS) {
            *count = count.saturating_add(u64::from(seconds <= bound));
        }
    }

    fn to_value(self) -> Value {
        json!({"count": self.count, "sum": format!("{:.6}", self.sum), "within": self.within})
    }

    fn read(value: &Value) -> Option<Self> {
        Some(Self {
            count: number(value.get("count")?)?,
            sum: seconds::parse(value.get("sum")?.as_str()?)?,
            within: within(value.get("within")?)?,
        })
    }
}

fn within(value: &Value) -> Option<[u64; BOUNDS.len()]> {
    let counts: Vec<u64> = value.as_array()?.iter().map(number).collect::<Option<_>>()?;
    counts.try_into().ok()
}

fn number(value: &Value) -> Option<u64> {
    value.as_u64().filter(|number| *number <= Revision::MAX)
}

fn count<K: Ord>(counts: &mut Counts<K>, key: K) {
    let counter = counts.entry(key).or_default();
    *counter = counter.saturating_add(1);
}
