//! `state phase`: shows the phase, or sets it.

use super::{Run, get, non_empty, put, write_options};
use crate::cli::args::state::{Get, Phase};
use crate::cli::output::Output;
use crate::cli::write_command::change;
use crate::document::new_document::NewDocument;
use crate::store::Store;

pub(super) fn run(args: &Phase, store: &Store, output: &Output<'_>) -> Run {
    let Some(name) = &args.name else {
        return get::get(&Get { filter: ".phase".to_owned(), ..Get::default() }, store, output);
    };
    let name = non_empty("phase", name)?;
    let options = write_options("phase", &args.writer)?;
    change(store, output, &options, "State updated", &mut |base| {
        let mut draft = NewDocument::edit(&base.value, []);
        put(draft.root_mut(), "phase", name.into());
        Ok(draft.into())
    })
}
