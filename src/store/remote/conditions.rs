//! The conditions of a commit: the current revision, and grants of locks.

use super::ground::Ground;
use super::writer::Writer;
use crate::error::{Error, Kind, Result};
use crate::etcd::messages::Compare;
use crate::etcd::txn::created_at;
use crate::lock::Fence;
use crate::lock::remote::{Held, Loss};
use crate::store::options::{WriteOptions, conflict};

/// Refuses to continue unless the current revision is the required one and the fences hold. A
/// commit's transaction checks both again.
pub(super) fn check_conditions(ground: &Ground<'_>, options: &WriteOptions) -> Result<()> {
    let current = ground.revision();
    if let Some(wanted) = options.if_revision.filter(|wanted| *wanted != current) {
        let message = format!("the state is at revision {current}, not {wanted}");
        return Err(conflict(&message, current));
    }
    fence_guards(ground, &options.fences).map(drop)
}

/// Guards that the grants of these fences are still on record; an error if one is not now.
pub(super) fn fence_guards(ground: &Ground<'_>, fences: &[Fence]) -> Result<Vec<Compare>> {
    let guard = |(fence, holders): (&Fence, &Vec<Held>)| {
        let held = holders.iter().find(|held| held.grant.token == fence.token);
        let held = held.ok_or_else(|| fenced(ground, fence))?;
        Ok(created_at(held.key.clone(), held.created))
    };
    fences.iter().zip(&ground.fenced).map(guard).collect()
}

/// The error of a commit that a grant was to fence which is gone.
fn fenced(ground: &Ground<'_>, fence: &Fence) -> Error {
    let loss = Writer::of(ground.store).loss_of(fence);
    let message = match &loss {
        Some(loss) => format!("the grant {fence} {loss}; nothing was written"),
        None => format!("the grant {fence} is no longer on record, so nothing was written"),
    };
    Error::new(Kind::Fenced, message)
        .hint_command("lock list", "see which locks are held now")
        .detail("lock", fence.name.as_str())
        .detail("token", fence.token.get())
        .detail("lost", loss.as_ref().and_then(Loss::time))
}
