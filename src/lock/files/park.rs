//! Sleeps until a lock's state may have changed: a record was replaced, a process ended, or time is
//! up.
//!
//! A process that removes an entry from a record wakes the waiters that may be next by a signal;
//! pidfds report the ends of owners and of earlier waiters. The signal is SIGURG, which a process
//! that does not wait (any more) ignores by default. It is received from before the place in the
//! queue is taken, through a pipe that remembers it, so none is missed. Watching the record with
//! inotify(7) would work too, but closing such a watch takes the kernel milliseconds (an SRCU grace
//! period), more than all the rest of a hand-off.
//!
//! Changes that give no sign are checked for once a second: a waiter that is stopped, a record
//! changed from another pid namespace or by a process that was killed before it could send its
//! signals. If the kernel has no pidfds or has run out of them, polling replaces them, at growing
//! intervals.

use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;
use signal_hook::consts::SIGURG;

use crate::lock::identity::Identity;
use crate::lock::process::Process;
use crate::os::process::{Ends, Handle};

const FIRST_INTERVAL: Duration = Duration::from_millis(5);
const LONGEST_INTERVAL: Duration = Duration::from_millis(250);
const HEARTBEAT: Duration = Duration::from_secs(1);

/// The interval of polls besides waiting for events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PollMode {
    /// Most changes cause an event.
    Heartbeat,
    /// No change does.
    Intervals,
}

/// Wakes a process that may be next in the queue, but not another that has reused its pid.
pub(super) fn wake(waiter: &Identity) {
    let process = Handle::of(waiter.pid);
    if !Process::of(waiter.pid).is_ok_and(|process| process.start == waiter.start) {
        return;
    }
    // A process that cannot be woken re-checks by itself, a little later.
    process.send(Signal::URG);
}

/// The pipe that the signal arrives through; `None` if descriptors have run out.
fn wakeup_pipe() -> Option<&'static UnixStream> {
    static PIPE: OnceLock<Option<UnixStream>> = OnceLock::new();
    let open = || -> std::io::Result<UnixStream> {
        let (inside, outside) = UnixStream::pair()?;
        inside.set_nonblocking(true)?;
        signal_hook::low_level::pipe::register(SIGURG, outside)?;
        Ok(inside)
    };
    PIPE.get_or_init(|| open().ok()).as_ref()
}

/// Sleeps, with growing intervals if no event can wake it.
#[derive(Debug)]
pub(super) struct Parker {
    interval: Duration,
}

impl Parker {
    /// A sleeper that has not slept yet.
    pub fn new() -> Self {
        Self { interval: FIRST_INTERVAL }
    }

    /// Registers for wakeups: to be called before the place in the queue is taken. A request that
    /// need not wait does without.
    pub fn register(&self) {
        wakeup_pipe();
    }

    /// Drains pending wakeups. To be called before the records are read, so that a later signal
    /// counts.
    pub fn drain(&self) {
        if let Some(mut pipe) = wakeup_pipe() {
            while pipe.read(&mut [0; 64]).is_ok_and(|count| count > 0) {}
        }
    }

    /// Sleeps until it is woken, one of these processes ends, or `until`.
    pub fn park(&mut self, processes: &[&Identity], mode: PollMode, until: Instant) {
        let mut mode = if wakeup_pipe().is_some() { mode } else { PollMode::Intervals };
        let mut ends = Ends::default();
        for identity in processes {
            if !ends.add(identity.pid) {
                mode = PollMode::Intervals; // it ended, or the kernel cannot watch it
            } else if Process::of(identity.pid).is_ok_and(|process| process.start != identity.start)
            {
                return; // the pid has been reused since the process was judged
            }
        }
        let now = Instant::now();
        let until = match mode {
            PollMode::Heartbeat => until.min(now + HEARTBEAT),
            PollMode::Intervals => {
                let next = until.min(now + self.interval);
                self.interval = self.interval.saturating_mul(2).min(LONGEST_INTERVAL);
                next
            }
        };
        // A time too large for the kernel's clock counts as none.
        let timeout = Timespec::try_from(until.saturating_duration_since(now)).ok();
        let pipe = wakeup_pipe().map(|pipe| pipe.as_fd());
        let sources = ends.descriptors().chain(pipe);
        let mut sources: Vec<PollFd<'_>> =
            sources.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
        // However it ends, the caller re-checks.
        let _ = poll(&mut sources, timeout.as_ref());
    }
}
