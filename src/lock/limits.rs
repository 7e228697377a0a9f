//! The size limits of lock files, which writers keep and readers rely on.
//!
//! A record too large for its reader would stand for a lock that no process can acquire or release,
//! and such a journal for half of a change. So a request that enlarges a record is refused unless
//! the record has room for it and for everything its entries can still grow into: the grant of each
//! waiter, the counts and times to live of each holder. An accepted request is never refused later.
//! A record that an earlier version let grow beyond the limit is read, and may only shrink.

use super::draft::Draft;
use super::record::Record;
use super::request::MOST_AT_ONCE;
use crate::error::{Error, Kind, Result};

/// The bytes that one record may need.
pub const RECORD: usize = 1 << 20;
/// The largest file in `.locks` that is read, in bytes: a journal of as many full records as can
/// change together. Its names and framing fit into the space of one more record.
pub const FILE: u64 = (MOST_AT_ONCE as u64 + 1) * RECORD as u64;
/// The growth of a waiter until it is a holder, in bytes: marks, token, count, time to live,
/// lifeline.
const ROOM_OF_A_WAITER: usize = 512;
/// The growth of a holder, in bytes: the digits of its count and its time to live.
const ROOM_OF_A_HOLDER: usize = 128;

/// The bytes that a record has, or may grow to without another request.
pub fn extent(record: &Record) -> usize {
    let bytes = serde_json::to_vec(record).map_or(usize::MAX, |bytes| bytes.len());
    let room = record.waiters.len() * ROOM_OF_A_WAITER + record.holders.len() * ROOM_OF_A_HOLDER;
    bytes.saturating_add(room)
}

