//! Processes in `/proc` (proc_pid_stat(5)), and pidfds.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::OnceLock;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::os::files::OpenFile;
use crate::os::process::{Process, StartClock, State, number};

/// Start times are of a clock that never steps back.
pub const START_CLOCK: StartClock = StartClock::Monotonic;

/// The addresses of a process's stack and arguments.
#[derive(Clone, Copy, Debug)]
pub struct Image {
    start_stack: u64,
    arg_start: u64,
}

impl Image {
    /// Returns whether a process with this image is a forked copy of one with `parent` that did not
    /// exec: a subshell. Its stack and arguments lie where the parent's do, and an exec would have
    /// moved them. (The kernel shows zeros for processes that this user may not trace.)
    pub fn is_forked_copy_of(self, parent: Self) -> bool {
        self.start_stack != 0
            && self.start_stack == parent.start_stack
            && self.arg_start != 0
            && self.arg_start == parent.arg_start
    }
}

/// Looks up the process with this id; `NotFound` if there is none, or none that is visible. Its
/// start time is in clock ticks since boot.
pub fn of(pid: u32) -> io::Result<Process> {
    let number = number_in_proc(pid)?;
    let text = match read(&format!("/proc/{number}/stat")) {
        // A process that ends while its file is read: proc(5).
        Err(error) if error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => {
            return Err(io::ErrorKind::NotFound.into());
        }
        result => result?,
    };
    // The name is in parentheses and may hold anything, parentheses too.
    let text = String::from_utf8_lossy(&text);
    let (head, rest) = text.rsplit_once(')').unwrap_or_default();
    let name = head.split_once('(').map_or_else(String::new, |(_, name)| name.to_owned());
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let number = |field: usize| fields.get(field - 3).and_then(|text| text.parse::<u64>().ok());
    let unreadable = || {
        io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/stat is not as expected"))
    };
    let parent = number(4).and_then(|parent| u32::try_from(parent).ok()).ok_or_else(unreadable)?;
    let state = match fields.first().and_then(|text| text.chars().next()).ok_or_else(unreadable)? {
        'T' | 't' => State::Stopped,
        'Z' | 'X' => State::Zombie,
        _ => State::Running,
    };
    Ok(Process {
        pid,
        parent: number_here(parent),
        name,
        start: number(22).ok_or_else(unreadable)?,
        state,
        image: Image { start_stack: number(28).unwrap_or(0), arg_start: number(48).unwrap_or(0) },
    })
}

/// Returns whether the system shows processes at all.
pub fn is_shown() -> bool {
    Path::new("/proc/self").exists()
}

/// A descriptor that becomes readable when the process ends; `None` if the kernel has no pidfds, or
/// descriptors have run out.
pub fn watch(pid: u32) -> Option<OwnedFd> {
    pidfd_open(number(pid)?, PidfdFlags::empty()).ok()
}

/// Sends a signal to a watched process: to it alone, even where its id is used again.
pub fn send(end: &OwnedFd, _: Pid, signal: Signal) -> rustix::io::Result<()> {
    pidfd_send_signal(end, signal)
}

/// The awaited ends of processes, a pidfd each.
#[derive(Debug, Default)]
pub struct Ends(Vec<OwnedFd>);

impl Ends {
    /// Adds a process; false if it has ended, or cannot be watched.
    pub fn add(&mut self, pid: u32) -> bool {
        let end = watch(pid);
        let is_watched = end.is_some();
        self.0.extend(end);
        is_watched
    }

    /// The descriptors of which one becomes readable when a process ends.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.0.iter().map(|end| end.as_fd())
    }
}

/// A process's arguments, with a zero byte after each; empty for a kernel thread or a zombie.
pub fn arguments(pid: u32) -> io::Result<Vec<u8>> {
    read(&format!("/proc/{}/cmdline", number_in_proc(pid)?))
}

/// A process's short name.
pub fn name(pid: u32) -> io::Result<String> {
    text_of(&format!("/proc/{}/comm", number_in_proc(pid)?))
}

/// The real user of a process.
pub fn uid(pid: u32) -> Option<u32> {
    let status = text_of(&format!("/proc/{}/status", number_in_proc(pid).ok()?)).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Returns whether a process has this file open, as far as this user may see.
pub fn has_open(pid: u32, file: OpenFile) -> bool {
    const MOST: usize = 4096;
    let Ok(files) =
        number_in_proc(pid).and_then(|number| std::fs::read_dir(format!("/proc/{number}/fd")))
    else {
        return false;
    };
    let files = files.take(MOST).flatten().filter_map(|file| std::fs::metadata(file.path()).ok());
    files.into_iter().any(|stat| (stat.dev(), stat.ino()) == (file.device, file.inode))
}

/// The beginning of one of the kernel's small files, in one read: their size is not known ahead, so
/// reading to the end takes a dozen calls, and a waiter in a long queue looks up many processes.
fn read(path: &str) -> io::Result<Vec<u8>> {
    let mut buffer = [0; 4096];
    let length = File::open(path)?.read(&mut buffer)?;
    Ok(buffer.get(..length).unwrap_or_default().to_vec())
}

/// The beginning of one of the kernel's small files, without the white space at its end.
pub fn text_of(path: &str) -> io::Result<String> {
    Ok(String::from_utf8_lossy(&read(path)?).trim_end().to_owned())
}

/// Returns whether `/proc` belongs to this process's pid namespace. After `unshare --fork --pid`
/// without `--mount-proc` it does not, and its numbers are those of another namespace.
fn proc_is_ours() -> bool {
    static OURS: OnceLock<bool> = OnceLock::new();
    *OURS.get_or_init(|| {
        let own = std::fs::read_link("/proc/self");
        own.is_ok_and(|own| own.to_str() == Some(&std::process::id().to_string()))
    })
}

/// The number that a process of this namespace has in `/proc`; a pidfd shows both
/// (proc_pid_fdinfo(5)).
fn number_in_proc(pid: u32) -> io::Result<u32> {
    if proc_is_ours() {
        return Ok(pid);
    }
    let fd = watch(pid).ok_or(io::ErrorKind::NotFound)?;
    let facts = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd()))?;
    let number = facts.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse().ok());
    number.ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// The number that a process in `/proc` has in this namespace; 0 if it is not in it:
/// pid_namespaces(7).
fn number_here(number: u32) -> u32 {
    if proc_is_ours() || number == 0 {
        return number;
    }
    let namespace =
        |pid: &str| std::fs::metadata(format!("/proc/{pid}/ns/pid")).map(|stat| stat.ino()).ok();
    let is_in_ours =
        namespace("self").is_some() && namespace("self") == namespace(&number.to_string());
    let facts = std::fs::read_to_string(format!("/proc/{number}/status")).unwrap_or_default();
    let innermost = facts
        .lines()
        .find_map(|line| line.strip_prefix("NSpid:")?.split_whitespace().last()?.parse().ok());
    innermost.filter(|_| is_in_ours).unwrap_or(0)
}
