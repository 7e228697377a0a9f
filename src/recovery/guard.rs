//! A command between a checkpoint and, if it fails for good, its restore.

use std::ffi::OsString;

use super::retry::{Ended, Policy};
use crate::child::Forwarder;
use crate::error::{Error, Result};
use crate::store::Store;
use crate::store::checkpoint::Snapshot;
use crate::store::checkpoint::catalog::Which;
use crate::store::order::Order;

/// What is told while it goes on.
#[derive(Clone, Copy, Debug)]
pub enum Step<'a> {
    /// The checkpoint of this name was made.
    Created(&'a str),
    /// An attempt failed, and what happens next.
    Failed(&'a str),
    /// The checkpoint of this name was restored.
    Restored(&'a str),
    /// It could not be.
    NotRestored(&'a Error),
}

/// Makes a checkpoint, runs the command, and restores the checkpoint if it failed for good; how the command ended. Only a
/// checkpoint that cannot be made is an error of the guard's own.
pub fn guard(
    store: &Store,
    snapshot: &Snapshot,
    (policy, command): (&Policy, &[OsString]),
    tell: &dyn Fn(Step<'_>),
) -> Result<Ended> {
    // What could not be put back is not run.
    store.restore_plan()?;
    let id = store.automatic_checkpoint(snapshot)?.id;
    tell(Step::Created(&id));
    // From here on a signal ends the command or the waiting, and not what puts things back.
    let signals = Forwarder::new();
    let ended = policy.run(command, &signals, &|what| tell(Step::Failed(what)));
    if ended.code == 0 || ended.attempts == 0 {
        return Ok(ended);
    }
    let why = format!("the command {}; {id} is restored", ended.told());
    store.note_command(snapshot.operation.as_str(), &why);
    let order =
        Order { group: "recover", reason: Some(format!("guard {}", snapshot.operation)), ..Order::of("restore") };
    match store.restore(&Which::Id(id.clone()), &order) {
        Ok(_) => tell(Step::Restored(&id)),
        Err(error) => {
            store.record_refusal("restore", &error);
            tell(Step::NotRestored(&error));
        }
    }
    Ok(ended)
}
