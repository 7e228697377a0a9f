//! The `state` commands, a file for each that has more than a call: it parses its arguments, calls
//! the store once and shows the result.

mod complete;
mod get;
mod init;
mod migrate;
mod moving;
mod phase;
mod recover;
mod set;
mod signal;
mod undo;
mod unset;
mod update;
mod write;

use serde_json::{Value, json};

use super::args::Writer;
use super::args::state::{self as args, State};
use super::input::input;
use super::open;
use super::output::Output;
use super::write_command::{self, show_changes, show_outcome, with_store};
use super::{edit, follow, reports, status};
use crate::config::Config;
use crate::document::query::is_heavy;
use crate::error::{Error, ExitCode, Kind, Result};
use crate::fs::Disk;
use crate::name::Name;
use crate::store::options::WriteOptions;
use crate::store::report::validate_input;
use crate::store::{Store, Wanted};

type Run = anyhow::Result<ExitCode>;

/// Runs one `state` command.
pub fn run(command: &State, config: &Config, disk: Disk, output: &Output<'_>) -> Run {
    if let (State::Init { .. }, Some(root)) = (command, &config.found_above) {
        output
            .warning(&format!("using the state of {}; `--root .` makes one here", root.display()));
    }
    match command {
        State::Push(args) => moving::push(args, config, disk, output),
        State::Pull(args) => moving::pull(args, config, disk, output),
        _ => with_store(config, disk, output, action_of(command), |store| {
            dispatch(command, config, store, output)
        }),
    }
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

/// Returns whether a command changes the state. `recover`, which an operator needs at a bad moment,
/// does not count.
pub fn is_writer(command: &State) -> bool {
    action_of(command).is_some() && !matches!(command, State::Recover { .. })
}

/// The name a writer goes by in the audit log; readers have none.
fn action_of(command: &State) -> Option<&'static str> {
    Some(match command {
        State::Init { .. } => "state init",
        State::Set(_) => "state set",
        State::Update(_) => "state update",
        State::Write(_) => "state write",
        State::Phase(args::Phase { name: Some(_), .. }) => "state phase",
        State::Complete(_) => "state complete",
        State::Signal(_) => "state signal",
        State::Backup { .. } => "state backup",
        State::Recover { .. } => "state recover",
        State::Adopt { .. } => "state adopt",
        State::Migrate { .. } => "state migrate",
        State::Edit { .. } => "state edit",
        State::Undo { .. } => "state undo",
        State::Push(_) => "state push",
        State::Pull(_) => "state pull",
        State::Unset(_) => "state unset",
        _ => return None,
    })
}

fn write_options(action: &'static str, writer: &Writer) -> Result<WriteOptions> {
    write_command::write_options("state", action, writer)
}

fn dispatch(command: &State, config: &Config, store: &Store, output: &Output<'_>) -> Run {
    match command {
        State::Init { fresh, yes } => {
            open::exposure(config).iter().for_each(|warning| output.warning(warning));
            init::run(*fresh, *yes, store, output)
        }
        State::Read => read(store, output),
        State::Get(args) => get::run(args, store, output),
        State::Set(args) => set::run(args, store, output),
        State::Update(args) => update::run(args, store, output),
        State::Write(args) => write::run(args, store, output),
        State::Phase(args) => phase::run(args, store, output),
        State::Complete(args) => complete::run(args, store, output),
        State::Signal(args) => signal::run(args, store, output),
        State::Validate { file: Some(file) } => {
            reports::validate(output, validate_input(&input(file)?))
        }
        State::Validate { file: None } => reports::validate(output, store.report().validate()?),
        State::Backup { name } => backup(name.as_deref(), store, output),
        State::Backups => reports::backups(store, output),
        State::Recover { pattern, to_revision, writer } => {
            let wanted = match (pattern, to_revision) {
                (Some(pattern), _) => Wanted::named(pattern),
                (None, Some(revision)) => Wanted::Revision(*revision),
                (None, None) => Wanted::Newest,
            };
            recover::run(&wanted, &write_options("recover", writer)?, store, output)
        }
        State::Adopt { writer } => {
            show_outcome(output, store.adopt(&write_options("adopt", writer)?)?, "State adopted")
        }
        State::Migrate { writer } => migrate::run(writer, store, output),
        State::History(args) => reports::history(args, store, output),
        State::Undo { writer } => undo::run(writer, store, output),
        State::Unset(args) => unset::run(args, store, output),
        State::Diff { old, new } => {
            show_changes(output, &store.report().differences(old.as_deref(), new.as_deref())?)?;
            Ok(ExitCode::Success)
        }
        State::Edit { writer } => edit::run(store, output, &write_options("edit", writer)?),
        // no output
        State::Wait { filter, timeout, program, print: _ } => {
            follow::wait(store, output, filter, program, *timeout)
        }
        State::Watch { filter, program, print } => {
            follow::watch(store, output, filter, program, print)
        }
        State::Push(_) | State::Pull(_) => {
            Err(Error::new(Kind::Internal, "a move has two sides").into())
        }
        State::Status(watched) => status::status(config, store, *watched, output),
    }
}

fn read(store: &Store, output: &Output<'_>) -> Run {
    output.bytes(&store.read()?.bytes)?;
    Ok(ExitCode::Success)
}

fn backup(name: Option<&str>, store: &Store, output: &Output<'_>) -> Run {
    let name = name.map(|name| Name::parse("backup", name)).transpose()?;
    let path = store.backup(name.as_ref())?;
    output.confirm(&format!("Backup created: {path}"), &json!({ "file": path }));
    Ok(ExitCode::Success)
}

fn put(value: &mut Value, field: &str, new: Value) {
    if let Some(fields) = value.as_object_mut() {
        fields.insert(field.to_owned(), new);
    }
}

fn non_empty<'a>(what: &str, word: &'a str) -> Result<&'a str> {
    if word.trim().is_empty() {
        return Err(Error::new(Kind::InvalidName, format!("an empty text is not a valid {what}"))
            .hint_text(format!(
                "a name in its place; an unset variable is an empty text: \"${{{what}:?}}\""
            )));
    }
    Ok(word)
}
