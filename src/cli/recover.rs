//! The `recover` commands: each parses its arguments, makes one call and shows the result.

mod doctor;
mod retry;
mod status;

use serde_json::{Value, json};

pub(super) use self::doctor::RemediesShown;
use super::args::lock::Layout;
use super::args::recover::{self as args, Recover};
use super::ask;
use super::input::inline_json;
use super::moment::Moment;
use super::output::Output;
use super::reports::size;
use super::table::{Cell, Column, Table, dash};
use super::write_command::{change, show_changes, with_store, write_options};
use crate::config::Config;
use crate::document::degraded::{Degraded, features};
use crate::document::rules::type_of;
use crate::error::{Error, ExitCode, Hint, Kind, Result, one_line};
use crate::fs::Disk;
use crate::journal::event::RESTORE;
use crate::name::Name;
use crate::owner_view::OwnerView;
use crate::plural::count;
use crate::store::Store;
use crate::store::checkpoint::Snapshot;
use crate::store::checkpoint::catalog::Which;
use crate::store::options::{Author, Mode, WriteOptions};
use crate::store::restore::{Aborted, Interrupted};
use crate::time::{rfc3339, with_millis};
use crate::tree::What;

type Run = anyhow::Result<u8>;

/// Runs one `recover` command; its exit code.
pub fn run(command: &Recover, config: &Config, disk: Disk, output: &Output<'_>) -> Run {
    with_store(config, disk, output, action_of(command), |store| {
        dispatch(command, config, store, output)
    })
}

/// The name of a refusal in the logs; readers have none.
fn action_of(command: &Recover) -> Option<&'static str> {
    Some(match command {
        Recover::Checkpoint(_) => "recover checkpoint",
        Recover::Restore(args::Restore { writer, .. }) if !writer.dry_run => RESTORE,
        Recover::Cleanup { dry_run: false, .. } => "recover cleanup",
        Recover::Remove { .. } => "recover remove",
        Recover::Guard(_) => "recover guard",
        Recover::Degrade(_) => "recover degrade",
        Recover::Normal { .. } => "recover recover-mode",
        Recover::Handle(_) => "recover handle",
        _ => return None,
    })
}

fn dispatch(command: &Recover, config: &Config, store: &Store, output: &Output<'_>) -> Run {
    let done = |()| ExitCode::Success as u8;
    match command {
        Recover::Checkpoint(arguments) => checkpoint(arguments, store, output).map(done),
        Recover::Restore(arguments) => restore(arguments, store, output).map(done),
        Recover::List { layout } => {
            let as_json = layout.map_or(output.is_json(), |layout| layout == Layout::Json);
            list(store, as_json, output).map(done)
        }
        Recover::Show { id } => show(id, store, output).map(done),
        Recover::Verify { id } => verify(id.as_deref(), store, output),
        Recover::Cleanup { days, keep, dry_run } => {
            let age = std::time::Duration::from_secs(days.saturating_mul(86_400));
            let mode = if *dry_run { Mode::DryRun } else { Mode::Commit };
            let removed = store.checkpoints().clean(age, *keep, mode)?;
            if mode == Mode::DryRun {
                return would_remove(&removed, output).map(done);
            }
            output.confirm(
                &format!("Cleaned {}", count(removed.len(), "checkpoint")),
                &json!({"removed": removed}),
            );
            Ok(done(()))
        }
        Recover::Remove { ids } => {
            let removed = store.checkpoints().remove(ids)?;
            let lines: Vec<String> =
                removed.iter().map(|id| format!("Checkpoint removed: {id}")).collect();
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            output.confirm_in_lines(&lines, &json!({"removed": removed}));
            Ok(done(()))
        }
        Recover::Degrade(arguments) => degrade(arguments, store, output),
        Recover::Normal { writer } => {
            let order = write_options("recover", "recover-mode", writer)?;
            let normal = |document: &mut Value| Degraded::default().put_into(document);
            set_mode(store, output, &order, "Degraded mode disabled", &normal)
        }
        Recover::Degraded(args::Degraded { feature, exit_zero }) => {
            let answer = degraded(feature.as_deref(), store, output)?;
            Ok(if answer || *exit_zero { ExitCode::Success as u8 } else { ExitCode::General as u8 })
        }
        Recover::Guard(arguments) => retry::guard(arguments, store, output),
        Recover::Retry(arguments) => retry::retry(arguments, store, output),
        Recover::Handle(arguments) => doctor::handle(arguments, config, store, output),
        Recover::Doctor { fix } => doctor::doctor(*fix, config, store, output),
        Recover::Status(watched) => status::status(store, *watched, output).map(done),
        Recover::Metrics { form } => status::metrics(*form, config, store, output).map(done),
    }
}

