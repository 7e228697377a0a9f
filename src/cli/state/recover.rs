//! `state recover`: restores a valid copy.

use serde_json::json;

use super::Run;
use crate::cli::output::Output;
use crate::cli::write_command::show_changes;
use crate::error::ExitCode;
use crate::store::heal::Recovered;
use crate::store::options::{Mode, WriteOptions};
use crate::store::{Store, Wanted};

pub(super) fn run(
    wanted: &Wanted,
    options: &WriteOptions,
    store: &Store,
    output: &Output<'_>,
) -> Run {
    if options.mode == Mode::DryRun {
        match store.plan_recovery(wanted)? {
            Some((file, changes)) => {
                if !output.is_json() {
                    output.line(&format!("State would be recovered from: {file}"))?;
                }
                show_changes(output, &changes)?;
            }
            None if output.is_json() => show_changes(output, &[])?,
            None => output.line("Current state is valid; nothing to recover")?,
        }
        return Ok(ExitCode::Success);
    }
    match store.recover(wanted, options)? {
        Recovered::From { file, revision } => {
            let facts = json!({"recovered": true, "file": file, "revision": revision.get()});
            output.confirm(&format!("State recovered from: {file} (revision {revision})"), &facts);
        }
        Recovered::NothingToDo { pre_migration } => {
            let kept = pre_migration.as_ref().map(|name| {
                format!(
                    "The state before its migration is kept: pipeline-state state recover {name}"
                )
            });
            let lines =
                ["Current state is valid; nothing to recover"].into_iter().chain(kept.as_deref());
            let facts = json!({"recovered": false, "pre_migration": pre_migration});
            output.confirm_in_lines(&lines.collect::<Vec<_>>(), &facts);
        }
    }
    Ok(ExitCode::Success)
}
