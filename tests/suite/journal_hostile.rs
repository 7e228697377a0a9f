//! A journal that something else made: no command hangs or fails on it, each warns once, and
//! nothing outside the root changes.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use pipeline_state::document::seal::Digest;
use pipeline_state::journal::totals::BOUNDS;
use pipeline_state::journal::{DIRECTORY, JOURNAL, OLD_JOURNAL};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::{Map, Value, json};

use crate::sandbox::{Ran, Sandbox};
use crate::script::is_root;

const READS: [&str; 4] =
    ["state history", "state status", "recover metrics", "report -o report.html"];
/// Far longer than any of them takes.
const PATIENCE: &str = "timeout 100";
const VICTIM: &str = "outside the root\n";

/// A file in place of a journal, and the number of warnings of a read and of a commit.
struct Hostile {
    what: &'static str,
    make: fn(&Path, &Path),
    warnings: (usize, usize),
}

/// A line with the sum that makes it valid.
fn sealed(object: &str) -> String {
    let text = object.strip_suffix('}').unwrap();
    format!("{text},\"sum\":\"{}\"}}\n", &Digest::of(text.as_bytes()).as_str()[..16])
}

/// Valid lines whose fields have wrong types, or numbers that overflow.
fn wrong_types() -> String {
    let time = r#""time":"2026-01-02T03:04:05.678Z""#;
    let mut lines = vec![
        r#"{"v":1,"event":"commit","time":5}"#.to_owned(),
        r#"{"v":"1","event":"lock"}"#.to_owned(),
        r#"{"v":1,"event":["lock"]}"#.to_owned(),
        format!(r#"{{"v":1,"event":"lock",{time},"lock":{{}},"step":"granted"}}"#),
        format!(r#"{{"v":1,"event":"guard",{time},"guard":"g","step":7,"guards":{{}}}}"#),
        format!(r#"{{"v":1,"event":"failure",{time},"code":-1}}"#),
        format!(r#"{{"v":1,"event":"totals","since":[],{time}}}"#),
        format!("{{\"v\":1,\"event\":{}{}}}", "[".repeat(5000), "]".repeat(5000)),
    ];
    // the most that fits, and far more counters than this program writes
    for counters in [1, 3000] {
        let largest = |n| (format!("a{n}"), json!((1_u64 << 53) - 1));
        let commits: Map<String, Value> = (0..counters).map(largest).collect();
        let lock = json!({
            "granted": u64::MAX, "waited": "1.0", "longest": "1.0", "timed_out": u64::MAX,
            "broken": u64::MAX, "owner_died": u64::MAX,
        });
        let totals = json!({
            "v": 1, "event": "totals", "since": "2026-01-02T03:04:05.678Z", "first_bytes": 1,
            "commits": commits, "waited": "1.0", "within": vec![1; BOUNDS.len()], "lineages": [],
            "locks": {"a": lock}, "guarded": [u64::MAX, u64::MAX],
        });
        lines.push(totals.to_string());
    }
    lines.iter().map(|line| sealed(line)).collect()
}

fn hostile() -> Vec<Hostile> {
    let mut all = vec![
        Hostile {
            what: "a link",
            make: |at, victim| symlink(victim, at).unwrap(),
            warnings: (1, 1),
        },
        Hostile {
            what: "a second name",
            make: |at, victim| fs::hard_link(victim, at).unwrap(),
            warnings: (1, 1),
        },
        Hostile {
            what: "a FIFO",
            make: |at, _| mknodat(CWD, at, FileType::Fifo, Mode::from(0o600), 0).unwrap(),
            warnings: (1, 1),
        },
        Hostile {
            what: "a directory",
            make: |at, _| fs::create_dir(at).unwrap(),
            warnings: (1, 1),
        },
        Hostile {
            what: "64 MiB",
            make: |at, _| fs::File::create(at).unwrap().set_len(64 << 20).unwrap(),
            warnings: (1, 1),
        },
        Hostile {
            what: "control characters",
            make: |at, _| fs::write(at, b"a\0\x01\n\x1b[31m\n\xff\xfe\n{\"v\":1}\n").unwrap(),
            warnings: (1, 0),
        },
        Hostile {
            what: "wrong types",
            make: |at, _| fs::write(at, wrong_types()).unwrap(),
            warnings: (1, 0),
        },
    ];
    if is_root() {
        all.push(Hostile {
            what: "another owner",
            make: |at, _| {
                fs::write(at, "").unwrap();
                std::os::unix::fs::chown(at, Some(65534), Some(65534)).unwrap();
            },
            warnings: (0, 1),
        });
    }
    all
}

/// Runs the program, which must end by itself.
fn run(root: &Sandbox, words: &str) -> Ran {
    let ran = root.bash(&format!("{PATIENCE} \"$PIPELINE_BINARY\" {words}")).expect(0);
    assert!(!ran.stdout.contains(['\0', '\u{1b}']), "{words}: {}", ran.stdout);
    ran
}

fn warnings(ran: &Ran) -> usize {
    ran.stderr.lines().filter(|line| line.starts_with("warning: ")).count()
}

#[test]
fn a_hostile_journal_is_one_warning_and_stops_nothing() {
    for name in [JOURNAL, OLD_JOURNAL] {
        for Hostile { what, make, warnings: (of_read, of_commit) } in hostile() {
            let (root, outside) = (Sandbox::initialized(), Sandbox::empty());
            let victim = outside.file("victim");
            fs::write(&victim, VICTIM).unwrap();
            let modified = fs::metadata(&victim).unwrap().modified().unwrap();
            let at = root.file(DIRECTORY).join(name);
            let _ = fs::remove_file(&at);
            make(&at, &victim);
            for words in READS {
                let ran = run(&root, words);
                assert_eq!(warnings(&ran), of_read, "{name}: {what}: {words}: {}", ran.stderr);
            }
            let of_commit = if name == JOURNAL { of_commit } else { 0 };
            let ran = run(&root, "state set n:=1");
            assert_eq!(warnings(&ran), of_commit, "{name}: {what}: {}", ran.stderr);
            assert_eq!(root.document()["n"], 1);
            let ran = run(&root, "lock run a -- true");
            assert!(warnings(&ran) <= of_commit, "{name}: {what}: {}", ran.stderr);
            assert_eq!(fs::read_to_string(&victim).unwrap(), VICTIM, "{name}: {what}");
            assert_eq!(fs::metadata(&victim).unwrap().modified().unwrap(), modified);
            assert_eq!(outside.names(""), ["victim"], "{name}: {what}");
        }
    }
}

#[test]
fn events_of_the_future_are_shown_and_stop_nothing() {
    let root = Sandbox::initialized();
    let at = root.file(DIRECTORY).join(JOURNAL);
    let text = fs::read_to_string(&at).unwrap();
    let object = text.trim().split(",\"sum\"").next().unwrap().to_owned() + "}";
    let year = object.split("\"time\":\"").nth(1).unwrap()[..4].to_owned();
    let late = object.replace(&format!("\"time\":\"{year}"), "\"time\":\"9999");
    fs::write(&at, sealed(&late)).unwrap();
    for words in READS {
        assert_eq!(run(&root, words).stderr, "", "{words}");
    }
    run(&root, "state history --since 1h");
    run(&root, "report --since 1h -o -").showing("in the future");
    root.ok("state set n:=1");
    let rows = root.run("state history --json").expect(0).json();
    assert_eq!((&rows[0]["revision"], &rows[1]["revision"]), (&2.into(), &1.into()));
}
