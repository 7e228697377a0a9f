//! The report: events are paired, nothing in them is trusted, and the page is a file of its own.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::time::{Duration, SystemTime};

use pipeline_state::journal::changes::Change;
use pipeline_state::journal::event::{LockMode, LockStep};
use pipeline_state::printable::is_steering;
use pipeline_state::report::{
    EVENTS_LIMIT, End, Fact, HeldGrant, LaneKind, Mark, Subject, Timeline, What, page,
};
use serde_json::Value;

use crate::report_events::{
    BUILD, DEPLOY, Recording, Script, TEST, many, phase, recorded_hour, task,
};
use crate::sandbox::Sandbox;

const HOUR: Duration = Duration::from_secs(3600);

fn base() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn subject() -> Subject {
    Subject { root: "/r".into(), now: base() + HOUR, since: None, held: HashSet::new() }
}

fn timeline(recording: Recording) -> Timeline {
    Timeline::of(&recording.events(), &subject())
}

fn of(timeline: &Timeline, what: What) -> Vec<&Mark> {
    timeline.marks.iter().filter(|mark| mark.what == what).collect()
}

fn seconds(time: i64) -> i64 {
    (time - 1_800_000_000_000) / 1000
}

fn span(mark: &Mark) -> (i64, Option<i64>, End) {
    (seconds(mark.from), mark.until.map(seconds), mark.end)
}

/// The data in a page.
fn data(page: &str) -> Value {
    let text = page.split("<script type=\"application/json\" id=\"data\">").nth(1).unwrap();
    serde_json::from_str(text.split("</script>").next().unwrap()).unwrap()
}

#[test]
fn grants_are_paired_with_their_ends() {
    let mut events = Recording::new(base());
    events.granted(1.0, BUILD, "a", 1);
    events.released(2.0, BUILD, "a", 1);
    events.granted(3.0, TEST, "a", 2);
    events.lock(4.0, BUILD, "a", LockStep::Broken).subject = Some(TEST.party(Some(2)));
    events.granted(5.0, TEST, "a", 3);
    events.lock(7.0, BUILD, "a", LockStep::OwnerDied).subject = Some(TEST.party(Some(3)));
    events.granted(8.0, TEST, "b", 4);
    events.granted(8.0, TEST, "c", 5);
    let held = HashSet::from([HeldGrant { lock: "c".into(), token: 5 }]);
    let timeline = Timeline::of(&events.events(), &Subject { held, ..subject() });
    let spans: Vec<_> = of(&timeline, What::Held).into_iter().map(span).collect();
    assert_eq!(
        spans,
        [
            (1, Some(2), End::Done),
            (3, Some(4), End::Broken),
            (5, Some(7), End::OwnerDied),
            (8, None, End::Unknown),
            (8, None, End::Open),
        ]
    );
}

#[test]
fn a_grant_whose_owner_died_without_a_line_ends_unknown() {
    let mut events = Recording::new(base());
    events.granted(1.0, BUILD, "a", 1);
    events.granted(5.0, TEST, "a", 2);
    events.released(6.0, TEST, "a", 2);
    events.released(9.0, DEPLOY, "a", 9);
    let timeline = timeline(events);
    let spans: Vec<_> = of(&timeline, What::Held).into_iter().map(span).collect();
    let expected = [(1, Some(5), End::Unknown), (5, Some(6), End::Done), (9, Some(9), End::Done)];
    assert_eq!(spans, expected);
    let last = of(&timeline, What::Held)[2];
    assert!(
        last.facts.iter().any(|Fact(name, text)| *name == "Granted" && text.contains("before"))
    );
}

#[test]
fn shared_grants_are_beside_each_other() {
    let mut events = Recording::new(base());
    for (number, script) in [BUILD, TEST, DEPLOY].into_iter().enumerate() {
        let event = events.granted(1.0 + number as f64, script, "a", number as u64 + 1);
        event.mode = Some(LockMode::Shared);
    }
    for (number, script) in [BUILD, TEST, DEPLOY].into_iter().enumerate() {
        events.released(10.0 + number as f64, script, "a", number as u64 + 1);
    }
    let timeline = timeline(events);
    let rows: Vec<_> = timeline.marks.iter().map(|mark| (mark.row, mark.end)).collect();
    assert_eq!(rows, [(0, End::Done), (1, End::Done), (2, End::Done)]);
    assert_eq!(timeline.lanes[0].rows, 3);
}

