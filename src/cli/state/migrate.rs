//! `state migrate`: seals the document in the current form.

use serde_json::json;

use super::{Run, write_options};
use crate::cli::args::Writer;
use crate::cli::output::Output;
use crate::document::schema;
use crate::error::ExitCode;
use crate::store::Store;
use crate::store::change::Outcome;

pub(super) fn run(writer: &Writer, store: &Store, output: &Output<'_>) -> Run {
    match store.seal_as_it_is(&write_options("migrate", writer)?)? {
        Outcome::Committed { revision, migrated_from: Some(from) } => {
            let facts = json!({"from": from.to_string(), "to": schema::current().version,
                "revision": revision.get()});
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
