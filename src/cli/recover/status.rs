//! `recover status` and `recover metrics`.

use std::ffi::OsString;

use serde_json::{Value, json};

use super::super::args::Watched;
use super::super::args::recover::Form;
use super::super::output::Output;
use super::super::reports::size;
use super::super::status::what_follows;
use super::super::status_view::{self, StatusView, lines};
use super::super::style::Paint;
use crate::audit::ErrorLog;
use crate::cli::open;
use crate::cli::wakeups::Wakeups;
use crate::config::Config;
use crate::error::{ExitCode, one_line};
use crate::fs::watch::places::{DirWatch, WatchedDir};
use crate::plural;
use crate::recovery::metrics::{Metrics, Waits, prometheus};
use crate::recovery::overview::{Overview, health_name};
use crate::store::diagnosis::HealthKind;
use crate::store::guard::OnRecord;
use crate::store::layout::{BACKUPS, CHECKPOINTS};
#[cfg(feature = "etcd")]
use crate::store::remote::KeyWatch;
use crate::store::{FileStore, Store};

pub(super) fn status(store: &Store, watched: Watched, output: &Output<'_>) -> anyhow::Result<()> {
    let wakeups = || -> Box<dyn Wakeups + '_> {
        match store {
            Store::Files(store) => Box::new(DirWatch::new(places(store))),
            #[cfg(feature = "etcd")]
            Store::Remote(store) => Box::new(KeyWatch::of_all(store)),
        }
    };
    let wakeups = watched.watch.then(wakeups);
    status_view::show(output, wakeups, &mut || look(store, output))
}

/// The directories that it shows.
fn places(store: &FileStore) -> Vec<WatchedDir> {
    let settings = store.settings();
    let mut names: Vec<OsString> =
        [ErrorLog::NAME, CHECKPOINTS, BACKUPS].map(OsString::from).into();
    names.push(settings.file_name.clone());
    let inside = |name| WatchedDir { dir: settings.directory.join(name), names: Vec::new() };
    vec![
        WatchedDir { dir: settings.directory.clone(), names },
        inside(CHECKPOINTS),
        inside(BACKUPS),
    ]
}

fn look(store: &Store, output: &Output<'_>) -> anyhow::Result<StatusView> {
    let overview = Overview::of(store)?;
    store.take_warnings(); // `doctor` reports them
    let next: Vec<String> = overview.next.iter().map(|hint| output.command(hint)).collect();
    let degraded = &overview.degraded;
    let mode = json!({
        "enabled": degraded.is_on, "reason": degraded.reason, "since": degraded.since_view(),
        "disabled_features": degraded.features,
    });
    let facts = status_view::with(&overview, &[("degraded", mode), ("next", json!(next))]);
    let verdict = match overview.health {
        Some(HealthKind::Healthy | HealthKind::Legacy) => Paint::Green,
        _ => Paint::Red,
    };
    let health = output.paint(health_name(overview.health), verdict);
    let revision =
        overview.revision.map_or_else(String::new, |revision| format!(", revision {revision}"));
    let mut rows = vec![("State", health + &revision)];
    if let Some(id) = &overview.interrupted_restore {
        let follows = what_follows(overview.restore_obstacle.as_deref());
        rows.push(("Restore", one_line(&format!("of {id} was interrupted; {follows}"))));
    }
    let problems = overview.guards.iter().filter_map(OnRecord::problem);
    rows.extend(problems.map(|problem| ("Guard", one_line(&problem))));
    rows.push((
        "Degraded",
        match degraded.is_on {
            true => one_line(&format!(
                "since {}: {} ({})",
                degraded.since,
                degraded.reason,
                degraded.features.join(", ")
            )),
            false => "no".to_owned(),
        },
    ));
    let newest = overview
        .newest_checkpoint
        .as_ref()
        .map_or_else(String::new, |id| format!("; newest {}", one_line(id)));
    rows.push(("Checkpoints", format!("{}{newest}", overview.checkpoints)));
    let counts = overview.errors.iter().map(|(code, count)| {
        let name = ExitCode::of(*code).map_or("UNKNOWN", ExitCode::name);
        format!("{name} (exit {code}): {count}")
    });
    let counts: Vec<String> = counts.collect();
    rows.push((
        "Errors",
        if counts.is_empty() { "none on record".to_owned() } else { counts.join(", ") },
    ));
    let mut text = lines(&rows);
    for noted in &overview.last_errors {
        let code = if noted.is_ours() { format!(" (code: {})", noted.code) } else { String::new() };
        let rows = format!("  {} {}: {}{code}", noted.time, noted.component, noted.message);
        text.push_str(&format!("{}\n", one_line(&rows)));
    }
    text.extend(next.iter().map(|next| format!("next: {next}\n")));
    Ok(StatusView { text, facts, ..StatusView::default() })
}