#[test]
fn a_wait_leads_to_the_grants_and_waits_that_it_waited_for() {
    let mut events = Recording::new(base());
    events.granted(0.0, BUILD, "a", 1);
    events.released(10.0, BUILD, "a", 1);
    let test = events.granted(10.0, TEST, "a", 2);
    (test.waited, test.blockers) = (8.0, vec![BUILD.holder(1)]);
    let deploy = events.lock(15.0, DEPLOY, "a", LockStep::TimedOut);
    (deploy.waited, deploy.blockers) = (10.0, vec![BUILD.holder(1), TEST.waiter()]);
    events.released(20.0, TEST, "a", 2);
    let timeline = timeline(events);
    let waits = of(&timeline, What::Waited);
    let spans: Vec<_> = waits.iter().map(|wait| span(wait)).collect();
    assert_eq!(spans, [(2, Some(10), End::Done), (5, Some(15), End::TimedOut)]);
    let blockers: Vec<Vec<_>> = waits
        .iter()
        .map(|wait| wait.waited_for.iter().map(|number| &timeline.marks[*number]))
        .map(|marks| marks.map(|mark| (mark.what, mark.label.as_str())).collect())
        .collect();
    assert_eq!(blockers[0], [(What::Held, "build.sh")]);
    assert_eq!(blockers[1], [(What::Held, "build.sh"), (What::Waited, "test.sh")]);
    let held = of(&timeline, What::Held)[1];
    assert_eq!(held.row, waits[0].row, "a wait and its grant are in one row");
    assert_ne!(held.row, waits[1].row);
}

#[test]
fn the_lanes_of_a_recorded_hour() {
    let timeline = timeline(recorded_hour(base()));
    let kinds: Vec<_> = timeline.lanes.iter().map(|lane| lane.kind).collect();
    let lock = LaneKind::Lock;
    assert_eq!(
        kinds,
        [
            LaneKind::Phase,
            LaneKind::Tasks,
            LaneKind::Signals,
            LaneKind::Commits,
            lock,
            lock,
            lock,
            LaneKind::Guards,
            LaneKind::Retries,
            LaneKind::Checkpoints,
            LaneKind::Errors
        ]
    );
    let names: Vec<_> = timeline.lanes[4..7].iter().map(|lane| lane.name.as_str()).collect();
    assert_eq!(names, ["artifacts", "cache", "deploy"]);
    let phases: Vec<_> = of(&timeline, What::Phase)
        .into_iter()
        .map(|mark| (mark.label.as_str(), mark.until.map(seconds)))
        .collect();
    assert_eq!(
        phases,
        [("build", Some(420)), ("test", Some(1520)), ("deploy", Some(3100)), ("done", None)]
    );
    assert_eq!(of(&timeline, What::Signal)[0].label, "TESTED");
    let guard = of(&timeline, What::Guard)[0];
    assert_eq!(span(guard), (1600, Some(2000), End::Restored));
    assert_eq!(span(of(&timeline, What::Retry)[0]), (2100, Some(2400), End::Done));
    assert_eq!(timeline.events, recorded_hour(base()).list.len());
}

#[test]
fn since_keeps_what_lasted_into_its_time() {
    let since = Some(base() + Duration::from_secs(2500));
    let events = recorded_hour(base()).events();
    let timeline = Timeline::of(&events, &Subject { since, ..subject() });
    let held: Vec<_> =
        of(&timeline, What::Held).into_iter().map(|mark| seconds(mark.from)).collect();
    assert_eq!(held, [3300, 1500, 2600, 3000]);
    assert!(of(&timeline, What::Guard).is_empty());
    assert_eq!(seconds(timeline.from), 2500);
}

#[test]
fn the_newest_events_are_shown() {
    let timeline = timeline(many(base(), EVENTS_LIMIT + 10));
    assert!(timeline.events <= EVENTS_LIMIT, "{}", timeline.events);
    assert_eq!(timeline.notes, ["10 older events are not shown"]);
    let last = timeline.marks.iter().map(|mark| mark.from).max();
    assert!(last.is_some_and(|last| last > timeline.until - 1000));
}

