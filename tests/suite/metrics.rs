//! `recover metrics` and `recover status`: the figures are correct, and the Prometheus page is
//! valid.

use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};

use openmetrics_parser::prometheus::parse_prometheus;
use openmetrics_parser::{HistogramValue, MetricNumber, PrometheusValue};
use pipeline_state::journal::ROTATED_AT;
use serde_json::{Value, json};

use crate::sandbox::{Ran, Sandbox, make_old};

/// A sample: its family, its labels, its value.
type Read = (String, Vec<(String, String)>, PrometheusValue);

/// The page as another parser reads it: each sample's family, labels and value. Histograms come
/// back whole.
fn parsed(page: &str) -> Vec<Read> {
    let exposition = parse_prometheus(page).unwrap_or_else(|error| panic!("{error:?}\n{page}"));
    let mut samples = Vec::new();
    for (name, family) in &exposition.families {
        for sample in family.iter_samples() {
            let labels = sample.get_labelset().unwrap();
            let labels = labels.iter().map(|(label, value)| (label.clone(), value.clone()));
            samples.push((name.clone(), labels.collect(), sample.value.clone()));
        }
    }
    samples
}

fn page(root: &Sandbox) -> String {
    root.run("recover metrics prometheus").expect(0).stdout
}

fn find(page: &str, name: &str, label: Option<(&str, &str)>) -> Option<PrometheusValue> {
    let wanted = |labels: &[(String, String)]| {
        label.is_none_or(|(key, value)| labels.contains(&(key.into(), value.into())))
    };
    let name = format!("pipeline_state_{name}");
    parsed(page)
        .into_iter()
        .find(|(its, labels, _)| *its == name && wanted(labels))
        .map(|(.., value)| value)
}

fn number(page: &str, name: &str, label: Option<(&str, &str)>) -> f64 {
    match find(page, name, label).unwrap_or_else(|| panic!("{name} {label:?} is not in\n{page}")) {
        PrometheusValue::Gauge(number) | PrometheusValue::Unknown(number) => number.as_f64(),
        PrometheusValue::Counter(counter) => counter.value.as_f64(),
        other => panic!("{name}: {other:?}"),
    }
}

fn histogram(page: &str, kind: &str) -> HistogramValue {
    match find(page, "lock_wait_seconds", Some(("kind", kind))) {
        Some(PrometheusValue::Histogram(histogram)) => histogram,
        other => panic!("{other:?}"),
    }
}

/// Two locks granted at once, and one after a wait for another script.
fn with_waits() -> Sandbox {
    let root = Sandbox::with_history();
    root.bash("\"$PIPELINE_BINARY\" lock acquire a,b -q; \"$PIPELINE_BINARY\" lock release a,b -q")
        .expect(0);
    let mut holder = root.holder("c");
    let mut waiter = root.waiter("c");
    holder.go();
    assert_eq!(waiter.line(), "got 0");
    root
}

#[test]
fn waits_timeouts_guards_and_retries_are_counted() {
    let root = with_waits();
    let mut holder = root.holder("c");
    root.run("lock acquire c 0 --owner-pid 1").expect(2);
    holder.go();
    assert_eq!(root.run("recover guard step -- false").code, 1);
    assert_eq!(root.run("recover retry --retries 1 -- true").code, 0);
    fs::remove_file(root.file("audit.log")).unwrap();
    let page = page(&root);
    let lock = |name: &str, lock: &str| number(&page, name, Some(("lock", lock)));
    assert_eq!((lock("lock_grants_total", "a"), lock("lock_grants_total", "c")), (1.0, 3.0));
    assert_eq!((lock("lock_timeouts_total", "a"), lock("lock_timeouts_total", "c")), (0.0, 1.0));
    assert!(lock("lock_longest_wait_seconds", "c") <= lock("lock_waited_seconds_total", "c"));
    let outcome = |name: &str, outcome: &str| number(&page, name, Some(("outcome", outcome)));
    assert_eq!(
        (outcome("guards_total", "failed"), outcome("guards_total", "restored")),
        (1.0, 1.0)
    );
    assert_eq!(
        (outcome("retries_total", "succeeded"), number(&page, "writable", None)),
        (1.0, 1.0)
    );
    let events = root.run("state status --json").expect(0).json()["events"].clone();
    assert_eq!(events.as_array().unwrap().len(), 5);
    assert_eq!(events[4]["text"], "true succeeded in attempt 1");
    promtool_accepts(&page);
}

