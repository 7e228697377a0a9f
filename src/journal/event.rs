//! A line of the journal: its format, its limits, and its checksum.
//!
//! A line is one JSON object. Its last field, `sum`, is the beginning of the SHA-256 of the text
//! before it. A reader accepts a line whole or skips it. An unknown event or version is skipped
//! without a warning, so that later programs can add events.

use serde_json::{Map, Value, json};

use super::changes::{Change, Changes};
use super::totals::Totals;
use crate::document::json;
use crate::document::seal::{Digest, Lineage, Revision};

const VERSION: u64 = 1;
/// The longest line, in bytes, with the line feeds around it.
pub const LINE_LIMIT: usize = 8 << 10;
/// The longest reason, in bytes; a longer one is cut.
pub const REASON_LIMIT: usize = 1 << 10;
/// The longest name of a program, a host or a command, in bytes.
const NAME_LIMIT: usize = 128;
/// The most guards that one commit names: those that are nested around it.
pub const GUARDS_LIMIT: usize = 8;
const SUM_LENGTH: usize = 16;
const SUM_FIELD: &str = ",\"sum\":\"";

/// One event.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A revision was committed.
    Commit(Commit),
    /// A guard's begin or end.
    Guard(GuardEvent),
    /// The totals of the commits before it.
    Totals(Totals),
}

/// A committed revision.
#[derive(Clone, Debug, PartialEq)]
pub struct Commit {
    /// Its time: RFC 3339, milliseconds, UTC.
    pub time: String,
    /// The document it is a revision of.
    pub lineage: Lineage,
    /// The revision.
    pub revision: Revision,
    /// The digest of the document.
    pub digest: Digest,
    /// The command: `state set`.
    pub command: String,
    /// The reason as it was given.
    pub reason: Option<String>,
    /// The process that committed.
    pub pid: u32,
    /// The script that it committed for.
    pub owner: Owner,
    /// The time the commit waited for the state lock, in seconds.
    pub waited: f64,
    /// The size of the document in bytes.
    pub bytes: u64,
    /// The changes; `None` where the previous document could not be read.
    pub changes: Option<Changes>,
    /// The guards that enclose the commit, outermost first.
    pub guards: Vec<String>,
}

/// A script that commands act for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// Its process id.
    pub pid: u32,
    /// The user of the command.
    pub uid: u32,
    /// The name of the machine.
    pub host: String,
    /// The name of its program, never with arguments.
    pub program: String,
}

/// A guard that began or ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuardEvent {
    /// Its time: RFC 3339, milliseconds, UTC.
    pub time: String,
    /// The guard.
    pub id: String,
    /// `began`, `restored`, `unrestored` or `forgotten`.
    pub step: String,
    /// The guards that enclose it, outermost first.
    pub guards: Vec<String>,
}

/// The reason why a line is not an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skipped {
    /// It is torn or damaged.
    Damaged,
    /// A later version wrote it, or this program does not know its kind.
    Unknown,
}

