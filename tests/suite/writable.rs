//! `status`, `doctor` and the metrics report obstacles for writers before a write fails.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::Path;

use serde_json::Value;

use crate::doctor::{brief, findings};
use crate::sandbox::{BINARY, Ran, Sandbox};

const USER: u32 = 4242;

/// True if this test can create mounts and other users' files; otherwise prints so.
fn is_root() -> bool {
    let is_root = rustix::process::geteuid().as_raw() == 0;
    if !is_root {
        eprintln!("not root: mounts and other users' files are not tested");
    }
    is_root
}

/// Runs a script in a mount namespace of its own, in `root`; `$P` is the program.
fn in_mounts(root: &Sandbox, script: &str) -> Ran {
    let mut command = root.program("unshare");
    Ran::of(command.args(["-m", "bash", "-ec", script]).env("P", BINARY).output().unwrap())
}

/// Runs the program as another user.
fn as_user(root: &Sandbox, words: &str) -> Ran {
    let mut command = root.command();
    command.uid(USER).gid(USER).args(words.split(' '));
    Ran::of(command.output().unwrap())
}

/// A root that belongs to another user, with everything in it.
fn users_root() -> Sandbox {
    let root = Sandbox::with_history();
    let all: Vec<_> = root.snapshot().into_iter().map(|(path, _)| path).collect();
    let logs = ["audit.log", ".error-recovery.log", ".state-backups/journal.jsonl"];
    let others = logs.iter().map(|log| root.file(log)).chain([root.path().to_owned()]);
    for path in all.iter().map(|path| root.file(path)).chain(others) {
        chown(path, Some(USER), Some(USER)).unwrap();
    }
    root
}

/// The output of status, doctor and the metrics while writers meet `obstacle`.
const REPORTS: &str = r#"
$P state status --json | jq -r '"\(.writable) \(.write_obstacle)"'
$P state status | grep Writable
$P recover doctor || echo "doctor $?"
$P recover metrics prometheus | grep -E '^pipeline_state_(writable|healthy)' | sed 's/.* //'
$P state get .n
if $P state set n:=9; then echo written; else echo "set $?"; fi
"#;

#[track_caller]
fn says_why(ran: &Ran, obstacle: &str, code: i32) {
    let text = format!("{}{}", ran.stdout, ran.stderr);
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert!(lines[0].starts_with("false ") && lines[0].contains(obstacle), "{text}");
    assert!(lines[1].contains("no: ") && lines[1].contains(obstacle), "{text}");
    assert!(lines.iter().any(|line| *line == format!("doctor {code}")), "{text}");
    assert!(!text.contains("chown root") && !text.contains("chown 0"), "{text}");
    let end = lines.len();
    assert_eq!(lines[end - 4..], ["0", "0", "3", &format!("set {code}")], "{text}");
}

#[test]
fn a_read_only_mount_is_reported_before_a_write_fails() {
    if is_root() {
        let root = Sandbox::with_history();
        let script =
            format!("mount --bind . .; mount -o remount,ro,bind . .; cd .; cd $PWD; {REPORTS}");
        says_why(&in_mounts(&root, &script), "read-only", 6);
    }
}

#[test]
fn a_side_directory_on_a_read_only_mount_is_reported() {
    if is_root() {
        let root = Sandbox::with_history();
        let make = "mount --bind .locks .locks; mount -o remount,ro,bind .locks";
        says_why(&in_mounts(&root, &format!("{make}; {REPORTS}")), "read-only", 6);
    }
}

#[test]
fn a_full_disk_is_reported_before_a_write_fails() {
    if is_root() {
        let root = Sandbox::with_history();
        let script = format!(
            "mkdir full; mount -t tmpfs -o size=128k,mode=700 none full; \
             cp -a .workflow-state.json .state-backups .locks .signals .checkpoints full; cd full; \
             dd if=/dev/zero of=filler bs=1k status=none || true; export AUDIT_LOG=/dev/null; \
             unset STATE_MAX_BACKUPS; {REPORTS}"
        );
        let ran = in_mounts(&root, &script);
        let text = format!("{}{}", ran.stdout, ran.stderr);
        assert!(ran.stdout.starts_with("false the disk of "), "{text}");
        assert!(ran.stdout.contains("doctor 7"), "{text}");
        assert!(ran.stdout.contains("\n0\n0\n3\n"), "{text}");
    }
}

#[test]
fn an_immutable_state_file_is_reported_and_the_remedy_named() {
    if is_root() {
        let root = Sandbox::with_history();
        let set = |mark: &str| root.program("chattr").args([mark, ".workflow-state.json"]).output();
        if !set("+i").is_ok_and(|output| output.status.success()) {
            eprintln!("files cannot be made immutable here: not tested");
            return;
        }
        let status: Value = serde_json::from_str(&root.ok("state status --json")).unwrap();
        let found = findings(&root, "recover doctor");
        set("-i").unwrap();
        assert_eq!(status["writable"], false);
        assert!(status["write_obstacle"].as_str().unwrap().contains("immutable"), "{status}");
        let remedy = found[0]["remedy"].as_str().unwrap();
        assert!(remedy.contains("chattr -ia"), "{remedy}");
    }
}

#[test]
fn a_directory_without_write_permission_is_reported_with_its_chmod() {
    if is_root() {
        let root = users_root();
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o500)).unwrap();
        let ran = as_user(&root, "state status --json");
        let status: Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!(status["writable"], false, "{status}");
        let chmod = format!("chmod u+rwx {}", root.path().display());
        as_user(&root, "recover doctor").expect(6).showing(&chmod);
        as_user(&root, "state set n:=5").expect(6);
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o700)).unwrap();
        as_user(&root, "state set n:=5").expect(0);
    }
}