pub(super) fn metrics(
    form: Option<Form>,
    config: &Config,
    store: &Store,
    output: &Output<'_>,
) -> anyhow::Result<()> {
    let metrics = Metrics::gather(store, || open::lock_summary(config, store).ok())?;
    for warning in store.take_warnings() {
        output.warning(&warning);
    }
    match form.unwrap_or(if output.is_json() { Form::Json } else { Form::Text }) {
        Form::Prometheus => output.bytes(prometheus::page(&metrics).as_bytes()),
        Form::Json => output.json(&as_json(&metrics)),
        Form::Text => output.bytes(as_text(&metrics).as_bytes()),
    }
}

fn as_json(metrics: &Metrics) -> Value {
    let waits = |waits: &Waits| {
        json!({
            "count": waits.count(), "seconds": waits.sum(), "median": waits.quantile(0.5),
            "p99": waits.quantile(0.99),
            "max": waits.quantile(1.0),
        })
    };
    let mut all = json!(metrics);
    if let Some(fields) = all.as_object_mut() {
        fields.insert("lock_waits".into(), waits(&metrics.lock_waits));
        fields.insert("commit_waits".into(), waits(&metrics.commit_waits));
        let by_lock = metrics.by_lock.iter().map(|(lock, totals)| {
            let totals = json!({
                "granted": totals.granted, "waited": totals.waited, "longest": totals.longest,
                "timed_out": totals.timed_out, "broken": totals.broken,
                "owner_died": totals.owner_died,
            });
            (lock.clone(), totals)
        });
        fields.insert("by_lock".into(), Value::Object(by_lock.collect()));
        fields.insert("growth_bytes".into(), json!(metrics.growth()));
    }
    all
}

/// The locks with timeouts: `; timed out: 2 deploy`.
fn timeouts(metrics: &Metrics) -> String {
    let late = metrics.by_lock.iter().filter(|(_, lock)| lock.timed_out > 0);
    let late: Vec<String> =
        late.map(|(name, lock)| format!("{} {}", lock.timed_out, one_line(name))).collect();
    if late.is_empty() { String::new() } else { format!("; timed out: {}", late.join(", ")) }
}

fn as_text(metrics: &Metrics) -> String {
    let waits = |waits: &Waits| {
        let millis = |share| waits.quantile(share) * 1000.0;
        let (median, p99, max) = (millis(0.5), millis(0.99), millis(1.0));
        format!(
            "{} waits: median {median:.2} ms, p99 {p99:.2} ms, longest {max:.2} ms",
            waits.count()
        )
    };
    let counted = |counts: Vec<(&str, u64)>| {
        let some: Vec<String> =
            counts.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        if some.is_empty() { "none".to_owned() } else { some.join(", ") }
    };
    let growth = metrics.growth().map_or_else(String::new, |growth| {
        format!(", {growth:+} bytes since the first commit on record")
    });
    let made = counted(metrics.backups.iter().map(|(kind, count)| (*kind, *count)).collect());
    let recoveries = metrics.recoveries.iter().filter(|(_, count)| **count > 0);
    let errors: u64 = metrics.errors.values().sum();
    lines(&[
        ("Since", metrics.since.clone().unwrap_or_else(|| "nothing is on record".to_owned())),
        ("Locks", format!("{}{}", waits(&metrics.lock_waits), timeouts(metrics))),
        ("Commits", format!("{}; {}", metrics.commits, waits(&metrics.commit_waits))),
        (
            "State",
            format!("{}{growth}", metrics.state_bytes.map_or_else(|| "none".to_owned(), size)),
        ),
        (
            "Backups",
            format!(
                "{made}; {} in the last 24 hours; {} kept",
                metrics.backups_last_day, metrics.backups_kept
            ),
        ),
        (
            "Recoveries",
            format!(
                "{}; {} on record",
                counted(recoveries.map(|(kind, count)| (kind.name(), *count)).collect()),
                plural::count(usize::try_from(errors).unwrap_or(usize::MAX), "error"),
            ),
        ),
        ("Checkpoints", metrics.checkpoints.to_string()),
    ])
}
