//! Messages about locks: what blocks a request, and why it is refused.

use std::time::Duration;

use serde_json::json;

use super::LOCKS;
use super::liveness::{Liveness, LivenessProbe};
use super::process::Identity;
use super::queue::Blocker;
use super::record::{Grant, Mode, Purpose};
use super::request::Request;
use crate::error::{Error, Kind};
use crate::name::Name;

/// A blocker of a request, for messages.
#[derive(Clone, Debug)]
pub struct BlockerInfo {
    /// The lock that it blocks.
    pub lock: Name,
    /// Its process id, if it is known.
    pub pid: Option<u32>,
    /// Its liveness, as far as this process can find out.
    pub liveness: Liveness,
    /// Its description: `held by 123 (bash deploy.sh) since …`.
    pub words: String,
    /// Its ID, if it is a waiter.
    pub waiter: Option<String>,
}

impl BlockerInfo {
    /// Describes a blocker of this lock.
    pub fn new(lock: &Name, blocker: &Blocker<'_>, judge: &LivenessProbe<'_>) -> Self {
        let liveness;
        let mut id = None;
        let (pid, words) = match blocker {
            Blocker::Holder(grant) => {
                let shared = if grant.mode == Mode::Shared { ", shared," } else { "" };
                let pid = grant.owner.as_ref().map(|owner| owner.pid);
                liveness = judge.grant(grant);
                let place =
                    grant.owner.as_ref().filter(|owner| judge.process(owner) == Liveness::Unknown);
                let place = place.map_or_else(String::new, |owner| {
                    format!(", in {},", judge.describe_namespace(owner))
                });
                (pid, format!("held by {}{place}{shared} since {}", holder(grant), grant.since))
            }
            Blocker::Waiter(waiter) => {
                let who = describe_process(waiter.owner.pid, &waiter.command);
                liveness = judge.waiting_process(waiter);
                id = waiter.lifeline.as_ref().map(|lifeline| lifeline.id().to_owned());
                let is_elsewhere = judge.process(&waiter.process) == Liveness::Unknown;
                let place = is_elsewhere
                    .then(|| format!(", in {},", judge.describe_namespace(&waiter.process)));
                let place = place.unwrap_or_default();
                (
                    Some(waiter.owner.pid),
                    format!("wanted earlier by {who}{place} since {}", waiter.since),
                )
            }
        };
        Self { lock: lock.clone(), pid, liveness, words, waiter: id }
    }
}

/// Describes a process: `123 (bash deploy.sh)`, its command cut to fit a line.
pub fn describe_process(pid: u32, command: &str) -> String {
    format!("{pid} ({})", shorten(command))
}

/// A command line, cut to fit a line of text.
pub fn shorten(command: &str) -> String {
    const LONGEST: usize = 48;
    if command.chars().count() <= LONGEST {
        return command.to_owned();
    }
    command.chars().take(LONGEST - 1).chain(['…']).collect()
}

/// Describes a holder.
pub fn holder(grant: &Grant) -> String {
    match (&grant.owner, &grant.quarantined) {
        (Some(owner), _) => describe_process(owner.pid, &grant.command),
        (None, Some(kept)) => {
            format!("nobody knows whom (its record was damaged and is {LOCKS}/{kept})")
        }
        (None, None) => "nobody knows whom".to_owned(),
    }
}

/// Lists what blocks a request: `deploy: held by 123 (bash deploy.sh) since …`.
pub fn describe_blockers(in_the_way: &[BlockerInfo]) -> String {
    let mut shown: Vec<String> =
        in_the_way.iter().take(3).map(|one| format!("{}: {}", one.lock, one.words)).collect();
    if in_the_way.len() > 3 {
        shown.push(format!("and {} more", in_the_way.len() - 3));
    }
    shown.join("; ")
}