/// Names as a hostile root may have them.
const HOSTILE: [&str; 5] = [
    "</script><script>alert(1)</script>",
    "<!--<script>&amp;\u{2028}\u{2029}",
    "\u{202e}gpj.exe\u{0}\u{1b}[31m\u{7}",
    "]]>\"'`${x}{{script}}{{data}}",
    "\u{feff}\u{200d}日本語",
];

pub fn hostile(base: SystemTime) -> Recording {
    let mut events = Recording::new(base);
    for (number, name) in HOSTILE.into_iter().enumerate() {
        let script = Script { program: name, pid: 7 };
        let at = number as f64;
        events.commit(at, script, name, vec![phase(name, name), task(name)]);
        events.commit(at, script, name, vec![Change::Path(format!(".signals[\"{name}\"]"))]);
        events.granted(at, script, name, 3).waited = 1e300;
        events.lock(at, script, name, LockStep::OwnerDied).subject = Some(script.party(None));
        events.failure(at, script, name, name);
    }
    let mut late = Recording::new(base + Duration::from_secs(100 * 365 * 86_400));
    late.failure(0.0, BUILD, "future", "late");
    let early = Recording::new(SystemTime::UNIX_EPOCH - Duration::from_secs(60_000_000_000));
    events.list.extend(late.list);
    events.list.push(recorded_at(early.origin(0.0, BUILD).time));
    events
}

fn recorded_at(time: String) -> pipeline_state::journal::Event {
    let mut one = Recording::new(base());
    one.failure(0.0, BUILD, "past", "early");
    let Some(pipeline_state::journal::Event::Failure(failure)) = one.list.first_mut() else {
        unreachable!()
    };
    failure.origin.time = time;
    one.list.remove(0)
}

#[test]
fn hostile_names_stay_data() {
    let timeline = timeline(hostile(base()));
    let page = page::html(&timeline);
    let plain = page::html(&self::timeline(recorded_hour(base())));
    for markup in ["<script", "</script", "<!--", "<style", "</body"] {
        assert_eq!(page.matches(markup).count(), plain.matches(markup).count(), "{markup}");
    }
    assert!(!page.contains(|c| is_steering(c) && c != '\n'));
    let data = data(&page);
    let text = data.to_string();
    assert!(text.contains("</script><script>alert(1)</script>") && text.contains(r"\\u{202e}gpj"));
    assert!(timeline.from > 0 && timeline.until <= timeline.made);
    assert!(
        timeline.notes.iter().any(|note| note.starts_with("1 events have a time in the future"))
    );
}

#[test]
fn long_texts_are_cut_and_many_locks_share_a_lane() {
    let long: &'static str = Box::leak("\u{202e}x".repeat(1 << 19).into_boxed_str());
    let mut events = Recording::new(base());
    events.commit(0.0, Script { program: long, pid: 1 }, long, vec![phase(long, long)]);
    for number in 0..1000 {
        events.granted(1.0, BUILD, &format!("lock-{number}"), number + 1);
    }
    events.granted(2.0, BUILD, long, 2000);
    let page = page::html(&timeline(events));
    assert!(page.len() < 1 << 20, "{}", page.len());
    let lanes = data(&page)["lanes"].as_array().unwrap().clone();
    assert!(lanes.len() < 50 && lanes.iter().any(|lane| lane["name"] == "961 other locks"));
}

#[test]
fn the_policy_allows_this_style_and_script_only() {
    use sha2::Digest as _;
    let page = page::html(&timeline(recorded_hour(base())));
    let between = |open: &str, close: &str| {
        let rest = page.split(open).nth(1).unwrap();
        rest.split(close).next().unwrap().to_owned()
    };
    let hash = |text: &str| sha2::Sha256::digest(text).to_vec();
    let policy = between("http-equiv=\"Content-Security-Policy\" content=\"", "\"");
    assert!(policy.starts_with("default-src 'none'; "), "{policy}");
    for (directive, text) in [
        ("style-src", between("<style>", "</style>")),
        ("script-src", between("<script>", "</script>")),
    ] {
        let source = policy.split(directive).nth(1).unwrap().split(';').next().unwrap().trim();
        let encoded = source.strip_prefix("'sha256-").unwrap().strip_suffix('\'').unwrap();
        assert_eq!(base64_bytes(encoded), hash(&text), "{directive}");
    }
    assert!(!page.contains(" style=\"") && !page.contains(" onclick") && !page.contains("http:"));
}

