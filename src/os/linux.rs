//! Linux: `/proc`, pidfds, inotify, statx.

pub mod events;
pub mod files;
pub mod process;

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, SystemTime};

use rustix::rand::{GetRandomFlags, getrandom};
use rustix::time::{ClockId, clock_gettime};

use self::process::text_of;
use super::Place;

/// The scope of this process; an error if `/proc` does not show it.
pub fn place() -> io::Result<Place> {
    let namespace =
        |name: &str| std::fs::metadata(format!("/proc/self/ns/{name}")).map(|stat| stat.ino());
    Ok(Place {
        boot: text_of("/proc/sys/kernel/random/boot_id")?,
        pid_namespace: namespace("pid")?,
        time_namespace: namespace("time").unwrap_or(0),
        machine: text_of("/etc/machine-id").unwrap_or_default(),
    })
}

/// When this kernel started, by the clock of today.
pub fn booted() -> Option<SystemTime> {
    SystemTime::now().checked_sub(uptime())
}

/// The time since this kernel started, in which it may have slept.
pub fn uptime() -> Duration {
    let since = clock_gettime(ClockId::Boottime);
    Duration::from_secs(u64::try_from(since.tv_sec).unwrap_or_default())
        + Duration::from_nanos(u64::try_from(since.tv_nsec).unwrap_or_default())
}

/// The signals that this process ignores, a bit each, from /proc (see proc_pid_status(5), SigIgn).
pub fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

/// The memory of this process in bytes; 0 where the system does not report it.
pub fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = resident.and_then(|text| text.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kibibytes.unwrap_or_default() << 10
}

/// Fills the buffer with random bytes.
pub fn fill_random(bytes: &mut [u8]) -> io::Result<()> {
    // Up to 256 bytes come whole: getrandom(2).
    getrandom(bytes, GetRandomFlags::empty())?;
    Ok(())
}
