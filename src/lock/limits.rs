//! The size limits of lock files, which writers keep and readers rely on.
//!
//! A record too large for its reader would stand for a lock that no process can acquire or release,
//! and such a journal for half of a change. So a request that enlarges a record is refused unless
//! the record has room for it and for everything its entries can still grow into: the grant of each
//! waiter, the counts and times to live of each holder. An accepted request is never refused later.
//! A record that an earlier version let grow beyond the limit is read, and may only shrink.

use super::edit::RecordEdit;
use super::record::{Place, Record, Waiter};
use super::request::MAX_LOCKS;
use crate::error::{Error, Kind, Result};

/// The bytes that one record may need.
pub const RECORD: usize = 1 << 20;
/// The largest file in `.locks` that is read, in bytes: a journal of as many full records as can
/// change together. Its names and framing fit into the space of one more record.
pub const FILE: u64 = (MAX_LOCKS as u64 + 1) * RECORD as u64;
/// The growth of a waiter until it is a holder, in bytes: marks, token, count, time to live,
/// lifeline.
const ROOM_OF_A_WAITER: usize = 512;
/// The growth of a holder, in bytes: the digits of its count and its time to live.
const ROOM_OF_A_HOLDER: usize = 128;

/// The bytes that a record has, or may grow to without another request.
pub fn extent(record: &Record) -> usize {
    let stored = serde_json::to_vec(&record.stored()).map_or(usize::MAX, |bytes| bytes.len());
    let of_files = |waiter: &Waiter| match waiter.place {
        Place::Record => 0,
        Place::File { size, .. } => size as usize + 1,
    };
    let bytes = record.waiters.iter().map(of_files).fold(stored, usize::saturating_add);
    let room = record.waiters.len() * ROOM_OF_A_WAITER + record.holders.len() * ROOM_OF_A_HOLDER;
    bytes.saturating_add(room)
}

