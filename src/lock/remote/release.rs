//! Gives locks back, and renews their leases.

use std::time::Duration;

use super::encoding::grant_value;
use super::ground::Ground;
use super::oracle::ClusterOracle;
use super::{RemoteLocks, failed, new_change};
use crate::error::Result;
use crate::etcd::messages::{Compare, RequestOp, TxnRequest};
use crate::etcd::txn::{Keys, created_at, delete, put_at, put_with_lease};
use crate::lock::edit::{Acquired, RecordEdit};
use crate::lock::liveness::unix_seconds;
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
    let mut ground = locks.observe(names, None)?;
    loop {
        let oracle = ClusterOracle::new()?;
        let mut edits = ground.edits(names);
        let released = edits
            .iter_mut()
            .map(|edit| release_one(edit, token, requester, &oracle))
            .collect::<Result<Vec<_>>>()
            .map_err(|error| locks.lost_grant(names, token, requester, &ground).unwrap_or(error))?;
        check_ancestry(&released, token, requester)?;
        let (mut compare, mut success) = (Vec::new(), Vec::new());
        for Released { name, grant, left } in &released {
            let now = (*left > 0).then(|| Grant { count: *left, ..grant.clone() });
            put_back(
                &ground,
                name,
                grant.token,
                now.as_ref(),
                &change,
                (&mut compare, &mut success),
            )?;
        }
        let again = locks.keys.ranges(names).into_iter().map(RequestOp::from).collect();
        let request = TxnRequest { compare, success, failure: again };
        let answer = locks.client.commit(&request);
        let answer = answer.map_err(|failure| failed(failure, names, "released"))?;
        let is_done = answer.succeeded || {
            ground = Ground::of(&locks.keys, answer);
            released.iter().all(|one| is_released(&ground, one, &change))
        };
        if is_done {
            for Released { name, grant, left } in &released {
                let text = if *left == 0 { "released" } else { "counted down" };
                locks.log.record(locks.log.grant("release", text, name, grant));
            }
            let gone = released.iter().filter(|one| one.left == 0);
            let gone: Vec<_> = gone.map(|one| (one.name.clone(), one.grant.token)).collect();
            locks.forget(requester, &gone);
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
    (compare, success): (&mut Vec<Compare>, &mut Vec<RequestOp>),
) -> Result<()> {
    let Some(held) = ground.held(name, token) else { return Ok(()) };
    compare.push(put_at(held.key.clone(), held.put_at));
    success.push(match now {
        Some(grant) => put_with_lease(held.key.clone(), grant_value(grant, change)?, held.lease),
        None => delete(&Keys::one(held.key.clone())),
    });
    Ok(())
}

/// Gives grants back, all at once or none. One that changed the mode of another leaves that mode
/// again, under a token of its own.
pub(super) fn give_back(locks: &RemoteLocks, acquired: &[Acquired]) -> Result<()> {
    let names: Vec<Name> = acquired.iter().map(|one| one.name.clone()).collect();
    let (ground, change) = (locks.observe(&names, None)?, new_change()?);
    let (mut compare, mut success) = (Vec::new(), Vec::new());
    for Acquired { name, grant, before } in acquired {
        put_back(
            &ground,
            name,
            grant.token,
            before.as_ref(),
            &change,
            (&mut compare, &mut success),
        )?;
    }
    let request = TxnRequest { compare, success, failure: Vec::new() };
    locks.client.commit(&request).map_err(|failure| failed(failure, &names, "given back"))?;
    for Acquired { name, grant, .. } in acquired {
        locks.log.record(locks.log.grant("acquire", "given back", name, grant));
    }
    Ok(())
}

/// Renews a grant's lease; returns its end if nothing renews it again, in seconds since 1970.
pub(super) fn renew(
    locks: &RemoteLocks,
    name: &Name,
    _ttl: Option<Duration>,
    token: Option<Token>,
    requester: &Requester,
) -> Result<f64> {
    let names = std::slice::from_ref(name);
    let ground = locks.observe(names, None)?;
    let selection = Selection { operation: Operation::Renew, token, requester };
    let edit = RecordEdit::new(name, ground.record(name.as_str()));
    let grant = selection.grant(&edit, &ClusterOracle::new()?)?;
    let lease = ground.held(name, grant.token).map_or(0, |held| held.lease);
    let now = locks.now();
    let Some(left) = locks.client.renew(lease)? else {
        return Err(selection.not_held(name));
    };
    locks.log.record(locks.log.grant("renew", "renewed", name, &grant));
    Ok(unix_seconds(now) + left.as_secs_f64())
}

/// A guard that a grant is still on record.
pub(super) fn is_held(key: &bytes::Bytes, token: Token) -> Compare {
    created_at(key.clone(), i64::try_from(token.get()).unwrap_or(i64::MAX))
}
