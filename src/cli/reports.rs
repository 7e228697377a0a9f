//! The views of `validate`, `backups`, `history` and `status`.

use serde_json::json;

use super::args::state::History;
use super::moment::Moment;
use super::output::Output;
use super::style::Paint;
use super::table::{Cell, Column, Table, dash};
use crate::error::{Error, ExitCode, Kind, Result, one_line};
use crate::journal::changes::Change;
use crate::lock::LockSummary;
use crate::os::Confirmation;
use crate::owner_view::OwnerView;
use crate::store::Store;
use crate::store::report::{Remembered, Validation};
use crate::time::rfc3339;

type Run = anyhow::Result<ExitCode>;

pub(super) fn validate(output: &Output<'_>, validation: Validation) -> Run {
    let passed = validation.error.is_none();
    if output.is_json() {
        output.json(
            &json!({"valid": passed, "findings": validation.findings, "note": validation.note}),
        )?;
    } else {
        let verdict = if passed {
            output.paint("PASSED", Paint::Green)
        } else {
            output.paint("FAILED", Paint::Red)
        };
        let mut text = format!("State validation: {verdict}\n");
        for finding in &validation.findings {
            text.push_str(&format!("  {}\n", one_line(&finding.to_string())));
        }
        if let Some(note) = &validation.note {
            text.push_str(&format!("  note: {note}\n"));
        }
        output.bytes(text.as_bytes())?;
    }
    validation.error.map_or(Ok(ExitCode::Success), |error| Err(error.into()))
}

pub(super) fn backups(store: &Store, output: &Output<'_>) -> Run {
    let listed = store.report().backups()?;
    if output.is_json() {
        output.json(&json!(listed))?;
        return Ok(ExitCode::Success);
    }
    if listed.is_empty() {
        output.line("no backups")?;
        return Ok(ExitCode::Success);
    }
    let now = store.now();
    let mut table = Table::new(&[
        Column::new("NAME").whole(),
        Column::number("REVISION").light(2),
        Column::new("TIME").light(2),
        Column::number("BYTES").spare(),
        Column::new("PINNED").whole().light(1),
        Column::new("VALID").whole(),
        Column::new("REASON").light(3),
    ]);
    for backup in listed {
        // `state recover` and `state diff` take part of the file's name.
        let name = backup.name.trim_start_matches("state-").trim_end_matches(".json");
        table.row([
            name.into(),
            dash(backup.revision).into(),
            Cell::or(rfc3339(backup.time), Moment::from(backup.time).past(now)),
            backup.bytes.to_string().into(),
            dash(backup.pinned.then_some("pinned")).into(),
            match backup.problem {
                None => "valid".into(),
                Some(_) => Cell::painted("INVALID", Some(Paint::Red)),
            },
            dash(backup.reason).into(),
        ]);
    }
    output.table(table)?;
    Ok(ExitCode::Success)
}

pub(super) fn history(args: &History, store: &Store, output: &Output<'_>) -> Run {
    let revisions = match &args.operation {
        None => store.report().history(args.limit, args.since)?,
        Some(operation) => made_by(operation, store.report().history(None, args.since)?)?,
    };
    if output.is_json() {
        output.json(&json!(revisions))?;
        return Ok(ExitCode::Success);
    }
    let now = store.now();
    let mut table = Table::new(&[
        Column::number("REVISION"),
        Column::new("TIME").whole(),
        Column::new("WHO").light(2),
        Column::new("COMMAND").light(1),
        Column::new("REASON"),
        Column::new("CHANGES").light(3),
    ]);
    for row in revisions {
        let text = |text: Option<String>| Cell::from(dash(text));
        table.row([
            row.revision.to_string().into(),
            row.time.map_or_else(
                || "-".into(),
                |time| Cell::or(time.clone(), Moment::from(time.as_str()).past(now)),
            ),
            text(row.owner.as_ref().map(who)),
            text(row.command),
            text(row.reason),
            text(row.changes.map(|changes| summary(&changes, row.more_changes))),
        ]);
    }
    output.table(table)?;
    Ok(ExitCode::Success)
}

/// The revision that an operation made.
fn made_by(operation: &str, mut revisions: Vec<Remembered>) -> Result<Vec<Remembered>> {
    revisions.retain(|revision| revision.operation.as_deref() == Some(operation));
    if !revisions.is_empty() {
        return Ok(revisions);
    }
    let message = format!("no revision on record was made by the operation {operation}");
    Err(Error::new(Kind::NotFound, message)
        .hint_command("state history -n 3", "if its number is there, it was made by another one"))
}

/// An owner in a table: `alice@host deploy.sh`.
pub(super) fn who(owner: &OwnerView) -> String {
    let uid = || owner.uid.map_or_else(|| "-".to_owned(), |uid| uid.to_string());
    let user = owner.user.clone().unwrap_or_else(uid);
    let program = owner.program.as_deref().unwrap_or_default();
    format!("{user}@{} {program}", owner.host).trim_end().to_owned()
}

fn summary(changes: &[Change], more: usize) -> String {
    let mut words: Vec<String> = changes.iter().map(Change::to_string).collect();
    if more > 0 {
        words.push(format!("and {more} more"));
    }
    if words.is_empty() { "nothing".to_owned() } else { words.join(", ") }
}

/// Warning about a file system that other machines may share.
pub(super) fn shared_file_system(locks: &LockSummary) -> String {
    format!(
        "{} is on a file system ({}) that other machines may share: flock and {} may be unreliable \
         there, and an owner on another machine is never taken for dead",
        locks.directory,
        locks.file_system,
        crate::os::hints::NOTIFICATIONS
    )
}

/// Warning about a file system that does not confirm that flushed data reached the drive.
pub(super) fn unconfirmed_flushes(locks: &LockSummary) -> Option<String> {
    let warning = || {
        format!(
            "the file system of {} ({}) does not confirm that data reached the disk: \
             what is acknowledged may not survive a power cut",
            locks.directory, locks.file_system
        )
    };
    (locks.flushes == Confirmation::Unconfirmed).then(warning)
}

pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 10_000 {
        return format!("{bytes} bytes");
    }
    #[allow(clippy::cast_precision_loss)] // for people
    let mut amount = bytes as f64 / 1024.0;
    let mut unit = 0;
    while amount >= 1024.0 && unit + 1 < UNITS.len() {
        amount /= 1024.0;
        unit += 1;
    }
    format!("{amount:.1} {}", UNITS.get(unit).copied().unwrap_or("TiB"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_confirms_nothing_is_warned_of() {
        let summary = |flushes| LockSummary {
            directory: "/Volumes/share/.locks".to_owned(),
            held: 0,
            waiting: 0,
            stale: 0,
            unknown: 0,
            file_system: "smb",
            shared_file_system: true,
            flushes,
            entries: Vec::new(),
        };
        assert_eq!(unconfirmed_flushes(&summary(Confirmation::Confirmed)), None);
        let warning = unconfirmed_flushes(&summary(Confirmation::Unconfirmed)).unwrap();
        assert!(warning.contains("(smb) does not confirm"), "{warning}");
    }
}
