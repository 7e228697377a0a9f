//! What the cluster itself has on record: every value that the keys of a store ever had, and
//! whether that agrees with what the clients heard.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bytes::Bytes;
use pipeline_state::etcd::address::Address;
use pipeline_state::etcd::credentials::Credentials;
use pipeline_state::etcd::endpoints::Endpoints;
use pipeline_state::etcd::messages::{Event as Change, EventKind, KeyValue, WatchResponse};
use pipeline_state::etcd::txn::Keys;
use pipeline_state::etcd::wire::{Call, Method, Wire as _};
use prost::Message;

use super::arena::{Notes, seen};
use crate::history_checker::{Document, Event, Moment, Op, Outcome};

/// Opens a watch of the past.
#[derive(Clone, PartialEq, prost::Message)]
struct WatchRequest {
    #[prost(message, optional, tag = "1")]
    create: Option<WatchCreateRequest>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WatchCreateRequest {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    range_end: Bytes,
    #[prost(int64, tag = "3")]
    start_revision: i64,
    /// Long answers come in parts.
    #[prost(bool, tag = "8")]
    fragment: bool,
}

/// A document that was put.
#[derive(Clone, Debug)]
struct Put {
    /// The cluster's revision.
    at: i64,
    revision: u64,
    document: Document,
}

/// A record of the log that was put.
#[derive(Clone, Debug)]
struct Logged {
    at: i64,
    revision: u64,
    operation: String,
}

/// A grant, from its token on.
#[derive(Clone, Debug)]
struct Hold {
    lock: String,
    key: Bytes,
    token: i64,
    is_exclusive: bool,
    /// The cluster's revision at its end.
    until: i64,
}

/// All that a store's keys ever were.
#[derive(Clone, Debug, Default)]
pub struct Record {
    puts: Vec<Put>,
    log: Vec<Logged>,
    holds: Vec<Hold>,
}

/// Counts of a record.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    pub acknowledged: u64,
    /// Writes of unknown outcome; below, those of them that were carried out.
    pub unknown: u64,
    pub unknown_and_done: u64,
    pub grants: usize,
}

impl Record {
    /// Reads the record of a store, up to the revision that `last` was put at.
    pub fn read(url: &str, last: &KeyValue) -> Self {
        let address = Address::parse(url).unwrap();
        let wire = Endpoints::new(&address, Credentials::default()).unwrap();
        let (key, range_end) = Keys::below(&format!("{}/", address.prefix)).bounds();
        let create = WatchCreateRequest { key, range_end, start_revision: 1, fragment: true };
        let message = WatchRequest { create: Some(create) }.encode_to_vec().into();
        let deadline = Instant::now() + Duration::from_secs(120);
        let call = Call { method: Method::Watch, message, more: Vec::new(), token: None, deadline };
        let mut stream = wire.stream(&call).unwrap();
        let mut record = Self::default();
        loop {
            let message = stream.next(deadline, &[]).unwrap().expect("the end of the record");
            let answer = WatchResponse::decode(message).unwrap();
            assert!(!answer.canceled, "{}", answer.cancel_reason);
            for change in answer.events {
                let kv = change.kv.as_ref().unwrap();
                if kv.key == last.key && kv.mod_revision == last.mod_revision {
                    return record;
                }
                record.take(&address.prefix, &change);
            }
        }
    }

    fn take(&mut self, prefix: &str, change: &Change) {
        let kv = change.kv.as_ref().unwrap();
        let key = std::str::from_utf8(&kv.key).unwrap();
        let key = key.strip_prefix(prefix).unwrap().trim_start_matches('/');
        let is_put = change.kind == EventKind::Put as i32;
        let words: Vec<&str> = key.split('/').collect();
        match words[..] {
            ["state"] if is_put => {
                let (revision, document) = seen(&kv.value);
                self.puts.push(Put { at: kv.mod_revision, revision, document });
            }
            ["log", revision] if is_put => self.log.push(Logged {
                at: kv.mod_revision,
                revision: revision.parse().unwrap(),
                operation: std::str::from_utf8(&kv.value).unwrap().lines().next().unwrap().into(),
            }),
            ["hold", lock, _] => self.take_hold(lock, kv, is_put),
            _ => {}
        }
    }

