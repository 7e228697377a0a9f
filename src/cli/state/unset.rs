//! `state unset`: removes values by path.

use std::collections::BTreeMap;

use super::{Run, write_options};
use crate::cli::args::state::Unset;
use crate::cli::input::path_error;
use crate::cli::output::Output;
use crate::cli::write_command::change;
use crate::document::new_document::NewDocument;
use crate::document::path::{DocPath, PathError};
use crate::error::Result;
use crate::store::Store;
use crate::store::change::Proposal;
use crate::store::signal::Signals;

pub(super) fn run(args: &Unset, store: &Store, output: &Output<'_>) -> Run {
    let paths = args.paths.iter().map(|text| parse(text)).collect::<Result<Vec<_>>>()?;
    let options = write_options("unset", &args.writer)?;
    change(store, output, &options, "State updated", &mut |base| {
        let fields = paths.iter().filter_map(|(_, path)| path.field());
        let mut draft = NewDocument::edit(&base.value, fields);
        // The last element of an array goes first, so that the others keep their places until
        // then.
        let mut places = BTreeMap::new();
        for (argument, path) in &paths {
            places.insert(path.resolved(draft.root_mut()), argument);
        }
        for (path, argument) in places.into_iter().rev() {
            path.unset(draft.root_mut()).map_err(|error| path_error(argument, error))?;
        }
        let has_signals = paths.iter().any(|(_, path)| path.field() == Some("signals"));
        let signals = if has_signals { Signals::Follow } else { Signals::STAY };
        Ok(Proposal { signals, ..draft.into() })
    })
}

fn parse(text: &str) -> Result<(String, DocPath)> {
    let unfit = |error| path_error(text, error);
    let (path, rest) = DocPath::parse_target(text).map_err(unfit)?;
    if !rest.is_empty() {
        let column = text.chars().count() - rest.chars().count() + 1;
        return Err(unfit(PathError::Syntax(column, "the end of the path")));
    }
    path.check_settable().map_err(unfit)?;
    Ok((text.to_owned(), path))
}
