//! Contract, §9: links, special files, other users, modes, full disks.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

use crate::sandbox::{Ran, Sandbox};

const COMMANDS: [&str; 6] = [
    "state init",
    "state read",
    "state set a=b",
    "state update .n=1",
    "state validate",
    "state status",
];

#[test]
fn a_state_that_is_no_own_plain_file_is_refused() {
    let sandbox = Sandbox::empty();
    fs::create_dir(sandbox.file("directory")).unwrap();
    fs::write(sandbox.file("target.json"), "{}").unwrap();
    symlink("target.json", sandbox.file("link.json")).unwrap();
    symlink("nowhere", sandbox.file("dangling.json")).unwrap();
    assert!(sandbox.program("mkfifo").arg("pipe").status().unwrap().success());
    let _socket = std::os::unix::net::UnixListener::bind(sandbox.file("socket")).unwrap();
    let before = sandbox.snapshot();
    let with_file = |file: &str, words: &str| {
        let mut command = sandbox.command();
        Ran::of(command.env("STATE_FILE", file).args(words.split(' ')).output().unwrap())
    };
    for words in COMMANDS {
        for file in [
            "/dev/null",
            "directory",
            "directory/",
            "link.json",
            "dangling.json",
            "pipe",
            "socket",
            ".",
        ] {
            with_file(file, words).expect(6);
            with_file(file, &format!("{words} --json")).expect_json_error("unsafe_path");
        }
        for file in ["no/such/directory.json", "target.json/state.json"] {
            with_file(file, words).expect(5);
        }
    }
    assert_eq!(sandbox.snapshot(), before);
    assert!(!std::path::Path::new("/dev/.locks").exists());
}

#[test]
fn a_side_directory_that_is_a_link_is_refused_and_not_followed() {
    for name in [".state-backups", ".locks", ".signals"] {
        let sandbox = Sandbox::with_history();
        let elsewhere = Sandbox::empty();
        fs::remove_dir_all(sandbox.file(name)).unwrap();
        symlink(elsewhere.path(), sandbox.file(name)).unwrap();
        let state = fs::read(sandbox.state()).unwrap();
        for words in ["state init", "state signal X"] {
            sandbox.run(words).expect(6).saying("a symbolic link");
            assert_eq!(fs::read(sandbox.state()).unwrap(), state, "{name}");
        }
        assert_eq!(elsewhere.snapshot(), [], "{name}");
    }
}

#[test]
fn a_copy_that_is_a_link_is_never_restored() {
    let sandbox = Sandbox::with_history();
    let secret = Sandbox::with_history();
    for name in sandbox.shelf("state-").into_iter().chain(["mirror.json".to_owned()]) {
        fs::remove_file(sandbox.file(".state-backups").join(&name)).unwrap();
        symlink(secret.state(), sandbox.file(".state-backups").join(&name)).unwrap();
    }
    sandbox.overwrite("garbage");
    assert_ne!(sandbox.run("state read").code, 0);
    assert_eq!(fs::read_to_string(sandbox.state()).unwrap(), "garbage");
}

#[test]
fn modes_are_right_whatever_the_umask() {
    for umask in ["0000", "0022", "0277", "0777"] {
        let sandbox = Sandbox::empty();
        let script = format!(
            "umask {umask}; b=$PIPELINE_BINARY; $b state init && $b state set a=b && \
             $b state signal S && $b state backup x"
        );
        assert_eq!(sandbox.bash(&script).code, 0, "{umask}");
        for (path, _) in sandbox.snapshot() {
            let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o7777;
            let wanted = if path.is_dir() { 0o700 } else { 0o600 };
            assert_eq!(mode, wanted, "umask {umask}: {}", path.display());
        }
    }
}

#[test]
fn a_loose_mode_is_warned_of_and_tightened_by_the_next_write() {
    let sandbox = Sandbox::with_history();
    fs::set_permissions(sandbox.state(), fs::Permissions::from_mode(0o644)).unwrap();
    sandbox.run("state read").expect(0).saying("0644");
    sandbox.run("state set a=b").expect(0);
    assert_eq!(fs::metadata(sandbox.state()).unwrap().mode() & 0o777, 0o600);
    assert_eq!(sandbox.run("state read").expect(0).stderr, "");
}

