//! Descriptions of processes, holders and blockers in messages.

use std::fmt;

use super::identity::Identity;
use super::layout::LOCKS;
use super::liveness::{Liveness, LivenessOracle};
use super::process::owner_view;
use super::queue::{Blocker, Nearest, nearest_blockers};
use super::record::{Grant, Mode, Record};
use super::request::Request;
use crate::name::Name;
pub(super) use crate::name::join;
use crate::owner_view::OwnerView;

/// A blocker of a request.
#[derive(Clone, Debug)]
pub struct BlockerInfo {
    /// The lock that it blocks.
    pub lock: Name,
    /// Its owner, if it is known.
    pub owner: Option<Identity>,
    /// The owner's command line.
    pub command: String,
    /// Its liveness, as far as this process can find out.
    pub liveness: Liveness,
    /// Its description: `held by 123 (bash deploy.sh) since …`.
    pub text: String,
    /// Its ID, if it is a waiter.
    pub waiter: Option<String>,
}

impl BlockerInfo {
    /// Its owner for JSON.
    pub fn owner_view(&self) -> Option<OwnerView> {
        self.owner.as_ref().map(|owner| owner_view(owner, &self.command))
    }

    /// Describes a blocker of this lock.
    pub fn new(lock: &Name, blocker: &Blocker<'_>, oracle: &dyn LivenessOracle) -> Self {
        let detailed;
        let blocker = match blocker {
            Blocker::Waiter(waiter) => {
                detailed = oracle.detailed(waiter);
                &Blocker::Waiter(&detailed)
            }
            Blocker::Holder(_) => blocker,
        };
        let (owner, process, command) = match blocker {
            Blocker::Holder(grant) => (grant.owner.as_ref(), grant.owner.as_ref(), &grant.command),
            Blocker::Waiter(waiter) => {
                (Some(&waiter.owner), Some(&waiter.process), &waiter.command)
            }
        };
        let place = process.and_then(|process| place_of(process, oracle));
        let place = place.map_or_else(String::new, |place| format!(", in {place},"));
        let (liveness, text, waiter) = match blocker {
            Blocker::Holder(grant) => {
                let shared = if grant.mode == Mode::Shared { ", shared," } else { "" };
                let holder = describe_holder(grant);
                let since = match grant.since.as_str() {
                    "" => String::new(),
                    since => format!(" since {since}"),
                };
                let text = format!("held by {holder}{place}{shared}{since}");
                (oracle.grant(grant), text, None)
            }
            Blocker::Waiter(waiter) => {
                let owner = describe_process(waiter.owner.pid, &waiter.command);
                let text = format!("wanted earlier by {owner}{place} since {}", waiter.since);
                let id = waiter.lifeline.as_ref().map(|lifeline| lifeline.id().to_owned());
                (oracle.waiting_process(waiter), text, id)
            }
        };
        Self {
            lock: lock.clone(),
            owner: owner.cloned(),
            command: command.clone(),
            liveness,
            text,
            waiter,
        }
    }
}

/// What blocks a request, as messages name it.
#[derive(Clone, Debug, Default)]
pub struct Blockers {
    /// For each lock the holders, then the nearest earlier waiter.
    pub named: Vec<BlockerInfo>,
    /// The number of waiters before those.
    pub others: usize,
}

impl Blockers {
    /// Describes what blocks a request.
    pub fn of<'a>(
        records: impl Iterator<Item = (&'a Name, &'a Record)>,
        request: &Request,
        oracle: &dyn LivenessOracle,
    ) -> Self {
        let mut all = Self::default();
        for (name, record) in records {
            let Nearest { blockers, others } =
                nearest_blockers(name, record, &request.requester, request.spec, oracle);
            all.named.extend(blockers.iter().map(|one| BlockerInfo::new(name, one, oracle)));
            all.others += others;
        }
        all
    }
}

impl fmt::Display for Blockers {
    /// `deploy: held by 123 (bash deploy.sh) since …; and 4 more`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MOST: usize = 3;
        let one = |blocker: &BlockerInfo| format!("{}: {}", blocker.lock, blocker.text);
        let parts: Vec<String> = self.named.iter().take(MOST).map(one).collect();
        f.write_str(&parts.join("; "))?;
        match self.named.len().saturating_sub(MOST) + self.others {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

/// Describes a process: `123 (bash deploy.sh)`, its command cut to fit a line.
pub fn describe_process(pid: u32, command: &str) -> String {
    format!("{pid} ({})", shorten(command))
}

/// Where a process is, if its id is not valid here.
pub(super) fn place_of(process: &Identity, oracle: &dyn LivenessOracle) -> Option<String> {
    let is_elsewhere = oracle.process(process) == Liveness::Unknown;
    is_elsewhere.then(|| oracle.describe_namespace(process))
}

/// Describes a process as messages from here name it: `123 (bash deploy.sh)`, or
/// `123 (bash deploy.sh) in another machine, ci-7`.
pub(super) fn describe_from_here(
    process: &Identity,
    command: &str,
    oracle: &dyn LivenessOracle,
) -> String {
    let described = describe_process(process.pid, command);
    match place_of(process, oracle) {
        Some(place) => format!("{described} in {place}"),
        None => described,
    }
}

/// The same of a holder.
pub(super) fn describe_holder_from_here(grant: &Grant, oracle: &dyn LivenessOracle) -> String {
    match &grant.owner {
        Some(owner) => describe_from_here(owner, &grant.command, oracle),
        None => describe_holder(grant),
    }
}

/// Describes a holder.
pub fn describe_holder(grant: &Grant) -> String {
    match (&grant.owner, &grant.quarantined) {
        (Some(owner), _) => describe_process(owner.pid, &grant.command),
        (None, Some(kept)) => {
            format!("an unknown owner (its record was damaged and is {LOCKS}/{kept})")
        }
        (None, None) if grant.command.is_empty() => "an unknown owner".to_owned(),
        (None, None) => format!("an unknown owner ({})", grant.command),
    }
}

/// A command line, cut to fit a line of text.
pub fn shorten(command: &str) -> String {
    const LONGEST: usize = 48;
    if command.chars().count() <= LONGEST {
        return command.to_owned();
    }
    command.chars().take(LONGEST - 1).chain(['…']).collect()
}
