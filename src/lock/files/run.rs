//! `lock run`: hold locks while a command runs.
//!
//! The record names the command, not this process, and does so before the command's first
//! instruction: this process starts a child that waits for a message (`process::launch`), records
//! its pid and start time, and only then lets it become the command. So killing this process does
//! not free a lock while the command works on, but killing the command does.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::AsFd as _;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};

use super::acquire::acquire;
use super::clean::remove_leftovers;
use super::gate::Gate;
use super::records;
use super::release::release;
use super::root::LockRoot;
use crate::error::{Error, Kind, Result};
use crate::fs::Locked;
use crate::lock::edit::Acquired;
use crate::lock::lifeline::{self, Lifeline};
use crate::lock::process::owner;
use crate::lock::process::waiting_child::{WaitingChild, not_started};
use crate::lock::request::Request;
use crate::lock::run::RunSpec;

/// The live file's descriptor gets this number or the next free one, if the limit allows.
const MIN_LIFELINE_FD: i32 = 100;
/// The time that giving the locks back may take.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(5);

/// A file that stays locked while any descriptor of it is open: the command and its children
/// inherit one.
struct CommandLifeline {
    name: Lifeline,
    file: File,
}

/// Runs a command while its locks are held; returns its exit status.
pub(in crate::lock) fn run(locks: &LockRoot, spec: &RunSpec) -> Result<ExitStatus> {
    let CommandLifeline { name, file } = CommandLifeline::create(locks, spec.deadline.at)?;
    let result = WaitingChild::start(spec, Some(file)).and_then(|waiting| {
        match acquire_for(locks, spec, waiting.id(), &name) {
            Ok(acquired) => {
                let ended = waiting.supervise(&acquired);
                give_back(locks, &acquired);
                ended
            }
            Err(error) => {
                waiting.abandon();
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

/// Gives the locks back when the command has ended, even if a child of it lives on.
fn give_back(locks: &LockRoot, acquired: &[Acquired]) {
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
}

fn acquire_for(
    locks: &LockRoot,
    spec: &RunSpec,
    child: u32,
    live_file: &Lifeline,
) -> Result<Vec<Acquired>> {
    let request = spec.request_for(child, &locks.env)?;
    acquire(locks, &Request { live_file: Some(live_file.clone()), ..request })
}
