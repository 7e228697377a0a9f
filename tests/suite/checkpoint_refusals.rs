//! Refused checkpoints and configurations; a refusal changes nothing.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use pipeline_state::document::seal::{verified, with_digest};
use serde_json::{Value, json};

use crate::checkpoint::{RESTORE, checkpoint};
use crate::permitted::is_permitted;
use crate::sandbox::{Ran, Sandbox, make_old};
use crate::snapshots::{twin, with_small_checkpoint};

/// Expects that every way to restore it is refused and changes nothing.
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
    for (path, bytes) in
        start.snapshot().into_iter().filter(|(path, _)| path.starts_with(&dir) && path.is_file())
    {
        // each byte of small files, and a rotating bit of it
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
fn missing_or_foreign_files_in_a_checkpoint_are_refused() {
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
    forge(&root, &|manifest| manifest["version"] = json!(3));
    is_refused(&root, &[4], "a newer manifest");
    // a state of a newer schema, with all digests valid
    let root = twin(&start);
    let state = root.file(".checkpoints").join(&id).join("state.json");
    let newer = br#"{"schemaVersion":"9.0","phase":"a","completedTasks":[],"signals":{},
        "lastActivation":""}"#;
    fs::write(&state, newer).unwrap();
    let digest = pipeline_state::document::seal::Digest::of(newer).as_str().to_owned();
    forge(&root, &|manifest| {
        let files = manifest["files"].as_array_mut().unwrap();
        let line = files.iter_mut().find(|line| line["path"] == "state.json").unwrap();
        (line["sha256"], line["bytes"]) = (json!(digest), json!(newer.len()));
    });
    is_refused(&root, &[4], "a newer schema");
    // the live state of a newer program is not replaced
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
        ("recover restore ../../etc", 4),
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
    root.run_args(&[
        "recover",
        "checkpoint",
        "x",
        &format!("{{\"a\":\"{}\"}}", "x".repeat(70_000)),
    ])
    .expect(4);
    assert_eq!(root.snapshot(), before);
    Sandbox::empty().run("recover checkpoint x").expect(1).saying("state init");
    Sandbox::empty().run(RESTORE).expect(1);
    // a checkpoint does not silently take in an edit
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
    let inside =
        root.snapshot().into_iter().filter(|(path, _)| path.starts_with(root.file(".checkpoints")));
    assert!(inside.into_iter().all(|(_, bytes)| bytes != outside.as_bytes()));
    if is_permitted("unshare", &["-Urm", "true"]) {
        let mounted =
            "mount -t tmpfs none config/new; exec \"$PIPELINE_BINARY\" recover checkpoint x";
        let ran = Ran::of(
            root.program("unshare").args(["-Urm", "bash", "-c", mounted]).output().unwrap(),
        );
        assert_eq!(ran.code, 6, "{}", ran.stderr);
        assert!(ran.stderr.contains("is a mount point"), "{}", ran.stderr);
    }
}

#[test]
fn rights_of_others_are_not_lent_by_a_restored_file() {
    let root = with_small_checkpoint();
    fs::set_permissions(root.file("config/rules.json"), fs::Permissions::from_mode(0o4755))
        .unwrap();
    root.ok("recover checkpoint setuid");
    root.ok("recover restore --latest setuid");
    assert_eq!(
        fs::metadata(root.file("config/rules.json")).unwrap().permissions().mode() & 0o7777,
        0o755
    );
}

/// The first of these used to make a checkpoint that could not be restored.
#[test]
fn checkpoint_notes_read_back_or_are_refused() {
    let root = Sandbox::with_history();
    let nested = |levels: usize| format!("{}1{}", "{\"a\":".repeat(levels), "}".repeat(levels));
    let deep = nested(127);
    for noted in [r#"{"x":{"$serde_json::private::Number":"abc"},"n":1.50}"#, deep.as_str()] {
        let made = root.run_args(&["recover", "checkpoint", "op", noted]).expect(0).stdout;
        let id = made.trim_end().strip_prefix("Checkpoint created: ").unwrap().to_owned();
        assert!(root.ok("recover list --json").contains(noted), "{noted}");
        root.ok(&format!("recover restore {id}"));
    }
    let before = root.names(".checkpoints");
    for array in ["[1]", " [", "[]"] {
        root.run_args(&["recover", "checkpoint", "op", array]).expect(4);
    }
    root.run_args(&["recover", "checkpoint", "op", &nested(128)])
        .expect(4)
        .saying("nested deeper than 127 levels");
    assert_eq!(root.names(".checkpoints"), before);
}

