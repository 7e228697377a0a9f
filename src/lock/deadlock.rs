//! Deadlock detection: before a waiter sleeps, would it wait for itself?
//!
//! A waiter stands for itself, its owner and all their ancestors: while it waits, none of them is
//! expected to release anything. It waits for the holders and the earlier waiters that it conflicts
//! with. The request that would close a cycle is refused; waiters that sleep already sleep on.
//! (Coffman, Elphick, Shoshani, "System Deadlocks", 1971: with single units of each resource a
//! cycle is not only necessary but sufficient.)

use serde_json::{Value, json};

use super::describe::describe_from_here;
pub use super::identity::Ancestry;
use super::identity::Identity;
use super::liveness::{LivenessOracle, WaiterState};
use super::process::owner_view;
use super::queue::{Blocker, blockers_of_waiter, waiter_state};
use super::record::{Mode, Purpose, Record, Waiter};
use super::request::Requester;
use crate::error::{Error, Kind};
use crate::name::Name;

/// A waiter in one lock's queue, with the processes that block it there.
#[derive(Debug)]
struct WaitNode<'a> {
    lock: &'a Name,
    waiter: &'a Waiter,
    represented: Vec<Identity>,
    blocked_by: Vec<Blocking<'a>>,
}

/// A process that blocks a waiter: a holder of the lock, or an earlier waiter.
#[derive(Clone, Debug)]
struct Blocking<'a> {
    process: &'a Identity,
    blocker: Blocker<'a>,
    how: &'static str,
}

/// One edge of a cycle.
#[derive(Clone, Debug)]
struct CycleEdge {
    process: Identity,
    owner: Identity,
    command: String,
    lock: Name,
    purpose: Purpose,
    how: &'static str,
    blocker: Identity,
    blocker_command: String,
    /// Both as messages name them.
    described: [String; 2],
}

/// All waits in a root.
struct WaitGraph<'a> {
    waits: Vec<WaitNode<'a>>,
    oracle: &'a dyn LivenessOracle,
}

/// A cycle of waiters.
#[derive(Debug)]
pub struct Cycle {
    /// The error for the request that closed it.
    pub error: Error,
    /// The processes that wait in it.
    pub waiting: Vec<Identity>,
}

/// The cycle in which this process would wait for itself; `None` if there is none.
pub fn find_cycle(
    process: &Identity,
    records: &[(Name, Record)],
    oracle: &dyn LivenessOracle,
    tree: &mut dyn Ancestry,
) -> Option<Cycle> {
    WaitGraph::new(records, oracle, tree).cycle_of(process)
}

/// Returns whether a requester stands for a holder of one of these locks, all that are waited for.
///
/// A waiter that holds nothing closes no cycle. A cycle leads through a holder, because queues
/// alone have an order: one waiter joins all its queues at once, at their ends. When the last
/// waiter of a cycle joins, another waits for it already, and that can only be for what it holds.
/// So a script that holds nothing looks up no process and reads no queue.
pub fn may_close_cycle<'a>(
    requester: &Requester,
    records: impl IntoIterator<Item = &'a Record>,
) -> bool {
    let Requester { process, owner, ancestry, .. } = requester;
    let is_own =
        |holder: &Identity| [process, owner].into_iter().chain(ancestry).any(|own| own.is(holder));
    let mut holders = records.into_iter().flat_map(|record| &record.holders);
    holders.any(|grant| grant.owner.as_ref().is_some_and(is_own))
}

impl<'a> WaitGraph<'a> {
    /// Collects the waits of all records, each with what blocks it.
    fn new(
        records: &'a [(Name, Record)],
        oracle: &'a dyn LivenessOracle,
        tree: &mut dyn Ancestry,
    ) -> Self {
        let mut waits = Vec::new();
        for (lock, record) in records {
            let queue = record.waiters.iter().enumerate();
            for (position, waiter) in
                queue.filter(|(_, waiter)| waiter_state(waiter, oracle) != WaiterState::Dead)
            {
                waits.push(WaitNode {
                    lock,
                    waiter,
                    represented: represented(&waiter.process, &waiter.owner, tree),
                    blocked_by: nearest_blocking(blockers_of_waiter(
                        record, position, waiter, oracle,
                    )),
                });
            }
        }
        Self { waits, oracle }
    }

    fn cycle_of(&self, process: &Identity) -> Option<Cycle> {
        let edges = self.path(process, process, &mut Vec::new())?;
        let waiting = edges.iter().map(|edge| edge.process.clone()).collect();
        Some(Cycle { error: deadlock(&edges), waiting })
    }

