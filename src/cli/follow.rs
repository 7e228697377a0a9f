//! `state wait` and `state watch`: woken by the events of the file's directory.

use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::input::Query;
use super::output::{Output, PipeClosed};
use crate::error::{Error, ExitCode, Kind};
use crate::fs::watch::{Audience, Watch};
use crate::store::Store;

fn watch_of(store: &Store) -> Watch {
    let settings = store.settings();
    Watch::new(&settings.directory, &settings.file_name)
}

/// Returns once the last result of `filter` is neither false nor null.
pub fn wait(store: &Store, filter: &str, timeout: Option<Duration>) -> anyhow::Result<ExitCode> {
    let query = Query::parse(filter)?;
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let mut watch = watch_of(store);
    loop {
        let results = query.run(&store.read()?.value)?;
        if results.last().is_some_and(|last| !matches!(last, Value::Null | Value::Bool(false))) {
            return Ok(ExitCode::Success);
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            let waited = timeout.unwrap_or_default().as_secs_f64();
            let message = format!("{filter:?} did not become true within {waited} s");
            return Err(Error::new(Kind::WaitTimeout, message)
                .try_command("state watch", "see what happens meanwhile")
                .into());
        }
        watch.wait(deadline);
    }
}

/// Prints the results of `filter` on each revision as a line of JSON, the present one first.
pub fn watch(store: &Store, output: &Output<'_>, filter: &str) -> anyhow::Result<ExitCode> {
    let query = Query::parse(filter)?;
    let mut watch = watch_of(store);
    let mut seen: Option<u64> = None;
    loop {
        let document = store.read()?.value;
        for warning in store.take_warnings() {
            output.warning(&warning);
        }
        let revision = document.outline().pointer("/metadata/revision").and_then(Value::as_u64).unwrap_or(0);
        if seen != Some(revision) {
            // Commits that came faster than we looked are still on the shelf, as far as it reaches.
            let missed = seen.map_or_else(Vec::new, |seen| store.between(seen, revision));
            for document in missed.into_iter().map(|(_, document)| document).chain([document]) {
                for result in query.run(&document)? {
                    output.json(&result)?;
                }
            }
            seen = Some(revision);
        }
        if watch.wait_while_read(std::io::stdout().as_fd()) == Audience::Gone {
            return Err(PipeClosed.into());
        }
    }
}
