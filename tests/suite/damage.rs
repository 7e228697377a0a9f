//! P1, P2, P4: whatever happens to the live file, the last acknowledged revision comes back or the
//! command refuses, and the bad file is kept.

use std::fs;

use crate::sandbox::{Ran, Sandbox, make_old};

/// Damage to a live file, with its name.
pub type Damage = (&'static str, fn(&[u8]) -> Vec<u8>);

/// No longer a document: healed by the next command.
const DAMAGES: [Damage; 8] = [
    ("cut to nothing", |_| Vec::new()),
    ("garbage", |_| b"garbage".to_vec()),
    ("a missing closing brace", |bytes| bytes[..bytes.len() - 2].to_vec()),
    ("4 KB of NULs", |_| vec![0; 4096]),
    ("NULs in the middle", |bytes| [&bytes[..100], &[0; 50], &bytes[150..]].concat()),
    ("invalid UTF-8", |bytes| {
        replace(bytes, "pre-init", "pre\u{0}\u{0}nit")
            .iter()
            .map(|b| if *b == 0 { 0xff } else { *b })
            .collect()
    }),
    ("a key that stands twice", |bytes| {
        replace(bytes, "\"signals\"", "\"phase\": \"x\",\n  \"signals\"")
    }),
    ("nesting over 128", |bytes| {
        replace(
            bytes,
            "\"signals\": {}",
            &format!("\"signals\": {}1{}", "[".repeat(200), "]".repeat(200)),
        )
    }),
];

pub fn find(bytes: &[u8], what: &str) -> usize {
    bytes.windows(what.len()).position(|window| window == what.as_bytes()).unwrap()
}

pub fn replace(bytes: &[u8], old: &str, new: &str) -> Vec<u8> {
    let at = find(bytes, old);
    [&bytes[..at], new.as_bytes(), &bytes[at + old.len()..]].concat()
}

pub fn flip(bytes: &[u8], word: &str) -> Vec<u8> {
    let at = find(bytes, word);
    let mut bytes = bytes.to_vec();
    bytes[at] ^= 1;
    bytes
}

/// `validate` and `status` report it, and change nothing.
#[track_caller]
pub fn is_reported(sandbox: &Sandbox) {
    let before = sandbox.snapshot();
    let told = sandbox.run("state validate").expect(3);
    assert!(told.stdout.starts_with("State validation: FAILED\n"), "{}", told.stdout);
    assert!(sandbox.run("state status").expect(3).stdout.starts_with("State"));
    sandbox.run("state backups").expect(0);
    sandbox.run("state diff 1 2").expect(0);
    assert_eq!(sandbox.snapshot(), before, "reporting changed something");
}

#[test]
fn damage_heals_to_the_last_acknowledged_revision() {
    for (what, damage) in DAMAGES {
        for first in
            ["state read", "state get .n", "state update .n+=0", "state init", "state recover"]
        {
            let sandbox = Sandbox::with_history();
            let bad = damage(&fs::read(sandbox.state()).unwrap());
            sandbox.overwrite(&bad);
            is_reported(&sandbox);
            sandbox.run(first).expect(0);
            assert_eq!(sandbox.document()["n"], 3, "{what}, {first}");
            assert_eq!(sandbox.revision(), 5, "{what}, {first}: a new revision");
            let evidence = sandbox.shelf("corrupt-");
            assert_eq!(evidence.len(), 1, "{what}, {first}");
            assert_eq!(
                fs::read(sandbox.file(".state-backups").join(&evidence[0])).unwrap(),
                bad,
                "{what}"
            );
            sandbox.run("state validate").expect(0);
            sandbox.ok("state set after=yes");
            assert_eq!(sandbox.debris(), Vec::<std::path::PathBuf>::new());
        }
    }
}

#[test]
fn a_healing_reader_reports_the_damage() {
    let sandbox = Sandbox::with_history();
    sandbox.overwrite("");
    let ran = sandbox
        .run("state read")
        .expect(0)
        .saying("warning:")
        .saying("it is empty")
        .saying("revision 4 was restored");
    assert_eq!(ran.json()["n"], 3);
    assert_eq!(sandbox.run("state read").expect(0).stderr, "");
}

#[test]
fn identical_damage_is_kept_once() {
    let sandbox = Sandbox::with_history();
    for _ in 0..3 {
        sandbox.overwrite("garbage");
        sandbox.ok("state read");
    }
    sandbox.overwrite("other garbage");
    sandbox.ok("state read");
    assert_eq!(sandbox.shelf("corrupt-").len(), 2);
}

#[test]
fn without_the_mirror_a_backup_heals_and_the_loss_is_reported() {
    for (what, damage) in DAMAGES {
        let sandbox = Sandbox::with_history();
        sandbox.overwrite(damage(&fs::read(sandbox.state()).unwrap()));
        fs::remove_file(sandbox.mirror()).unwrap();
        let ran = sandbox.run("state read").expect(0).saying("REVISION 4 OF").saying("IS LOST");
        assert_eq!(ran.json()["n"], 2, "{what}");
    }
}

#[test]
fn healing_takes_the_highest_valid_revision_and_not_the_newest_file() {
    let sandbox = Sandbox::with_history();
    for name in [".workflow-state.json", ".state-backups/mirror.json"] {
        fs::write(sandbox.file(name), "x").unwrap();
        make_old(&sandbox.file(name));
    }
    let newest = sandbox.shelf("state-").into_iter().find(|name| name.contains("-r3-")).unwrap();
    let bytes = fs::read(sandbox.file(".state-backups").join(&newest)).unwrap();
    fs::write(sandbox.file(".state-backups").join(&newest), flip(&bytes, "pre-init")).unwrap();
    // a name alone proves nothing
    fs::copy(
        sandbox.file(".state-backups").join(&newest),
        sandbox.file(".state-backups/state-20300101-000000-r99-forged.json"),
    )
    .unwrap();
    assert_eq!(sandbox.run("state read").expect(0).json()["n"], 1);
    assert_eq!(sandbox.revision(), 5, "the log remembers that there was a revision 4");
}

#[test]
fn when_no_copy_is_valid_it_is_reported_and_nothing_changes() {
    let sandbox = Sandbox::initialized();
    sandbox.overwrite("garbage");
    fs::write(sandbox.mirror(), "garbage, too").unwrap();
    let before = sandbox.snapshot();
    for words in ["state read", "state update .n=1", "state recover", "state init"] {
        sandbox.run(words).expect(3).saying("no valid copy").saying("state init --fresh");
    }
    assert_eq!(sandbox.snapshot(), before);
}

#[test]
fn damage_without_history_is_reported_and_nothing_changes() {
    let sandbox = Sandbox::holding("garbage");
    for words in ["state read", "state update .n=1", "state init", "state validate"] {
        sandbox.run(words).expect(3);
    }
    assert_eq!(fs::read_to_string(sandbox.state()).unwrap(), "garbage");
    sandbox.ok("state init --fresh");
    let archive = &sandbox.shelf("archive-")[0];
    let kept = sandbox.names(&format!(".state-backups/{archive}"));
    assert_eq!(kept.len(), 2, "the damaged file and the signals are archived: {kept:?}");
}

#[test]
fn with_automatic_recovery_off_damage_is_only_reported() {
    let sandbox = Sandbox::with_history();
    sandbox.overwrite("garbage");
    let before = sandbox.snapshot();
    for words in ["state read", "state set a=b", "state init", "state backup"] {
        let mut command = sandbox.command();
        command.env("PIPELINE_AUTO_RECOVER", "0").args(words.split(' '));
        Ran::of(command.output().unwrap()).expect(3).saying("state recover");
    }
    assert_eq!(sandbox.snapshot(), before);
    assert!(
        sandbox.ok("state recover").starts_with("State recovered from: mirror.json (revision 5)")
    );
}

#[test]
fn a_deleted_state_is_refused_and_one_recover_brings_it_back() {
    for mirror in ["there", "gone"] {
        let sandbox = Sandbox::with_history();
        fs::remove_file(sandbox.state()).unwrap();
        if mirror == "gone" {
            fs::remove_file(sandbox.mirror()).unwrap();
        }
        let before = sandbox.snapshot();
        for words in [
            "state read",
            "state get .n",
            "state set a=b",
            "state init",
            "state validate",
            "state status",
        ] {
            sandbox.run(words).expect(3).saying("state recover").saying("state init --fresh");
        }
        assert_eq!(sandbox.snapshot(), before);
        sandbox.ok("state recover");
        assert_eq!(sandbox.document()["n"], if mirror == "there" { 3 } else { 2 });
    }
}

#[test]
fn deleting_everything_starts_a_new_lineage() {
    let sandbox = Sandbox::with_history();
    fs::remove_file(sandbox.state()).unwrap();
    fs::remove_dir_all(sandbox.file(".state-backups")).unwrap();
    sandbox.run("state read").expect(1).saying("state init");
    assert!(sandbox.ok("state init").ends_with("(revision 1)"));
}

#[test]
fn after_init_fresh_damage_heals_to_the_new_lineage() {
    let sandbox = Sandbox::with_history();
    sandbox.ok("state signal OLD");
    let old = sandbox.document()["metadata"]["lineage"].clone();
    sandbox.run("state init --fresh").expect(64).saying("revision 5").saying("--yes");
    let said = sandbox.ok("state init --fresh --yes");
    assert!(said.lines().next().unwrap().ends_with("(revision 6)"), "{said}");
    assert_eq!(sandbox.names(".signals"), Vec::<String>::new());
    assert_ne!(sandbox.document()["metadata"]["lineage"], old);
    let archive = sandbox.shelf("archive-").remove(0);
    assert_eq!(
        sandbox.names(&format!(".state-backups/{archive}")).len(),
        7,
        "live, mirror, four backups, signals"
    );
    sandbox.overwrite("garbage");
    assert_eq!(sandbox.run("state read").expect(0).json()["phase"], "pre-init");
    assert_eq!(sandbox.ok("state get .n --default none"), "none");
    sandbox.ok("state init --fresh --yes");
    assert_eq!(sandbox.shelf("archive-").len(), 2);
    assert_eq!(sandbox.revision(), 8);
}

#[test]
fn recover_rolls_back_and_keeps_the_replaced_file() {
    let sandbox = Sandbox::with_history();
    sandbox.ok("state backup before-upgrade");
    sandbox.ok("state set n:=99");
    assert!(sandbox.ok("state recover before-upgrade --dry-run").contains(".n: 99 -> 3"));
    assert!(sandbox.ok("state recover before-upgrade").ends_with("(revision 6)"));
    assert_eq!(sandbox.document()["n"], 3);
    sandbox.ok("state recover --to-revision 5");
    assert_eq!((sandbox.document()["n"].clone(), sandbox.revision()), (99.into(), 7));
    let before = sandbox.snapshot();
    for (words, code) in [
        ("state recover nothing-like-this", 1),
        ("state recover ../x", 1),
        ("state recover --to-revision 77", 1),
    ] {
        sandbox.run(words).expect(code).saying("there is no backup");
    }
    assert_eq!(sandbox.snapshot(), before);
    assert!(sandbox.ok("state recover").starts_with("Current state is valid; nothing to recover"));
    assert_eq!(sandbox.revision(), 7);
}

#[test]
fn recover_reports_a_lost_revision_and_skips_its_number() {
    for damage in ["gone", "garbage", "edited"] {
        let sandbox = Sandbox::with_history();
        fs::remove_file(sandbox.mirror()).unwrap();
        match damage {
            "gone" => fs::remove_file(sandbox.state()).unwrap(),
            "garbage" => sandbox.overwrite("garbage"),
            _ => sandbox.overwrite(flip(&fs::read(sandbox.state()).unwrap(), "pre-init")),
        }
        let ran = sandbox.run("state recover").expect(0).saying("REVISION 4 OF").saying("IS LOST");
        assert!(ran.stdout.contains("(revision 5)"), "{damage}: {}", ran.stdout);
        sandbox.run("state set late=yes --if-revision 4").expect(75);
    }
    let sandbox = Sandbox::with_history();
    sandbox.overwrite(flip(&fs::read(sandbox.state()).unwrap(), "pre-init"));
    fs::remove_dir_all(sandbox.file(".state-backups")).unwrap();
    fs::remove_file(sandbox.file("audit.log")).unwrap();
    assert_eq!(sandbox.ok("state adopt"), "State adopted: revision 5", "never backwards");
}

#[test]
fn a_fresh_lineage_takes_no_number_of_the_old_one() {
    for damage in ["gone", "edited"] {
        let sandbox = Sandbox::with_history();
        fs::remove_file(sandbox.mirror()).unwrap();
        match damage {
            "gone" => fs::remove_file(sandbox.state()).unwrap(),
            _ => sandbox.overwrite(flip(&fs::read(sandbox.state()).unwrap(), "pre-init")),
        }
        let said = sandbox.ok("state init --fresh");
        assert!(said.lines().next().unwrap().ends_with("(revision 5)"), "{damage}");
    }
}

#[test]
fn a_damaged_copy_differs_from_a_missing_one() {
    let sandbox = Sandbox::with_history();
    let copy = sandbox.shelf("state-").into_iter().find(|name| name.contains("-r2-")).unwrap();
    fs::write(sandbox.file(".state-backups").join(copy), "x").unwrap();
    sandbox.run("state recover --to-revision 2").expect(3).saying("state backups");
    sandbox.run("state recover r2").expect(3);
    sandbox.run("state recover --to-revision 77").expect(1);
}

#[test]
fn evidence_is_never_restored_by_a_pattern() {
    let sandbox = Sandbox::with_history();
    sandbox.overwrite("garbage");
    sandbox.ok("state read");
    sandbox.run("state recover corrupt-").expect(1);
    sandbox.run("state recover *corrupt*").expect(1);
}

#[test]
fn a_copy_by_a_newer_program_is_not_passed_over() {
    let sandbox = Sandbox::with_history();
    let newer = crate::documents::reseal(
        &fs::read_to_string(sandbox.state()).unwrap().replace("\"1.0\"", "\"2.0\""),
    );
    fs::write(sandbox.mirror(), &newer).unwrap();
    sandbox.overwrite("garbage");
    let before = sandbox.snapshot();
    sandbox.run("state read").expect(4);
    sandbox.run("state recover").expect(4);
    assert_eq!(sandbox.snapshot(), before);
    sandbox.overwrite(&newer);
    for words in ["state read", "state set a=b", "state init", "state recover", "state validate"] {
        sandbox.run(words).expect(4).saying("2.0");
    }
    sandbox.run("state init --fresh").expect(4);
    assert_eq!(fs::read_to_string(sandbox.state()).unwrap(), newer);
}

#[test]
fn a_linked_mirror_is_not_followed_but_replaced() {
    let sandbox = Sandbox::with_history();
    fs::remove_file(sandbox.mirror()).unwrap();
    std::os::unix::fs::symlink("/etc/hostname", sandbox.mirror()).unwrap();
    assert_eq!(sandbox.run("state status --json").expect(0).json()["mirror"], "differs");
    sandbox.ok("state set n:=4");
    assert!(sandbox.mirror().symlink_metadata().unwrap().is_file());
    sandbox.overwrite("");
    assert_eq!(sandbox.run("state read").expect(0).json()["n"], 4);
}

#[test]
fn files_too_large_to_compare_are_each_kept() {
    let sandbox = Sandbox::with_history();
    for _ in 0..3 {
        sandbox.overwrite("");
        fs::File::options().write(true).open(sandbox.state()).unwrap().set_len(65 << 20).unwrap();
        crate::sandbox::make_old(&sandbox.state());
        let warning = sandbox.run("state get .n").expect(0).stderr;
        let kept = sandbox.shelf("corrupt-");
        assert!(
            kept.iter().any(|name| warning.contains(name.as_str())),
            "{warning} names none of {kept:?}"
        );
    }
    assert_eq!(sandbox.shelf("corrupt-").len(), 3);
}

#[test]
fn on_a_read_only_root_a_damaged_state_is_served_from_the_best_copy() {
    for (what, damage) in DAMAGES {
        let sandbox = Sandbox::with_history();
        sandbox.overwrite(damage(&fs::read(sandbox.state()).unwrap()));
        let Some(ran) = read_only(&sandbox, "state read") else { return };
        assert_eq!(
            ran.expect(0).saying("warning:").saying("mirror.json is served").json()["n"],
            3,
            "{what}"
        );
        for (words, code) in [
            ("state validate", 3),
            ("state status", 3),
            ("state update .n=1", 6),
            ("state recover", 6),
        ] {
            read_only(&sandbox, words).unwrap().expect(code);
        }
        fs::remove_file(sandbox.mirror()).unwrap();
        assert_eq!(read_only(&sandbox, "state read").unwrap().expect(0).json()["n"], 2);
        assert!(sandbox.shelf("corrupt-").is_empty(), "{what}: nothing was changed");
    }
}

#[test]
fn a_read_only_root_can_be_read() {
    let sandbox = Sandbox::with_history();
    let Some(ran) = read_only(&sandbox, "state get .n") else { return };
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str(), ran.code), ("3\n", "", 0));
    read_only(&sandbox, "state set a=b").unwrap().expect(6).saying("read-only file system");
}