/// Prometheus' own checker, where it is installed.
fn promtool_accepts(page: &str) {
    let checker = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut checker) = checker else {
        return eprintln!("skipped: promtool is not installed");
    };
    checker.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let output = checker.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_page_is_one_that_prometheus_can_read() {
    for root in [Sandbox::empty(), Sandbox::initialized(), with_waits()] {
        let page = page(&root);
        assert!(!parsed(&page).is_empty());
        // required by the format, but not checked by the parser: a help and a type before each
        // family's samples
        let families: Vec<&str> = page
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
            .collect();
        for line in page.lines().filter(|line| !line.starts_with('#')) {
            let name = line.split('{').next().unwrap();
            let is_known = families.iter().any(|family| {
                name.strip_prefix(family)
                    .is_some_and(|rest| ["", "_bucket", "_sum", "_count"].contains(&rest))
            });
            assert!(is_known && line.contains("{state_file=\""), "{line}");
        }
        let mut series: Vec<&str> =
            page.lines().filter_map(|line| Some(line.rsplit_once(' ')?.0)).collect();
        let count = series.len();
        series.sort_unstable();
        series.dedup();
        assert_eq!(series.len(), count, "a series is there twice");
    }
}

#[test]
fn a_root_of_any_name_is_a_label() {
    let outer = Sandbox::empty();
    let name = "a \"quoted\" \\ root\nof two lines =";
    fs::create_dir(outer.file(name)).unwrap();
    let file = outer.file(name).join(".workflow-state.json");
    let run = |words: &[&str]| {
        let root = outer.file(name);
        Ran::of(outer.command().arg("--root").arg(root).args(words).output().unwrap())
            .expect(0)
            .stdout
    };
    run(&["state", "init"]);
    run(&["state", "set", "a=b"]);
    let page = run(&["recover", "metrics", "prometheus"]);
    let label = ("state_file", file.to_str().unwrap());
    assert_eq!(number(&page, "commits_total", Some(label)), 2.0);
}

#[test]
fn waits_are_counted_and_the_buckets_add_up() {
    let root = with_waits();
    let page = page(&root);
    for (kind, count) in [("lock", 4), ("commit", 4)] {
        let histogram = histogram(&page, kind);
        assert_eq!(histogram.count, Some(count), "{kind}");
        let counts: Vec<f64> =
            histogram.buckets.iter().map(|bucket| bucket.count.as_f64()).collect();
        assert!(counts.is_sorted(), "{counts:?}");
        let last = histogram.buckets.last().unwrap();
        assert_eq!((last.upper_bound, last.count.as_f64()), (f64::INFINITY, count as f64));
        let sum = histogram.sum.as_ref().map(MetricNumber::as_f64).unwrap();
        let slowest = counts
            .iter()
            .position(|so_far| *so_far > 0.0)
            .map(|place| histogram.buckets[place].upper_bound);
        assert!(sum > 0.0 && slowest.is_some(), "{sum}");
    }
    // the longest is the certain wait
    let waits = root.run("recover metrics json").expect(0).json()["lock_waits"].clone();
    assert!(waits["max"].as_f64().unwrap() > waits["median"].as_f64().unwrap(), "{waits}");
    assert_eq!(waits["count"], 4);
}

#[test]
fn retries_guards_and_degradations_are_counted() {
    let root = Sandbox::initialized();
    assert_eq!(root.run("recover retry -n 3 --base-delay 0 -- false").code, 1);
    root.run("recover retry -- true").expect(0);
    root.run("recover guard op --base-delay 0 -- true").expect(0);
    let script = "eval \"$(\"$PIPELINE_BINARY\" shell bash)\"; retry_with_backoff false 2 0";
    assert_eq!(root.bash(script).code, 1);
    root.ok("recover degrade slow");
    let page = page(&root);
    let counted = ["retry", "guard", "degrade"]
        .map(|kind| number(&page, "recoveries_total", Some(("kind", kind))));
    assert_eq!(counted, [3.0, 1.0, 1.0]);
}

#[test]
fn a_sum_of_no_waits_is_zero_without_a_sign() {
    for root in [Sandbox::empty(), Sandbox::initialized()] {
        for form in ["text", "json", "prometheus"] {
            let shown = root.ok(&format!("recover metrics {form}"));
            // A date and a path may have "-0", but not after these.
            assert!(![" -0", ":-0", "+-0"].iter().any(|zero| shown.contains(zero)), "{shown}");
        }
    }
}

