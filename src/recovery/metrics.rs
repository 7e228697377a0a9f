//! Metrics: waits for locks, size and growth of the state, backups, recoveries. They come from what
//! is recorded anyway, in the logs and beside the state; nothing is measured only for them.

pub mod prometheus;

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, SystemTime};

use serde::Serialize;

use crate::audit::{AuditLine, Reported, fact};
use crate::document::degraded::Degraded;
use crate::error::{ExitCode, Result};
use crate::journal::event::{Event, GuardStep, LockStep, RetryStep};
use crate::journal::totals::{BOUNDS, LockTotals, WaitTotals};
use crate::journal::{Events, Totals};
use crate::lock::LockSummary;
use crate::store::Store;
use crate::store::checkpoint::id::time_of;
use crate::time::{parse_rfc3339, with_millis};

const DAY: Duration = Duration::from_secs(86_400);
/// The action that creates a state.
const INIT: &str = "init";

/// The kinds of recoveries that are counted, by their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Recovery {
    /// A foreign edit was accepted.
    Adopt,
    /// Degraded mode was enabled.
    Degrade,
    /// A command was guarded.
    Guard,
    /// A strategy was run.
    Handle,
    /// Damage was healed.
    Heal,
    /// A copy was brought back.
    Recover,
    /// A checkpoint was restored.
    Restore,
    /// A command was retried.
    Retry,
    /// A change was undone.
    Undo,
}

impl Recovery {
    const ALL: [Self; 9] = [
        Self::Adopt,
        Self::Degrade,
        Self::Guard,
        Self::Handle,
        Self::Heal,
        Self::Recover,
        Self::Restore,
        Self::Retry,
        Self::Undo,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Adopt => "adopt",
            Self::Degrade => "degrade",
            Self::Guard => "guard",
            Self::Handle => "handle",
            Self::Heal => "heal",
            Self::Recover => "recover",
            Self::Restore => "restore",
            Self::Retry => "retry",
            Self::Undo => "undo",
        }
    }

    /// The recovery that an action is.
    fn of_action(action: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == action)
    }
}

/// The recovery that is counted by a commit of this action: a restore has a line of its own.
fn by_commit(action: &str) -> Option<Recovery> {
    Recovery::of_action(action).filter(|kind| *kind != Recovery::Restore)
}

/// Returns whether a commit of this action leaves an automatic backup. The others keep the replaced
/// file under another name, or replace nothing.
fn leaves_backup(action: &str) -> bool {
    use Recovery::{Adopt, Heal, Recover, Restore};
    action != INIT && !matches!(Recovery::of_action(action), Some(Adopt | Heal | Recover | Restore))
}

/// Waiting times in seconds, sorted.
#[derive(Clone, Debug, Default)]
pub struct Waits {
    /// Each wait on record.
    seconds: Vec<f64>,
    /// Waits no longer on record: their number, their sum, and the number up to each bound.
    before: (usize, f64, [u64; BOUNDS.len()]),
}

impl Waits {
    /// The number of waits.
    pub fn count(&self) -> usize {
        self.before.0 + self.seconds.len()
    }

    /// Their sum.
    pub fn sum(&self) -> f64 {
        self.seconds.iter().fold(self.before.1, |sum, wait| sum + wait) // an empty sum is -0
    }

    /// The quantile of the waits on record, by the nearest rank; 0 where there are none.
    pub fn quantile(&self, share: f64) -> f64 {
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss
        )]
        let rank = (share * self.seconds.len() as f64).ceil() as usize;
        self.seconds.get(rank.max(1) - 1).copied().unwrap_or_default()
    }

    /// The number of waits up to `limit`, which is one of the bounds.
    pub fn within(&self, limit: f64) -> usize {
        let before = BOUNDS
            .iter()
            .zip(self.before.2)
            .rfind(|(bound, _)| **bound <= limit)
            .map_or(0, |(_, count)| count);
        usize::try_from(before)
            .unwrap_or(usize::MAX)
            .saturating_add(self.seconds.partition_point(|wait| *wait <= limit))
    }
}

