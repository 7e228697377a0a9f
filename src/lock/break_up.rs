//! Operator actions: breaking a lock, ending a wait, and removing the records of dead processes.

use std::time::Instant;

use super::Locks;
use super::edit::RecordEdit;
use super::flock::FileLock;
use super::gate::StoredRecord;
use super::lifeline::Lifeline;
use super::liveness::{Liveness, LivenessProbe};
use super::queue::{dequeue, drop_dead};
use super::record::{Grant, Record, Token, Waiter};
use crate::audit::Level;
use crate::error::{Error, Kind, Result};
use crate::fs::Dir;
use crate::fs::probe::Probe;
use crate::fs::stage::is_temporary;
use crate::name::Name;

/// Selects the grants to remove.
#[derive(Clone, Copy, Debug)]
pub enum BreakTarget {
    /// The grant with this token.
    Token(Token),
    /// All grants, regardless of their holders.
    All,
}

/// A wait that was ended.
#[derive(Clone, Debug)]
pub struct BrokenWait {
    /// The locks that the wait was for.
    pub names: Vec<Name>,
    /// The pid of the owner that the locks were for.
    pub owner: u32,
}

impl Locks {
    /// Takes a lock away from its holders, alive or not. Waiters keep their places in the queue.
    pub fn break_lock(
        &self,
        name: &Name,
        target: BreakTarget,
        deadline: Instant,
    ) -> Result<Vec<Grant>> {
        let not_held = || {
            let what = match target {
                BreakTarget::Token(token) => format!("by token {token}"),
                BreakTarget::All => "by anybody".to_owned(),
            };
            Error::new(Kind::NotFound, format!("{name} is not held {what}; nothing was broken"))
                .hint_command(
                    "lock list",
                    "see the tokens of grants and the IDs of waiters (lock break --waiter ID)",
                )
                .detail("lock", name.as_str())
        };
        let Some(dir) = self.dir()? else { return Err(not_held()) };
        self.reserve_ahead(&dir, deadline); // while this record still shows which tokens were given
        let gate = self.gate(deadline)?;
        let mut edit = gate.load(name)?;
        let broken = remove_grants(&mut edit, target);
        if broken.is_empty() {
            return Err(not_held());
        }
        gate.store(std::slice::from_ref(&edit))?;
        drop(gate);
        for grant in &broken {
            self.audit_grant("break", "broken", name, grant);
        }
        Ok(broken)
    }

    /// Ends the wait of the waiter with this lifeline, in all its queues: its command ends with
    /// [`Kind::Broken`]. A waiter that is proven dead is removed.
    pub fn break_waiter(&self, lifeline: &Lifeline, deadline: Instant) -> Result<BrokenWait> {
        let not_found = || {
            let message = format!("no waiter has the ID {}; nothing was broken", lifeline.id());
            Error::new(Kind::NotFound, message)
                .hint_command("lock list", "see who waits, and the IDs")
                .detail("waiter", lifeline.id())
        };
        let Some(dir) = self.dir()? else { return Err(not_found()) };
        let is_it = |waiter: &Waiter| waiter.lifeline.as_ref() == Some(lifeline);
        let mut names = Vec::new();
        for name in self.names(&dir)? {
            if let StoredRecord::Record(record) = self.read_record(&dir, &name)?
                && record.waiters.iter().any(is_it)
            {
                names.push(name);
            }
        }
        let gate = self.gate(deadline)?;
        let (mut edits, judge) = (gate.load_all(&names)?, gate.judge()?);
        let mut found: Option<Waiter> = None;
        for edit in &mut edits {
            let Some(waiter) = edit.record.waiters.iter_mut().find(|waiter| is_it(waiter)) else {
                continue;
            };
            waiter.broken = true;
            let (waiter, is_dead) = (waiter.clone(), judge.is_dead_waiter(waiter));
            if is_dead {
                dequeue(&mut edit.record, &waiter.process);
            }
            found = Some(waiter);
        }
        edits.retain(|edit| edit.original().waiters.iter().any(is_it));
        let Some(waiter) = found else { return Err(not_found()) };
        gate.store(&edits)?;
        if judge.process(&waiter.process) == Liveness::Alive {
            gate.wake_later(waiter.process.clone());
        }
        drop(gate);
        let names: Vec<Name> = edits.into_iter().map(|edit| edit.name).collect();
        for name in &names {
            let entry = self.entry(Level::Info, "break", "a wait was ended").with("lock", name);
            let entry = entry.with("waiter", lifeline.id()).with("owner", waiter.owner.pid);
            self.audit.record(
                &entry.with("pid", std::process::id()).with("root", self.directory.display()),
            );
        }
        Ok(BrokenWait { names, owner: waiter.owner.pid })
    }

