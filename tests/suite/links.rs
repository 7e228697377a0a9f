//! Names that change their target before use: links that another user creates, hard links, and
//! names in records that lead out of the root.

use std::cell::Cell;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::observed::{Call, Fault, Observed};
use pipeline_state::document::seal::{verified, with_digest};
use pipeline_state::fs::Disk;
use pipeline_state::store::checkpoint::catalog::Which;
use pipeline_state::store::fresh::InitMode;
use pipeline_state::store::options::WriteOptions;
use serde_json::json;

use crate::races::store_on;
use crate::sandbox::{Ran, Sandbox};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Another directory of the same user, with a mode and a file that must not change.
struct Victim(Sandbox);

impl Victim {
    fn new() -> Self {
        let victim = Sandbox::empty();
        fs::write(victim.file("secret"), "s").unwrap();
        set_mode(&victim.file("secret"), 0o640);
        set_mode(victim.path(), 0o750);
        Self(victim)
    }

    #[track_caller]
    fn is_unharmed(&self, what: &str) {
        assert_eq!((mode(self.0.path()), mode(&self.0.file("secret"))), (0o750, 0o640), "{what}");
        assert_eq!(fs::read_to_string(self.0.file("secret")).unwrap(), "s", "{what}");
        assert_eq!(self.0.names(""), ["secret"], "{what}");
    }
}

/// A disk on which a link to `target` replaces `path` just before the first `call` of `name` that
/// finds `path` there.
fn swapped(
    call: &'static str,
    name: &'static str,
    path: PathBuf,
    target: PathBuf,
) -> (Disk, Rc<Cell<bool>>) {
    let done = Rc::new(Cell::new(false));
    let is_done = done.clone();
    let observed = Observed::new(move |made: &Call| {
        let is_meant = made.name == call && (name.is_empty() || made.path.ends_with(name));
        if is_meant && !done.get() && path.symlink_metadata().is_ok() {
            done.set(true);
            fs::rename(&path, path.with_extension("moved")).unwrap();
            symlink(&target, &path).unwrap();
        }
        Fault::None
    });
    (Disk::new(Rc::new(observed)), is_done)
}

#[test]
fn a_new_directory_that_becomes_a_link_has_no_mode_set() {
    for name in [".locks", ".signals", ".state-backups", ".checkpoints"] {
        let (root, victim) = (Sandbox::empty(), Victim::new());
        let (disk, is_done) = swapped("pin", name, root.file(name), victim.0.path().to_owned());
        assert!(store_on(&root, disk).init(InitMode::Continue, &WriteOptions::of("init")).is_err());
        assert!(is_done.get(), "{name}");
        victim.is_unharmed(name);
    }
}

#[test]
fn a_loose_directory_that_becomes_a_link_has_no_mode_set() {
    let (root, victim) = (Sandbox::with_history(), Victim::new());
    set_mode(&root.file(".state-backups"), 0o755);
    let path = root.file(".state-backups");
    let (disk, is_done) = swapped("pin", ".state-backups", path, victim.0.path().to_owned());
    let _ = store_on(&root, disk).init(InitMode::Continue, &WriteOptions::of("init"));
    assert!(is_done.get());
    victim.is_unharmed("tightened by init");
}

#[test]
fn a_staged_tree_that_becomes_a_link_has_neither_mode_nor_time_set() {
    for call in ["open_dir", "set_mode", "set_mtime", "sync_dir"] {
        for target in ["", "secret"] {
            let (root, victim) = (Sandbox::with_history(), Victim::new());
            fs::create_dir(root.file("config")).unwrap();
            fs::write(root.file("config/rules.json"), "{}").unwrap();
            set_mode(&root.file("config"), 0o755);
            root.ok("recover checkpoint good");
            let staged = root.file(".pipeline-state-restore-1-config");
            let (disk, is_done) = swapped(call, "", staged, victim.0.file(target));
            let _ = store_on(&root, disk)
                .restores()
                .restore(&Which::Latest(None), &WriteOptions::of("restore"));
            assert!(is_done.get(), "{call}");
            victim.is_unharmed(call);
        }
    }
}