/// The metrics of one root.
#[derive(Debug, Default, Serialize)]
pub struct Metrics {
    /// The state file.
    pub path: String,
    /// The start of the audit log's records of it, RFC 3339.
    pub since: Option<String>,
    /// Waits for named locks.
    #[serde(skip)]
    pub lock_waits: Waits,
    /// Waits of commits for the state lock.
    #[serde(skip)]
    pub commit_waits: Waits,
    /// Bytes of the state file.
    pub state_bytes: Option<u64>,
    /// Bytes of the first commit on record.
    pub first_bytes: Option<u64>,
    /// Commits on record.
    pub commits: u64,
    /// Backups on record: automatic ones, one for each ordinary commit, and explicit ones.
    pub backups: BTreeMap<&'static str, u64>,
    /// The backups of the last 24 hours.
    pub backups_last_day: u64,
    /// The backups that exist now.
    pub backups_kept: usize,
    /// Recoveries by kind: heal, recover, adopt, restore, undo, handle; commands that were retried
    /// and guarded, and how often degraded mode was enabled: retry, guard, degrade.
    pub recoveries: BTreeMap<Recovery, u64>,
    /// The events of each lock.
    #[serde(skip)]
    pub by_lock: BTreeMap<String, LockTotals>,
    /// Guarded commands by outcome, and guards by what became of their changes.
    pub guards: BTreeMap<&'static str, u64>,
    /// Retried commands by outcome.
    pub retries: BTreeMap<&'static str, u64>,
    /// Errors in the error log, by exit code.
    pub errors: BTreeMap<u8, u64>,
    /// The current revision.
    pub revision: Option<u64>,
    /// Locks, by status.
    pub locks: BTreeMap<&'static str, usize>,
    /// The number of checkpoints.
    pub checkpoints: usize,
    /// The age of the newest in seconds.
    pub newest_checkpoint_age: Option<u64>,
    /// Whether the state is degraded.
    pub is_degraded: bool,
    /// Whether commands can work with the state: it is valid and writable.
    pub is_healthy: bool,
    /// Whether writers can write.
    pub is_writable: bool,
    /// Bytes left on the disk.
    pub disk_free: Option<u64>,
}

impl Metrics {
    /// Gathers the metrics, and changes nothing. Unreadable values are left out; only a store that
    /// is out of reach is an error. Only what is missing from the journal leaves a warning.
    pub fn gather(store: &Store, locks: impl FnOnce() -> Option<LockSummary>) -> Result<Self> {
        let mut metrics = Self { path: store.place(), ..Self::default() };
        for kind in ["automatic", "manual"] {
            metrics.backups.insert(kind, 0);
        }
        for kind in Recovery::ALL {
            metrics.recoveries.insert(kind, 0);
        }
        for noted in store.logs().errors().iter().filter(|noted| noted.is_ours()) {
            *metrics.errors.entry(noted.code).or_default() += 1;
        }
        metrics.look(store, locks)?;
        store.take_warnings(); // `doctor` reports them
        metrics.read_logs(store);
        Ok(metrics)
    }

