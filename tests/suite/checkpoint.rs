//! `recover checkpoint` and `recover restore`: what they hold, what they bring back, and what is refused.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use pipeline_state::document::seal::{verified, with_digest};
use serde_json::{Value, json};

use crate::sandbox::{Ran, Sandbox, make_old, until};
use crate::script::is_permitted;
use crate::snapshots::{Whole, assert_tidy, change_all, configure, twin, with_checkpoint, with_small_checkpoint};

const RESTORE: &str = "recover restore --latest good";

/// The directory of the only checkpoint of an operation.
fn checkpoint(root: &Sandbox, operation: &str) -> PathBuf {
    let mut found = root.names(".checkpoints").into_iter().filter(|id| id.ends_with(&format!("-{operation}")));
    root.file(".checkpoints").join(found.next().unwrap())
}

// ---- what they hold and bring back ----

#[test]
fn the_seeds_commands_do_what_the_seed_says() {
    let root = Sandbox::initialized();
    let made = root.run_args(&["recover", "checkpoint", "deployment", "phase6", r#"{"version":"1.2.3"}"#]).expect(0);
    let id = made.stdout.trim_end().strip_prefix("Checkpoint created: ").unwrap().to_owned();
    assert!(
        id.starts_with("checkpoint-2")
            && id.ends_with("-deployment")
            && id.len() == "checkpoint-20231101-103000-deployment".len()
    );
    let metadata: Value =
        serde_json::from_slice(&fs::read(root.file(".checkpoints").join(&id).join("metadata.json")).unwrap()).unwrap();
    assert_eq!(
        (&metadata["id"], &metadata["operation"], &metadata["phase"]),
        (&json!(id), &json!("deployment"), &json!("phase6"))
    );
    assert_eq!(metadata["metadata"], json!({"version": "1.2.3"}));
    assert!(metadata["pid"].is_number() && metadata["hostname"].is_string() && metadata["timestamp"].is_string());
    root.ok("state phase changed");
    assert_eq!(root.ok(&format!("recover restore {id}")), format!("Checkpoint restored: {id}"));
    assert_eq!(root.ok("state phase"), "pre-init");
    assert!(root.ok("recover list").lines().nth(2).unwrap().starts_with(&id));
    assert_eq!(root.run("recover list json").expect(0).json().as_array().unwrap().len(), 2);
    root.run_args(&["recover", "degrade", "database-unavailable", r#"["real-time-updates", "notifications"]"#])
        .expect(0);
    assert_eq!(root.run("recover degraded notifications").code, 0);
    root.ok("recover recover-mode");
    assert_eq!(root.run("recover degraded notifications").code, 1);
}

#[test]
fn what_is_restored_is_equal_to_what_was_there_to_the_last_byte_mode_and_time() {
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
    assert_eq!((root.revision(), &root.document()["metadata"]["lineage"]), (revision + 1, &lineage));
    assert_tidy(&root, "after a restore");
    assert_eq!(root.ok("state validate"), "State validation: PASSED");
    // And what was there before it is a checkpoint as well.
    root.ok("recover restore --latest pre-restore");
    assert_eq!(root.document()["n"], 7);
    assert!(root.file("config/new").exists() && !root.file("config/empty file").exists());
}

#[test]
fn a_restore_works_whatever_the_state_has_become() {
    type Spoil = fn(&Sandbox);
    let edit: Spoil = |root| root.overwrite(fs::read_to_string(root.state()).unwrap().replace("\"n\": 7", "\"n\": 8"));
    let older: Spoil = |root| root.overwrite(r#"{"phase":3,"completedTasks":[],"signals":{},"lastActivation":1}"#);
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
        // What was there is in the checkpoint of before, as it was, and kept beside the backups.
        let before = fs::read(checkpoint(&root, "pre-restore").join("state.json")).ok();
        assert_eq!(before, bytes, "{what}");
        let kept = root
            .snapshot()
            .iter()
            .any(|(path, kept)| path.starts_with(root.file(".state-backups")) && Some(kept) == bytes.as_ref());
        assert!(kept || bytes.is_none(), "{what}");
        root.ok("recover verify");
        root.ok("state set y:=1");
        assert_tidy(&root, what);
    }
}

#[test]
fn what_was_not_there_is_not_there_again() {
    // No configuration when the checkpoint was made; none when it is restored.
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
fn several_of_one_second_are_told_apart_and_the_latest_is_the_last() {
    let root = Sandbox::initialized();
    for n in 1..=12 {
        root.ok(&format!("state set n:={n}"));
        root.ok("recover checkpoint same");
    }
    assert_eq!(root.names(".checkpoints").len(), 12);
    root.ok("recover restore --latest same");
    assert_eq!(root.document()["n"], 12);
    // What restores make is not meant by the latest, unless it is named.
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
    root.run("recover restore --latest --if-revision 2").expect(1).saying("not 2");
    assert_eq!(Whole::of(&root), Whole::of(&twin(&root)));
}

// ---- what is refused ----

/// Expects that every way to restore it is refused and nothing is touched.
#[track_caller]
fn is_refused(root: &Sandbox, codes: &[i32], what: &str) {
    let before = root.snapshot();
    for words in [RESTORE, "recover restore --latest --dry-run"] {
        let ran = root.run(words);
        assert!(codes.contains(&ran.code), "{what}: {} {}{}", ran.code, ran.stdout, ran.stderr);
        assert!(ran.stderr.contains("hint: "), "{what}: {}", ran.stderr);
        assert!(root.snapshot() == before, "{what}: something was touched");
    }
}

#[test]
fn no_bit_of_a_checkpoint_can_flip_unseen() {
    let start = with_small_checkpoint();
    let dir = checkpoint(&start, "good");
    let mut count = 0;
    for (path, bytes) in start.snapshot().into_iter().filter(|(path, _)| path.starts_with(&dir) && path.is_file()) {
        // Each byte of what is small, and a bit of it that goes round.
        for (place, byte) in bytes.iter().enumerate().step_by(bytes.len().div_ceil(60)) {
            let mut flipped = bytes.clone();
            flipped[place] = byte ^ (1 << (place % 8));
            fs::write(&path, flipped).unwrap();
            let ran = start.run("recover verify");
            assert!([3, 4].contains(&ran.code), "{} byte {place}: {ran:?}", path.display());
            count += 1;
        }
        let half = bytes.len() / 2;
        fs::write(&path, &bytes[..half]).unwrap();
        is_refused(&start, &[3, 4], &format!("half of {}", path.display()));
        fs::write(&path, bytes).unwrap();
    }
    assert!(count > 100);
    start.ok("recover verify");
    start.ok(RESTORE);
}

#[test]
fn what_is_missing_from_a_checkpoint_or_does_not_belong_to_it_is_refused() {
    let start = with_small_checkpoint();
    let id = checkpoint(&start, "good").file_name().unwrap().to_owned();
    type Spoil = fn(&Path);
    let spoils: [(&str, Spoil); 12] = [
        ("no manifest", |dir| fs::remove_file(dir.join("manifest.json")).unwrap()),
        ("no metadata", |dir| fs::remove_file(dir.join("metadata.json")).unwrap()),
        ("no state", |dir| fs::remove_file(dir.join("state.json")).unwrap()),
        ("no config", |dir| fs::remove_dir_all(dir.join("config")).unwrap()),
        ("a file less", |dir| fs::remove_file(dir.join("config/rules.json")).unwrap()),
        ("a file more", |dir| fs::write(dir.join("config/more"), "").unwrap()),
        ("a directory more", |dir| fs::create_dir(dir.join("more")).unwrap()),
        ("a link for a file", |dir| {
            fs::rename(dir.join("config/rules.json"), dir.join("../rules")).unwrap();
            symlink("../../rules", dir.join("config/rules.json")).unwrap();
        }),
        ("a link for a directory", |dir| {
            fs::rename(dir.join("config"), dir.join("../elsewhere")).unwrap();
            symlink("../elsewhere", dir.join("config")).unwrap();
        }),
        ("another link", |dir| {
            fs::remove_file(dir.join("config/link")).unwrap();
            symlink("/etc/passwd", dir.join("config/link")).unwrap();
        }),
        ("a link for the manifest", |dir| {
            fs::rename(dir.join("manifest.json"), dir.join("../m")).unwrap();
            symlink("../m", dir.join("manifest.json")).unwrap();
        }),
        ("a pipe", |dir| drop(UnixListener::bind(dir.join("config/s")).unwrap())),
    ];
    for (what, spoil) in spoils {
        let root = twin(&start);
        spoil(&root.file(".checkpoints").join(&id));
        is_refused(&root, if what == "a pipe" { &[3, 6] } else { &[3] }, what);
        root.run("recover list").expect(0);
        assert!([3, 6].contains(&root.run("recover verify").code), "{what}");
    }
}

#[test]
fn a_forged_manifest_leads_nowhere() {
    let start = with_small_checkpoint();
    let id = checkpoint(&start, "good").file_name().unwrap().to_owned();
    let forge = |root: &Sandbox, change: &dyn Fn(&mut Value)| {
        let path = root.file(".checkpoints").join(&id).join("manifest.json");
        let mut manifest = verified(&fs::read(&path).unwrap()).unwrap();
        manifest.as_object_mut().unwrap().shift_remove("digest");
        change(&mut manifest);
        fs::write(path, with_digest(manifest).unwrap()).unwrap();
    };
    for path in ["../../x", "/etc/passwd", "config/../../x", "config/", "x", "config/./a"] {
        let root = twin(&start);
        forge(&root, &|manifest| manifest["files"][1]["path"] = json!(path));
        is_refused(&root, &[3, 4], path);
    }
    let root = twin(&start);
    forge(&root, &|manifest| manifest["version"] = json!(2));
    is_refused(&root, &[4], "a newer manifest");
    // A state of a newer schema, with all digests right.
    let root = twin(&start);
    let state = root.file(".checkpoints").join(&id).join("state.json");
    let newer = br#"{"schemaVersion":"9.0","phase":"a","completedTasks":[],"signals":{},"lastActivation":""}"#;
    fs::write(&state, newer).unwrap();
    let digest = pipeline_state::document::seal::Digest::of(newer).as_str().to_owned();
    forge(&root, &|manifest| {
        let files = manifest["files"].as_array_mut().unwrap();
        let line = files.iter_mut().find(|line| line["path"] == "state.json").unwrap();
        (line["sha256"], line["bytes"]) = (json!(digest), json!(newer.len()));
    });
    is_refused(&root, &[4], "a newer schema");
    // The live state of a newer program is not written over.
    let root = with_small_checkpoint();
    for name in root.shelf("") {
        fs::remove_file(root.file(".state-backups").join(name)).unwrap();
    }
    root.overwrite(newer);
    make_old(&root.state());
    root.run(RESTORE).expect(4);
    assert_eq!(fs::read(root.state()).unwrap(), newer);
}

#[test]
fn names_that_are_none_and_checkpoints_that_are_not_there_are_refused() {
    let root = with_small_checkpoint();
    let before = root.snapshot();
    for (words, code) in [
        ("recover checkpoint ../x", 4),
        ("recover checkpoint a/b", 4),
        ("recover checkpoint .x", 4),
        ("recover restore ../../etc", 1),
        ("recover restore checkpoint-..", 4),
        ("recover restore checkpoint-20200101-000000-x", 1),
        ("recover restore state.json", 1),
        ("recover restore --latest nothing", 1),
        ("recover restore", 64),
        ("recover restore x --latest", 64),
        ("recover show nothing", 1),
        ("recover verify nothing", 1),
        ("recover checkpoint x a b", 64),
        ("recover cleanup soon", 64),
    ] {
        root.run(words).expect(code);
    }
    root.run_args(&["recover", "checkpoint", "x", "{broken"]).expect(4);
    root.run_args(&["recover", "checkpoint", "x", &format!("{{\"a\":\"{}\"}}", "x".repeat(70_000))]).expect(4);
    assert_eq!(root.snapshot(), before);
    Sandbox::empty().run("recover checkpoint x").expect(1).saying("state init");
    Sandbox::empty().run(RESTORE).expect(1);
    // An edit is not to be taken into a checkpoint unseen.
    root.overwrite(fs::read_to_string(root.state()).unwrap().replace("\"n\": 7", "\"n\": 8"));
    root.run("recover checkpoint x").expect(3).saying("state adopt");
}

#[test]
fn a_configuration_that_cannot_be_kept_is_refused_and_never_followed_out() {
    type Spoil = fn(&Sandbox);
    let outside = "a secret";
    let spoils: [(&str, Spoil); 4] = [
        ("a link for config", |root| {
            fs::rename(root.file("config"), root.file("real")).unwrap();
            symlink("real", root.file("config")).unwrap();
        }),
        ("a file for config", |root| {
            fs::remove_dir_all(root.file("config")).unwrap();
            fs::write(root.file("config"), "").unwrap();
        }),
        ("a socket", |root| drop(UnixListener::bind(root.file("config/s")).unwrap())),
        ("a pipe", |root| {
            rustix::fs::mknodat(
                rustix::fs::CWD,
                root.file("config/p"),
                rustix::fs::FileType::Fifo,
                rustix::fs::Mode::RUSR,
                0,
            )
            .unwrap();
        }),
    ];
    for (what, spoil) in spoils {
        let root = with_small_checkpoint();
        spoil(&root);
        let files = |root: &Sandbox| {
            let files = root.snapshot().into_iter();
            files.filter(|(path, _)| !path.starts_with(root.file(".locks"))).collect::<Vec<_>>()
        };
        let before = files(&root);
        root.run("recover checkpoint x").expect(6);
        root.run(RESTORE).expect(6);
        assert!(files(&root) == before, "{what}");
    }
    let root = with_small_checkpoint();
    fs::write(root.file("secret"), outside).unwrap();
    symlink("../secret", root.file("config/leads out")).unwrap();
    root.ok("recover checkpoint linked");
    let inside = root.snapshot().into_iter().filter(|(path, _)| path.starts_with(root.file(".checkpoints")));
    assert!(inside.into_iter().all(|(_, bytes)| bytes != outside.as_bytes()));
    if is_permitted("unshare", &["-Urm", "true"]) {
        let mounted = "mount --bind / config 2>/dev/null || mount -t tmpfs none config; exec \"$PIPELINE_BINARY\" recover checkpoint x";
        let ran = Ran::of(root.program("unshare").args(["-Urm", "bash", "-c", mounted]).output().unwrap());
        assert_eq!(ran.code, 6, "{}", ran.stderr);
        assert!(ran.stderr.contains("is a mount point"), "{}", ran.stderr);
    }
}

#[test]
fn rights_of_others_are_not_lent_by_a_restored_file() {
    let root = with_small_checkpoint();
    fs::set_permissions(root.file("config/rules.json"), fs::Permissions::from_mode(0o4755)).unwrap();
    root.ok("recover checkpoint setuid");
    root.ok("recover restore --latest setuid");
    assert_eq!(fs::metadata(root.file("config/rules.json")).unwrap().permissions().mode() & 0o7777, 0o755);
}

// ---- locks ----

#[test]
fn a_stranger_who_holds_the_configuration_is_waited_for() {
    let root = with_small_checkpoint();
    for lock in ["config", "signals", "state"] {
        let mut holder = root.holder(lock);
        root.run("recover checkpoint x --lock-timeout 0.1").expect(2).saying(lock);
        root.run(&format!("{RESTORE} --lock-timeout 0.1")).expect(2);
        let waiting = root.spawn("recover checkpoint waited --lock-timeout 60");
        until("it waits", || root.rows().iter().any(|row| row["lock"] == lock && row["status"] == "waiting"));
        holder.go();
        let ran = Ran::of(waiting.wait_with_output().unwrap());
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        assert_eq!(root.rows().iter().filter(|row| row["status"] == "waiting").count(), 0);
    }
    // Nothing is kept.
    assert!(root.rows().iter().all(|row| row["status"] == "stale"), "{:?}", root.rows());
}

#[test]
fn who_waits_for_the_configuration_is_in_nobodys_way() {
    let root = with_small_checkpoint();
    // The holder commits while a checkpoint waits for it; neither is told of a deadlock.
    let mut holder = root.script(
        "bash",
        "$B lock acquire config 0 -q; echo held; read -r _; $B state set y:=2; echo $?; $B lock release config; read -r _",
    );
    holder.until("held");
    let waiting = root.spawn("recover checkpoint waited --lock-timeout 60");
    until("it waits", || root.rows().iter().any(|row| row["lock"] == "config" && row["status"] == "waiting"));
    root.ok("state set z:=1");
    holder.go();
    assert!(holder.line().starts_with("State updated"));
    assert_eq!((holder.line(), holder.line()), ("0".to_owned(), "Lock released: config".to_owned()));
    assert_eq!(Ran::of(waiting.wait_with_output().unwrap()).expect(0).code, 0);
}

#[test]
fn what_the_script_holds_already_is_used_and_kept() {
    let root = with_small_checkpoint();
    let script = "$PIPELINE_BINARY lock acquire state,config,signals -q && $PIPELINE_BINARY recover checkpoint mine -q &&
        $PIPELINE_BINARY recover restore --latest mine -q && $PIPELINE_BINARY lock list json; $PIPELINE_BINARY lock release state,config,signals";
    let ran = root.bash(script).expect(0);
    let rows: Value = serde_json::from_str(ran.stdout.lines().next().unwrap()).unwrap();
    assert_eq!(rows.as_array().unwrap().len(), 3, "{rows}");
    // In whatever order its locks are.
    root.bash("$PIPELINE_BINARY lock acquire user -q && $PIPELINE_BINARY recover checkpoint under-user -q; c=$?; $PIPELINE_BINARY lock release user -q; exit $c").expect(0);
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
    assert_eq!(root.ok("recover cleanup --keep 3"), "Cleaned 1 checkpoints");
    assert_eq!(root.ok("recover cleanup 10000"), "Cleaned 0 checkpoints");
    assert_eq!(root.ok("recover cleanup"), "Cleaned 2 checkpoints");
    assert_eq!(left(&root), 1);
    assert_eq!(root.ok("recover cleanup 0"), "Cleaned 0 checkpoints");
    assert_tidy(&root, "cleanup");
    // A name without a time in it is none of ours to remove.
    fs::create_dir(dir.join("checkpoint-of-somebody")).unwrap();
    root.ok("recover cleanup 0");
    assert!(dir.join("checkpoint-of-somebody").exists());
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
