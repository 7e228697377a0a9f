//! Processes as the kernel shows them in `/proc` (proc_pid_stat(5)).

pub mod launch;
pub mod owner;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::sync::OnceLock;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open, test_kill_process};

use super::deadlock::Ancestry;
use super::identity::{Identity, Namespace};
use crate::error::{Error, Kind, Result};
use crate::fs::Stat;
use crate::owner_view::OwnerView;

/// A process at the moment of its lookup.
#[derive(Clone, Debug)]
pub struct Process {
    /// Its id in this process's pid namespace.
    pub pid: u32,
    /// Its parent's id.
    pub parent: u32,
    /// Its short name.
    pub name: String,
    /// Its start time, in clock ticks since boot, which distinguishes it from an earlier process of
    /// the same id.
    pub start: u64,
    /// Its state: `R`, `S`, `D`, `T` (stopped), `t` (traced), `Z` (zombie), `X` (dead), …
    pub state: char,
    start_stack: u64,
    arg_start: u64,
}

impl Process {
    /// Looks up the process with this id; `NotFound` if there is none, or none that is visible.
    pub fn of(pid: u32) -> io::Result<Self> {
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
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("/proc/{pid}/stat is not as expected"),
            )
        };
        let parent =
            number(4).and_then(|parent| u32::try_from(parent).ok()).ok_or_else(unreadable)?;
        Ok(Self {
            pid,
            parent: number_here(parent),
            name,
            start: number(22).ok_or_else(unreadable)?,
            state: fields.first().and_then(|text| text.chars().next()).ok_or_else(unreadable)?,
            start_stack: number(28).unwrap_or(0),
            arg_start: number(48).unwrap_or(0),
        })
    }

    /// Returns whether this is a forked copy of `parent` that did not exec: a subshell. Its stack
    /// and arguments lie where the parent's do, and an exec would have moved them. (The kernel
    /// shows zeros for processes that this user may not trace.)
    pub fn is_forked_copy_of(&self, parent: &Self) -> bool {
        self.start_stack != 0
            && self.start_stack == parent.start_stack
            && self.arg_start != 0
            && self.arg_start == parent.arg_start
    }

    /// Its identity, permanent and valid for other processes of this machine.
    pub fn identity(&self) -> Result<Identity> {
        Ok(Identity { pid: self.pid, start: self.start, namespace: Namespace::here()?.clone() })
    }
}

/// A descriptor that becomes readable when the process ends; `None` if the kernel has no pidfds, or
/// descriptors have run out.
pub fn watch_process(pid: u32) -> Option<OwnedFd> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw)?;
    pidfd_open(pid, PidfdFlags::empty()).ok()
}

/// Returns whether a process of this id exists, visible or not: where `/proc` hides it (`hidepid`),
/// kill(2) still shows that.
pub fn exists(pid: u32) -> bool {
    let number = i32::try_from(pid).ok().and_then(Pid::from_raw);
    number.is_some_and(|number| test_kill_process(number) != Err(Errno::SRCH))
}

/// Returns whether a process exists that `/proc` hides from this user.
pub fn is_hidden(pid: u32) -> bool {
    let is_invisible = || Process::of(pid).is_err();
    is_invisible() && exists(pid) && is_invisible()
}

/// Returns whether all threads of a zombie have ended: its first thread has, and only a pidfd shows
/// the others.
pub fn has_ended(pid: u32) -> bool {
    let Some(fd) = watch_process(pid) else {
        return true;
    };
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    !matches!(poll(&mut fds, Some(&at_once)), Ok(0))
}

/// A process's command line on one line, at most 200 characters; its name for a kernel thread or a
/// zombie.
pub fn command_of(pid: u32) -> String {
    let Ok(number) = number_in_proc(pid) else {
        return String::new();
    };
    let line = read(&format!("/proc/{number}/cmdline")).unwrap_or_default();
    let words: Vec<_> = line.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
    let line = abridged(words.join(" ").trim());
    if line.is_empty() { process_name(pid) } else { line }
}

/// A command line as it is kept in a record.
pub fn abridged(line: &str) -> String {
    crate::error::one_line(line).chars().take(200).collect()
}

