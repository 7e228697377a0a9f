//! The checker of histories, with histories that break each of its rules.

use std::collections::HashSet;

use crate::history_checker::*;

fn event(client: usize, (began, ended): (Moment, Moment), op: Op, outcome: Outcome) -> Event {
    Event { client, began, ended, op, outcome }
}

fn document(count: u64, recent: &[u64]) -> Document {
    Document { register: recent.last().copied().unwrap_or(0), count, recent: recent.to_vec() }
}

fn counts(number: u64) -> Op {
    Op::Write { number, change: Change::Count, only_after: None, fence: None }
}

fn counts_after(number: u64, revision: u64) -> Op {
    Op::Write { number, change: Change::Count, only_after: Some(revision), fence: None }
}

fn fenced(number: u64, token: u64) -> Op {
    Op::Write {
        number,
        change: Change::Count,
        only_after: None,
        fence: Some(("a".to_owned(), token)),
    }
}

fn acquires(lock: &str) -> Op {
    Op::Acquire { lock: lock.to_owned(), exclusive: true, once: true }
}

fn releases(lock: &str, token: u64) -> Op {
    Op::Release { lock: lock.to_owned(), token }
}

fn saw(revision: u64, count: u64, recent: &[u64]) -> Outcome {
    Outcome::Saw(revision, document(count, recent))
}

/// A history with every permitted event: concurrent writes, killed ones with and without effect,
/// refusals, a fence that held and one that did not, a queue.
fn sound() -> Vec<Event> {
    use Outcome::{Committed, Conflict, Fenced, Granted, Listed, Released, Unknown};
    let note = Op::Write { number: 12, change: Change::Note, only_after: None, fence: None };
    let waiting = |client| ("a".to_owned(), client, None);
    vec![
        event(0, (0, 5), Op::Read, saw(1, 0, &[])),
        event(1, (2, 20), counts(10), Committed(3)),
        event(2, (3, 21), counts(11), Committed(2)),
        event(3, (22, 30), note, Unknown),
        event(4, (22, 31), counts(13), Unknown),
        event(0, (24, 32), Op::Read, saw(3, 2, &[11, 10])),
        event(1, (33, 40), counts_after(14, 3), Conflict),
        event(1, (41, 50), counts_after(15, 4), Committed(5)),
        event(0, (51, 55), Op::Read, saw(5, 3, &[11, 10, 12, 15])),
        event(5, (60, 62), acquires("a"), Granted(7)),
        event(6, (63, 84), acquires("a"), Granted(8)),
        event(7, (66, 95), acquires("a"), Granted(9)),
        event(
            0,
            (70, 72),
            Op::List,
            Listed(vec![("a".to_owned(), 5, Some(7)), waiting(6), waiting(7)]),
        ),
        event(5, (73, 76), fenced(16, 7), Committed(6)),
        event(5, (80, 83), releases("a", 7), Released),
        event(5, (85, 86), fenced(17, 7), Fenced),
        event(6, (87, 89), fenced(18, 8), Committed(7)),
        event(6, (90, 92), releases("a", 8), Released),
        event(7, (96, 97), releases("a", 9), Released),
        event(5, (98, 100), acquires("state"), Granted(10)),
        event(5, (101, 105), counts(19), Committed(8)),
        event(5, (106, 108), releases("state", 10), Released),
        event(0, (110, 115), Op::Read, saw(8, 6, &[11, 10, 12, 15, 16, 18, 19])),
        event(0, (116, 117), counts(20), Outcome::Refused),
        event(5, (120, 122), acquires("b"), Granted(11)),
        event(6, (123, 126), acquires("b"), Granted(12)),
        event(6, (128, 140), releases("b", 12), Released),
        event(5, (130, 135), releases("b", 11), Outcome::Lost),
    ]
}

const SETTING: Setting = Setting { revision: 1, damages: 0 };

#[test]
fn a_history_in_which_all_is_well_passes_the_checker() {
    let (violations, figures) = check(&sound(), SETTING);
    assert_eq!(violations, []);
    assert_eq!((figures.revisions, figures.killed, figures.killed_and_done), (7, 2, 1));
    // healed revisions have no write; there may be as many as damages
    let healed = vec![
        event(0, (0, 1), counts(10), Outcome::Committed(2)),
        event(0, (2, 3), Op::Read, saw(3, 1, &[10])),
        event(0, (4, 5), counts(11), Outcome::Committed(5)),
    ];
    assert_eq!(check(&healed, Setting { damages: 2, ..SETTING }).0, []);
    let rules: Vec<Rule> =
        check(&healed, Setting { damages: 1, ..SETTING }).0.iter().map(|broken| broken.0).collect();
    assert_eq!(rules, [Rule::NoGap]);
}

