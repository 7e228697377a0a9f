//! Processes as the kernel shows them.

use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

pub use super::system::process::{Image, arguments, has_open, is_shown, name, of, uid, watch};

/// A process at the moment of its lookup.
#[derive(Clone, Debug)]
pub struct Process {
    /// Its id in this process's pid namespace.
    pub pid: u32,
    /// Its parent's id.
    pub parent: u32,
    /// Its short name.
    pub name: String,
    /// Its start time, fixed for its life, which distinguishes it from an earlier process of the
    /// same id. Its unit depends on the system.
    pub start: u64,
    /// Its run state.
    pub state: State,
    /// What exec(2) changes and fork(2) does not.
    pub image: Image,
}

/// The run state of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It runs or sleeps.
    Running,
    /// A signal or a tracer stopped it.
    Stopped,
    /// Its first thread has ended: it is a zombie.
    Zombie,
}

/// The id as the kernel's calls take it; `None` for one that no process can have.
pub fn number(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw)
}

/// Returns whether a process of this id exists, visible or not: where the system hides it, kill(2)
/// still shows that. Any answer but ESRCH means that there is one; a sandbox answers EPERM.
pub fn exists(pid: u32) -> bool {
    number(pid).is_some_and(|number| test_kill_process(number) != Err(Errno::SRCH))
}

/// Returns whether a process exists that the system hides from this user.
pub fn is_hidden(pid: u32) -> bool {
    let is_invisible = || of(pid).is_err();
    is_invisible() && exists(pid) && is_invisible()
}

/// Returns whether all threads of a zombie have ended: its first thread has, and only a watch shows
/// the others.
pub fn has_ended(pid: u32) -> bool {
    watch(pid).is_none_or(|end| is_readable(&end))
}

fn is_readable(fd: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(fd, PollFlags::IN)];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    !matches!(poll(&mut fds, Some(&at_once)), Ok(0))
}
