//! The calls of Darwin that no well-kept crate wraps safely: sysctl(3), gethostuuid(2),
//! getentropy(2), proc_pidinfo(3), sigaction(2) and one fcntl(2).
//!
//! All unsafe code of pipeline-state is here. Each function is one call, and takes and returns
//! plain data; what the bytes mean is decided in safe code, which is tested on every system.
#![cfg(target_os = "macos")]

use std::ffi::c_int;
use std::io;
use std::mem::{MaybeUninit, size_of};
use std::ptr::null_mut;

/// `CTL_KERN`, `KERN_PROC`, `KERN_PROC_PID`: the facts of a process, for any that this user and
/// sandbox may see.
pub fn process_facts(pid: i32, buffer: &mut [u8]) -> io::Result<usize> {
    sysctl(&mut [libc::CTL_KERN, libc::KERN_PROC, libc::KERN_PROC_PID, pid], buffer)
}

/// `CTL_KERN`, `KERN_PROCARGS2`: the arguments of a process of this user.
pub fn process_arguments(pid: i32, buffer: &mut [u8]) -> io::Result<usize> {
    sysctl(&mut [libc::CTL_KERN, libc::KERN_PROCARGS2, pid], buffer)
}

/// Fills the buffer and returns the length of what is there.
fn sysctl(name: &mut [c_int], buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = buffer.len();
    let words = libc::c_uint::try_from(name.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: both buffers live through the call and have the length that is passed; none is kept,
    // and nothing is set.
    let result = unsafe {
        let old = buffer.as_mut_ptr().cast();
        libc::sysctl(name.as_mut_ptr(), words, old, &mut length, null_mut(), 0)
    };
    if result == 0 { Ok(length) } else { Err(io::Error::last_os_error()) }
}

/// The id of this machine.
pub fn host_uuid() -> io::Result<[u8; 16]> {
    let mut id = [0; 16];
    let patience = libc::timespec { tv_sec: 1, tv_nsec: 0 };
    // SAFETY: the buffer has the 16 bytes of a uuid_t, and the time is read only.
    let result = unsafe { libc::gethostuuid(id.as_mut_ptr(), &patience) };
    if result == 0 { Ok(id) } else { Err(io::Error::last_os_error()) }
}

/// Fills the buffer with random bytes; at most 256.
pub fn random(bytes: &mut [u8]) -> io::Result<()> {
    // SAFETY: the buffer has the length that is passed.
    let result = unsafe { libc::getentropy(bytes.as_mut_ptr().cast(), bytes.len()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The resident memory of this process in bytes.
pub fn own_memory() -> Option<u64> {
    let mut facts = MaybeUninit::<libc::proc_taskinfo>::zeroed();
    let size = c_int::try_from(size_of::<libc::proc_taskinfo>()).ok()?;
    let pid = c_int::try_from(std::process::id()).ok()?;
    // SAFETY: the buffer has the length that is passed, and any bytes are a valid proc_taskinfo.
    let facts = unsafe {
        let buffer = facts.as_mut_ptr().cast();
        if libc::proc_pidinfo(pid, libc::PROC_PIDTASKINFO, 0, buffer, size) != size {
            return None;
        }
        facts.assume_init()
    };
    Some(facts.pti_resident_size)
}

/// Returns whether this process ignores a signal.
pub fn is_ignored(signal: c_int) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: without a new action the call only asks, and all zeros are a valid sigaction.
    let action = unsafe {
        if libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) != 0 {
            return false;
        }
        action.assume_init()
    };
    action.sa_sigaction == libc::SIG_IGN
}

/// Closes a descriptor, given by its number, when this process execs.
pub fn close_on_exec(descriptor: c_int) -> io::Result<()> {
    // SAFETY: no memory is passed; a number that is not open is an error.
    let result = unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