#[test]
fn commits_backups_recoveries_and_errors_are_counted_once_each() {
    let root = Sandbox::with_history(); // init and three commits
    root.ok("state backup mine");
    fs::create_dir(root.file("config")).unwrap();
    root.ok("recover checkpoint one");
    root.overwrite("{");
    root.run("state read").expect(0); // heal
    root.overwrite(fs::read_to_string(root.state()).unwrap().replace("\"n\": 3", "\"n\": 33"));
    root.ok("state adopt");
    root.ok("state recover r2-");
    root.ok("recover restore --latest");
    root.run("recover handle 9").expect(0);
    root.run_args(&["recover", "handle", "7", "--message", "no room"]).expect(0);
    root.run("recover degrade slow").expect(0);
    let page = page(&root);
    let counted = |name: &str, kind: &str| number(&page, name, Some(("kind", kind)));
    assert_eq!(number(&page, "commits_total", None), 9.0);
    assert_eq!(
        (counted("backups_total", "automatic"), counted("backups_total", "manual")),
        (4.0, 1.0)
    );
    let recoveries = ["heal", "adopt", "recover", "restore", "handle", "undo"]
        .map(|kind| counted("recoveries_total", kind));
    assert_eq!(recoveries, [1.0, 1.0, 1.0, 1.0, 2.0, 0.0]);
    assert_eq!(number(&page, "errors_total", Some(("name", "DISK_FULL"))), 1.0);
    assert_eq!(number(&page, "errors_total", Some(("code", "9"))), 1.0);
    assert_eq!(number(&page, "revision", None), root.revision() as f64);
    assert_eq!((number(&page, "degraded", None), number(&page, "healthy", None)), (1.0, 1.0));
    assert_eq!(number(&page, "checkpoints", None), 2.0);
    let bytes = fs::metadata(root.state()).unwrap().len() as f64;
    assert_eq!(number(&page, "document_bytes", None), bytes);
    let first = fs::read_to_string(root.file("audit.log")).unwrap();
    let first = first
        .lines()
        .next()
        .unwrap()
        .split_once("bytes=")
        .unwrap()
        .1
        .split(' ')
        .next()
        .unwrap()
        .parse::<f64>()
        .unwrap();
    assert_eq!(number(&page, "document_growth_bytes", None), bytes - first);
    let text = root.ok("recover metrics");
    assert!(text.contains("4 automatic, 1 manual; 5 in the last 24 hours"), "{text}");
    assert!(text.contains("2 handle, 1 heal, 1 recover, 1 restore"), "{text}");
}

#[test]
fn exit_codes_of_wrapped_commands_are_not_counted_as_errors() {
    let root = Sandbox::initialized();
    // an older line; it stays readable, and looks like one of this program
    fs::write(
        root.file(".error-recovery.log"),
        "2026-01-01T00:00:00Z [ERROR] error-recovery/old: x (code: 7)\n",
    )
    .unwrap();
    assert_eq!(root.run_args(&["recover", "guard", "g", "--", "sh", "-c", "exit 3"]).code, 3);
    assert_eq!(root.run_args(&["recover", "retry", "-n", "1", "--", "sh", "-c", "exit 6"]).code, 6);
    let status = root.ok("recover status");
    assert!(status.contains("Errors      DISK_FULL (exit 7): 1\n"), "{status}");
    for told in [
        "g: the command failed for good after 1 attempt with its exit code 3; what it",
        "retry: sh failed",
    ] {
        assert!(status.contains(told), "{status}");
    }
    let page = page(&root);
    let counted: Vec<&str> =
        page.lines().filter(|line| line.starts_with("pipeline_state_errors_total{")).collect();
    assert!(matches!(counted[..], [only] if only.contains("DISK_FULL")), "{counted:?}");
    assert_eq!(root.run("recover status --json").json()["errors"], json!({"7": 1}));
}

#[test]
fn another_roots_lines_are_not_counted() {
    let root = Sandbox::initialized();
    let log = root.file("audit.log");
    let line = fs::read_to_string(&log).unwrap();
    let line = line.lines().next().unwrap();
    let foreign = line.replace(".workflow-state.json", ".workflow-state.json2");
    assert_ne!(foreign, line);
    let garbage = "\u{0}garbage\n[INFO] : committed\n2026 [INFO] x/y: z\n";
    fs::write(&log, format!("{foreign}\n{garbage}{line}\n{foreign}\n")).unwrap();
    assert_eq!(number(&page(&root), "commits_total", None), 1.0);
}

