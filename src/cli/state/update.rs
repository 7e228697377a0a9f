//! `state update`: the document that a jq program makes.

use super::{Run, write_options};
use crate::cli::args::state::Update;
use crate::cli::input::{compile, only_object};
use crate::cli::output::Output;
use crate::cli::write_command::change;
use crate::store::Store;

pub(super) fn run(args: &Update, store: &Store, output: &Output<'_>) -> Run {
    let filter = compile(&args.filter, &args.program)?;
    let options = write_options("update", &args.writer)?;
    change(store, output, &options, "State updated", &mut |base| {
        Ok(only_object(&filter, &base.value)?.into())
    })
}
