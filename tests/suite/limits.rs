//! Readers accept everything that writers accept: the limits are the same on both sides.

use std::fs;
use std::path::Path;

use pipeline_state::audit::{Audit, AuditEntry, ErrorLog, LINE_LIMIT, Level};
use pipeline_state::document::json::{self as text, MAX_DEPTH};
use pipeline_state::document::seal::{Digest, Revision};
use pipeline_state::document::{OWN_ROOM, WRITE_LIMIT};
use pipeline_state::error::Kind;
use pipeline_state::fs::Disk;
use pipeline_state::name::{MAX_LENGTH, MAX_OPERATION, Name};
use pipeline_state::store::checkpoint::manifest::{self, Metadata};
use pipeline_state::store::layout::{BackupName, automatic_reason, manual_reason, matches};
use pipeline_state::store::signal::SignalFile;
use pipeline_state::tree::{DEPTH, Entry as TreeEntry, Listing, What};
use proptest::option;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::properties::value;
use crate::sandbox::Sandbox;

// ---- generators of boundary values ----

/// Numbers around a limit.
fn around(limit: usize) -> impl Strategy<Value = usize> {
    prop_oneof![Just(0), Just(1), Just(limit - 1), Just(limit), Just(limit + 1), 0..limit * 2]
}

/// Nested arrays, to a depth around the JSON limit, with any value inside.
fn deep() -> impl Strategy<Value = Value> {
    (around(MAX_DEPTH), value())
        .prop_map(|(depth, inner)| (0..depth).fold(inner, |value, _| json!([value])))
}

fn as_name() -> impl Strategy<Value = String> {
    (around(MAX_LENGTH), "[a-z0-9][a-z0-9._-]{0,9}")
        .prop_map(|(length, end)| "a".repeat(length) + &end)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_signals_file_that_is_written_is_read(metadata in deep(), phase in "\\PC{0,9}") {
        let mut document = json!({"phase": phase, "signals": {}});
        let name = Name::parse("signal", "A").unwrap();
        let given = SignalFile::give(&mut document, &name, &metadata, std::time::SystemTime::now());
        match given {
            Ok(file) => {
                let read = text::parse(&file.content.unwrap()).unwrap();
                prop_assert_eq!(&read["metadata"], &metadata);
            }
            Err(error) => prop_assert_eq!(error.kind, Kind::InvalidJson),
        }
    }

    #[test]
    fn a_checkpoints_metadata_that_is_written_is_read(
        metadata in deep(),
        phase in option::of("\\PC{0,9}"),
    ) {
        let written = Metadata {
            id: "checkpoint-20231101-103000-x".to_owned(),
            operation: "x".to_owned(),
            phase,
            timestamp: "2023-11-01T10:30:00Z".to_owned(),
            pid: 1,
            hostname: "h".to_owned(),
            revision: Some(Revision::MAX),
            automatic: false,
            metadata,
        };
        match written.write() {
            Ok(bytes) => {
                let read = Metadata::read(&bytes).unwrap();
                prop_assert_eq!(format!("{read:?}"), format!("{written:?}"));
            }
            Err(error) => prop_assert_eq!(error.code() as u8, 4),
        }
    }

    #[test]
    fn a_manifest_that_is_written_is_read(
        count in 0..40_usize,
        length in around(255),
        limit in 0..20_000_u64,
    ) {
        let file = |number: usize| TreeEntry {
            path: format!("config/{}{number:03}", "\u{1}".repeat(length)),
            what: What::File { bytes: 0, sha256: Digest::of(b"") },
            mode: 0o600,
            mtime: (0, 0),
            acls: Default::default(),
        };
        let listing = Listing::new((0..count).map(file).collect());
        match manifest::write(&listing, limit) {
            Ok(bytes) => {
                prop_assert!(bytes.len() as u64 <= limit);
                prop_assert_eq!(manifest::read(&bytes).unwrap(), listing);
            }
            Err(error) => prop_assert_eq!(error.kind, Kind::TooLarge),
        }
    }

    #[test]
    fn a_backups_name_fits_into_a_directory_and_is_found_again(
        name in as_name(),
        reason in prop_oneof!["\\PC{0,300}", as_name()],
        revision in 1..=Revision::MAX,
    ) {
        let (given, revision) = (Name::parse("backup", &name).ok(), Revision::new(revision));
        for reason in [manual_reason(given.as_ref()), automatic_reason(&reason, "recover-mode")] {
            let backup = BackupName::new(std::time::SystemTime::now(), revision, &reason);
            prop_assert!(backup.as_str().len() + "-1000000".len() <= 255, "{}", backup.as_str());
            let read = BackupName::parse(backup.as_str()).unwrap();
            prop_assert_eq!((&read.reason, read.revision), (&reason, revision));
            prop_assert!(matches(&reason, backup.as_str()));
        }
    }

    #[test]
    fn a_line_of_a_log_that_is_written_is_read(
        message in prop_oneof![20 => "\\PC{0,40}", 1 => Just("é\u{1}".repeat(200_000))],
    ) {
        let dir = Sandbox::empty();
        let log = ErrorLog::new(Disk::real(), dir.path());
        let audit = Audit::new(Disk::real(), dir.path().join("audit.log"), dir.path());
        for code in 1..=3 {
            log.note(Level::Error, "restore", &message, code);
            audit.record(&AuditEntry::new(Level::Error, "x", &message));
        }
        prop_assert_eq!(log.last().iter().map(|noted| noted.code).collect::<Vec<_>>(), [1, 2, 3]);
        for name in [ErrorLog::NAME, "audit.log"] {
            let text = fs::read_to_string(dir.path().join(name)).unwrap();
            prop_assert_eq!(text.lines().count(), 3);
            prop_assert!(text.lines().all(|line| line.len() <= LINE_LIMIT));
        }
    }
}

