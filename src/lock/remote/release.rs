//! Gives locks back, and renews their leases.

use std::time::Duration;

use super::encoding::{Held, grant_value};
use super::ground::Ground;
use super::keeper_process::{Keeping, keep};
use super::lost::{check_nearer, forget, lost_grant};
use super::oracle::ClusterOracle;
use super::owner::{lease_of, name_of, ttl_of};
use super::{RemoteLocks, failed, new_change};
use crate::error::{Error, Kind, Result};
use crate::etcd::messages::{Compare, RequestOp, TxnRequest};
use crate::etcd::txn::{Keys, created_at, delete, put_at, put_with_lease};
use crate::lock::edit::{Acquired, RecordEdit};
use crate::lock::identity::Identity;
use crate::lock::liveness::{Liveness, LivenessOracle as _, unix_seconds};
use crate::lock::record::{Grant, Token};
use crate::lock::release::{Operation, Released, Selection, check_ancestry, release_one};
use crate::lock::request::Requester;
use crate::name::Name;

/// Gives locks back, all or none: the grants of the requester or its nearest ancestor, or the one
/// with this token.
pub(super) fn release(
    locks: &RemoteLocks,
    names: &[Name],
    token: Option<Token>,
    requester: &Requester,
) -> Result<Vec<Released>> {
    let change = new_change()?;
    let mut ground = Ground::observe(locks, names, None)?;
    loop {
        let oracle = ClusterOracle::new()?;
        let mut edits = ground.edits(names);
        let released = edits
            .iter_mut()
            .map(|edit| release_one(edit, token, requester, &oracle))
            .collect::<Result<Vec<_>>>()
            .map_err(|error| {
                lost_grant(locks, names, token, requester, &ground).unwrap_or(error)
            })?;
        check_ancestry(&released, token, requester)?;
        for Released { name, grant, .. } in released.iter().filter(|_| token.is_none()) {
            check_nearer(locks, name, grant, requester, &ground)?;
        }
        let again = locks.keys.ranges(names).into_iter().map(RequestOp::from).collect();
        let mut request = TxnRequest { failure: again, ..TxnRequest::default() };
        for Released { name, grant, left } in &released {
            let now = (*left > 0).then(|| Grant { count: *left, ..grant.clone() });
            put_back(&ground, name, grant.token, now.as_ref(), &change, &mut request)?;
        }
        let answer = locks.client.commit(&request);
        let answer = answer.map_err(|failure| failed(failure, names, "released"))?;
        let is_done = answer.succeeded || {
            ground = Ground::of(&locks.keys, answer)?;
            released.iter().all(|one| is_released(&ground, one, &change))
        };
        if is_done {
            for Released { name, grant, left } in &released {
                let text = if *left == 0 { "released" } else { "counted down" };
                locks.log.record(locks.log.grant("release", text, name, grant));
            }
            let gone = released.iter().filter(|one| one.left == 0);
            let gone: Vec<_> = gone.map(|one| (one.name.clone(), one.grant.token)).collect();
            forget(locks, requester, &gone);
            return Ok(released);
        }
    }
}

/// Returns whether a grant that was to be given back is, perhaps by an earlier attempt whose answer
/// was lost.
fn is_released(ground: &Ground, released: &Released, change: &str) -> bool {
    let held = ground.held(&released.name, released.grant.token);
    held.is_none_or(|held| released.left > 0 && held.change == change)
}

/// Adds to a transaction that a grant becomes `now`, or goes.
fn put_back(
    ground: &Ground,
    name: &Name,
    token: Token,
    now: Option<&Grant>,
    change: &str,
    request: &mut TxnRequest,
) -> Result<()> {
    let Some(held) = ground.held(name, token) else { return Ok(()) };
    request.compare.push(put_at(held.key.clone(), held.put_at));
    request.success.push(match now {
        Some(grant) => put_with_lease(held.key.clone(), grant_value(grant, change)?, held.lease),
        None => delete(&Keys::one(held.key.clone())),
    });
    Ok(())
}

