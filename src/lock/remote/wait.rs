//! A request that waits: it is checked on a snapshot, queued, and sleeps until the key that blocks
//! it is gone.

use std::time::{Duration, Instant};

use super::encoding::waiter_value;
use super::ground::{Ground, beside};
use super::oracle::ClusterOracle;
use super::{RemoteLocks, cycle, failed, new_lease};
use crate::error::{Error, Kind, Result};
use crate::etcd::failure::{Cause, LeaseTrouble};
use crate::etcd::messages::{KeyValue, RequestOp, TxnRequest};
use crate::etcd::txn::{Keys, absent, put_with_lease, snapshot};
use crate::lock::admission::{Admission, Now, Queued, admit, first_blocker, processes_to_watch};
use crate::lock::deadlock::{Ancestry as _, may_close_cycle};
use crate::lock::describe::Blockers;
use crate::lock::edit::RecordEdit;
use crate::lock::identity::Identity;
use crate::lock::lifeline::Lifeline;
use crate::lock::liveness::{Liveness, LivenessOracle as _};
use crate::lock::process::ProcessTree;
use crate::lock::queue::Blocker;
use crate::lock::record::Waiter;
use crate::lock::refusal::{already_held, broken, owner_ended, timed_out};
use crate::lock::request::{Deadlocks, NOTICE_AFTER, Request, Requester};
use crate::lock::{hierarchy, limits};
use crate::os::process::Ends;

/// How long a place in the queue outlives the waiter's last renewal.
const LEASE: Duration = Duration::from_secs(10);
/// How often a place is renewed. Its waiter also looks again, whatever the watch reported.
const RENEWAL: Duration = Duration::from_secs(3);
/// The longest time between two searches for a cycle: each doubles the wait until then.
const LONGEST_BETWEEN_SEARCHES: Duration = Duration::from_secs(10);

/// The snapshot on which nothing blocks a request, and its records without their dead.
pub(super) struct Grantable {
    pub ground: Ground,
    pub edits: Vec<RecordEdit>,
}

/// A place in the queues of a request's locks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// The lease that its keys end with.
    pub lease: i64,
    renewed: Instant,
    /// The revision that created its keys, once that is known.
    created: Option<i64>,
}

/// A request until it is granted or refused.
pub(super) struct Wait<'a> {
    locks: &'a RemoteLocks,
    request: &'a Request,
    /// The key of the owner's lease, which is read along.
    owner: &'a str,
    started: Instant,
    /// Whether the notice of what blocks a long wait was given.
    is_noticed: bool,
    /// When to search for a cycle again, once the wait is long.
    next_search: Instant,
    pub place: Option<Place>,
}

impl<'a> Wait<'a> {
    pub fn new(locks: &'a RemoteLocks, request: &'a Request, owner: &'a str) -> Self {
        let started = Instant::now();
        Self {
            locks,
            request,
            owner,
            started,
            is_noticed: false,
            next_search: started + NOTICE_AFTER,
            place: None,
        }
    }

    /// Waits in the queues until nothing blocks the request. `next` is a snapshot to begin with.
    pub fn until_grantable(&mut self, mut next: Option<Ground>) -> Result<Grantable> {
        let (locks, names) = (self.locks, &self.request.names);
        loop {
            let ground = match next.take() {
                Some(ground) => ground,
                None => {
                    let created = self.place.as_ref().and_then(|place| place.created);
                    Ground::to_grant(locks, names, created, self.owner)?
                }
            };
            locks.mark.check(&ground)?;
            let oracle = ClusterOracle::new()?;
            let mut edits = ground.edits(names);
            match self.admit(&mut edits, &oracle)? {
                None => return Ok(Grantable { ground, edits }),
                Some(Queued::Newly) => {
                    if let Some(all) = self.join(&ground, &edits)? {
                        self.leave_cycle(&all, &oracle)?;
                        next = Some(all);
                    }
                }
                Some(Queued::Already | Queued::Resumed) => self.sleep(&ground, &oracle)?,
            }
        }
    }

