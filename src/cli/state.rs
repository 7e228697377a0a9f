//! The `state` commands: each parses its arguments, calls the store once and shows the result.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::args::Writer;
use super::args::state::{self as args, State};
use super::input::{
    Query, compile, cut, inline_json, input, only_object, parse_document, path_error,
};
use super::output::Output;
use super::write_command::{change, check_claim, order, show_changes, show_outcome, with_store};
use super::{ask, edit, follow, reports, status};
use crate::config::Config;
use crate::document::new_document::NewDocument;
use crate::document::path::DocPath;
use crate::document::query::is_heavy;
use crate::document::{json as text, migrate, rules, schema};
use crate::error::{Error, ExitCode, Hint, Kind, Result, quote_path};
use crate::fs::Disk;
use crate::name::Name;
use crate::printable::json_text;
use crate::side::warning_for_root;
use crate::store::Wanted;
use crate::store::change::{Claim, Outcome, Proposal};
use crate::store::diagnosis::newer_schema;
use crate::store::fresh::{Done, InitMode};
use crate::store::heal::Recovered;
use crate::store::options::{Mode, WriteOptions};
use crate::store::report::validate_input;
use crate::store::{SignalFile, Signals, Store};

type Run = anyhow::Result<ExitCode>;

/// Runs one `state` command.
pub fn run(command: &State, config: &Config, disk: Disk, output: &Output<'_>) -> Run {
    if let (State::Init { .. }, Some(root)) = (command, &config.found_above) {
        output
            .warning(&format!("using the state of {}; `--root .` makes one here", root.display()));
    }
    with_store(config, disk, output, action_of(command), |store| dispatch(command, store, output))
}

/// True if a command runs a jq program that may need much memory or time.
pub fn runs_a_heavy_program(command: &State) -> bool {
    match command {
        State::Update(args::Update { filter, .. })
        | State::Get(args::Get { filter, .. })
        | State::Wait { filter, .. }
        | State::Watch { filter, .. } => is_heavy(filter),
        _ => false,
    }
}

/// The name a writer goes by in the audit log; readers have none.
fn action_of(command: &State) -> Option<&'static str> {
    Some(match command {
        State::Init { .. } => "init",
        State::Set(_) => "set",
        State::Update(_) => "update",
        State::Write(_) => "write",
        State::Phase(args::Phase { name: Some(_), .. }) => "phase",
        State::Complete(_) => "complete",
        State::Signal(_) => "signal",
        State::Backup { .. } => "backup",
        State::Recover { .. } => "recover",
        State::Adopt { .. } => "adopt",
        State::Migrate { .. } => "migrate",
        State::Edit { .. } => "edit",
        _ => return None,
    })
}