    /// Drops the records of dead owners and waiters, and the files they left; living and unknown
    /// ones stay. Returns how many were dropped.
    pub fn clean(&self, deadline: Instant) -> Result<usize> {
        let Some(dir) = self.dir()? else { return Ok(0) };
        let mut cleaned = 0;
        for name in self.names(&dir)? {
            // The gate is taken only where there is work, and released in between, since other
            // commands wait for it.
            let is_stale = match self.read_record(&dir, &name)? {
                StoredRecord::Damaged(_) => true,
                StoredRecord::Record(record) => {
                    let mut pruned = record.clone();
                    drop_dead(&mut pruned, &LivenessProbe::new(&self.disk, &dir)?);
                    (pruned.holders.len(), pruned.waiters.len())
                        != (record.holders.len(), record.waiters.len())
                        || record.is_empty()
                }
            };
            if is_stale {
                match self.clean_one(&name, deadline) {
                    Err(error) if matches!(error.kind, Kind::UnsafePath | Kind::NewerSchema) => {
                        self.warn(format!("{name} was left as it is: {error}"));
                    }
                    dropped => cleaned += dropped?,
                }
            }
        }
        let reservation = self.block_reservations();
        let gate = self.gate(deadline)?;
        self.clear_leftovers(gate.dir(), reservation.as_ref())?;
        Ok(cleaned)
    }

    fn clean_one(&self, name: &Name, deadline: Instant) -> Result<usize> {
        let gate = self.gate(deadline)?;
        let mut edit: RecordEdit = gate.load(name)?;
        let waiters = edit.record.waiters.len();
        let dead = drop_dead(&mut edit.record, &gate.judge()?);
        let gone = waiters - edit.record.waiters.len();
        gate.store(std::slice::from_ref(&edit))?;
        drop(gate);
        for grant in &dead {
            self.audit_grant("clean", "dropped", name, grant);
        }
        Ok(dead.len() + gone)
    }

    /// The lifelines that records name.
    pub fn lifelines(&self) -> Result<Vec<Lifeline>> {
        self.dir()?.map_or(Ok(Vec::new()), |dir| self.named_lifelines(&dir))
    }

    fn named_lifelines(&self, dir: &Dir) -> Result<Vec<Lifeline>> {
        let mut named = Vec::new();
        for name in self.names(dir)? {
            if let StoredRecord::Record(Record { holders, waiters, .. }) =
                self.read_record(dir, &name)?
            {
                named.extend(holders.into_iter().filter_map(|grant| grant.live_file));
                named.extend(waiters.into_iter().filter_map(|waiter| waiter.lifeline));
            }
        }
        Ok(named)
    }

    /// Removes temporary files, and lifelines that no process has locked and no record names. The
    /// caller holds the gate, so no temporary file of a record is in use; that of a reservation may
    /// be, unless the caller holds its lock (`reservation`).
    pub(super) fn clear_leftovers(&self, dir: &Dir, reservation: Option<&FileLock>) -> Result<()> {
        let named = self.named_lifelines(dir)?;
        for name in self.disk.list(dir)? {
            let Some(text) = name.to_str() else { continue };
            let is_lost = match Lifeline::parse(text) {
                Some(lifeline) if !named.contains(&lifeline) => {
                    self.disk.probe(dir, text)? == Probe::Free
                }
                _ => false,
            };
            if is_lost
                || (is_temporary(text) && (reservation.is_some() || !text.contains("reserved")))
            {
                self.disk.unlink(dir, &name)?;
            }
        }
        Ok(())
    }
}

/// Removes grants from the record; returns those removed.
pub fn remove_grants(edit: &mut RecordEdit, target: BreakTarget) -> Vec<Grant> {
    let hit = |grant: &Grant| match target {
        BreakTarget::Token(token) => grant.token == token,
        BreakTarget::All => true,
    };
    let (broken, kept) = std::mem::take(&mut edit.record.holders).into_iter().partition(hit);
    edit.record.holders = kept;
    broken
}
