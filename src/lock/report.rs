//! Reports on locks: the state of one, and all their holders and waiters.

use std::fmt;
use std::time::SystemTime;

use serde::Serialize;
use serde_json::{Value, json};

use super::describe::{describe_holder, place_of};
use super::liveness::{Liveness, LivenessOracle, WaiterState};
use super::process::owner_view;
use super::queue::{Blocker, blockers_of_waiter};
use super::record::{Grant, Mode, Purpose, Record, Waiter};
use crate::name::Name;
use crate::os::Confirmation;
use crate::owner_view::OwnerView;
use crate::time::{self, from_epoch_seconds};

/// The state of a lock.
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
    /// The state that a record shows.
    pub(super) fn of(record: &Record, oracle: &dyn LivenessOracle) -> Self {
        let (mut pids, mut unknown) = (Vec::new(), None);
        for grant in &record.holders {
            match (oracle.grant(grant), &grant.owner) {
                (Liveness::Alive, Some(owner)) if oracle.process(owner) == Liveness::Unknown => {
                    pids.push(format!("{} in {}", owner.pid, oracle.describe_namespace(owner)));
                }
                (Liveness::Alive, Some(owner)) => pids.push(owner.pid.to_string()),
                (Liveness::Dead, _) => {}
                (_, Some(owner)) => {
                    let place = oracle.describe_namespace(owner);
                    unknown = Some(format!("{}:{} in {place}", grant.mode, owner.pid));
                }
                (_, None) => unknown = Some("damaged record".to_owned()),
            }
        }
        let is_exclusive = record.holders.iter().any(|grant| grant.mode == Mode::Exclusive);
        let mode = if is_exclusive { Mode::Exclusive } else { Mode::Shared };
        match unknown {
            Some(what) => Self::Unknown(what),
            None if !pids.is_empty() => Self::Locked(mode, pids),
            None if record.holders.is_empty() => Self::Unlocked,
            None => Self::Stale,
        }
    }

    /// Returns whether the lock must be treated as held.
    pub fn is_held(&self) -> bool {
        matches!(self, Self::Locked(..) | Self::Unknown(_))
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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

/// The status of a holder or a waiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryStatus {
    /// Its owner lives and holds the lock.
    Held,
    /// It waits.
    Waiting,
    /// It waits, and is stopped or out of time.
    Stopped,
    /// It waits, and later waiters may go first.
    PassedOver,
    /// An operator ended its wait.
    Broken,
    /// It is dead.
    Stale,
    /// Its liveness is unknown.
    Unknown,
    /// The lock's record is damaged.
    Damaged,
}

impl EntryStatus {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Waiting => "waiting",
            Self::Stopped => "stopped",
            Self::PassedOver => "passed-over",
            Self::Broken => "broken",
            Self::Stale => "stale",
            Self::Unknown => "unknown",
            Self::Damaged => "damaged",
        }
    }
}

/// A holder or a waiter of a lock.
#[derive(Clone, Debug, Serialize)]
pub struct LockEntry {
    /// The lock.
    pub lock: String,
    /// The mode in which it is held or requested.
    pub mode: Mode,
    /// Its status.
    pub status: EntryStatus,
    /// The owner; `None` if a damaged record hides it.
    pub owner: Option<OwnerView>,
    /// Its command line, or what is wrong with a damaged record.
    pub command: String,
    /// What is wrong with a damaged record.
    #[serde(skip)]
    pub damage: Option<String>,
    /// The grant's number; `None` for a waiter.
    pub token: Option<u64>,
    /// A waiter's ID, which `break --waiter` takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiter: Option<String>,
    /// Its liveness, as far as this process can find out.
    #[serde(skip)]
    pub liveness: Liveness,
    /// The start of the hold or of the wait, RFC 3339.
    #[serde(serialize_with = "time::serialize_text")]
    pub since: String,
    /// The end of a wait or of a time to live.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "time::serialize_some")]
    pub until: Option<SystemTime>,
    /// The pids of the owners that block a waiter.
    pub waiting_for: Vec<u32>,
    /// The number of releases it takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
    /// The boot or namespace of an owner, if its pid is not valid here.
    #[serde(rename = "place", skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
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
    /// True if other machines may have it mounted: then flock and inotify may be unreliable.
    pub shared_file_system: bool,
    /// Whether the drive confirms what is flushed there.
    #[serde(skip)]
    pub flushes: Confirmation,
    /// All holders and waiters.
    pub entries: Vec<LockEntry>,
}

