//! `struct kinfo_proc`, the answer to sysctl `kern.proc.pid.N`: `<sys/sysctl.h>`, `<sys/proc.h>`.
//!
//! Sandboxes of agents let this one be read where they hide the boot's id, arguments, and all of
//! libproc. It shows zombies and the processes of other users, too.

use std::io;

use crate::os::process::State;

/// The size of the answer, the same on arm64 and x86_64.
pub const SIZE: usize = 648;

/// `P_EXEC`: the process has called exec since its fork; a fork does not inherit it.
const EXECED: u32 = 0x4000;
const STOPPED: u8 = 4;
const ZOMBIE: u8 = 5;

const START_SECONDS: usize = 0;
const START_MICROSECONDS: usize = 8;
const FLAG: usize = 32;
const STATE: usize = 36;
const PID: usize = 40;
const NAME: usize = 243;
const REAL_USER: usize = 392;
const PARENT: usize = 560;

/// A process, as the kernel answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    pub parent: u32,
    pub uid: u32,
    /// Microseconds since 1970 at its fork, by the clock as it was then: fixed for its life.
    pub start: u64,
    pub state: State,
    pub has_execed: bool,
    /// At most 16 bytes of its program's name.
    pub name: String,
}

impl Facts {
    /// Reads the answer about the process `pid`. An empty one means that there is none.
    pub fn parse(pid: u32, answer: &[u8]) -> io::Result<Self> {
        if answer.is_empty() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let number = |offset| u32::from_ne_bytes(bytes_at(answer, offset));
        if answer.len() != SIZE || number(PID) != pid {
            let message = format!("the kernel's answer about process {pid} is not as expected");
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        let seconds = u64::from_ne_bytes(bytes_at(answer, START_SECONDS));
        let name: [u8; 17] = bytes_at(answer, NAME);
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        let [state] = bytes_at(answer, STATE);
        Ok(Self {
            parent: number(PARENT),
            uid: number(REAL_USER),
            start: seconds.wrapping_mul(1_000_000).wrapping_add(number(START_MICROSECONDS).into()),
            state: match state {
                STOPPED => State::Stopped,
                ZOMBIE => State::Zombie,
                _ => State::Running,
            },
            has_execed: number(FLAG) & EXECED != 0,
            name: String::from_utf8_lossy(name).into_owned(),
        })
    }
}

fn bytes_at<const N: usize>(bytes: &[u8], offset: usize) -> [u8; N] {
    bytes.get(offset..offset + N).and_then(|part| part.try_into().ok()).unwrap_or([0; N])
}

/// The layout, written down once more as the header has it: pointers and `long` have 8 bytes.
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::mem::{offset_of, size_of};

    use super::*;

    #[repr(C)]
    struct Timeval {
        seconds: i64,
        microseconds: i32,
    }

    #[repr(C)]
    struct ExternProc {
        starttime: Timeval,
        vmspace: u64,
        sigacts: u64,
        flag: i32,
        stat: i8,
        pid: i32,
        oppid: i32,
        dupfd: i32,
        user_stack: u64,
        exit_thread: u64,
        debugger: i32,
        sigwait: i32,
        estcpu: u32,
        cpticks: i32,
        pctcpu: u32,
        wchan: u64,
        wmesg: u64,
        swtime: u32,
        slptime: u32,
        realtimer: [Timeval; 2],
        rtime: Timeval,
        ticks: [u64; 3],
        traceflag: i32,
        tracep: u64,
        siglist: i32,
        textvp: u64,
        holdcnt: i32,
        sigmask: u32,
        sigignore: u32,
        sigcatch: u32,
        priority: u8,
        usrpri: u8,
        nice: i8,
        comm: [u8; 17],
        pgrp: u64,
        addr: u64,
        xstat: u16,
        acflag: u16,
        ru: u64,
    }

    #[repr(C)]
    struct Pcred {
        lock: [u8; 72],
        ucred: u64,
        ruid: u32,
        svuid: u32,
        rgid: u32,
        svgid: u32,
        refcnt: i32,
    }

    #[repr(C)]
    struct Ucred {
        reference: i32,
        uid: u32,
        ngroups: i16,
        groups: [u32; 16],
    }

    #[repr(C)]
    struct Vmspace {
        dummy: i32,
        dummy2: u64,
        dummy3: [i32; 5],
        dummy4: [u64; 3],
    }

    #[repr(C)]
    struct Eproc {
        paddr: u64,
        sess: u64,
        pcred: Pcred,
        ucred: Ucred,
        vm: Vmspace,
        ppid: i32,
        pgid: i32,
        jobc: i16,
        tdev: i32,
        tpgid: i32,
        tsess: u64,
        wmesg: [u8; 8],
        xsize: i32,
        rss: [i16; 3],
        flag: i32,
        login: [u8; 12],
        spare: [i32; 4],
    }

    #[repr(C)]
    struct KinfoProc {
        process: ExternProc,
        eproc: Eproc,
    }

    #[test]
    fn the_offsets_are_those_of_the_header() {
        assert_eq!(size_of::<KinfoProc>(), SIZE);
        assert_eq!(offset_of!(Timeval, microseconds), START_MICROSECONDS);
        let offsets = [
            (offset_of!(KinfoProc, process.starttime), START_SECONDS),
            (offset_of!(KinfoProc, process.flag), FLAG),
            (offset_of!(KinfoProc, process.stat), STATE),
            (offset_of!(KinfoProc, process.pid), PID),
            (offset_of!(KinfoProc, process.comm), NAME),
            (offset_of!(KinfoProc, eproc.pcred.ruid), REAL_USER),
            (offset_of!(KinfoProc, eproc.ppid), PARENT),
        ];
        for (header, ours) in offsets {
            assert_eq!(header, ours);
        }
    }

    fn answer(pid: u32) -> [u8; SIZE] {
        let mut answer = [0; SIZE];
        let mut put =
            |offset: usize, bytes: &[u8]| answer[offset..][..bytes.len()].copy_from_slice(bytes);
        put(START_SECONDS, &1_800_000_000_i64.to_ne_bytes());
        put(START_MICROSECONDS, &42_i32.to_ne_bytes());
        put(FLAG, &0x4004_i32.to_ne_bytes());
        put(STATE, &[STOPPED]);
        put(PID, &pid.to_ne_bytes());
        put(NAME, b"bash\0of an earlier one");
        put(REAL_USER, &501_u32.to_ne_bytes());
        put(PARENT, &1_u32.to_ne_bytes());
        answer
    }

    #[test]
    fn an_answer_is_read_and_one_of_another_size_or_process_is_refused() {
        let facts = Facts::parse(77, &answer(77)).unwrap();
        let expected = Facts {
            parent: 1,
            uid: 501,
            start: 1_800_000_000_000_042,
            state: State::Stopped,
            has_execed: true,
            name: "bash".to_owned(),
        };
        assert_eq!(facts, expected);
        let kind = |pid, answer: &[u8]| Facts::parse(pid, answer).unwrap_err().kind();
        assert_eq!(kind(77, &[]), io::ErrorKind::NotFound);
        assert_eq!(kind(78, &answer(77)), io::ErrorKind::InvalidData);
        assert_eq!(kind(77, &answer(77)[..SIZE - 8]), io::ErrorKind::InvalidData);
    }
}
