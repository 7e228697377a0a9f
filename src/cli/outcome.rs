//! Making a change, and showing what came of it.

use serde_json::json;

use super::output::Output;
use crate::document::diff::Change;
use crate::error::{ExitCode, Result};
use crate::store::Store;
use crate::store::change::{Base, Claim, Outcome, Proposal};
use crate::store::order::{Order, conflict};

type Run = anyhow::Result<ExitCode>;

/// Makes a change and shows what came of it.
pub(super) fn change(
    store: &Store,
    output: &Output<'_>,
    order: &Order,
    done: &str,
    make: &mut dyn FnMut(&Base) -> Result<Proposal>,
) -> Run {
    show_outcome(output, store.change(order, make)?, done)
}

pub(super) fn show_outcome(output: &Output<'_>, outcome: Outcome, done: &str) -> Run {
    match outcome {
        Outcome::Committed { revision, .. } => {
            let facts = json!({"revision": revision.get(), "changed": true});
            output.confirm(&format!("{done}: revision {revision}"), &facts);
        }
        Outcome::Unchanged { revision } => {
            let facts = json!({"revision": revision.get(), "changed": false});
            output.confirm(&format!("State unchanged: revision {revision}"), &facts);
        }
        Outcome::Planned(changes) => show_changes(output, &changes)?,
    }
    Ok(ExitCode::Success)
}

pub(super) fn show_changes(output: &Output<'_>, changes: &[Change]) -> anyhow::Result<()> {
    if output.is_json() {
        return output.json(&json!(changes));
    }
    let lines: Vec<String> = changes.iter().map(|change| format!("{change}\n")).collect();
    output.bytes(if lines.is_empty() { b"no differences\n".to_vec() } else { lines.concat().into_bytes() }.as_slice())
}

/// Refuses a document that was made from another revision than the current one.
pub(super) fn check_claim(claim: &Claim, base: &Base) -> Result<()> {
    if claim.is_made() && *claim != base.claim {
        return Err(conflict(&claim.differs_from(&base.claim), base.revision()));
    }
    Ok(())
}
