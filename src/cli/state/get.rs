//! `state get`: the results of a filter.

use serde_json::Value;

use super::Run;
use crate::cli::args::state::Get;
use crate::cli::input::Query;
use crate::cli::output::Output;
use crate::document::json as text;
use crate::error::ExitCode;
use crate::printable::json_text;
use crate::store::Store;

pub(super) fn run(args: &Get, store: &Store, output: &Output<'_>) -> Run {
    let answer = get(args, store, output)?;
    Ok(if args.exit_zero { ExitCode::Success } else { answer })
}

pub(super) fn get(args: &Get, store: &Store, output: &Output<'_>) -> Run {
    let default = args.default.as_deref();
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
        Some(Value::Bool(false)) => args.exit_status,
        Some(Value::Null) => args.exit_status && default.is_none(),
        _ => false,
    };
    Ok(if no { ExitCode::General } else { ExitCode::Success })
}