#[test]
fn a_state_without_any_mode_bits_hints_at_chmod() {
    if is_root() {
        let root = users_root();
        for place in [".workflow-state.json", ".locks", ".state-backups"] {
            let path = root.file(place);
            let mode = fs::metadata(&path).unwrap().mode() & 0o777;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
            as_user(&root, "state set n:=5").expect(6).saying("chmod u+rw").saying(place);
            as_user(&root, "recover doctor").expect(6).showing("chmod u+rw");
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        }
        as_user(&root, "state set n:=5").expect(0);
    }
}

#[test]
fn root_files_in_a_users_state_are_one_finding() {
    if is_root() {
        let root = users_root();
        for place in [".workflow-state.json", ".locks/state.lock", ".state-backups/mirror.json"] {
            chown(root.file(place), Some(0), Some(0)).unwrap();
        }
        for program in ["root", "user"] {
            let ran = match program {
                "root" => root.run("recover doctor --json"),
                _ => as_user(&root, "recover doctor --json"),
            };
            let report: Value = serde_json::from_str(ran.stdout.lines().next().unwrap()).unwrap();
            let found = report["findings"].as_array().unwrap().clone();
            assert_eq!((ran.code, found.len()), (6, 1), "{program}: {}", brief(&found));
            assert!(brief(&found).contains("root (uid 0)"), "{}", brief(&found));
            let remedy = found[0]["remedy"].as_str().unwrap();
            let command = remedy.split("   #").next().unwrap();
            assert!(command.contains("chown -hR +4242 "), "{remedy}");
            assert_eq!(command.starts_with("sudo "), program == "user", "{remedy}");
        }
        let ran = root.run("recover doctor --json");
        let report: Value = serde_json::from_str(ran.stdout.lines().next().unwrap()).unwrap();
        root.bash(report["findings"][0]["remedy"].as_str().unwrap()).expect(0);
        as_user(&root, "state set n:=5").expect(0);
        as_user(&root, "recover doctor").expect(0);
    }
}

#[test]
fn the_doctors_work_is_linear_in_the_number_of_signals() {
    let calls = |count: usize| {
        let root = Sandbox::initialized();
        let sets: String = (0..count).map(|n| format!(" | .signals.s{n} = 1.5")).collect();
        root.run_args(&["state", "update", &format!(".{sets}")]).expect(0);
        for n in 0..count {
            let text =
                format!(r#"{{"signal":"s{n}","phase":"p","timestamp":1.5,"metadata":{{}}}}"#);
            let path = root.file(format!(".signals/s{n}.json"));
            fs::write(&path, text).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
        }
        let trace = root.file("trace");
        let options = ["-f", "-o", trace.to_str().unwrap()];
        let words = ["recover", "doctor"];
        let output = crate::strace::strace(&root, &options, words).output().unwrap();
        assert!(output.status.success());
        let lines = fs::read_to_string(Path::new(&trace)).unwrap();
        lines.lines().count()
    };
    if crate::sandbox::installed("strace") {
        let (none, few, many) = (calls(0), calls(50), calls(200));
        assert!(many - none <= 5 * (few - none), "{none}, {few}, {many} calls");
    }
}

#[test]
fn an_unreachable_root_is_not_answered_with_doctor() {
    if !is_root() {
        return;
    }
    let outer = Sandbox::empty();
    let root = outer.file("closed/root");
    fs::create_dir_all(&root).unwrap();
    fs::set_permissions(outer.file("closed"), fs::Permissions::from_mode(0o700)).unwrap();
    let words = format!("--root {} recover doctor", root.display());
    let ran = as_user(&outer, &words);
    assert!(!ran.stdout.contains("recover doctor"), "{ran:?}");
    assert!(ran.stdout.contains("sudo -u root -s"), "{ran:?}");
}

#[test]
fn in_another_users_directory_a_restore_leaves_nothing() {
    if !is_root() {
        return;
    }
    let root = Sandbox::empty();
    fs::set_permissions(root.path(), fs::Permissions::from_mode(0o1777)).unwrap();
    let run = |words: &str| as_user(&root, &format!("--root . {words}")).expect(0);
    run("-q state init");
    run("-q recover checkpoint good");
    run("-q state set x:=1");
    let restored = run("recover restore --latest good");
    assert!(!restored.stderr.contains("warning"), "{restored:?}");
    assert!(!root.file(".checkpoints/.in-progress").exists());
}

#[test]
fn the_remedy_of_a_read_only_mount_names_the_mount() {
    if !is_root() {
        return;
    }
    let root = Sandbox::initialized();
    let script = "mount --bind . . && cd \"$PWD\" && mount -o remount,ro,bind . && \
                  $P recover doctor || true";
    let ran = in_mounts(&root, script);
    let remedy = format!("findmnt -T {}", root.path().display());
    assert!(ran.stdout.lines().any(|line| line.contains(&format!("{remedy} "))), "{ran:?}");
}

#[test]
fn another_user_is_sent_to_the_owner_of_the_state_and_not_to_the_doctor() {
    if !is_root() {
        return;
    }
    const OTHER: u32 = USER + 1;
    let root = users_root();
    fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let run = |words: &str| {
        let mut command = root.command();
        command.uid(OTHER).gid(OTHER).args(words.split(' '));
        Ran::of(command.output().unwrap())
    };
    for words in ["state get .n", "recover doctor"] {
        let ran = run(words);
        assert_eq!(ran.code, 6, "{ran:?}");
        let said = format!("{}{}", ran.stdout, ran.stderr);
        assert!(said.contains(&format!("sudo -u '#{USER}' -s")), "{said}");
        assert!(!said.contains("recover doctor") && !said.contains("may read it"), "{said}");
    }
}
