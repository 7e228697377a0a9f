//! The two checks of a request: one while holding the gate, where it acquires the locks or enqueues
//! itself, and one without the gate, where it sleeps or goes on.

use std::time::{Duration, SystemTime};

use super::edit::RecordEdit;
use super::identity::Identity;
use super::limits;
use super::liveness::{Liveness, LivenessOracle, unix_seconds};
use super::queue::{Answer, Blocker, answer, blockers, dequeue, drop_dead_at_front, enqueue};
use super::record::{Grant, Place, Purpose, Record, Waiter};
use super::request::Request;
use crate::name::Name;
use crate::time::rfc3339_millis;

/// The time of a check.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// The time of day.
    pub time: SystemTime,
    /// The rest of the request's time.
    pub left: Duration,
}

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
    Queued(Queued),
    /// An operator ended this wait.
    Broken,
}

/// The way in which a request came to be queued.
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
/// request or enqueues it.
pub fn admit(
    edits: &mut [RecordEdit],
    request: &Request,
    now: Now,
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
    if own_waiters(edits, request).any(|waiter| waiter.broken) {
        return Admission::Broken;
    }
    let was_passed_over = own_waiters(edits, request).any(|waiter| waiter.passed_over);
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
    if own_waiters(edits, request).count() == edits.len() {
        return Admission::Queued(if was_passed_over { Queued::Resumed } else { Queued::Already });
    }
    for edit in edits {
        dequeue(&mut edit.record, &requester.process);
        let waiter = new_waiter(request, edit, now);
        enqueue(&mut edit.record, waiter);
        if limits::extent(&edit.record) > limits::RECORD {
            edit.record.waiters.retain(|waiter| !oracle.is_dead_waiter(waiter));
        }
    }
    Admission::Queued(Queued::Newly)
}

fn own_waiters<'a>(
    edits: &'a [RecordEdit],
    request: &'a Request,
) -> impl Iterator<Item = &'a Waiter> {
    edits.iter().filter_map(|edit| edit.waiter(&request.requester.process))
}

fn new_waiter(request: &Request, edit: &RecordEdit, now: Now) -> Waiter {
    let Request { requester, spec, .. } = request;
    Waiter {
        mode: spec.mode,
        owner: requester.owner.clone(),
        process: requester.process.clone(),
        command: request.command.clone(),
        since: rfc3339_millis(now.time),
        until: unix_seconds(now.time) + now.left.as_secs_f64(),
        own: requester.own_grant(&edit.name, &edit.record).map(|grant| grant.token),
        purpose: spec.purpose,
        metadata: request.metadata.clone(),
        lifeline: None, // set when the place is taken
        locks: u32::try_from(request.names.len()).unwrap_or(u32::MAX),
        passed_over: false,
        broken: false,
        place: Place::default(), // set when it joins
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
    let Request { requester, spec, .. } = request;
    let is_queued = |(_, record): &(Name, Record)| {
        let own = record.waiters.iter().find(|waiter| waiter.process.is(&requester.process));
        own.is_some_and(|own| !own.lets_others_pass())
    };
    if oracle.process(&requester.owner) == Liveness::Dead || !records.iter().all(is_queued) {
        return None;
    }
    let mut holder = None;
    for (name, record) in records {
        match blockers(name, record, requester, *spec, oracle).next() {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::liveness::WaiterState;
    use crate::lock::queue::tests::{grant, process, waiter};
    use crate::lock::record::Mode;
    use crate::lock::request::{Deadline, RequestSpec, Requester};

    /// A host on which process 7, its waiter and the requester are alive and all others dead.
    #[derive(Debug)]
    struct FewAlive;

    impl LivenessOracle for FewAlive {
        fn process(&self, process: &Identity) -> Liveness {
            if [1, 7, 1007, 8, 1008].contains(&process.pid) {
                Liveness::Alive
            } else {
                Liveness::Dead
            }
        }

        fn grant(&self, _: &Grant) -> Liveness {
            Liveness::Alive
        }

        fn waiter(&self, waiter: &Waiter) -> WaiterState {
            match self.process(&waiter.process) {
                Liveness::Dead => WaiterState::Dead,
                _ => WaiterState::Waiting,
            }
        }
    }

    #[test]
    fn dead_waiters_leave_a_full_queue() {
        let large = |owner| Waiter {
            place: Place::File { ticket: u64::from(owner), size: 300_000 },
            ..waiter(Mode::Exclusive, owner)
        };
        let record = Record {
            holders: vec![grant(1, Mode::Exclusive, 1)],
            waiters: vec![large(7), large(20), large(21), large(22)],
            ..Record::default()
        };
        let Ok(name) = Name::parse("lock", "a") else { return };
        let requester = Requester {
            owner: process(8),
            ancestry: Vec::new(),
            explicit: false,
            process: process(1008),
            env_tokens: Vec::new(),
        };
        let spec = RequestSpec::hold(Mode::Exclusive);
        let deadline = Deadline::after(Duration::from_secs(60));
        let request = Request::new(vec![name.clone()], spec, requester, deadline);
        let mut edits = [RecordEdit::new(&name, record)];
        let now = Now { time: SystemTime::UNIX_EPOCH, left: Duration::from_secs(60) };
        assert!(matches!(
            admit(&mut edits, &request, now, &FewAlive),
            Admission::Queued(Queued::Newly)
        ));
        let waiting: Vec<u32> =
            edits[0].record.waiters.iter().map(|waiter| waiter.owner.pid).collect();
        assert_eq!(waiting, [7, 8]);
    }
}
