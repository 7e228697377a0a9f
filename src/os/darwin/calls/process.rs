//! Processes by sysctl `kern.proc.pid`, and their ends by kqueue.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use nix::libc::timespec;
use nix::sys::event::{EvFlags, EventFilter, FilterFlag, KEvent, Kqueue};
use pipeline_state_darwin as sys;
use rustix::process::{Pid, Signal, kill_process};

use crate::os::darwin::{arguments as answer, kinfo};
use crate::os::files::OpenFile;
use crate::os::process::{Process, StartClock, number};

/// Start times are of the clock that people set.
pub const START_CLOCK: StartClock = StartClock::Wall;

pub(super) const AT_ONCE: timespec = timespec { tv_sec: 0, tv_nsec: 0 };

/// Whether a process has called exec since its fork.
#[derive(Clone, Copy, Debug)]
pub struct Image {
    has_execed: bool,
}

impl Image {
    /// Returns whether a process with this image did not exec since its parent forked it: a
    /// subshell.
    pub fn is_forked_copy_of(self, _parent: Self) -> bool {
        !self.has_execed
    }
}

fn facts(pid: u32) -> io::Result<kinfo::Facts> {
    let mut buffer = [0; kinfo::SIZE];
    let number = i32::try_from(pid).map_err(|_| io::ErrorKind::NotFound)?;
    let length = sys::process_facts(number, &mut buffer)?;
    kinfo::Facts::parse(pid, buffer.get(..length).unwrap_or(&buffer))
}

/// Looks up the process with this id; `NotFound` if there is none. Its start time is in
/// microseconds since 1970.
pub fn of(pid: u32) -> io::Result<Process> {
    let kinfo::Facts { parent, start, state, has_execed, name, .. } = facts(pid)?;
    Ok(Process { pid, parent, name, start, state, image: Image { has_execed } })
}

/// Returns whether the system shows processes at all.
pub fn is_shown() -> bool {
    facts(std::process::id()).is_ok()
}

/// A descriptor that becomes readable when the process ends; `None` if it has ended, the system
/// does not allow it, or descriptors have run out.
pub fn watch(pid: u32) -> Option<OwnedFd> {
    let queue = Kqueue::new().ok()?;
    add(&queue, pid).then(|| queue.into())
}

fn add(queue: &Kqueue, pid: u32) -> bool {
    let Ok(ident) = usize::try_from(pid) else { return false };
    let (filter, note) = (EventFilter::EVFILT_PROC, FilterFlag::NOTE_EXIT);
    let event = KEvent::new(ident, filter, EvFlags::EV_ADD, note, 0, 0);
    number(pid).is_some() && queue.kevent(&[event], &mut [], Some(AT_ONCE)).is_ok()
}

/// Sends a signal to a watched process.
pub fn send(_: &OwnedFd, number: Pid, signal: Signal) -> rustix::io::Result<()> {
    kill_process(number, signal)
}

/// The awaited ends of processes, in one queue: a process has 256 descriptors by default.
#[derive(Debug, Default)]
pub struct Ends(Option<Kqueue>);

impl Ends {
    /// Adds a process; false if it has ended, or cannot be watched.
    pub fn add(&mut self, pid: u32) -> bool {
        if self.0.is_none() {
            self.0 = Kqueue::new().ok();
        }
        self.0.as_ref().is_some_and(|queue| add(queue, pid))
    }

    /// The descriptors of which one becomes readable when a process ends.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.0.iter().map(|queue| queue.as_fd())
    }
}

/// A process's arguments, with a zero byte after each; an error for another user's, and in
/// sandboxes.
pub fn arguments(pid: u32) -> io::Result<Vec<u8>> {
    let number = i32::try_from(pid).map_err(|_| io::ErrorKind::NotFound)?;
    let mut buffer = vec![0; answer::SIZE];
    let length = sys::process_arguments(number, &mut buffer)?;
    Ok(answer::parse(buffer.get(..length).unwrap_or_default()))
}

/// A process's short name.
pub fn name(pid: u32) -> io::Result<String> {
    Ok(facts(pid)?.name)
}

/// The real user of a process.
pub fn uid(pid: u32) -> Option<u32> {
    Some(facts(pid).ok()?.uid)
}

/// Returns whether a process may have this file open, as far as the system shows: sandboxes hide
/// the files of others. The file was written when it was opened, so a younger process has not.
pub fn has_open(pid: u32, file: OpenFile) -> bool {
    let (seconds, nanoseconds) = file.modified;
    let modified = seconds.saturating_mul(1_000_000).saturating_add(nanoseconds / 1_000);
    facts(pid).is_ok_and(|process| i64::try_from(process.start).is_ok_and(|at| at <= modified))
}
