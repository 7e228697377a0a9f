//! The events of a root: what a line of the journal says.
//!
//! Each kind is a struct with the fields of its line. A reader accepts a line whole or skips
//! it. An unknown kind or version is skipped without a warning, so that later programs can add
//! kinds.

mod commit;
mod lock;
mod recovery;
pub mod totals;
mod words;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

pub use self::commit::{Commit, REASON_LIMIT, RESTORE, action_of};
pub use self::lock::{Blocker, LockEvent, LockMode, LockStep, Party, Role};
pub use self::recovery::{
    CheckpointEvent, CheckpointStep, Failure, GUARDS_LIMIT, GuardEvent, GuardStep, RestoreEvent,
    RestoreStep, RetryEvent, RetryStep,
};
use self::totals::Totals;
pub use super::line::{LINE_LIMIT, Skipped};
use super::line::{VERSION, seal, unseal};
pub use super::origin::{Origin, Owner};

/// The most processes that a line names of those that a request waited for.
pub const BLOCKERS_LIMIT: usize = 3;

/// One event.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A revision was committed.
    Commit(Commit),
    /// A lock was granted, given back or taken away, or a wait for it ended.
    Lock(LockEvent),
    /// A checkpoint was made or removed.
    Checkpoint(CheckpointEvent),
    /// A checkpoint was restored, or a restore undone.
    Restore(RestoreEvent),
    /// A step of a guard.
    Guard(GuardEvent),
    /// A step of `recover retry`.
    Retry(RetryEvent),
    /// A command was refused or failed.
    Failure(Failure),
    /// The totals of the events before it.
    Totals(Totals),
}

impl Event {
    /// Its time and author; totals have none.
    pub fn origin(&self) -> Option<&Origin> {
        Some(match self {
            Self::Commit(Commit { origin, .. })
            | Self::Lock(LockEvent { origin, .. })
            | Self::Checkpoint(CheckpointEvent { origin, .. })
            | Self::Restore(RestoreEvent { origin, .. })
            | Self::Guard(GuardEvent { origin, .. })
            | Self::Retry(RetryEvent { origin, .. })
            | Self::Failure(Failure { origin, .. }) => origin,
            Self::Totals(_) => return None,
        })
    }

    /// The name of its kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Commit(_) => "commit",
            Self::Lock(_) => "lock",
            Self::Checkpoint(_) => "checkpoint",
            Self::Restore(_) => "restore",
            Self::Guard(_) => "guard",
            Self::Retry(_) => "retry",
            Self::Failure(_) => "failure",
            Self::Totals(_) => "totals",
        }
    }

    /// The line, between line feeds; `None` if it cannot be written in [`LINE_LIMIT`]. Until it
    /// fits, changes of a commit are dropped, and then its reason is shortened.
    pub fn to_line(&self) -> Option<String> {
        let mut line = seal(&self.to_value()?);
        let mut event = None;
        while line.len() > LINE_LIMIT {
            let Self::Commit(commit) = event.get_or_insert_with(|| self.clone()) else {
                return None;
            };
            if !commit.shorten() {
                return None;
            }
            line = seal(&event.as_ref()?.to_value()?);
        }
        Some(line)
    }

    /// Reads a line without its line feeds.
    pub fn parse(line: &[u8]) -> Result<Self, Skipped> {
        fn of<T: DeserializeOwned>(value: &Value) -> Option<T> {
            serde_json::from_value(value.clone()).ok()
        }
        let value = unseal(line)?;
        let kind = value.get("event").and_then(Value::as_str).ok_or(Skipped::Damaged)?;
        let event = match kind {
            "commit" => Commit::of(&value).map(Self::Commit),
            "lock" => of(&value).map(Self::Lock),
            "checkpoint" => of(&value).map(Self::Checkpoint),
            "restore" => of(&value).map(Self::Restore),
            "guard" => of(&value).map(Self::Guard),
            "retry" => of(&value).map(Self::Retry),
            "failure" => of(&value).map(Self::Failure),
            "totals" => Totals::read(&value).map(Self::Totals),
            _ => return Err(Skipped::Unknown),
        };
        event.ok_or(Skipped::Damaged)
    }

    /// The event as the JSON object of its line, without the sum.
    pub fn to_value(&self) -> Option<Value> {
        fn of(event: &impl Serialize) -> Option<Map<String, Value>> {
            match serde_json::to_value(event).ok()? {
                Value::Object(fields) => Some(fields),
                _ => None,
            }
        }
        let own = match self {
            Self::Commit(commit) => commit.to_fields(),
            Self::Lock(event) => of(event),
            Self::Checkpoint(event) => of(event),
            Self::Restore(event) => of(event),
            Self::Guard(event) => of(event),
            Self::Retry(event) => of(event),
            Self::Failure(event) => of(event),
            Self::Totals(totals) => Some(totals.to_fields()),
        }?;
        let mut fields = Map::with_capacity(own.len() + 2);
        fields.insert("v".into(), VERSION.into());
        fields.insert("event".into(), self.kind().into());
        fields.extend(own);
        Some(Value::Object(fields))
    }
}

