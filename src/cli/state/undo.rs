//! `state undo`: goes back one revision, and shows what that takes back.

use serde_json::json;

use super::{Run, write_options};
use crate::cli::args::Writer;
use crate::cli::output::Output;
use crate::cli::reports::who;
use crate::cli::write_command::show_outcome;
use crate::error::ExitCode;
use crate::journal::Commit;
use crate::owner_view::OwnerView;
use crate::store::Store;
use crate::store::change::Outcome;
use crate::store::undo::TakenBack;

pub(super) fn run(writer: &Writer, store: &Store, output: &Output<'_>) -> Run {
    let undone = store.undo(&write_options("undo", writer)?)?;
    let (revision, changed) = match undone.outcome {
        Outcome::Committed { revision, .. } => (revision, true),
        Outcome::Unchanged { revision } => (revision, false),
        Outcome::Planned(_) => {
            if !output.is_json() {
                let to = undone.to;
                output
                    .line(&format!("The state would be that of revision {to} again, without:"))?;
                for taken in &undone.taken_back {
                    output.line(&line(taken))?;
                }
            }
            return show_outcome(output, undone.outcome, "");
        }
    };
    let head = format!("State of revision {} again: revision {revision}; taken back:", undone.to);
    let lines: Vec<String> =
        std::iter::once(head).chain(undone.taken_back.iter().map(line)).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let facts = json!({
        "revision": revision.get(), "changed": changed, "to": undone.to.get(),
        "taken_back": undone.taken_back.iter().map(facts).collect::<Vec<_>>(),
    });
    output.confirm_in_lines(&lines, &facts);
    Ok(ExitCode::Success)
}

fn line(taken: &TakenBack) -> String {
    let Some(commit) = &taken.commit else {
        return format!("  {}  (not in the journal)", taken.revision);
    };
    let owner = who(&OwnerView::from(&commit.origin.owner));
    let reason = commit.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
    format!("  {}  {}  {owner}  {}{reason}", taken.revision, commit.origin.time, commit.command)
}

fn facts(taken: &TakenBack) -> serde_json::Value {
    let commit = taken.commit.as_ref();
    let reason = |commit: &Commit| commit.reason.clone();
    json!({
        "revision": taken.revision,
        "time": commit.map(|commit| &commit.origin.time),
        "owner": commit.map(|commit| OwnerView::from(&commit.origin.owner)),
        "command": commit.map(|commit| &commit.command),
        "reason": commit.and_then(reason),
    })
}
