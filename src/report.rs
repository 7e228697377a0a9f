//! The report: the events of a journal as one HTML page with a timeline.
//!
//! [`Timeline::of`] pairs the events: a grant with its end, a wait with the grants that it waited
//! for, the steps of a guard. [`page::html`] puts the result into the page. Nothing from the
//! journal is trusted: texts are escaped and cut, times are clamped, counts have limits.

mod commits;
mod locks;
mod marks;
mod packed;
pub mod page;
mod steps;

use std::collections::HashSet;
use std::time::SystemTime;

use self::commits::Commits;
use self::locks::LockLanes;
pub use self::marks::{End, Fact, Lane, LaneKind, Mark, Script, What};
use self::marks::{Marks, millis, shown};
use self::steps::Steps;
use crate::journal::{Event, Events};

/// The most events that a page shows: the newest.
pub const EVENTS_LIMIT: usize = 50_000;

/// What a report is made from, besides the events.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The root, as the page names it.
    pub root: String,
    /// The present time.
    pub now: SystemTime,
    /// What ended before this time is left out.
    pub since: Option<SystemTime>,
    /// The grants that are on record now.
    pub held: HashSet<HeldGrant>,
}

/// A grant that is on record.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HeldGrant {
    /// The lock.
    pub lock: String,
    /// The number of the grant.
    pub token: u64,
}

/// The data of a page. Times are milliseconds since 1970.
#[derive(Debug)]
pub struct Timeline {
    /// The root.
    pub root: String,
    /// The time of the report.
    pub made: i64,
    /// The beginning of the time that is shown.
    pub from: i64,
    /// Its end.
    pub until: i64,
    /// The number of events shown.
    pub events: usize,
    /// Remarks on what is not shown, or not as it was written.
    pub notes: Vec<String>,
    /// The scripts.
    pub scripts: Vec<Script>,
    /// The lanes, from top to bottom.
    pub lanes: Vec<Lane>,
    /// The marks, by lane and beginning.
    pub marks: Vec<Mark>,
}

impl Timeline {
    /// The timeline of these events, which are in the order of their lines.
    pub fn of(events: &Events, subject: &Subject) -> Self {
        let mut marks = Marks::new(millis(subject.now));
        let (mut commits, mut steps) = (Commits::default(), Steps::default());
        let mut locks = LockLanes::new(&subject.held);
        let first = events.list.len().saturating_sub(EVENTS_LIMIT);
        let since = subject.since.map(millis);
        let mut count = 0;
        for (line, event) in events.list.iter().enumerate() {
            let Some(origin) = event.origin() else { continue };
            let time = marks.begin_line(line, origin);
            count += usize::from(line >= first && since.is_none_or(|since| time >= since));
            match event {
                Event::Commit(commit) => {
                    locks.add_commit(commit, &mut marks);
                    commits.add(commit, &mut marks);
                }
                Event::Lock(lock) => locks.add(lock, &mut marks),
                Event::Guard(guard) => steps.add_guard(guard, &mut marks),
                Event::Retry(retry) => steps.add_retry(retry, &mut marks),
                Event::Checkpoint(checkpoint) => steps::add_checkpoint(checkpoint, &mut marks),
                Event::Restore(restore) => steps::add_restore(restore, &mut marks),
                Event::Failure(failure) => steps::add_failure(failure, &mut marks),
                Event::Totals(_) => {}
            }
        }
        locks.finish(&mut marks);
        steps.finish(&mut marks);
        let (future, now) = (marks.future, marks.now);
        let chosen = marks.choose(first, since);
        let mut notes = Vec::new();
        for (count, what) in [
            (first, "older events are not shown"),
            (events.damaged, "damaged lines of the journal were skipped"),
            (future, "events have a time in the future; they are shown at the time of the report"),
        ] {
            if count > 0 {
                notes.push(format!("{count} {what}"));
            }
        }
        notes.extend(events.problem.as_ref().map(|why| shown(&why.to_string())));
        let ends = chosen.marks.iter().filter_map(|mark| mark.until);
        let begins = chosen.marks.iter().map(|mark| mark.from);
        let until = ends.chain(begins.clone()).max().unwrap_or(now);
        let is_open = chosen.marks.iter().any(|mark| mark.until.is_none());
        Self {
            root: shown(&subject.root),
            made: now,
            from: begins.min().unwrap_or(now).max(since.unwrap_or(i64::MIN)),
            until: if is_open { now.max(until) } else { until },
            events: count,
            notes,
            scripts: chosen.scripts,
            lanes: chosen.lanes,
            marks: chosen.marks,
        }
    }
}