/// Seconds as a text with six decimals, which every reader reads alike.
pub(super) mod seconds {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    #[allow(clippy::trivially_copy_pass_by_ref)] // as serde calls it
    pub fn is_zero(seconds: &f64) -> bool {
        *seconds == 0.0
    }

    pub fn parse(text: &str) -> Option<f64> {
        text.parse().ok().filter(|seconds: &f64| seconds.is_finite() && *seconds >= 0.0)
    }

    #[allow(clippy::trivially_copy_pass_by_ref)] // as serde calls it
    pub fn serialize<S: Serializer>(seconds: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format!("{seconds:.6}"))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse(&text).ok_or_else(|| D::Error::custom("not a number of seconds"))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::document::seal::{Digest, Lineage, Revision};
    use crate::journal::changes::{Change, Changes};

    fn event(
        reason: String,
        program: String,
        changes: Option<Changes>,
        guards: Vec<String>,
    ) -> Event {
        Event::Commit(Commit {
            origin: Origin {
                time: "2026-01-02T03:04:05.678Z".into(),
                pid: u32::MAX,
                owner: Owner {
                    pid: u32::MAX,
                    uid: u32::MAX,
                    host: "\u{1}".repeat(300),
                    program,
                    start: Some(u64::MAX),
                },
            },
            lineage: Lineage::from_bytes([1; 16]),
            revision: Revision::new(Revision::MAX).unwrap(),
            digest: Digest::of(b"x"),
            command: "state set".into(),
            reason: Some(reason),
            waited: 0.25,
            blockers: vec![],
            bytes: 16 << 20,
            repeats: None,
            changes,
            guards,
        })
    }

    fn changes() -> impl Strategy<Value = Option<Changes>> {
        let change = prop_oneof![
            ".{0,200}".prop_map(|path| Change::Path(format!(".x{path}"))),
            (".{0,200}", ".{0,200}")
                .prop_map(|(old, new)| Change::Phase { old: Some(old), new: Some(new) }),
            (".{0,200}", any::<bool>())
                .prop_map(|(name, is_added)| Change::Task { name, is_added }),
        ];
        let list = prop::collection::vec(change, 0..=20);
        prop::option::of((list, 0_usize..9).prop_map(|(list, more)| Changes { list, more }))
    }

    proptest! {
        #[test]
        fn an_event_round_trips_as_one_line(
            reason in any::<String>(), program in any::<String>(), changes in changes(),
            guards in prop::collection::vec("[a-z0-9-]{1,140}", 0..=GUARDS_LIMIT),
        ) {
            let line = event(reason.clone(), program, changes, guards.clone()).to_line().unwrap();
            prop_assert!(line.len() <= LINE_LIMIT);
            let inner = line.strip_prefix('\n').unwrap().strip_suffix('\n').unwrap();
            prop_assert!(!inner.contains('\n'));
            let Ok(Event::Commit(read)) = Event::parse(inner.as_bytes()) else {
                return Err(TestCaseError::fail(line));
            };
            prop_assert!(reason.starts_with(read.reason.as_deref().unwrap()));
            if reason.len() < 200 { prop_assert_eq!(read.reason, Some(reason)); }
            prop_assert_eq!(read.guards, guards);
        }
    }