// ---- checkpoints ----

fn checkpoint(
    arguments: &args::Checkpoint,
    store: &Store,
    output: &Output<'_>,
) -> anyhow::Result<()> {
    let operation = Name::parse_operation(&arguments.operation)?;
    let (phase, metadata) = phase_and_metadata(&arguments.shapes)?;
    let progress = output.progress("making a checkpoint");
    let made = store.checkpoints().create(&Snapshot { operation, phase, metadata })?;
    drop(progress);
    let facts = json!({"id": made.id, "files": made.files, "bytes": made.bytes});
    output.confirm(&format!("Checkpoint created: {}", made.id), &facts);
    Ok(())
}

/// A phase and a JSON object, distinguished by their shape.
fn phase_and_metadata(shapes: &[String]) -> Result<(Option<String>, Value)> {
    let (mut phase, mut metadata) = (None, None);
    for shape in shapes {
        if shape.trim_start().starts_with(['{', '[']) {
            let value = inline_json("METADATA", shape)?;
            if !value.is_object() {
                let message =
                    format!("METADATA must be a JSON object, and this is {}", type_of(&value));
                return Err(Error::new(Kind::InvalidJson, message)
                    .hint_command("recover checkpoint --help", ""));
            }
            if metadata.replace(value).is_some() {
                return Err(Error::new(Kind::Usage, "METADATA is given twice"));
            }
        } else if phase.replace(shape.clone()).filter(|phase| !phase.is_empty()).is_some() {
            return Err(Error::new(
                Kind::Usage,
                format!("PHASE is given twice, or METADATA is not a JSON object: {shape}"),
            )
            .hint_command("recover checkpoint --help", ""));
        }
    }
    Ok((phase.filter(|phase| !phase.is_empty()), metadata.unwrap_or_else(|| json!({}))))
}

fn abort(store: &Store, output: &Output<'_>) -> anyhow::Result<()> {
    let (text, checkpoint, undone) = match store.restores().abort()? {
        Aborted::Nothing => ("No restore was interrupted".to_owned(), None, false),
        Aborted::Dropped { checkpoint: None } => {
            ("Damaged record of a restore dropped".to_owned(), None, false)
        }
        Aborted::Dropped { checkpoint: Some(id) } => {
            (format!("Restore dropped: {id}"), Some(id), false)
        }
        Aborted::Undone { checkpoint } => {
            (format!("Restore undone: {checkpoint}"), Some(checkpoint), true)
        }
    };
    output.confirm(&text, &json!({"aborted": checkpoint, "undone": undone}));
    Ok(())
}

fn restore(arguments: &args::Restore, store: &Store, output: &Output<'_>) -> anyhow::Result<()> {
    if arguments.abort {
        return abort(store, output);
    }
    let which = match (&arguments.id, arguments.latest.as_deref()) {
        (Some(id), _) => Which::Id(id.clone()),
        (None, Some("") | None) => Which::Latest(None),
        (None, Some(operation)) => Which::Latest(Some(Name::parse("operation", operation)?)),
    };
    let order = write_options("recover", "restore", &arguments.writer)?;
    if order.mode == Mode::DryRun {
        let plan = store.restores().plan(&which)?;
        if !output.is_json() {
            output.line(&format!("Checkpoint would be restored: {}", plan.id))?;
        }
        return show_changes(output, &plan.changes);
    }
    let which = match arguments.yes || !ask::is_typed() {
        true => which,
        false => asked_for(&which, store, output)?,
    };
    let progress = output.progress("restoring a checkpoint");
    let restored = store.restores().restore(&which, &order)?;
    drop(progress);
    let facts = json!({"id": restored.id, "pre_restore": restored.pre_restore,
        "revision": restored.revision});
    output.confirm(&format!("Checkpoint restored: {}", restored.id), &facts);
    if ask::is_typed() && !output.is_json() {
        let back =
            Hint::Command(format!("recover restore {}", restored.pre_restore), String::new());
        output.progress_line(&format!("To undo it: {}", output.command(&back)));
    }
    Ok(())
}