/// Runs the program with the root mounted read-only; `None` if this user may not mount.
fn read_only(sandbox: &Sandbox, words: &str) -> Option<Ran> {
    let script = format!(
        "mount --bind . . && mount -o remount,bind,ro . && cd \"$PWD\" && \
         exec \"$PIPELINE_BINARY\" {words}"
    );
    let probe = sandbox.program("unshare").args(["-Urm", "true"]).status();
    if !probe.is_ok_and(|status| status.success()) {
        assert!(
            std::env::var_os("CI").is_none(),
            "unshare -Urm does not work, and in CI nothing is skipped"
        );
        eprintln!("unshare -Urm is not permitted here: read-only roots are not tested");
        return None;
    }
    Some(Ran::of(
        sandbox.program("unshare").args(["-Urm", "bash", "-c", &script]).output().unwrap(),
    ))
}

/// Leftovers of a failed `init --fresh` of the first release: all copies are in the archive, and
/// the live state is still in use.
#[test]
fn damage_heals_from_an_archive_of_the_live_lineage_and_of_no_other() {
    for (lineage, code) in [(None, 0), (Some("0123456789abcdef0123456789abcdef"), 3)] {
        let sandbox = Sandbox::with_history();
        let own = sandbox.document()["metadata"]["lineage"].as_str().unwrap().to_owned();
        let archive = format!(".state-backups/archive-{}-20231101-103000", lineage.unwrap_or(&own));
        fs::create_dir(sandbox.file(&archive)).unwrap();
        for name in sandbox.shelf("state-").into_iter().chain(["mirror.json".to_owned()]) {
            let shelf = sandbox.file(".state-backups");
            fs::rename(shelf.join(&name), sandbox.file(&archive).join(&name)).unwrap();
        }
        sandbox.overwrite("");
        let read = sandbox.run("state get .n").expect(code);
        assert_eq!(read.stdout, if code == 0 { "3\n" } else { "" }, "{read:?}");
    }
}
