//! The two checks of a requester: one while it holds the gate, where it acquires the locks or
//! enqueues itself, and one without the gate, where it sleeps or goes on. Nothing here touches the
//! disk.

use std::time::{Duration, SystemTime};

use super::draft::Draft;
use super::liveness::{Liveness, epoch};
use super::process::Identity;
use super::queue::{Answer, Blocker, Eyes, answer, blockers, enqueue, leave, prune_front};
use super::record::{Grant, Purpose, Record, Waiter};
use super::request::Request;
use crate::name::Name;
use crate::time::rfc3339;

/// The outcome of a request that was checked while holding the gate.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// The owner that would hold the locks is dead.
    OwnerEnded,
    /// One of the locks is held already by the owner or an ancestor.
    AlreadyHeld(Name, Box<Grant>),
    /// Nothing blocks the request.
    Free,
    /// Something blocks it.
    Waits(Line),
    /// An operator ended this wait.
    Broken,
}

/// How a request came to be queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// It was queued already.
    Kept,
    /// It has enqueued itself, at the end of all queues.
    Joined,
    /// It was passed over, runs again, and has cleared the mark.
    Resumed,
}

/// Checks a request while holding the gate: drops the dead from the records, then answers the
/// request or enqueues it. `now`: the time, and how much of the request's time is left.
pub fn ask(
    drafts: &mut [Draft],
    request: &Request,
    now: (SystemTime, Duration),
    eyes: &dyn Eyes,
) -> Verdict {
    let Request { asker, ask, .. } = request;
    for Draft { record, .. } in drafts.iter_mut() {
        let place = record.place_of(&asker.process).unwrap_or(record.waiters.len());
        prune_front(record, place, eyes);
    }
    if ask.purpose == Purpose::Hold && eyes.process(&asker.owner) == Liveness::Dead {
        return Verdict::OwnerEnded;
    }
    let own = |record: &Record| {
        record.place_of(&asker.process).and_then(|place| record.waiters.get(place).cloned())
    };
    if drafts.iter().any(|draft| own(&draft.record).is_some_and(|waiter| waiter.broken)) {
        return Verdict::Broken;
    }
    let was_passed_over =
        drafts.iter().any(|draft| own(&draft.record).is_some_and(|waiter| waiter.passed_over));
    for waiter in drafts.iter_mut().filter_map(|draft| draft.record.waiter_mut(&asker.process)) {
        waiter.passed_over = false;
    }
    let mut is_blocked = false;
    for Draft { name, record, .. } in drafts.iter() {
        match answer(name, record, asker, *ask, eyes) {
            Answer::AlreadyHeld(own) => {
                return Verdict::AlreadyHeld(name.clone(), Box::new(own.clone()));
            }
            answer => is_blocked |= matches!(answer, Answer::Blocked),
        }
    }
    if !is_blocked {
        return Verdict::Free;
    }
    if drafts.iter().all(|draft| draft.record.place_of(&asker.process).is_some()) {
        return Verdict::Waits(if was_passed_over { Line::Resumed } else { Line::Kept });
    }
    for draft in drafts {
        leave(&mut draft.record, &asker.process);
        let waiter = waiter(request, draft, now);
        enqueue(&mut draft.record, waiter);
    }
    Verdict::Waits(Line::Joined)
}

fn waiter(request: &Request, draft: &Draft, (now, left): (SystemTime, Duration)) -> Waiter {
    Waiter {
        mode: request.ask.mode,
        owner: request.asker.owner.clone(),
        process: request.asker.process.clone(),
        command: request.command.clone(),
        since: rfc3339(now),
        until: epoch(now) + left.as_secs_f64(),
        own: request.asker.own_grant(&draft.name, &draft.record).map(|grant| grant.token),
        purpose: request.ask.purpose,
        metadata: request.metadata.clone(),
        lifeline: None, // set when the place is taken
        locks: u32::try_from(request.names.len()).unwrap_or(u32::MAX),
        passed_over: false,
        broken: false,
    }
}

/// Checks a request without the gate: returns the blocker to sleep for, the nearest earlier waiter,
/// or else a holder. One is enough; the next check finds the others. `None` if nothing blocks the
/// request, or if its entry must be handled while holding the gate: it is gone, passed over or
/// broken.
pub fn look<'a>(
    records: &'a [(Name, Record)],
    request: &Request,
    eyes: &'a dyn Eyes,
) -> Option<Blocker<'a>> {
    let is_in_line = |(_, record): &(Name, Record)| {
        let place = record.place_of(&request.asker.process);
        place.and_then(|place| record.waiters.get(place)).is_some_and(|own| !own.is_aside())
    };
    if eyes.process(&request.asker.owner) == Liveness::Dead || !records.iter().all(is_in_line) {
        return None;
    }
    let mut holder = None;
    for (name, record) in records {
        match blockers(name, record, &request.asker, request.ask, eyes).next() {
            Some(waiter @ Blocker::Waiter(_)) => return Some(waiter),
            other => holder = holder.or(other),
        }
    }
    holder
}

/// The processes that end the wait for this blocker when they end. The pid of a process that cannot
/// be judged from here may be another's.
pub fn ends_to_await<'a>(blocker: &Blocker<'a>, eyes: &dyn Eyes) -> Vec<&'a Identity> {
    let processes: &[&Identity] = match blocker {
        Blocker::Holder(Grant { owner: Some(owner), .. }) => &[owner],
        Blocker::Holder(Grant { owner: None, .. }) => &[],
        Blocker::Waiter(waiter) => &[&waiter.process, &waiter.owner],
    };
    processes.iter().filter(|process| eyes.process(process) == Liveness::Alive).copied().collect()
}