/// Refuses a change that adds a waiter or a grant to a record without room for it. Any other change
/// fits into the room that was set aside.
pub fn check(draft: &Draft) -> Result<()> {
    let (before, now) = (draft.original(), &draft.record);
    let adds_grant = now.holders.iter().any(|grant| before.grant(grant.token).is_none());
    let adds_waiter = now.waiters.iter().any(|waiter| before.place_of(&waiter.process).is_none());
    if !adds_grant && !adds_waiter {
        return Ok(());
    }
    let extent_now = extent(now);
    if extent_now <= RECORD || extent_now <= extent(before) {
        return Ok(());
    }
    let (name, holders, waiters) = (&draft.name, before.holders.len(), before.waiters.len());
    let message = format!(
        "the record of the lock {name} has no room for this request: it may have {} KiB, and {holders} holders and {waiters} waiters are in it",
        RECORD >> 10
    );
    let notes = now.holders.iter().filter(|grant| grant.metadata.is_some()).count();
    let error = Error::new(Kind::TooLarge, message).detail("lock", name.as_str());
    Err(match notes {
        0 => error.try_command(
            "lock list",
            "see who holds it and who waits; try again when there are fewer",
        ),
        _ => error
            .try_command("lock list", "see the metadata of the others; note less with the lock"),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use std::time::{Duration, SystemTime};

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::lock::acquire::grant;
    use crate::lock::draft::Write;
    use crate::lock::draft::writes;
    use crate::lock::journal::Pending;
    use crate::lock::lifeline::Lifeline;
    use crate::lock::look::{Line, Verdict, ask};
    use crate::lock::process::{Identity, Place};
    use crate::lock::queue::tests::AllAreWell;
    use crate::lock::queue::{Again, Ask, Asker, leave};
    use crate::lock::record::{Mode, Purpose, Token};
    use crate::lock::release::give_up;
    use crate::lock::request::{Deadline, Deadlocks, Request};
    use crate::name::Name;

    const NAMES: [&str; 3] = ["a", "b", "c"];

    #[derive(Clone, Debug)]
    enum Step {
        Ask {
            script: u32,
            names: usize,
            shared: bool,
            again: bool,
            metadata: usize,
            ttl: Option<f64>,
        },
        Release {
            script: u32,
            name: usize,
        },
        GiveUp {
            script: u32,
        },
    }

    fn step() -> impl Strategy<Value = Step> {
        let metadata = prop_oneof![2 => Just(0), 2 => 0..2_000_usize, 3 => 20_000..32_700_usize];
        let ask = (
            2..20_u32,
            1..8_usize,
            any::<bool>(),
            any::<bool>(),
            metadata,
            prop::option::of(0.0..4e9_f64),
        );
        prop_oneof![
            8 => ask.prop_map(|(script, names, shared, again, metadata, ttl)|
                Step::Ask { script, names, shared, again, metadata, ttl }),
            2 => (2..20_u32, 0..3_usize).prop_map(|(script, name)| Step::Release { script, name }),
            1 => (2..20_u32).prop_map(|script| Step::GiveUp { script }),
        ]
    }

    fn process(pid: u32) -> Identity {
        let place = Place {
            boot: "b".repeat(36),
            machine: "m".repeat(32),
            host: "h".repeat(64),
            ..Place::default()
        };
        Identity { pid, start: u64::MAX, place }
    }

    fn asker(script: u32) -> Asker {
        let owner = process(u32::MAX - script);
        Asker {
            lineage: vec![owner.clone()],
            owner,
            is_named: false,
            process: process(script),
            shown: Vec::new(),
        }
    }

    /// A root without a disk.
    struct Root {
        records: Vec<Record>,
        waiting: Vec<(Request, Vec<usize>)>,
        token: u64,
    }

    impl Root {
        fn drafts(&self, names: &[usize]) -> Vec<Draft> {
            let draft = |name: &usize| {
                Draft::new(&Name::parse("lock", NAMES[*name]).unwrap(), self.records[*name].clone())
            };
            names.iter().map(draft).collect()
        }

        /// Stores as the gate does: all or nothing. Checks that every written file can be read
        /// back.
        fn store(&mut self, drafts: &[Draft]) -> Result<()> {
            let changed: Vec<&Draft> = drafts.iter().filter(|draft| draft.is_changed()).collect();
            changed.iter().try_for_each(|draft| check(draft))?;
            for write in writes(&changed).unwrap() {
                let (bytes, back) = match &write {
                    Write::Record(_, Some(record)) => {
                        let bytes = record.to_bytes();
                        let back = Record::parse(&bytes).is_ok_and(|back| back == *record);
                        (bytes, back)
                    }
                    Write::Journal(pending) => {
                        let bytes = pending.to_bytes().unwrap();
                        let back = Pending::parse(&bytes).is_some();
                        (bytes, back)
                    }
                    Write::Record(_, None) | Write::NoJournal => continue,
                };
                assert!(
                    back && bytes.len() as u64 <= FILE,
                    "{} bytes cannot be read back",
                    bytes.len()
                );
            }
            for draft in drafts {
                let place = NAMES.iter().position(|name| *name == draft.name.as_str()).unwrap();
                self.records[place] = draft.record.clone();
            }
            Ok(())
        }

        fn ask(&mut self, request: &Request, names: &[usize]) -> Option<Result<()>> {
            let mut drafts = self.drafts(names);
            let now = (SystemTime::UNIX_EPOCH, Duration::from_secs(4_000_000_000));
            let is_free = match ask(&mut drafts, request, now, &AllAreWell) {
                Verdict::Free => true,
                Verdict::Waits(Line::Joined) => false,
                _ => return None,
            };
            if is_free {
                for draft in &mut drafts {
                    self.token += 1;
                    let token = Token::new(u64::MAX - 100_000 + self.token).unwrap();
                    grant(draft, request, (token, SystemTime::UNIX_EPOCH), &AllAreWell);
                }
            } else {
                for waiter in drafts
                    .iter_mut()
                    .filter_map(|draft| draft.record.waiter_mut(&request.asker.process))
                {
                    waiter.lifeline = Some(Lifeline::random().unwrap());
                }
            }
            let stored = self.store(&drafts);
            if stored.is_ok() && !is_free {
                self.waiting.push((request.clone(), names.to_vec()));
            }
            Some(stored)
        }

        /// Grants the locks of every waiter that is no longer blocked; none may be refused.
        fn settle(&mut self) {
            let mut place = 0;
            while let Some((request, names)) = self.waiting.get(place).cloned() {
                let is_granted = self
                    .ask(&request, &names)
                    .map(|stored| stored.expect("what was accepted is refused"));
                if is_granted.is_some() {
                    self.waiting.remove(place);
                    place = 0;
                } else {
                    place += 1;
                }
            }
        }
    }

    fn request(
        script: u32,
        names: &[usize],
        (shared, again): (bool, bool),
        metadata: usize,
        ttl: Option<f64>,
    ) -> Request {
        let note = |length| json!({"m": "\\".repeat(length)});
        Request {
            names: names.iter().map(|name| Name::parse("lock", NAMES[*name]).unwrap()).collect(),
            ask: Ask {
                mode: if shared { Mode::Shared } else { Mode::Exclusive },
                purpose: Purpose::Hold,
                again: if again { Again::Counted } else { Again::Refused },
            },
            asker: asker(script),
            command: "c".repeat(200),
            deadline: Deadline::after(Duration::ZERO),
            deadlocks: Deadlocks::Risked,
            metadata: (metadata > 0).then(|| -> Value { note(metadata) }),
            ttl: ttl.map(Duration::from_secs_f64),
            live_file: Lifeline::parse(".live-4294967295-18446744073709551615-4026531836-0123abcd"),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(6))]
        #[test]
        fn accepted_requests_stay_accepted(steps in prop::collection::vec(step(), 1..50)) {
            let mut root = Root { records: vec![Record::default(); 3], waiting: Vec::new(), token: 0 };
            for step in steps {
                match step {
                    Step::Ask { script, names, shared, again, metadata, ttl } => {
                        let names: Vec<usize> = (0..3).filter(|name| names >> name & 1 == 1).collect();
                        if root.waiting.iter().all(|(request, _)| !request.asker.process.is(&process(script))) {
                            let request = request(script, &names, (shared, again), metadata, ttl);
                            root.ask(&request, &names);
                        }
                    }
                    Step::Release { script, name } => {
                        let mut drafts = root.drafts(&[name]);
                        if give_up(&mut drafts[0], None, &asker(script), &AllAreWell).is_ok() {
                            root.store(&drafts).expect("giving back makes a record smaller");
                        }
                    }
                    Step::GiveUp { script } => {
                        let mut drafts = root.drafts(&[0, 1, 2]);
                        drafts.iter_mut().for_each(|draft| leave(&mut draft.record, &process(script)));
                        root.store(&drafts).expect("leaving makes a record smaller");
                        root.waiting.retain(|(request, _)| !request.asker.process.is(&process(script)));
                    }
                }
                root.settle();
            }
            // All holders release, and every waiter gets its turn.
            for _ in 0..500 {
                let Some((name, owner)) = (0..3).find_map(|name| {
                    root.records[name].holders.first().and_then(|grant| Some((name, grant.owner.clone()?)))
                }) else { break };
                let mut drafts = root.drafts(&[name]);
                give_up(&mut drafts[0], None, &asker(u32::MAX - owner.pid), &AllAreWell).unwrap();
                root.store(&drafts).unwrap();
                root.settle();
            }
        }
    }

    /// A request of a process with a short record: no machine ID, a short host name.
    fn plain_request(script: u32, shared: bool, metadata: usize) -> Request {
        let identity = |pid| {
            let place = Place { boot: "b".repeat(36), host: "h".to_owned(), ..Place::default() };
            Identity { pid, start: 1, place }
        };
        let (owner, process) = (identity(u32::MAX - script), identity(script));
        let asker = Asker { lineage: vec![owner.clone()], owner, process, ..asker(script) };
        let ttl = Some(4e9 + 0.123_456);
        let request = Request { asker, ..request(script, &[0], (shared, false), 0, ttl) };
        Request {
            command: "c".to_owned(),
            metadata: (metadata > 0).then(|| json!({"m": "x".repeat(metadata)})),
            ..request
        }
    }

    /// Fills the lock's record to the last byte.
    fn fill_up(root: &mut Root, script: u32) {
        let mut trial =
            Root { records: root.records.clone(), waiting: Vec::new(), token: root.token };
        trial.ask(&plain_request(script, true, 1), &[0]).unwrap().unwrap();
        let left = RECORD - extent(&trial.records[0]);
        root.ask(&plain_request(script, true, 1 + left), &[0]).unwrap().unwrap();
        assert_eq!(extent(&root.records[0]), RECORD);
    }

    fn length(record: &Record) -> usize {
        serde_json::to_vec(record).unwrap().len()
    }

    #[test]
    fn a_full_record_marks_and_grants_every_waiter() {
        let mut root = Root { records: vec![Record::default(); 3], waiting: Vec::new(), token: 0 };
        root.ask(&plain_request(2, false, 0), &[0]).unwrap().unwrap();
        for script in 3..11 {
            root.ask(&plain_request(script, true, 0), &[0]).unwrap().unwrap();
        }
        fill_up(&mut root, 11);
        let refused = root.ask(&plain_request(12, true, 0), &[0]).unwrap().unwrap_err();
        assert_eq!(refused.kind, Kind::TooLarge);
        let mut drafts = root.drafts(&[0]);
        drafts[0]
            .record
            .waiters
            .iter_mut()
            .for_each(|waiter| (waiter.passed_over, waiter.broken) = (true, true));
        root.store(&drafts).unwrap();
        assert!(length(&root.records[0]) <= RECORD, "its marks have room");
        drafts[0]
            .record
            .waiters
            .iter_mut()
            .for_each(|waiter| (waiter.passed_over, waiter.broken) = (false, false));
        root.store(&drafts).unwrap();

        let mut drafts = root.drafts(&[0]);
        give_up(&mut drafts[0], None, &plain_request(2, false, 0).asker, &AllAreWell).unwrap();
        root.store(&drafts).unwrap();
        root.settle();
        assert_eq!((root.records[0].holders.len(), root.waiting.len()), (9, 0), "all were granted");
    }

    #[test]
    fn a_full_record_counts_and_renews_every_holder() {
        let mut root = Root { records: vec![Record::default(); 3], waiting: Vec::new(), token: 0 };
        for script in 3..11 {
            let request = Request { ttl: None, ..plain_request(script, true, 0) };
            root.ask(&request, &[0]).unwrap().unwrap();
        }
        fill_up(&mut root, 11);
        let mut drafts = root.drafts(&[0]);
        for grant in &mut drafts[0].record.holders {
            (grant.count, grant.ttl, grant.expires) =
                (u32::MAX, Some(4e9 + 0.123_456), Some(1.6e10 + 0.123_456));
        }
        root.store(&drafts).unwrap();
        assert!(length(&root.records[0]) <= RECORD);
    }

    #[test]
    fn an_oversized_legacy_record_may_only_shrink() {
        let held = |count: u32| {
            let mut root =
                Root { records: vec![Record::default(); 3], waiting: Vec::new(), token: 0 };
            let mut drafts = root.drafts(&[0]);
            for script in 2..2 + count {
                let request = request(script, &[0], (true, false), 32_000, None);
                root.token += 1;
                grant(
                    &mut drafts[0],
                    &request,
                    (Token::new(root.token).unwrap(), SystemTime::UNIX_EPOCH),
                    &AllAreWell,
                );
            }
            root.records[0] = drafts[0].record.clone();
            root
        };
        let mut root = held(20);
        assert!(extent(&root.records[0]) > 2 * RECORD);
        assert!(Record::parse(&root.records[0].to_bytes()).is_ok());
        let more = root.ask(&request(500, &[0], (true, false), 0, None), &[0]).unwrap();
        assert_eq!(more.unwrap_err().kind, Kind::TooLarge);
        for script in 2..22 {
            let mut drafts = root.drafts(&[0]);
            give_up(&mut drafts[0], None, &asker(script), &AllAreWell).unwrap();
            root.store(&drafts).unwrap();
        }
        assert!(root.records[0].is_empty());
    }
}
