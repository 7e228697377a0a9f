//! Waits for changes in several directories, for commands that show the current state.
//!
//! Where a directory is missing, its parent is watched until it appears. The kernel also reports
//! the end of processes. For events without a notification (the time, the end of a flock) the
//! caller checks again itself.

use std::ffi::OsString;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, WatchFlags as On};

use super::{LONGEST_INTERVAL, OutputReader, READER_GONE, reader_is_gone};
use crate::fs::stage::is_temporary;

/// A directory and the names in it to watch.
#[derive(Debug)]
pub struct WatchedDir {
    /// The directory.
    pub dir: PathBuf,
    /// The names to watch; all but temporary ones if empty.
    pub names: Vec<OsString>,
}

impl WatchedDir {
    fn matches(&self, name: &[u8]) -> bool {
        let temporary = std::str::from_utf8(name).is_ok_and(is_temporary);
        !temporary
            && (self.names.is_empty() || self.names.iter().any(|known| known.as_bytes() == name))
    }
}

/// A watch on several places. Call [`DirWatch::renew`], check, then [`DirWatch::wait`]: no change
/// in between is missed.
#[derive(Debug)]
pub struct DirWatch {
    places: Vec<WatchedDir>,
    watched: Vec<Option<i32>>,
    events: Option<OwnedFd>,
}

impl DirWatch {
    /// A watch on these.
    pub fn new(places: Vec<WatchedDir>) -> Self {
        let events =
            inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).ok();
        Self { watched: vec![None; places.len()], places, events }
    }

    /// Adds watches for directories that appeared or were replaced.
    pub fn renew(&mut self) {
        let Some(events) = &self.events else { return };
        // Not CLOSE_WRITE: checking whether an owner lives closes files that were open for writing.
        let on = On::MOVED_TO | On::MOVED_FROM | On::CREATE | On::DELETE | On::MODIFY | On::ONLYDIR;
        // Then another may exist there, and is watched next time.
        let on = on | On::MOVE_SELF | On::DELETE_SELF;
        for (place, watched) in self.places.iter().zip(&mut self.watched) {
            let dir = if place.dir.as_os_str().is_empty() { Path::new(".") } else { &place.dir };
            *watched = inotify::add_watch(events, dir, on).ok();
        }
        // A directory also disappears with one of its ancestors.
        let ancestors =
            self.places.first().into_iter().flat_map(|place| place.dir.ancestors().skip(1));
        for ancestor in ancestors.filter(|ancestor| !ancestor.as_os_str().is_empty()) {
            let _ = inotify::add_watch(
                events,
                ancestor,
                On::MOVE_SELF | On::DELETE_SELF | On::MASK_ADD | On::ONLYDIR,
            );
        }
    }

    /// Returns after an event, the end of one of the processes, or `at_most`. If the reader of
    /// `output` is gone, the wait ends, too, and this is reported.
    pub fn wait(
        &self,
        output: Option<BorrowedFd<'_>>,
        ends: &[OwnedFd],
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
            sources.extend(ends.iter().map(|end| PollFd::new(end, PollFlags::IN)));
            let others = sources.len();
            sources.extend(self.events.iter().map(|events| PollFd::new(events, PollFlags::IN)));
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
    fn happened(&self) -> bool {
        let Some(events) = &self.events else { return false };
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(events, &mut buffer);
        let mut mattered = false;
        while let Ok(event) = reader.next() {
            use inotify::ReadFlags as Told;
            let lost = Told::QUEUE_OVERFLOW | Told::IGNORED | Told::MOVE_SELF | Told::DELETE_SELF;
            let place = self.watched.iter().position(|watched| *watched == Some(event.wd()));
            let place = place.and_then(|place| self.places.get(place));
            let name = event.file_name().map(std::ffi::CStr::to_bytes);
            mattered |= event.events().intersects(lost)
                || place.zip(name).is_some_and(|(place, name)| place.matches(name));
        }
        mattered
    }
}
