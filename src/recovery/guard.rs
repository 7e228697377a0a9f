//! Runs a command between a checkpoint and, if it fails for good, putting its changes back.

use std::ffi::OsString;

use super::retry::{Ended, Policy};
use crate::child::Forwarder;
use crate::error::{Error, Kind, Result};
use crate::journal::event::RESTORE;
use crate::store::Store;
use crate::store::checkpoint::Snapshot;
use crate::store::guard::{GUARD_TOKEN, OnRecord, Settlement};
use crate::store::options::WriteOptions;

/// A progress event, for people.
#[derive(Clone, Debug)]
pub enum GuardStep<'a> {
    /// The checkpoint of this name was made.
    Created(&'a str),
    /// An attempt failed; the text includes the next step.
    Failed(&'a str),
    /// Everything was put back.
    Restored {
        /// The checkpoint.
        id: &'a str,
        /// Entries that no checkpoint holds: they were moved aside.
        left: &'a [String],
    },
    /// The command's changes were put back, and those of other commits kept.
    PutBack {
        /// The checkpoint.
        id: &'a str,
        /// The revision that was committed for it, if one was needed.
        revision: Option<u64>,
        /// Entries that no checkpoint holds: they were moved aside.
        left: &'a [String],
    },
    /// The guard stays on record although nothing is left to be put back.
    StaysOnRecord {
        /// The checkpoint.
        id: &'a str,
        /// The reason.
        why: &'a Error,
    },
}

/// The result of a guarded command.
#[derive(Debug)]
pub struct Guarded {
    /// The end of the command.
    pub ended: Ended,
    /// The reason why not all changes of a failed command were put back, if so.
    pub unrestored: Option<Error>,
}

/// Makes a checkpoint, runs the command, and puts its changes back if it failed for good. An error
/// means that the guard could not begin, and the command was not run.
pub fn guard(
    store: &Store,
    snapshot: &Snapshot,
    policy: &Policy,
    command: &[OsString],
    notify: &dyn Fn(GuardStep<'_>),
) -> Result<Guarded> {
    let begun = store.guards().begin(snapshot)?;
    let (id, shown) = (&begun.id, &begun.shown);
    notify(GuardStep::Created(id));
    // From here on a signal ends the command or the wait, but not putting the changes back.
    let signals = Forwarder::new();
    let around = std::env::var(GUARD_TOKEN).ok().filter(|around| !around.is_empty());
    let shown = around.map_or_else(|| shown.clone(), |around| format!("{around},{shown}"));
    let policy = Policy { environment: vec![(GUARD_TOKEN, shown)], ..policy.clone() };
    let ended = policy.run(command, &signals, &|what| notify(GuardStep::Failed(what)));
    store.guards().record_end(id, ended.attempts, ended.code);
    if ended.code == 0 || ended.attempts == 0 {
        if let Err(error) = store.guards().end(id) {
            notify(GuardStep::StaysOnRecord { id, why: &error });
        }
        return Ok(Guarded { ended, unrestored: None });
    }
    let why = format!("the command {}; what it changed is put back to {id}", ended.outcome());
    if let Some(files) = store.as_files() {
        files.logs().note_command(snapshot.operation.as_str(), &why);
    }
    let order = WriteOptions {
        reason: Some(format!("guard {}", snapshot.operation)),
        ..WriteOptions::of_restore()
    };
    let unrestored = match store.guards().settle_failed(&begun.record, &order) {
        Ok(Settlement::Restored { left }) => {
            notify(GuardStep::Restored { id, left: &left });
            None
        }
        Ok(Settlement::PutBack { revision, left }) => {
            notify(GuardStep::PutBack { id, revision, left: &left });
            None
        }
        Ok(Settlement::Finished) => None, // the store has said so
        Ok(Settlement::Unrestored(why)) => Some(unrestored(store, id, why)),
        Err(error) => {
            store.logs().record_refusal(RESTORE, &error);
            // The obstacle to the restore comes first: until it is removed, no other restore can
            // succeed.
            let Error { message, mut hints, .. } = error;
            let unrestored = unrestored(store, id, message);
            hints.extend(unrestored.hints);
            Some(Error { hints, ..unrestored })
        }
    };
    Ok(Guarded { ended, unrestored })
}

fn unrestored(store: &Store, id: &str, why: String) -> Error {
    let guard: OnRecord = store.guards().unrestored(id.to_owned(), why);
    let error = Error::new(Kind::Unrestored, guard.problem().unwrap_or_default())
        .detail("guard", guard.id.as_str());
    Error { hints: guard.hints(), ..error }
}