fn dispatch(command: &State, store: &Store, output: &Output<'_>) -> Run {
    let order = |writer: &Writer| order("state", action_of(command).unwrap_or("write"), writer);
    match command {
        State::Init { fresh, yes } => {
            if *fresh {
                check_fresh(store, *yes)?;
            }
            if let Some(warning) = warning_for_root(store.disk(), &store.settings().directory) {
                output.warning(&warning); // before anything is created
            }
            init(store, output, if *fresh { InitMode::Fresh } else { InitMode::Continue })
        }
        State::Read => {
            output.bytes(&store.read()?.bytes)?;
            Ok(ExitCode::Success)
        }
        State::Get(args) => {
            let answer = get(store, output, args)?;
            Ok(if args.exit_zero { ExitCode::Success } else { answer })
        }
        State::Set(args::Set { assignments, writer }) => {
            let assignments = assignments
                .iter()
                .map(|text| Assignment::parse(text))
                .collect::<Result<Vec<_>>>()?;
            change(store, output, &order(writer)?, "State updated", &mut |base| {
                let mut draft = NewDocument::edit(
                    &base.value,
                    assignments.iter().filter_map(|assignment| assignment.path.field()),
                );
                for assignment in &assignments {
                    let set = assignment.path.set(draft.root_mut(), assignment.value.clone());
                    set.map_err(|error| path_error(&assignment.argument, error))?;
                }
                Ok(draft.into())
            })
        }
        State::Update(args::Update { filter, program, writer }) => {
            let filter = compile(filter, program)?;
            change(store, output, &order(writer)?, "State updated", &mut |base| {
                Ok(only_object(&filter, &base.value)?.into())
            })
        }
        State::Write(args::Write { file, force, migrate, writer }) => {
            let bytes = input(file)?;
            let value = parse_document(&bytes)?;
            let claim = Claim::of(&value);
            let value = in_todays_form(value, *migrate, output)?;
            change(store, output, &order(writer)?, "State written", &mut |base| {
                if !force {
                    check_claim(&claim, base)?;
                }
                Ok(Proposal { signals: Signals::Follow, ..value.clone().into() })
            })
        }
        State::Phase(args::Phase { name: None, .. }) => {
            get(store, output, &args::Get { filter: ".phase".to_owned(), ..args::Get::default() })
        }
        State::Phase(args::Phase { name: Some(name), writer }) => {
            let name = one_word("phase", name)?;
            change(store, output, &order(writer)?, "State updated", &mut |base| {
                let mut draft = NewDocument::edit(&base.value, []);
                put(draft.root_mut(), "phase", name.into());
                Ok(draft.into())
            })
        }
        State::Complete(args::Complete { tasks, writer }) => {
            for task in tasks {
                one_word("task", task)?;
            }
            change(store, output, &order(writer)?, "State updated", &mut |base| {
                let mut draft = NewDocument::edit(&base.value, ["completedTasks"]);
                if let Some(Value::Array(completed)) = draft.root_mut().get_mut("completedTasks") {
                    let mut done: HashSet<&str> =
                        completed.iter().filter_map(Value::as_str).collect();
                    let new: Vec<Value> = tasks
                        .iter()
                        .filter(|task| done.insert(task))
                        .map(|task| task.as_str().into())
                        .collect();
                    completed.extend(new);
                }
                Ok(draft.into())
            })
        }
        State::Signal(args::Signal { name, phase, metadata, clear, writer }) => {
            let name = Name::parse("signal", name)?;
            let metadata =
                metadata.as_deref().map(|json| inline_json("--metadata", json)).transpose()?;
            change(store, output, &order(writer)?, "State updated", &mut |base| {
                let phase = phase.as_deref().map(|phase| one_word("phase", phase)).transpose()?;
                let signal = Signal { name: &name, phase, metadata: metadata.as_ref() };
                let draft = NewDocument::edit(&base.value, []);
                if *clear { Ok(signal.clear(draft)) } else { signal.set(draft, store.disk()) }
            })
        }
        State::Validate { file } => {
            let validation = match file {
                Some(file) => validate_input(&input(file)?),
                None => store.report().validate()?,
            };
            reports::validate(output, validation)
        }
        State::Backup { name } => {
            let name = name.as_deref().map(|name| Name::parse("backup", name)).transpose()?;
            let path = store.backup(name.as_ref())?.display().to_string();
            output.confirm(&format!("Backup created: {path}"), &json!({ "file": path }));
            Ok(ExitCode::Success)
        }
        State::Backups => reports::backups(store, output),
        State::Recover { pattern, to_revision, writer } => {
            let wanted = match (pattern, to_revision) {
                (Some(pattern), _) => Wanted::Matching(pattern.clone()),
                (None, Some(revision)) => Wanted::Revision(*revision),
                (None, None) => Wanted::Newest,
            };
            recover(store, output, &wanted, &order(writer)?)
        }
        State::Adopt { writer } => {
            let outcome = store.adopt(&order(writer)?)?;
            show_outcome(output, outcome, "State adopted")
        }
        State::Migrate { writer } => migrate(store, output, &order(writer)?),
        State::History => reports::history(store, output),
        State::Diff { old, new } => {
            show_changes(output, &store.report().differences(old.as_deref(), new.as_deref())?)?;
            Ok(ExitCode::Success)
        }
        State::Edit { writer } => edit::run(store, output, &order(writer)?),
        // no output
        State::Wait { filter, timeout, program, print: _ } => {
            follow::wait(store, output, filter, program, *timeout)
        }
        State::Watch { filter, program, print } => {
            follow::watch(store, output, filter, program, print)
        }
        State::Status(watched) => status::status(store, *watched, output),
    }
}

// ---- changing ----

/// A document to write, migrated to the present schema, with a warning unless that is intended.
fn in_todays_form(value: Value, is_meant: bool, output: &Output<'_>) -> Result<Value> {
    if rules::check(&value).is_empty() {
        return Ok(value);
    }
    let migrated =
        migrate::to_current(&value).map_err(|too_new| newer_schema("the input", &too_new))?;
    if let Some(from) =
        migrated.from.filter(|_| !is_meant && rules::check(&migrated.value).is_empty())
    {
        let version = schema::current().version;
        output.warning(&format!(
            "the document was written in schema {version}; the input has an older form ({from})"
        ));
    }
    Ok(migrated.value)
}

