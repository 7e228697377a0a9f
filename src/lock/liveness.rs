//! Whether the owner of a lock lives. Only this module decides.
//!
//! | verdict | when |
//! |---|---|
//! | alive | it exists and started when the record says; or it is hidden (`EPERM`, `hidepid`) |
//! | dead | no such process, or one that started at another time, or a zombie; or another boot of this machine, and the root lies on a file system that no other kernel shares |
//! | unknown | another machine; another pid namespace of this boot, or another boot and a shared file system |
//!
//! Where a pid proves nothing, an flocked file does: the one that a command of `lock run` passes on
//! to its descendants ([`LivenessProbe::grant`]), and the one that a waiter holds ([`LivenessProbe::waiter`]). That
//! works on a local file system and within one boot. Age is never a reason.

use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::time::SystemTime;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

use super::lifeline::Lifeline;
use super::process::{Identity, Namespace, Process, watch_process};
use super::record::{Grant, Waiter};
use crate::error::Result;
use crate::fs::probe::Probe;
use crate::fs::{Dir, Disk};

/// Whether a process lives, as far as this process can find out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// It lives.
    Alive,
    /// It does not, and never will again.
    Dead,
    /// This process cannot find out.
    Unknown,
}

/// Whether a waiter blocks others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaiterState {
    /// It is in its place.
    Waiting,
    /// It is stopped or out of time; later waiters may go first, but it keeps its place.
    Skipped,
    /// It, or the owner it waits for, is dead.
    Dead,
}

/// Judges owners and waiters of the locks in one directory, as seen from this process. It looks
/// each process up once, since in a long queue each waiter blocks many; so a judge serves one check
/// of the records and no longer.
#[derive(Debug)]
pub struct LivenessProbe<'a> {
    disk: &'a Disk,
    locks: &'a Dir,
    here: &'static Namespace,
    local: OnceCell<bool>,
    seen: RefCell<HashMap<(u32, u64), ProcessStatus>>,
    probed: RefCell<HashMap<Lifeline, Option<Probe>>>,
}

/// The state of a process of this boot and namespace.
#[derive(Clone, Copy, Debug)]
struct ProcessStatus {
    liveness: Liveness,
    is_stopped: bool,
}

impl<'a> LivenessProbe<'a> {
    /// A judge for the locks in the directory `locks`.
    pub fn new(disk: &'a Disk, locks: &'a Dir) -> Result<Self> {
        Ok(Self {
            disk,
            locks,
            here: Namespace::here()?,
            local: OnceCell::new(),
            seen: RefCell::default(),
            probed: RefCell::default(),
        })
    }

    fn is_local(&self) -> bool {
        *self.local.get_or_init(|| file_system(self.locks).is_local())
    }

    /// The boot or namespace of a process that cannot be judged from here, in words.
    pub fn describe_namespace(&self, identity: &Identity) -> String {
        identity.namespace.describe_from(self.here)
    }

    /// Whether a process lives.
    pub fn process(&self, identity: &Identity) -> Liveness {
        let (there, here) = (&identity.namespace, self.here);
        if there.boot != here.boot {
            let same_machine = !here.machine.is_empty() && there.machine == here.machine;
            return if same_machine && self.is_local() {
                Liveness::Dead
            } else {
                Liveness::Unknown
            };
        }
        if there.pid_namespace != here.pid_namespace {
            return Liveness::Unknown;
        }
        if there.time_namespace != here.time_namespace
            && matches!(look(identity.pid), Lookup::Process(_))
        {
            return Liveness::Unknown; // its start time cannot be compared with this process's
        }
        self.status(identity).liveness
    }

    fn status(&self, identity: &Identity) -> ProcessStatus {
        let key = (identity.pid, identity.start);
        if let Some(seen) = self.seen.borrow().get(&key) {
            return *seen;
        }
        let (liveness, is_stopped) = match look(identity.pid) {
            Lookup::Nothing => (Liveness::Dead, false),
            Lookup::Hidden => (Liveness::Alive, false),
            Lookup::Process(process) if process.start != identity.start => (Liveness::Dead, false),
            Lookup::Process(process)
                if matches!(process.state, 'Z' | 'X') && has_ended(identity.pid) =>
            {
                (Liveness::Dead, false)
            }
            Lookup::Process(process) => (Liveness::Alive, matches!(process.state, 'T' | 't')),
        };
        let status = ProcessStatus { liveness, is_stopped };
        self.seen.borrow_mut().insert(key, status);
        status
    }