    fn take_hold(&mut self, lock: &str, kv: &KeyValue, is_put: bool) {
        if is_put && kv.version == 1 {
            let value: serde_json::Value = serde_json::from_slice(&kv.value).unwrap();
            self.holds.push(Hold {
                lock: lock.to_owned(),
                key: kv.key.clone(),
                token: kv.create_revision,
                is_exclusive: value["grant"]["mode"] == "exclusive",
                until: i64::MAX,
            });
        }
        if !is_put {
            let held = self.holds.iter_mut().rev().find(|hold| hold.key == kv.key);
            held.unwrap().until = kv.mod_revision;
        }
    }

    /// The documents, as reads of a client that saw them at some time.
    pub fn as_reads(&self, client: usize) -> impl Iterator<Item = Event> {
        self.puts.iter().map(move |put| Event {
            client,
            began: 0,
            ended: Moment::MAX,
            op: Op::Read,
            outcome: Outcome::Saw(put.revision, put.document.clone()),
        })
    }

    /// Returns all that is wrong, and the counts.
    pub fn check(&self, notes: &Notes) -> (Vec<String>, Figures) {
        let mut wrong = self.wrong_log();
        wrong.extend(self.wrong_holds());
        let done: BTreeMap<u64, &Put> =
            self.puts.iter().map(|put| (put.document.register, put)).collect();
        let by_revision: BTreeMap<u64, &Logged> =
            self.log.iter().map(|logged| (logged.revision, logged)).collect();
        let mut figures = Figures { grants: self.holds.len(), ..Figures::default() };
        for event in &notes.events {
            if let (Op::Acquire { lock, .. }, Outcome::Granted(token)) = (&event.op, &event.outcome)
                && self.hold(lock, *token).is_none()
            {
                wrong.push(format!("the grant was never on record: {event:?}"));
            }
            let Op::Write { number, fence, .. } = &event.op else { continue };
            let put = done.get(number).copied();
            match event.outcome {
                Outcome::Committed(revision) => {
                    figures.acknowledged += 1;
                    if put.is_none_or(|put| put.revision != revision) {
                        wrong.push(format!("acknowledged and not on record: {event:?}"));
                    }
                }
                Outcome::Unknown => {
                    figures.unknown += 1;
                    figures.unknown_and_done += u64::from(put.is_some());
                }
                _ => {}
            }
            if let (Some((lock, token)), Some(put)) = (fence, put)
                && self
                    .hold(lock, *token)
                    .is_none_or(|hold| put.at <= hold.token || hold.until <= put.at)
            {
                wrong.push(format!("committed past the end of its fence: {event:?}, {put:?}"));
            }
            if let Some(operation) = notes.unknown.get(number) {
                let logged = put.and_then(|put| by_revision.get(&put.revision));
                let is_logged = self.log.iter().any(|logged| logged.operation == *operation);
                if is_logged != put.is_some()
                    || logged.is_some_and(|logged| logged.operation != *operation)
                {
                    wrong
                        .push(format!("operation {operation}, in the log: {is_logged}: {event:?}"));
                }
            }
        }
        let counted = self.puts.len() as u64 - Self::BEFORE;
        if counted != figures.acknowledged + figures.unknown_and_done {
            wrong.push(format!("{counted} revisions: {figures:?}"));
        }
        (wrong, figures)
    }

    /// The revisions before the clients': `init`, and the fields that they use.
    pub const BEFORE: u64 = 2;

    fn hold(&self, lock: &str, token: u64) -> Option<&Hold> {
        self.holds.iter().find(|hold| hold.lock == lock && hold.token as u64 == token)
    }

    /// Each revision was put once, in order, with its record, and each operation once.
    fn wrong_log(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut operations = BTreeSet::new();
        if self.puts.len() != self.log.len() {
            wrong.push(format!("{} documents, {} records", self.puts.len(), self.log.len()));
        }
        for ((put, logged), revision) in self.puts.iter().zip(&self.log).zip(1..) {
            let are_one = (put.revision, put.at) == (logged.revision, logged.at);
            if !are_one || put.revision != revision {
                wrong.push(format!("revision {revision}: {put:?}, {logged:?}"));
            }
            if !operations.insert(&logged.operation) {
                wrong.push(format!("twice: {logged:?}"));
            }
        }
        wrong
    }