    /// Counts the commits in the journal, and those in the audit log that the journal has no line
    /// of.
    fn read_logs(&mut self, store: &Store) {
        let yesterday = store.now().checked_sub(DAY).unwrap_or(SystemTime::UNIX_EPOCH);
        let mut journaled = HashSet::new();
        let journal = store.report().events().unwrap_or_default();
        let totals = journal.totals();
        self.count_totals(&totals);
        self.count_locks(&journal, &totals);
        for commit in journal.commits() {
            self.commit_waits.seconds.push(commit.waited);
            let has_backup = leaves_backup(commit.default_reason());
            self.backups_last_day +=
                u64::from(has_backup && is_since(&commit.origin.time, yesterday));
            journaled.insert((commit.lineage.to_string(), commit.revision.get()));
        }
        self.commit_waits.before = waits_before(&totals.commit_waits, &self.commit_waits);
        let has_locks = totals.lock_waits.count > 0;
        let is_journaled = |line: &AuditLine<'_>| {
            let is_on_record = || {
                let revision = line.fact("revision")?.parse().ok()?;
                let key = (line.fact("lineage")?.to_owned(), revision);
                Some(journaled.contains(&key) || journal.is_counted(&key.0, key.1))
            };
            match line.report() {
                Some(Reported::Granted | Reported::NotGranted) => has_locks,
                Some(Reported::Committed(_)) => is_on_record().unwrap_or_default(),
                _ => false,
            }
        };
        let directory = store.settings().directory.display();
        let place = |key| fact(key, &self.path);
        let ours = [place("path"), place("store"), fact("root", directory)];
        store.logs().audit().each_line(&ours, &mut |text| {
            // The fact must match as a whole: another root's path may have this one as a prefix.
            let is_ours =
                |fact: &String| text.ends_with(fact) || text.contains(&format!("{fact} "));
            let line = AuditLine::parse(text).filter(|_| ours.iter().any(is_ours));
            if let Some(line) = line.filter(|line| !is_journaled(line)) {
                self.count(&line, yesterday);
            }
        });
        for waits in [&mut self.lock_waits, &mut self.commit_waits] {
            waits.seconds.sort_by(f64::total_cmp);
        }
    }

    /// Counts all commits known to the journal, including those without a line in it by now.
    fn count_totals(&mut self, totals: &Totals) {
        if totals.count() == 0 {
            return;
        }
        self.count_since(&totals.since);
        self.commits += totals.count();
        self.first_bytes = Some(totals.first_bytes);
        for (action, count) in &totals.commits {
            if leaves_backup(action) {
                *self.backups.entry("automatic").or_default() += count;
            }
            self.recovered_often(by_commit(action), *count);
        }
    }

    /// Counts the events of locks, guards and retries.
    fn count_locks(&mut self, journal: &Events, totals: &Totals) {
        let granted = journal.list.iter().filter_map(|event| match event {
            Event::Lock(event) if event.step == LockStep::Granted => Some(event.waited),
            _ => None,
        });
        self.lock_waits.seconds.extend(granted);
        self.lock_waits.before = waits_before(&totals.lock_waits, &self.lock_waits);
        self.by_lock.clone_from(&totals.locks);
        let of = |step| totals.guards.get(&step).copied().unwrap_or_default();
        self.guards = [
            ("succeeded", totals.guarded.0),
            ("failed", totals.guarded.1),
            ("restored", of(GuardStep::Restored)),
            ("unrestored", of(GuardStep::Unrestored)),
            ("forgotten", of(GuardStep::Forgotten)),
        ]
        .into();
        let of = |step| totals.retries.get(&step).copied().unwrap_or_default();
        self.retries = [
            ("succeeded", of(RetryStep::Succeeded)),
            ("failed", of(RetryStep::Failed)),
            ("timed_out", of(RetryStep::TimedOut)),
        ]
        .into();
    }

    fn count(&mut self, line: &AuditLine<'_>, yesterday: SystemTime) {
        self.count_since(line.time);
        let waited = || {
            line.fact("waited")
                .and_then(|waited| waited.parse::<f64>().ok())
                .filter(|waited| *waited >= 0.0)
        };
        let (mut backup, mut recovery, mut times) = (None, None, 1);
        match line.report() {
            Some(Reported::Granted) => self.lock_waits.seconds.extend(waited()),
            Some(Reported::Committed(action)) => {
                let bytes = line.fact("bytes").and_then(|bytes| bytes.parse().ok());
                self.count_commit(waited(), bytes);
                backup = leaves_backup(action).then_some("automatic");
                recovery = by_commit(action);
            }
            Some(Reported::BackedUp) => backup = Some("manual"),
            Some(Reported::Restored) => recovery = Some(Recovery::Restore),
            Some(Reported::Undone) => recovery = Some(Recovery::Undo),
            Some(Reported::Handled) => recovery = Some(Recovery::Handle),
            Some(Reported::Guarded) => recovery = Some(Recovery::Guard),
            Some(Reported::Retried) => {
                recovery = Some(Recovery::Retry);
                times = line.fact("times").and_then(|times| times.parse().ok()).unwrap_or(1);
            }
            Some(Reported::NotGranted) | None => {}
        }
        self.recovered_often(recovery, times);
        self.count_backup(backup, is_since(line.time, yesterday));
    }

    fn count_since(&mut self, time: &str) {
        let earlier = |since: &str| parse_rfc3339(since) > parse_rfc3339(time);
        if self.since.as_deref().is_none_or(earlier) {
            self.since = Some(with_millis(time));
        }
    }

    fn count_commit(&mut self, waited: Option<f64>, bytes: Option<u64>) {
        self.commits += 1;
        self.commit_waits.seconds.extend(waited);
        self.first_bytes = self.first_bytes.or(bytes);
    }

    fn count_backup(&mut self, kind: Option<&'static str>, is_of_last_day: bool) {
        if let Some(kind) = kind {
            *self.backups.entry(kind).or_default() += 1;
            self.backups_last_day += u64::from(is_of_last_day);
        }
    }

    fn recovered_often(&mut self, kind: Option<Recovery>, times: u64) {
        if let Some(kind) = kind {
            *self.recoveries.entry(kind).or_default() += times;
        }
    }

    fn look(&mut self, store: &Store, locks: impl FnOnce() -> Option<LockSummary>) -> Result<()> {
        match store.report().status() {
            Ok((status, refusal)) => {
                self.is_writable = status.writable;
                self.is_healthy = refusal.is_none() && status.writable;
                self.revision = status.document.revision;
                self.state_bytes = status.bytes;
                self.backups_kept = status.backups.automatic + status.backups.pinned;
                self.disk_free = status.disk_free;
            }
            Err(error) if error.code() == ExitCode::NetworkError => return Err(error),
            Err(_) => {}
        }
        if let Some(locks) = locks() {
            let standings = [
                ("held", locks.held),
                ("waiting", locks.waiting),
                ("stale", locks.stale),
                ("unknown", locks.unknown),
            ];
            self.locks.extend(standings);
        }
        if let Ok(ids) = store.checkpoints().ids() {
            self.checkpoints = ids.len();
            let age = ids.last().and_then(|id| store.now().duration_since(time_of(id)?).ok());
            self.newest_checkpoint_age = age.map(|age| age.as_secs());
        }
        let document = store.report().read_as_it_is().ok().flatten();
        self.is_degraded = document.is_some_and(|document| Degraded::of(&document).is_on);
        Ok(())
    }

    /// The growth of the state since the first commit on record.
    pub fn growth(&self) -> Option<i64> {
        let bytes = |bytes: u64| i64::try_from(bytes).ok();
        Some(bytes(self.state_bytes?)? - bytes(self.first_bytes?)?)
    }
}

