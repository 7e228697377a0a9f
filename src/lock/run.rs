//! `lock run`: hold locks while a command runs.
//!
//! The record names the command, not this process, and does so before the command's first
//! instruction: this process starts a child that waits for a message ([`super::launch`]), records
//! its pid and start time, and only then lets it become the command. So killing this process does
//! not free a lock while the command works on, but killing the command does.

use std::ffi::OsString;
use std::fs::File;
use std::io::{PipeReader, PipeWriter, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};

use super::Locks;
use super::acquire::Acquired;
use super::launch::LAUNCH;
use super::lifeline::{self, Lifeline};
use super::owner;
use super::process::{Identity, abridged, ancestry, no_proc};
use super::queue::{Reentrancy, RequestSpec, Requester};
use super::record::{Mode, Purpose};
use super::request::{Deadline, Deadlocks, Request};
use crate::child::Forwarder;
use crate::error::{Error, Kind, Result};
use crate::fs::Locked;
use crate::name::Name;

/// The live file's descriptor gets this number or the next free one, if the limit allows.
const MIN_LIFELINE_FD: i32 = 100;
/// How long giving the locks back may take.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(5);

/// A command to run, and the locks to run it under.
#[derive(Clone, Debug)]
pub struct RunSpec {
    /// The locks.
    pub names: Vec<Name>,
    /// The mode in which they are held.
    pub mode: Mode,
    /// The end of the wait for them.
    pub deadline: Deadline,
    /// The handling of deadlocks.
    pub deadlocks: Deadlocks,
    /// The command: a program and its arguments.
    pub command: Vec<OsString>,
    /// The output format for the child's error if there is no such program.
    pub format: &'static str,
}

/// A child that waits for the message to become the command. Without it, because this process died
/// or gave up, the child ends.
struct WaitingChild {
    child: Child,
    word: PipeWriter,
    /// The child reopens this end through /proc; it must exist until then.
    _other_end: PipeReader,
    /// Kept until the command has ended, since a command may close all descriptors that it
    /// inherited.
    _live_file: File,
}

impl Locks {
    /// Runs a command while its locks are held; returns its exit status.
    pub fn run(&self, spec: &RunSpec) -> Result<ExitStatus> {
        let (name, live_file) = self.live_file(spec.deadline.at)?;
        let result = self.start(spec, live_file).and_then(|mut waiting| {
            match self.acquire_for(spec, &waiting.child, &name) {
                Ok(acquired) => self.supervise(waiting, &acquired),
                Err(error) => {
                    let _ = waiting.child.kill();
                    let _ = waiting.child.wait();
                    Err(error)
                }
            }
        });
        if result.is_err()
            && let Ok(Some(dir)) = self.dir()
        {
            let _ = self.disk.unlink(&dir, name.as_str()); // `lock clean` finds it
        }
        result
    }

    /// Lets the child become the command, passes signals on, and releases the locks when it has
    /// ended, even if a child of the command lives on.
    fn supervise(&self, mut waiting: WaitingChild, acquired: &[Acquired]) -> Result<ExitStatus> {
        let signals = Forwarder::new();
        signals.begin(waiting.child.id());
        let tokens =
            acquired.iter().map(|Acquired { name, grant, .. }| format!("{name}:{}", grant.token));
        let word = tokens.collect::<Vec<_>>().join(",") + "\n";
        // A child that was killed before it could read this is waited for all the same.
        let _ = waiting.word.write_all(word.as_bytes());
        let ended = waiting.child.wait();
        drop(signals);
        for Acquired { name, grant, .. } in acquired {
            // The record is stale by now; if it cannot be removed, the next reader finds that out.
            let requester = owner::self_and_ancestors(None, &self.env);
            let deadline = Instant::now() + RELEASE_TIMEOUT;
            let released = requester.and_then(|requester| {
                self.release(std::slice::from_ref(name), Some(grant.token), &requester, deadline)
            });
            if let Err(error) = released {
                tracing::debug!(%error, "the lock was not there to be released");
            }
        }
        ended.map_err(|error| {
            Error::new(Kind::of_io(&error), format!("cannot wait for the command: {error}"))
        })
    }