/// The first `limit` bytes of `text`, cut between characters.
pub(super) fn cut(text: &str, limit: usize) -> &str {
    let mut end = text.len().min(limit);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

impl Event {
    /// The line, between line feeds; `None` if it cannot be written in [`LINE_LIMIT`]. Until it
    /// fits, changes are dropped, and then the reason is shortened.
    pub fn to_line(&self) -> Option<String> {
        let mut event = self.clone();
        loop {
            let line = seal(&event.to_value());
            if line.len() <= LINE_LIMIT {
                return Some(line);
            }
            let Self::Commit(commit) = &mut event else { return None };
            if commit.changes.as_mut().is_some_and(Changes::drop_last) {
                continue;
            }
            let reason = commit.reason.as_mut().filter(|reason| !reason.is_empty())?;
            *reason = cut(cut(reason, REASON_LIMIT), reason.len().min(REASON_LIMIT) / 2).to_owned();
        }
    }

    /// Reads a line without its line feeds.
    pub fn parse(line: &[u8]) -> Result<Self, Skipped> {
        let text = unseal(line).ok_or(Skipped::Damaged)?;
        let value = json::parse(text.as_bytes()).map_err(|_| Skipped::Damaged)?;
        let version = value.get("v").and_then(Value::as_u64).ok_or(Skipped::Damaged)?;
        if version > VERSION {
            return Err(Skipped::Unknown);
        }
        match value.get("event").and_then(Value::as_str) {
            Some("commit") => Commit::of(&value).map(Self::Commit).ok_or(Skipped::Damaged),
            Some("totals") => Totals::read(&value).map(Self::Totals).ok_or(Skipped::Damaged),
            Some("guard") => GuardEvent::of(&value).map(Self::Guard).ok_or(Skipped::Damaged),
            Some(_) => Err(Skipped::Unknown),
            None => Err(Skipped::Damaged),
        }
    }

    fn to_value(&self) -> Value {
        match self {
            Self::Commit(commit) => commit.to_value(),
            Self::Totals(totals) => totals.to_value(VERSION),
            Self::Guard(GuardEvent { time, id, step, guards }) => {
                let guards: Vec<&String> = guards.iter().take(GUARDS_LIMIT).collect();
                json!({"v": VERSION, "event": "guard", "time": time, "guard": id, "step": step, "guards": guards})
            }
        }
    }
}

impl Commit {
    /// The reason of a commit without one: the effect of the command.
    pub fn default_reason(&self) -> &str {
        self.command.rsplit(' ').next().unwrap_or_default()
    }

    fn to_value(&self) -> Value {
        let mut value = json!({
            "v": VERSION,
            "event": "commit",
            "time": self.time,
            "lineage": self.lineage.as_str(),
            "revision": self.revision.get(),
            "digest": self.digest.as_str(),
            "command": cut(&self.command, NAME_LIMIT),
            "reason": self.reason.as_deref().map(|reason| cut(reason, REASON_LIMIT)),
            "pid": self.pid,
            "owner": {
                "pid": self.owner.pid,
                "uid": self.owner.uid,
                "host": cut(&self.owner.host, NAME_LIMIT),
                "program": cut(&self.owner.program, NAME_LIMIT),
            },
            "waited": format!("{:.6}", self.waited),
            "bytes": self.bytes,
        });
        if let Value::Object(fields) = &mut value {
            if let Some(changes) = &self.changes {
                changes.write(fields);
            }
            if !self.guards.is_empty() {
                let named = self.guards.iter().take(GUARDS_LIMIT);
                fields.insert("guards".into(), named.map(String::as_str).collect());
            }
        }
        value
    }

    fn of(value: &Value) -> Option<Self> {
        let text = |field: &str| value.get(field)?.as_str().map(str::to_owned);
        let number = |value: &Value| u32::try_from(value.as_u64()?).ok();
        let owner = value.get("owner")?;
        let of_owner = |field: &str| owner.get(field)?.as_str().map(str::to_owned);
        Some(Self {
            time: time_of(value)?,
            lineage: Lineage::from_value(value.get("lineage")?)?,
            revision: Revision::from_value(value.get("revision")?)?,
            digest: Digest::from_value(value.get("digest")?)?,
            command: text("command")?,
            reason: text("reason"),
            pid: number(value.get("pid")?)?,
            owner: Owner {
                pid: number(owner.get("pid")?)?,
                uid: number(owner.get("uid")?)?,
                host: of_owner("host")?,
                program: of_owner("program")?,
            },
            waited: text("waited")?.parse().ok()?,
            bytes: value.get("bytes")?.as_u64()?,
            changes: Changes::read(value)?,
            guards: guards_of(value)?,
        })
    }
}

impl GuardEvent {
    fn of(value: &Value) -> Option<Self> {
        let text = |field: &str| value.get(field)?.as_str().map(str::to_owned);
        Some(Self {
            time: time_of(value)?,
            id: text("guard")?,
            step: text("step")?,
            guards: guards_of(value)?,
        })
    }
}

impl Changes {
    fn write(&self, fields: &mut Map<String, Value>) {
        let changes = self.list.iter().map(|change| match change {
            Change::Path(path) => json!({"path": path}),
            Change::Phase { old, new } => json!({"path": ".phase", "old": old, "new": new}),
            Change::Task { name, is_added: true } => {
                json!({"path": ".completedTasks", "added": name})
            }
            Change::Task { name, is_added: false } => {
                json!({"path": ".completedTasks", "removed": name})
            }
        });
        fields.insert("changes".into(), changes.collect());
        if self.more > 0 {
            fields.insert("more".into(), self.more.into());
        }
    }

    /// `Some(None)` where the line has no changes, `None` where they are invalid.
    #[allow(clippy::option_option)]
    fn read(value: &Value) -> Option<Option<Self>> {
        let Some(list) = value.get("changes") else { return Some(None) };
        let change = |change: &Value| {
            let text = |field: &str| change.get(field).and_then(Value::as_str).map(str::to_owned);
            Some(match (text("path")?, text("added"), text("removed")) {
                (path, None, None) if path == ".phase" => {
                    Change::Phase { old: text("old"), new: text("new") }
                }
                (_, Some(name), _) => Change::Task { name, is_added: true },
                (_, None, Some(name)) => Change::Task { name, is_added: false },
                (path, None, None) => Change::Path(path),
            })
        };
        let list = list.as_array()?.iter().map(change).collect::<Option<_>>()?;
        let more =
            value.get("more").map_or(Some(0), |more| usize::try_from(more.as_u64()?).ok())?;
        Some(Some(Self { list, more }))
    }
}

fn guards_of(value: &Value) -> Option<Vec<String>> {
    let Some(guards) = value.get("guards") else { return Some(Vec::new()) };
    guards.as_array()?.iter().map(|guard| guard.as_str().map(str::to_owned)).collect()
}

fn sum(text: &str) -> String {
    cut(Digest::of(text.as_bytes()).as_str(), SUM_LENGTH).to_owned()
}

/// The time of an event. It is shown unchanged, so it must be valid.
fn time_of(value: &Value) -> Option<String> {
    let time = value.get("time")?.as_str()?;
    chrono::DateTime::parse_from_rfc3339(time).ok()?;
    Some(time.to_owned())
}

fn seal(value: &Value) -> String {
    let text = value.to_string();
    let text = text.strip_suffix('}').unwrap_or(&text);
    format!("\n{text}{SUM_FIELD}{}\"}}\n", sum(text))
}

/// The JSON text of a line without its sum, if the sum is right.
fn unseal(line: &[u8]) -> Option<String> {
    let line = std::str::from_utf8(line).ok()?;
    let (text, end) = line.rsplit_once(SUM_FIELD)?;
    (end.strip_suffix("\"}")? == sum(text)).then(|| format!("{text}}}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event(
        reason: String,
        program: String,
        changes: Option<Changes>,
        guards: Vec<String>,
    ) -> Event {
        Event::Commit(Commit {
            time: "2026-01-02T03:04:05.678Z".into(),
            lineage: Lineage::from_bytes([1; 16]),
            revision: Revision::new(Revision::MAX).unwrap(),
            digest: Digest::of(b"x"),
            command: "state set".into(),
            reason: Some(reason),
            pid: u32::MAX,
            owner: Owner { pid: u32::MAX, uid: u32::MAX, host: "\u{1}".repeat(300), program },
            waited: 0.25,
            bytes: 16 << 20,
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
            let Ok(Event::Commit(read)) = Event::parse(inner.as_bytes()) else { return Err(TestCaseError::fail(line)) };
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
            Event::parse(line(json!({"v": 1, "event": "lock"})).as_bytes()),
            Err(Skipped::Unknown)
        );
        assert_eq!(
            Event::parse(line(json!({"v": 1, "event": "commit"})).as_bytes()),
            Err(Skipped::Damaged)
        );
    }
}
