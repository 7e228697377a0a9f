//! `lock run`: hold locks while a command runs.
//!
//! The record names the command, not this process, and does so before the command's first instruction: a child is started
//! that waits for word ([`super::launch`]), its pid and start time go on record, and only then it becomes the command. So
//! killing this process does not free a lock whose work goes on, and killing the command does.

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
use super::process::{Identity, abridged, lineage, no_proc};
use super::queue::{Again, Ask, Asker};
use super::record::{Mode, Purpose};
use super::request::{Deadline, Deadlocks, Request};
use crate::child::Forwarder;
use crate::error::{Error, Kind, Result};
use crate::fs::Locked;
use crate::name::Name;

/// The descriptor of that file has this number or the next free one, where so many are allowed.
const OUT_OF_THE_WAY: i32 = 100;
/// How long giving the locks back may take.
const GIVING_BACK: Duration = Duration::from_secs(5);

/// What to run under which locks.
#[derive(Clone, Debug)]
pub struct Job {
    /// The locks.
    pub names: Vec<Name>,
    /// How they are held.
    pub mode: Mode,
    /// For how long to wait for them.
    pub deadline: Deadline,
    /// What becomes of a deadlock.
    pub deadlocks: Deadlocks,
    /// The command: a program and its arguments.
    pub command: Vec<OsString>,
    /// How it looks when the child tells that there is no such program.
    pub format: &'static str,
}

/// A child that waits for word to become the command. Without a word, because this process died or gave up, it ends.
struct Candidate {
    child: Child,
    word: PipeWriter,
    /// The child opens this end anew, by way of /proc; it must be there until then.
    _other_end: PipeReader,
    /// Kept until the command has ended, for a command may close all that it inherited.
    _live_file: File,
}

impl Locks {
    /// Runs a command while its locks are held; how it ended.
    pub fn run(&self, job: &Job) -> Result<ExitStatus> {
        let (name, live_file) = self.live_file(job.deadline.at)?;
        let result =
            self.start(job, live_file).and_then(|mut candidate| match self.acquire_for(job, &candidate.child, &name) {
                Ok(acquired) => self.oversee(candidate, &acquired),
                Err(error) => {
                    let _ = candidate.child.kill();
                    let _ = candidate.child.wait();
                    Err(error)
                }
            });
        if result.is_err()
            && let Ok(Some(dir)) = self.dir()
        {
            let _ = self.disk.unlink(&dir, name.as_str()); // `lock clean` finds it
        }
        result
    }

    /// Lets the child become the command, passes signals on, and gives the locks back when it has ended, even if a child of
    /// the command lives on.
    fn oversee(&self, mut candidate: Candidate, acquired: &[Acquired]) -> Result<ExitStatus> {
        let signals = Forwarder::new();
        signals.begin(candidate.child.id());
        let tokens = acquired.iter().map(|Acquired { name, grant, .. }| format!("{name}:{}", grant.token));
        let word = tokens.collect::<Vec<_>>().join(",") + "\n";
        // A child that was killed before it could read this is waited for all the same.
        let _ = candidate.word.write_all(word.as_bytes());
        let ended = candidate.child.wait();
        drop(signals);
        for Acquired { name, grant, .. } in acquired {
            // The record is stale by now; if it cannot be removed, whoever looks next sees that.
            let asker = owner::anybody(None, &self.claim);
            let deadline = Instant::now() + GIVING_BACK;
            let released =
                asker.and_then(|asker| self.release(std::slice::from_ref(name), Some(grant.token), &asker, deadline));
            if let Err(error) = released {
                tracing::debug!(%error, "the lock was not there to be released");
            }
        }
        ended.map_err(|error| Error::new(Kind::of_io(&error), format!("cannot wait for the command: {error}")))
    }

    /// A file that is locked while any descriptor of it is open: the command and its children inherit one.
    fn live_file(&self, deadline: Instant) -> Result<(Lifeline, File)> {
        let me = owner::anybody(None, &self.claim)?.process;
        // Containers that start together give their processes the same ids at the same time.
        let boot = me.place.boot.split('-').next().unwrap_or_default();
        let name = format!("{}{}-{}-{}-{boot}", lifeline::COMMAND, me.pid, me.start, me.place.pid_namespace);
        let lifeline =
            Lifeline::parse(&name).ok_or_else(|| Error::new(Kind::Internal, format!("{name} names no lifeline")))?;
        let gate = self.gate(deadline)?; // so that nobody who clears up meets it unlocked
        if self
            .disk
            .list(gate.dir())?
            .iter()
            .any(|name| name.to_str().is_some_and(|name| name.starts_with(lifeline::COMMAND)))
        {
            self.clear_leftovers(gate.dir(), None)?; // of those that were killed before they had a record
        }
        let file = self.disk.open_or_make(gate.dir(), &name)?.0;
        let path = gate.dir().path_of(&name);
        let Locked::Yes(file) = self.disk.lock(file, &path, Duration::ZERO)? else {
            return Err(Error::new(Kind::Internal, format!("{} is locked by somebody else", path.display())));
        };
        // Scripts write to the low numbers without asking (`exec 3>log`) and would close it.
        let out_of_the_way = fcntl_dupfd_cloexec(&file, OUT_OF_THE_WAY).map_or(file, File::from);
        fcntl_setfd(out_of_the_way.as_fd(), FdFlags::empty()).map_err(|errno| not_started(&errno.into()))?;
        Ok((lifeline, out_of_the_way))
    }

    /// Starts the child, which inherits the live file.
    fn start(&self, job: &Job, live_file: File) -> Result<Candidate> {
        let (reader, writer) = std::io::pipe().map_err(|error| not_started(&error))?;
        // The number that /proc has this process under, which need not be its pid: see super::process.
        let own = std::fs::read_link("/proc/self").map_err(no_proc)?;
        let descriptor = reader.as_raw_fd();
        let child = Command::new("/proc/self/exe")
            .arg0("pipeline-state")
            .arg(LAUNCH)
            .arg(format!("/proc/{}/fd/{descriptor}", own.display()))
            .arg(job.format)
            .arg("--")
            .args(&job.command)
            .spawn()
            .map_err(|error| not_started(&error))?;
        Ok(Candidate { child, word: writer, _other_end: reader, _live_file: live_file })
    }

    fn acquire_for(&self, job: &Job, child: &Child, live_file: &Lifeline) -> Result<Vec<Acquired>> {
        let process = owner::anybody(None, &self.claim)?.process;
        let command = Identity::of(child.id())?;
        let Some(command) = command else {
            return Err(Error::new(Kind::CommandFailed, "the command was killed before it began"));
        };
        let words: Vec<_> = job.command.iter().map(|word| word.to_string_lossy()).collect();
        let request = Request {
            names: job.names.clone(),
            ask: Ask { mode: job.mode, purpose: Purpose::Hold, again: Again::Refused },
            asker: Asker {
                lineage: lineage(command.pid)?,
                owner: command,
                is_named: false,
                process,
                shown: self.claim.shown.clone(),
            },
            command: abridged(&words.join(" ")),
            deadline: job.deadline,
            deadlocks: job.deadlocks,
            metadata: None,
            ttl: None,
            live_file: Some(live_file.clone()),
        };
        self.acquire(&request)
    }
}

fn not_started(error: &std::io::Error) -> Error {
    Error::new(Kind::of_io(error), format!("the command cannot be started: {error}"))
        .try_shell("ulimit -a", "see which limit was reached")
}
