//! Waits for changes in several directories, for commands that show the current state.
//!
//! Where a directory is missing, its parent is watched until it appears. The kernel also reports
//! the end of processes. For events without a notification (the time, the end of a flock) the
//! caller checks again itself.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{LONGEST_INTERVAL, OutputReader, READER_GONE, named, reader_is_gone};
use crate::fs::stage::is_temporary;
use crate::os::events::{Events, Interest, WatchId};
use crate::os::process::Ends;

/// A directory and the names in it to watch.
#[derive(Debug)]
pub struct WatchedDir {
    /// The directory.
    pub dir: PathBuf,
    /// The names to watch; all but temporary ones if empty.
    pub names: Vec<OsString>,
}

impl WatchedDir {
    fn matches(&self, name: &OsStr) -> bool {
        let temporary = name.to_str().is_some_and(is_temporary);
        !temporary && (self.names.is_empty() || self.names.iter().any(|known| known == name))
    }
}

/// A watch on several places. Call [`DirWatch::renew`], check, then [`DirWatch::wait`]: no change
/// in between is missed.
#[derive(Debug)]
pub struct DirWatch {
    places: Vec<WatchedDir>,
    watched: Vec<Option<WatchId>>,
    events: Option<Events>,
}

impl DirWatch {
    /// A watch on these.
    pub fn new(places: Vec<WatchedDir>) -> Self {
        Self { watched: vec![None; places.len()], places, events: Events::new().ok() }
    }

    /// Adds watches for directories that appeared or were replaced.
    pub fn renew(&mut self) {
        let Some(events) = &mut self.events else { return };
        for (place, watched) in self.places.iter().zip(&mut self.watched) {
            // Not the end of writers: checking whether an owner lives closes files that were open
            // for writing. If the directory itself moves, another may take its path, and is watched
            // next time.
            *watched = events.watch(named(&place.dir), Interest::Names(&place.names)).ok();
        }
        // A directory also disappears with one of its ancestors.
        let ancestors =
            self.places.first().into_iter().flat_map(|place| place.dir.ancestors().skip(1));
        for ancestor in ancestors.filter(|ancestor| !ancestor.as_os_str().is_empty()) {
            let _ = events.watch(ancestor, Interest::Itself);
        }
    }

    /// Returns after an event, the end of one of the processes, or `at_most`. If the reader of
    /// `output` is gone, the wait ends, too, and this is reported.
    pub fn wait(
        &mut self,
        output: Option<BorrowedFd<'_>>,
        ends: &Ends,
        at_most: Option<Duration>,
    ) -> OutputReader {
        let is_told = self.watched.first().is_some_and(Option::is_some);
        let at_most = if is_told {
            at_most
        } else {
            Some(at_most.unwrap_or(LONGEST_INTERVAL).min(LONGEST_INTERVAL))
        };
        let until = at_most.and_then(|left| Instant::now().checked_add(left));
        let mut output = output;
        loop {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            let timeout = left.and_then(|left| Timespec::try_from(left).ok());
            let mut sources: Vec<PollFd<'_>> =
                output.iter().map(|output| PollFd::new(output, READER_GONE)).collect();
            let outputs = sources.len();
            sources
                .extend(ends.descriptors().map(|end| PollFd::from_borrowed_fd(end, PollFlags::IN)));
            let others = sources.len();
            let events = self.events.iter().map(|events| events.as_fd());
            sources.extend(events.map(|events| PollFd::from_borrowed_fd(events, PollFlags::IN)));
            let ready = poll(&mut sources, timeout.as_ref());
            let mut children = sources.iter().take(others).skip(outputs);
            let ended = children.any(|child| !child.revents().is_empty());
            let about_output = sources.iter().take(outputs).map(PollFd::revents).next();
            match about_output {
                Some(revents) if reader_is_gone(revents) => return OutputReader::Gone,
                // Polled again it would return at once, forever.
                Some(revents) if !revents.is_empty() => output = None,
                _ => {}
            }
            let time_is_up = ready == Ok(0);
            if ended || time_is_up || self.happened() {
                return OutputReader::Present;
            }
        }
    }

    /// Drains the events and returns whether one is relevant.
    fn happened(&mut self) -> bool {
        let Some(events) = &mut self.events else { return false };
        let (places, watched) = (&self.places, &self.watched);
        events.happened(|id, name| {
            let place = watched.iter().position(|watched| *watched == Some(id));
            place.and_then(|place| places.get(place)).is_some_and(|place| place.matches(name))
        })
    }
}
