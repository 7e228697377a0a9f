//! Waits for a file to be replaced, without polling where the kernel can notify.
//!
//! The directory is watched rather than the file, because a commit replaces the file and a watch
//! stays with the inode. Watches are few (128 a user on some machines), so when the kernel has no
//! more of them the wait falls back to polling at growing intervals.

pub mod places;

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::os::events::{Events, Interest};

const FIRST_INTERVAL: Duration = Duration::from_millis(5);
const LONGEST_INTERVAL: Duration = Duration::from_millis(250);

/// A watch on one name in a directory. Check the file after creating the watch, and again after
/// each [`Watch::wait`]: no change in between is missed.
#[derive(Debug)]
pub struct Watch {
    source: Source,
    name: OsString,
}

#[derive(Debug)]
enum Source {
    Events(Events),
    Intervals(Duration),
}

impl Watch {
    /// Watches `name` in the directory `dir`.
    pub fn new(dir: &Path, name: &OsStr) -> Self {
        let name = [name.to_owned()];
        let events = Events::new().and_then(|mut events| {
            events.watch(named(dir), Interest::NamesAndCloses(&name))?;
            Ok(events)
        });
        let [name] = name;
        let source = events.map_or(Source::Intervals(FIRST_INTERVAL), Source::Events);
        Self { source, name }
    }

    /// Returns when the name changed, when it is time to check again, or at the deadline (`None` =
    /// wait forever).
    pub fn wait(&mut self, deadline: Option<Instant>) {
        let left = || deadline.map(|at| at.saturating_duration_since(Instant::now()));
        loop {
            // A time too large for the kernel's clock counts as none.
            let (timeout, events) = match &mut self.source {
                Source::Events(events) => (left(), Some(events)),
                Source::Intervals(interval) => {
                    let now = left().map_or(*interval, |left| left.min(*interval));
                    *interval = interval.saturating_mul(2).min(LONGEST_INTERVAL);
                    (Some(now), None)
                }
            };
            let timeout = timeout.and_then(|left| Timespec::try_from(left).ok());
            let mut sources: Vec<PollFd<'_>> = events
                .iter()
                .map(|events| PollFd::from_borrowed_fd(events.as_fd(), PollFlags::IN))
                .collect();
            let ready = poll(&mut sources, timeout.as_ref());
            let time_is_up = left().is_some_and(|left| left.is_zero());
            let interrupted = matches!(ready, Err(Errno::INTR));
            let Some(events) = events else { return };
            if time_is_up
                || !interrupted && (ready.is_err() || events.happened(|_, name| name == self.name))
            {
                return;
            }
        }
    }
}

/// A directory by a path that is not empty.
fn named(dir: &Path) -> &Path {
    if dir.as_os_str().is_empty() { Path::new(".") } else { dir }
}

/// The poll(2) events of an output without a reader. Both are reported without being requested.
pub(super) const READER_GONE: PollFlags = PollFlags::ERR.union(PollFlags::HUP);

/// Returns whether the reader of a polled output is gone. POLLNVAL does not mean that: some systems
/// report it for terminals and other devices that cannot be polled.
fn reader_is_gone(revents: PollFlags) -> bool {
    revents.intersects(READER_GONE)
}

/// Whether an output still has a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputReader {
    /// As far as can be determined.
    Present,
    /// It has none.
    Gone,
}

impl OutputReader {
    /// Of `output`, now.
    pub fn of(output: BorrowedFd<'_>) -> Self {
        let mut sources = [PollFd::from_borrowed_fd(output, READER_GONE)];
        let _ = poll(&mut sources, Some(&Timespec::default()));
        let [source] = sources;
        if reader_is_gone(source.revents()) { Self::Gone } else { Self::Present }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use crate::os::process::Ends;

    use super::*;

    /// Replaces the file from another thread once the watch is waiting or about to.
    fn is_woken(mut watch: Watch, dir: &Path) {
        let (file, temporary) = (dir.join("file"), dir.join("temporary"));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::fs::write(dir.join("another"), "x").unwrap();
                std::fs::write(&temporary, "new").unwrap();
                std::fs::rename(&temporary, &file).unwrap();
            });
            while !file.exists() {
                watch.wait(None);
            }
        });
    }

    #[test]
    fn a_replacement_ends_the_wait() {
        let dir = tempfile::tempdir().unwrap();
        let watch = Watch::new(dir.path(), OsStr::new("file"));
        assert!(matches!(watch.source, Source::Events(_)));
        is_woken(watch, dir.path());
        std::fs::remove_file(dir.path().join("file")).unwrap();
        // As where the kernel has no watch left.
        let source = Source::Intervals(FIRST_INTERVAL);
        is_woken(Watch { source, name: "file".into() }, dir.path());
    }

    #[test]
    fn only_err_and_hup_mean_that_the_reader_is_gone() {
        for gone in [PollFlags::ERR, PollFlags::HUP, PollFlags::HUP | PollFlags::OUT] {
            assert!(reader_is_gone(gone), "{gone:?}");
        }
        for there in [PollFlags::empty(), PollFlags::NVAL, PollFlags::OUT, PollFlags::PRI] {
            assert!(!reader_is_gone(there), "{there:?}");
        }
    }

    #[test]
    fn an_unpollable_output_does_not_end_a_wait() {
        let dir = tempfile::tempdir().unwrap();
        // poll(2) reports POLLNVAL for it, as other systems do for terminals.
        let path_only = rustix::fs::OFlags::PATH;
        let output = rustix::fs::open(dir.path(), path_only, rustix::fs::Mode::empty()).unwrap();
        let place = places::WatchedDir { dir: dir.path().to_owned(), names: vec!["file".into()] };
        let mut watch = places::DirWatch::new(vec![place]);
        watch.renew();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| watch.wait(Some(output.as_fd()), &Ends::default(), None));
            std::fs::write(dir.path().join("temporary"), "new").unwrap();
            std::fs::rename(dir.path().join("temporary"), dir.path().join("file")).unwrap();
            assert_eq!(waiting.join().unwrap(), OutputReader::Present);
        });
    }

    #[test]
    fn a_wait_ignores_other_files_until_its_deadline() {
        let dir = tempfile::tempdir().unwrap();
        let deadline = Instant::now() + Duration::from_millis(20);
        let mut watch = Watch::new(dir.path(), OsStr::new("file"));
        std::fs::write(dir.path().join("another"), "x").unwrap();
        watch.wait(Some(deadline));
        assert!(Instant::now() >= deadline);
    }

    #[test]
    fn without_a_watch_the_wait_polls() {
        let watch = Watch::new(Path::new("/nonexistent"), OsStr::new("file"));
        assert!(matches!(watch.source, Source::Intervals(_)));
    }
}