#[test]
fn another_users_state_is_refused_and_only_root_may_read_it() {
    if rustix::process::geteuid().as_raw() != 0 {
        eprintln!("not root: other users' files are not tested");
        return;
    }
    let sandbox = Sandbox::with_history();
    std::os::unix::fs::chown(sandbox.state(), Some(4242), None).unwrap();
    sandbox.run("state read").expect(0);
    sandbox.run("state set a=b").expect(6).saying("4242");
    sandbox.run("state init").expect(6);
    std::os::unix::fs::chown(sandbox.state(), Some(0), None).unwrap();
    std::os::unix::fs::chown(sandbox.file(".state-backups"), Some(4242), None).unwrap();
    sandbox.run("state set a=b").expect(6).saying("4242");
    std::os::unix::fs::chown(sandbox.file(".state-backups"), Some(0), None).unwrap();
    // as that user: root's state may not even be read
    fs::set_permissions(sandbox.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(sandbox.state(), fs::Permissions::from_mode(0o644)).unwrap();
    let as_user = |words: &str| {
        use std::os::unix::process::CommandExt as _;
        let mut command = sandbox.command();
        let args = ["--state-file", sandbox.state().to_str().unwrap()].map(str::to_owned);
        Ran::of(
            command
                .current_dir("/")
                .uid(4242)
                .gid(4242)
                .args(args)
                .args(words.split(' '))
                .output()
                .unwrap(),
        )
    };
    if as_user("--version").code != 0 {
        eprintln!("the binary cannot be run by another user here: that part is not tested");
        return;
    }
    as_user("state read").expect(6).saying("belongs to root (uid 0)");
    as_user("state set a=b").expect(6);
}

#[test]
fn a_refusal_of_root_leaves_no_root_files_in_a_users_state() {
    if rustix::process::geteuid().as_raw() != 0 {
        eprintln!("not root: other users' files are not tested");
        return;
    }
    let sandbox = Sandbox::with_history();
    fs::remove_file(sandbox.file("audit.log")).unwrap(); // a log beside the state would replace it
    symlink("nowhere", sandbox.file("audit.log")).unwrap();
    sandbox.bash("find . ! -name audit.log -exec chown -h 4242 {} +").expect(0);
    let before = sandbox.snapshot();
    for words in
        ["state set a=b", "state init", "recover checkpoint op", "state recover", "hook init-rules"]
    {
        sandbox.run(words).expect(6);
        assert_eq!(sandbox.snapshot(), before, "{words}");
        let of_root = sandbox.bash("find . -uid 0 ! -name audit.log").expect(0).stdout;
        assert_eq!(of_root, "", "{words}: the logs, too");
    }
}

#[test]
fn a_refusal_lists_the_valid_choices() {
    let sandbox = Sandbox::empty();
    sandbox
        .run_args(&["recover", "checkpoint", "a b"])
        .expect(4)
        .saying("is not a valid name for an operation");
    sandbox.run_args(&["lock", "check", "a b"]).expect(4).saying("is not a valid name for a lock");
    sandbox.run("lock break aa").expect(64).saying("<--token <T>|--force|--waiter <ID>>");
    sandbox.run("lock break aa --token 1 --force").expect(64).saying("cannot be used with");
    let told = sandbox.run("shell fish").expect(64).saying("bash, zsh, sh").stderr;
    assert!(!told.contains("did you mean"), "{told}");
    sandbox.run("state read -V").expect(64);
    assert_eq!(sandbox.ok("-V"), concat!("pipeline-state ", env!("CARGO_PKG_VERSION")));
}

#[test]
fn another_users_audit_log_is_not_written_and_stops_nothing() {
    let sandbox = Sandbox::initialized();
    fs::write(sandbox.file("victim"), "").unwrap();
    fs::remove_file(sandbox.file("audit.log")).unwrap();
    symlink("victim", sandbox.file("audit.log")).unwrap();
    sandbox.run("state set a=1").expect(0).saying("audit log").saying(".pipeline-audit.log");
    assert_eq!(fs::read_to_string(sandbox.file("victim")).unwrap(), "");
    assert!(
        fs::read_to_string(sandbox.file(".pipeline-audit.log")).unwrap().contains("revision=2")
    );
    assert_eq!(sandbox.run("state history --json").expect(0).json()[0]["command"], "state set");
    if rustix::process::geteuid().as_raw() == 0 {
        fs::remove_file(sandbox.file("audit.log")).unwrap();
        fs::write(sandbox.file("audit.log"), "").unwrap();
        std::os::unix::fs::chown(sandbox.file("audit.log"), Some(4242), None).unwrap();
        sandbox.run("state set a=2").expect(0).saying("another user");
        assert_eq!(fs::read_to_string(sandbox.file("audit.log")).unwrap(), "");
    }
}

#[test]
fn the_audit_log_has_a_line_for_each_commit_and_refusal_and_no_contents() {
    let sandbox = Sandbox::with_history();
    sandbox.ok("state set password=hunter2 --reason rotate");
    sandbox.run("state set phase:=1").expect(4);
    sandbox.ok("state read");
    let log = fs::read_to_string(sandbox.file("audit.log")).unwrap();
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(lines.len(), 6, "{log}");
    assert!(
        lines[4].contains("[INFO] state-manager/set: committed revision=5 reason=rotate pid="),
        "{}",
        lines[4]
    );
    assert!(
        lines[5].contains("[WARN] state-manager/set: refused code=4 kind=schema"),
        "{}",
        lines[5]
    );
    assert!(!log.contains("hunter2"));
}

#[test]
fn the_error_log_has_state_errors_and_no_usage_errors() {
    let sandbox = Sandbox::with_history();
    sandbox.run("state set phase:=1").expect(4);
    sandbox.run("state set a=b --if-revision 9").expect(75);
    assert_eq!(fs::read_to_string(sandbox.file(".error-recovery.log")).unwrap(), "");
    sandbox.overwrite("");
    sandbox.ok("state read");
    sandbox.overwrite("{}");
    sandbox.run("state set a=b").expect(3);
    let log = fs::read_to_string(sandbox.file(".error-recovery.log")).unwrap();
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(lines.len(), 2, "{log}");
    assert!(
        lines[0].contains("[WARN] error-recovery/heal: ") && lines[0].ends_with("(code: 3)"),
        "{log}"
    );
    assert!(
        lines[1].contains("[ERROR] error-recovery/set: ") && lines[1].ends_with("(code: 3)"),
        "{log}"
    );
    assert_eq!(fs::metadata(sandbox.file(".error-recovery.log")).unwrap().mode() & 0o777, 0o600);
}

#[test]
fn a_file_size_limit_is_a_full_disk_and_not_a_death() {
    let sandbox = Sandbox::with_history();
    let before = fs::read(sandbox.state()).unwrap();
    let ran = sandbox.bash("ulimit -f 0; exec $PIPELINE_BINARY state set a=b");
    ran.expect(7).saying("hint: ulimit -f");
    assert_eq!(fs::read(sandbox.state()).unwrap(), before);
    assert!(sandbox.debris().is_empty());
    assert_eq!(sandbox.shelf("state-").len(), 3, "no backup had to go for what no room can mend");
    sandbox.ok("state set a=b");
}

#[test]
fn on_a_full_disk_backups_are_pruned_once_then_it_fails() {
    let sandbox = Sandbox::empty();
    // 140 KiB hold eight copies of a 16 KiB document beside the small files; the live file, the
    // mirror, the next of each and five backups would be nine.
    let script = r#"
        mount -t tmpfs -o size=140k,mode=700 none . && cd "$PWD" || exit 99
        b=$PIPELINE_BINARY; export AUDIT_LOG=/dev/null
        $b state init -q && $b state set -q big="$(head -c 12000 /dev/zero | tr '\0' x)" || exit 98
        for i in 1 2 3 4 5 6 7 8 9; do $b state set -q n:=$i 2>>log || exit 97; done
        ls .state-backups | grep -c '^state-' ; $b state get .n
        head -c 200000 /dev/zero > filler 2>/dev/null
        $b state set n:=10; echo "code $?"; $b state get .n; find . -name '*.tmp'
        rm filler; $b state set -q n:=11; $b state get .n"#;
    let probe = sandbox.program("unshare").args(["-Urm", "true"]).status();
    if !probe.is_ok_and(|status| status.success()) {
        assert!(
            std::env::var_os("CI").is_none(),
            "unshare -Urm does not work, and in CI nothing is skipped"
        );
        eprintln!("unshare -Urm is not permitted here: full disks are not tested");
        return;
    }
    let ran =
        Ran::of(sandbox.program("unshare").args(["-Urm", "bash", "-c", script]).output().unwrap());
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(lines.get(1..), Some(["9", "code 7", "9", "11"].as_slice()), "{ran:?}");
    assert!(lines[0].parse::<u32>().unwrap() >= 2, "{ran:?}");
    assert!(ran.stderr.contains("[DISK_FULL]"), "{ran:?}");
}

#[test]
fn checkpoints_that_became_roots_keep_no_reader_from_a_healthy_state() {
    if rustix::process::geteuid().as_raw() != 0 {
        eprintln!("not root: other users' files are not tested");
        return;
    }
    let sandbox = Sandbox::with_history();
    sandbox.ok("recover checkpoint c");
    for (path, _) in sandbox.snapshot() {
        if !path.starts_with(sandbox.file(".checkpoints")) {
            std::os::unix::fs::chown(path, Some(4242), None).unwrap();
        }
    }
    std::os::unix::fs::chown(sandbox.path(), Some(4242), None).unwrap();
    let as_owner = |words: &str| {
        use std::os::unix::process::CommandExt as _;
        let mut command = sandbox.command();
        let command = command.env("AUDIT_LOG", "/dev/null").uid(4242).gid(4242);
        command.args(words.split(' ')).output().map(Ran::of)
    };
    if !as_owner("--version").is_ok_and(|ran| ran.code == 0) {
        eprintln!("the binary cannot be run by another user here: this is not tested");
        return;
    }
    for words in [
        "state read",
        "state get .n",
        "state wait .n",
        "state validate",
        "state status",
        "lock list",
    ] {
        let ran = as_owner(words).unwrap().expect(0);
        assert!(
            words == "lock list" || ran.stderr.contains("belongs to root"),
            "{words}: {}",
            ran.stderr
        );
    }
    as_owner("state set n:=9").unwrap().expect(6).saying("hint: pipeline-state recover doctor");
}