impl LockSummary {
    /// Counts entries. `directory` says where they are kept, and `file_system` on what.
    pub(super) fn of(
        entries: Vec<LockEntry>,
        directory: String,
        file_system: &'static str,
    ) -> Self {
        use EntryStatus::{Damaged, Held, PassedOver, Stale, Stopped, Unknown, Waiting};
        let count = |wanted: &[EntryStatus]| {
            entries.iter().filter(|entry| wanted.contains(&entry.status)).count()
        };
        Self {
            directory,
            held: count(&[Held]),
            waiting: count(&[Waiting, Stopped, PassedOver]),
            stale: count(&[Stale]),
            unknown: count(&[Unknown, Damaged]),
            file_system,
            shared_file_system: false,
            flushes: Confirmation::Confirmed,
            entries,
        }
    }
}

impl Grant {
    /// Its owner, if it is known.
    pub fn owner_view(&self) -> Option<OwnerView> {
        self.owner.as_ref().map(|owner| owner_view(owner, &self.command))
    }
}

impl LockEntry {
    /// The process id of the owner.
    pub fn pid(&self) -> Option<u32> {
        self.owner.as_ref().map(|owner| owner.pid)
    }

    /// The holders of a record, then its waiters in their order.
    pub(super) fn all(name: &Name, record: &Record, oracle: &dyn LivenessOracle) -> Vec<Self> {
        let holders = record.holders.iter().map(|grant| Self::of_grant(name, grant, oracle));
        let waiters = record.waiters.iter().enumerate().map(|(position, waiter)| Self {
            waiting_for: blocking_pids(record, position, waiter, oracle),
            ..Self::of_waiter(name, waiter, oracle)
        });
        holders.chain(waiters).collect()
    }

    fn of_grant(name: &Name, grant: &Grant, oracle: &dyn LivenessOracle) -> Self {
        let liveness = oracle.grant(grant);
        // Its pid may be another process's here, even if its live file proves that it lives.
        let place = grant.owner.as_ref().and_then(|owner| place_of(owner, oracle));
        let quarantined = grant.quarantined.as_ref().map(|kept| json!({"quarantined": kept}));
        Self {
            lock: name.to_string(),
            mode: grant.mode,
            status: match liveness {
                Liveness::Alive => EntryStatus::Held,
                Liveness::Dead => EntryStatus::Stale,
                Liveness::Unknown => EntryStatus::Unknown,
            },
            owner: grant.owner_view(),
            command: match grant.owner {
                Some(_) => grant.command.clone(),
                None => describe_holder(grant),
            },
            damage: None,
            token: Some(grant.token.get()),
            waiter: None,
            liveness,
            since: grant.since.clone(),
            until: grant.expires.and_then(from_epoch_seconds),
            waiting_for: Vec::new(),
            count: Some(grant.count),
            namespace: place,
            metadata: grant.metadata.clone().or(quarantined),
        }
    }

    fn of_waiter(name: &Name, waiter: &Waiter, oracle: &dyn LivenessOracle) -> Self {
        let waiter = &oracle.detailed(waiter);
        Self {
            lock: name.to_string(),
            mode: waiter.mode,
            status: match oracle.waiter(waiter) {
                WaiterState::Dead if oracle.is_dead_waiter(waiter) => EntryStatus::Stale,
                WaiterState::Dead => EntryStatus::Unknown,
                _ if waiter.broken => EntryStatus::Broken,
                _ if waiter.passed_over => EntryStatus::PassedOver,
                WaiterState::Waiting => EntryStatus::Waiting,
                WaiterState::Skipped => EntryStatus::Stopped,
            },
            owner: Some(owner_view(&waiter.owner, &waiter.command)),
            command: match waiter.purpose {
                Purpose::Hold => waiter.command.clone(),
                Purpose::Commit => format!("{} (a commit)", waiter.command),
            },
            damage: None,
            token: None,
            waiter: waiter.lifeline.as_ref().map(|lifeline| lifeline.id().to_owned()),
            liveness: oracle.waiting_process(waiter),
            since: waiter.since.clone(),
            until: from_epoch_seconds(waiter.until),
            waiting_for: Vec::new(),
            count: None,
            namespace: place_of(&waiter.process, oracle),
            metadata: waiter.metadata.clone(),
        }
    }

    pub(super) fn damaged(name: &Name, command: String, damage: String) -> Self {
        Self {
            lock: name.to_string(),
            mode: Mode::Exclusive,
            status: EntryStatus::Damaged,
            owner: None,
            command,
            damage: Some(damage),
            token: None,
            waiter: None,
            liveness: Liveness::Unknown,
            since: String::new(),
            until: None,
            waiting_for: Vec::new(),
            count: None,
            namespace: None,
            metadata: None,
        }
    }
}

fn blocking_pids(
    record: &Record,
    position: usize,
    waiter: &Waiter,
    oracle: &dyn LivenessOracle,
) -> Vec<u32> {
    let pid = |blocker| match blocker {
        Blocker::Holder(grant) => grant.owner.as_ref().map(|owner| owner.pid),
        Blocker::Waiter(waiter) => Some(waiter.owner.pid),
    };
    blockers_of_waiter(record, position, waiter, oracle).filter_map(pid).collect()
}