struct Assignment {
    argument: String,
    path: DocPath,
    value: Value,
}

impl Assignment {
    fn parse(assignment: &str) -> Result<Self> {
        let unfit = |error| path_error(assignment, error);
        let (path, rest) = DocPath::parse_target(assignment).map_err(unfit)?;
        path.check_settable().map_err(unfit)?;
        if let Some(json) = rest.strip_prefix(":=") {
            let value = inline_json(&path.to_string(), json).map_err(|error| match error.kind {
                Kind::TooLarge => {
                    error.hint_command("state write -", "takes a document of any size up to 16 MiB")
                }
                _ => error.hint_command(
                    "state set --help",
                    "PATH=TEXT needs no quotes, PATH:=JSON does: '\"text\"'",
                ),
            })?;
            return Ok(Self { argument: assignment.to_owned(), value, path });
        }
        if let Some(text) = rest.strip_prefix('=') {
            return Ok(Self { argument: assignment.to_owned(), path, value: text.into() });
        }
        let what = if rest.is_empty() { "nothing".to_owned() } else { format!("{:?}", cut(rest)) };
        let shown = cut(assignment);
        Err(Error::new(
            Kind::Path,
            format!("{shown:?} is not an assignment: {what} follows the path {path}"),
        )
        .hint_command("state set --help", "PATH=TEXT sets a string, PATH:=JSON anything else"))
    }
}

struct Signal<'a> {
    name: &'a Name,
    phase: Option<&'a str>,
    metadata: Option<&'a Value>,
}

impl Signal<'_> {
    fn set(&self, mut draft: NewDocument, disk: &Disk) -> Result<Proposal> {
        let value = draft.root_mut();
        if let Some(phase) = self.phase {
            put(value, "phase", phase.into());
        }
        let metadata = self.metadata.cloned().unwrap_or_else(|| json!({}));
        let signals = vec![SignalFile::give(value, self.name, &metadata, disk.now())?];
        Ok(Proposal { draft, signals: Signals::These(signals) })
    }

    fn clear(&self, mut draft: NewDocument) -> Proposal {
        let value = draft.root_mut();
        if let Some(signals) = value.get_mut("signals").and_then(Value::as_object_mut) {
            signals.shift_remove(self.name.as_str());
        }
        if value.get("lastSignal").and_then(Value::as_str) == Some(self.name.as_str()) {
            put(value, "lastSignal", Value::Null);
        }
        if let Some(phase) = self.phase {
            put(value, "phase", phase.into());
        }
        let file = SignalFile { name: self.name.clone(), content: None };
        Proposal { draft, signals: Signals::These(vec![file]) }
    }
}

fn put(value: &mut Value, field: &str, new: Value) {
    if let Some(fields) = value.as_object_mut() {
        fields.insert(field.to_owned(), new);
    }
}

fn one_word<'a>(what: &str, word: &'a str) -> Result<&'a str> {
    if word.trim().is_empty() {
        return Err(Error::new(Kind::InvalidName, format!("an empty text is not a valid {what}"))
            .hint_text(format!(
                "a name in its place; an unset variable is an empty text: \"${{{what}:?}}\""
            )));
    }
    Ok(word)
}

// ---- reading ----

fn get(store: &Store, output: &Output<'_>, args: &args::Get) -> Run {
    let (default, exit_status) = (args.default.as_deref(), args.exit_status);
    let query = Query::parse(&args.filter, &args.program)?;
    let mut results = query.run(&store.read()?.value)?;
    if results.iter().all(Value::is_null) {
        if default.is_none() {
            return Ok(ExitCode::General);
        }
        results.resize(results.len().max(1), Value::Null);
    }
    let instead = default.map(|default| match output.is_json() {
        true => text::parse(default.as_bytes()).unwrap_or_else(|_| default.into()).to_string(),
        false => default.to_owned(),
    });
    let line = |result: &Value| match (result, &instead) {
        (Value::Null, Some(instead)) => format!("{instead}\n"),
        (Value::String(text), _) if args.print.raw || !output.is_json() => format!("{text}\n"),
        (other, _) => json_text(format!("{other}\n")),
    };
    output.bytes(results.iter().map(line).collect::<String>().as_bytes())?;
    let no = match results.last() {
        Some(Value::Bool(false)) => exit_status,
        Some(Value::Null) => exit_status && default.is_none(),
        _ => false,
    };
    Ok(if no { ExitCode::General } else { ExitCode::Success })
}

