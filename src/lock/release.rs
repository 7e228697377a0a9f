//! Gives locks back, and renews those that have a time to live.

use std::time::{Duration, Instant};

use super::edit::RecordEdit;
use super::liveness::unix_seconds;
use super::process::{ancestry, same_ancestry};
use super::queue::{LivenessOracle, Requester, drop_dead_at_front};
use super::record::{Grant, Token};
use super::words::holder;
use super::{LOCKS, Locks};
use crate::error::{Error, Kind, Result};
use crate::fs::Dir;
use crate::name::Name;

/// A grant that was given back.
#[derive(Clone, Debug)]
pub struct Released {
    /// The lock.
    pub name: Name,
    /// The grant, as it was.
    pub grant: Grant,
    /// How many more releases the grant takes.
    pub left: u32,
}

impl Locks {
    /// Gives locks back, all or none: the grants of the requester or its nearest ancestor, or the
    /// one with this token.
    pub fn release(
        &self,
        names: &[Name],
        token: Option<Token>,
        requester: &Requester,
        deadline: Instant,
    ) -> Result<Vec<Released>> {
        self.require_locks(names, Operation::Release)?;
        let gate = self.gate(deadline)?;
        let mut edits = gate.load_all(names)?;
        let judge = gate.judge()?;
        let released: Vec<Released> = edits
            .iter_mut()
            .map(|edit| release_one(edit, token, requester, &judge))
            .collect::<Result<_>>()?;
        for Released { name, grant, .. } in &released {
            if token.is_none() && has_new_ancestry(requester, grant)? {
                let message = format!(
                    "{name} is held by {}, and the script that this was to release it for has ended; nothing was released",
                    holder(grant)
                );
                return Err(Error::new(Kind::NotOwner, message)
                    .hint_command("lock list", "see which locks are held")
                    .detail("lock", name.as_str()));
            }
        }
        gate.store(&edits)?;
        let dir = gate.leave();
        for Released { name, grant, left } in &released {
            self.audit_grant(
                "release",
                if *left == 0 { "released" } else { "counted down" },
                name,
                grant,
            );
        }
        self.reserve_ahead(&dir, deadline); // no waiter waits for this command any more
        Ok(released)
    }

    /// Renews a grant's time to live, counted from now; returns its end, in seconds since 1970.
    pub fn renew(
        &self,
        name: &Name,
        ttl: Option<Duration>,
        token: Option<Token>,
        requester: &Requester,
        deadline: Instant,
    ) -> Result<f64> {
        self.require_locks(std::slice::from_ref(name), Operation::Renew)?;
        let gate = self.gate(deadline)?;
        let mut edit = gate.load(name)?;
        let grant = own_grant(&edit, token, requester, Operation::Renew, &|_| false)?;
        let Some(ttl) = ttl.map(|ttl| ttl.as_secs_f64()).or(grant.ttl) else {
            return Err(Error::new(
                Kind::Usage,
                format!("{name} was acquired without --ttl; say for how long"),
            )
            .hint_command(format!("lock renew {name} --ttl 10m"), "give it one"));
        };
        let expires = unix_seconds(self.disk.now()) + ttl;
        for held in edit.record.holders.iter_mut().filter(|held| held.token == grant.token) {
            held.ttl = Some(ttl);
            held.expires = Some(expires);
        }
        gate.store(std::slice::from_ref(&edit))?;
        drop(gate);
        self.audit_grant("renew", "renewed", name, &grant);
        Ok(expires)
    }

    /// Refuses if there are no locks at all, without creating the directory of locks.
    fn require_locks(&self, names: &[Name], operation: Operation) -> Result<()> {
        if self
            .disk
            .stat(&Dir::working(), self.directory.join(LOCKS))
            .is_ok_and(|found| found.is_some())
        {
            return Ok(()); // the gate will check what it is
        }
        match (self.dir()?, names.first()) {
            (None, Some(name)) => Err(not_found(name, operation)),
            _ => Ok(()),
        }
    }
}

