//! Acquires locks: several at once or none, in one transaction.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::encoding::grant_value;
use super::ground::{Ground, beside};
use super::keeper_process::{Keeping, keep};
use super::oracle::ClusterOracle;
use super::owner::{OwnerLease, lease_of, name_of, ttl_of};
use super::stand_in::StandIn;
use super::tokens::Tokens;
use super::wait::{Grantable, Wait};
use super::{RemoteLocks, new_change};
use crate::error::{Error, Kind, Result};
use crate::etcd::failure::{Cause, LeaseTrouble};
use crate::etcd::messages::{RequestOp, TxnRequest};
use crate::etcd::txn::{Keys, created_at, created_before, delete, put_at, put_with_lease};
use crate::lock::edit::{Acquired, RecordEdit};
use crate::lock::limits;
use crate::lock::record::{Grant, Token};
use crate::lock::request::Request;

/// The races that a request loses after its time is up, before it gives up.
const RACES: u32 = 20;
/// The most keys that one transaction deletes.
const SWEEP: usize = 100;

/// Acquires all of the requested locks, waiting until the deadline.
pub(super) fn acquire(
    locks: &RemoteLocks,
    request: &Request,
    keeping: Keeping,
) -> Result<(Vec<Acquired>, Option<StandIn>)> {
    let started = Instant::now();
    let ttl = ttl_of(locks, request.ttl)?;
    let owner = locks.keys.owner(&name_of(&request.requester.owner, ttl));
    let mut wait = Wait::new(locks, request, &owner);
    let result = until_granted(locks, request, ttl, &owner, &mut wait);
    wait.end(result.as_ref().err());
    let (acquired, lease) = result?;
    let kept = keep(locks, &lease, &acquired, &request.requester.owner, keeping);
    let keeper = kept.inspect_err(|_| locks.give_back(&acquired))?;
    for Acquired { name, grant, .. } in &acquired {
        let waited = format!("{:.6}", started.elapsed().as_secs_f64());
        let entry = locks.log.grant("acquire", "granted", name, grant);
        locks.log.record(entry.with("waited", waited));
    }
    Ok((acquired, keeper))
}

fn until_granted(
    locks: &RemoteLocks,
    request: &Request,
    ttl: Duration,
    owner: &str,
    wait: &mut Wait<'_>,
) -> Result<(Vec<Acquired>, OwnerLease)> {
    let (mut next, mut lost) = (None, 0);
    loop {
        let Grantable { ground, mut edits } = wait.until_grantable(next.take())?;
        sweep(locks, &ground, &edits)?;
        let lease =
            lease_of(locks, &request.requester.owner, &request.command, ttl, ground.other(owner))?;
        let grants = Grants::of(locks, request, &ground, &mut edits, &lease)?;
        match grants.commit(wait, owner)? {
            Landed::Done(acquired) => return Ok((acquired, lease)),
            Landed::Overtaken(ground) => next = ground.map(|ground| *ground),
        }
        lost += 1;
        if request.deadline.is_over() && lost >= RACES {
            let message = format!(
                "not acquired within {:.1} s: other requests were faster each time",
                request.deadline.timeout.as_secs_f64()
            );
            return Err(Error::new(Kind::LockTimeout, message)
                .hint_command("lock list", "list holders and waiters; or wait longer"));
        }
    }
}

/// What became of a transaction of grants.
enum Landed {
    /// The locks are granted.
    Done(Vec<Acquired>),
    /// Another request was faster. This is what it left, if that is known.
    Overtaken(Option<Box<Ground>>),
}

/// The grants of one request, before they are made.
struct Grants<'a> {
    locks: &'a RemoteLocks,
    request: &'a Request,
    change: String,
    acquired: Vec<Acquired>,
    /// As on the ground: the transaction requires that the state has not moved since.
    tokens: Tokens,
    transaction: TxnRequest,
}

