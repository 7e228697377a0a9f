//! Totals of the commits that no longer have a line in the journal.
//!
//! A rotated journal begins with a line of totals, of all commits before that line. Counters are
//! computed from the last totals and the commits after them, so that no counter falls when the
//! oldest file is removed.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::event::{Commit, Event};
use super::line::cut;
use crate::document::seal::{Lineage, Revision};

/// The upper bounds, in seconds, of the buckets in which waits are counted.
pub const BOUNDS: [f64; 15] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
/// The most actions that are counted separately, and the longest name of one, in bytes.
const ACTIONS: (usize, usize) = (32, 32);
/// The most lineages that are kept: the latest.
const LINEAGES: usize = 16;
const OTHER: &str = "other";

/// The totals of commits.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Totals {
    /// The time of the first one, RFC 3339.
    pub since: String,
    /// The size of the document after the first one, in bytes.
    pub first_bytes: u64,
    /// The number of commits by action: `set`.
    pub commits: BTreeMap<String, u64>,
    /// The sum of their waits, in seconds.
    pub waited: f64,
    /// The number of waits up to each of [`BOUNDS`].
    pub within: [u64; BOUNDS.len()],
    /// The first and the last revision of each lineage, in the order in which they began.
    pub ranges: Vec<(Lineage, u64, u64)>,
}

impl Totals {
    /// The totals of all commits up to the last of these events.
    pub fn of<'a>(events: impl IntoIterator<Item = &'a Event>) -> Self {
        events.into_iter().fold(Self::default(), |totals, event| match event {
            Event::Totals(before) => before.clone(),
            Event::Commit(commit) => totals.and(commit),
            _ => totals,
        })
    }

    fn and(mut self, commit: &Commit) -> Self {
        if self.commits.is_empty() {
            (self.since, self.first_bytes) = (commit.origin.time.clone(), commit.bytes);
        }
        let action = cut(commit.default_reason(), ACTIONS.1);
        let is_room = self.commits.len() < ACTIONS.0 || self.commits.contains_key(action);
        *self.commits.entry(if is_room { action } else { OTHER }.to_owned()).or_default() += 1;
        self.waited += commit.waited;
        for (count, bound) in self.within.iter_mut().zip(BOUNDS) {
            *count += u64::from(commit.waited <= bound);
        }
        let revision = commit.revision.get();
        match self.ranges.iter_mut().find(|(lineage, ..)| *lineage == commit.lineage) {
            Some((_, first, last)) => (*first, *last) = (revision.min(*first), revision.max(*last)),
            None => self.ranges.push((commit.lineage.clone(), revision, revision)),
        }
        if self.ranges.len() > LINEAGES {
            self.ranges.remove(0);
        }
        self
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
            ("waited", json!(format!("{:.6}", self.waited))),
            ("within", json!(self.within)),
            ("lineages", lineages.collect()),
        ];
        fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    pub(super) fn read(value: &Value) -> Option<Self> {
        let number = |value: &Value| value.as_u64().filter(|number| *number <= Revision::MAX);
        let since = value.get("since")?.as_str()?;
        chrono::DateTime::parse_from_rfc3339(since).ok()?;
        let counted = |(action, count): (&String, &Value)| Some((action.clone(), number(count)?));
        let within: Option<Vec<u64>> =
            value.get("within")?.as_array()?.iter().map(number).collect();
        let range = |range: &Value| {
            Some((
                Lineage::from_value(range.get(0)?)?,
                number(range.get(1)?)?,
                number(range.get(2)?)?,
            ))
        };
        Some(Self {
            since: since.to_owned(),
            first_bytes: number(value.get("first_bytes")?)?,
            commits: value
                .get("commits")?
                .as_object()?
                .iter()
                .map(counted)
                .collect::<Option<_>>()?,
            waited: value
                .get("waited")?
                .as_str()?
                .parse()
                .ok()
                .filter(|waited: &f64| waited.is_finite())?,
            within: within?.try_into().ok()?,
            ranges: value.get("lineages")?.as_array()?.iter().map(range).collect::<Option<_>>()?,
        })
    }
}