/// Decodes base64, independently of the program.
fn base64_bytes(text: &str) -> Vec<u8> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bits, mut count, mut bytes) = (0_u32, 0, Vec::new());
    for digit in text.bytes().filter(|digit| *digit != b'=') {
        let value = DIGITS.iter().position(|known| *known == digit).unwrap();
        bits = (bits << 6) | u32::try_from(value).unwrap();
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from((bits >> count) & 0xff).unwrap());
        }
    }
    bytes
}

// ---- the command ----

#[test]
fn the_command_prints_the_page_and_changes_nothing() {
    let root = Sandbox::with_history();
    let before = root.snapshot();
    let page = root.run("report").expect(0).stdout;
    assert_eq!(root.snapshot(), before);
    let data = data(&page);
    assert_eq!(data["root"], root.path().to_str().unwrap());
    let reasons = data["marks"].as_array().unwrap().len();
    assert!(reasons >= 4, "{data}");
    assert_eq!(root.run("report -o -").expect(0).stdout.len(), page.len());
    root.run("report --since 0s").expect(0);
    root.run("report --since soon").expect(64);
}

#[test]
fn the_file_is_private_and_replaced_whole() {
    let root = Sandbox::with_history();
    let file = root.file("report.html");
    fs::write(&file, "old").unwrap();
    let linked = root.file("linked");
    fs::hard_link(&file, &linked).unwrap();
    let said = root.run("--json report -o report.html").expect(0).json();
    assert_eq!((said["file"].as_str(), said["events"].as_u64()), (Some("report.html"), Some(4)));
    assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o600);
    assert!(fs::read_to_string(&file).unwrap().starts_with("<!doctype html>"));
    assert_eq!(fs::read_to_string(linked).unwrap(), "old", "another name of the old file");
    assert_eq!(root.debris(), Vec::<std::path::PathBuf>::new());
    root.run("report -o missing/report.html").expect(5).saying("mkdir -p");
}

#[test]
fn no_file_of_a_root_and_no_link_is_written() {
    let root = Sandbox::with_history();
    let other = Sandbox::with_history();
    for (link, target) in [
        ("link.html", "audit.log"),
        ("dangling.html", "nowhere"),
        ("sub", ".state-backups"),
        ("other", other.path().to_str().unwrap()),
    ] {
        symlink(target, root.file(link)).unwrap();
    }
    fs::create_dir(root.file("dir")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        root.file("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    let before = (root.snapshot(), other.snapshot());
    for refused in [
        ".workflow-state.json",
        ".state-backups/report.html",
        ".locks/deploy.json",
        ".signals/x",
        ".checkpoints/x",
        "config/x",
        ".pipeline-state.toml",
        ".pipeline-audit.log",
        ".error-recovery.log",
        "other/.pipeline-state.toml",
        "other/.workflow-state.moved",
        "other/.pipeline-audit.log",
        "/tmp/claude-pipeline-audit.log",
        "audit.log",
        "link.html",
        "dangling.html",
        "sub/report.html",
        "sub/journal.jsonl",
        "other/.workflow-state.json",
        "other/.signals/x",
        "dir",
        "dir/",
        "pipe",
    ] {
        root.run_args(&["report", "-o", refused]).expect(6).saying("no report was written");
    }
    assert_eq!((root.snapshot(), other.snapshot()), before);
    root.run("report -o other/report.html").expect(0);
    // A bare name is in the working directory.
    let root = Sandbox::empty();
    let named = "--root . --state-file my.json";
    root.run(&format!("{named} state init")).expect(0);
    root.run(&format!("{named} report -o my.json")).expect(6);
    root.run(&format!("{named} --audit-log my.json state read")).expect(6);
}

#[test]
fn damaged_lines_are_counted_on_the_page() {
    let root = Sandbox::initialized();
    let hour = recorded_hour(SystemTime::now() - HOUR);
    hour.write(&root);
    let path = root.file(".state-backups/journal.jsonl");
    let text = fs::read_to_string(&path).unwrap().replace("build.sh", "build.py");
    let damaged = text.matches("build.py").count();
    fs::write(&path, text).unwrap();
    let data = data(&root.ok("report"));
    let notes = data["notes"].to_string();
    assert!(damaged > 0 && notes.contains("damaged lines"), "{notes}");
    assert!(data["events"].as_u64().unwrap() > 5);
}
