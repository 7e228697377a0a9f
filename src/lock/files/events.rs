//! What happens to locks, as lines of the root's journal. They are appended while holding the gate,
//! so that their order is that of the changes, and with one write for a change.

use std::time::Instant;

use rustix::io::Errno;

use super::flock::{ShortLock, lock_dir};
use super::gate::Gate;
use super::root::LockRoot;
use crate::error::Error;
use crate::journal::event::{
    BLOCKERS_LIMIT, Blocker, Failure, LockEvent, LockMode, LockStep, Party, Role,
};
use crate::journal::{DIRECTORY, Event, Fill, JOURNAL, Journal, Origin};
use crate::lock::author::{party, party_of};
use crate::lock::edit::RecordEdit;
use crate::lock::liveness::LivenessOracle;
use crate::lock::queue::{self, nearest_blockers};
use crate::lock::record::{Grant, Mode};
use crate::lock::request::Request;
use crate::name::Name;

impl From<Mode> for LockMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Exclusive => Self::Exclusive,
            Mode::Shared => Self::Shared,
        }
    }
}

/// A change of one lock, before its time and author are known.
#[derive(Clone, Debug)]
pub(super) struct Happened {
    pub lock: Name,
    pub step: LockStep,
    pub mode: Option<Mode>,
    pub token: Option<u64>,
    pub subject: Option<Party>,
}

impl Happened {
    /// What happened to a grant.
    pub fn to_grant(lock: &Name, step: LockStep, grant: &Grant) -> Self {
        let subject = matches!(step, LockStep::Broken | LockStep::OwnerDied);
        Self {
            lock: lock.clone(),
            step,
            mode: Some(grant.mode),
            token: Some(grant.token.get()),
            subject: subject.then(|| party(grant)),
        }
    }

    /// The line of this, by `origin`.
    fn event(self, origin: &Origin, waits: &Waits) -> Event {
        let Self { lock, step, mode, token, subject } = self;
        let is_wait = matches!(step, LockStep::Granted | LockStep::TimedOut);
        Event::Lock(LockEvent {
            origin: origin.clone(),
            lock: lock.to_string(),
            step,
            mode: mode.map(LockMode::from),
            token,
            waited: if is_wait { waits.seconds } else { 0.0 },
            blockers: if is_wait { waits.blockers_of(&lock) } else { Vec::new() },
            subject,
        })
    }
}

/// How long a request waited, and what for when it began to wait.
#[derive(Clone, Debug, Default)]
pub(in crate::lock) struct Waits {
    pub seconds: f64,
    pub blockers: Vec<(Name, Blocker)>,
}

impl Waits {
    /// What blocks a request for these locks.
    pub fn for_locks(edits: &[RecordEdit], request: &Request, oracle: &dyn LivenessOracle) -> Self {
        let mut blockers = Vec::new();
        for RecordEdit { name, record, .. } in edits {
            let nearest = nearest_blockers(name, record, &request.requester, request.spec, oracle);
            blockers.extend(nearest.blockers.into_iter().take(BLOCKERS_LIMIT).map(|blocker| {
                let blocker = match blocker {
                    queue::Blocker::Holder(grant) => {
                        Blocker { role: Role::Holder, party: party(grant) }
                    }
                    queue::Blocker::Waiter(waiter) => {
                        let waiter = oracle.detailed(waiter);
                        let party = party_of(&waiter.owner, &waiter.command);
                        Blocker { role: Role::Waiter, party }
                    }
                };
                (name.clone(), blocker)
            }));
        }
        Self { seconds: 0.0, blockers }
    }

    fn blockers_of(&self, lock: &Name) -> Vec<Blocker> {
        let of_lock = self.blockers.iter().filter(|(name, _)| name == lock);
        of_lock.map(|(_, blocker)| blocker.clone()).collect()
    }

    /// What blocked it, of all locks.
    pub fn into_blockers(self) -> Vec<Blocker> {
        self.blockers.into_iter().map(|(_, blocker)| blocker).take(BLOCKERS_LIMIT).collect()
    }
}

