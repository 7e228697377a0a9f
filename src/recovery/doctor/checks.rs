//! The checks. They are independent: an error in one of them is a finding and does not stop the
//! others.

mod files;
mod owners;
mod signals;

use std::ffi::OsStr;
use std::time::{Duration, SystemTime};

use super::{Finding, LoosePermissions, Subject};
use crate::clutter::is_clutter;
use crate::document::degraded::Degraded;
use crate::error::{ExitCode, Kind, Result, one_line, quote_path};
use crate::fs::probe::Probe;
use crate::fs::{Dir, Stat};
use crate::hook::load::load;
use crate::hook::rules::Scope;
use crate::lock::{EntryStatus, LOCKS, Liveness, STATE_LOCK};
use crate::os::hints;
use crate::plural::count;
use crate::store::FileStore;
use crate::store::checkpoint::id::time_of;
use crate::store::diagnosis::{HealthKind, Mirror};
use crate::store::layout::{BACKUPS, BackupName, CHECKPOINTS, CONFIG, MIRROR, WORKSHOP};
use crate::store::report::{DocumentFacts, Status};
use crate::store::restore::Interrupted;
use crate::time::{parse_rfc3339, rfc3339};
use crate::{side, tree};

/// If less than this is left on the disk, beyond the size of the state, the next commits may fail.
const LITTLE_SPACE: u64 = 128 << 10;
/// If fewer inodes than this are left, commits may fail: one needs three.
const FEW_INODES: u64 = 32;
/// The tolerated clock deviation.
const TOLERANCE: Duration = Duration::from_secs(120);
/// More checkpoints than this, or older ones, are a finding.
const MANY_CHECKPOINTS: usize = 100;
const OLD_CHECKPOINT: Duration = Duration::from_secs(30 * 86_400);
/// A log of this size is a finding.
const LARGE_LOG: u64 = 1 << 30;

/// The results of all checks.
#[derive(Debug, Default)]
pub struct Found {
    /// The problems.
    pub findings: Vec<Finding>,
    /// Files of this program that other users may access.
    pub(super) loose: Vec<LoosePermissions>,
}

type Check<'a> = fn(&mut Examination<'a>) -> Result<()>;

struct Examination<'a> {
    store: &'a FileStore,
    root: Dir,
    found: Found,
}