    /// No two grants are held at once if one of them is exclusive.
    fn wrong_holds(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for (at, later) in self.holds.iter().enumerate() {
            let is_held = |hold: &&Hold| hold.lock == later.lock && later.token < hold.until;
            for earlier in self.holds[..at].iter().filter(is_held) {
                if earlier.is_exclusive || later.is_exclusive {
                    wrong.push(format!("held at once: {earlier:?} and {later:?}"));
                }
            }
        }
        wrong
    }
}

// ---- the check itself ----

/// Three revisions and two grants, all of them right.
fn sound() -> (Record, Notes) {
    let put = |at, revision, number| Put {
        at,
        revision,
        document: Document { register: number, ..Document::default() },
    };
    let logged =
        |at, revision, operation: &str| Logged { at, revision, operation: operation.to_owned() };
    let hold = |token, until| Hold {
        lock: "a".to_owned(),
        key: Bytes::new(),
        token,
        is_exclusive: true,
        until,
    };
    let write = |number, fence: Option<u64>, outcome| Event {
        client: 0,
        began: 0,
        ended: 1,
        op: Op::Write {
            number,
            change: crate::history_checker::Change::Count,
            only_after: None,
            fence: fence.map(|token| ("a".to_owned(), token)),
        },
        outcome,
    };
    let record = Record {
        puts: vec![put(3, 1, 0), put(4, 2, 0), put(6, 3, 10), put(9, 4, 11)],
        log: vec![logged(3, 1, "w"), logged(4, 2, "x"), logged(6, 3, "y"), logged(9, 4, "z")],
        holds: vec![hold(5, 8), hold(8, 12)],
    };
    let acquired = Op::Acquire { lock: "a".to_owned(), exclusive: true, once: true };
    let events = vec![
        Event { client: 0, began: 0, ended: 1, op: acquired, outcome: Outcome::Granted(5) },
        write(10, Some(5), Outcome::Committed(3)),
        write(11, None, Outcome::Unknown),
        write(12, None, Outcome::Unknown),
        write(13, Some(5), Outcome::Fenced),
    ];
    let unknown = [(11, "z".to_owned()), (12, "lost".to_owned())].into();
    (record, Notes { events, unknown, ..Notes::default() })
}

#[test]
fn a_record_of_which_all_is_right_passes() {
    let (record, notes) = sound();
    let (wrong, figures) = record.check(&notes);
    assert_eq!(wrong, Vec::<String>::new());
    let Figures { acknowledged, unknown, unknown_and_done, grants } = figures;
    assert_eq!((acknowledged, unknown, unknown_and_done, grants), (1, 2, 1, 2));
}

#[test]
fn each_kind_of_wrong_record_is_found() {
    type Spoil = fn(&mut Record, &mut Notes);
    let cases: [(&str, &str, Spoil); 11] = [
        ("a revision is missing", "revision 3", |record, _| {
            (record.puts[2].revision, record.log[2].revision) = (4, 4);
        }),
        ("a revision was put twice", "revision 4", |record, _| {
            (record.puts[3].revision, record.log[3].revision) = (3, 3);
        }),
        ("a document without its record", "4 documents, 3 records", |record, _| {
            record.log.pop();
        }),
        ("a record of another transaction", "revision 3", |record, _| record.log[2].at = 7),
        ("an operation was carried out twice", "twice", |record, _| {
            record.log[3].operation = "y".to_owned();
        }),
        ("what was acknowledged is not there", "acknowledged and not on record", |_, notes| {
            notes.events[1].outcome = Outcome::Committed(4);
        }),
        ("a refused write is there", "revisions:", |_, notes| {
            notes.events[2].outcome = Outcome::Refused;
            notes.unknown.clear();
        }),
        ("an unknown write was another operation", "operation q", |_, notes| {
            notes.unknown.insert(11, "q".to_owned());
        }),
        ("two grants at once", "held at once", |record, _| record.holds[0].until = 9),
        ("a grant that never was", "never on record", |_, notes| {
            notes.events[0].outcome = Outcome::Granted(7);
        }),
        ("a fence that had ended", "past the end of its fence", |record, _| {
            record.holds[0].until = 6;
        }),
    ];
    for (what, expected, spoil) in cases {
        let (mut record, mut notes) = sound();
        spoil(&mut record, &mut notes);
        let wrong = record.check(&notes).0;
        assert!(wrong.iter().any(|wrong| wrong.contains(expected)), "{what}: {wrong:?}");
    }
}
