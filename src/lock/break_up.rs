//! What an operator does: taking a lock away, and clearing up after the dead.

use std::time::{Duration, Instant};

use super::Locks;
use super::draft::Draft;
use super::flock::FileLock;
use super::gate::Seen;
use super::liveness::Judge;
use super::queue::prune;
use super::record::{Grant, Record, Token};
use crate::error::{Error, Kind, Result};
use crate::fs::stage::is_temporary;
use crate::fs::{Access, Dir, Locked};
use crate::name::Name;

/// Which grants are taken away.
#[derive(Clone, Copy, Debug)]
pub enum Victim {
    /// The one of this token.
    Token(Token),
    /// All, whoever holds them.
    Everybody,
}

impl Locks {
    /// Takes a lock away from its holders, alive or not. Waiters keep their places.
    pub fn break_lock(&self, name: &Name, victim: Victim, deadline: Instant) -> Result<Vec<Grant>> {
        let not_held = || {
            let what = match victim {
                Victim::Token(token) => format!("by token {token}"),
                Victim::Everybody => "by anybody".to_owned(),
            };
            Error::new(Kind::NotFound, format!("{name} is not held {what}; nothing was broken"))
                .try_command("lock list", "see which locks are held, and by which tokens")
                .detail("lock", name.as_str())
        };
        let Some(dir) = self.dir()? else { return Err(not_held()) };
        self.reserve_ahead(&dir, deadline); // while this record still says which tokens were given
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

    /// Drops the records of dead owners and waiters, and the files they left; never those of the living or the unknown. How
    /// many were dropped.
    pub fn clean(&self, deadline: Instant) -> Result<usize> {
        let Some(dir) = self.dir()? else { return Ok(0) };
        let mut cleaned = 0;
        for name in self.names(&dir)? {
            // The gate is passed only where there is something to do, and left in between: others wait.
            let is_stale = match self.peek(&dir, &name)? {
                Seen::Damaged(_) => true,
                Seen::Record(record) => {
                    let mut pruned = record.clone();
                    prune(&mut pruned, &Judge::new(&self.disk, &dir)?);
                    (pruned.holders.len(), pruned.waiters.len()) != (record.holders.len(), record.waiters.len())
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

    /// Removes temporary files, and live files that nobody holds locked and no record names. Called behind the gate, so
    /// no temporary file of a record is in use; that of a reservation may be, unless the caller holds its lock.
    pub(super) fn clear_leftovers(&self, dir: &Dir, reservation: Option<&FileLock>) -> Result<()> {
        let mut named = Vec::new();
        for name in self.names(dir)? {
            if let Seen::Record(Record { holders, .. }) = self.peek(dir, &name)? {
                named.extend(holders.into_iter().filter_map(|grant| grant.live_file));
            }
        }
        for name in self.disk.list(dir)? {
            let Some(text) = name.to_str() else { continue };
            let is_lost = text.starts_with(super::run::LIVE_FILE) && !named.iter().any(|used| used == text) && {
                let file = self.disk.open(dir, &name, Access::Append)?;
                file.is_some_and(|file| {
                    let free = self.disk.lock(file, &dir.path_of(&name), Duration::ZERO);
                    matches!(free, Ok(Locked::Yes(_)))
                })
            };
            if is_lost || (is_temporary(text) && (reservation.is_some() || !text.contains("reserved"))) {
                self.disk.unlink(dir, &name)?;
            }
        }
        Ok(())
    }
}

/// Takes grants off the record; those that were hit.
pub fn take_away(draft: &mut Draft, victim: Victim) -> Vec<Grant> {
    let hit = |grant: &Grant| match victim {
        Victim::Token(token) => grant.token == token,
        Victim::Everybody => true,
    };
    let (broken, kept) = std::mem::take(&mut draft.record.holders).into_iter().partition(hit);
    draft.record.holders = kept;
    broken
}