    /// A file that stays locked while any descriptor of it is open: the command and its children
    /// inherit one.
    fn live_file(&self, deadline: Instant) -> Result<(Lifeline, File)> {
        let me = owner::self_and_ancestors(None, &self.env)?.process;
        // Containers that start together may give their processes the same ids at the same time.
        let boot = me.namespace.boot.split('-').next().unwrap_or_default();
        let name = format!(
            "{}{}-{}-{}-{boot}",
            lifeline::COMMAND,
            me.pid,
            me.start,
            me.namespace.pid_namespace
        );
        let lifeline = Lifeline::parse(&name)
            .ok_or_else(|| Error::new(Kind::Internal, format!("{name} names no lifeline")))?;
        let gate = self.gate(deadline)?; // so that no clean-up finds it unlocked
        if self
            .disk
            .list(gate.dir())?
            .iter()
            .any(|name| name.to_str().is_some_and(|name| name.starts_with(lifeline::COMMAND)))
        {
            self.clear_leftovers(gate.dir(), None)?; // of processes that died without a record
        }
        let file = self.disk.open_or_make(gate.dir(), &name)?.0;
        let path = gate.dir().path_of(&name);
        let Locked::Yes(file) = self.disk.lock(file, &path, Duration::ZERO)? else {
            return Err(Error::new(
                Kind::Internal,
                format!("{} is locked by somebody else", path.display()),
            ));
        };
        // Scripts use the low numbers freely (`exec 3>log`) and would close it.
        let out_of_the_way = fcntl_dupfd_cloexec(&file, MIN_LIFELINE_FD).map_or(file, File::from);
        fcntl_setfd(out_of_the_way.as_fd(), FdFlags::empty())
            .map_err(|errno| not_started(&errno.into()))?;
        Ok((lifeline, out_of_the_way))
    }

    /// Starts the child, which inherits the live file.
    fn start(&self, spec: &RunSpec, live_file: File) -> Result<WaitingChild> {
        let (reader, writer) = std::io::pipe().map_err(|error| not_started(&error))?;
        // The number of this process in /proc, which may differ from its pid: see super::process.
        let own = std::fs::read_link("/proc/self").map_err(no_proc)?;
        let descriptor = reader.as_raw_fd();
        let child = Command::new("/proc/self/exe")
            .arg0("pipeline-state")
            .arg(LAUNCH)
            .arg(format!("/proc/{}/fd/{descriptor}", own.display()))
            .arg(spec.format)
            .arg("--")
            .args(&spec.command)
            .spawn()
            .map_err(|error| not_started(&error))?;
        Ok(WaitingChild { child, word: writer, _other_end: reader, _live_file: live_file })
    }

    fn acquire_for(
        &self,
        spec: &RunSpec,
        child: &Child,
        live_file: &Lifeline,
    ) -> Result<Vec<Acquired>> {
        let process = owner::self_and_ancestors(None, &self.env)?.process;
        let command = Identity::of(child.id())?;
        let Some(command) = command else {
            return Err(Error::new(Kind::CommandFailed, "the command was killed before it began"));
        };
        let words: Vec<_> = spec.command.iter().map(|word| word.to_string_lossy()).collect();
        let request = Request {
            names: spec.names.clone(),
            spec: RequestSpec {
                mode: spec.mode,
                purpose: Purpose::Hold,
                reentrancy: Reentrancy::Refused,
            },
            requester: Requester {
                ancestry: ancestry(command.pid)?,
                owner: command,
                explicit: false,
                process,
                env_tokens: self.env.tokens.clone(),
            },
            command: abridged(&words.join(" ")),
            deadline: spec.deadline,
            deadlocks: spec.deadlocks,
            metadata: None,
            ttl: None,
            live_file: Some(live_file.clone()),
        };
        self.acquire(&request)
    }
}

fn not_started(error: &std::io::Error) -> Error {
    Error::new(Kind::of_io(error), format!("the command cannot be started: {error}"))
        .hint_shell("ulimit -a", "see which limit was reached")
}