/// Lists the revisions that restoring a checkpoint undoes, and asks for confirmation.
fn asked_for(which: &Which, store: &Store, output: &Output<'_>) -> Result<Which> {
    const SHOWN: usize = 20;
    let checkpoint = store.checkpoints().find(which)?;
    let id = checkpoint.id;
    let since = checkpoint.metadata.revision.unwrap_or_default();
    let mut undone = store.report().history(None, None).unwrap_or_default();
    undone.retain(|revision| revision.revision > since);
    for revision in undone.iter().take(SHOWN) {
        let [time, command, reason] = [&revision.time, &revision.command, &revision.reason]
            .map(|text| text.as_deref().unwrap_or("-"));
        output
            .notice(&format!("undoes revision {}: {time}, {command}, {reason}", revision.revision));
    }
    if undone.len() > SHOWN {
        output.notice(&format!("and {} more: state history", undone.len() - SHOWN));
    }
    output.notice(
        "what is here now becomes a checkpoint first: recover restore --latest pre-restore",
    );
    let question = match undone.len() {
        0 => format!("No revision is newer than {id}. Restore it?"),
        1 => format!("One revision is newer than {id}. Restore it?"),
        count => format!("{count} revisions are newer than {id}. Restore it?"),
    };
    if ask::ask(&question) {
        return Ok(Which::Id(id));
    }
    Err(Error::new(Kind::Cancelled, "the answer was no; nothing was changed")
        .hint_command(format!("recover restore {id} --dry-run"), "see what it would change"))
}

fn list(store: &Store, as_json: bool, output: &Output<'_>) -> anyhow::Result<()> {
    let checkpoints = store.checkpoints().list()?;
    if as_json {
        output.json(&json!(checkpoints))?;
    } else if checkpoints.is_empty() {
        output.line("no checkpoints")?;
    } else {
        let now = store.now();
        let mut table = Table::new(&[
            Column::new("ID").whole(),
            Column::new("TIME").whole().light(1),
            Column::new("OPERATION").spare(), // the end of its ID
            Column::new("PHASE").light(2),
            Column::number("REVISION").light(3),
            Column::number("FILES").spare(),
            Column::new("SIZE").spare(),
            Column::new("NOTES").light(4),
        ]);
        for row in checkpoints {
            let text = |text: Option<String>| Cell::from(dash(text));
            let noted =
                row.metadata.filter(|noted| *noted != json!({})).map(|noted| noted.to_string());
            table.row([
                text(Some(row.id)),
                row.time.map_or_else(
                    || "-".into(),
                    |time| {
                        let made = Moment::from(time.as_str());
                        Cell::or(format!("{time}{}", made.ago(now)), made.past(now))
                    },
                ),
                text(row.operation),
                text(row.phase),
                dash(row.revision).into(),
                dash(row.files).into(),
                dash(row.bytes.map(size)).into(),
                text(row.problem.or(noted)),
            ]);
        }
        output.table(table)?;
    }
    report_interrupted_restore(store, output)
}

fn would_remove(ids: &[String], output: &Output<'_>) -> anyhow::Result<()> {
    if output.is_json() {
        return output.json(&json!({"would_remove": ids}));
    }
    if ids.is_empty() {
        return output.line("no checkpoints would be removed");
    }
    ids.iter().try_for_each(|id| output.line(&format!("Checkpoint would be removed: {id}")))
}

fn show(id: &str, store: &Store, output: &Output<'_>) -> anyhow::Result<()> {
    let checkpoint = store.checkpoints().find(&Which::Id(id.to_owned()))?;
    let entries = checkpoint.listing.entries();
    if output.is_json() {
        let of = &checkpoint.metadata;
        let owner = OwnerView { pid: of.pid, host: of.hostname.clone(), ..OwnerView::default() };
        let files: Vec<Value> = entries
            .iter()
            .map(|entry| {
                let mode = format!("{:04o}", entry.mode);
                match &entry.what {
                    What::File { bytes, sha256 } => {
                        json!({"path": entry.path, "type": "file", "mode": mode, "bytes": bytes,
                            "sha256": sha256.as_str()})
                    }
                    What::Directory => json!({"path": entry.path, "type": "directory",
                        "mode": mode}),
                    What::Link { target } => json!({"path": entry.path, "type": "link",
                        "target": target}),
                }
            })
            .collect();
        return output.json(&json!({
            "id": of.id, "time": with_millis(&of.timestamp), "operation": of.operation,
            "phase": of.phase, "revision": of.revision, "automatic": of.automatic, "owner": owner,
            "metadata": of.metadata, "files": files,
        }));
    }
    let metadata = json!(checkpoint.metadata);
    let mut text = String::new();
    for (name, value) in metadata.as_object().into_iter().flatten() {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        text.push_str(&format!("{name:<12}{}\n", one_line(&value)));
    }
    text.push('\n');
    output.bytes(text.as_bytes())?;
    let mut table = Table::new(&[
        Column::new("MODE").whole(),
        Column::number("BYTES"),
        Column::new("FILE").whole(),
    ]);
    for entry in entries {
        let (bytes, path) = match &entry.what {
            What::File { bytes, .. } => (bytes.to_string(), entry.path.clone()),
            What::Directory => ("-".to_owned(), format!("{}/", entry.path)),
            What::Link { target } => ("-".to_owned(), format!("{} -> {target}", entry.path)),
        };
        table.row([format!("{:04o}", entry.mode).into(), bytes.into(), path.into()]);
    }
    output.table(table)
}

