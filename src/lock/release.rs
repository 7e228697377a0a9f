//! Gives locks back, and renews those that have a time to live.

use std::time::{Duration, Instant};

use super::draft::Draft;
use super::liveness::epoch;
use super::process::{is_same_line, lineage};
use super::queue::{Asker, Eyes, prune_front};
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
        asker: &Asker,
        deadline: Instant,
    ) -> Result<Vec<Released>> {
        self.refuse_where_there_are_none(names, Deed::Release)?;
        let gate = self.gate(deadline)?;
        let mut drafts = gate.load_all(names)?;
        let judge = gate.judge()?;
        let released: Vec<Released> = drafts
            .iter_mut()
            .map(|draft| give_up(draft, token, asker, &judge))
            .collect::<Result<_>>()?;
        for Released { name, grant, .. } in &released {
            if token.is_none() && is_left_behind(asker, grant)? {
                let message = format!(
                    "{name} is held by {}, and the script that this was to release it for has ended; nothing was released",
                    holder(grant)
                );
                return Err(Error::new(Kind::NotOwner, message)
                    .try_command("lock list", "see which locks are held")
                    .detail("lock", name.as_str()));
            }
        }
        gate.store(&drafts)?;
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
        asker: &Asker,
        deadline: Instant,
    ) -> Result<f64> {
        self.refuse_where_there_are_none(std::slice::from_ref(name), Deed::Renew)?;
        let gate = self.gate(deadline)?;
        let mut draft = gate.load(name)?;
        let grant = own_grant(&draft, token, asker, Deed::Renew, &|_| false)?;
        let Some(ttl) = ttl.map(|ttl| ttl.as_secs_f64()).or(grant.ttl) else {
            return Err(Error::new(
                Kind::Usage,
                format!("{name} was acquired without --ttl; say for how long"),
            )
            .try_command(format!("lock renew {name} --ttl 10m"), "give it one"));
        };
        let expires = epoch(self.disk.now()) + ttl;
        for held in draft.record.holders.iter_mut().filter(|held| held.token == grant.token) {
            held.ttl = Some(ttl);
            held.expires = Some(expires);
        }
        gate.store(std::slice::from_ref(&draft))?;
        drop(gate);
        self.audit_grant("renew", "renewed", name, &grant);
        Ok(expires)
    }

    /// Refuses if there are no locks at all, without creating the directory of locks.
    fn refuse_where_there_are_none(&self, names: &[Name], deed: Deed) -> Result<()> {
        if self
            .disk
            .stat(&Dir::working(), self.directory.join(LOCKS))
            .is_ok_and(|found| found.is_some())
        {
            return Ok(()); // the gate will check what it is
        }
        match (self.dir()?, names.first()) {
            (None, Some(name)) => Err(not_found(name, deed)),
            _ => Ok(()),
        }
    }
}

/// Whether the requesting process no longer descends from the owner that it is to release for. Then
/// a script between the two was killed, and its lock was taken since by the ancestor, which
/// requested no release.
fn is_left_behind(asker: &Asker, grant: &Grant) -> Result<bool> {
    let place = grant
        .owner
        .as_ref()
        .and_then(|owner| asker.lineage.iter().position(|ancestor| ancestor.is(owner)));
    // No process is between a script and its own command; and a requester that names the owner does
    // not act for its ancestors.
    let Some(place) = place.filter(|place| *place > 1 && !asker.is_named) else { return Ok(false) };
    let now = lineage(asker.process.pid)?;
    let (Some(then), Some(now)) = (asker.lineage.get(..=place), now.get(..=place)) else {
        return Ok(true);
    };
    Ok(!is_same_line(then, now))
}

/// An operation on a grant.
#[derive(Clone, Copy)]
enum Deed {
    Release,
    Renew,
}

impl Deed {
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

fn not_found(name: &Name, deed: Deed) -> Error {
    Error::new(
        Kind::NotFound,
        format!("{name} is not held by anybody; nothing was {}", deed.done()),
    )
    .try_command("lock list", "see which locks are held")
    .detail("lock", name.as_str())
}

/// Takes one release off a grant's count, and removes the dead from the record.
pub fn give_up(
    draft: &mut Draft,
    token: Option<Token>,
    asker: &Asker,
    eyes: &dyn Eyes,
) -> Result<Released> {
    let grant = own_grant(draft, token, asker, Deed::Release, &|grant| eyes.is_dead(grant))?;
    let left = grant.count.saturating_sub(1);
    for held in draft.record.holders.iter_mut().filter(|held| held.token == grant.token) {
        held.count = left;
    }
    draft.record.holders.retain(|held| held.count > 0);
    prune_front(&mut draft.record, usize::MAX, eyes);
    Ok(Released { name: draft.name.clone(), grant, left })
}

/// The grant that the operation applies to, or the reason why there is none.
fn own_grant(
    draft: &Draft,
    token: Option<Token>,
    asker: &Asker,
    deed: Deed,
    is_dead: &dyn Fn(&Grant) -> bool,
) -> Result<Grant> {
    let Draft { name, record, .. } = draft;
    let found = match token {
        Some(token) => record.grant(token),
        None => asker.own_grant(name, record),
    };
    if let Some(grant) = found {
        return Ok(grant.clone());
    }
    let holders: Vec<&Grant> = record.holders.iter().filter(|grant| !is_dead(grant)).collect();
    let Some(first) = holders.first() else { return Err(not_found(name, deed)) };
    let who = holders.iter().map(|grant| holder(grant)).collect::<Vec<_>>().join(", ");
    let done = deed.done();
    let message = match token {
        Some(token) => {
            format!("{name} is not held by token {token} but by {who}; nothing was {done}")
        }
        None => format!(
            "{name} is held by {who}, not by this process or an ancestor; nothing was {done}"
        ),
    };
    Err(Error::new(Kind::NotOwner, message)
        .try_command(
            format!("lock {} {name} --token {}", deed.command(), first.token),
            "if it is yours",
        )
        .try_command(
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
