//! The author of a journal's line: the script that a command acts for.

use std::time::SystemTime;

use super::identity::{BootMatch, Identity, Namespace};
use super::process::Process;
use super::record::Grant;
use super::request::Request;
use crate::journal::event::Party;
use crate::journal::{Origin, Owner};
use crate::time::rfc3339_millis;

/// The origin of an event that this process causes now for the process `owner`; 0 where that is
/// not in this pid namespace.
pub fn origin(now: SystemTime, owner: u32) -> Origin {
    let process = (owner != 0).then(|| Process::of(owner).ok()).flatten();
    let (program, start) =
        process.map_or_else(Default::default, |process| (process.name, Some(process.start)));
    of(now, Owner { pid: owner, start, program, ..Owner::default() })
}

fn of(now: SystemTime, owner: Owner) -> Origin {
    let owner = Owner { uid: crate::user::current(), host: Namespace::host_name(), ..owner };
    Origin { time: rfc3339_millis(now), pid: std::process::id(), owner }
}

/// The origin of an event that this process causes now for the owner of a request. The command of
/// `lock run` has yet to begin, so its name is that of its command line.
pub(super) fn origin_of(now: SystemTime, request: &Request) -> Origin {
    let owner = &request.requester.owner;
    let program = match request.live_file {
        Some(_) => program_in(&request.command),
        None => name_of(owner).unwrap_or_else(|| program_in(&request.command)),
    };
    of(now, Owner { pid: owner.pid, start: Some(owner.start), program, ..Owner::default() })
}

/// The owner of a grant.
pub(super) fn party(grant: &Grant) -> Party {
    let named = grant.owner.as_ref().map(|owner| party_of(owner, &grant.command));
    Party { token: Some(grant.token.get()), ..named.unwrap_or_default() }
}

/// An owner as a record names it.
pub(super) fn party_of(owner: &Identity, command: &str) -> Party {
    Party {
        pid: Some(owner.pid),
        program: name_of(owner).unwrap_or_else(|| program_in(command)),
        host: owner.namespace.host.clone(),
        token: None,
    }
}

/// The name of a process that runs here.
fn name_of(process: &Identity) -> Option<String> {
    let here = Namespace::here().ok()?;
    let is_here = process.namespace.pid_namespace == here.pid_namespace
        && here.compare_boot(&process.namespace.boot) != BootMatch::Different;
    let found = is_here.then(|| Process::of(process.pid).ok()).flatten();
    found.filter(|found| found.start == process.start).map(|found| found.name)
}

/// The name of the program in a command line.
fn program_in(command: &str) -> String {
    let file = command.split(' ').next().unwrap_or_default();
    file.rsplit('/').next().unwrap_or_default().to_owned()
}