/// Returns whether a time of RFC 3339 is not before another.
fn is_since(time: &str, start: SystemTime) -> bool {
    parse_rfc3339(time).is_some_and(|time| time >= start)
}

/// The sum of all waits, without those on record.
fn waits_before(totals: &WaitTotals, on_record: &Waits) -> (usize, f64, [u64; BOUNDS.len()]) {
    let of_bound = |bound| on_record.seconds.iter().filter(|wait| **wait <= bound).count() as u64;
    let mut within = totals.within;
    for (count, bound) in within.iter_mut().zip(BOUNDS) {
        *count = count.saturating_sub(of_bound(bound));
    }
    let count =
        usize::try_from(totals.count).unwrap_or(usize::MAX).saturating_sub(on_record.seconds.len());
    let sum = if count == 0 { 0.0 } else { (totals.sum - on_record.sum()).max(0.0) };
    (count, sum, within)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_use_the_nearest_rank() {
        assert_eq!(Waits::default().quantile(0.5), 0.0);
        assert_eq!(Waits::default().sum().to_string(), "0");
        let waits = Waits { seconds: (1..=100).map(f64::from).collect(), ..Waits::default() };
        assert_eq!(
            (waits.quantile(0.0), waits.quantile(0.5), waits.quantile(0.99)),
            (1.0, 50.0, 99.0)
        );
        assert_eq!(
            (waits.quantile(1.0), waits.within(10.0), waits.within(0.5), waits.count()),
            (100.0, 10, 0, 100)
        );
    }
}
