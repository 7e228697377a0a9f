//! `state status`: health, phase and blocking locks; below that, all paths.

use std::time::SystemTime;

use super::args::Watched;
use super::moment::Moment;
use super::open;
use super::output::Output;
use super::reports::{shared_file_system, size, unconfirmed_flushes, who};
use super::status_view::{self, StatusView, lines};
use super::style::Paint;
use super::table::terminal_width;
use super::wakeups::Wakeups;
use super::width::cut;
use crate::audit::ErrorLog;
use crate::config::Config;
use crate::error::{Error, ExitCode, Kind, one_line};
use crate::fs::watch::places::{DirWatch, WatchedDir};
use crate::plural::count;
use crate::store::diagnosis::Mirror;
use crate::store::layout::SIDE_DIRECTORIES;
#[cfg(feature = "etcd")]
use crate::store::remote::KeyWatch;
use crate::store::report::Status;
use crate::store::{FileStore, Store};

/// The most findings that are named.
const MOST_FINDINGS: usize = 10;

pub(super) fn status(
    config: &Config,
    store: &Store,
    watched: Watched,
    output: &Output<'_>,
) -> anyhow::Result<ExitCode> {
    status_view::show(output, watched.watch.then(|| wakeups(store)), &mut || {
        look(config, store, output)
    })?;
    Ok(ExitCode::Success)
}

/// What wakes it when something that it shows changes.
fn wakeups(store: &Store) -> Box<dyn Wakeups + '_> {
    match store {
        Store::Files(store) => Box::new(DirWatch::new(places(store))),
        #[cfg(feature = "etcd")]
        Store::Remote(store) => Box::new(KeyWatch::of_all(store)),
    }
}

fn places(store: &FileStore) -> Vec<WatchedDir> {
    let settings = store.settings();
    let dir = settings.directory.clone();
    let inside = SIDE_DIRECTORIES.map(|name| WatchedDir { dir: dir.join(name), names: Vec::new() });
    let mut names: Vec<_> =
        SIDE_DIRECTORIES.into_iter().chain([ErrorLog::NAME]).map(Into::into).collect();
    names.push(settings.file_name.clone());
    std::iter::once(WatchedDir { dir, names }).chain(inside).collect()
}

fn look(config: &Config, store: &Store, output: &Output<'_>) -> anyhow::Result<StatusView> {
    let (mut status, error) = store.report().status()?;
    if store.as_files().is_none() {
        match open::lock_summary(config, store) {
            Ok(locks) => status.locks = locks,
            // What answered is a member, with all that it has; it is counted without the holders.
            Err(error) if error.kind == Kind::Unreachable => {}
            Err(error) => return Err(error.into()),
        }
    }
    let now = store.now();
    let text = [
        lines(&at_a_glance(&status, error.as_ref(), now, output)),
        status_view::holders(output, &status.locks, now),
        last_events(&status, now),
        "\n".to_owned(),
        lines(&where_things_are(&status, error.as_ref(), now)),
    ];
    let mut warnings = store.take_warnings();
    warnings.extend(crate::os::WARNING.map(str::to_owned));
    warnings.extend(status.locks.shared_file_system.then(|| shared_file_system(&status.locks)));
    warnings.extend(unconfirmed_flushes(&status.locks));
    Ok(StatusView {
        text: text.concat(),
        facts: serde_json::json!(status),
        warnings,
        error,
        processes: status_view::processes(&status.locks),
        is_passing: status.state_lock.is_some(),
    })
}

/// The fate of an interrupted restore: the next command finishes it, or an obstacle prevents that.
pub(super) fn what_follows(obstacle: Option<&str>) -> String {
    match obstacle {
        None => "the next command that reads or writes finishes it".to_owned(),
        Some(why) => format!("it cannot be finished: {why}; next: recover restore --abort"),
    }
}

/// The last events, newest first.
fn last_events(status: &Status, now: SystemTime) -> String {
    let mut text = String::new();
    for event in status.events.iter().rev() {
        let when = Moment::from(event.time.as_str()).past(now);
        let line = one_line(&format!("{when}  {}  {}", who(&event.owner), event.text));
        let room = terminal_width().map_or(usize::MAX, |room| room.saturating_sub(2));
        text.push_str(&format!("  {}\n", cut(&line, room)));
    }
    if text.is_empty() { text } else { format!("\nLast events\n{text}") }
}