    /// The answer to the request on this snapshot; `None` if nothing blocks it.
    fn admit(&self, edits: &mut [RecordEdit], oracle: &ClusterOracle) -> Result<Option<Queued>> {
        let request = self.request;
        let now = Now { time: self.locks.now(), left: request.deadline.left() };
        let queued = match admit(edits, request, now, oracle) {
            Admission::OwnerEnded => return Err(owner_ended(request)),
            Admission::AlreadyHeld(name, own) => return Err(already_held(&name, &own, request)),
            Admission::Broken => return Err(broken(request)),
            Admission::Grantable => None,
            Admission::Queued(queued) => Some(queued),
        };
        hierarchy::check(edits, &request.requester, |name| {
            let names = std::slice::from_ref(name);
            Ok(Ground::observe(self.locks, names, None)?.record(name.as_str()))
        })?;
        if queued.is_some() && request.deadline.is_over() {
            let records = edits.iter().map(|edit| (&edit.name, &edit.record));
            let blockers = Blockers::of(records, request, oracle);
            return Err(timed_out(request, &blockers, self.started.elapsed()));
        }
        Ok(queued)
    }

    /// Takes the last place in all queues, if the state has stayed where it was. Returns all locks
    /// as they are then; `None` if the place was lost before that.
    fn join(&mut self, ground: &Ground, edits: &[RecordEdit]) -> Result<Option<Ground>> {
        let (locks, request) = (self.locks, self.request);
        let client = &locks.client;
        if let Some(lost) = self.place.take() {
            let _ = client.revoke(lost.lease);
        }
        let lease = new_lease()?;
        let renewed = Instant::now();
        client.grant(lease, LEASE).map_err(|failure| failure.of_read())?;
        self.place = Some(Place { lease, renewed, created: None });
        let line = line_of(&request.requester);
        let lifeline = Lifeline::of_waiter(&format!("{lease:016x}"));
        let (mut success, mut first) = (Vec::new(), None);
        for edit in edits {
            limits::check(edit)?;
            let Some(waiter) = edit.waiter(&request.requester.process) else { continue };
            let waiter = Waiter { lifeline: lifeline.clone(), ..waiter.clone() };
            let key = locks.keys.waiter(edit.name.as_str(), lease);
            success.push(put_with_lease(key.clone(), waiter_value(&waiter, &line)?, lease));
            first = first.or(Some(key));
        }
        let everything = || locks.keys.everything().into_iter();
        let beside = beside(locks, self.owner);
        let read: Vec<RequestOp> = everything().chain(beside).map(RequestOp::from).collect();
        success.extend(read.iter().cloned());
        // A place that was taken and not acknowledged fails the guard when it is sent again.
        let own = first.into_iter().map(absent);
        let compare = own.chain([locks.mark.is_as_in(ground)]).collect();
        match client.commit(&TxnRequest { compare, success, failure: read }) {
            Ok(answer) => {
                let all = Ground::of(&locks.keys, answer)?;
                let name = request.names.first();
                let own = name.and_then(|name| all.waiting(name, &request.requester.process));
                let created = own.map(|own| own.created);
                self.place = Some(Place { lease, renewed, created });
                Ok(Some(all))
            }
            Err(failure) if failure.cause == Cause::Lease(LeaseTrouble::Missing) => Ok(None),
            // A place in the queue is no lock.
            Err(failure) => Err(failure.of_read().into()),
        }
    }

    /// Sleeps until the key that blocks the request is gone, its process has ended, its own place
    /// was changed or must be renewed, or time is up.
    fn sleep(&mut self, ground: &Ground, oracle: &ClusterOracle) -> Result<()> {
        let client = &self.locks.client;
        let Some((key, processes)) = self.blocking(ground, oracle) else { return Ok(()) };
        let name = self.request.names.first();
        let own = name.and_then(|name| ground.waiting(name, &self.request.requester.process));
        let Some(own) = own else { return Ok(()) };
        let keys = [Keys::one(key), Keys::one(own.key.clone())];
        let mut watch = client.watch_all(&keys)?;
        let found = client.snapshot(&snapshot(keys.iter().map(Keys::list)))?;
        let found: Vec<_> = found.ranges().flat_map(|range| range.kvs).collect();
        let is_as_seen = |kv: &KeyValue| kv.key != own.key || kv.mod_revision == own.put_at;
        if found.len() < keys.len() || !found.iter().all(is_as_seen) {
            return Ok(());
        }
        let Some(place) = &mut self.place else { return Ok(()) };
        if place.renewed.elapsed() >= RENEWAL {
            let now = Instant::now();
            if client.renew(place.lease)?.is_none() {
                return Ok(()); // its keys are gone as well
            }
            place.renewed = now;
        }
        let mut ends = Ends::default();
        let owner = &self.request.requester.owner;
        let here = (oracle.process(owner) == Liveness::Alive).then_some(owner);
        for process in processes.iter().chain(here) {
            ends.add(process.pid);
        }
        let ends: Vec<_> = ends.descriptors().collect();
        let until = (place.renewed + RENEWAL).min(self.request.deadline.at).min(self.next_search);
        // Whatever it reports, or why it ended: the request looks again.
        let _ = watch.next_or(until, &ends);
        if Instant::now() >= self.next_search && !self.request.deadline.is_over() {
            self.look_around(ground, oracle)?;
        }
        Ok(())
    }

