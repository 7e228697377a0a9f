//! Reports on locks, made without the gate: `check`, `list`, `status`. Nothing here changes
//! anything.

use serde::Serialize;
use serde_json::Value;

use super::gate::StoredRecord;
use super::liveness::{FileSystem, Liveness, LivenessProbe, WaiterState, file_system};
use super::queue::{Blocker, blockers_of_waiter};
use super::record::{Grant, Mode, Purpose, Record, Waiter};
use super::words::holder;
use super::{LOCKS, Locks};
use crate::error::Result;
use crate::fs::Dir;
use crate::name::Name;

/// Whether a lock is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It has no holder.
    Unlocked,
    /// By these processes; a pid of another namespace or machine includes where it is valid.
    Locked(Mode, Vec<String>),
    /// All its holders are dead.
    Stale,
    /// By a holder of unknown liveness; what is known of it.
    Unknown(String),
}

impl Standing {
    /// Whether the lock must be treated as held.
    pub fn is_held(&self) -> bool {
        matches!(self, Self::Locked(..) | Self::Unknown(_))
    }
}

impl std::fmt::Display for Standing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unlocked => f.write_str("unlocked"),
            Self::Locked(mode, pids) => {
                write!(f, "locked:{mode}:{}", pids.join(","))
            }
            Self::Stale => f.write_str("stale"),
            Self::Unknown(what) => write!(f, "unknown:{what}"),
        }
    }
}

/// A holder or a waiter of a lock.
#[derive(Clone, Debug, Serialize)]
pub struct LockEntry {
    /// The lock.
    pub lock: String,
    /// `exclusive` or `shared`.
    pub r#type: &'static str,
    /// held, waiting, stopped, passed-over, broken, stale, unknown or damaged.
    pub status: &'static str,
    /// The owner.
    pub pid: Option<u32>,
    /// Its command line.
    pub command: String,
    /// The grant's number; `None` for a waiter.
    pub token: Option<u64>,
    /// A waiter's ID, which `break --waiter` takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiter: Option<String>,
    /// Whether this process can judge it: it lives, or it is dead.
    #[serde(skip)]
    pub is_judged: bool,
    /// The start of the hold or of the wait, RFC 3339.
    pub since: String,
    /// The end of a wait or of a time to live: seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<f64>,
    /// The pids of the owners that block a waiter.
    pub waiting_for: Vec<u32>,
    /// How many releases it takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
    /// The boot or namespace of an owner, if its pid is not valid here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    /// The owner's notes, or the name of the file that keeps a damaged record.
    pub metadata: Option<Value>,
}

/// The number of entries of each kind, and the file system of the locks.
#[derive(Clone, Debug, Serialize)]
pub struct LockSummary {
    /// The directory of the locks.
    pub directory: String,
    /// Grants of living owners.
    pub held: usize,
    /// Waiters.
    pub waiting: usize,
    /// Grants of dead owners, which the next request removes from the record.
    pub stale: usize,
    /// Grants of owners of unknown liveness.
    pub unknown: usize,
    /// The file system's name.
    pub file_system: &'static str,
    /// Whether other machines may have it mounted: then flock and inotify may be unreliable.
    pub shared_file_system: bool,
    /// All holders and waiters.
    pub entries: Vec<LockEntry>,
}

impl Locks {
    /// Whether a lock is held.
    pub fn check(&self, name: &Name) -> Result<Standing> {
        let Some(dir) = self.dir()? else { return Ok(Standing::Unlocked) };
        let record = match self.read_record(&dir, name)? {
            StoredRecord::Record(record) => record,
            StoredRecord::Damaged(why) => return Ok(Standing::Unknown(why)),
        };
        let judge = LivenessProbe::new(&self.disk, &dir)?;
        let (mut pids, mut unknown) = (Vec::new(), None);
        for grant in &record.holders {
            match (judge.grant(grant), &grant.owner) {
                (Liveness::Alive, Some(owner)) if judge.process(owner) == Liveness::Unknown => {
                    pids.push(format!("{} in {}", owner.pid, judge.describe_namespace(owner)));
                }
                (Liveness::Alive, Some(owner)) => pids.push(owner.pid.to_string()),
                (Liveness::Dead, _) => {}
                (_, Some(owner)) => {
                    unknown = Some(format!(
                        "{}:{} in {}",
                        grant.mode,
                        owner.pid,
                        judge.describe_namespace(owner)
                    ));
                }
                (_, None) => unknown = Some("damaged record".to_owned()),
            }
        }
        let mode = if record.holders.iter().any(|grant| grant.mode == Mode::Exclusive) {
            Mode::Exclusive
        } else {
            Mode::Shared
        };
        Ok(match (unknown, pids.is_empty(), record.holders.is_empty()) {
            (Some(what), ..) => Standing::Unknown(what),
            (None, false, _) => Standing::Locked(mode, pids),
            (None, true, false) => Standing::Stale,
            (None, true, true) => Standing::Unlocked,
        })
    }

