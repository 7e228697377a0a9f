//! The metrics in Prometheus' text format, version 0.0.4:
//! <https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format>.

use std::fmt::Write as _;

use super::Metrics;
use crate::error::{ExitCode, one_line};
use crate::journal::totals::{BOUNDS, LockTotals};

struct Page<'a> {
    root: &'a str,
    text: String,
}

impl Page<'_> {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(
            self.text,
            "# HELP pipeline_state_{name} {help}\n# TYPE pipeline_state_{name} {kind}"
        );
    }

    /// A sample; the state file is a label of each, so that several can be scraped together.
    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        let mut all = format!("state_file=\"{}\"", escaped(self.root));
        for (label, value) in labels {
            let _ = write!(all, ",{label}=\"{}\"", escaped(value));
        }
        let _ = writeln!(self.text, "pipeline_state_{name}{{{all}}} {value}");
    }

    fn single(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        value: Option<impl std::fmt::Display>,
    ) {
        if let Some(value) = value {
            self.family(name, kind, help);
            self.sample(name, &[], value);
        }
    }
}

/// A label's value: backslash, quote and newline are escaped.
fn escaped(value: &str) -> String {
    let lines: Vec<String> = value.split('\n').map(one_line).collect();
    lines.join("\n").replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// The counters of each lock.
fn locks(page: &mut Page<'_>, metrics: &Metrics) {
    type Counter = (&'static str, &'static str, fn(&LockTotals) -> String);
    let counters: [Counter; 6] = [
        ("lock_grants_total", "Grants of each lock.", |lock| lock.granted.to_string()),
        ("lock_waited_seconds_total", "Time spent waiting for each lock.", |lock| {
            lock.waited.to_string()
        }),
        ("lock_longest_wait_seconds", "The longest wait for each lock.", |lock| {
            lock.longest.to_string()
        }),
        ("lock_timeouts_total", "Requests that were not granted in time.", |lock| {
            lock.timed_out.to_string()
        }),
        ("lock_broken_total", "Grants and waits that operators ended.", |lock| {
            lock.broken.to_string()
        }),
        ("lock_owner_died_total", "Grants that ended with their owners.", |lock| {
            lock.owner_died.to_string()
        }),
    ];
    for (name, help, value) in counters {
        page.family(name, if name.ends_with("_total") { "counter" } else { "gauge" }, help);
        for (lock, totals) in &metrics.by_lock {
            page.sample(name, &[("lock", lock)], value(totals));
        }
    }
}

/// The page for a scraper.
pub fn page(metrics: &Metrics) -> String {
    let mut page = Page { root: &metrics.path, text: String::new() };
    let name = "lock_wait_seconds";
    page.family(
        name,
        "histogram",
        "Time spent waiting for locks: named locks, and the turn of commits.",
    );
    for (kind, waits) in [("lock", &metrics.lock_waits), ("commit", &metrics.commit_waits)] {
        for bound in BOUNDS {
            page.sample(
                "lock_wait_seconds_bucket",
                &[("kind", kind), ("le", &bound.to_string())],
                waits.within(bound),
            );
        }
        page.sample("lock_wait_seconds_bucket", &[("kind", kind), ("le", "+Inf")], waits.count());
        page.sample("lock_wait_seconds_sum", &[("kind", kind)], waits.sum());
        page.sample("lock_wait_seconds_count", &[("kind", kind)], waits.count());
    }
    locks(&mut page, metrics);
    page.family("guards_total", "counter", "Guarded commands, and what became of their changes.");
    for (outcome, count) in &metrics.guards {
        page.sample("guards_total", &[("outcome", outcome)], count);
    }
    page.family("retries_total", "counter", "Retried commands, by outcome.");
    for (outcome, count) in &metrics.retries {
        page.sample("retries_total", &[("outcome", outcome)], count);
    }
    page.single("document_bytes", "gauge", "Size of the state file.", metrics.state_bytes);
    let help = "By how much the state file has grown since the first commit on record.";
    page.single("document_growth_bytes", "gauge", help, metrics.growth());
    page.single(
        "commits_total",
        "counter",
        "Commits on record, and those before.",
        Some(metrics.commits),
    );
    page.family("backups_total", "counter", "Backups made, by the audit log.");
    for (kind, count) in &metrics.backups {
        page.sample("backups_total", &[("kind", kind)], count);
    }
    page.single("backups_kept", "gauge", "Backups that are kept.", Some(metrics.backups_kept));
    page.family("recoveries_total", "counter", "Recoveries, by the audit log.");
    for (kind, count) in &metrics.recoveries {
        page.sample("recoveries_total", &[("kind", kind.name())], count);
    }
    page.family("errors_total", "counter", "Errors at the end of the error log, by exit code.");
    for (code, count) in &metrics.errors {
        let name = ExitCode::of(*code).map_or("UNKNOWN", ExitCode::name);
        page.sample("errors_total", &[("code", &code.to_string()), ("name", name)], count);
    }
    page.single("revision", "gauge", "The current revision.", metrics.revision);
    page.family("locks", "gauge", "Locks on record, by how they stand.");
    for (standing, count) in &metrics.locks {
        page.sample("locks", &[("status", standing)], count);
    }
    page.single("checkpoints", "gauge", "Checkpoints that are kept.", Some(metrics.checkpoints));
    let help = "Seconds since the newest checkpoint was made.";
    page.single("newest_checkpoint_age_seconds", "gauge", help, metrics.newest_checkpoint_age);
    page.single(
        "degraded",
        "gauge",
        "Whether the state is degraded.",
        Some(u8::from(metrics.is_degraded)),
    );
    page.single(
        "healthy",
        "gauge",
        "Whether commands can work with the state.",
        Some(u8::from(metrics.is_healthy)),
    );
    let help = "Whether writers can write: permissions, mounts, space.";
    page.single("writable", "gauge", help, Some(u8::from(metrics.is_writable)));
    page.single(
        "disk_free_bytes",
        "gauge",
        "Bytes left on the disk of the state.",
        metrics.disk_free,
    );
    page.text
}
