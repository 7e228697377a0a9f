//! `lock run`: hold locks while a command runs.
//!
//! The record names the command, not this process, and does so before the command's first
//! instruction: this process starts a child that waits for a message (`process::launch`), records
//! its pid and start time, and only then lets it become the command. So killing this process does
//! not free a lock while the command works on, but killing the command does.

use std::ffi::OsString;
use std::fs::File;
use std::io::{PipeReader, PipeWriter, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};

use super::acquire::acquire;
use super::clean::remove_leftovers;
use super::gate::Gate;
use super::records;
use super::release::release;
use super::root::LockRoot;
use crate::child::Forwarder;
use crate::error::{Error, Kind, Result};
use crate::fs::Locked;
use crate::lock::edit::Acquired;
use crate::lock::identity::Identity;
use crate::lock::lifeline::{self, Lifeline};
use crate::lock::process::launch::LAUNCH;
use crate::lock::process::{abridged, ancestry, no_proc, owner};
use crate::lock::record::Mode;
use crate::lock::request::{Deadline, Deadlocks, Request, RequestSpec, Requester};
use crate::name::Name;
use crate::os::files::{own_program, path_for_child};

/// The live file's descriptor gets this number or the next free one, if the limit allows.
const MIN_LIFELINE_FD: i32 = 100;
/// The time that giving the locks back may take.
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
    message: PipeWriter,
    /// The child reopens this end; it must exist until then.
    _other_end: PipeReader,
    /// Kept until the command has ended, since a command may close all descriptors that it
    /// inherited.
    _live_file: File,
}

/// A file that stays locked while any descriptor of it is open: the command and its children
/// inherit one.
struct CommandLifeline {
    name: Lifeline,
    file: File,
}

/// Runs a command while its locks are held; returns its exit status.
pub(in crate::lock) fn run(locks: &LockRoot, spec: &RunSpec) -> Result<ExitStatus> {
    let CommandLifeline { name, file } = CommandLifeline::create(locks, spec.deadline.at)?;
    let result = WaitingChild::start(spec, file).and_then(|mut waiting| {
        match acquire_for(locks, spec, &waiting.child, &name) {
            Ok(acquired) => waiting.supervise(locks, &acquired),
            Err(error) => {
                let _ = waiting.child.kill();
                let _ = waiting.child.wait();
                Err(error)
            }
        }
    });
    if result.is_err()
        && let Ok(Some(dir)) = records::open(locks)
    {
        let _ = locks.disk.unlink(&dir, name.as_str()); // `lock clean` finds it
    }
    result
}

impl CommandLifeline {
    fn create(locks: &LockRoot, deadline: Instant) -> Result<Self> {
        let me = owner::self_and_ancestors(None, &locks.env)?.process;
        let name = Lifeline::of_command(&me)?;
        let gate = Gate::enter(locks, deadline)?; // so that no clean-up finds it unlocked
        let (disk, dir) = (&locks.disk, gate.records().dir);
        let is_command =
            |name: &OsString| name.to_str().is_some_and(|name| name.starts_with(lifeline::COMMAND));
        if disk.list(dir)?.iter().any(is_command) {
            remove_leftovers(gate.records(), None)?; // of processes that died without a record
        }
        let file = disk.open_or_make(dir, name.as_str())?.0;
        let path = dir.path_of(name.as_str());
        let Locked::Yes(file) = disk.lock(file, &path, Duration::ZERO)? else {
            let message = format!("another process has locked {}", path.display());
            return Err(Error::new(Kind::Internal, message));
        };
        // Scripts use the low numbers freely (`exec 3>log`) and would close it.
        let file = fcntl_dupfd_cloexec(&file, MIN_LIFELINE_FD).map_or(file, File::from);
        fcntl_setfd(file.as_fd(), FdFlags::empty()).map_err(|errno| not_started(&errno.into()))?;
        Ok(Self { name, file })
    }
}

impl WaitingChild {
    /// Starts the child, which inherits the live file.
    fn start(spec: &RunSpec, live_file: File) -> Result<Self> {
        let (reader, writer) = std::io::pipe().map_err(|error| not_started(&error))?;
        let program = own_program().map_err(|error| not_started(&error))?;
        let child = Command::new(program)
            .arg0("pipeline-state")
            .arg(LAUNCH)
            .arg(path_for_child(&reader).map_err(no_proc)?)
            .arg(spec.format)
            .arg("--")
            .args(&spec.command)
            .spawn()
            .map_err(|error| not_started(&error))?;
        Ok(Self { child, message: writer, _other_end: reader, _live_file: live_file })
    }

    /// Lets the child become the command, passes signals on, and releases the locks when it has
    /// ended, even if a child of the command lives on.
    fn supervise(mut self, locks: &LockRoot, acquired: &[Acquired]) -> Result<ExitStatus> {
        let signals = Forwarder::new();
        signals.begin(self.child.id());
        let tokens =
            acquired.iter().map(|Acquired { name, grant, .. }| format!("{name}:{}", grant.token));
        let message = tokens.collect::<Vec<_>>().join(",") + "\n";
        // A child that was killed before it could read this is waited for all the same.
        let _ = self.message.write_all(message.as_bytes());
        let ended = self.child.wait();
        drop(signals);
        for Acquired { name, grant, .. } in acquired {
            // The record is stale by now; if it cannot be removed, the next reader finds that out.
            let deadline = Instant::now() + RELEASE_TIMEOUT;
            let released = owner::self_and_ancestors(None, &locks.env).and_then(|requester| {
                let names = std::slice::from_ref(name);
                release(locks, names, Some(grant.token), &requester, deadline)
            });
            if let Err(error) = released {
                tracing::debug!(%error, "the lock was not there to be released");
            }
        }
        ended.map_err(|error| {
            Error::new(Kind::of_io(&error), format!("cannot wait for the command: {error}"))
        })
    }
}

fn acquire_for(
    locks: &LockRoot,
    spec: &RunSpec,
    child: &Child,
    live_file: &Lifeline,
) -> Result<Vec<Acquired>> {
    let process = owner::self_and_ancestors(None, &locks.env)?.process;
    let Some(command) = Identity::of(child.id())? else {
        return Err(Error::new(Kind::CommandFailed, "the command was killed before it began"));
    };
    let words: Vec<_> = spec.command.iter().map(|word| word.to_string_lossy()).collect();
    let requester = Requester {
        ancestry: ancestry(command.pid)?,
        owner: command,
        explicit: false,
        process,
        env_tokens: locks.env.tokens.clone(),
    };
    let hold = RequestSpec::hold(spec.mode);
    let request = Request::new(spec.names.clone(), hold, requester, spec.deadline);
    let request = Request {
        command: abridged(&words.join(" ")),
        deadlocks: spec.deadlocks,
        live_file: Some(live_file.clone()),
        ..request
    };
    acquire(locks, &request)
}

fn not_started(error: &std::io::Error) -> Error {
    Error::new(Kind::of_io(error), format!("the command cannot be started: {error}"))
        .hint_shell("ulimit -a", "see which limit was reached")
}
