//! The functions of [`crate::os`], by the calls of Darwin.

pub mod events;
pub mod files;
pub mod process;

use std::io;
use std::time::SystemTime;

use pipeline_state_darwin as sys;

use crate::os::Place;

/// The scope of this process; an error if the system does not show this process itself.
///
/// The id of the boot is the start of the first process. There is `kern.bootsessionuuid`, but
/// sandboxes hide it: a process inside would take another id for another boot, and the locks of the
/// living for those of the dead. Where even the first process is hidden, the id is empty, which
/// compares with nothing.
pub fn place() -> io::Result<Place> {
    process::of(std::process::id())?;
    let boot = process::of(1).map(|first| format!("{:x}", first.start)).unwrap_or_default();
    let machine = sys::host_uuid().map(|id| id.iter().map(|byte| format!("{byte:02x}")).collect());
    Ok(Place { boot, pid_namespace: 0, time_namespace: 0, machine: machine.unwrap_or_default() })
}

/// Not shown: there are no containers with ids of their own.
pub fn booted() -> Option<SystemTime> {
    None
}

/// The time since this kernel started, in which it may have slept.
pub fn uptime() -> std::time::Duration {
    let since = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    std::time::Duration::from_secs(u64::try_from(since.tv_sec).unwrap_or_default())
        + std::time::Duration::from_nanos(u64::try_from(since.tv_nsec).unwrap_or_default())
}

/// The signals that this process ignores, a bit each.
pub fn ignored_signals() -> u64 {
    let ignored = (1..32).filter(|signal| sys::is_ignored(*signal));
    ignored.fold(0, |mask, signal| mask | 1 << (signal - 1))
}

/// The memory of this process in bytes; 0 where the system does not report it.
pub fn memory() -> u64 {
    sys::own_memory().unwrap_or_default()
}

/// Fills the buffer with random bytes.
pub fn fill_random(bytes: &mut [u8]) -> io::Result<()> {
    // More than that is refused: getentropy(2).
    bytes.chunks_mut(256).try_for_each(sys::random)
}