    /// All holders and waiters, by lock; holders first, waiters in their order.
    pub fn list(&self) -> Result<Vec<LockEntry>> {
        let Some(dir) = self.dir()? else { return Ok(Vec::new()) };
        let judge = LivenessProbe::new(&self.disk, &dir)?;
        let mut entries = Vec::new();
        for name in self.names(&dir)? {
            match self.read_record(&dir, &name)? {
                StoredRecord::Damaged(why) => entries.push(LockEntry::damaged(&name, &why)),
                StoredRecord::Record(record) => {
                    entries.extend(
                        record
                            .holders
                            .iter()
                            .map(|grant| LockEntry::of_grant(&name, grant, &judge)),
                    );
                    let waiters = record.waiters.iter().enumerate();
                    entries.extend(waiters.map(|(place, waiter)| {
                        LockEntry::of_waiter(&name, &record, place, waiter, &judge)
                    }));
                }
            }
        }
        Ok(entries)
    }

    /// The number of entries of each kind.
    pub fn summary(&self) -> Result<LockSummary> {
        let entries = self.list()?;
        let count =
            |wanted: &[&str]| entries.iter().filter(|entry| wanted.contains(&entry.status)).count();
        let file_system = self.file_system()?;
        Ok(LockSummary {
            directory: self.directory.join(LOCKS).display().to_string(),
            held: count(&["held"]),
            waiting: count(&["waiting", "stopped", "passed-over"]),
            stale: count(&["stale"]),
            unknown: count(&["unknown", "damaged"]),
            file_system: file_system.name(),
            shared_file_system: !file_system.is_local(),
            entries,
        })
    }

    fn file_system(&self) -> Result<FileSystem> {
        let root = crate::side::open_root(&self.disk, &self.directory)?;
        Ok(self.dir()?.map_or_else(|| file_system(&root), |dir: Dir| file_system(&dir)))
    }
}

impl LockEntry {
    fn of_grant(name: &Name, grant: &Grant, judge: &LivenessProbe<'_>) -> Self {
        let liveness = judge.grant(grant);
        // Its pid may be another process's here, even if its live file proves that it lives.
        let elsewhere =
            grant.owner.as_ref().filter(|owner| judge.process(owner) == Liveness::Unknown);
        let quarantined =
            grant.quarantined.as_ref().map(|kept| serde_json::json!({"quarantined": kept}));
        Self {
            lock: name.to_string(),
            r#type: grant.mode.name(),
            status: match liveness {
                Liveness::Alive => "held",
                Liveness::Dead => "stale",
                Liveness::Unknown => "unknown",
            },
            pid: grant.owner.as_ref().map(|owner| owner.pid),
            command: if grant.owner.is_some() { grant.command.clone() } else { holder(grant) },
            token: Some(grant.token.get()),
            waiter: None,
            is_judged: liveness != Liveness::Unknown,
            since: grant.since.clone(),
            until: grant.expires,
            waiting_for: Vec::new(),
            count: Some(grant.count),
            place: elsewhere.map(|owner| judge.describe_namespace(owner)),
            metadata: grant.metadata.clone().or(quarantined),
        }
    }

    fn of_waiter(
        name: &Name,
        record: &Record,
        place: usize,
        waiter: &Waiter,
        judge: &LivenessProbe<'_>,
    ) -> Self {
        let in_the_way =
            blockers_of_waiter(record, place, waiter, judge).filter_map(|blocker| match blocker {
                Blocker::Holder(grant) => grant.owner.as_ref().map(|owner| owner.pid),
                Blocker::Waiter(waiter) => Some(waiter.owner.pid),
            });
        let elsewhere = judge.process(&waiter.process) == Liveness::Unknown;
        let what = match waiter.purpose {
            Purpose::Hold => waiter.command.clone(),
            Purpose::Commit => format!("{} (a commit)", waiter.command),
        };
        Self {
            lock: name.to_string(),
            r#type: waiter.mode.name(),
            status: match judge.waiter(waiter) {
                WaiterState::Dead if judge.is_dead_waiter(waiter) => "stale",
                WaiterState::Dead => "unknown",
                _ if waiter.broken => "broken",
                _ if waiter.passed_over => "passed-over",
                WaiterState::Waiting => "waiting",
                WaiterState::Skipped => "stopped",
            },
            pid: Some(waiter.owner.pid),
            command: what,
            token: None,
            waiter: waiter.lifeline.as_ref().map(|lifeline| lifeline.id().to_owned()),
            is_judged: judge.waiting_process(waiter) != Liveness::Unknown,
            since: waiter.since.clone(),
            until: Some(waiter.until),
            waiting_for: in_the_way.collect(),
            count: None,
            place: elsewhere.then(|| judge.describe_namespace(&waiter.process)),
            metadata: waiter.metadata.clone(),
        }
    }

    fn damaged(name: &Name, why: &str) -> Self {
        Self {
            lock: name.to_string(),
            r#type: Mode::Exclusive.name(),
            status: "damaged",
            pid: None,
            command: why.to_owned(),
            token: None,
            waiter: None,
            is_judged: false,
            since: String::new(),
            until: None,
            waiting_for: Vec::new(),
            count: None,
            place: None,
            metadata: None,
        }
    }
}
