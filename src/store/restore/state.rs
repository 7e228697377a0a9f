//! The state in a checkpoint: whether it can be restored.

use serde_json::Value;

use crate::document::migrate::{self, Unfit};
use crate::document::seal::Lineage;
use crate::document::{Reading, inspect};
use crate::error::{Error, Kind, Result};
use crate::store::checkpoint::catalog::Unrestorable;
use crate::store::diagnosis::newer_schema;

/// The state of the checkpoint `id` in the current form, and its own lineage. `bytes` are those of
/// its file.
pub fn usable(id: &str, bytes: &[u8]) -> Result<(Value, Option<Lineage>)> {
    let (value, lineage) = match inspect(bytes) {
        Reading::Sealed(document) => {
            let lineage = document.seal.lineage.clone();
            (document.into_value(), Some(lineage))
        }
        Reading::Unsealed(value) => (value, None),
        Reading::Broken(_) => {
            return Err(unfit(id, "its state was edited by something else"));
        }
        Reading::Damaged(why) => {
            return Err(unfit(id, &format!("its state was damaged when it was made: {why}")));
        }
        Reading::Conflicted(_) => {
            return Err(unfit(id, "its state has git's conflict markers"));
        }
    };
    match migrate::usable(&value) {
        Ok(migrated) => Ok((migrated.value, lineage)),
        Err(Unfit::TooNew(too_new)) => Err(newer_schema(&format!("the checkpoint {id}"), &too_new)),
        Err(Unfit::Invalid(findings)) => {
            let finding = findings.first().map_or_else(String::new, ToString::to_string);
            Err(unfit(id, &format!("its state breaks the rules: {finding}")))
        }
    }
}

/// The error of a checkpoint with a state that cannot be restored.
pub fn unfit(id: &str, why: &str) -> Error {
    Error::new(Kind::Corrupt, format!("the checkpoint {id} cannot be restored: {why}"))
        .hint_command("recover list", "see which others there are")
        .detail("checkpoint", id)
        .caused_by(Unrestorable { id: id.to_owned() })
}

/// The error of a checkpoint without a state.
pub fn without_state(id: &str) -> Error {
    unfit(id, "there was no state when it was made")
}