// ---- documents ----

/// A document of about this many bytes.
fn large(bytes: usize) -> Value {
    json!({"schemaVersion": "1.0", "phase": "p", "completedTasks": [], "signals": {},
        "lastActivation": "",
        "large": "x".repeat(bytes)})
}

/// Padding in bytes that makes a sealed document as large as permitted.
fn padding(root: &Sandbox) -> usize {
    fs::write(root.file("new.json"), large(WRITE_LIMIT - 4096).to_string()).unwrap();
    root.ok("state write new.json -q");
    let size = fs::metadata(root.state()).unwrap().len() as usize;
    let digits = root.revision().to_string().len();
    WRITE_LIMIT - 4096 + (WRITE_LIMIT - (size + 16 - digits))
}

#[test]
fn a_document_of_any_size_that_is_accepted_can_be_healed_and_used() {
    let root = Sandbox::initialized();
    while root.revision() < 7 {
        root.ok("state set n=1");
        root.ok("state set n=2");
    }
    let most = padding(&root);
    for (bytes, code) in [(most + 1, 4), (most, 0)] {
        fs::write(root.file("new.json"), large(bytes).to_string()).unwrap();
        assert_eq!(root.run("state validate new.json").code, code, "validate of {bytes}");
        assert_eq!(root.run("state write new.json --dry-run").code, code, "a dry run of {bytes}");
        assert_eq!(root.run("state write new.json").code, code, "{bytes}");
    }
    // each of these gives it a revision with more digits, or another field
    root.ok("recover checkpoint full");
    root.ok("recover degrade slow reports");
    root.overwrite("");
    assert_eq!(root.ok("state get .phase"), "p");
    assert!(root.revision() > 9);
    root.ok("state phase q");
    root.run("state set more=x").expect(4).saying("16 MiB is the limit");
    root.ok("recover recover-mode");
    root.ok("recover restore --latest full");
    assert_eq!(root.ok("state get .phase"), "p");
    root.ok("state validate");
    assert!(fs::metadata(root.state()).unwrap().len() as usize <= WRITE_LIMIT + OWN_ROOM);
}