impl Gate<'_> {
    /// Puts the changed ones of these records in place, all or none, and appends what happened to
    /// the root's journal. Grants that are gone for no other reason ended with their owners.
    pub(super) fn commit(
        &self,
        edits: &[RecordEdit],
        author: impl FnOnce() -> Origin,
        happened: Vec<Happened>,
        waits: &Waits,
    ) -> crate::error::Result<()> {
        self.store(edits)?;
        let mut all = dead_owners(edits, &happened);
        all.extend(happened);
        self.append(author, all, waits);
        Ok(())
    }

    /// Appends what happened to the root's journal, if there is one. A failure is a warning.
    pub(super) fn append(
        &self,
        author: impl FnOnce() -> Origin,
        happened: Vec<Happened>,
        waits: &Waits,
    ) {
        if happened.is_empty() {
            return;
        }
        let (disk, locks) = (&self.locks.disk, self.locks);
        let dir = match disk.open_dir(&self.root, DIRECTORY) {
            Ok(dir) => dir,
            Err(error) if error.is(Errno::NOENT) => return,
            Err(error) => return warn(locks, &error.to_string()),
        };
        let journal = Journal::new(disk, &dir);
        let lines = || {
            let origin = author();
            happened.into_iter().map(|one| one.event(&origin, waits)).collect()
        };
        match journal.append_if_there(lines) {
            Ok(Fill::Low) => {}
            Ok(Fill::Full) => locks.is_journal_full.set(true),
            Err(why) => {
                locks.is_journal_full.set(true); // perhaps
                warn(locks, &why);
            }
        }
    }
}

/// Appends to the root's journal, if there is one, that a command was refused. The caller holds
/// nothing.
pub(in crate::lock) fn record_failure(locks: &LockRoot, action: &str, error: &Error) {
    let append = || -> Option<Fill> {
        let root = locks.disk.open_root(&locks.directory).ok()?;
        let dir = locks.disk.open_dir(&root, DIRECTORY).ok()?;
        let stat = locks.disk.stat(&dir, JOURNAL).ok()??;
        if stat.uid != crate::user::current() {
            return None; // a refusal for root leaves another user's files alone
        }
        let gate = Gate::enter(locks, Instant::now()).ok()?;
        let failure = || Failure::of(locks.author(), &format!("lock {action}"), error);
        let journal = Journal::new(&locks.disk, &dir);
        let appended = journal.append_if_there(|| vec![Event::Failure(failure())]);
        drop(gate);
        appended.map_err(|why| warn(locks, &why)).ok()
    };
    locks.is_journal_full.set(append() == Some(Fill::Full));
}

fn warn(locks: &LockRoot, why: &str) {
    locks.warn(format!("the journal has no line of this: {why}"));
}

/// The grants that are gone and not among what happened: their owners are dead.
fn dead_owners(edits: &[RecordEdit], happened: &[Happened]) -> Vec<Happened> {
    let mut dead = Vec::new();
    for edit in edits {
        let gone = edit.original().holders.iter().filter(|grant| {
            let is_explained =
                |one: &Happened| one.lock == edit.name && one.token == Some(grant.token.get());
            edit.record.grant(grant.token).is_none() && !happened.iter().any(is_explained)
        });
        dead.extend(gone.map(|grant| Happened::to_grant(&edit.name, LockStep::OwnerDied, grant)));
    }
    dead
}

/// Rotates the root's journal if a line of this command filled it and no commit is under way; the
/// next commit does it otherwise. The caller holds nothing.
pub(in crate::lock) fn rotate_full_journal(locks: &LockRoot) {
    if !locks.is_journal_full.replace(false) {
        return;
    }
    let now = Instant::now();
    let Ok(state) = lock_dir(locks, ShortLock::State, now) else { return };
    let Ok(gate) = Gate::enter(locks, now) else { return };
    let Ok(dir) = locks.disk.open_dir(&gate.root, DIRECTORY) else { return };
    let rotated = Journal::new(&locks.disk, &dir).rotate(state.lock.inode());
    if let Err(why) = rotated
        && locks.warnings.borrow().is_empty()
    {
        locks.warn(format!("the journal could not be rotated: {why}"));
    }
}