    #[test]
    fn a_line_detects_changed_bytes() {
        let line = event("why".into(), "deploy.sh".into(), None, vec![]).to_line().unwrap();
        let line = line.trim().as_bytes();
        for at in 0..line.len() {
            let mut other = line.to_vec();
            other[at] ^= 1;
            assert!(Event::parse(&other).is_err(), "byte {at}");
            assert!(Event::parse(&line[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_later_version_or_kind_is_unknown_and_not_damaged() {
        let line = |value| seal(&value).trim().to_owned();
        assert_eq!(
            Event::parse(line(json!({"v": 2, "event": "commit"})).as_bytes()),
            Err(Skipped::Unknown)
        );
        assert_eq!(
            Event::parse(line(json!({"v": 1, "event": "later"})).as_bytes()),
            Err(Skipped::Unknown)
        );
        assert_eq!(
            Event::parse(line(json!({"v": 1, "event": "commit"})).as_bytes()),
            Err(Skipped::Damaged)
        );
    }

    /// An event of each kind but commits and totals, with the longest texts that fit.
    fn widest() -> Vec<Event> {
        let long = "\u{1}".repeat(2000);
        let owner = Owner {
            pid: u32::MAX,
            uid: u32::MAX,
            host: long.clone(),
            program: long.clone(),
            start: Some(u64::MAX),
        };
        let origin = Origin { time: "2026-01-02T03:04:05.678Z".into(), pid: u32::MAX, owner };
        let party = Party {
            pid: Some(u32::MAX),
            program: long.clone(),
            host: String::new(),
            token: Some(u64::MAX),
        };
        let blocker = Blocker { role: Role::Waiter, party: party.clone() };
        vec![
            Event::Lock(LockEvent {
                origin: origin.clone(),
                lock: "n".repeat(128),
                step: LockStep::WaitBroken,
                mode: Some(LockMode::Exclusive),
                token: Some(u64::MAX),
                waited: 1e9,
                blockers: vec![blocker; BLOCKERS_LIMIT],
                subject: Some(party),
            }),
            Event::Checkpoint(CheckpointEvent {
                origin: origin.clone(),
                lineage: Some(Lineage::from_bytes([1; 16]).to_string()),
                id: long.clone(),
                step: CheckpointStep::Removed,
            }),
            Event::Restore(RestoreEvent {
                origin: origin.clone(),
                lineage: None,
                id: long.clone(),
                step: RestoreStep::Undone,
                revision: Some(Revision::MAX),
            }),
            Event::Guard(GuardEvent {
                origin: origin.clone(),
                id: "i".repeat(140),
                step: GuardStep::Forgotten,
                code: Some(u8::MAX),
                attempts: Some(u32::MAX),
                guards: vec!["i".repeat(140); GUARDS_LIMIT],
            }),
            Event::Retry(RetryEvent {
                origin: origin.clone(),
                step: RetryStep::TimedOut,
                program: long.clone(),
                attempts: Some(u32::MAX),
                code: Some(u8::MAX),
            }),
            Event::Failure(Failure {
                origin,
                command: long.clone(),
                code: u8::MAX,
                kind: long.clone(),
                message: long,
            }),
        ]
    }

    #[test]
    fn an_event_of_each_kind_fits_and_reads_back() {
        for event in widest() {
            let line = event.to_line().unwrap();
            let read = Event::parse(line.trim_matches('\n').as_bytes()).unwrap();
            assert_eq!((read.kind(), read.origin().unwrap().pid), (event.kind(), u32::MAX));
            assert_eq!(read.to_line().unwrap(), line, "what was cut stays as it is");
        }
    }

    #[test]
    fn a_guards_line_of_an_earlier_version_is_read() {
        let line = seal(&json!({
            "v": 1, "event": "guard", "time": "2026-01-02T03:04:05.678Z", "guard": "g",
            "step": "began", "guards": []
        }));
        let Ok(Event::Guard(guard)) = Event::parse(line.trim().as_bytes()) else {
            unreachable!("{line}")
        };
        assert_eq!((guard.step, guard.origin.pid), (GuardStep::Began, 0));
    }
}
