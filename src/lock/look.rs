//! The two checks of a requester: one while it holds the gate, where it acquires the locks or
//! enqueues itself, and one without the gate, where it sleeps or goes on. Nothing here touches the
//! disk.

use std::time::{Duration, SystemTime};

use super::edit::RecordEdit;
use super::liveness::{Liveness, unix_seconds};
use super::process::Identity;
use super::queue::{
    Answer, Blocker, LivenessOracle, answer, blockers, dequeue, drop_dead_at_front, enqueue,
};
use super::record::{Grant, Purpose, Record, Waiter};
use super::request::Request;
use crate::name::Name;
use crate::time::rfc3339;

/// The outcome of a request that was checked while holding the gate.
#[derive(Clone, Debug)]
pub enum Admission {
    /// The owner that would hold the locks is dead.
    OwnerEnded,
    /// One of the locks is held already by the owner or an ancestor.
    AlreadyHeld(Name, Box<Grant>),
    /// Nothing blocks the request.
    Grantable,
    /// Something blocks it.
    WaitGraph(Queued),
    /// An operator ended this wait.
    Broken,
}

/// How a request came to be queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queued {
    /// It was queued already.
    Already,
    /// It has enqueued itself, at the end of all queues.
    Newly,
    /// It was passed over, runs again, and has cleared the mark.
    Resumed,
}

/// Checks a request while holding the gate: drops the dead from the records, then answers the
/// request or enqueues it. `now`: the time, and how much of the request's time is left.
pub fn admit(
    edits: &mut [RecordEdit],
    request: &Request,
    now: (SystemTime, Duration),
    oracle: &dyn LivenessOracle,
) -> Admission {
    let Request { requester, spec, .. } = request;
    for RecordEdit { record, .. } in edits.iter_mut() {
        let position = record.position_of(&requester.process).unwrap_or(record.waiters.len());
        drop_dead_at_front(record, position, oracle);
    }
    if spec.purpose == Purpose::Hold && oracle.process(&requester.owner) == Liveness::Dead {
        return Admission::OwnerEnded;
    }
    let own = |record: &Record| {
        record
            .position_of(&requester.process)
            .and_then(|position| record.waiters.get(position).cloned())
    };
    if edits.iter().any(|edit| own(&edit.record).is_some_and(|waiter| waiter.broken)) {
        return Admission::Broken;
    }
    let was_passed_over =
        edits.iter().any(|edit| own(&edit.record).is_some_and(|waiter| waiter.passed_over));
    for waiter in edits.iter_mut().filter_map(|edit| edit.record.waiter_mut(&requester.process)) {
        waiter.passed_over = false;
    }
    let mut is_blocked = false;
    for RecordEdit { name, record, .. } in edits.iter() {
        match answer(name, record, requester, *spec, oracle) {
            Answer::AlreadyHeld(own) => {
                return Admission::AlreadyHeld(name.clone(), Box::new(own.clone()));
            }
            answer => is_blocked |= matches!(answer, Answer::Blocked),
        }
    }
    if !is_blocked {
        return Admission::Grantable;
    }
    if edits.iter().all(|edit| edit.record.position_of(&requester.process).is_some()) {
        return Admission::WaitGraph(if was_passed_over {
            Queued::Resumed
        } else {
            Queued::Already
        });
    }
    for edit in edits {
        dequeue(&mut edit.record, &requester.process);
        let waiter = waiter(request, edit, now);
        enqueue(&mut edit.record, waiter);
    }
    Admission::WaitGraph(Queued::Newly)
}

fn waiter(request: &Request, edit: &RecordEdit, (now, left): (SystemTime, Duration)) -> Waiter {
    Waiter {
        mode: request.spec.mode,
        owner: request.requester.owner.clone(),
        process: request.requester.process.clone(),
        command: request.command.clone(),
        since: rfc3339(now),
        until: unix_seconds(now) + left.as_secs_f64(),
        own: request.requester.own_grant(&edit.name, &edit.record).map(|grant| grant.token),
        purpose: request.spec.purpose,
        metadata: request.metadata.clone(),
        lifeline: None, // set when the position is taken
        locks: u32::try_from(request.names.len()).unwrap_or(u32::MAX),
        passed_over: false,
        broken: false,
    }
}

/// Checks a request without the gate: returns the blocker to sleep for, the nearest earlier waiter,
/// or else a holder. One is enough; the next check finds the others. `None` if nothing blocks the
/// request, or if its entry must be handled while holding the gate: it is gone, passed over or
/// broken.
pub fn first_blocker<'a>(
    records: &'a [(Name, Record)],
    request: &Request,
    oracle: &'a dyn LivenessOracle,
) -> Option<Blocker<'a>> {
    let is_in_line = |(_, record): &(Name, Record)| {
        let position = record.position_of(&request.requester.process);
        position
            .and_then(|position| record.waiters.get(position))
            .is_some_and(|own| !own.lets_others_pass())
    };
    if oracle.process(&request.requester.owner) == Liveness::Dead || !records.iter().all(is_in_line)
    {
        return None;
    }
    let mut holder = None;
    for (name, record) in records {
        match blockers(name, record, &request.requester, request.spec, oracle).next() {
            Some(waiter @ Blocker::Waiter(_)) => return Some(waiter),
            other => holder = holder.or(other),
        }
    }
    holder
}

/// The processes that end the wait for this blocker when they end. The pid of a process that cannot
/// be judged from here may be another's.
pub fn processes_to_watch<'a>(
    blocker: &Blocker<'a>,
    oracle: &dyn LivenessOracle,
) -> Vec<&'a Identity> {
    let processes: &[&Identity] = match blocker {
        Blocker::Holder(Grant { owner: Some(owner), .. }) => &[owner],
        Blocker::Holder(Grant { owner: None, .. }) => &[],
        Blocker::Waiter(waiter) => &[&waiter.process, &waiter.owner],
    };
    processes.iter().filter(|process| oracle.process(process) == Liveness::Alive).copied().collect()
}
