//! Processes as the kernel shows them.

use std::io;
use std::os::fd::OwnedFd;
use std::process::{Child, Command};
use std::time::Instant;

use nix::sys::signal::{SigSet, SigmaskHow};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

pub use super::system::process::{
    Ends, Image, START_CLOCK, arguments, has_open, is_shown, name, of, uid, watch,
};

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

/// The clock of start times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartClock {
    /// It never steps back: a parent is never younger than its child.
    Monotonic,
    /// People set it: start times can be compared for equality only.
    Wall,
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

/// A process to send signals to. Where the kernel has references to processes it never means
/// another one, as an id may once the process has ended; elsewhere compare the start time after
/// making it.
#[derive(Debug)]
pub struct Handle {
    end: Option<OwnedFd>,
    number: Option<Pid>,
}

impl Handle {
    /// The process that has this id now.
    pub fn of(pid: u32) -> Self {
        Self { end: watch(pid), number: number(pid) }
    }

    /// Sends a signal, unless the process has ended or is not this user's.
    pub fn send(&self, signal: Signal) {
        let _ = match (&self.end, self.number) {
            (Some(end), Some(number)) => super::system::process::send(end, number, signal),
            (None, Some(number)) => kill_process(number, signal),
            (_, None) => Ok(()),
        };
    }

    /// Returns whether it ends before a moment; true where the kernel cannot watch it.
    pub fn ends_before(&self, moment: Instant) -> bool {
        let Some(end) = &self.end else { return true };
        loop {
            let left = moment.saturating_duration_since(Instant::now());
            let timeout = Timespec::try_from(left).ok();
            match poll(&mut [PollFd::new(end, PollFlags::IN)], timeout.as_ref()) {
                Ok(0) if Instant::now() < moment => {}
                Ok(ready) => return ready > 0,
                Err(Errno::INTR) => {}
                Err(_) => return true,
            }
        }
    }
}

/// The id as the kernel's calls take it; `None` for one that no process can have.
pub fn number(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw)
}

/// Returns whether a process of this id exists, visible or not: where the system hides it, kill(2)
/// still shows that.
pub fn exists(pid: u32) -> bool {
    number(pid).is_some_and(|number| is_there(test_kill_process(number)))
}

/// Returns whether there is a process, by the answer to a signal. Only ESRCH denies it: EPERM is
/// the answer about other users' processes, and about all outside a sandbox.
fn is_there(answer: rustix::io::Result<()>) -> bool {
    answer != Err(Errno::SRCH)
}

/// Returns whether a process exists that the system hides from this user.
pub fn is_hidden(pid: u32) -> bool {
    let is_invisible = || of(pid).is_err();
    is_invisible() && exists(pid) && is_invisible()
}

/// Starts a program that receives SIGTERM, SIGINT and SIGHUP only when it calls
/// [`receive_signals`]: it does not die of one before it can handle it.
pub fn spawn_holding_signals(mut command: Command) -> io::Result<Child> {
    let before = held_signals().thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
    let child = command.spawn();
    let _ = before.thread_set_mask(); // it was this thread's
    child
}

/// Lets this process receive the signals that were held.
pub fn receive_signals() {
    // It fails only for a set that is none.
    let _ = held_signals().thread_unblock();
}

fn held_signals() -> SigSet {
    use nix::sys::signal::Signal::{SIGHUP, SIGINT, SIGTERM};
    [SIGTERM, SIGINT, SIGHUP].into_iter().collect()
}

/// Makes this process one that outlives its parent's terminal and keeps none of its parent's files
/// open: a pipe of a script ends although this process lives. To be called before anything is
/// opened.
pub fn detach() {
    let _ = rustix::process::setsid();
    let open = std::fs::read_dir("/dev/fd").into_iter().flatten().flatten();
    let numbers: Vec<i32> =
        open.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    for number in numbers.into_iter().filter(|number| *number > 2) {
        let _ = nix::unistd::close(number); // the listing's own is closed already
    }
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_signal_is_no_sign_of_death() {
        for alive in [Ok(()), Err(Errno::PERM), Err(Errno::ACCESS)] {
            assert!(is_there(alive), "{alive:?}");
        }
        assert!(!is_there(Err(Errno::SRCH)));
    }

    #[test]
    fn a_program_started_so_does_not_die_of_signals_before_it_can_handle_them() {
        let mut shell = Command::new("sh");
        shell.args(["-c", "kill -TERM $$; kill -INT $$; kill -HUP $$; exit 7"]);
        let status = spawn_holding_signals(shell).unwrap().wait().unwrap();
        assert_eq!(status.code(), Some(7), "{status:?}");
        // The next one gets them again.
        let dies = Command::new("sh").args(["-c", "kill -TERM $$; exit 7"]).status().unwrap();
        assert_eq!(dies.code(), None);
    }
}
