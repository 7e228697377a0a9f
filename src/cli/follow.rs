//! `state wait` and `state watch`: woken by the events of the file's directory.
//!
//! After the first successful read both survive saves, checkouts and deployments of the file: it
//! may be absent for a moment, damaged or edited, or the whole root may be replaced.

use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::args::state::{Print, Program};
use super::input::Query;
use super::output::{Output, PipeClosed};
use super::wakeups::Wakeups;
use crate::document::lazy::LazyDocument;
use crate::error::{Error, ExitCode, Kind, Result};
use crate::fs::watch::OutputReader;
use crate::fs::watch::places::{DirWatch, WatchedDir};
use crate::os::process::Ends;
use crate::store::Store;
#[cfg(feature = "etcd")]
use crate::store::remote::KeyWatch;

/// Reads the document each time it may have changed.
struct Follower<'a> {
    store: &'a Store,
    output: &'a Output<'a>,
    wakeups: Box<dyn Wakeups + 'a>,
    /// Set after the first successful read; until then an error ends the command.
    was_read: bool,
    /// The reported error that it waits out.
    outlasted: Option<Kind>,
    /// The warnings of the last read.
    warned: Vec<String>,
}

impl<'a> Follower<'a> {
    fn new(store: &'a Store, output: &'a Output<'a>) -> Self {
        Self {
            store,
            output,
            wakeups: wakeups(store),
            was_read: false,
            outlasted: None,
            warned: Vec::new(),
        }
    }

    /// The document; `None` while an error is waited out.
    fn read(&mut self) -> Result<Option<LazyDocument>> {
        self.wakeups.renew();
        let served = self.store.read();
        let warnings = self.store.take_warnings();
        for warning in warnings.iter().filter(|warning| !self.warned.contains(warning)) {
            self.output.warning(warning);
        }
        self.warned = warnings;
        match served {
            Ok(served) => {
                self.was_read = true;
                self.outlasted = None;
                Ok(Some(served.value))
            }
            Err(error) if self.was_read && is_outlasted(error.kind) => {
                if self.outlasted.replace(error.kind) != Some(error.kind) {
                    self.output.warning(&format!("{}; waiting for it", error.message));
                }
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// What wakes a command that waits for the document to change.
fn wakeups(store: &Store) -> Box<dyn Wakeups + '_> {
    match store {
        Store::Files(store) => {
            let settings = store.settings();
            let (dir, names) = (settings.directory.clone(), vec![settings.file_name.clone()]);
            Box::new(DirWatch::new(vec![WatchedDir { dir, names }]))
        }
        #[cfg(feature = "etcd")]
        Store::Remote(store) => Box::new(KeyWatch::of_document(store)),
    }
}

/// True if the error passes when an absent, damaged or edited state comes back.
fn is_outlasted(kind: Kind) -> bool {
    match kind {
        Kind::NotInitialized
        | Kind::Missing
        | Kind::Corrupt
        | Kind::NothingToRestore
        | Kind::ForeignEdit => true,
        Kind::DependencyMissing => true, // the root itself
        _ => false,
    }
}

/// Returns once the last result of `filter` is neither false nor null.
pub fn wait(
    store: &Store,
    output: &Output<'_>,
    filter: &str,
    program: &Program,
    timeout: Option<Duration>,
) -> anyhow::Result<ExitCode> {
    let query = Query::parse(filter, program)?;
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let left = || deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
    let mut follower = Follower::new(store, output);
    loop {
        let results =
            follower.read()?.map_or_else(|| Ok(Vec::new()), |document| query.run(&document))?;
        if results.last().is_some_and(|last| !matches!(last, Value::Null | Value::Bool(false))) {
            return Ok(ExitCode::Success);
        }
        if left().is_some_and(|left| left.is_zero()) {
            let waited = timeout.unwrap_or_default().as_secs_f64();
            let message = format!("{filter:?} did not become true within {waited} s");
            return Err(Error::new(Kind::WaitTimeout, message)
                .hint_command("state watch", "see what happens meanwhile")
                .into());
        }
        follower.wakeups.wait(None, &Ends::default(), left());
    }
}

/// Prints the results of `filter` on each revision as a line of JSON, the present one first.
pub fn watch(
    store: &Store,
    output: &Output<'_>,
    filter: &str,
    program: &Program,
    print: &Print,
) -> anyhow::Result<ExitCode> {
    let query = Query::parse(filter, program)?;
    let mut follower = Follower::new(store, output);
    let mut seen: Option<u64> = None;
    loop {
        if let Some(document) = follower.read()? {
            let revision = document
                .skeleton()
                .pointer("/metadata/revision")
                .and_then(Value::as_u64)
                .unwrap_or(0);
            if seen != Some(revision) {
                // Backups still hold revisions that were committed between two reads, up to their
                // limit.
                let missed = seen.map_or_else(
                    || Ok(Vec::new()),
                    |seen| store.report().between(seen, revision),
                )?;
                for document in missed.into_iter().chain([document]) {
                    for result in query.run(&document)? {
                        match result {
                            Value::String(text) if print.raw => output.line(&text)?,
                            other => output.json(&other)?,
                        }
                    }
                }
                seen = Some(revision);
            }
        }
        if follower.wakeups.wait(Some(std::io::stdout().as_fd()), &Ends::default(), None)
            == OutputReader::Gone
        {
            return Err(PipeClosed.into());
        }
    }
}
