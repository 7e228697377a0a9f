//! Operator actions: breaking a lock, ending a wait, and removing the records of dead processes.

use std::time::Instant;

use super::Locks;
use super::draft::Draft;
use super::flock::FileLock;
use super::gate::Seen;
use super::lifeline::Lifeline;
use super::liveness::{Judge, Liveness};
use super::queue::{leave, prune};
use super::record::{Grant, Record, Token, Waiter};
use crate::audit::Level;
use crate::error::{Error, Kind, Result};
use crate::fs::Dir;
use crate::fs::probe::Probe;
use crate::fs::stage::is_temporary;
use crate::name::Name;

/// Selects the grants to remove.
#[derive(Clone, Copy, Debug)]
pub enum Victim {
    /// The grant with this token.
    Token(Token),
    /// All grants, regardless of their holders.
    Everybody,
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
    pub fn break_lock(&self, name: &Name, victim: Victim, deadline: Instant) -> Result<Vec<Grant>> {
        let not_held = || {
            let what = match victim {
                Victim::Token(token) => format!("by token {token}"),
                Victim::Everybody => "by anybody".to_owned(),
            };
            Error::new(Kind::NotFound, format!("{name} is not held {what}; nothing was broken"))
                .try_command(
                    "lock list",
                    "see the tokens of grants and the IDs of waiters (lock break --waiter ID)",
                )
                .detail("lock", name.as_str())
        };
        let Some(dir) = self.dir()? else { return Err(not_held()) };
        self.reserve_ahead(&dir, deadline); // while this record still shows which tokens were given
        let gate = self.gate(deadline)?;
        let mut draft = gate.load(name)?;
        let broken = take_away(&mut draft, victim);
        if broken.is_empty() {
            return Err(not_held());
        }
        gate.store(std::slice::from_ref(&draft))?;
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
                .try_command("lock list", "see who waits, and the IDs")
                .detail("waiter", lifeline.id())
        };
        let Some(dir) = self.dir()? else { return Err(not_found()) };
        let is_it = |waiter: &Waiter| waiter.lifeline.as_ref() == Some(lifeline);
        let mut names = Vec::new();
        for name in self.names(&dir)? {
            if let Seen::Record(record) = self.peek(&dir, &name)?
                && record.waiters.iter().any(is_it)
            {
                names.push(name);
            }
        }
        let gate = self.gate(deadline)?;
        let (mut drafts, judge) = (gate.load_all(&names)?, gate.judge()?);
        let mut found: Option<Waiter> = None;
        for draft in &mut drafts {
            let Some(waiter) = draft.record.waiters.iter_mut().find(|waiter| is_it(waiter)) else {
                continue;
            };
            waiter.broken = true;
            let (waiter, is_dead) = (waiter.clone(), judge.is_dead_waiter(waiter));
            if is_dead {
                leave(&mut draft.record, &waiter.process);
            }
            found = Some(waiter);
        }
        drafts.retain(|draft| draft.original().waiters.iter().any(is_it));
        let Some(waiter) = found else { return Err(not_found()) };
        gate.store(&drafts)?;
        if judge.process(&waiter.process) == Liveness::Alive {
            gate.wake_later(waiter.process.clone());
        }
        drop(gate);
        let names: Vec<Name> = drafts.into_iter().map(|draft| draft.name).collect();
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
            let is_stale = match self.peek(&dir, &name)? {
                Seen::Damaged(_) => true,
                Seen::Record(record) => {
                    let mut pruned = record.clone();
                    prune(&mut pruned, &Judge::new(&self.disk, &dir)?);
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
        let reservation = self.no_reservation();
        let gate = self.gate(deadline)?;
        self.clear_leftovers(gate.dir(), reservation.as_ref())?;
        Ok(cleaned)
    }

    fn clean_one(&self, name: &Name, deadline: Instant) -> Result<usize> {
        let gate = self.gate(deadline)?;
        let mut draft: Draft = gate.load(name)?;
        let waiters = draft.record.waiters.len();
        let dead = prune(&mut draft.record, &gate.judge()?);
        let gone = waiters - draft.record.waiters.len();
        gate.store(std::slice::from_ref(&draft))?;
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
            if let Seen::Record(Record { holders, waiters, .. }) = self.peek(dir, &name)? {
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
pub fn take_away(draft: &mut Draft, victim: Victim) -> Vec<Grant> {
    let hit = |grant: &Grant| match victim {
        Victim::Token(token) => grant.token == token,
        Victim::Everybody => true,
    };
    let (broken, kept) = std::mem::take(&mut draft.record.holders).into_iter().partition(hit);
    draft.record.holders = kept;
    broken
}
