//! The grant that a release or a renewal applies to.

use super::describe::{describe_holder, describe_holder_from_here};
use super::edit::RecordEdit;
use super::identity::same_ancestry;
use super::liveness::LivenessOracle;
use super::process::ancestry;
use super::queue::drop_dead_at_front;
use super::record::{Grant, Token};
use super::request::Requester;
use crate::error::{Error, Kind, Result};
use crate::name::Name;

/// A grant that was given back.
#[derive(Clone, Debug)]
pub struct Released {
    /// The lock.
    pub name: Name,
    /// The grant, as it was.
    pub grant: Grant,
    /// The number of releases it still takes.
    pub left: u32,
}

/// An operation on a grant.
#[derive(Clone, Copy)]
pub(super) enum Operation {
    Release,
    Renew,
}

impl Operation {
    fn command(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Renew => "renew",
        }
    }
}

/// The grants that an operation may apply to: those of the requester, or the one of this token.
#[derive(Clone, Copy)]
pub(super) struct Selection<'a> {
    pub operation: Operation,
    pub token: Option<Token>,
    pub requester: &'a Requester,
}

impl Selection<'_> {
    /// The grant that the operation applies to, or the reason why there is none: of the requester
    /// or its nearest ancestor, or the one of the token.
    pub fn grant(&self, edit: &RecordEdit, oracle: &dyn LivenessOracle) -> Result<Grant> {
        let RecordEdit { name, record, .. } = edit;
        let found = match self.token {
            Some(token) => record.grant(token),
            None => self.requester.own_grant(name, record),
        };
        if let Some(grant) = found {
            return Ok(grant.clone());
        }
        let is_dead = |grant: &Grant| match self.operation {
            Operation::Release => oracle.is_dead(grant),
            Operation::Renew => false,
        };
        let holders: Vec<&Grant> = record.holders.iter().filter(|grant| !is_dead(grant)).collect();
        match holders.first() {
            Some(first) => Err(self.not_owner(name, &holders, first.token, oracle)),
            None => Err(self.not_held(name)),
        }
    }

    /// The error for a lock without holders.
    pub fn not_held(&self, name: &Name) -> Error {
        let done = self.operation.command();
        Error::new(Kind::NotFound, format!("{name} is not held; nothing was {done}d"))
            .hint_command("lock list", "list the locks that are held")
            .detail("lock", name.as_str())
    }

    fn not_owner(
        &self,
        name: &Name,
        holders: &[&Grant],
        first: Token,
        oracle: &dyn LivenessOracle,
    ) -> Error {
        let by = holders.iter().map(|grant| describe_holder_from_here(grant, oracle));
        let by = by.collect::<Vec<_>>().join(", ");
        let command = self.operation.command();
        let message = match self.token {
            Some(token) => {
                format!("{name} is not held by token {token} but by {by}; nothing was {command}d")
            }
            None => format!(
                "{name} is held by {by}, not by this process or an ancestor; nothing was {command}d"
            ),
        };
        let holders = holders.iter().map(|grant| grant.owner_view());
        Error::new(Kind::NotOwner, message)
            .hint_command(format!("lock {command} {name} --token {first}"), "if it is yours")
            .hint_command(
                format!("lock break {name} --token {first}"),
                "or take it away from its holder",
            )
            .detail("lock", name.as_str())
            .detail("holders", serde_json::json!(holders.collect::<Vec<_>>()))
    }
}

/// Takes one release off a grant's count, and removes the dead from the record.
pub fn release_one(
    edit: &mut RecordEdit,
    token: Option<Token>,
    requester: &Requester,
    oracle: &dyn LivenessOracle,
) -> Result<Released> {
    let selection = Selection { operation: Operation::Release, token, requester };
    let grant = selection.grant(edit, oracle)?;
    let left = grant.count.saturating_sub(1);
    for held in edit.record.holders.iter_mut().filter(|held| held.token == grant.token) {
        held.count = left;
    }
    edit.record.holders.retain(|held| held.count > 0);
    drop_dead_at_front(&mut edit.record, usize::MAX, oracle);
    Ok(Released { name: edit.name.clone(), grant, left })
}

/// Refuses to give back what an ancestor took since the script that this was to be released for has
/// ended.
pub(super) fn check_ancestry(
    released: &[Released],
    token: Option<Token>,
    requester: &Requester,
) -> Result<()> {
    for Released { name, grant, .. } in released {
        if token.is_none() && has_new_ancestry(requester, grant)? {
            let holder = describe_holder(grant);
            let message = format!(
                "{name} is held by {holder}, and the script that this was to release it for has \
                 ended; nothing was released"
            );
            return Err(Error::new(Kind::NotOwner, message)
                .hint_command("lock list", "list the locks that are held")
                .detail("lock", name.as_str()));
        }
    }
    Ok(())
}

/// Returns whether the requesting process no longer descends from the owner that it is to release
/// for. Then a script between the two was killed, and its lock was taken since by the ancestor,
/// which requested no release.
fn has_new_ancestry(requester: &Requester, grant: &Grant) -> Result<bool> {
    let position = grant
        .owner
        .as_ref()
        .and_then(|owner| requester.ancestry.iter().position(|ancestor| ancestor.is(owner)));
    // No process is between a script and its own command; and a requester that names the owner does
    // not act for its ancestors.
    let Some(position) = position.filter(|position| *position > 1 && !requester.explicit) else {
        return Ok(false);
    };
    let now = ancestry(requester.process.pid)?;
    let (Some(then), Some(now)) = (requester.ancestry.get(..=position), now.get(..=position))
    else {
        return Ok(true);
    };
    Ok(!same_ancestry(then, now))
}