#[test]
fn validate_passes_no_document_that_write_refuses() {
    let root = Sandbox::initialized();
    let document = |field: &str, value: Value| {
        let mut document = large(1);
        document[field] = value;
        document
    };
    let nested = |depth: usize| (0..depth).fold(json!(1), |value, _| json!([value]));
    let cases = [
        (large(1), true),
        (document("x", nested(MAX_DEPTH - 1)), true),
        (document("x", nested(MAX_DEPTH)), false),
        (document("metadata", json!([])), false),
        (document("schemaVersion", json!("9.0")), false),
        (document("phase", json!([3])), false),
        (json!([]), false),
        (large(WRITE_LIMIT), false),
    ];
    for (case, is_fit) in cases {
        fs::write(root.file("new.json"), case.to_string()).unwrap();
        let (validated, written) =
            (root.run("state validate new.json"), root.run("state write new.json --force"));
        let shown: String = case.to_string().chars().take(80).collect();
        assert_eq!((validated.code, written.code), if is_fit { (0, 0) } else { (4, 4) }, "{shown}");
        for ran in [validated, written].iter().filter(|ran| ran.code == 4) {
            assert!(ran.stderr.contains("hint: "), "{}", ran.stderr);
        }
    }
    let old = Sandbox::holding(&large(WRITE_LIMIT + OWN_ROOM).to_string());
    assert_eq!((old.run("state validate").code, old.run("state set a=b").code), (4, 4));
    old.ok("state get .phase");
}

// ---- checkpoints ----

#[test]
fn an_operation_that_is_accepted_can_be_restored_and_longer_old_ones_too() {
    let root = Sandbox::with_history();
    for length in [MAX_OPERATION - 1, MAX_OPERATION, MAX_OPERATION + 1, MAX_LENGTH] {
        let operation = "a".repeat(length);
        if length > MAX_OPERATION {
            for words in ["checkpoint", "guard", "restore --latest"] {
                let line = format!("recover {words} {operation}");
                let line = if words == "guard" { line + " -- true" } else { line };
                root.run(&line).expect(4).saying("1 to 64 letters").saying("hint: ");
            }
            continue;
        }
        root.ok(&format!("recover checkpoint {operation}"));
        root.ok(&format!("recover restore --latest {operation}"));
    }
    // as an older release made them
    let id = root.names(".checkpoints").into_iter().find(|id| id.contains("-aaaa")).unwrap();
    let operation = "b".repeat(MAX_LENGTH);
    let old = format!("checkpoint-20230101-000000-{operation}");
    fs::rename(root.file(".checkpoints").join(id), root.file(".checkpoints").join(&old)).unwrap();
    for words in ["show", "verify", "restore", "restore --latest"] {
        let which = if words.ends_with("latest") { &operation } else { &old };
        root.ok(&format!("recover {words} {which}"));
    }
}

#[test]
fn a_tree_of_any_depth_that_is_accepted_can_be_restored() {
    for depth in [DEPTH - 1, DEPTH, DEPTH + 1] {
        let root = Sandbox::initialized();
        let inner = (0..depth).fold(root.file("config"), |path, _| path.join("d"));
        fs::create_dir_all(&inner).unwrap();
        fs::write(inner.join("f"), "x").unwrap();
        let made = root.run("recover checkpoint op");
        assert_eq!(made.code, if depth > DEPTH { 4 } else { 0 }, "{depth}");
        if made.code == 0 {
            fs::write(inner.join("f"), "y").unwrap();
            root.ok("recover verify");
            root.ok("recover restore --latest op");
            assert_eq!(fs::read_to_string(inner.join("f")).unwrap(), "x", "{depth}");
        }
    }
}

