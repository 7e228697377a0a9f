//! Sleeping until something about a lock may have changed: a record was replaced, an owner ended, or time is up.
//!
//! The record is watched by its own inode, which a replacement ends, rather than the directory: a herd of waiters for other
//! locks sleeps on. Owners are watched by pidfd. Look at the records after [`Alarm::watch`] and before [`Sleeper::sleep`]:
//! nothing that happens in between is missed. Where the kernel has no watches or no more of them, and for what has no
//! event (a waiter that is stopped, an owner in another namespace), it is looked again at intervals.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;

use super::liveness::watch_process;
use super::process::{Identity, Process};

const FIRST_INTERVAL: Duration = Duration::from_millis(5);
const LONGEST_INTERVAL: Duration = Duration::from_millis(250);
/// How often those are looked at that give no sign when they are stopped.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// How closely to look although there are events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Watchfulness {
    /// The events tell everything.
    Events,
    /// Somebody may stop without a sign.
    Heartbeat,
    /// Nothing tells.
    Intervals,
}

/// The kernel's watch on records.
#[derive(Debug)]
pub struct Alarm {
    events: Option<OwnedFd>,
}

/// Sleeps, and remembers how long it slept where nothing tells it when to wake.
#[derive(Debug)]
pub struct Sleeper {
    interval: Duration,
}

impl Default for Sleeper {
    fn default() -> Self {
        Self { interval: FIRST_INTERVAL }
    }
}

impl Alarm {
    /// An alarm by the kernel's events, as far as there are any.
    #[must_use]
    pub fn set() -> Self {
        let events = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).ok();
        Self { events }
    }

    /// Watches these files; a file that was replaced is watched anew.
    pub fn watch(&self, files: impl Iterator<Item = impl AsRef<Path>>) -> Watchfulness {
        use inotify::WatchFlags as On;
        let Some(fd) = &self.events else {
            return Watchfulness::Intervals;
        };
        drain(fd);
        let on = On::ATTRIB | On::DELETE_SELF | On::MOVE_SELF | On::MODIFY;
        for file in files {
            if inotify::add_watch(fd, file.as_ref(), on | On::DONT_FOLLOW).is_err() {
                return Watchfulness::Intervals;
            }
        }
        Watchfulness::Events
    }
}

impl Sleeper {
    /// Sleeps until the alarm goes off, one of these processes ends, or `until`.
    pub fn sleep(
        &mut self,
        alarm: Option<&Alarm>,
        processes: &[&Identity],
        watchfulness: Watchfulness,
        until: Instant,
    ) {
        let mut watchfulness = watchfulness;
        let mut fds = Vec::new();
        for identity in processes {
            match watch_process(identity.pid) {
                // The pid may have been used again since the process was looked at.
                Some(fd) if Process::of(identity.pid).is_ok_and(|process| process.start != identity.start) => {
                    drop(fd);
                    return;
                }
                Some(fd) => fds.push(fd),
                None => watchfulness = Watchfulness::Intervals, // it ended just now, or there is no such thing here
            }
        }
        let now = Instant::now();
        let until = match watchfulness {
            Watchfulness::Events => until,
            Watchfulness::Heartbeat => until.min(now + HEARTBEAT),
            Watchfulness::Intervals => {
                let next = until.min(now + self.interval);
                self.interval = self.interval.saturating_mul(2).min(LONGEST_INTERVAL);
                next
            }
        };
        // A time too large for the kernel's clock is as good as none.
        let timeout = Timespec::try_from(until.saturating_duration_since(now)).ok();
        let sources = fds.iter().chain(alarm.and_then(|alarm| alarm.events.as_ref()));
        let mut sources: Vec<PollFd<'_>> = sources.map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
        // However it ends, the caller looks again.
        let _ = poll(&mut sources, timeout.as_ref());
    }
}

fn drain(fd: &OwnedFd) {
    let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
    let mut reader = inotify::Reader::new(fd, &mut buffer);
    while reader.next().is_ok() {}
}