impl<'a> Grants<'a> {
    fn of(
        locks: &'a RemoteLocks,
        request: &'a Request,
        ground: &Ground,
        edits: &mut [RecordEdit],
        lease: &OwnerLease,
    ) -> Result<Self> {
        let (change, oracle) = (new_change()?, ClusterOracle::new()?);
        let mut transaction = TxnRequest::default();
        let (compare, success) = (&mut transaction.compare, &mut transaction.success);
        compare.push(created_at(lease.key.clone(), lease.created));
        compare.push(locks.mark.is_as_in(ground));
        let mut acquired = Vec::new();
        for edit in edits {
            let one = edit.grant(request, Token::UNKNOWN, locks.now(), &oracle);
            limits::check(edit)?;
            let name = edit.name.as_str();
            let grant = Grant { ttl: Some(lease.ttl.as_secs_f64()), expires: None, ..one.grant };
            let value = grant_value(&grant, &change)?;
            let before = one.before.as_ref();
            let held = before.and_then(|before| ground.held(&edit.name, before.token));
            match held {
                Some(held) if held.grant.token == grant.token => {
                    compare.push(put_at(held.key.clone(), held.put_at));
                    success.push(put_with_lease(held.key.clone(), value, held.lease));
                }
                held => {
                    compare.push(created_before(&locks.keys.grants(name), ground.at + 1));
                    success.extend(held.map(|held| delete(&Keys::one(held.key.clone()))));
                    success.push(put_with_lease(locks.keys.grant(name, &change), value, lease.id));
                }
            }
            acquired.push(Acquired { grant, ..one });
        }
        let process = &request.requester.process;
        let places: Vec<_> =
            request.names.iter().filter_map(|name| ground.waiting(name, process)).collect();
        match (places.first(), request.names.as_slice()) {
            (Some(first), _) => compare.push(created_at(first.key.clone(), first.created)),
            // Nothing may have queued since.
            (None, [name]) => {
                compare.push(created_before(&locks.keys.waiters(name.as_str()), ground.at + 1))
            }
            (None, _) => compare.push(created_before(&locks.keys.all_waiters(), ground.at + 1)),
        }
        success.extend(places.iter().map(|place| delete(&Keys::one(place.key.clone()))));
        Ok(Self { locks, request, change, acquired, tokens: ground.tokens, transaction })
    }

    fn commit(mut self, wait: &mut Wait<'_>, owner: &str) -> Result<Landed> {
        let (keys, tokens) = (&self.locks.keys, self.tokens);
        let ranges = keys.ranges(&self.request.names).into_iter().chain(beside(self.locks, owner));
        self.transaction.failure = ranges.map(RequestOp::from).collect();
        let answer = match self.locks.client.commit(&self.transaction) {
            // The owner's lease has ended since.
            Err(failure) if failure.cause == Cause::Lease(LeaseTrouble::Missing) => {
                return Ok(Landed::Overtaken(None));
            }
            answer => answer.map_err(|failure| wait.failed(failure))?,
        };
        if answer.succeeded {
            wait.place = None; // its keys are gone, and its lease ends by itself
            return Ok(Landed::Done(self.granted_at(answer.revision(), tokens)));
        }
        let ground = Ground::of(keys, answer)?;
        match self.was_made(&ground) {
            Some(created) => {
                wait.place = None;
                Ok(Landed::Done(self.granted_at(created, tokens)))
            }
            None => Ok(Landed::Overtaken(Some(Box::new(ground)))),
        }
    }

    /// The revision that made these grants, if an earlier attempt did, and its answer was lost.
    fn was_made(&self, ground: &Ground) -> Option<i64> {
        let held = self.request.names.iter().flat_map(|name| ground.all_held(name));
        let own = held.filter(|held| held.change == self.change);
        // A grant that was only counted again is older.
        own.map(|held| held.created).max()
    }

    fn granted_at(self, revision: i64, tokens: Tokens) -> Vec<Acquired> {
        let made = tokens.at(revision);
        let granted = |one: Acquired| {
            let is_counted =
                one.before.as_ref().is_some_and(|before| before.token == one.grant.token);
            let token = made.filter(|_| !is_counted).unwrap_or(one.grant.token);
            Acquired { grant: Grant { token, ..one.grant }, ..one }
        };
        self.acquired.into_iter().map(granted).collect()
    }
}

/// Deletes the keys of the dead of this host. No key is used again, so this needs no guard.
pub(super) fn sweep(locks: &RemoteLocks, ground: &Ground, edits: &[RecordEdit]) -> Result<usize> {
    let mut dead = Vec::new();
    for edit in edits {
        let RecordEdit { name, record, .. } = edit;
        let gone = edit.original().holders.iter();
        let gone = gone.filter(|grant| record.grant(grant.token).is_none());
        for held in gone.filter_map(|grant| ground.held(name, grant.token)) {
            locks.log.record(locks.log.grant("clean", "dropped", name, &held.grant));
            dead.push(held.key.clone());
        }
        let waiters = edit.original().waiters.iter();
        let gone = waiters.filter(|waiter| edit.waiter(&waiter.process).is_none());
        let gone = gone.filter_map(|waiter| ground.waiting(name, &waiter.process));
        dead.extend(gone.map(|waiting| waiting.key.clone()));
    }
    delete_keys(locks, dead)
}

/// Deletes keys; returns how many.
pub(super) fn delete_keys(locks: &RemoteLocks, dead: Vec<Bytes>) -> Result<usize> {
    for keys in dead.chunks(SWEEP) {
        let success = keys.iter().map(|key| delete(&Keys::one(key.clone()))).collect();
        let request = TxnRequest { success, ..TxnRequest::default() };
        locks.client.commit(&request).map_err(|failure| failure.of_read())?;
    }
    Ok(dead.len())
}