#[test]
fn of_two_checkpoints_of_one_second_none_takes_the_others_name() {
    let root = Sandbox::initialized();
    for operation in ["18446744073709551615-x", "4294967295-x", "7-x", "7"] {
        let id = |said: String| said.rsplit(' ').next().unwrap().to_owned();
        let ids: Vec<String> =
            (0..3).map(|_| id(root.ok(&format!("recover checkpoint {operation}")))).collect();
        for id in &ids {
            root.ok(&format!("recover verify {id}"));
        }
        root.ok(&format!("recover restore --latest {operation}"));
    }
    assert_eq!(root.names(".checkpoints").len(), 16);
}

// ---- files of other programs ----

#[test]
fn clutter_of_other_programs_is_no_damage_anywhere() {
    let root = Sandbox::with_history();
    fs::create_dir_all(root.file("config/empty/inner")).unwrap();
    fs::write(root.file("config/a"), "a").unwrap();
    fs::write(root.file("config/._a"), "kept while it is as it was").unwrap();
    root.ok("state signal READY");
    root.ok("state backup nightly");
    root.ok("recover checkpoint op");
    let id = root.names(".checkpoints").pop().unwrap();
    let inside = root.file(".checkpoints").join(&id);
    let litter = |dir: &Path| {
        for name in [
            ".DS_Store",
            "._x.json",
            ".nfs0001",
            "Thumbs.db",
            "a (conflicted copy 2026-01-01).json",
        ] {
            fs::write(dir.join(name), "litter").unwrap();
        }
    };
    for dir in [".state-backups", ".locks", ".signals", ".checkpoints"] {
        litter(&root.file(dir));
    }
    litter(&inside);
    litter(&inside.join("config"));
    let backup = root.shelf("state-").pop().unwrap();
    let copy = backup.replace(".json", " (conflicted copy).json");
    fs::copy(root.file(".state-backups").join(&backup), root.file(".state-backups").join(&copy))
        .unwrap();
    let listed = root.run("state backups --json").json().as_array().unwrap().len();
    assert_eq!(listed, root.shelf("state-").len() - 1, "a conflicted copy is no backup");
    // parts that git and archives do not keep
    fs::remove_dir_all(inside.join("config/empty")).unwrap();
    fs::write(inside.join("config/._a"), "changed").unwrap();
    root.ok("recover verify");
    root.ok("recover doctor");
    assert_eq!(root.run("lock list --json").expect(0).json(), json!([]));
    fs::write(root.file("config/a"), "b").unwrap();
    root.ok("recover restore --latest op");
    assert_eq!(root.names("config"), ["a", "empty"]);
    assert_eq!(root.names("config/empty"), ["inner"]);
    root.ok("recover restore --latest pre-restore");
    assert_eq!(fs::read_to_string(root.file("config/._a")).unwrap(), "kept while it is as it was");
    // a directory that held a file, and a file of this program, are damage
    fs::remove_file(inside.join("config/a")).unwrap();
    root.run(&format!("recover verify {id}")).expect(3).saying("config/a is missing");
}

// ---- age of checkpoints ----

#[test]
fn of_the_checkpoints_that_commands_make_the_newest_20_stay_for_7_days() {
    let root = Sandbox::initialized();
    root.ok("recover checkpoint mine");
    for _ in 0..22 {
        root.ok("recover guard op -q -- true");
    }
    let of = |operation: &str| {
        root.names(".checkpoints").iter().filter(|id| id.ends_with(operation)).count()
    };
    assert_eq!((of("-op"), of("-mine")), (20, 1));
    let dir = root.file(".checkpoints");
    let some = root.names(".checkpoints").into_iter().find(|id| id.ends_with("-op")).unwrap();
    fs::rename(dir.join(some), dir.join("checkpoint-20200101-000000-old")).unwrap();
    root.ok("recover restore --latest mine");
    assert_eq!((of("-old"), of("-mine"), of("-pre-restore")), (0, 1, 1));
}