type Lines = Vec<(&'static str, String)>;

fn at_a_glance(
    status: &Status,
    error: Option<&Error>,
    now: SystemTime,
    output: &Output<'_>,
) -> Lines {
    let verdict = if error.is_none() { Paint::Green } else { Paint::Red };
    let revision = status
        .document
        .revision
        .map_or_else(String::new, |revision| format!(", revision {revision}"));
    let mut lines =
        vec![("State", output.paint(status.document.health.name(), verdict) + &revision)];
    for finding in status.document.findings.iter().take(MOST_FINDINGS) {
        // The document's own error is reported already.
        let text = match finding.is_of_document() {
            true => finding.problem.clone(),
            false => finding.to_string(),
        };
        lines.push(("", one_line(&text)));
    }
    if let Some(why) = &status.write_obstacle {
        let how = output.paint("no", Paint::Red);
        lines.push(("Writable", format!("{how}: {}", one_line(why))));
    }
    if let Some(id) = &status.interrupted_restore {
        let how = output.paint("interrupted", Paint::Yellow);
        lines.push((
            "Restore",
            one_line(&format!(
                "of {id} was {how}; {}",
                what_follows(status.restore_obstacle.as_deref())
            )),
        ));
    }
    if status.document.degraded {
        let how = output.paint("yes", Paint::Yellow);
        lines.push(("Degraded", format!("{how} (`recover status` says why and since when)")));
    }
    if let Some(phase) = &status.document.phase {
        lines.push(("Phase", one_line(phase)));
        lines
            .push(("Tasks", format!("{} completed", status.document.completed_tasks.unwrap_or(0))));
        let last = status
            .document
            .last_signal
            .as_ref()
            .map_or_else(String::new, |last| format!(", last {last}"));
        lines.push((
            "Signals",
            format!("{}{}", status.document.signals.unwrap_or(0), one_line(&last)),
        ));
    }
    if let Some(time) = &status.document.last_modified {
        lines.push((
            "Changed",
            one_line(&format!("{time}{}", Moment::from(time.as_str()).ago(now))),
        ));
    }
    let locks = &status.locks;
    let mut counts = format!("{} held, {} waiting", locks.held, locks.waiting);
    for (count, what) in [(locks.stale, "stale"), (locks.unknown, "unknown")] {
        if count > 0 {
            counts.push_str(&format!(", {count} {}", output.paint(what, Paint::Red)));
        }
    }
    let writer =
        status.state_lock.as_ref().map(|holder| one_line(&format!("; the state: {holder}")));
    lines.push(("Locks", counts + &writer.unwrap_or_default()));
    lines.extend(status.guards.iter().filter_map(|guard| {
        let problem = output.paint(&one_line(&guard.problem()?), Paint::Yellow);
        Some(("Guard", problem.to_string()))
    }));
    lines
}

fn where_things_are(status: &Status, error: Option<&Error>, now: SystemTime) -> Lines {
    let bytes = status.bytes.map_or_else(String::new, |bytes| {
        let mode = status.mode.as_ref().map_or_else(String::new, |mode| format!(", mode {mode}"));
        format!(" ({}{mode})", size(bytes))
    });
    let mirror = status.mirror.map(|mirror| match mirror {
        Mirror::Same => "up to date",
        Mirror::Absent if error.is_some() => "none",
        _ if error.is_some() => "kept as it is, for recovery",
        Mirror::Absent => "absent; the next write creates it",
        Mirror::Differs => "differs; the next write replaces it",
    });
    let backups = &status.backups;
    let newest = backups
        .newest
        .as_ref()
        .map_or_else(String::new, |newest| format!("; newest {}", Moment::from(*newest).past(now)));
    let what = if mirror.is_some() { "File" } else { "Store" };
    let mut lines = vec![(what, one_line(&format!("{}{bytes}", status.path)))];
    lines.extend(mirror.map(|mirror| ("Mirror", mirror.to_owned())));
    lines.push((
        "Backups",
        format!("{} automatic, {} pinned{newest}", backups.automatic, backups.pinned),
    ));
    if backups.evidence > 0 {
        lines.push(("Evidence", format!("{} kept", count(backups.evidence, "damaged file"))));
    }
    lines.push(("Checkpoints", status.checkpoints.to_string()));
    if let Some(free) = status.disk_free {
        lines.push(("Disk left", size(free)));
    }
    lines.push(("Audit log", one_line(&status.audit_log)));
    lines
}