/// Runs all checks.
pub fn all(store: &FileStore) -> Found {
    let root = match side::open_root(store.disk(), &store.settings().directory) {
        Ok(root) => root,
        Err(error) => {
            return Found { findings: vec![Finding::of(Subject::State, error)], loose: Vec::new() };
        }
    };
    let mut all = Examination { store, root, found: Found::default() };
    // A damaged state is reported by its own check, and other problems by theirs.
    let checks: [(Subject, Check<'_>); 18] = [
        (Subject::Owners, Examination::owners),
        (Subject::State, Examination::state),
        (Subject::Restore, Examination::restore),
        (Subject::Guards, Examination::guards),
        (Subject::Backups, Examination::backups),
        (Subject::Checkpoints, Examination::checkpoints),
        (Subject::Locks, Examination::locks),
        (Subject::Signals, signals::signals),
        (Subject::Config, Examination::config),
        (Subject::Rules, Examination::rules),
        (Subject::Files, Examination::places),
        (Subject::Modes, Examination::modes),
        (Subject::Writing, Examination::writability),
        (Subject::Restore, Examination::replacing),
        (Subject::Leftovers, Examination::leftovers),
        (Subject::Logs, Examination::logs),
        (Subject::Disk, Examination::disk),
        (Subject::Clock, Examination::clock),
    ];
    for (subject, check) in checks {
        if let Err(error) = check(&mut all) {
            // A problem that stops several checks is reported once, and an owner that locks this
            // user out is named.
            let is_owned =
                all.found.findings.iter().any(|finding| finding.subject == Subject::Owners);
            let shuts_out = [Kind::PermissionDenied, Kind::ForeignOwner].contains(&error.kind);
            if is_owned && shuts_out {
                continue;
            }
            if !all.found.findings.iter().any(|finding| finding.is_of(&error)) {
                all.found.findings.push(Finding::of(subject, error));
            }
        }
    }
    all.found
}

impl Examination<'_> {
    fn add(&mut self, finding: Finding) {
        self.found.findings.push(finding);
    }

    fn stat(&self, name: impl AsRef<OsStr>) -> Result<Option<Stat>> {
        Ok(self.store.disk().stat(&self.root, name)?)
    }

    /// A side directory with the names in it; `None` if it does not exist.
    fn side(&self, name: &str) -> Result<Option<(Dir, Vec<String>)>> {
        let Some(dir) = side::open_to_read(self.store.disk(), &self.root, name)? else {
            return Ok(None);
        };
        let names = self.store.disk().list(&dir)?.into_iter().filter(|name| !is_clutter(name));
        let names = names.filter_map(|name| name.into_string().ok()).collect();
        Ok(Some((dir, names)))
    }

    fn shown(&self, name: &str) -> String {
        quote_path(&self.root.path_of(name))
    }

    fn state(&mut self) -> Result<()> {
        let (status, refusal) = self.store.report().status()?;
        self.store.take_warnings(); // each of them is a finding of its own
        let Status { mirror, document: DocumentFacts { health, degraded, .. }, .. } = &status;
        if let Some(error) = refusal {
            let heals = *health == HealthKind::Damaged && self.store.report().heals_by_itself();
            let finding = Finding::of(Subject::State, error);
            self.add(if heals { finding.automatic() } else { finding });
        } else if *health == HealthKind::Legacy {
            let finding = Finding::new(
                Subject::State,
                ExitCode::General,
                "the state has no seal, so a change by another program cannot be detected",
            );
            self.add(finding.hint_command(
                "state migrate",
                "seal it; the file as it is becomes a pinned backup",
            ));
        } else if *mirror != Some(Mirror::Same) && self.is_place_free(BACKUPS, MIRROR)? {
            let how = if *mirror == Some(Mirror::Absent) { "is missing" } else { "differs" };
            let message = format!(
                "the mirror {how}: if the state file is destroyed, its newest revision is lost"
            );
            self.add(Finding::new(Subject::Mirror, ExitCode::General, message).automatic());
        }
        if *degraded {
            let value = self.store.report().read_as_it_is()?;
            let mode = value.map(|value| Degraded::of(&value)).unwrap_or_default();
            let message = one_line(&format!("degraded since {}: {}", mode.since, mode.reason));
            self.add(
                Finding::new(Subject::Degraded, ExitCode::General, message)
                    .hint_command("recover recover-mode", "back to normal"),
            );
        }
        if status.locks.shared_file_system {
            let message = format!(
                "{} is on a file system ({}) that other machines may share: flock and {} may be \
                 unreliable there",
                status.locks.directory,
                status.locks.file_system,
                hints::NOTIFICATIONS
            );
            let finding = Finding::new(Subject::Locks, ExitCode::General, message);
            self.add(finding.hint_command("--help", "--state-file names one on a local disk"));
        }
        Ok(())
    }

    fn restore(&mut self) -> Result<()> {
        let in_progress = self.stat(format!("{CHECKPOINTS}/{WORKSHOP}"))?.is_some();
        if let Some(interrupted) = self.store.intents().interrupted()? {
            match interrupted {
                Interrupted::Ours(id) => {
                    let what = format!("a restore of {id} was interrupted");
                    self.add(match self.store.obstacles().interrupted_restore()? {
                        Some(obstacle) => {
                            let message =
                                format!("{what} and cannot be finished: {}", obstacle.message);
                            Finding::of(Subject::Restore, obstacle).saying(message)
                        }
                        None => {
                            let message = format!(
                                "{what}; the next command that reads or writes finishes it"
                            );
                            Finding::new(Subject::Restore, ExitCode::General, message).automatic()
                        }
                    });
                }
                Interrupted::Foreign(refusal) => {
                    let finding = Finding::new(Subject::Restore, refusal.code(), refusal.message);
                    self.add(finding.hint_command("recover restore --abort", "drop it"));
                }
            }
        } else if in_progress && !self.is_busy()? {
            let message = format!("{CHECKPOINTS}/{WORKSHOP} was left by a command that was killed");
            self.add(Finding::new(Subject::Leftovers, ExitCode::General, message).automatic());
        }
        Ok(())
    }

    /// Reports what would refuse a restore, and so a guard.
    fn replacing(&mut self) -> Result<()> {
        let Some(obstacle) = self.store.obstacles().restore()? else { return Ok(()) };
        let is_reported = |finding: &Finding| finding.is_of(&obstacle);
        // An owner or mode that keeps writers out has a finding of its own.
        let explains = |finding: &Finding| {
            [Subject::Owners, Subject::Modes, Subject::Files].contains(&finding.subject)
        };
        if !self.found.findings.iter().any(|finding| is_reported(finding) || explains(finding)) {
            let message =
                format!("a restore, and so a guard, would be refused: {}", obstacle.message);
            self.add(Finding::of(Subject::Restore, obstacle).saying(message));
        }
        Ok(())
    }

    fn guards(&mut self) -> Result<()> {
        for guard in self.store.guards().list()? {
            Finding::of_guard(&guard).into_iter().for_each(|finding| self.add(finding));
        }
        Ok(())
    }

    /// Returns whether a writer holds the state lock now; then files that look left over may be in
    /// use.
    fn is_busy(&self) -> Result<bool> {
        let disk = self.store.disk();
        let Some(locks) = side::open_to_read(disk, &self.root, LOCKS)? else { return Ok(false) };
        Ok(disk.probe(&locks, STATE_LOCK)? == Probe::Locked)
    }

    fn backups(&mut self) -> Result<()> {
        for backup in self.store.report().backups()? {
            let Some(problem) = backup.problem else { continue };
            let path = self.shown(&format!("{BACKUPS}/{}", backup.name));
            let message = format!("the backup {} cannot be restored: {problem}", backup.name);
            if backup.is_newer {
                let finding = Finding::new(Subject::Backups, ExitCode::ValidationFailed, message);
                self.add(finding.hint_command("--version", "a newer one is needed"));
                continue;
            }
            let away = match self.is_place_free(BACKUPS, &backup.name)? {
                true => format!("rm -i {path}"),
                false => format!("mv {path} {path}.old"),
            };
            self.add(
                Finding::new(Subject::Backups, ExitCode::StateCorruption, message)
                    .hint_shell(away, "if it is of no use"),
            );
        }
        Ok(())
    }

    fn checkpoints(&mut self) -> Result<()> {
        let ids = self.store.checkpoints().ids()?;
        let mut newest_from_before = None;
        for id in &ids {
            if let Err(error) = self.store.checkpoints().verify(id) {
                if error.kind == Kind::Unverifiable {
                    newest_from_before = Some(error);
                    continue;
                }
                self.add(Finding::of(Subject::Checkpoints, error));
            }
        }
        // They are all of one kind, and not damaged.
        if let Some(error) = newest_from_before {
            self.add(Finding {
                code: ExitCode::General,
                ..Finding::of(Subject::Checkpoints, error)
            });
        }
        let now = self.store.disk().now();
        let is_old = |id: &&String| {
            time_of(id).and_then(|time| now.duration_since(time).ok()) > Some(OLD_CHECKPOINT)
        };
        let old = ids.iter().rev().skip(1).filter(is_old).count();
        if ids.len() > MANY_CHECKPOINTS || old > 0 {
            let message =
                format!("{} checkpoints are kept, {old} of them older than 30 days", ids.len());
            let finding = Finding::new(Subject::Checkpoints, ExitCode::General, message);
            self.add(match old {
                0 => finding.hint_command("recover cleanup 0 --keep 20", "keep only the newest 20"),
                _ => finding.hint_command("recover cleanup", "remove what is older than 7 days"),
            });
        }
        Ok(())
    }

    fn locks(&mut self) -> Result<()> {
        for entry in self.store.locks().list()? {
            let who = entry.pid().map_or_else(String::new, |pid| {
                format!(" of {pid} ({})", one_line(&entry.command))
            });
            let lock = &entry.lock;
            let token = entry
                .token
                .map_or_else(|| "--force".to_owned(), |token| format!("--token {token}"));
            match entry.status {
                EntryStatus::Stale => {
                    let what =
                        if entry.token.is_some() { "a grant" } else { "a place in the queue" };
                    let message = format!("the lock {lock} has {what}{who}, which is dead");
                    self.add(Finding::new(Subject::Locks, ExitCode::General, message).automatic());
                }
                EntryStatus::Damaged => {
                    let why = one_line(entry.damage.as_deref().unwrap_or_default());
                    let message = format!("the record of the lock {lock} is damaged: {why}");
                    let finding = Finding::new(Subject::Locks, ExitCode::StateCorruption, message);
                    self.add(finding.hint_command(
                        format!("lock break {lock} --force"),
                        "once you know that it has no holder",
                    ));
                }
                // A waiter past its deadline: the next request drops it.
                EntryStatus::Unknown if entry.token.is_none() => {}
                EntryStatus::Waiting if entry.liveness == Liveness::Unknown => {
                    let place = entry
                        .namespace
                        .as_ref()
                        .map_or_else(String::new, |place| format!(" in {place}"));
                    let message = format!(
                        "the liveness of the waiter for the lock {lock}{who}{place} is unknown here"
                    );
                    let finding = Finding::new(Subject::Locks, ExitCode::General, message);
                    self.add(match &entry.waiter {
                        Some(id) => finding.hint_command(
                            format!("lock break --waiter {id}"),
                            "once you know that it is dead",
                        ),
                        None => finding.hint_command(
                            "lock list",
                            "see it; the queue drops it at its deadline",
                        ),
                    });
                }
                EntryStatus::Unknown => {
                    let place = entry
                        .namespace
                        .as_ref()
                        .map_or_else(String::new, |place| format!(" in {place}"));
                    let message = format!(
                        "the liveness of the holder of the lock {lock}{who}{place} is unknown here"
                    );
                    let finding = Finding::new(Subject::Locks, ExitCode::General, message);
                    self.add(finding.hint_command(
                        format!("lock break {lock} {token}"),
                        "once you know that it is dead",
                    ));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Reports entries that no checkpoint can hold.
    fn config(&mut self) -> Result<()> {
        let root = side::open_root(self.store.disk(), &self.store.settings().root)?;
        tree::list(self.store.disk(), &root, CONFIG).map(|_| ())
    }

    /// Reports rules that the hooks skip.
    fn rules(&mut self) -> Result<()> {
        let root = &self.store.settings().root;
        let Some(loaded) = load(root, Scope::All)? else { return Ok(()) };
        let bad = loaded.read.as_ref().map_or(1, |reading| reading.bad().count());
        if bad > 0 {
            let problems = count(bad, "problem");
            let message =
                format!("{problems} in {}: hooks skip these rules", quote_path(&loaded.path));
            let finding = Finding::new(Subject::Rules, ExitCode::ValidationFailed, message);
            self.add(finding.hint_command("hook check", "see each of them, with its line"));
        }
        Ok(())
    }

    fn logs(&mut self) -> Result<()> {
        let audit = self.store.logs().audit();
        let path = audit.used().display().to_string();
        if self.found.findings.iter().any(|finding| finding.subject == Subject::Owners) {
            return Ok(()); // another user cannot use the owner's log, nor anything else here
        }
        if let Some(why) = audit.check() {
            let message =
                format!("the audit log cannot be used: {why}; one in the root takes its place");
            let word = quote_path(audit.path());
            let finding = Finding::new(Subject::Logs, ExitCode::PermissionDenied, message);
            self.add(
                finding.hint_shell(
                    format!("ls -ld {word}"),
                    "see what it is; --audit-log names another",
                ),
            );
        } else if self
            .store
            .disk()
            .stat(&Dir::working(), &path)?
            .is_some_and(|stat| stat.size > LARGE_LOG)
        {
            let word = quote_path(audit.used());
            let finding = Finding::new(
                Subject::Logs,
                ExitCode::General,
                format!("the audit log {path} has over 1 GiB"),
            );
            self.add(finding.hint_shell(
                format!("mv {word} {word}.old"),
                "history and metrics forget what is in it",
            ));
        }
        Ok(())
    }

    fn disk(&mut self) -> Result<()> {
        if self.found.findings.iter().any(|finding| finding.code == ExitCode::DiskFull) {
            return Ok(());
        }
        let Ok(disk) = rustix::fs::fstatvfs(self.root.at()) else { return Ok(()) };
        let state = self.stat(&self.store.settings().file_name)?.map_or(0, |stat| stat.size);
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        let little = free < LITTLE_SPACE + 8 * state;
        // Some file systems report no inodes.
        let few = disk.f_files > 0 && disk.f_favail < FEW_INODES;
        if little || few {
            let what =
                if few { format!("{} inodes", disk.f_favail) } else { format!("{free} bytes") };
            let root = quote_path(self.root.path());
            let finding = Finding::new(
                Subject::Disk,
                ExitCode::DiskFull,
                format!("{what} are left on the disk of the state"),
            );
            self.add(finding.hint_shell(
                format!("df -h {root}; df -i {root}"),
                "make room; `recover cleanup` removes old checkpoints",
            ));
        }
        Ok(())
    }

    /// Reports times in the future: a clock is or was wrong, and names and ages are unreliable.
    fn clock(&mut self) -> Result<()> {
        let limit = self.store.disk().now() + TOLERANCE;
        let mut future: Vec<(String, SystemTime)> = Vec::new();
        if let Some(stat) = self.stat(&self.store.settings().file_name)? {
            let since = Duration::from_secs(u64::try_from(stat.mtime.0).unwrap_or(0));
            future.push(("the state file".to_owned(), SystemTime::UNIX_EPOCH + since));
        }
        let state = self.store.report().read_as_it_is()?;
        let modified =
            state.as_ref().and_then(|state| state.pointer("/metadata/lastModified")?.as_str());
        if let Some(time) = modified.and_then(parse_rfc3339) {
            future.push(("the last commit".to_owned(), time));
        }
        if let Some((_, names)) = self.side(BACKUPS)? {
            future.extend(names.into_iter().filter_map(|name| {
                BackupName::parse(&name).map(|name| (name.as_str().to_owned(), name.time))
            }));
        }
        future.extend(
            self.store
                .checkpoints()
                .ids()?
                .into_iter()
                .filter_map(|id| time_of(&id).map(|time| (id, time))),
        );
        future.retain(|(_, time)| *time > limit);
        if let Some((what, time)) = future.first() {
            let more = future.len() - 1;
            let more = if more == 0 { String::new() } else { format!(" (and {more} more)") };
            let message = format!(
                "{what} is from the future, {}{more}: a clock is or was wrong",
                rfc3339(*time)
            );
            self.add(
                Finding::new(Subject::Clock, ExitCode::General, message)
                    .hint_shell(hints::LOOK_AT_CLOCK, "see which one"),
            );
        }
        Ok(())
    }
}
