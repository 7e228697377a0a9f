//! A wrapped program: signals are forwarded to it, and its exit code becomes this program's.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, ExitStatus};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Signal, getpgrp};
use signal_hook::consts::{
    SIGALRM, SIGCONT, SIGHUP, SIGINT, SIGIO, SIGPROF, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2,
    SIGVTALRM, SIGWINCH,
};
use signal_hook::iterator::{Handle, Signals};

use crate::error::{Error, Kind, quote};
use crate::os::process::Handle as Process;

/// The forwarded signals: those that may be sent on purpose and can be caught. (SIGURG wakes this
/// process: see [`crate::lock::files::park`].)
const PASSED_ON: [i32; 12] = [
    SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGALRM, SIGVTALRM, SIGPROF, SIGIO,
    SIGWINCH, SIGCONT,
];
/// The signals that request an end.
const ENDING: [i32; 4] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM];
/// The time that a command may take to end after it was signalled.
const GRACE: Duration = Duration::from_secs(10);

/// Forwards signals to the running program, and remembers a request to end. While it exists, this
/// process does not die of them; dropping it passes them on to the next one.
#[derive(Debug)]
pub struct Forwarder {
    handle: Option<Handle>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    now: Mutex<Now>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Now {
    target: Option<Process>,
    interrupt: Option<Interrupt>,
}

#[derive(Clone, Copy, Debug)]
struct Interrupt {
    signal: i32,
    origin: Origin,
}

/// The sender of a signal, as far as it matters for which other processes received it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// The terminal, which sends it to the whole foreground process group.
    Terminal,
    Somebody,
}

impl Shared {
    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn receive(&self, signal: i32) {
        let by_terminal = matches!(signal, SIGINT | SIGQUIT | SIGWINCH) && in_foreground();
        let origin = if by_terminal { Origin::Terminal } else { Origin::Somebody };
        let mut now = self.now();
        if let Some(target) = now.target.as_ref().filter(|_| origin == Origin::Somebody) {
            send(target, signal);
        }
        if ENDING.contains(&signal) && now.interrupt.is_none() {
            now.interrupt = Some(Interrupt { signal, origin });
        }
        self.changed.notify_all();
    }
}

impl Forwarder {
    /// Starts catching signals; those that this process ignores, as under nohup, stay ignored.
    pub fn new() -> Self {
        let shared = Arc::new(Shared::default());
        let ignored = crate::os::ignored_signals();
        let caught = PASSED_ON.iter().filter(|signal| ignored & (1 << (**signal - 1)) == 0);
        let Ok(mut signals) = Signals::new(caught) else {
            return Self { handle: None, shared };
        };
        let handle = signals.handle();
        let receiver = Arc::clone(&shared);
        let _ = std::thread::Builder::new()
            .spawn(move || signals.forever().for_each(|signal| receiver.receive(signal)));
        Self { handle: Some(handle), shared }
    }

    /// Forwards signals to this process from now on.
    pub fn begin(&self, child: u32) {
        let target = Process::of(child);
        let mut now = self.shared.now();
        // It arrived while the child was being started.
        if let Some(Interrupt { signal, origin: Origin::Somebody }) = now.interrupt {
            send(&target, signal);
        }
        now.target = Some(target);
    }

    /// The program has ended.
    pub fn end(&self) {
        self.shared.now().target = None;
    }

    /// The signal that requested an end.
    pub fn interrupt(&self) -> Option<i32> {
        self.shared.now().interrupt.map(|interrupt| interrupt.signal)
    }

    /// Pauses for this long, or until an end is requested.
    pub fn pause(&self, length: Duration) {
        let now = self.shared.now();
        drop(self.shared.changed.wait_timeout_while(now, length, |now| now.interrupt.is_none()));
    }
}

impl Default for Forwarder {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        if let Some(handle) = &self.handle {
            handle.close();
        }
    }
}

fn send(target: &Process, signal: i32) {
    if let Some(signal) = Signal::from_named_raw(signal) {
        target.send(signal);
    }
}

/// Returns whether this process is in the foreground of a terminal.
fn in_foreground() -> bool {
    let Ok(terminal) = File::open("/dev/tty") else {
        return false;
    };
    rustix::termios::tcgetpgrp(&terminal).is_ok_and(|group| group == getpgrp())
}

/// The cause of a program's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The program itself, or another sender's signal.
    Itself,
    /// The deadline.
    Deadline,
}

/// Waits for a program's end. At the deadline a signal requests its end, and killed when it takes
/// too long.
pub fn wait(child: &mut Child, deadline: Option<Instant>) -> std::io::Result<(ExitStatus, Cause)> {
    let mut cause = Cause::Itself;
    if let Some(deadline) = deadline {
        let target = Process::of(child.id());
        if !target.ends_before(deadline) {
            cause = Cause::Deadline;
            target.send(Signal::TERM);
            if !target.ends_before(Instant::now() + GRACE) {
                child.kill()?;
            }
        }
    }
    Ok((child.wait()?, cause))
}

/// The exit code for the end of a program: its own, or 128 plus the signal that ended it.
pub fn code_of(status: ExitStatus) -> u8 {
    let code = status.code().unwrap_or_else(|| code_of_signal(status.signal().unwrap_or(0)).into());
    u8::try_from(code & 0xff).unwrap_or(1)
}

/// The exit code for an end by a signal.
pub fn code_of_signal(signal: i32) -> u8 {
    u8::try_from(128 + signal).unwrap_or(255)
}

/// The error of a program that could not be started.
pub fn not_run(program: &OsStr, error: &std::io::Error) -> Error {
    let name = program.to_string_lossy();
    let kind = match error.kind() {
        std::io::ErrorKind::NotFound => Kind::CommandNotFound,
        _ => Kind::NotExecutable,
    };
    let word = quote(&name);
    Error::new(kind, format!("{name:?} cannot be run: {error}"))
        .hint_shell(format!("command -v {word}; ls -l {word}"), "see what is there")
}
