//! Makes a change and shows its result.

use serde_json::json;

use super::args::Writer;
use super::open;
use super::output::Output;
use crate::config::Config;
use crate::document::diff::Difference;
use crate::error::{Error, ExitCode, Kind, Result};
use crate::fs::Disk;
use crate::journal::event::REASON_LIMIT;
use crate::store::Store;
use crate::store::change::{Base, Claim, Outcome, Proposal};
use crate::store::options::{Mode, WriteOptions, conflict};

type Run = anyhow::Result<ExitCode>;

/// Runs `work` with the store of `config`. Shows warnings and logs refusals for all commands;
/// `action` names the command in the log, and readers have none.
pub(super) fn with_store<T>(
    config: &Config,
    disk: Disk,
    output: &Output<'_>,
    action: Option<&'static str>,
    work: impl FnOnce(&Store) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let store = open::store(config, disk)?;
    store.on_wait(output.wait_notice());
    let result = work(&store);
    if let (Some(action), Err(error)) = (action, &result)
        && let Some(error) = error.downcast_ref::<Error>()
    {
        store.logs().record_refusal(action, error);
    }
    for warning in store.take_warnings() {
        output.warning(&warning);
    }
    result
}

/// A reason that the journal keeps verbatim.
fn reason(text: String) -> Result<String> {
    if text.len() <= REASON_LIMIT {
        return Ok(text);
    }
    let message = format!(
        "the reason has {} bytes, and {REASON_LIMIT} is the limit; nothing was written",
        text.len()
    );
    Err(Error::new(Kind::TooLarge, message).hint_text("shorten it, and name where the rest is"))
}

/// Options of a writer from its command line.
pub(super) fn write_options(
    group: &'static str,
    action: &'static str,
    writer: &Writer,
) -> Result<WriteOptions> {
    Ok(WriteOptions {
        group,
        action,
        reason: writer.reason.clone().map(reason).transpose()?,
        if_revision: writer.if_revision,
        fences: writer.fence.iter().map(|fence| fence.parse()).collect::<Result<_>>()?,
        mode: if writer.dry_run { Mode::DryRun } else { Mode::Commit },
        ..WriteOptions::default()
    })
}

/// Makes a change and shows its result.
pub(super) fn change(
    store: &Store,
    output: &Output<'_>,
    order: &WriteOptions,
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

pub(super) fn show_changes(output: &Output<'_>, changes: &[Difference]) -> anyhow::Result<()> {
    if output.is_json() {
        return output.json(&json!(changes));
    }
    let lines: Vec<String> = changes.iter().map(|change| format!("{change}\n")).collect();
    output.bytes(
        if lines.is_empty() { b"no differences\n".to_vec() } else { lines.concat().into_bytes() }
            .as_slice(),
    )
}

/// Refuses a document that was made from another revision than the current one.
pub(super) fn check_claim(claim: &Claim, base: &Base) -> Result<()> {
    if claim.is_made() && *claim != base.claim {
        return Err(conflict(&claim.differs_from(&base.claim), base.revision()));
    }
    Ok(())
}
