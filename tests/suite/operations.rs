//! A history: operations of many processes, with their intervals and answers.

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
    pub fn after(&self, change: Change, number: u64) -> Self {
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

/// The number of the change after a document, taken from a later document.
pub fn next_number(document: &Document, later: &Document) -> Option<u64> {
    match document.recent.last() {
        None => later.recent.first().copied(),
        Some(last) => {
            let place = later.recent.iter().position(|number| number == last)?;
            later.recent.get(place + 1).copied()
        }
    }
}

pub fn number_of(event: &Event) -> Option<u64> {
    match event.op {
        Op::Write { number, .. } => Some(number),
        _ => None,
    }
}
