//! `state set`: sets values by path.

use serde_json::Value;

use super::{Run, write_options};
use crate::cli::args::state::Set;
use crate::cli::input::{cut, inline_json, path_error};
use crate::cli::output::Output;
use crate::cli::write_command::change;
use crate::document::new_document::NewDocument;
use crate::document::path::DocPath;
use crate::error::{Error, Kind, Result, quote};
use crate::store::Store;

pub(super) fn run(args: &Set, store: &Store, output: &Output<'_>) -> Run {
    let assignments = args.assignments.iter().map(|text| Assignment::parse(text));
    let assignments = assignments.collect::<Result<Vec<_>>>().map_err(|error| {
        match meant(&args.assignments) {
            Some(line) => error.did_you_mean(line),
            None => error,
        }
    })?;
    let options = write_options("set", &args.writer)?;
    change(store, output, &options, "State updated", &mut |base| {
        let fields = assignments.iter().filter_map(|assignment| assignment.path.field());
        let mut draft = NewDocument::edit(&base.value, fields);
        for assignment in &assignments {
            let set = assignment.path.set(draft.root_mut(), assignment.value.clone());
            set.map_err(|error| path_error(&assignment.argument, error))?;
        }
        Ok(draft.into())
    })
}

/// The line with `=` between each path and its value, for `set PATH VALUE`.
fn meant(words: &[String]) -> Option<String> {
    let is_pairs = words.len().is_multiple_of(2) && words.iter().all(|word| !word.contains('='));
    let pairs = words.chunks_exact(2).map(|pair| format!(" {}", quote(&pair.join("="))));
    is_pairs.then(|| format!("state set{}", pairs.collect::<String>()))
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
        let shown = cut(assignment);
        let message = match rest {
            "" => format!("{shown:?} has no value: write {shown}=VALUE"),
            _ => format!("{shown:?} is not an assignment: {:?} follows the path {path}", cut(rest)),
        };
        Err(Error::new(Kind::Path, message)
            .hint_command("state set --help", "PATH=TEXT sets a string, PATH:=JSON anything else"))
    }
}