#[test]
fn the_checker_finds_every_kind_of_violation() {
    type Spoil = fn(&mut Vec<Event>);
    /// The event with this begin.
    fn at(events: &mut [Event], began: Moment) -> &mut Event {
        events.iter_mut().find(|event| event.began == began).unwrap()
    }
    let cases: [(&str, Rule, Spoil); 32] = [
        ("two writes are acknowledged with one revision", Rule::OneOwner, |events| {
            at(events, 3).outcome = Outcome::Committed(3);
        }),
        ("a refused write took place", Rule::OneRevision, |events| {
            at(events, 22).outcome = Outcome::Conflict
        }),
        ("a killed write took place twice", Rule::OneRevision, |events| {
            at(events, 51).outcome = saw(5, 2, &[11, 10, 12, 12]);
            at(events, 41).outcome = Outcome::Unknown;
        }),
        ("a revision is skipped", Rule::NoGap, |events| {
            at(events, 101).outcome = Outcome::Committed(9)
        }),
        ("a revision has no writer", Rule::NoGap, |events| {
            at(events, 110).outcome = saw(9, 6, &[11, 10, 12, 15, 16, 18, 19]);
        }),
        ("an update is lost", Rule::RightDocument, |events| {
            at(events, 24).outcome = saw(3, 1, &[10])
        }),
        ("a count is lost", Rule::RightDocument, |events| {
            at(events, 24).outcome = saw(3, 1, &[11, 10])
        }),
        ("two documents have one revision", Rule::RightDocument, |events| {
            events.push(event(9, (25, 26), Op::Read, saw(3, 9, &[11, 10])));
        }),
        ("a document comes from nowhere", Rule::NoGap, |events| {
            at(events, 110).outcome = saw(9, 7, &[11, 10, 12, 15, 16, 18, 19, 99]);
        }),
        ("an acknowledged write is not seen", Rule::RealTime, |events| {
            at(events, 51).outcome = saw(3, 2, &[11, 10])
        }),
        ("a write is seen before it began", Rule::RealTime, |events| {
            events.push(event(9, (0, 1), Op::Read, saw(2, 1, &[11])));
        }),
        ("a later write has a lower revision", Rule::RealTime, |events| {
            (at(events, 2).began, at(events, 3).began) = (0, 30);
            at(events, 30).ended = 31;
        }),
        ("a stale read between two fresh ones", Rule::RealTime, |events| {
            events.push(event(9, (52, 53), Op::Read, saw(4, 2, &[11, 10, 12])));
        }),
        ("a client goes back", Rule::NeverBack, |events| {
            events.push(event(1, (21, 22), Op::Read, saw(2, 1, &[11])));
        }),
        ("a condition was not met", Rule::Condition, |events| {
            at(events, 41).op = counts_after(15, 3)
        }),
        ("a condition was met and refused", Rule::Condition, |events| {
            events.push(event(1, (56, 58), counts_after(20, 5), Outcome::Conflict));
        }),
        ("a killed write whose condition was not met", Rule::Condition, |events| {
            at(events, 22).op =
                Op::Write { number: 12, change: Change::Note, only_after: Some(2), fence: None };
        }),
        ("a fenced write behind its release", Rule::Fence, |events| {
            at(events, 73).op = fenced(16, 6)
        }),
        ("a late fenced write", Rule::Fence, |events| at(events, 87).op = fenced(18, 7)),
        ("a dead owner's fenced write behind the next grant", Rule::Fence, |events| {
            at(events, 80).outcome = Outcome::Unknown;
            at(events, 87).op = fenced(18, 7);
        }),
        ("a fence that held was refused", Rule::Fence, |events| {
            events.push(event(5, (77, 78), fenced(21, 7), Outcome::Fenced));
        }),
        ("an earlier grant writes later", Rule::Fence, |events| {
            // both grants may be on record, and the earlier one's write is the later
            at(events, 80).ended = 94;
            at(events, 73).op = fenced(16, 8);
            at(events, 63).began = 60;
            at(events, 87).op = fenced(18, 7);
        }),
        ("a token is given twice", Rule::Token, |events| {
            at(events, 98).outcome = Outcome::Granted(9)
        }),
        ("a token goes back", Rule::Token, |events| at(events, 98).outcome = Outcome::Granted(6)),
        ("a lock is held twice", Rule::Exclusion, |events| at(events, 63).ended = 78),
        ("a lease ended, and the release does not say it", Rule::Exclusion, |events| {
            at(events, 130).outcome = Outcome::Released
        }),
        ("a grant whose lease ended fences a write", Rule::Fence, |events| {
            let op = Op::Write {
                number: 21,
                change: Change::Count,
                only_after: None,
                fence: Some(("b".to_owned(), 11)),
            };
            events.push(event(5, (127, 129), op, Outcome::Committed(9)));
        }),
        ("a write took place that said it did not", Rule::OneRevision, |events| {
            events.push(event(
                0,
                (141, 142),
                Op::Read,
                saw(9, 7, &[11, 10, 12, 15, 16, 18, 19, 20]),
            ));
        }),
        ("a released lock is listed as held", Rule::Exclusion, |events| {
            let listed = vec![("a".to_owned(), 5, Some(7))];
            events.push(event(0, (88, 89), Op::List, Outcome::Listed(listed)));
        }),
        ("two are listed as holders", Rule::Exclusion, |events| {
            let listed = vec![("a".to_owned(), 5, Some(7)), ("a".to_owned(), 6, Some(8))];
            events.push(event(0, (77, 78), Op::List, Outcome::Listed(listed)));
        }),
        ("a waiter is overtaken", Rule::Queue, |events| {
            (at(events, 63).outcome, at(events, 66).outcome) =
                (Outcome::Granted(9), Outcome::Granted(8));
        }),
        ("a stranger commits while the state is held", Rule::StateHeld, |events| {
            at(events, 101).client = 4
        }),
    ];
    let found: Vec<HashSet<Rule>> = cases
        .iter()
        .map(|(what, rule, spoil)| {
            let mut events = sound();
            spoil(&mut events);
            let rules: HashSet<Rule> =
                check(&events, SETTING).0.into_iter().map(|(rule, _)| rule).collect();
            assert!(rules.contains(rule), "{what}: {rules:?}");
            rules
        })
        .collect();
    println!(
        "{} violating histories, {} of one rule alone",
        found.len(),
        found.iter().filter(|rules| rules.len() == 1).count()
    );
}
