//! Clients that read and write: through the library, and with commands that are killed.

use std::time::Duration;

use pipeline_state::error::{Error, Kind};
use pipeline_state::etcd::client::Patience;
use pipeline_state::store::Settings;
use pipeline_state::store::change::Outcome as Made;
use pipeline_state::store::options::WriteOptions;
use pipeline_state::store::remote::RemoteStore;
use serde_json::json;

use super::arena::{Client, Notes, fields};
use super::members::client_of_all;
use crate::history_checker::{Change, Op, Outcome, WINDOW};
use crate::stores::{Place, revision, settings};

/// So short that outcomes stay unknown. A writer that gives up in the queue leaves its place to
/// its lease, and others wait for that: so not shorter.
const PATIENCE: Patience =
    Patience { reach: Duration::from_secs(4), settle: Duration::from_secs(3) };

/// Reads and writes through the library until the history is over.
pub fn write_with_the_library(mut client: Client<'_>, place: &Place) -> Notes {
    let patient = Settings { lock_timeout: Duration::from_secs(5), ..settings() };
    let store = || place.store_of(client_of_all(PATIENCE), patient.clone());
    let mut kept = store();
    while !client.arena.is_over() {
        if client.dice.below(50) == 0 {
            kept = store();
        }
        match client.dice.below(10) {
            0..3 => client.read_through(&kept),
            3..7 => client.write_through(&kept, Change::Count, None),
            7 => client.write_through(&kept, Change::Note, None),
            _ => {
                let known = client.known.saturating_sub(client.dice.below(2) as u64);
                client.write_through(&kept, Change::Count, Some(known));
            }
        }
    }
    client.notes
}

/// Reads through the library, over and over.
pub fn read_with_the_library(mut client: Client<'_>, place: &Place) -> Notes {
    let store = place.store_of(client_of_all(PATIENCE), settings());
    while !client.arena.is_over() {
        client.read_through(&store);
        std::thread::sleep(Duration::from_millis(10));
    }
    client.notes
}

/// Reads and writes with commands, of which some are killed.
pub fn write_with_commands(mut client: Client<'_>) -> Notes {
    while !client.arena.is_over() {
        match client.dice.below(10) {
            0..3 => client.read(),
            3..7 => client.write(Change::Count, None, None, (None, 4)),
            7 => client.write(Change::Note, None, None, (None, 4)),
            _ => {
                let known = client.known.saturating_sub(client.dice.below(2) as u64);
                client.write(Change::Count, Some(known), None, (None, 4));
            }
        }
    }
    client.notes
}

impl Client<'_> {
    pub fn read_through(&mut self, store: &RemoteStore) {
        let began = self.arena.now();
        match store.read() {
            Ok(read) => {
                let value = read.value.into_value();
                self.note(began, Op::Read, Outcome::Saw(revision(&value), fields(&value)));
            }
            Err(error) => {
                assert_eq!(error.kind, Kind::Unreachable, "{error}");
                self.notes.count("reads that were refused");
            }
        }
    }

    pub fn write_through(&mut self, store: &RemoteStore, change: Change, only_after: Option<u64>) {
        let number = self.arena.number();
        let options = WriteOptions { if_revision: only_after, ..WriteOptions::of("update") };
        let began = self.arena.now();
        let made = store.change(&options, &mut |base| {
            let mut draft = base.draft();
            let mut document = fields(&base.value);
            document.recent.push(number);
            draft["register"] = json!(number);
            if change == Change::Count {
                draft["count"] = json!(document.count + 1);
                let older = document.recent.len().saturating_sub(WINDOW);
                document.recent.drain(..older);
            }
            draft["recent"] = json!(document.recent);
            Ok(draft.into())
        });
        let outcome = match made {
            Ok(Made::Committed { revision: made, .. }) => Outcome::Committed(made.get()),
            Ok(other) => panic!("{other:?}"),
            Err(error) => self.outcome_of_error(&error, number),
        };
        self.note(began, Op::Write { number, change, only_after, fence: None }, outcome);
    }

    fn outcome_of_error(&mut self, error: &Error, number: u64) -> Outcome {
        match error.kind {
            Kind::Conflict => Outcome::Conflict,
            Kind::Unreachable => Outcome::Refused,
            Kind::LockTimeout => {
                self.notes.count("writes that timed out in the queue");
                Outcome::Refused
            }
            Kind::Deadlock => {
                self.notes.count("writes that would have waited for their own children");
                Outcome::Refused
            }
            Kind::DurabilityUnknown => {
                let operation = error.details["operation"].as_str().unwrap().to_owned();
                self.notes.unknown.insert(number, operation);
                Outcome::Unknown
            }
            _ => panic!("{error:?}"),
        }
    }
}
