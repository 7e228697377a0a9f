//! The author of a journal's line: the script that a command acts for.

use std::time::SystemTime;

use super::identity::Namespace;
use super::process::Process;
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