/// The error of a wait that took too long.
pub fn timed_out(request: &Request, in_the_way: &[BlockerInfo], waited: Duration) -> Error {
    let why = describe_blockers(in_the_way);
    let message = match request.spec.purpose {
        Purpose::Hold => {
            format!(
                "not acquired within {:.1} s: {why}",
                request.deadline.waiter_state.as_secs_f64()
            )
        }
        Purpose::Commit => {
            format!("the state is locked: waited {:.1} s for {why}", waited.as_secs_f64())
        }
    };
    let blockers = in_the_way
        .iter()
        .map(|one| json!({"lock": one.lock.as_str(), "pid": one.pid, "how": one.words}));
    let error = Error::new(Kind::LockTimeout, message)
        .detail("locks", request.names.iter().map(Name::as_str).collect::<Vec<_>>())
        .detail("blockedBy", blockers.collect::<Vec<_>>())
        .detail("waited", waited.as_secs_f64());
    match in_the_way.iter().find(|one| one.liveness == Liveness::Unknown) {
        Some(BlockerInfo { waiter: Some(id), .. }) => error.hint_command(
            format!("lock break --waiter {id}"),
            "it cannot be told from here whether that waiter lives; once you are sure that it does not",
        ),
        Some(unknown) => {
            let why = "it cannot be told from here whether the holder lives; once you are sure that it does not";
            error.hint_command(format!("lock break {} --force", unknown.lock), why)
        }
        None => error.hint_command("lock list", "see who holds what and who waits; or wait longer next time"),
    }
}

/// The error of a request for a lock that its owner, or an ancestor, holds.
pub fn already_held(name: &Name, own: &Grant, request: &Request) -> Error {
    let is_owners = own.owner.as_ref().is_some_and(|owner| owner.is(&request.requester.owner));
    let by =
        if is_owners { "this owner".to_owned() } else { format!("an ancestor, {}", holder(own)) };
    let Grant { token, mode, since, .. } = own;
    let message = format!("{name} is held already by {by}: {mode}, token {token}, since {since}");
    let error = Error::new(Kind::AlreadyHeld, message);
    let error = match (is_owners, &request.live_file) {
        // A command of `lock run` is a new owner, so the grant is the script's.
        (_, Some(_)) => {
            error.hint_command("lock list", "what it holds already need not be taken again")
        }
        (true, None) => error.hint_command(
            format!("lock release {name} --token {token}"),
            "give it back; or take it once more with --reentrant",
        ),
        (false, None) => error.hint_command(
            format!("lock acquire {name} --reentrant"),
            "take it once more, and release it as often",
        ),
    };
    error
        .detail("lock", name.as_str())
        .detail("token", token.get())
        .detail("mode", mode.name())
        .detail("owner", own.owner.as_ref().map(|owner| owner.pid))
        .caused_by(AlreadyHeld { lock: name.clone(), grant: own.clone() })
}

/// The grant that the owner, or an ancestor, holds already.
#[derive(Debug, thiserror::Error)]
#[error("{lock} is held already")]
pub struct AlreadyHeld {
    /// The lock.
    pub lock: Name,
    /// The grant.
    pub grant: Grant,
}

/// The error of a request that times out on a commit under way, with the grant that it holds
/// already.
pub fn with_late_drain(mut late: Error, already_held: Error) -> Error {
    late.message = format!("{}; {}", late.message, already_held.message);
    late.hints.extend(already_held.hints);
    late.detail("held", *already_held.details)
}

/// The error of a wait that an operator ended.
pub fn broken(request: &Request) -> Error {
    let names = listed(&request.names);
    let message = match request.spec.purpose {
        Purpose::Hold => format!(
            "an operator ended the wait for {names} (lock break --waiter); nothing was acquired"
        ),
        Purpose::Commit => {
            format!(
                "an operator ended the wait for {names} (lock break --waiter); nothing was committed"
            )
        }
    };
    Error::new(Kind::Broken, message)
        .hint_command("lock list", "see who holds what and who waits")
        .detail("locks", request.names.iter().map(Name::as_str).collect::<Vec<_>>())
}

/// The error of a request after its owner has ended.
pub fn owner_ended(owner: &Identity, names: &[Name]) -> Error {
    let message = format!("process {}, which was to own the lock, has ended", owner.pid);
    let command = format!("lock acquire {} --owner-pid $$", listed(names));
    Error::new(Kind::NotOwner, message).hint_command(command, "name a process that lives on")
}

/// Names as they are typed.
pub(super) fn listed(names: &[Name]) -> String {
    names.iter().map(Name::as_str).collect::<Vec<_>>().join(",")
}