#[test]
fn a_checkpoint_dated_ahead_does_not_stop_cleanup_and_is_not_the_newest() {
    let root = Sandbox::initialized();
    let dir = root.file(".checkpoints");
    let made = |operation: &str, id: &str| {
        root.ok(&format!("recover checkpoint {operation}"));
        let names = root.names(".checkpoints");
        let found =
            names.into_iter().find(|name| name.ends_with(&format!("-{operation}"))).unwrap();
        fs::rename(dir.join(found), dir.join(id)).unwrap();
    };
    made("a", "checkpoint-20200101-000000-a");
    made("b", "checkpoint-20200102-000000-b");
    made("fast", "checkpoint-20990101-000000-fast");
    assert_eq!(
        root.ok("recover cleanup --dry-run"),
        "Checkpoint would be removed: checkpoint-20200101-000000-a"
    );
    let listed = root.run("recover cleanup --dry-run --json").expect(0).json();
    assert_eq!(listed, json!({"would_remove": ["checkpoint-20200101-000000-a"]}));
    assert_eq!(root.names(".checkpoints").len(), 3);
    assert_eq!(root.ok("recover cleanup"), "Cleaned 1 checkpoint");
    // a new one takes its date, and ages all the same
    root.ok("recover checkpoint now");
    let id = root.names(".checkpoints").into_iter().find(|id| id.ends_with("-now")).unwrap();
    assert!(id.starts_with("checkpoint-2099"), "{id}");
    let metadata = dir.join(&id).join("metadata.json");
    let text = fs::read_to_string(&metadata).unwrap();
    let time =
        text.split("\"timestamp\": \"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    fs::write(&metadata, text.replace(&time, "2021-01-01T00:00:00Z")).unwrap();
    root.ok("recover checkpoint last");
    assert_eq!(root.ok("recover cleanup"), "Cleaned 1 checkpoint");
    assert!(!dir.join(&id).exists());
}

#[test]
fn a_checkpoint_is_named_by_any_beginning_that_only_it_has() {
    let root = Sandbox::initialized();
    let dir = root.file(".checkpoints");
    for (operation, time) in
        [("a", "20200101-000000"), ("b", "20200102-000000"), ("c", "20210101-000000")]
    {
        root.ok(&format!("recover checkpoint {operation}"));
        let names = root.names(".checkpoints");
        let made = names.iter().find(|id| id.ends_with(&format!("-{operation}"))).unwrap();
        fs::rename(dir.join(made), dir.join(format!("checkpoint-{time}-{operation}"))).unwrap();
    }
    root.ok("recover show checkpoint-2021");
    root.ok("recover verify 20210101");
    root.run("recover remove 2020").expect(1).saying("2 checkpoints begin with").saying("hint: ");
    root.run("recover remove 20200101 nope").expect(1);
    assert_eq!(root.names(".checkpoints").len(), 3, "nothing goes where one is not found");
    assert_eq!(
        root.run("recover remove 20200101 checkpoint-20200102-000000-b --json").expect(0).json(),
        json!({"removed": ["checkpoint-20200101-000000-a", "checkpoint-20200102-000000-b"]})
    );
    assert_eq!(root.names(".checkpoints"), ["checkpoint-20210101-000000-c"]);
    root.ok("recover restore 2021");
}

// ---- memory ----

#[test]
fn where_memory_or_stack_is_used_up_the_exit_code_says_so() {
    let root = Sandbox::initialized();
    for (filter, kib) in
        [("[range(100000000)] | {a: .[0]}", 700_000), ("def f: 1 + f; .a = f", 300_000)]
    {
        let limits = format!("ulimit -c 0 -v {kib}; unset RUST_BACKTRACE");
        let ran = root.bash(&format!("{limits}; $PIPELINE_BINARY state update '{filter}'"));
        assert_eq!(ran.code, 10, "{filter}: {ran:?}");
    }
    assert_eq!(root.ok("state get .phase"), "pre-init");
    root.ok("state set n=1");
    assert_eq!(root.debris(), Vec::<std::path::PathBuf>::new());
}
