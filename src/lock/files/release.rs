//! Gives locks back, and renews those that have a time to live.

use std::time::{Duration, Instant};

use super::events::{Happened, Waits};
use super::gate::Gate;
use super::load::{load, load_all};
use super::records::{self, Records};
use super::root::LockRoot;
use super::tokens;
use crate::error::{Error, Kind, Result};
use crate::fs::Dir;
use crate::journal::event::LockStep;
use crate::lock::author::origin;
use crate::lock::layout::LOCKS;
use crate::lock::liveness::unix_seconds;
use crate::lock::record::Token;
use crate::lock::release::{Operation, Released, Selection, check_ancestry, release_one};
use crate::lock::request::Requester;
use crate::name::Name;

/// Gives locks back, all or none: the grants of the requester or its nearest ancestor, or the one
/// with this token.
pub(in crate::lock) fn release(
    locks: &LockRoot,
    names: &[Name],
    token: Option<Token>,
    requester: &Requester,
    deadline: Instant,
) -> Result<Vec<Released>> {
    let selection = Selection { operation: Operation::Release, token, requester };
    require_locks(locks, names, selection)?;
    let gate = Gate::enter(locks, deadline)?;
    let mut edits = load_all(&gate, names)?;
    let probe = gate.records().probe()?;
    let released: Vec<Released> = edits
        .iter_mut()
        .map(|edit| release_one(edit, token, requester, &probe))
        .collect::<Result<_>>()?;
    check_ancestry(&released, token, requester)?;
    let gone = released.iter().filter(|released| released.left == 0);
    let steps = gone.map(|one| Happened::to_grant(&one.name, LockStep::Released, &one.grant));
    // The script that held them, unless the caller only showed the token.
    let owner = released.iter().filter_map(|one| one.grant.owner.as_ref()).next();
    let author = || match owner {
        Some(owner) if requester.ancestry.iter().any(|one| one.is(owner)) => {
            origin(locks.disk.now(), owner.pid)
        }
        _ => locks.author(),
    };
    gate.commit(&edits, author, steps.collect(), &Waits::default())?;
    let dir = gate.leave();
    for Released { name, grant, left } in &released {
        let text = if *left == 0 { "released" } else { "counted down" };
        locks.log.record(locks.log.grant("release", text, name, grant));
    }
    // No waiter waits for this command any more.
    tokens::reserve_ahead(Records { locks, dir: &dir }, deadline);
    Ok(released)
}

/// Renews a grant's time to live, counted from now; returns its end, in seconds since 1970.
pub(in crate::lock) fn renew(
    locks: &LockRoot,
    name: &Name,
    ttl: Option<Duration>,
    token: Option<Token>,
    requester: &Requester,
    deadline: Instant,
) -> Result<f64> {
    let selection = Selection { operation: Operation::Renew, token, requester };
    require_locks(locks, std::slice::from_ref(name), selection)?;
    let gate = Gate::enter(locks, deadline)?;
    let mut edit = load(&gate, name)?;
    let grant = selection.grant(&edit, &gate.records().probe()?)?;
    let Some(ttl) = ttl.map(|ttl| ttl.as_secs_f64()).or(grant.ttl) else {
        let message = format!("{name} was acquired without --ttl; say for how long");
        return Err(Error::new(Kind::Usage, message)
            .hint_command(format!("lock renew {name} --ttl 10m"), "give it one"));
    };
    let expires = unix_seconds(locks.disk.now()) + ttl;
    for held in edit.record.holders.iter_mut().filter(|held| held.token == grant.token) {
        held.ttl = Some(ttl);
        held.expires = Some(expires);
    }
    gate.store(std::slice::from_ref(&edit))?;
    drop(gate);
    locks.log.record(locks.log.grant("renew", "renewed", name, &grant));
    Ok(expires)
}

/// Refuses if there are no locks at all, without creating the directory of locks.
fn require_locks(locks: &LockRoot, names: &[Name], selection: Selection<'_>) -> Result<()> {
    let path = locks.directory.join(LOCKS);
    if locks.disk.stat(&Dir::working(), path).is_ok_and(|found| found.is_some()) {
        return Ok(()); // the gate will check what it is
    }
    match (records::open(locks)?, names.first()) {
        (None, Some(name)) => Err(selection.not_held(name)),
        _ => Ok(()),
    }
}
