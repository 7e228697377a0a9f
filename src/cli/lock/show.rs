//! `lock list` and `lock status`.

use std::time::SystemTime;

use serde_json::{Value, json};

use crate::cli::args::Watched;
use crate::cli::moment::Moment;
use crate::cli::open;
use crate::cli::output::Output;
use crate::cli::reports::shared_file_system;
use crate::cli::status_view::{self, StatusView};
use crate::cli::style::Paint;
use crate::cli::table::{Cell, Column, Table, dash};
use crate::cli::wakeups::Wakeups;
use crate::config::Config;
use crate::error::one_line;
use crate::fs::Disk;
use crate::fs::watch::places::{DirWatch, WatchedDir};
use crate::lock::{EntryStatus, LOCKS, LockEntry, Locks, shorten};
use crate::store::Store;
#[cfg(feature = "etcd")]
use crate::store::remote::KeyWatch;

pub(super) fn list(
    entries: &[LockEntry],
    as_json: bool,
    output: &Output<'_>,
) -> anyhow::Result<()> {
    if as_json {
        return output.json(&json!(entries));
    }
    if entries.is_empty() {
        return output.line("no locks");
    }
    let now = SystemTime::now();
    let mut table = Table::new(&[
        Column::new("LOCK"),
        Column::new("TYPE").whole().light(1),
        Column::new("PID"),
        Column::new("COMMAND").light(1),
        Column::new("TOKEN").whole().light(1),
        Column::new("WAITER").whole().light(1),
        Column::new("SINCE").whole().light(1),
        Column::new("WAITING FOR"),
        Column::new("STATUS").whole(),
        Column::new("METADATA").spare(),
    ]);
    for entry in entries {
        let waiting_for: Vec<String> = entry.waiting_for.iter().map(u32::to_string).collect();
        let place =
            entry.namespace.as_ref().map_or_else(String::new, |place| format!(" in {place}"));
        let text = |text: Option<String>| Cell::from(dash(text));
        let began = Moment::from(entry.since.as_str());
        let since = format!("{}{}", began.to_second(), began.ago(now));
        table.row([
            text(Some(entry.lock.clone())),
            entry.mode.name().into(),
            text(entry.pid().map(|pid| format!("{pid}{place}"))),
            text(Some(shorten(&entry.command)).filter(|command| !command.is_empty())),
            dash(entry.token).into(),
            text(entry.waiter.clone()),
            if entry.since.is_empty() { "-".into() } else { Cell::or(since, began.age(now)) },
            text(Some(waiting_for.join(",")).filter(|pids| !pids.is_empty())),
            Cell::painted(entry.status.name(), colour(entry.status)),
            text(entry.metadata.as_ref().map(Value::to_string)),
        ]);
    }
    output.table(table)
}

/// The status of a lock, in colour where it needs attention.
fn colour(status: EntryStatus) -> Option<Paint> {
    match status {
        EntryStatus::Held => None,
        EntryStatus::Waiting => Some(Paint::Yellow),
        _ => Some(Paint::Red),
    }
}

pub(super) fn status(
    locks: &Locks,
    watched: Watched,
    config: &Config,
    output: &Output<'_>,
) -> anyhow::Result<()> {
    let store = open::store(config, Disk::real())?;
    let wakeups = || -> Box<dyn Wakeups + '_> {
        match &store {
            Store::Files(files) => {
                let dir = files.settings().directory.clone();
                let locks = WatchedDir { dir: dir.join(LOCKS), names: Vec::new() };
                let root = WatchedDir { dir, names: vec![LOCKS.into()] };
                Box::new(DirWatch::new(vec![root, locks]))
            }
            #[cfg(feature = "etcd")]
            Store::Remote(store) => Box::new(KeyWatch::of_all(store)),
        }
    };
    status_view::show(output, watched.watch.then(wakeups), &mut || look(locks, output))
}

fn look(locks: &Locks, output: &Output<'_>) -> anyhow::Result<StatusView> {
    let summary = locks.summary()?;
    let count = |count: usize, colour, hint: &str| match count {
        0 => "0".to_owned(),
        _ if hint.is_empty() => output.paint(&count.to_string(), colour),
        _ => format!("{}   ({hint})", output.paint(&count.to_string(), colour)),
    };
    let mut text = status_view::lines(&[
        ("Held", summary.held.to_string()),
        ("Waiting", count(summary.waiting, Paint::Yellow, "")),
        ("Stale", count(summary.stale, Paint::Red, "the next request or `lock clean` drops them")),
        ("Unknown", count(summary.unknown, Paint::Red, "see `lock list`; `lock break` frees them")),
        ("In", one_line(&format!("{} ({})", summary.directory, summary.file_system))),
    ]);
    let holders = status_view::holders(output, &summary, SystemTime::now());
    if !holders.is_empty() {
        text.push_str(&format!("\n{holders}"));
    }
    let mut warnings = locks.take_warnings();
    warnings.extend(summary.shared_file_system.then(|| shared_file_system(&summary)));
    Ok(StatusView {
        text,
        facts: json!(summary),
        warnings,
        processes: status_view::processes(&summary),
        ..StatusView::default()
    })
}