/// Refuses a change that adds a waiter or a grant to a record without room for it. Any other change
/// fits into the room that was set aside.
pub fn check(edit: &RecordEdit) -> Result<()> {
    let (before, now) = (edit.original(), &edit.record);
    let adds_grant = now.holders.iter().any(|grant| before.grant(grant.token).is_none());
    let adds_waiter = edit.moves().0.iter().any(|joining| joining.before.is_none());
    if !adds_grant && !adds_waiter {
        return Ok(());
    }
    let extent_now = extent(now);
    if extent_now <= RECORD || extent_now <= extent(before) {
        return Ok(());
    }
    let (name, holders, waiters) = (&edit.name, before.holders.len(), before.waiters.len());
    let message = format!(
        "the record of the lock {name} has no room for this request: it may have {} KiB, and \
         {holders} holders and {waiters} waiters are in it",
        RECORD >> 10
    );
    let notes = now.holders.iter().filter(|grant| grant.metadata.is_some()).count();
    let error = Error::new(Kind::TooLarge, message).detail("lock", name.as_str());
    Err(match notes {
        0 => error
            .hint_command("lock list", "list holders and waiters; try again when there are fewer"),
        _ => error
            .hint_command("lock list", "see the metadata of the others; note less with the lock"),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use std::time::{Duration, SystemTime};

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::lock::admission::{Admission, Now, Queued, admit};
    use crate::lock::files::encoding::{decode, encode};
    use crate::lock::files::journal::{PendingChange, WriteOp, write_ops};
    use crate::lock::identity::{Identity, Namespace};
    use crate::lock::lifeline::Lifeline;
    use crate::lock::queue::dequeue;
    use crate::lock::queue::tests::AllAlive;
    use crate::lock::record::{Mode, Token};
    use crate::lock::release::release_one;
    use crate::lock::request::{Deadline, Deadlocks, Reentrancy, Request, RequestSpec, Requester};
    use crate::name::Name;

    const NAMES: [&str; 3] = ["a", "b", "c"];

    #[derive(Clone, Debug)]
    enum Step {
        Request {
            script: u32,
            names: usize,
            shared: bool,
            reentrancy: bool,
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
            8 => ask.prop_map(|(script, names, shared, reentrancy, metadata, ttl)|
                Step::Request { script, names, shared, reentrancy, metadata, ttl }),
            2 => (2..20_u32, 0..3_usize).prop_map(|(script, name)| Step::Release { script, name }),
            1 => (2..20_u32).prop_map(|script| Step::GiveUp { script }),
        ]
    }

    fn process(pid: u32) -> Identity {
        let namespace = Namespace {
            boot: "b".repeat(36),
            machine: "m".repeat(32),
            host: "h".repeat(64),
            ..Namespace::default()
        };
        Identity { pid, start: u64::MAX, namespace: namespace.into() }
    }

    fn requester(script: u32) -> Requester {
        let owner = process(u32::MAX - script);
        Requester {
            ancestry: vec![owner.clone()],
            owner,
            explicit: false,
            process: process(script),
            env_tokens: Vec::new(),
        }
    }

    /// A root without a disk.
    struct Root {
        records: Vec<Record>,
        waiting: Vec<(Request, Vec<usize>)>,
        token: u64,
    }

    impl Root {
        fn edits(&self, names: &[usize]) -> Vec<RecordEdit> {
            let edit = |name: &usize| {
                RecordEdit::new(
                    &Name::parse("lock", NAMES[*name]).unwrap(),
                    self.records[*name].clone(),
                )
            };
            names.iter().map(edit).collect()
        }

        /// Stores as the gate does: all or nothing. Checks that every written file can be read
        /// back.
        fn store(&mut self, edits: &[RecordEdit]) -> Result<()> {
            let changed: Vec<&RecordEdit> = edits.iter().filter(|edit| edit.is_changed()).collect();
            changed.iter().try_for_each(|edit| check(edit))?;
            for write in write_ops(&changed).unwrap() {
                let (bytes, back) = match &write {
                    WriteOp::Record(_, Some(record)) => {
                        let bytes = encode(record);
                        let back = decode(&bytes).is_ok_and(|back| back == *record);
                        (bytes, back)
                    }
                    WriteOp::Journal(pending) => {
                        let bytes = pending.to_bytes().unwrap();
                        let back = PendingChange::parse(&bytes).is_some();
                        (bytes, back)
                    }
                    _ => continue,
                };
                assert!(
                    back && bytes.len() as u64 <= FILE,
                    "{} bytes cannot be read back",
                    bytes.len()
                );
            }
            for edit in edits {
                let place = NAMES.iter().position(|name| *name == edit.name.as_str()).unwrap();
                self.records[place] = edit.record.clone();
            }
            Ok(())
        }

        fn admit(&mut self, request: &Request, names: &[usize]) -> Option<Result<()>> {
            let mut edits = self.edits(names);
            let now =
                Now { time: SystemTime::UNIX_EPOCH, left: Duration::from_secs(4_000_000_000) };
            let is_free = match admit(&mut edits, request, now, &AllAlive) {
                Admission::Grantable => true,
                Admission::Queued(Queued::Newly) => false,
                _ => return None,
            };
            if is_free {
                for edit in &mut edits {
                    self.token += 1;
                    let token = Token::new(u64::MAX - 100_000 + self.token).unwrap();
                    edit.grant(request, token, SystemTime::UNIX_EPOCH, &AllAlive);
                }
            } else {
                for waiter in edits
                    .iter_mut()
                    .filter_map(|edit| edit.record.waiter_mut(&request.requester.process))
                {
                    waiter.lifeline = Some(Lifeline::random().unwrap());
                }
            }
            let stored = self.store(&edits);
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
                    .admit(&request, &names)
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

    fn is_of(request: &Request, script: u32) -> bool {
        request.requester.process.is(&process(script))
    }

    fn request(
        script: u32,
        names: &[usize],
        shared: bool,
        again: bool,
        metadata: usize,
        ttl: Option<f64>,
    ) -> Request {
        let spec = RequestSpec {
            reentrancy: if again { Reentrancy::Counted } else { Reentrancy::Refused },
            ..RequestSpec::hold(if shared { Mode::Shared } else { Mode::Exclusive })
        };
        let names = names.iter().map(|name| Name::parse("lock", NAMES[*name]).unwrap()).collect();
        let deadline = Deadline::after(Duration::ZERO);
        Request {
            command: "c".repeat(200),
            deadlocks: Deadlocks::Risked,
            metadata: (metadata > 0).then(|| json!({"m": "\\".repeat(metadata)})),
            ttl: ttl.map(Duration::from_secs_f64),
            live_file: Lifeline::parse(".live-4294967295-18446744073709551615-4026531836-0123abcd"),
            ..Request::new(names, spec, requester(script), deadline)
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(6))]
        #[test]
        fn accepted_requests_stay_accepted(steps in prop::collection::vec(step(), 1..50)) {
            let records = vec![Record::default(); 3];
            let mut root = Root { records, waiting: Vec::new(), token: 0 };
            for step in steps {
                match step {
                    Step::Request { script, names, shared, reentrancy, metadata, ttl } => {
                        let is_meant = |name: &usize| names >> name & 1 == 1;
                        let names: Vec<usize> = (0..3).filter(is_meant).collect();
                        if !root.waiting.iter().any(|(request, _)| is_of(request, script)) {
                            root.admit(
                                &request(script, &names, shared, reentrancy, metadata, ttl),
                                &names,
                            );
                        }
                    }
                    Step::Release { script, name } => {
                        let mut edits = root.edits(&[name]);
                        if release_one(&mut edits[0], None, &requester(script), &AllAlive).is_ok() {
                            root.store(&edits).expect("giving back makes a record smaller");
                        }
                    }
                    Step::GiveUp { script } => {
                        let mut edits = root.edits(&[0, 1, 2]);
                        for edit in &mut edits {
                            dequeue(&mut edit.record, &process(script));
                        }
                        root.store(&edits).expect("leaving makes a record smaller");
                        root.waiting.retain(|(request, _)| !is_of(request, script));
                    }
                }
                root.settle();
            }
            // All holders release, and every waiter gets its turn.
            for _ in 0..500 {
                let holder = |name: usize| root.records[name].holders.first()?.owner.clone();
                let held = (0..3).find_map(|name| Some((name, holder(name)?)));
                let Some((name, owner)) = held else { break };
                let mut edits = root.edits(&[name]);
                let owner = requester(u32::MAX - owner.pid);
                release_one(&mut edits[0], None, &owner, &AllAlive).unwrap();
                root.store(&edits).unwrap();
                root.settle();
            }
        }
    }

    /// A request of a process with a short record: no machine ID, a short host name.
    fn plain_request(script: u32, shared: bool, metadata: usize) -> Request {
        let identity = |pid| {
            let namespace =
                Namespace { boot: "b".repeat(36), host: "h".to_owned(), ..Namespace::default() };
            Identity { pid, start: 1, namespace: namespace.into() }
        };
        let (owner, process) = (identity(u32::MAX - script), identity(script));
        let requester =
            Requester { ancestry: vec![owner.clone()], owner, process, ..requester(script) };
        let ttl = Some(4e9 + 0.123_456);
        let request = Request { requester, ..request(script, &[0], shared, false, 0, ttl) };
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
        trial.admit(&plain_request(script, true, 1), &[0]).unwrap().unwrap();
        let left = RECORD - extent(&trial.records[0]);
        root.admit(&plain_request(script, true, 1 + left), &[0]).unwrap().unwrap();
        assert_eq!(extent(&root.records[0]), RECORD);
    }

    fn length(record: &Record) -> usize {
        serde_json::to_vec(record).unwrap().len()
    }

    #[test]
    fn a_full_record_marks_and_grants_every_waiter() {
        let mut root = Root { records: vec![Record::default(); 3], waiting: Vec::new(), token: 0 };
        root.admit(&plain_request(2, false, 0), &[0]).unwrap().unwrap();
        for script in 3..11 {
            root.admit(&plain_request(script, true, 0), &[0]).unwrap().unwrap();
        }
        fill_up(&mut root, 11);
        let refused = root.admit(&plain_request(12, true, 0), &[0]).unwrap().unwrap_err();
        assert_eq!(refused.kind, Kind::TooLarge);
        let mut edits = root.edits(&[0]);
        edits[0]
            .record
            .waiters
            .iter_mut()
            .for_each(|waiter| (waiter.passed_over, waiter.broken) = (true, true));
        root.store(&edits).unwrap();
        assert!(length(&root.records[0]) <= RECORD, "its marks have room");
        edits[0]
            .record
            .waiters
            .iter_mut()
            .for_each(|waiter| (waiter.passed_over, waiter.broken) = (false, false));
        root.store(&edits).unwrap();

        let mut edits = root.edits(&[0]);
        release_one(&mut edits[0], None, &plain_request(2, false, 0).requester, &AllAlive).unwrap();
        root.store(&edits).unwrap();
        root.settle();
        assert_eq!((root.records[0].holders.len(), root.waiting.len()), (9, 0), "all were granted");
    }

    #[test]
    fn a_full_record_counts_and_renews_every_holder() {
        let mut root = Root { records: vec![Record::default(); 3], waiting: Vec::new(), token: 0 };
        for script in 3..11 {
            let request = Request { ttl: None, ..plain_request(script, true, 0) };
            root.admit(&request, &[0]).unwrap().unwrap();
        }
        fill_up(&mut root, 11);
        let mut edits = root.edits(&[0]);
        for grant in &mut edits[0].record.holders {
            (grant.count, grant.ttl, grant.expires) =
                (u32::MAX, Some(4e9 + 0.123_456), Some(1.6e10 + 0.123_456));
        }
        root.store(&edits).unwrap();
        assert!(length(&root.records[0]) <= RECORD);
    }

    #[test]
    fn an_oversized_legacy_record_may_only_shrink() {
        let held = |count: u32| {
            let mut root =
                Root { records: vec![Record::default(); 3], waiting: Vec::new(), token: 0 };
            let mut edits = root.edits(&[0]);
            for script in 2..2 + count {
                let request = request(script, &[0], true, false, 32_000, None);
                root.token += 1;
                edits[0].grant(
                    &request,
                    Token::new(root.token).unwrap(),
                    SystemTime::UNIX_EPOCH,
                    &AllAlive,
                );
            }
            root.records[0] = edits[0].record.clone();
            root
        };
        let mut root = held(20);
        assert!(extent(&root.records[0]) > 2 * RECORD);
        assert!(decode(&encode(&root.records[0])).is_ok());
        let more = root.admit(&request(500, &[0], true, false, 0, None), &[0]).unwrap();
        assert_eq!(more.unwrap_err().kind, Kind::TooLarge);
        for script in 2..22 {
            let mut edits = root.edits(&[0]);
            release_one(&mut edits[0], None, &requester(script), &AllAlive).unwrap();
            root.store(&edits).unwrap();
        }
        assert!(root.records[0].is_empty());
    }
}