    /// Whether the owner of a grant lives. If its pid proves nothing, the file that its command
    /// inherited does; failing that, its time to live decides, since a grant may expire unless its
    /// owner is known to be alive.
    pub fn grant(&self, grant: &Grant) -> Liveness {
        let known = grant.owner.as_ref().map_or(Liveness::Unknown, |owner| self.process(owner));
        if known != Liveness::Unknown {
            return known;
        }
        // A living command, or a child of it, holds its file locked. If the file is gone, the
        // command may still live.
        if let (Some(file), Some(owner)) = (&grant.live_file, &grant.owner) {
            match self.probe(file, owner) {
                Some(Probe::Locked) => return Liveness::Alive,
                Some(Probe::Free) => return Liveness::Dead,
                _ => {}
            }
        }
        match grant.expires {
            Some(expires) if expires <= unix_seconds(self.disk.now()) => Liveness::Dead,
            _ => Liveness::Unknown,
        }
    }

    /// The state of a process's lifeline; `None` where an flock proves nothing.
    fn probe(&self, file: &Lifeline, process: &Identity) -> Option<Probe> {
        if process.namespace.boot != self.here.boot || !self.is_local() {
            return None;
        }
        let probe = || self.disk.probe(self.locks, file.as_str()).ok();
        *self.probed.borrow_mut().entry(file.clone()).or_insert_with(probe)
    }

    /// Whether the process of a waiter lives. A waiter's lifeline is removed by the change that
    /// removes the waiter from the record, so a waiter without its file is dead.
    pub fn waiting_process(&self, waiter: &Waiter) -> Liveness {
        match (self.process(&waiter.process), &waiter.lifeline) {
            (Liveness::Unknown, Some(file)) => match self.probe(file, &waiter.process) {
                Some(Probe::Locked) => Liveness::Alive,
                Some(Probe::Free | Probe::Missing) => Liveness::Dead,
                Some(Probe::NotRegular) | None => Liveness::Unknown,
            },
            (known, _) => known,
        }
    }

    /// Whether a waiter, or the owner it waits for, is proven dead.
    pub fn is_dead_waiter(&self, waiter: &Waiter) -> bool {
        self.waiting_process(waiter) == Liveness::Dead
            || self.process(&waiter.owner) == Liveness::Dead
    }

    /// Whether a waiter blocks later waiters.
    pub fn waiter(&self, waiter: &Waiter) -> WaiterState {
        if self.is_dead_waiter(waiter) {
            return WaiterState::Dead;
        }
        if waiter.until <= unix_seconds(self.disk.now()) {
            // A living waiter removes itself; one that cannot be judged never shows another sign.
            let is_unknown = self.waiting_process(waiter) == Liveness::Unknown;
            return if is_unknown { WaiterState::Dead } else { WaiterState::Skipped };
        }
        let is_here = self.process(&waiter.process) == Liveness::Alive;
        let is_stopped = is_here && self.status(&waiter.process).is_stopped;
        if is_stopped { WaiterState::Skipped } else { WaiterState::Waiting }
    }
}

/// Seconds since 1970.
pub fn unix_seconds(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

enum Lookup {
    Process(Process),
    Hidden,
    Nothing,
}

/// Looks a process up in `/proc`; where `/proc` hides it (`hidepid`), kill(2) still shows whether
/// it exists.
fn look(pid: u32) -> Lookup {
    if let Ok(process) = Process::of(pid) {
        return Lookup::Process(process);
    }
    let Some(number) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return Lookup::Nothing;
    };
    match test_kill_process(number) {
        Err(Errno::SRCH) => Lookup::Nothing,
        _ => match Process::of(pid) {
            Ok(process) => Lookup::Process(process),
            Err(_) => Lookup::Hidden,
        },
    }
}

/// Whether a process exists that `/proc` hides from this user.
pub fn is_hidden(pid: u32) -> bool {
    matches!(look(pid), Lookup::Hidden)
}

