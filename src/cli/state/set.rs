//! `state set`: sets values by path.

use serde_json::Value;

use super::{Run, write_options};
use crate::cli::args::state::Set;
use crate::cli::input::{cut, inline_json, path_error};
use crate::cli::output::Output;
use crate::cli::write_command::change;
use crate::document::new_document::NewDocument;
use crate::document::path::DocPath;
use crate::error::{Error, Kind, Result};
use crate::store::Store;

pub(super) fn run(args: &Set, store: &Store, output: &Output<'_>) -> Run {
    let assignments =
        args.assignments.iter().map(|text| Assignment::parse(text)).collect::<Result<Vec<_>>>()?;
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