/// A copy of a root made of hard links.
#[test]
fn files_written_in_place_have_no_second_name() {
    let original = Sandbox::with_history();
    original.run("lock run deploy -- true").expect(0);
    for name in [".locks/state.lock", ".locks/.gate", ".locks/.tokens", ".error-recovery.log"] {
        let copy = Sandbox::with_history();
        copy.run("lock run deploy -- true").expect(0);
        let (outside, inside) = (original.file("outside"), copy.file(name));
        let _ = fs::remove_file(&outside);
        let bytes = fs::read(original.file(name)).unwrap_or_else(|_| b"theirs".to_vec());
        fs::write(&outside, &bytes).unwrap();
        let _ = fs::remove_file(&inside);
        fs::hard_link(&outside, &inside).unwrap();
        let before = fs::metadata(&outside).unwrap();
        for words in [
            "state set n:=9",
            "lock run deploy -- true",
            "lock clean",
            "state set a=b --if-revision 1",
        ] {
            copy.run(words);
            let now = fs::metadata(&outside).unwrap();
            assert_eq!(fs::read(&outside).unwrap(), bytes, "{name}: {words}");
            assert_eq!(
                (now.mtime_nsec(), now.mode()),
                (before.mtime_nsec(), before.mode()),
                "{name}: {words}"
            );
        }
        if name.ends_with("state.lock") {
            copy.run("state set n:=9").expect(6).saying("a second name");
            assert_eq!(copy.run("recover doctor --json").code, 6);
        }
    }
}

#[test]
fn a_hard_link_among_the_backups_has_no_mode_set() {
    let (root, victim) = (Sandbox::with_history(), Victim::new());
    let outside = victim.0.file("secret");
    fs::hard_link(&outside, root.file(".state-backups/mine")).unwrap();
    set_mode(&root.file(".state-backups"), 0o755);
    root.run("recover doctor --fix");
    set_mode(&root.file(".state-backups"), 0o755);
    root.ok("state init");
    victim.is_unharmed("a hard link among the backups");
    // a hard-linked state: the new file has its own mode, and its backup is a copy
    let bytes = fs::read(root.state()).unwrap();
    let state = victim.0.file("state");
    fs::write(&state, bytes).unwrap();
    set_mode(&state, 0o644);
    fs::remove_file(root.state()).unwrap();
    fs::hard_link(&state, root.state()).unwrap();
    root.run("state set n:=9").expect(0);
    assert_eq!((mode(&state), mode(&root.state())), (0o644, 0o600));
    assert!(
        root.shelf("state-")
            .iter()
            .all(|name| mode(&root.file(".state-backups").join(name)) == 0o600)
    );
}

#[test]
fn a_record_names_no_file_but_its_own() {
    for field in ["live_file", "quarantined"] {
        for name in [
            "../../outside",
            "../.workflow-state.json",
            "/etc/hostname",
            ".gate",
            ".live-/../x",
            ".live-\n",
        ] {
            let root = Sandbox::with_history();
            root.run("lock acquire deploy --owner-pid 1").expect(0);
            let path = root.file(".locks/deploy.json");
            let mut record = verified(&fs::read(&path).unwrap()).unwrap();
            record.as_object_mut().unwrap().shift_remove("digest");
            record["holders"][0][field] = json!(name);
            fs::write(&path, with_digest(record).unwrap()).unwrap();
            let before = fs::read(root.state()).unwrap();
            for words in
                ["lock check deploy", "lock list", "lock clean", "lock break deploy --force"]
            {
                root.run(words);
                assert_eq!(fs::read(root.state()).unwrap(), before, "{name}: {words}");
                assert!(root.file(".locks/.gate").exists(), "{name}: {words}");
            }
            root.run("lock run deploy -- true").expect(0);
        }
    }
}

#[test]
fn a_hint_never_names_a_checkpoint_that_a_shell_would_read() {
    let root = Sandbox::with_history();
    root.ok("recover checkpoint good");
    let good = root.names(".checkpoints").remove(0);
    let bad = ".checkpoints/checkpoint-29990101-000000-x;touch owned";
    fs::rename(root.file(".checkpoints").join(good), root.file(bad)).unwrap();
    root.overwrite("garbage");
    fs::remove_dir_all(root.file(".state-backups")).unwrap();
    for words in ["state read", "recover doctor", "recover status", "state status", "recover list"]
    {
        let Ran { stdout, stderr, .. } = root.run(words);
        assert!(!format!("{stdout}{stderr}").contains("touch owned"), "{words}: {stdout}{stderr}");
    }
}