fn verify(id: Option<&str>, store: &Store, output: &Output<'_>) -> Run {
    if let Some(id) = id {
        let progress = output.progress(format!("reading {id}"));
        store.checkpoints().verify(id)?;
        drop(progress);
        output.confirm(&format!("{id}: OK"), &json!([{"id": id, "valid": true, "problem": null}]));
        return Ok(ExitCode::Success as u8);
    }
    let mut verdicts = Vec::new();
    let mut worst = None;
    let ids = store.checkpoints().ids()?;
    for (place, id) in ids.iter().rev().enumerate() {
        let progress = output.progress(format!("reading {id} ({} of {})", place + 1, ids.len()));
        let problem = store.checkpoints().verify(id).err();
        drop(progress);
        if !output.is_json() {
            let why = problem.as_ref().map(|error| format!("FAILED: {}", error.message));
            output.line(&format!("{id}: {}", why.unwrap_or_else(|| "OK".to_owned())))?;
        }
        let why = problem.as_ref().map(|error| error.message.clone());
        verdicts.push(json!({"id": id, "valid": why.is_none(), "problem": why}));
        worst = worst.or(problem);
    }
    if output.is_json() {
        output.json(&json!(verdicts))?;
    }
    report_interrupted_restore(store, output)?;
    worst.map_or(Ok(ExitCode::Success as u8), |error| Err(error.into()))
}

/// Read-only commands announce the restore that the next writer will finish.
fn report_interrupted_restore(store: &Store, output: &Output<'_>) -> anyhow::Result<()> {
    match store.restores().interrupted()? {
        Some(Interrupted::Ours(id)) => output.warning(&format!(
            "a restore of {id} was interrupted; the next command that reads or writes the state \
             finishes it"
        )),
        Some(Interrupted::Foreign(refusal)) => output.warning(&refusal.message),
        None => {}
    }
    Ok(())
}

// ---- degraded mode ----

fn degrade(arguments: &args::Degrade, store: &Store, output: &Output<'_>) -> Run {
    let mut order = write_options("recover", "degrade", &arguments.writer)?;
    order.reason = order.reason.or_else(|| Some(format!("degraded {}", arguments.cause)));
    let noted = Degraded {
        is_on: true,
        reason: arguments.cause.clone(),
        since: rfc3339(store.now()),
        features: arguments.features.as_deref().map(features).transpose()?.unwrap_or_default(),
    };
    let note = |document: &mut Value| noted.put_into(document);
    set_mode(store, output, &order, "Degraded mode enabled", &note)
}

fn set_mode(
    store: &Store,
    output: &Output<'_>,
    order: &WriteOptions,
    done: &str,
    set: &dyn Fn(&mut Value),
) -> Run {
    let order = &WriteOptions { author: Author::Program, ..order.clone() };
    let code = change(store, output, order, done, &mut |base| {
        let mut value = base.draft();
        set(&mut value);
        Ok(value.into())
    })?;
    Ok(code as u8)
}

/// Answers whether the state is degraded, or a feature disabled.
fn degraded(feature: Option<&str>, store: &Store, output: &Output<'_>) -> anyhow::Result<bool> {
    let mode = Degraded::of(&store.read()?.value);
    let answer = feature.map_or(mode.is_on, |feature| mode.disables(feature));
    if output.is_json() {
        output.json(&json!({
            "degraded": mode.is_on, "reason": mode.reason, "since": mode.since_view(),
            "disabled_features": mode.features,
            "feature": feature, "disabled": feature.map(|feature| mode.disables(feature)),
        }))?;
    } else if answer {
        let features = mode.features.join(", ");
        let features =
            if features.is_empty() { String::new() } else { format!("; disabled: {features}") };
        output.line(&format!("degraded since {}: {}{features}", mode.since, mode.reason))?;
    } else {
        output.line(if mode.is_on { "degraded, but not in this" } else { "normal" })?;
    }
    Ok(answer)
}
