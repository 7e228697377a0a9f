//! Facts about processes, and the end of one.

use std::process::{Child, Command, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use super::{Run, Trial, Tried, Trouble};
use crate::lock::Identity;
use crate::os::process::Ends;

/// A program that ends when it is killed, and not before.
const WAITS: [&str; 3] = ["/bin/sh", "-c", "read line"];
/// The time within which something that has happened must be reported.
const AT_ONCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

impl Run<'_> {
    pub(super) fn try_processes(&mut self) {
        self.answer(Trial::StartTime, None, |_| start_time());
        self.answer(Trial::ChildEnd, None, |_| child_end());
    }
}

/// This process has the same identity at each look.
fn start_time() -> Tried {
    let look = || Identity::of(std::process::id());
    match (look()?, look()?) {
        (Some(one), Some(other)) if one.is(&other) => Ok(()),
        (Some(_), Some(_)) => {
            Err(Trouble::Lies("the start time of this process changes".to_owned()))
        }
        _ => Err(Trouble::Lies("this process is not shown".to_owned())),
    }
}

fn child_end() -> Tried {
    let [program, arguments @ ..] = WAITS;
    let spawned = Command::new(program)
        .args(arguments)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => return Err(Trouble::NotTried(format!("no {program}: {error}"))),
    };
    let tried = is_end_seen(&mut child);
    let _ = child.kill();
    let _ = child.wait();
    tried
}

fn is_end_seen(child: &mut Child) -> Tried {
    let mut ends = Ends::default();
    if !ends.add(child.id()) {
        return Err(Trouble::Lies("no process can be watched".to_owned()));
    }
    let not_tried = |error: std::io::Error| Trouble::NotTried(error.to_string());
    child.kill().map_err(not_tried)?;
    // Until it has ended, and not yet reaped: what follows does not depend on its speed.
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    if let Some(pid) = pid {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        waitid(WaitId::Pid(pid), options).map_err(|errno| not_tried(errno.into()))?;
    }
    let watched = ends.descriptors().map(|end| PollFd::from_borrowed_fd(end, PollFlags::IN));
    is_reported(watched.collect())
}

/// Returns whether one of these is readable: what it reports has happened already.
pub(super) fn is_reported(mut watched: Vec<PollFd<'_>>) -> Tried {
    match poll(&mut watched, Some(&AT_ONCE)) {
        Ok(0) => Err(Trouble::Lies("it was not reported within 0.1 s".to_owned())),
        Ok(_) => Ok(()),
        Err(errno) => Err(Trouble::NotTried(errno.to_string())),
    }
}
