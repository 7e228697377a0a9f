//! The refusals of requests.

use std::time::Duration;

use serde_json::json;

use super::describe::{BlockerInfo, Blockers, describe_holder, join};
use super::edit::BreakTarget;
use super::lifeline::Lifeline;
use super::liveness::Liveness;
use super::record::{Grant, Purpose};
use super::request::Request;
use crate::error::{Error, Kind};
use crate::name::Name;

/// A lock that the requester's owner, or an ancestor, holds already: the cause of such a refusal.
#[derive(Debug, thiserror::Error)]
#[error("{lock} is held already")]
pub struct AlreadyHeld {
    /// The lock.
    pub lock: Name,
    /// The grant.
    pub grant: Grant,
}

/// The error of a request that times out on a commit under way, although the lock is held already.
pub(super) fn undrained(late: Error, held: Error) -> Error {
    let message = format!("{}; {}", late.message, held.message);
    let mut error = Error { message, ..late };
    error.hints.extend(held.hints);
    error.detail("held", *held.details)
}

/// The error of a request for a lock that its owner, or an ancestor, holds.
pub(super) fn already_held(name: &Name, own: &Grant, request: &Request) -> Error {
    let is_owners = own.owner.as_ref().is_some_and(|owner| owner.is(&request.requester.owner));
    let by = match is_owners {
        true => "this owner".to_owned(),
        false => format!("an ancestor, {}", describe_holder(own)),
    };
    let Grant { token, mode, since, .. } = own;
    let message = format!("{name} is held already by {by}: {mode}, token {token}, since {since}");
    let error = Error::new(Kind::AlreadyHeld, message);
    let error = match (is_owners, &request.live_file) {
        // A command of `lock run` is a new owner, so the grant is the script's.
        (_, Some(_)) => {
            error.hint_command("lock list", "what it holds already need not be acquired again")
        }
        (true, None) => error.hint_command(
            format!("lock release {name} --token {token}"),
            "release it; or acquire it once more with --reentrant",
        ),
        (false, None) => error.hint_command(
            format!("lock acquire {name} --reentrant"),
            "acquire it once more, and release it as often",
        ),
    };
    error
        .detail("lock", name.as_str())
        .detail("token", token.get())
        .detail("mode", mode.name())
        .detail("owner", json!(own.owner_view()))
        .caused_by(AlreadyHeld { lock: name.clone(), grant: own.clone() })
}

/// The error of a wait that took too long.
pub(super) fn timed_out(request: &Request, blockers: &Blockers, waited: Duration) -> Error {
    let why = blockers.to_string();
    let message = match request.spec.purpose {
        Purpose::Hold => {
            format!("not acquired within {:.1} s: {why}", request.deadline.timeout.as_secs_f64())
        }
        Purpose::Commit => {
            format!("the state is locked: waited {:.1} s for {why}", waited.as_secs_f64())
        }
    };
    let blocked_by = blockers
        .named
        .iter()
        .map(|one| json!({"lock": one.lock.as_str(), "owner": one.owner_view(), "how": one.text}));
    let error = Error::new(Kind::LockTimeout, message)
        .detail("locks", request.names.iter().map(Name::as_str).collect::<Vec<_>>())
        .detail("blocked_by", blocked_by.collect::<Vec<_>>())
        .detail("waited", waited.as_secs_f64());
    match blockers.named.iter().find(|one| one.liveness == Liveness::Unknown) {
        Some(BlockerInfo { waiter: Some(id), .. }) => error.hint_command(
            format!("lock break --waiter {id}"),
            "once you know that this waiter is dead, which cannot be seen from here",
        ),
        Some(unknown) => error.hint_command(
            format!("lock break {} --force", unknown.lock),
            "once you know that the holder is dead, which cannot be seen from here",
        ),
        None => error.hint_command("lock list", "list holders and waiters; or wait longer"),
    }
}

/// The error of a wait that an operator ended.
pub(super) fn broken(request: &Request) -> Error {
    let names = join(&request.names);
    let nothing = match request.spec.purpose {
        Purpose::Hold => "acquired",
        Purpose::Commit => "committed",
    };
    let message = format!(
        "an operator ended the wait for {names} (lock break --waiter); nothing was {nothing}"
    );
    Error::new(Kind::Broken, message)
        .hint_command("lock list", "list holders and waiters")
        .detail("locks", request.names.iter().map(Name::as_str).collect::<Vec<_>>())
}

/// The error of a request of an owner that has ended.
pub(super) fn owner_ended(request: &Request) -> Error {
    let pid = request.requester.owner.pid;
    let message = format!("process {pid}, which was to own the lock, has ended");
    let command = format!("lock acquire {} --owner-pid $$", join(&request.names));
    Error::new(Kind::NotOwner, message).hint_command(command, "name a process that lives on")
}

/// The error of an operator's request to take away a grant that is not there.
pub(super) fn nothing_to_break(name: &Name, target: BreakTarget) -> Error {
    let what = match target {
        BreakTarget::Token(token) => format!("held by token {token}"),
        BreakTarget::All => "held".to_owned(),
    };
    let why = "list the tokens of grants and the IDs of waiters (lock break --waiter ID)";
    Error::new(Kind::NotFound, format!("{name} is not {what}; nothing was broken"))
        .hint_command("lock list", why)
        .detail("lock", name.as_str())
}

/// The error of an operator's request to end a wait that is not there.
pub(super) fn no_waiter(lifeline: &Lifeline) -> Error {
    let message = format!("no waiter has the ID {}; nothing was broken", lifeline.id());
    Error::new(Kind::NotFound, message)
        .hint_command("lock list", "list the waiters with their IDs")
        .detail("waiter", lifeline.id())
}
