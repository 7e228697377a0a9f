//! The steps of a move, each one transaction.

use serde_json::{Value, json};

use crate::error::{Error, Kind, Result};
use crate::etcd::failure::Failure;
use crate::etcd::fate::Fate;
use crate::etcd::messages::{RangeResponse, TxnRequest};
use crate::etcd::txn::Keys;
use crate::store::FileStore;
use crate::store::remote::RemoteStore;
use crate::store::restore::intent::OperationId;

/// What became of a step.
pub(super) enum Step {
    Done,
    /// Its guards did not hold. This is `meta` now.
    Refused(RangeResponse),
}

/// Carries out a step of a move.
pub(super) fn step(store: &RemoteStore, request: TxnRequest) -> Result<Step> {
    let failure = vec![Keys::one(store.keys.meta()).read().into()];
    let answer = store.client.commit(&TxnRequest { failure, ..request }).map_err(open)?;
    Ok(match answer.succeeded {
        true => Step::Done,
        false => Step::Refused(answer.ranges().last().unwrap_or_default()),
    })
}

/// The note of a move in `meta`.
pub(super) fn note(store: &RemoteStore, root: &FileStore, operation: &OperationId) -> Value {
    let origin = (store.surroundings.origin)(store.now());
    let path = root.settings().path().display().to_string();
    json!({
        "operation": operation.as_str(),
        "root": format!("{}:{path}", origin.owner.host),
        "time": origin.time,
    })
}

/// The failure of a step of which it is open whether it was carried out.
pub(super) fn open(failure: Failure) -> Error {
    match failure.fate {
        Fate::Unknown => Error::new(Kind::DurabilityUnknown, failure.to_string())
            .hint_command("state push --help", "the same command finds out")
            .caused_by(failure),
        Fate::NotSent | Fate::Refused => failure.into(),
    }
}

/// The error of a command that has put something and does not know what became of it.
pub(super) fn unsure(error: Error, is_put: bool) -> Error {
    match error.kind {
        Kind::Unreachable | Kind::Tls if is_put => Error { kind: Kind::DurabilityUnknown, ..error },
        _ => error,
    }
}

/// The error of a move that another command ended.
pub(super) fn ended() -> Error {
    Error::new(Kind::Conflict, "another command ended this move")
        .hint_command("state status", "see where the state is")
}