/// Gives grants back, all at once or none. One that changed the mode of another leaves that mode
/// again, under a token of its own.
pub(super) fn give_back(locks: &RemoteLocks, acquired: &[Acquired]) -> Result<()> {
    let names: Vec<Name> = acquired.iter().map(|one| one.name.clone()).collect();
    let (ground, change) = (Ground::observe(locks, &names, None)?, new_change()?);
    let mut request = TxnRequest::default();
    for Acquired { name, grant, before } in acquired {
        put_back(&ground, name, grant.token, before.as_ref(), &change, &mut request)?;
    }
    locks.client.commit(&request).map_err(|failure| failed(failure, &names, "given back"))?;
    for Acquired { name, grant, .. } in acquired {
        locks.log.record(locks.log.grant("acquire", "given back", name, grant));
    }
    Ok(())
}

/// Renews a grant's lease, or gives the grant one of another time to live; returns its end if
/// nothing renews it again, in seconds since 1970.
pub(super) fn renew(
    locks: &RemoteLocks,
    name: &Name,
    ttl: Option<Duration>,
    token: Option<Token>,
    requester: &Requester,
) -> Result<f64> {
    let names = std::slice::from_ref(name);
    let ground = Ground::observe(locks, names, None)?;
    let selection = Selection { operation: Operation::Renew, token, requester };
    let edit = RecordEdit::new(name, ground.record(name.as_str()));
    let oracle = ClusterOracle::new()?;
    let found = selection.grant(&edit, &oracle);
    let lost = |error| lost_grant(locks, names, token, requester, &ground).unwrap_or(error);
    let grant = found.map_err(lost)?;
    if token.is_none() {
        check_nearer(locks, name, &grant, requester, &ground)?;
    }
    let Some(held) = ground.held(name, grant.token) else { return Err(selection.not_held(name)) };
    let now = locks.now();
    let left = match ttl.map(|ttl| ttl_of(locks, Some(ttl))).transpose()? {
        Some(ttl) if grant.ttl != Some(ttl.as_secs_f64()) => {
            let owner = grant.owner.as_ref().filter(|one| oracle.process(one) == Liveness::Alive);
            let Some(owner) = owner else { return Err(on_another_host(name)) };
            move_to(locks, name, held, owner, ttl)?;
            Some(ttl)
        }
        _ => locks.client.renew(held.lease)?,
    };
    let Some(left) = left else { return Err(selection.not_held(name)) };
    locks.log.record(locks.log.grant("renew", "renewed", name, &grant));
    Ok(unix_seconds(now) + left.as_secs_f64())
}

/// Gives a grant the lease of its owner that has this time to live. Its token stays.
fn move_to(
    locks: &RemoteLocks,
    name: &Name,
    held: &Held,
    owner: &Identity,
    ttl: Duration,
) -> Result<()> {
    let grant = Grant { ttl: Some(ttl.as_secs_f64()), ..held.grant.clone() };
    let key = locks.keys.owner(&name_of(owner, ttl));
    let names = std::slice::from_ref(name);
    let found = Ground::observe(locks, &[], Some(&key))?;
    let lease = lease_of(locks, owner, &grant.command, ttl, found.other(&key))?;
    let request = TxnRequest {
        compare: vec![
            put_at(held.key.clone(), held.put_at),
            created_at(lease.key.clone(), lease.created),
        ],
        success: vec![put_with_lease(
            held.key.clone(),
            grant_value(&grant, &new_change()?)?,
            lease.id,
        )],
        failure: Vec::new(),
    };
    let answer = locks.client.commit(&request);
    let is_done = answer.map_err(|failure| failed(failure, names, "renewed"))?.succeeded;
    // One that was carried out and not acknowledged fails its guards when it is sent again.
    let moved =
        |ground: Ground| ground.held(name, grant.token).is_some_and(|it| it.lease == lease.id);
    if !is_done && !moved(Ground::observe(locks, names, None)?) {
        let message = format!("{name} was changed by another command; nothing was renewed");
        return Err(Error::new(Kind::Conflict, message)
            .hint_command(format!("lock renew {name}"), "try again"));
    }
    let acquired = Acquired { name: name.clone(), grant, before: None };
    keep(locks, &lease, std::slice::from_ref(&acquired), owner, Keeping::Apart).map(drop)
}

fn on_another_host(name: &Name) -> Error {
    let message = format!("the owner of {name} is on another host, whose lease this is");
    Error::new(Kind::NotOwner, message)
        .hint_command(format!("lock renew {name}"), "renew it as it is")
        .detail("lock", name.as_str())
}

/// A guard that a grant is still on record.
pub(super) fn is_held(held: &Held) -> Compare {
    created_at(held.key.clone(), held.created)
}