    fn path(
        &self,
        from: &Identity,
        to: &Identity,
        seen: &mut Vec<Identity>,
    ) -> Option<Vec<CycleEdge>> {
        seen.push(from.clone());
        for wait in self.waits.iter().filter(|wait| wait.waiter.process.is(from)) {
            for blocking in &wait.blocked_by {
                for next in self.waits_keeping(blocking) {
                    let rest = if next.is(to) {
                        Some(Vec::new())
                    } else if seen.iter().any(|one| one.is(next)) {
                        None
                    } else {
                        self.path(next, to, seen)
                    };
                    if let Some(rest) = rest {
                        let mut edges = vec![CycleEdge::new(wait, blocking, self.oracle)];
                        edges.extend(rest);
                        return Some(edges);
                    }
                }
            }
        }
        None
    }

    /// The waiting processes that keep an obstacle from moving: an earlier waiter itself, or all
    /// that stand for a holder.
    fn waits_keeping(&self, blocking: &Blocking<'a>) -> impl Iterator<Item = &Identity> {
        let process = blocking.process.clone();
        self.waits
            .iter()
            .filter(move |wait| wait.represented.iter().any(|one| one.is(&process)))
            .map(|wait| &wait.waiter.process)
    }
}

impl CycleEdge {
    fn new(wait: &WaitNode<'_>, blocking: &Blocking<'_>, oracle: &dyn LivenessOracle) -> Self {
        let waiter = oracle.detailed(wait.waiter);
        let (blocker, blocker_command) = match blocking.blocker {
            Blocker::Holder(grant) => (blocking.process.clone(), grant.command.clone()),
            Blocker::Waiter(earlier) => {
                let earlier = oracle.detailed(earlier);
                (earlier.owner, earlier.command)
            }
        };
        let described = [(&waiter.owner, &waiter.command), (&blocker, &blocker_command)]
            .map(|(process, command)| describe_from_here(process, command, oracle));
        Self {
            process: waiter.process,
            owner: waiter.owner,
            command: waiter.command,
            lock: wait.lock.clone(),
            purpose: wait.waiter.purpose,
            how: blocking.how,
            blocker,
            blocker_command,
            described,
        }
    }

    fn to_json(&self) -> Value {
        json!({
            "owner": owner_view(&self.owner, &self.command),
            "command": self.command,
            "waits_for": self.lock.as_str(),
            "blocked_by": {
                "owner": owner_view(&self.blocker, &self.blocker_command),
                "command": self.blocker_command,
                "how": self.how,
            },
        })
    }
}

fn represented(process: &Identity, owner: &Identity, tree: &mut dyn Ancestry) -> Vec<Identity> {
    let mut all = vec![process.clone(), owner.clone()];
    all.extend(tree.ancestry_of(process));
    all.extend(tree.ancestry_of(owner));
    all
}

/// The obstacles up to the first that itself waits for everything before it: what blocks those also
/// blocks that one. Otherwise each waiter of a long queue would be linked to all before it.
fn nearest_blocking<'a>(blockers: impl Iterator<Item = Blocker<'a>>) -> Vec<Blocking<'a>> {
    let mut nearest_blocking = Vec::new();
    for blocker in blockers {
        nearest_blocking.extend(blocking(blocker));
        if matches!(blocker, Blocker::Waiter(Waiter { mode: Mode::Exclusive, own: None, .. })) {
            break;
        }
    }
    nearest_blocking
}