    /// Reports once what blocks a long wait, and searches for a cycle that a grant closed.
    fn look_around(&mut self, ground: &Ground, oracle: &ClusterOracle) -> Result<()> {
        if !std::mem::replace(&mut self.is_noticed, true) {
            let records = ground.records(&self.request.names);
            let records = records.iter().map(|(name, record)| (name, record));
            self.locks.notify(&Blockers::of(records, self.request, oracle).to_string());
        }
        let pause = self.started.elapsed().min(LONGEST_BETWEEN_SEARCHES);
        self.next_search = Instant::now() + pause;
        // One that holds nothing closes no cycle.
        let held = Ground::of_grants(self.locks)?.all_records();
        let held = held.iter().map(|(_, record)| record);
        if !may_close_cycle(&self.request.requester, held) {
            return Ok(());
        }
        self.leave_cycle(&Ground::of_all(self.locks)?, &ClusterOracle::new()?)
    }

    /// The key that blocks the request, and processes of this host that unblock it by ending.
    fn blocking(&self, ground: &Ground, oracle: &ClusterOracle) -> Option<(String, Vec<Identity>)> {
        let records = ground.records(&self.request.names);
        let mut holder = None;
        for one in records.chunks(1) {
            let name = &one.first()?.0;
            let Some(blocker) = first_blocker(one, self.request, oracle) else { continue };
            let key = match blocker {
                Blocker::Holder(grant) => ground.held(name, grant.token).map(|held| &held.key),
                Blocker::Waiter(waiter) => {
                    ground.waiting(name, &waiter.process).map(|waiting| &waiting.key)
                }
            };
            let key = std::str::from_utf8(key?).ok()?.to_owned();
            let processes = processes_to_watch(&blocker, oracle).into_iter().cloned().collect();
            match blocker {
                Blocker::Waiter(_) => return Some((key, processes)),
                Blocker::Holder(_) => holder = holder.or(Some((key, processes))),
            }
        }
        holder
    }

    /// Refuses the request if it waits for itself.
    fn leave_cycle(&self, all: &Ground, oracle: &ClusterOracle) -> Result<()> {
        match self.request.deadlocks {
            Deadlocks::Risked => Ok(()),
            Deadlocks::Refused => {
                cycle::leave(&self.locks.client, &self.request.requester, all, oracle)
            }
        }
    }

    /// Leaves the queues. Where the cluster is lost, the lease may have to do that.
    pub fn end(&mut self, error: Option<&Error>) {
        let is_lost = error.is_some_and(|error| {
            matches!(error.kind, Kind::Unreachable | Kind::Tls | Kind::DurabilityUnknown)
        });
        let Some(place) = self.place.take() else { return };
        let client = &self.locks.client;
        match is_lost {
            true => client.abandon(place.lease),
            // If that fails, the lease ends by itself.
            false => drop(client.revoke(place.lease)),
        }
    }

    /// The error of a change that may have been made.
    pub fn failed(&self, failure: crate::etcd::failure::Failure) -> Error {
        failed(failure, &self.request.names, "granted")
    }
}

/// The waiting process, the owner, and their ancestors.
pub(super) fn line_of(requester: &Requester) -> Vec<Identity> {
    let Requester { process, owner, ancestry, .. } = requester;
    let mut line = ProcessTree::default().ancestry_of(process);
    for one in [process, owner].into_iter().chain(ancestry) {
        if !line.iter().any(|known| known.is(one)) {
            line.push(one.clone());
        }
    }
    line
}