#[test]
fn figures_come_whatever_the_state_is_in_and_change_nothing() {
    let damaged = Sandbox::with_history();
    damaged.overwrite("{");
    let edited = Sandbox::with_history();
    edited.overwrite(fs::read_to_string(edited.state()).unwrap().replace("\"n\": 3", "\"n\": 33"));
    let missing = Sandbox::with_history();
    fs::remove_file(missing.state()).unwrap();
    let legacy =
        Sandbox::holding(r#"{"phase":"a","completedTasks":[],"signals":{},"lastActivation":""}"#);
    make_old(&legacy.state());
    for (root, healthy) in
        [(damaged, 0.0), (edited, 0.0), (missing, 0.0), (Sandbox::empty(), 0.0), (legacy, 1.0)]
    {
        fs::write(root.file(".error-recovery.log"), "garbage\n\u{1}(code: 3)\n").unwrap();
        let before = root.snapshot();
        assert_eq!(number(&page(&root), "healthy", None), healthy);
        root.run("recover metrics").expect(0);
        root.run("recover status").expect(0);
        assert_eq!(root.snapshot(), before);
    }
    let root = Sandbox::with_history();
    let silent = || {
        let output =
            root.command().env("AUDIT_LOG", "/dev/null").args(["recover", "metrics"]).output();
        Ran::of(output.unwrap()).expect(0).stdout
    };
    // The root's own journal has its commits.
    assert!(silent().starts_with("Since       20"));
    fs::remove_file(root.file(".state-backups/journal.jsonl")).unwrap();
    assert!(silent().starts_with("Since       nothing is on record"));
}

#[test]
fn status_names_problems_and_next_steps() {
    let root = Sandbox::with_history();
    root.ok("recover checkpoint one");
    let well = root.ok("recover status");
    assert!(
        well.contains("healthy, revision 4")
            && well.contains("none on record")
            && !well.contains("next:"),
        "{well}"
    );
    root.run_args(&["recover", "degrade", "no database", "mail"]).expect(0);
    for n in 0..12 {
        root.run_args(&[
            "recover",
            "handle",
            "8",
            "--operation",
            "fetch",
            "--message",
            &format!("try {n}"),
        ])
        .expect(0);
    }
    root.overwrite(fs::read_to_string(root.state()).unwrap().replace("\"n\": 3", "\"n\": 33"));
    let told = root.ok("recover status");
    for words in [
        "foreign edit",
        "no database (mail)",
        "1; newest checkpoint-",
        "NETWORK_ERROR (exit 8): 12",
        "fetch: try 11 (code: 8)",
        "next: pipeline-state state adopt",
        "next: pipeline-state recover recover-mode",
        "next: pipeline-state recover doctor",
    ] {
        assert!(told.contains(words), "{words:?} is not in\n{told}");
    }
    assert!(!told.contains("try 1 ") && told.contains("try 2 "), "the last ten: {told}");
    let all: Value = root.run("recover status --json").expect(0).json();
    assert_eq!(
        (all["health"].as_str(), all["errors"]["8"].as_u64()),
        (Some("foreign edit"), Some(12))
    );
    assert_eq!(all["degraded"]["disabled_features"], json!(["mail"]));
}

#[test]
fn no_counter_falls_when_the_journal_is_rotated() {
    for is_logged in [true, false] {
        let root = Sandbox::initialized();
        let counters = || {
            let page = page(&root);
            let waits = histogram(&page, "commit");
            let backups = number(&page, "backups_total", Some(("kind", "automatic")));
            (number(&page, "commits_total", None), backups, waits)
        };
        for n in 1..=6_u32 {
            let file = fs::File::options()
                .append(true)
                .open(root.file(".state-backups/journal.jsonl"))
                .unwrap();
            file.set_len(ROTATED_AT).unwrap(); // the rest is NULs, one damaged line
            root.ok(&format!("state set n:={n}"));
            if !is_logged {
                fs::write(root.file("audit.log"), "").unwrap();
            }
            let (commits, backups, waits) = counters();
            assert_eq!((commits, backups), (f64::from(n + 1), f64::from(n)), "{is_logged}");
            assert_eq!(waits.count.unwrap(), u64::from(n + 1), "{is_logged}");
        }
    }
}