/// Whether the requesting process no longer descends from the owner that it is to release for. Then
/// a script between the two was killed, and its lock was taken since by the ancestor, which
/// requested no release.
fn has_new_ancestry(requester: &Requester, grant: &Grant) -> Result<bool> {
    let place = grant
        .owner
        .as_ref()
        .and_then(|owner| requester.ancestry.iter().position(|ancestor| ancestor.is(owner)));
    // No process is between a script and its own command; and a requester that names the owner does
    // not act for its ancestors.
    let Some(place) = place.filter(|place| *place > 1 && !requester.explicit) else {
        return Ok(false);
    };
    let now = ancestry(requester.process.pid)?;
    let (Some(then), Some(now)) = (requester.ancestry.get(..=place), now.get(..=place)) else {
        return Ok(true);
    };
    Ok(!same_ancestry(then, now))
}

/// An operation on a grant.
#[derive(Clone, Copy)]
enum Operation {
    Release,
    Renew,
}

impl Operation {
    fn done(self) -> &'static str {
        match self {
            Self::Release => "released",
            Self::Renew => "renewed",
        }
    }

    fn command(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Renew => "renew",
        }
    }
}

fn not_found(name: &Name, operation: Operation) -> Error {
    Error::new(
        Kind::NotFound,
        format!("{name} is not held by anybody; nothing was {}", operation.done()),
    )
    .hint_command("lock list", "see which locks are held")
    .detail("lock", name.as_str())
}

/// Takes one release off a grant's count, and removes the dead from the record.
pub fn release_one(
    edit: &mut RecordEdit,
    token: Option<Token>,
    requester: &Requester,
    oracle: &dyn LivenessOracle,
) -> Result<Released> {
    let grant =
        own_grant(edit, token, requester, Operation::Release, &|grant| oracle.is_dead(grant))?;
    let left = grant.count.saturating_sub(1);
    for held in edit.record.holders.iter_mut().filter(|held| held.token == grant.token) {
        held.count = left;
    }
    edit.record.holders.retain(|held| held.count > 0);
    drop_dead_at_front(&mut edit.record, usize::MAX, oracle);
    Ok(Released { name: edit.name.clone(), grant, left })
}

/// The grant that the operation applies to, or the reason why there is none.
fn own_grant(
    edit: &RecordEdit,
    token: Option<Token>,
    requester: &Requester,
    operation: Operation,
    is_dead: &dyn Fn(&Grant) -> bool,
) -> Result<Grant> {
    let RecordEdit { name, record, .. } = edit;
    let found = match token {
        Some(token) => record.grant(token),
        None => requester.own_grant(name, record),
    };
    if let Some(grant) = found {
        return Ok(grant.clone());
    }
    let holders: Vec<&Grant> = record.holders.iter().filter(|grant| !is_dead(grant)).collect();
    let Some(first) = holders.first() else { return Err(not_found(name, operation)) };
    let who = holders.iter().map(|grant| holder(grant)).collect::<Vec<_>>().join(", ");
    let done = operation.done();
    let message = match token {
        Some(token) => {
            format!("{name} is not held by token {token} but by {who}; nothing was {done}")
        }
        None => format!(
            "{name} is held by {who}, not by this process or an ancestor; nothing was {done}"
        ),
    };
    Err(Error::new(Kind::NotOwner, message)
        .hint_command(
            format!("lock {} {name} --token {}", operation.command(), first.token),
            "if it is yours",
        )
        .hint_command(
            format!("lock break {name} --token {}", first.token),
            "or take it away from its holder",
        )
        .detail("lock", name.as_str())
        .detail(
            "holders",
            holders
                .iter()
                .map(|grant| grant.owner.as_ref().map(|owner| owner.pid))
                .collect::<Vec<_>>(),
        ))
}