/// A process's short name, as the kernel has it.
pub fn process_name(pid: u32) -> String {
    number_in_proc(pid)
        .and_then(|number| text_of(&format!("/proc/{number}/comm")))
        .unwrap_or_default()
}

/// The real user of a process.
fn uid_of(pid: u32) -> Option<u32> {
    let status = number_in_proc(pid).and_then(|number| text_of(&format!("/proc/{number}/status")));
    let line =
        status.ok()?.lines().find_map(|line| line.strip_prefix("Uid:").map(str::to_owned))?;
    line.split_whitespace().next()?.parse().ok()
}

/// An owner as JSON shows it: by `/proc` if it runs here, else by its command line on record.
pub fn owner_view(owner: &Identity, command: &str) -> OwnerView {
    let runs_here = Namespace::here().is_ok_and(|here| {
        (&owner.namespace.boot, owner.namespace.pid_namespace) == (&here.boot, here.pid_namespace)
    }) && Process::of(owner.pid).is_ok_and(|process| process.start == owner.start);
    let file = command.split(' ').next().unwrap_or_default();
    let program = file.rsplit('/').next().map(str::to_owned);
    let view = OwnerView {
        pid: owner.pid,
        host: owner.namespace.host.clone(),
        program: program.filter(|program| !program.is_empty()),
        start: Some(owner.start),
        ..OwnerView::default()
    };
    match runs_here {
        false => view,
        true => {
            OwnerView { program: Some(process_name(owner.pid)), ..view }.of_user(uid_of(owner.pid))
        }
    }
}

/// A process that runs here, as an owner.
pub fn view_of_running(pid: u32) -> Option<OwnerView> {
    let identity = Process::of(pid).ok()?.identity().ok()?;
    Some(owner_view(&identity, &process_name(pid)))
}

/// Returns whether a process has this file open, as far as this user may see.
pub fn has_open(pid: u32, file: &Stat) -> bool {
    const MOST: usize = 4096;
    let Ok(files) =
        number_in_proc(pid).and_then(|number| std::fs::read_dir(format!("/proc/{number}/fd")))
    else {
        return false;
    };
    let files = files.take(MOST).flatten().filter_map(|file| std::fs::metadata(file.path()).ok());
    files.into_iter().any(|stat| (stat.dev(), stat.ino()) == (file.dev, file.ino))
}

/// The beginning of one of the kernel's small files, in one read: their size is not known ahead, so
/// reading to the end takes a dozen calls, and a waiter in a long queue looks up many processes.
fn read(path: &str) -> io::Result<Vec<u8>> {
    let mut buffer = [0; 4096];
    let length = File::open(path)?.read(&mut buffer)?;
    Ok(buffer.get(..length).unwrap_or_default().to_vec())
}

fn text_of(path: &str) -> io::Result<String> {
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
    let fd = watch_process(pid).ok_or(io::ErrorKind::NotFound)?;
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

impl Namespace {
    /// The name of this machine.
    pub fn host_name() -> String {
        rustix::system::uname().nodename().to_string_lossy().into_owned()
    }

    /// The scope of this process; an error (exit code 5) if `/proc` does not show it.
    pub fn here() -> Result<&'static Self> {
        static HERE: OnceLock<Namespace> = OnceLock::new();
        if let Some(here) = HERE.get() {
            return Ok(here);
        }
        let namespace =
            |name: &str| std::fs::metadata(format!("/proc/self/ns/{name}")).map(|stat| stat.ino());
        let look = || -> io::Result<Self> {
            Ok(Self {
                boot: text_of("/proc/sys/kernel/random/boot_id")?,
                pid_namespace: namespace("pid")?,
                time_namespace: namespace("time").unwrap_or(0),
                // 32 digits: machine-id(5). Any other content must fit into the files that hold it.
                machine: text_of("/etc/machine-id").unwrap_or_default().chars().take(64).collect(),
                host: Self::host_name(),
            })
        };
        let here = look().map_err(no_proc)?;
        Ok(HERE.get_or_init(|| here))
    }
}