/// Asks before it archives a readable state; without a terminal it requires `--yes`.
fn check_fresh(store: &Store, yes: bool) -> Result<()> {
    let Some(served) = store.lineages().served().filter(|_| !yes) else { return Ok(()) };
    let what =
        format!("{} is {served}, and --fresh archives it with its history", store.path().display());
    if !ask::is_possible() {
        return Err(Error::new(Kind::Usage, format!("{what}; nothing was changed"))
            .hint_command("state init --fresh --yes", "archive it and start a new one")
            .hint_command("state init", "keep it; heals and migrates where that is needed"));
    }
    if ask::ask(&format!("{what}. Start a new one?")) {
        return Ok(());
    }
    Err(Error::new(Kind::Cancelled, "the answer was no; nothing was changed")
        .hint_command("state init", "keep it; heals and migrates where that is needed"))
}

fn init(store: &Store, output: &Output<'_>, beginning: InitMode) -> Run {
    let archives =
        if beginning == InitMode::Fresh { store.lineages().archives() } else { Vec::new() };
    let initialized = store.init(beginning, &WriteOptions::of("init"))?;
    store.logs().make_error_log();
    let archive = (beginning == InitMode::Fresh)
        .then(|| store.lineages().newest_archive_except(&archives))
        .flatten();
    let (archive, archived_state) =
        archive.map_or((None, None), |(archive, state)| (Some(archive), state));
    let (path, done) = (store.path().display().to_string(), initialized.done);
    let facts = json!({
        "path": path, "revision": initialized.revision.get(), "created": done == Done::Created,
        "done": done.words(), "archive": archive.as_ref().map(|path| path.display().to_string()),
        "archived_state": archived_state.as_ref().map(|path| path.display().to_string()),
    });
    let mut lines =
        vec![format!("State {}: {path} (revision {})", done.words(), initialized.revision)];
    lines.extend(
        archive.map(|archive| format!("The history before it is kept in {}", archive.display())),
    );
    lines.extend(archived_state.map(|state| {
        let (kept, place) = (quote_path(&state), quote_path(&store.path()));
        let is_a_state = input(&state).is_ok_and(|bytes| validate_input(&bytes).error.is_none());
        let way_back = match is_a_state {
            true => Hint::Command(format!("state write --force {kept}"), String::new()),
            // it was damaged, or of another program
            false => Hint::Shell(format!("cp {kept} {place}"), String::new()),
        };
        format!("The way back: {}", output.command(&way_back))
    }));
    output.confirm_in_lines(&lines.iter().map(String::as_str).collect::<Vec<_>>(), &facts);
    Ok(ExitCode::Success)
}

fn migrate(store: &Store, output: &Output<'_>, order: &WriteOptions) -> Run {
    match store.seal_as_it_is(order)? {
        Outcome::Committed { revision, migrated_from: Some(from) } => {
            let facts = json!({"from": from.to_string(), "to": schema::current().version, "revision": revision.get()});
            output.confirm(
                &format!("State migrated: {from} -> {}", schema::current().version),
                &facts,
            );
        }
        Outcome::Committed { revision, .. } | Outcome::Unchanged { revision } => {
            let facts =
                json!({"from": null, "to": schema::current().version, "revision": revision.get()});
            output.confirm(
                &format!("State is already at schema {}", schema::current().version),
                &facts,
            );
        }
        Outcome::Planned(_) => {
            let from = store.report().pending_migration()?.map(|from| from.to_string());
            let text = match &from {
                Some(from) => {
                    format!("State would be migrated: {from} -> {}", schema::current().version)
                }
                None => format!("State is already at schema {}", schema::current().version),
            };
            output.confirm(&text, &json!({"from": from, "to": schema::current().version}));
        }
    }
    Ok(ExitCode::Success)
}

fn recover(store: &Store, output: &Output<'_>, wanted: &Wanted, order: &WriteOptions) -> Run {
    if order.mode == Mode::DryRun {
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
    match store.recover(wanted, order)? {
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
            let facts = json!({"recovered": false, "preMigration": pre_migration});
            output.confirm_in_lines(&lines.collect::<Vec<_>>(), &facts);
        }
    }
    Ok(ExitCode::Success)
}
