//! What wakes a command that shows the current state: events of directories, or of keys.

use std::os::fd::BorrowedFd;
use std::time::Duration;
#[cfg(feature = "etcd")]
use std::time::Instant;

use crate::fs::watch::OutputReader;
use crate::fs::watch::places::DirWatch;
use crate::os::process::Ends;
#[cfg(feature = "etcd")]
use crate::store::remote::KeyWatch;

/// A source of wakeups. Call [`Wakeups::renew`], check, then [`Wakeups::wait`]: no change in
/// between is missed.
pub trait Wakeups {
    /// Opens what is not open.
    fn renew(&mut self);

    /// Returns after an event, the end of one of the processes, or `at_most`. If the reader of
    /// `output` is gone, the wait ends, too, and this is reported.
    fn wait(
        &mut self,
        output: Option<BorrowedFd<'_>>,
        ends: &Ends,
        at_most: Option<Duration>,
    ) -> OutputReader;
}

impl Wakeups for DirWatch {
    fn renew(&mut self) {
        self.renew();
    }

    fn wait(
        &mut self,
        output: Option<BorrowedFd<'_>>,
        ends: &Ends,
        at_most: Option<Duration>,
    ) -> OutputReader {
        self.wait(output, ends, at_most)
    }
}

/// How often a command that waits for a cluster looks whether its output still has a reader.
#[cfg(feature = "etcd")]
const INTERVAL: Duration = Duration::from_secs(1);

#[cfg(feature = "etcd")]
impl Wakeups for KeyWatch<'_> {
    fn renew(&mut self) {
        self.renew();
    }

    /// Processes of other hosts cannot be watched: their ends are events of their keys.
    fn wait(
        &mut self,
        output: Option<BorrowedFd<'_>>,
        _: &Ends,
        at_most: Option<Duration>,
    ) -> OutputReader {
        let until = at_most.and_then(|at_most| Instant::now().checked_add(at_most));
        loop {
            let soon = Instant::now() + INTERVAL;
            let happened = self.wait(until.map_or(soon, |until| until.min(soon)));
            if output.is_some_and(|output| OutputReader::of(output) == OutputReader::Gone) {
                return OutputReader::Gone;
            }
            if happened || until.is_some_and(|until| Instant::now() >= until) {
                return OutputReader::Present;
            }
        }
    }
}