#[test]
fn a_linked_inner_root_that_lies_elsewhere_is_not_taken_for_this_one() {
    let (project, other) = (Sandbox::empty(), Sandbox::with_history());
    symlink(other.path(), project.file(".claude")).unwrap();
    let before = other.snapshot();
    project.run("state set n:=9").expect(1).saying("state init");
    project.run("state get .n").expect(1);
    assert!(other.snapshot() == before);
    // a link within the project belongs to it
    fs::remove_file(project.file(".claude")).unwrap();
    fs::create_dir(project.file("real")).unwrap();
    project.ok("--root real state init");
    symlink("real", project.file(".claude")).unwrap();
    project.ok("state set n:=9");
    assert_eq!(project.ok("--root real state get .n"), "9");
}

#[test]
fn named_output_files_may_not_be_files_of_a_root() {
    let root = Sandbox::with_history();
    root.run("lock run x -- true").expect(0);
    fs::create_dir(root.file("config")).unwrap();
    let own = [
        ".workflow-state.json",
        ".error-recovery.log",
        ".state-backups/log",
        ".locks/state.lock",
        "config/log",
    ];
    let before = root.snapshot();
    for log in own {
        for words in ["state set n:=9", "state get .n", "lock run x -- true"] {
            root.run(&format!("--audit-log {log} {words}")).expect(6).saying("audit log");
        }
        let other = Sandbox::empty();
        other.run(&format!("--audit-log {} state init", root.file(log).display())).expect(6);
    }
    for side in [".state-backups", ".locks", ".checkpoints", ".signals", "config", ".checkpoints/x"]
    {
        root.run(&format!("--state-file {side}/s.json state init"))
            .expect(6)
            .saying("belongs to a state");
        root.run(&format!("--root {side} state init")).expect(6);
    }
    root.run("man .state-backups").expect(6);
    assert!(root.snapshot() == before);
    root.run("--audit-log .pipeline-audit.log state set n:=9").expect(0);
    // a link is noticed at the open: another log is used
    symlink(".state-backups", root.file("link")).unwrap();
    root.run("--audit-log link/mirror.json state set n:=8")
        .expect(0)
        .saying("the audit log cannot be used");
    assert!(!fs::read_to_string(root.mirror()).unwrap().contains("[INFO]"));
    // a linked page is replaced, and its target is not written
    let pages = Sandbox::empty();
    symlink(root.state(), pages.file("pipeline-state.1")).unwrap();
    let state = fs::read(root.state()).unwrap();
    root.run(&format!("man {}", pages.path().display())).expect(0);
    assert_eq!(fs::read(root.state()).unwrap(), state);
}

#[test]
fn root_is_warned_before_its_first_file_in_another_users_directory() {
    if rustix::process::geteuid().as_raw() != 0 {
        eprintln!("not root: other users' directories are not tested");
        return;
    }
    let chown = |path: &Path| std::os::unix::fs::chown(path, Some(4242), None).unwrap();
    for words in ["state init", "--root . lock run x -- true"] {
        let root = Sandbox::empty();
        chown(root.path());
        root.run(words).expect(0).saying("belongs to uid 4242");
        assert_eq!(root.run(words).expect(0).stderr, "", "{words}: it has begun");
    }
    // where that user keeps a state, nothing is created
    let root = Sandbox::initialized();
    fs::remove_dir_all(root.file(".locks")).unwrap();
    for path in [root.path().to_owned(), root.file(".state-backups"), root.state()] {
        chown(&path);
    }
    root.run("--root . lock acquire x 0 --owner-pid 1").expect(6).saying("belongs to uid 4242");
    assert!(!root.file(".locks").exists());
}

#[test]
fn a_root_that_others_may_write_is_reported() {
    let root = Sandbox::with_history();
    for (bits, is_told) in [(0o755, false), (0o777, true), (0o757, true), (0o1777, false)] {
        set_mode(root.path(), bits);
        let status = root.run("state status");
        assert_eq!(
            status.stderr.contains("the state's files can be replaced"),
            is_told,
            "{bits:o}"
        );
        let doctor = root.run("recover doctor");
        assert_eq!(
            doctor.stdout.contains("the state's files can be replaced"),
            is_told,
            "{bits:o}"
        );
    }
}
