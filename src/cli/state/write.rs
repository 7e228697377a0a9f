//! `state write`: a whole document.

use serde_json::Value;

use super::{Run, write_options};
use crate::cli::args::state::WriteDocument;
use crate::cli::input::{input, parse_document};
use crate::cli::output::Output;
use crate::cli::write_command::{change, check_claim};
use crate::document::{migrate, rules, schema};
use crate::error::Result;
use crate::store::Store;
use crate::store::change::{Claim, Proposal};
use crate::store::diagnosis::newer_schema;
use crate::store::signal::Signals;

pub(super) fn run(args: &WriteDocument, store: &Store, output: &Output<'_>) -> Run {
    let bytes = input(&args.file)?;
    let value = parse_document(&bytes)?;
    let claim = Claim::of(&value);
    let value = in_current_form(value, args.migrate, output)?;
    let options = write_options("write", &args.writer)?;
    change(store, output, &options, "State written", &mut |base| {
        if !args.force {
            check_claim(&claim, base)?;
        }
        Ok(Proposal { signals: Signals::Follow, ..value.clone().into() })
    })
}

/// A document to write, migrated to the present schema, with a warning unless that is intended.
fn in_current_form(value: Value, is_meant: bool, output: &Output<'_>) -> Result<Value> {
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
