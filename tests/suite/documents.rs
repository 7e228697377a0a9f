//! Contract, §4: accepted, kept and refused documents.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::sandbox::Sandbox;

/// Gives a changed document a matching digest, as only the program should.
pub fn reseal(text: &str) -> String {
    let at = text.find("\"digest\": \"").unwrap() + 11;
    let zeroed = format!("{}{}{}", &text[..at], "0".repeat(64), &text[at + 64..]);
    let digest: String =
        Sha256::digest(zeroed.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}{digest}{}", &text[..at], &text[at + 64..])
}

const SEED: &str = r#"{
  "schemaVersion": "1.0",
  "phase": "pre-init",
  "completedTasks": [],
  "signals": { "PHASE1_START": 1635789123.456, "PHASE1_COMPLETE": 1635789456.789 },
  "lastActivation": "SPEC_GEN_V1",
  "metadata": { "created": "2023-11-01T10:30:00Z", "lastModified": "2023-11-01T10:35:00Z" },
  "degradedMode": { "enabled": false, "reason": "", "timestamp": "", "disabledFeatures": [] }
}"#;

const LEGACY: [(&str, &str); 6] = [
    ("smallest", r#"{"phase":"pre-init","completedTasks":[],"signals":{},"lastActivation":""}"#),
    (
        "template",
        r#"{"phase":"{{PHASE}}","completedTasks":[],"lastActivation":"",
        "signals":{"A":null,"B":null,"C":null,"D":null,"E":null,"F":null,"G":null,"H":null},
        "metadata":{"version":"3.0","name":"{{NAME}}"},"context":{"x":[1,{"y":2}]},
        "statistics":{"runs":0}}"#,
    ),
    (
        "epochs",
        concat!(
            r#"{"phase":"1.5","completedTasks":["a"],"signals":{"A":1635789123,"B":true},"#,
            r#""lastActivation":""}"#
        ),
    ),
    ("numeric phase", r#"{"phase":1.5,"completedTasks":[],"signals":{},"lastActivation":7}"#),
    (
        "times at the top",
        concat!(
            r#"{"phase":"x","completedTasks":[],"signals":{},"lastActivation":"","#,
            r#""created":"2023-01-01T00:00:00Z","lastModified":"2023-01-02T00:00:00Z"}"#
        ),
    ),
    (
        "0.9",
        concat!(
            r#"{"schemaVersion":"0.9","phase":"x","completedTasks":[],"signals":{},"#,
            r#""lastActivation":""}"#
        ),
    ),
];

#[test]
fn legacy_documents_are_read_migrated_sealed_and_can_be_had_back() {
    for (what, text) in LEGACY {
        let sandbox = Sandbox::holding(text);
        let before = sandbox.snapshot();
        let read = sandbox.run("state read").expect(0).json();
        assert_eq!(
            (&read["schemaVersion"], &read["metadata"]["migrated"]),
            (&"1.0".into(), &true.into()),
            "{what}"
        );
        sandbox.run("state validate").expect(0);
        sandbox.run("state migrate --dry-run").expect(0);
        assert_eq!(sandbox.snapshot(), before, "{what}: reading changed something");
        let from = if what == "0.9" { "0.9" } else { "legacy" };
        assert_eq!(sandbox.ok("state migrate"), format!("State migrated: {from} -> 1.0"), "{what}");
        assert_eq!(sandbox.ok("state migrate"), "State is already at schema 1.0");
        assert_eq!(
            (sandbox.revision(), sandbox.document()["metadata"]["migratedFrom"].as_str()),
            (1, Some(from))
        );
        let pinned = sandbox.shelf("state-");
        assert!(pinned.len() == 1 && pinned[0].contains("-r0-pre-migration"), "{pinned:?}");
        assert_eq!(
            fs::read_to_string(sandbox.file(".state-backups").join(&pinned[0])).unwrap(),
            text,
            "{what}"
        );
        assert!(
            sandbox.ok("state recover").contains("pre-migration"),
            "the hint at the old document"
        );
    }
}

#[test]
fn a_migration_makes_open_files_private() {
    let open_to_all =
        |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let sandbox = Sandbox::holding(LEGACY[0].1);
    open_to_all(&sandbox.state(), 0o644);
    let told = sandbox.run("state init").expect(0);
    assert_eq!(told.stderr, "", "nothing but a copy was open");
    assert_eq!(sandbox.ok("recover doctor"), "No problems found");

    let sandbox = Sandbox::holding(LEGACY[0].1);
    open_to_all(&sandbox.state(), 0o644);
    for name in [".state-backups", ".locks", ".checkpoints", ".signals"] {
        fs::create_dir(sandbox.file(name)).unwrap();
        open_to_all(&sandbox.file(name), 0o755);
    }
    let backup = sandbox.file(".state-backups/state-20231101-103000-auto.json");
    fs::write(&backup, LEGACY[0].1).unwrap();
    open_to_all(&backup, 0o644);
    let told = sandbox.run("state init").expect(0).stderr;
    for name in [".state-backups", ".locks", ".checkpoints", ".signals"] {
        let warning = format!("{} had mode 0755, looser than 0700", sandbox.file(name).display());
        assert!(told.contains(&warning), "{warning}\n{told}");
    }
    assert_eq!(sandbox.ok("recover doctor"), "No problems found");
    assert_eq!(sandbox.run("state init").expect(0).stderr, "", "once is enough");
}

#[test]
fn the_seeds_document_is_kept_to_the_digit() {
    let sandbox = Sandbox::holding(SEED);
    sandbox.ok("state init");
    sandbox.ok("state set phase=build");
    let text = fs::read_to_string(sandbox.state()).unwrap();
    assert!(text.contains("\"PHASE1_START\": 1635789123.456"), "{text}");
    assert!(text.contains("\"created\": \"2023-11-01T10:30:00Z\""));
    assert_eq!(sandbox.document()["metadata"].get("migrated"), None);
}

#[test]
fn order_digits_and_unknown_fields_survive_every_way_of_writing() {
    let numbers =
        r#"[1635789123.456,9223372036854775808,18446744073709551616,1e400,1E5,-0,1.0,0.10]"#;
    let sandbox = Sandbox::initialized();
    sandbox
        .run_args(&[
            "state",
            "set",
            &format!("numbers:={numbers}"),
            "z=1",
            "a=2",
            "\"odd key\".x=3",
        ])
        .expect(0);
    sandbox.ok("state update .phase=\"x\"");
    let document = fs::read(sandbox.state()).unwrap();
    sandbox.feed("state write -", &document).expect(0);
    assert_eq!(sandbox.ok("state get .numbers"), numbers);
    let text = fs::read_to_string(sandbox.state()).unwrap();
    let places: Vec<_> = ["\"numbers\"", "\"z\"", "\"a\"", "\"odd key\""]
        .map(|key| text.find(key).unwrap())
        .to_vec();
    assert!(places.is_sorted(), "{text}");
}

#[test]
fn an_update_keeps_the_order_of_keys_even_where_jq_programs_would_not() {
    let sandbox = Sandbox::initialized();
    sandbox.ok("state set a=1 b=2 c=3 d=4");
    sandbox.run_args(&["state", "update", ".b |= empty | .e = 5"]).expect(0);
    let text = sandbox.ok("state read");
    let places: Vec<_> = ["\"phase\"", "\"a\"", "\"c\"", "\"d\"", "\"e\""]
        .map(|key| text.find(key).unwrap())
        .to_vec();
    assert!(places.is_sorted() && !text.contains("\"b\""), "{text}");
}

#[test]
fn the_digest_matches_sed_and_sha256sum() {
    let sandbox = Sandbox::with_history();
    let script = r#"F=.workflow-state.json
        d=$(sed -n 's/^    "digest": "\(.*\)".*/\1/p' $F)
        test "$(sed "s/$d/$(printf %064d 0)/" $F | sha256sum | cut -d' ' -f1)" = "$d""#;
    assert_eq!(sandbox.bash(script).code, 0);
}

#[test]
fn a_writers_own_values_for_our_fields_are_ignored() {
    let sandbox = Sandbox::with_history();
    let before = sandbox.document()["metadata"].clone();
    sandbox.ok("state update del(.metadata)|.x=1");
    sandbox.ok(concat!(
        r#"state update .metadata={"revision":77,"lineage":"mine","digest":"0","#,
        r#""created":"1970"}|.x=2"#
    ));
    let after = sandbox.document()["metadata"].clone();
    assert_eq!((&after["lineage"], &after["created"]), (&before["lineage"], &before["created"]));
    assert_eq!(sandbox.revision(), 6);
    sandbox.run("state validate").expect(0);
}

#[test]
fn a_change_that_alters_nothing_commits_nothing() {
    let sandbox = Sandbox::with_history();
    let before = sandbox.snapshot();
    for words in [
        "state update .",
        "state set n:=3",
        "state phase pre-init",
        "state update .metadata.revision=9",
    ] {
        assert_eq!(sandbox.ok(words), "State unchanged: revision 4", "{words}");
    }
    assert_eq!(sandbox.snapshot(), before);
}

#[test]
fn bad_input_is_refused_with_4_and_the_state_stays_as_it_is() {
    let sandbox = Sandbox::with_history();
    let before = sandbox.snapshot();
    let deep = format!("{}1{}", "[".repeat(10_000), "]".repeat(10_000));
    let inputs: [(&str, String); 12] = [
        ("empty", String::new()),
        ("no JSON", "garbage".into()),
        ("equal keys", r#"{"a":1,"a":2}"#.into()),
        (
            "NaN",
            r#"{"phase":"x","completedTasks":[],"signals":{},"lastActivation":"","n":NaN}"#.into(),
        ),
        ("deep", deep.clone()),
        ("an array", "[]".into()),
        (
            "a phase that is a list",
            r#"{"phase":[1],"completedTasks":[],"signals":{},"lastActivation":""}"#.into(),
        ),
        ("no phase", r#"{"completedTasks":[],"signals":{},"lastActivation":""}"#.into()),
        (
            "metadata that is a list",
            concat!(
                r#"{"phase":"","completedTasks":[],"signals":{},"lastActivation":"","#,
                r#""metadata":[]}"#
            )
            .into(),
        ),
        (
            "a signal that is a list",
            r#"{"phase":"","completedTasks":[],"signals":{"A":[]},"lastActivation":""}"#.into(),
        ),
        (
            "newer",
            concat!(
                r#"{"schemaVersion":"1.1","phase":"","completedTasks":[],"signals":{},"#,
                r#""lastActivation":""}"#
            )
            .into(),
        ),
        (
            "17 MiB",
            format!(
                r#"{{"phase":"{}","completedTasks":[],"signals":{{}},"lastActivation":""}}"#,
                "x".repeat(17 << 20)
            ),
        ),
    ];
    for (what, input) in inputs {
        let ran = sandbox.feed("state write -", input.as_bytes());
        assert_eq!(ran.code, 4, "{what}: {}", ran.stderr);
        assert_eq!(sandbox.snapshot(), before, "{what}");
    }
    for args in [
        vec!["state", "update", ".x = nan"],
        vec!["state", "update", ".x = infinite"],
        vec!["state", "update", ".phase"],
        vec!["state", "update", "empty"],
        vec!["state", "update", "., ."],
        vec!["state", "update", ".phase = 1"],
        vec!["state", "update", ".a.b.c |"],
        vec!["state", "update", "no_such_function"],
        vec!["state", "update", ".phase.x = 1"],
        vec!["state", "update", "error(\"no\")"],
        vec!["state", "update", "reduce range(200) as $i (.; {x: .})"],
        vec!["state", "set", "phase:=1"],
        vec!["state", "set", "phase.x=1"],
        vec!["state", "set", "nonsense"],
        vec!["state", "set", "a:={"],
        vec!["state", "set", "a[7]=1"],
        vec!["state", "set", &format!("a:={deep}")],
        vec!["state", "update", ".a = $x", "--argjson", "x", "{\"a\":1,\"a\":2}"],
        vec![
            "state",
            "update",
            ".a = $x",
            "--argjson",
            "x",
            &format!("\"{}\"", "x".repeat(65 << 10)),
        ],
        vec!["state", "signal", "../x"],
        vec!["state", "signal", "X", "--metadata", "{"],
        vec!["state", "backup", "../x"],
        vec!["state", "backup", "a b"],
        vec!["state", "phase", ""],
        vec!["state", "get", ".phase.x"],
        vec!["state", "get", "phase"],
    ] {
        sandbox.run_args(&args).expect(4);
        assert_eq!(sandbox.snapshot(), before, "{args:?}");
    }
}

#[test]
fn writing_a_document_of_the_old_libraries_migrates_it() {
    let root = Sandbox::initialized();
    let old =
        br#"{"phase":3,"completedTasks":null,"signals":null,"lastActivation":"z","own":1.50}"#;
    for hopeless in
        [&b"{}"[..], br#"{"phase":[],"completedTasks":[],"signals":{},"lastActivation":""}"#]
    {
        root.feed("state write -", hopeless).expect(4);
        root.feed("state write - --migrate", hopeless).expect(4);
    }
    assert_eq!(root.document()["metadata"]["revision"], 1);
    let meant = root.feed("state write - --migrate", old).expect(0);
    assert_eq!(meant.stderr, "");
    let written = root.document();
    assert_eq!((&written["phase"], &written["signals"]), (&json!("3"), &json!({})));
    assert_eq!(written["own"].to_string(), "1.50");
    assert_eq!(written["metadata"]["migratedFrom"], "legacy");
    root.feed("state write -", old).expect(0).saying("older form (legacy)");
    assert_eq!(root.document()["phase"], "3");
    // a correct one stays
    root.run("state set n=1").expect(0);
    root.bash("$PIPELINE_BINARY state read | $PIPELINE_BINARY state write - --migrate").expect(0);
    let metadata = root.document()["metadata"].clone();
    assert_eq!(metadata["revision"], 3, "nothing was to be brought to anything");
}

#[test]
fn a_document_that_is_no_state_is_not_taken_for_one() {
    let package = r#"{"name":"my-package","version":"1.0.0"}"#;
    let sandbox = Sandbox::holding(package);
    for words in ["state read", "state set a=b", "state init", "state validate"] {
        sandbox.run(words).expect(4).saying(".phase");
    }
    assert_eq!(fs::read_to_string(sandbox.state()).unwrap(), package);
}

#[test]
fn the_parsers_private_key_is_an_ordinary_key() {
    let sandbox = Sandbox::initialized();
    let odd = r#"{"$serde_json::private::Number":"12"}"#;
    sandbox.run_args(&["state", "set", &format!("odd:={odd}")]).expect(0);
    sandbox.ok("state set x=1");
    assert_eq!(sandbox.ok("state get .odd"), odd);
    assert_eq!(
        sandbox.run_args(&["state", "get", ".odd | keys[]"]).expect(0).stdout,
        "$serde_json::private::Number\n"
    );
}

#[test]
fn validate_checks_a_file_as_input() {
    let sandbox = Sandbox::initialized();
    fs::write(sandbox.file("good.json"), LEGACY[0].1).unwrap();
    fs::write(sandbox.file("bad.json"), r#"{"phase":1,"signals":{"A":[]}}"#).unwrap();
    assert_eq!(sandbox.ok("state validate good.json"), "State validation: PASSED");
    let ran = sandbox.run("state validate bad.json").expect(4);
    assert_eq!(
        ran.stdout.lines().count(),
        2,
        "the verdict, and what no migration mends: {}",
        ran.stdout
    );
    sandbox.run("state validate missing.json").expect(5);
    sandbox.feed("state validate -", b"{\"a\":1,\"a\":1}").expect(4);
}

/// Documents that are valid or invalid everywhere alike.
const JUDGED: [(&str, i32); 12] = [
    (LEGACY[0].1, 0),
    (LEGACY[1].1, 0),
    (LEGACY[3].1, 0),
    (LEGACY[4].1, 0),
    (LEGACY[5].1, 0),
    (SEED, 0),
    (
        concat!(
            r#"{"schemaVersion":"1.0","phase":2,"completedTasks":[],"signals":null,"#,
            r#""lastActivation":null}"#
        ),
        0,
    ),
    (r#"{"phase":"x"}"#, 0),
    (r#"{"phase":[]}"#, 4),
    (
        concat!(
            r#"{"schemaVersion":"1.7","phase":"x","completedTasks":[],"signals":{},"#,
            r#""lastActivation":""}"#
        ),
        4,
    ),
    (
        concat!(
            r#"{"schemaVersion":"1.0","phase":"x","completedTasks":{},"signals":{},"#,
            r#""lastActivation":""}"#
        ),
        4,
    ),
    (r#"{"name":"my-package"}"#, 4),
];

#[test]
fn a_file_and_the_live_state_are_validated_alike_and_write_agrees() {
    for (text, code) in JUDGED {
        let live = Sandbox::holding(text);
        let of_live = live.run("state validate --json").json();
        let of_file = live.run("state validate .workflow-state.json --json").json();
        for (what, verdict) in [("live", &of_live), ("file", &of_file)] {
            assert_eq!(verdict["valid"], code == 0, "{what}: {text}");
        }
        assert_eq!(live.run("state validate").code, code, "{text}");
        assert_eq!(live.run("state validate .workflow-state.json").code, code, "{text}");
        assert_eq!(live.run("state get .phase").code, code, "{text}");
        let root = Sandbox::initialized();
        assert_eq!(root.feed("state write -", text.as_bytes()).code, code, "{text}");
    }
}