fn blocking(blocker: Blocker<'_>) -> Option<Blocking<'_>> {
    Some(match blocker {
        Blocker::Holder(grant) => {
            Blocking { process: grant.owner.as_ref()?, blocker, how: "held by" }
        }
        Blocker::Waiter(earlier) => {
            Blocking { process: &earlier.process, blocker, how: "wanted earlier by" }
        }
    })
}

fn deadlock(edges: &[CycleEdge]) -> Error {
    let lines = edges.iter().map(|edge| {
        let what = match edge.purpose {
            Purpose::Hold => format!("waits for {}", edge.lock),
            Purpose::Commit => format!("waits to commit ({})", edge.lock),
        };
        let [waiter, blocker] = &edge.described;
        format!("{waiter} {what}, {} {blocker}", edge.how)
    });
    let cycle = lines.collect::<Vec<_>>().join("; ");
    let own = edges.first().map_or_else(String::new, |edge| edge.lock.to_string());
    let mut names: Vec<&str> = edges.iter().map(|edge| edge.lock.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let error = Error::new(Kind::Deadlock, format!("waiting for {own} would never end: {cycle}"));
    let error = error.hint_command(
        "lock list",
        "list holders and waiters; release what this script holds and try again",
    );
    let error = match names.len() {
        1 => error, // two upgrades of one lock
        _ => error.hint_command(
            format!("lock acquire {}", names.join(",")),
            "another time, acquire all of them at once",
        ),
    };
    error
        .detail("lock", own)
        .detail("cycle", edges.iter().map(CycleEdge::to_json).collect::<Vec<_>>())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::lock::process::ProcessTree;
    use crate::lock::queue::tests::{AllAlive, grant, waiter};
    use crate::lock::record::Grant;

    fn process(pid: u32) -> Identity {
        // No process has such a pid, so the only ancestors are those that a test gives.
        Identity { pid: pid + 2_000_000_000, start: 1, namespace: Default::default() }
    }

    fn record(holder: u32, waiters: &[u32]) -> Record {
        let command = |owner| format!("script {owner}");
        let grant = |owner| Grant {
            owner: Some(process(owner)),
            command: command(owner),
            ..grant(1, Mode::Exclusive, owner)
        };
        let waiter = |owner: &u32| Waiter {
            owner: process(*owner),
            process: process(owner + 100),
            command: command(*owner),
            ..waiter(Mode::Exclusive, *owner)
        };
        Record {
            holders: vec![grant(holder)],
            waiters: waiters.iter().map(waiter).collect(),
            ..Record::default()
        }
    }

    fn cycle_closed_by(owner: u32, records: &[(&str, Record)]) -> Option<String> {
        let records: Vec<_> = records
            .iter()
            .map(|(name, record)| (Name::parse("lock", name).unwrap(), record.clone()))
            .collect();
        find_cycle(&process(owner + 100), &records, &AllAlive, &mut ProcessTree::default())
            .map(|cycle| cycle.error.message)
    }

    #[test]
    fn two_waiters_on_each_other_form_a_cycle() {
        let records = [("a", record(1, &[2])), ("b", record(2, &[1]))];
        for owner in [1, 2] {
            let message = cycle_closed_by(owner, &records).unwrap();
            assert!(message.contains("script 1") && message.contains("script 2"), "{message}");
        }
    }

    #[test]
    fn a_cycle_of_three_names_all_three() {
        let records = [("a", record(1, &[3])), ("b", record(2, &[1])), ("c", record(3, &[2]))];
        let message = cycle_closed_by(3, &records).unwrap();
        assert!(
            ["script 1", "script 2", "script 3"].iter().all(|name| message.contains(name)),
            "{message}"
        );
    }

    #[test]
    fn a_chain_of_waiters_is_not_a_cycle() {
        assert_eq!(cycle_closed_by(2, &[("a", record(1, &[2])), ("b", record(3, &[1]))]), None);
        assert_eq!(cycle_closed_by(4, &[("a", record(1, &[2, 3, 4]))]), None);
    }

    #[test]
    fn an_earlier_waiter_can_close_a_cycle() {
        // 3 waits for b after 1; 1 waits for a, which 3's owner holds.
        let records = [("a", record(3, &[1])), ("b", record(4, &[1, 3]))];
        assert!(cycle_closed_by(3, &records).is_some());
    }

    #[test]
    fn only_a_requester_that_stands_for_a_holder_can_close_a_cycle() {
        let requester = |owner, ancestor| Requester {
            owner: process(owner),
            ancestry: vec![process(owner), process(ancestor)],
            explicit: false,
            process: process(owner + 100),
            env_tokens: Vec::new(),
        };
        let record = record(1, &[2, 3]);
        for (owner, ancestor, may) in [(3, 9, false), (1, 9, true), (3, 1, true)] {
            assert_eq!(may_close_cycle(&requester(owner, ancestor), [&record]), may);
        }
    }

    #[test]
    fn a_cycle_can_pass_through_many_waiters() {
        // 9 waits for b last of all; the first in that queue waits for a too, which 9's owner
        // holds.
        let records = [("a", record(9, &[1])), ("b", record(4, &[1, 5, 6, 7, 9]))];
        assert!(cycle_closed_by(9, &records).is_some());
        // Shared waiters block nothing there, and hide no waiter that does.
        let mut shared = records.clone();
        for waiter in shared[1].1.waiters.iter_mut().skip(1).take(3) {
            waiter.mode = Mode::Shared;
        }
        assert!(cycle_closed_by(9, &shared).is_some());
        shared[1].1.waiters[4].mode = Mode::Shared;
        assert!(cycle_closed_by(9, &shared).is_some(), "the first is exclusive");
        // Through the holder that the queue waits for.
        assert!(
            cycle_closed_by(9, &[("a", record(9, &[4])), ("b", record(4, &[5, 6, 9]))]).is_some()
        );
    }
}
