//! A commit and the lock `state`: its holder's own commits pass, all others wait for it.

use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::cycle;
use super::encoding::{Held, Waiting, waiter_value};
use super::ground::Ground;
use super::keeper_process::Host;
use super::keys::LockKeys;
use super::lost::{Loss, lives};
use super::oracle::ClusterOracle;
use super::wait::line_of;
use crate::error::{Error, Kind, Result};
use crate::etcd::client::Client;
use crate::etcd::messages::KeyValue;
use crate::etcd::txn::snapshot;
use crate::lock::Fence;
use crate::lock::describe::describe_holder_from_here;
use crate::lock::lifeline::Lifeline;
use crate::lock::liveness::{Liveness, LivenessOracle as _, unix_seconds};
use crate::lock::process::command_of;
use crate::lock::process::owner::{self, LockEnv};
use crate::lock::record::{Mode, Place, Purpose, Waiter};
use crate::lock::request::{Requester, STATE};
use crate::name::Name;
use crate::time::rfc3339_millis;

/// A command that commits.
#[derive(Debug)]
pub struct Committer {
    requester: Requester,
}

/// A holder of `state` that a commit waits for.
#[derive(Clone, Debug)]
pub struct Obstacle {
    /// The key of its grant.
    pub key: Bytes,
    /// The holder, in words.
    pub holder: String,
}

/// What a writer knows of the process that is ahead of it in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ahead {
    /// It has ended.
    Dead,
    /// It is a process of this host.
    Here(u32),
    /// Its lease ends if it does.
    Elsewhere,
}

impl Ahead {
    /// What is known of the process of a place in the queue.
    pub fn of(place: &KeyValue) -> Result<Self> {
        let Some(Waiting { waiter, .. }) = Waiting::of(place) else { return Ok(Self::Elsewhere) };
        Ok(match ClusterOracle::new()?.process(&waiter.process) {
            Liveness::Dead => Self::Dead,
            Liveness::Alive => Self::Here(waiter.process.pid),
            Liveness::Unknown => Self::Elsewhere,
        })
    }
}

impl Committer {
    /// This command.
    pub fn new(env: &LockEnv) -> Result<Self> {
        Ok(Self { requester: owner::self_and_ancestors(None, env)? })
    }

    /// The grant under which it commits.
    pub fn own<'h>(&self, holders: &'h [Held]) -> Result<Option<&'h Held>> {
        let name = Name::parse("lock", STATE)?;
        Ok(holders.iter().find(|held| self.requester.covers(&name, &held.grant)))
    }

    /// A living holder of `state` that is neither the owner of this command nor an ancestor.
    pub fn obstacle(&self, holders: &[Held]) -> Result<Option<Obstacle>> {
        self.obstacle_of(STATE, holders)
    }

    /// The same of another lock.
    pub fn obstacle_of(&self, lock: &str, holders: &[Held]) -> Result<Option<Obstacle>> {
        let (name, oracle) = (Name::parse("lock", lock)?, ClusterOracle::new()?);
        let others = holders.iter().find(|held| {
            !self.requester.covers(&name, &held.grant) && !oracle.is_dead(&held.grant)
        });
        Ok(others.map(|held| {
            let holder = describe_holder_from_here(&held.grant, &oracle);
            let holder = match held.grant.since.as_str() {
                "" => holder, // its key cannot be read
                since => format!("{holder} since {since}"),
            };
            Obstacle { key: held.key.clone(), holder }
        }))
    }

    /// The value of its place in the queue, which ends with `lease`.
    pub fn place(&self, lease: i64, now: SystemTime, left: Duration) -> Result<Bytes> {
        let Requester { owner, process, .. } = &self.requester;
        let waiter = Waiter {
            mode: Mode::Exclusive,
            owner: owner.clone(),
            process: process.clone(),
            command: command_of(process.pid),
            since: rfc3339_millis(now),
            until: unix_seconds(now) + left.as_secs_f64(),
            own: None,
            purpose: Purpose::Commit,
            metadata: None,
            lifeline: Lifeline::of_waiter(&format!("{lease:016x}")),
            locks: 1,
            passed_over: false,
            broken: false,
            place: Place::default(),
        };
        waiter_value(&waiter, &line_of(&self.requester))
    }

    /// Refuses the commit if it waits for itself.
    pub fn leave_cycle(&self, client: &Client, keys: &LockKeys) -> Result<()> {
        let all = Ground::of(keys, client.snapshot(&snapshot(keys.everything()))?)?;
        cycle::leave(client, &self.requester, &all, &ClusterOracle::new()?)
    }

    /// Refuses the commit if its script held `state` and has lost it: what it read before may be
    /// old.
    pub fn check_lost(&self, host: &Host, holders: &[Held], client: &Client) -> Result<()> {
        let is_gone = |noted: &super::notes::Noted| {
            let is_it = |held: &Held| held.grant.token == noted.token;
            noted.lock.as_str() == STATE && !holders.iter().any(is_it)
        };
        let lives = |lease| lives(client, lease);
        let lost = host.first_lost(&self.requester, is_gone, lives, Kind::Fenced);
        lost.map_or(Ok(()), |error: Error| Err(error))
    }

    /// What became of the grant of a fence, if it is noted on this host for its script.
    pub fn loss_of(&self, host: &Host, fence: &Fence, client: &Client) -> Option<Loss> {
        host.loss_of(&fence.name, fence.token, &self.requester, |lease| lives(client, lease))
    }

    /// Starts the keepers of its script again that were killed.
    pub fn revive(&self, host: &Host) {
        host.revive(&self.requester);
    }
}