/// Whether all threads of a zombie have ended: its first thread has, and only a pidfd shows the
/// others.
fn has_ended(pid: u32) -> bool {
    let Some(fd) = watch_process(pid) else {
        return true;
    };
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    !matches!(poll(&mut fds, Some(&at_once)), Ok(0))
}

/// The kind of file system that a root lies on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSystem {
    /// No other kernel can have it mounted.
    Local(&'static str),
    /// Another kernel may have it mounted, or the type is unknown.
    Shared(&'static str),
}

impl FileSystem {
    /// Whether records of another boot of this machine are certainly dead here.
    pub fn is_local(self) -> bool {
        matches!(self, Self::Local(_))
    }

    /// Its name, as statfs(2) lists it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Local(name) | Self::Shared(name) => name,
        }
    }
}

/// The file system of a directory, by the magic numbers of statfs(2).
#[allow(clippy::unnecessary_cast)] // its width differs between architectures
pub fn file_system(dir: &Dir) -> FileSystem {
    let Ok(facts) = rustix::fs::fstatfs(dir.at()) else {
        return FileSystem::Shared("unknown");
    };
    match facts.f_type as u64 & 0xffff_ffff {
        0xef53 => FileSystem::Local("ext4"),
        0x5846_5342 => FileSystem::Local("xfs"),
        0x9123_683e => FileSystem::Local("btrfs"),
        0x0102_1994 => FileSystem::Local("tmpfs"),
        0x8584_58f6 => FileSystem::Local("ramfs"),
        0xf2f5_2010 => FileSystem::Local("f2fs"),
        0x2fc1_2fc1 => FileSystem::Local("zfs"),
        0xca45_1a4e => FileSystem::Local("bcachefs"),
        0x794c_7630 => FileSystem::Local("overlayfs"),
        0x4d44 => FileSystem::Local("vfat"),
        0x2011_bab0 => FileSystem::Local("exfat"),
        0x3153_464a => FileSystem::Local("jfs"),
        0x6969 => FileSystem::Shared("nfs"),
        0x0102_1997 => FileSystem::Shared("9p"),
        0x6573_5546 => FileSystem::Shared("fuse"),
        0xff53_4d42 | 0xfe53_4d42 | 0x517b => FileSystem::Shared("smb"),
        0x00c3_6400 => FileSystem::Shared("ceph"),
        0x0116_1970 => FileSystem::Shared("gfs2"),
        0x7461_636f => FileSystem::Shared("ocfs2"),
        _ => FileSystem::Shared("unknown"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn judged(change: impl Fn(&mut Identity)) -> Liveness {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::real();
        let locks = disk.open_root(dir.path()).unwrap();
        let mut me = Identity::of(std::process::id()).unwrap().unwrap();
        change(&mut me);
        LivenessProbe::new(&disk, &locks).unwrap().process(&me)
    }

    #[test]
    fn a_pid_alone_proves_nothing() {
        assert_eq!(judged(|_| {}), Liveness::Alive);
        assert_eq!(judged(|me| me.start += 1), Liveness::Dead, "the pid is used again");
        assert_eq!(judged(|me| me.pid = i32::MAX as u32), Liveness::Dead, "no such process");
        assert_eq!(judged(|me| me.namespace.pid_namespace += 1), Liveness::Unknown);
        assert_eq!(
            judged(|me| me.namespace.time_namespace += 1),
            Liveness::Unknown,
            "start times cannot be compared"
        );
        let elsewhere = |me: &mut Identity| {
            me.namespace.boot = "another".to_owned();
            me.namespace.machine = "another".to_owned();
        };
        assert_eq!(judged(elsewhere), Liveness::Unknown, "another machine");
    }

    #[test]
    fn an_earlier_boot_on_a_local_disk_is_dead() {
        if Namespace::here().unwrap().machine.is_empty() {
            assert_eq!(judged(|me| me.namespace.boot = "earlier".to_owned()), Liveness::Unknown);
        } else {
            assert_eq!(judged(|me| me.namespace.boot = "earlier".to_owned()), Liveness::Dead);
        }
    }

    #[test]
    fn a_process_that_may_not_be_signalled_is_alive() {
        // The first process is root's; where this test runs as root it is alive all the same.
        assert_eq!(
            judged(|me| (me.pid, me.start) = (1, Process::of(1).unwrap().start)),
            Liveness::Alive
        );
    }
}