/// The error for a `/proc` that is missing or unreadable.
pub fn no_proc(error: io::Error) -> Error {
    Error::new(
        Kind::DependencyMissing,
        format!("the owner of a lock cannot be found without /proc: {error}"),
    )
    .hint_shell("ls -d /proc/self; findmnt /proc", "is it mounted?")
}

impl Identity {
    /// The identity of a visible process; `None` if there is none, or only a zombie.
    pub fn of(pid: u32) -> Result<Option<Self>> {
        match Process::of(pid) {
            Ok(process) if matches!(process.state, 'Z' | 'X') => Ok(None),
            Ok(process) => process.identity().map(Some),
            Err(error)
                if error.kind() == io::ErrorKind::NotFound
                    && std::path::Path::new("/proc/self").exists() =>
            {
                Ok(None)
            }
            Err(error) => Err(no_proc(error)),
        }
    }
}

/// A cache of process lookups: waiters have many ancestors in common.
#[derive(Debug, Default)]
pub struct ProcessTree {
    known: HashMap<u32, Option<Process>>,
}

impl ProcessTree {
    /// A process, if it is visible.
    pub fn process(&mut self, pid: u32) -> Option<&Process> {
        self.known.entry(pid).or_insert_with(|| Process::of(pid).ok()).as_ref()
    }

    /// The identity of a visible process; `None` if there is none, or only a zombie.
    pub fn identity(&mut self, pid: u32) -> Result<Option<Identity>> {
        match self.process(pid) {
            Some(process) if !matches!(process.state, 'Z' | 'X') => process.identity().map(Some),
            _ => Identity::of(pid), // finds the reason
        }
    }

    /// A process and its ancestors, nearest first, as far as they are visible. A reused pid is not
    /// an ancestor: a parent is never younger than its child.
    pub fn ancestry(&mut self, pid: u32) -> Result<Vec<Identity>> {
        let mut line: Vec<Identity> = Vec::new();
        let mut next = pid;
        while next != 0
            && line.len() < 1000
            && let Some(process) = self.process(next)
            && line.last().is_none_or(|child| child.start >= process.start)
        {
            next = process.parent;
            line.push(process.identity()?);
        }
        Ok(line)
    }
}

impl Ancestry for ProcessTree {
    fn ancestry_of(&mut self, process: &Identity) -> Vec<Identity> {
        let line = self.ancestry(process.pid).unwrap_or_default();
        // In another namespace, or if the pid was reused, this is the ancestry of another process.
        if line.first().is_some_and(|seen| seen.is(process)) { line } else { Vec::new() }
    }
}

/// A process and its ancestors: see `ProcessTree::ancestry`.
pub fn ancestry(pid: u32) -> Result<Vec<Identity>> {
    ProcessTree::default().ancestry(pid)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_process_sees_itself_and_its_parents() {
        let me = Process::of(std::process::id()).unwrap();
        assert_eq!(me.parent, std::os::unix::process::parent_id());
        assert!(me.is_forked_copy_of(&me));
        let line = ancestry(me.pid).unwrap();
        assert!(line[0].is(&me.identity().unwrap()));
        assert_eq!(line[1].pid, me.parent);
        assert!(!line[0].is(&line[1]));
    }

    #[test]
    fn a_zombie_and_a_missing_process_have_no_identity() {
        let mut child = std::process::Command::new("true")
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        // The child's end of the pipe closes when it ends.
        std::io::Read::read_to_end(&mut child.stdout.take().unwrap(), &mut Vec::new()).unwrap();
        while Process::of(child.id()).unwrap().state != 'Z' {
            std::thread::yield_now();
        }
        assert!(Identity::of(child.id()).unwrap().is_none());
        child.wait().unwrap();
        assert!(Identity::of(child.id()).unwrap().is_none());
    }

    #[test]
    fn a_command_line_stays_one_short_line() {
        let mut child = std::process::Command::new("sleep").args(["1000"]).spawn().unwrap();
        while command_of(child.id()) != "sleep 1000" {
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(abridged(&"x\n".repeat(300)).chars().count(), 200);
    }
}
