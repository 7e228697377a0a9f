//! `recover checkpoint` and `recover restore`: their contents, their results, and refusals.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::sandbox::{Ran, Sandbox, until};
use crate::snapshots::{
    Whole, assert_tidy, change_all, configure, twin, with_checkpoint, with_small_checkpoint,
};

pub const RESTORE: &str = "recover restore --latest good";

/// The directory of the only checkpoint of an operation.
pub fn checkpoint(root: &Sandbox, operation: &str) -> PathBuf {
    let mut found =
        root.names(".checkpoints").into_iter().filter(|id| id.ends_with(&format!("-{operation}")));
    root.file(".checkpoints").join(found.next().unwrap())
}

// ---- contents and results ----

#[test]
fn the_original_commands_work_as_documented() {
    let root = Sandbox::initialized();
    let made = root
        .run_args(&["recover", "checkpoint", "deployment", "phase6", r#"{"version":"1.2.3"}"#])
        .expect(0);
    let id = made.stdout.trim_end().strip_prefix("Checkpoint created: ").unwrap().to_owned();
    assert!(
        id.starts_with("checkpoint-2")
            && id.ends_with("-deployment")
            && id.len() == "checkpoint-20231101-103000-deployment".len()
    );
    let metadata: Value = serde_json::from_slice(
        &fs::read(root.file(".checkpoints").join(&id).join("metadata.json")).unwrap(),
    )
    .unwrap();
    assert_eq!(
        (&metadata["id"], &metadata["operation"], &metadata["phase"]),
        (&json!(id), &json!("deployment"), &json!("phase6"))
    );
    assert_eq!(metadata["metadata"], json!({"version": "1.2.3"}));
    assert!(
        metadata["pid"].is_number()
            && metadata["hostname"].is_string()
            && metadata["timestamp"].is_string()
    );
    root.ok("state phase changed");
    assert_eq!(root.ok(&format!("recover restore {id}")), format!("Checkpoint restored: {id}"));
    assert_eq!(root.ok("state phase"), "pre-init");
    assert!(root.ok("recover list").lines().nth(2).unwrap().starts_with(&id));
    assert_eq!(root.run("recover list json").expect(0).json().as_array().unwrap().len(), 2);
    root.run_args(&[
        "recover",
        "degrade",
        "database-unavailable",
        r#"["real-time-updates", "notifications"]"#,
    ])
    .expect(0);
    assert_eq!(root.run("recover degraded notifications").code, 0);
    root.ok("recover recover-mode");
    assert_eq!(root.run("recover degraded notifications").code, 1);
}

#[test]
fn a_restore_is_exact_to_the_byte_mode_and_time() {
    let root = Sandbox::with_history();
    configure(&root);
    root.ok("state signal EARLY");
    let (before, lineage) = (Whole::of(&root), root.document()["metadata"]["lineage"].clone());
    root.ok("recover checkpoint good");
    change_all(&root);
    assert_ne!(Whole::of(&root), before);
    let revision = root.revision();
    root.ok(RESTORE);
    assert_eq!(Whole::of(&root), before);
    assert_eq!(
        (root.revision(), &root.document()["metadata"]["lineage"]),
        (revision + 1, &lineage)
    );
    assert_tidy(&root, "after a restore");
    assert_eq!(root.ok("state validate"), "State validation: PASSED");
    // the replaced state is a checkpoint as well
    root.ok("recover restore --latest pre-restore");
    assert_eq!(root.document()["n"], 7);
    assert!(root.file("config/new").exists() && !root.file("config/empty file").exists());
}

#[test]
fn a_restore_works_whatever_the_state_has_become() {
    type Spoil = fn(&Sandbox);
    let edit: Spoil = |root| {
        root.overwrite(fs::read_to_string(root.state()).unwrap().replace("\"n\": 7", "\"n\": 8"))
    };
    let older: Spoil =
        |root| root.overwrite(r#"{"phase":3,"completedTasks":[],"signals":{},"lastActivation":1}"#);
    let spoils: [(&str, Spoil); 7] = [
        ("garbage", |root| root.overwrite("\0garbage")),
        ("empty", |root| root.overwrite("")),
        ("missing", |root| fs::remove_file(root.state()).unwrap()),
        ("missing with its history", |root| {
            fs::remove_file(root.state()).unwrap();
            fs::remove_dir_all(root.file(".state-backups")).unwrap();
        }),
        ("of an older schema", older),
        ("edited", edit),
        ("as it was", |_| {}),
    ];
    let start = with_checkpoint();
    let wanted = crate::snapshots::restored(&start);
    let lineage = start.document()["metadata"]["lineage"].clone();
    for (what, spoil) in spoils {
        let root = twin(&start);
        spoil(&root);
        let bytes = fs::read(root.state()).ok();
        root.run(RESTORE).expect(0);
        assert_eq!(Whole::of(&root), wanted, "{what}");
        assert_eq!(root.document()["metadata"]["lineage"], lineage, "{what}");
        // The replaced state is in the pre-restore checkpoint unchanged, and kept beside the
        // backups.
        let before = fs::read(checkpoint(&root, "pre-restore").join("state.json")).ok();
        assert_eq!(before, bytes, "{what}");
        let kept = root.snapshot().iter().any(|(path, kept)| {
            path.starts_with(root.file(".state-backups")) && Some(kept) == bytes.as_ref()
        });
        assert!(kept || bytes.is_none(), "{what}");
        root.ok("recover verify");
        root.ok("state set y:=1");
        assert_tidy(&root, what);
    }
}

#[test]
fn a_restore_removes_what_the_checkpoint_lacks() {
    // no configuration at the checkpoint, so none after its restore
    let root = Sandbox::with_history();
    root.ok("recover checkpoint bare");
    configure(&root);
    root.ok("recover checkpoint full");
    root.ok("recover restore --latest bare");
    assert!(!root.file("config").exists());
    root.ok("recover restore --latest full");
    assert!(root.file("config/deep/er/est/binary").exists());
    fs::remove_dir_all(root.file("config/empty")).unwrap();
    Ran::of(root.program("chmod").args(["-R", "u+w", "config"]).output().unwrap());
    fs::remove_dir_all(root.file("config")).unwrap();
    fs::remove_dir_all(root.file(".signals")).unwrap();
    root.ok("recover restore --latest full");
    assert!(root.file("config/empty").is_dir() && root.file(".signals").is_dir());
    assert_tidy(&root, "full");
}

#[test]
fn the_configuration_lies_in_the_root_wherever_the_state_is() {
    let outer = Sandbox::empty();
    for name in ["project", "elsewhere"] {
        fs::create_dir(outer.file(name)).unwrap();
    }
    fs::create_dir(outer.file("project/config")).unwrap();
    fs::write(outer.file("project/config/a"), "1").unwrap();
    let run = |words: &str| {
        let (root, state) = (outer.file("project"), outer.file("elsewhere/state.json"));
        let mut command = outer.command();
        command.arg("--root").arg(root).arg("--state-file").arg(state).args(words.split(' '));
        Ran::of(command.output().unwrap()).expect(0)
    };
    run("state init");
    run("recover checkpoint good");
    fs::write(outer.file("project/config/a"), "2").unwrap();
    run(RESTORE);
    assert_eq!(fs::read_to_string(outer.file("project/config/a")).unwrap(), "1");
    assert_eq!(outer.names("project"), ["config"]);
    assert!(outer.file("elsewhere/.checkpoints").is_dir());
}

#[test]
fn checkpoints_of_one_second_are_distinct_and_ordered() {
    let root = Sandbox::initialized();
    for n in 1..=12 {
        root.ok(&format!("state set n:={n}"));
        root.ok("recover checkpoint same");
    }
    assert_eq!(root.names(".checkpoints").len(), 12);
    root.ok("recover restore --latest same");
    assert_eq!(root.document()["n"], 12);
    // `latest` skips pre-restore checkpoints unless they are named
    root.ok("state set n:=13");
    root.ok("recover restore --latest");
    assert_eq!(root.document()["n"], 12);
}

#[test]
fn a_dry_run_shows_the_differences_and_makes_none() {
    let root = with_checkpoint();
    let before = root.snapshot();
    let told = root.ok("recover restore --latest --dry-run");
    for words in [
        ".n: 7 -> 3",
        "config/new: ",
        "(absent)",
        "config/empty: \"a directory, mode 0700\" -> \"a directory, mode 0711\"",
        ".signals/LATE.json",
    ] {
        assert!(told.contains(words), "{words} is not in\n{told}");
    }
    assert_eq!(root.snapshot(), before);
    root.run("recover restore --latest --if-revision 2").expect(75).saying("not 2");
    root.run("recover restore --latest --fence deploy:7")
        .expect(1)
        .saying("deploy:7 is no longer on record");
    assert_eq!(Whole::of(&root), Whole::of(&twin(&root)));
}

// ---- locks ----

#[test]
fn a_restore_waits_for_the_holder_of_the_configuration() {
    let root = with_small_checkpoint();
    for lock in ["config", "signals", "state"] {
        let mut holder = root.holder(lock);
        root.run("recover checkpoint x --lock-timeout 0.1").expect(2).saying(lock);
        root.run(&format!("{RESTORE} --lock-timeout 0.1")).expect(2);
        let waiting = root.spawn("recover checkpoint waited --lock-timeout 60");
        until("it waits", || {
            root.rows().iter().any(|row| row["lock"] == lock && row["status"] == "waiting")
        });
        holder.go();
        let ran = Ran::of(waiting.wait_with_output().unwrap());
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        assert_eq!(root.rows().iter().filter(|row| row["status"] == "waiting").count(), 0);
    }
    // nothing is kept
    assert!(root.rows().iter().all(|row| row["status"] == "stale"), "{:?}", root.rows());
}

#[test]
fn a_wait_for_the_configuration_blocks_no_other_command() {
    let root = with_small_checkpoint();
    // the holder commits while a checkpoint waits for it; neither reports a deadlock
    let mut holder = root.script(
        "bash",
        "$B lock acquire config 0 -q; echo held; read -r _; $B state set y:=2; echo $?; \
         $B lock release config; read -r _",
    );
    holder.until("held");
    let waiting = root.spawn("recover checkpoint waited --lock-timeout 60");
    until("it waits", || {
        root.rows().iter().any(|row| row["lock"] == "config" && row["status"] == "waiting")
    });
    root.ok("state set z:=1");
    holder.go();
    assert!(holder.line().starts_with("State updated"));
    assert_eq!(
        (holder.line(), holder.line()),
        ("0".to_owned(), "Lock released: config".to_owned())
    );
    assert_eq!(Ran::of(waiting.wait_with_output().unwrap()).expect(0).code, 0);
}

#[test]
fn locks_of_the_script_are_used_and_kept() {
    let root = with_small_checkpoint();
    let script = "$PIPELINE_BINARY lock acquire state,config,signals -q && \
                  $PIPELINE_BINARY recover checkpoint mine -q && \
                  $PIPELINE_BINARY recover restore --latest mine -q && \
                  $PIPELINE_BINARY lock list json; \
                  $PIPELINE_BINARY lock release state,config,signals";
    let ran = root.bash(script).expect(0);
    let rows: Value = serde_json::from_str(ran.stdout.lines().next().unwrap()).unwrap();
    assert_eq!(rows.as_array().unwrap().len(), 3, "{rows}");
    // in any order of its locks
    root.bash(
        "$PIPELINE_BINARY lock acquire user -q && $PIPELINE_BINARY recover checkpoint \
               under-user -q; c=$?; $PIPELINE_BINARY lock release user -q; exit $c",
    )
    .expect(0);
}

// ---- keeping house ----

#[test]
fn old_checkpoints_go_but_never_the_newest() {
    let root = with_small_checkpoint();
    let dir = root.file(".checkpoints");
    let rename = |from: &str, to: &str| fs::rename(dir.join(from), dir.join(to)).unwrap();
    for (day, operation) in [("20200101", "a"), ("20200102", "b"), ("20200103", "c")] {
        root.ok(&format!("recover checkpoint {operation}"));
        let made = checkpoint(&root, operation).file_name().unwrap().to_str().unwrap().to_owned();
        rename(&made, &format!("checkpoint-{day}-000000-{operation}"));
    }
    let left = |root: &Sandbox| root.names(".checkpoints").len();
    assert_eq!(root.ok("recover cleanup --keep 3"), "Cleaned 1 checkpoint");
    assert_eq!(root.ok("recover cleanup 10000"), "Cleaned 0 checkpoints");
    assert_eq!(root.ok("recover cleanup"), "Cleaned 2 checkpoints");
    assert_eq!(left(&root), 1);
    assert_eq!(root.ok("recover cleanup 0"), "Cleaned 0 checkpoints");
    assert_tidy(&root, "cleanup");
    // a name without a time is not from this program, so it stays
    fs::create_dir(dir.join("checkpoint-of-somebody")).unwrap();
    root.ok("recover cleanup 0");
    assert!(dir.join("checkpoint-of-somebody").exists());
}

#[test]
fn the_newest_checkpoint_that_can_be_restored_stays_too() {
    let root = Sandbox::with_history();
    for operation in ["old", "sound", "torn"] {
        root.ok(&format!("recover checkpoint {operation}"));
    }
    fs::remove_file(checkpoint(&root, "torn").join("manifest.json")).unwrap();
    assert_eq!(root.ok("recover cleanup 0"), "Cleaned 1 checkpoint");
    let left = root.names(".checkpoints");
    assert!(left.len() == 2 && left.iter().any(|id| id.ends_with("-sound")), "{left:?}");
    root.ok("state set n=1");
    root.ok(&format!("recover restore {}", checkpoint(&root, "sound").display()));
}

#[test]
fn everything_is_on_record_in_the_audit_log() {
    let root = with_small_checkpoint();
    root.ok(RESTORE);
    root.ok("recover cleanup 0");
    let log = fs::read_to_string(root.file("audit.log")).unwrap();
    for line in [
        "error-recovery/checkpoint: created id=checkpoint-",
        "state-manager/restore: committed revision=",
        "error-recovery/restore: restored id=checkpoint-",
        "error-recovery/cleanup: removed ids=",
        "lock-manager/acquire: granted lock=config",
        "lock-manager/release: released lock=signals",
    ] {
        assert!(log.contains(line), "{line} is not in\n{log}");
    }
    assert!(root.ok("state history").lines().nth(1).unwrap().contains("recover restore"));
}

#[test]
fn latest_is_the_last_of_a_second_after_removals_too() {
    let root = Sandbox::initialized();
    let second = |id: &str| id.split('-').nth(2).unwrap().to_owned();
    let id_of = |said: String| said.rsplit(' ').next().unwrap().to_owned();
    let mut shown = false;
    for attempt in 0..20 {
        // operations with names in the wrong order
        root.ok(&format!("state set n:={attempt}"));
        let first = id_of(root.ok("recover checkpoint z"));
        let second_made = id_of(root.ok("recover checkpoint z"));
        root.ok("recover cleanup 0");
        root.ok("state set n:=100");
        let last = id_of(root.ok("recover checkpoint z"));
        root.ok("state set n:=200");
        let other = id_of(root.ok("recover checkpoint a"));
        if [&first, &second_made, &last].iter().any(|id| second(id) != second(&other)) {
            continue; // a second began in between
        }
        shown = true;
        assert!(!root.file(".checkpoints").join(&first).exists(), "{first} was removed");
        let plan = |words: &str| {
            root.run(&format!("recover restore --latest {words} --dry-run --json")).expect(0).stdout
        };
        assert!(plan("z").contains("100"), "{last} is the latest of z: {}", plan("z"));
        root.ok("recover restore --latest");
        assert_eq!(root.document()["n"], 200, "{other} is the latest of all");
        let listed = root.run("recover list json").expect(0).json();
        let newest = listed
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["id"].as_str().unwrap().to_owned())
            .take(3);
        let newest: Vec<String> = newest.collect();
        assert_eq!(newest[1..], [other, last]);
        break;
    }
    assert!(shown, "this machine makes no four checkpoints within a second");
}

#[test]
fn many_at_once_all_come_about() {
    let sandbox = Sandbox::initialized();
    let start =
        |n: usize| sandbox.spawn(&format!("recover checkpoint operation-{n} --lock-timeout 60"));
    let children: Vec<_> = (0..16).map(start).collect();
    for child in children {
        Ran::of(child.wait_with_output().unwrap()).expect(0);
    }
    assert_eq!(sandbox.names(".checkpoints").len(), 16);
}

/// The clock was ahead when the first one was made.
#[test]
fn latest_is_the_newest_even_after_the_clock_went_back() {
    let root = Sandbox::with_history();
    root.ok("recover checkpoint early");
    let early = root.names(".checkpoints").remove(0);
    let ahead = "checkpoint-20991231-235959-early";
    fs::rename(root.file(".checkpoints").join(early), root.file(".checkpoints").join(ahead))
        .unwrap();
    root.ok("state set n:=7");
    for operation in ["late", "late", "later"] {
        root.ok(&format!("recover checkpoint {operation}"));
    }
    root.ok("state set n:=8");
    let listed = root.run("recover list --json").expect(0).json();
    let operations: Vec<&str> =
        listed.as_array().unwrap().iter().map(|row| row["operation"].as_str().unwrap()).collect();
    assert!(
        operations == ["early", "late", "late", "later"]
            || operations == ["later", "late", "late", "early"]
    );
    root.ok("recover restore --latest");
    assert_eq!(root.ok("state get .n"), "7");
}