#[test]
fn only_paths_within_this_root_name_checkpoints_and_backups() {
    let root = with_small_checkpoint();
    let id = root
        .names(".checkpoints")
        .into_iter()
        .find(|name| name.starts_with("checkpoint-"))
        .unwrap();
    let backup = root.shelf("state-")[0].clone();
    let before = root.snapshot();
    for elsewhere in [
        format!("/no/such/place/{id}"),
        format!("../{id}"),
        format!("config/{id}"),
        format!("/{id}"),
    ] {
        root.run(&format!("recover restore {elsewhere}")).expect(4).saying("recover list");
        root.run(&format!("recover show {elsewhere}")).expect(4);
    }
    root.run(&format!("state recover /no/such/place/{backup}"))
        .expect(1)
        .saying("there is no backup");
    assert_eq!(root.snapshot(), before);
    let here = root.file(".checkpoints").join(&id);
    for path in
        [format!(".checkpoints/{id}/"), format!("./.checkpoints/{id}"), here.display().to_string()]
    {
        root.ok(&format!("recover show {path}"));
    }
    root.ok(&format!("state recover .state-backups/{backup}"));
    root.ok(&format!("recover restore {}", here.display()));
}

#[test]
fn a_checkpoint_of_the_old_libraries_is_not_damage() {
    let root = with_small_checkpoint();
    for operation in ["deployment", "build"] {
        let id = format!("checkpoint-20231101-103000-{operation}");
        let dir = root.file(".checkpoints").join(&id);
        fs::create_dir(&dir).unwrap();
        let state = r#"{"phase":"old","completedTasks":[],"signals":{},"lastActivation":""}"#;
        fs::write(dir.join("state.json"), state).unwrap();
        let metadata = json!({"id": id, "operation": operation, "phase": "old", "timestamp": "x",
            "metadata": {}});
        fs::write(dir.join("metadata.json"), metadata.to_string()).unwrap();
    }
    let old = "checkpoint-20231101-103000-deployment";
    let (what, way_on) = (
        "was made by the old libraries",
        format!("state write {}/", root.file(".checkpoints").display()),
    );
    let before = root.snapshot();
    let told = root.run("recover doctor").expect(1).stdout;
    assert_eq!(told.matches(what).count(), 1, "all of them in one line: {told}");
    assert!(told.contains(&way_on) && !told.contains("rm "), "{told}");
    let refused = root.run(&format!("recover restore {old}")).expect(3).stderr;
    assert!(refused.contains(what) && refused.contains(&way_on), "{refused}");
    assert_eq!(root.snapshot(), before);
    root.ok(&format!("state write .checkpoints/{old}/state.json"));
    assert_eq!(root.ok("state get .phase"), "old");

    // One with files of old hooks, one with a copy of a sealed document, and one with most files
    // missing: the remedy in the refusal works.
    for (operation, state, metadata) in [
        (
            "hooks",
            r#"{"phase":3,"completedTasks":[],"signals":null,"lastActivation":"z"}"#.to_owned(),
            "{}",
        ),
        ("copy", fs::read_to_string(root.file(".workflow-state.json")).unwrap(), "{}"),
        (
            "torn",
            r#"{"phase":"torn","completedTasks":[],"signals":{},"lastActivation":""}"#.to_owned(),
            "garbage",
        ),
    ] {
        let id = format!("checkpoint-20231101-103000-{operation}");
        let dir = root.file(".checkpoints").join(&id);
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("state.json"), state).unwrap();
        fs::write(dir.join("metadata.json"), metadata).unwrap();
        root.ok("state set n=1");
        let refused = root.run(&format!("recover restore {id}")).expect(3).stderr;
        let command = refused.lines().find_map(|line| {
            line.split("pipeline-state ").find(|part| part.starts_with("state write "))
        });
        let command = command.unwrap().split("   #").next().unwrap();
        root.ok(command);
        assert_eq!(root.ok("state get .n --default none"), "none", "{command}");
    }

    // a checkpoint of this program without its manifest is damaged
    let ours = root.names(".checkpoints").into_iter().find(|id| !id.contains("20231101")).unwrap();
    fs::remove_file(root.file(".checkpoints").join(&ours).join("manifest.json")).unwrap();
    root.run(&format!("recover restore {ours}")).expect(3).saying("is damaged: it has no manifest");
}
