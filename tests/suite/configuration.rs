//! Configuration files: what they may set, what commands make of wrong ones, and which users may
//! write them.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::Path;

use serde_json::{Value, json};

#[cfg(not(feature = "etcd"))]
use crate::sandbox::installed;
use crate::sandbox::{Ran, Sandbox};
#[cfg(not(feature = "etcd"))]
use crate::strace::{calls_in, injection, strace};

const FILE: &str = ".pipeline-state.toml";
const USERS: &str = ".user/pipeline-state/config.toml";
const STORE: &str = "store = 'etcd://h1:2379/p'\n";

fn with(text: &str) -> Sandbox {
    let root = Sandbox::with_history();
    write(&root.file(FILE), text);
    root
}

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
}

/// Value, layer and place of a setting.
fn setting(ran: &Ran, name: &str) -> (Value, String, Option<String>) {
    let json = ran.json();
    let row = json["settings"].as_array().unwrap().iter().find(|row| row["name"] == name).unwrap();
    let text = |name: &str| row[name].as_str().map(str::to_owned);
    (row["value"].clone(), text("origin").unwrap(), text("from"))
}

#[test]
fn option_over_environment_over_roots_file_over_users_file_over_default() {
    let root = Sandbox::initialized();
    let timeout = |command: &mut std::process::Command| {
        let ran = Ran::of(command.output().unwrap()).expect(0);
        let (value, layer, _) = setting(&ran, "lock-timeout");
        format!("{} {layer}", value.as_str().unwrap())
    };
    let plain = || {
        let mut command = root.command();
        command.args(["config", "--json"]);
        command
    };
    assert_eq!(timeout(&mut plain()), "30s default");
    write(&root.file(USERS), "lock-timeout = 1\n");
    assert_eq!(timeout(&mut plain()), "1s user");
    write(&root.file(FILE), "# ours\nlock-timeout = \"2s\"\n");
    assert_eq!(timeout(&mut plain()), "2s root");
    let ran = root.run("config --json").expect(0);
    let place = format!("{}:2", root.file(FILE).display());
    assert_eq!(setting(&ran, "lock-timeout").2, Some(place));
    assert_eq!(timeout(plain().env("LOCK_TIMEOUT", "3")), "3s environment");
    assert_eq!(timeout(plain().env("LOCK_TIMEOUT", "3").arg("--lock-timeout=4")), "4s option");
}

#[test]
fn settings_of_a_file_are_obeyed() {
    let root = with("max-backups = 2\nlock-timeout = 0\n");
    for n in 0..6 {
        root.ok(&format!("state set n:={n}"));
    }
    assert_eq!(root.shelf("state-").len(), 2);
    let owner = crate::owners::Owner::new();
    root.ok(&format!("lock acquire a --owner-pid {}", owner.pid()));
    write(&root.file(USERS), "lock-exit = 75\nforeign-edits = 'accept'\n");
    assert_eq!(root.run("lock acquire a").code, 75);
    let text = fs::read_to_string(root.state()).unwrap();
    root.overwrite(text.replace("\"n\": 5", "\"n\": 6"));
    assert_eq!(root.ok("state get .n"), "6");
}

#[test]
fn settings_bound_the_automatic_checkpoints_and_no_other() {
    let root = with("max-checkpoints = 2\n");
    root.ok("recover checkpoint mine");
    for _ in 0..5 {
        root.ok("recover restore --latest mine");
    }
    let kept = |operation: &str| {
        let names = root.names(".checkpoints").into_iter();
        names.filter(|name| name.ends_with(operation)).count()
    };
    assert_eq!((kept("mine"), kept("pre-restore")), (1, 2));
    // the newest stays whatever is set
    write(&root.file(FILE), "max-checkpoints = 0\ncheckpoint-days = 0\n");
    root.ok("recover restore --latest mine");
    assert_eq!((kept("mine"), kept("pre-restore")), (1, 1));
}

#[test]
fn a_root_sets_only_what_concerns_it() {
    let root = with(
        "audit-log = '/tmp/x'\nlock-exit = 3\nauto-recover = false\n\
                     foreign-edits = 'accept'\nformat = 'json'\nlock-timeout = '11m'\n",
    );
    let ran = root.run("config --json").expect(0).saying("only in your own, or by --lock-exit");
    for name in ["lock-exit", "auto-recover", "foreign-edits", "lock-timeout"] {
        assert_eq!(setting(&ran, name).1, "default", "{name}");
    }
    let problems = ran.json()["files"][0]["problems"].as_array().unwrap().len();
    assert_eq!(problems, 6);
}

#[test]
fn a_wrong_key_stops_writers_and_no_reader() {
    let root = with("lock-timout = 3\n");
    for writer in
        ["state set a=b", "state init", "state backup", "lock acquire a", "lock run a -- true"]
    {
        root.run(writer)
            .expect(64)
            .saying(".pipeline-state.toml:1: `lock-timout` is not a setting")
            .saying("did you mean `lock-timeout`?");
    }
    assert_eq!(root.document()["metadata"]["revision"], 4);
    for reader in [
        "state read",
        "state get .n",
        "state status",
        "state validate",
        "state history",
        "state recover --dry-run r2-",
        "recover status",
        "recover doctor",
        "recover checkpoint x",
        "config",
        "lock list",
    ] {
        let ran = root.run(reader).saying("did you mean `lock-timeout`?");
        assert_ne!(ran.code, 64, "{reader}");
    }
    let hook = root.feed("hook skill-activation-prompt", b"{\"prompt\":\"x\"}");
    assert_eq!(hook.code, 0, "{}", hook.stderr);
    let found = root.run("recover doctor --json").json();
    let finding = &found["findings"][0];
    assert_eq!((&finding["subject"], &finding["name"]), (&json!("settings"), &json!("USAGE")));
    let error = root.run("--json state set a=b").stderr;
    let error: Value = serde_json::from_str(&error).unwrap();
    assert_eq!(error["error"]["details"]["problems"][0]["suggestion"], "lock-timeout");
}

/// Replaces the root's file by one that cannot be trusted.
type Spoil = fn(&Path);

#[test]
fn a_file_that_others_may_have_written_is_refused() {
    let spoilt: [(&str, Spoil); 6] = [
        ("may be written by every user", |path| {
            fs::set_permissions(path, fs::Permissions::from_mode(0o666)).unwrap();
        }),
        ("is a symbolic link", |path| {
            fs::rename(path, path.with_extension("real")).unwrap();
            symlink(path.with_extension("real"), path).unwrap();
        }),
        ("is a symbolic link", |path| {
            fs::remove_file(path).unwrap();
            symlink("/etc/passwd", path).unwrap();
        }),
        ("is not a regular file", |path| {
            fs::remove_file(path).unwrap();
            rustix::fs::mknodat(
                rustix::fs::CWD,
                path,
                rustix::fs::FileType::Fifo,
                rustix::fs::Mode::RUSR,
                0,
            )
            .unwrap();
        }),
        ("is not a regular file", |path| {
            fs::remove_file(path).unwrap();
            fs::create_dir(path).unwrap();
        }),
        ("has over 64 KiB", |path| {
            let file = fs::File::options().append(true).open(path).unwrap();
            file.set_len(1 << 40).unwrap();
        }),
    ];
    for (why, spoil) in spoilt {
        let root = with("max-backups = 1\n");
        spoil(&root.file(FILE));
        for refused in ["state set a=b", "state get .n", "lock acquire a", "config trust"] {
            root.run(refused).expect(6).saying(why);
        }
        root.run("recover doctor").expect(6).showing(why);
        let ran = root.run("config --json").expect(0).saying(why);
        assert_eq!(ran.json()["files"][0]["standing"], "refused");
        assert_eq!(setting(&ran, "max-backups").1, "default");
        assert_eq!(root.feed("hook skill-activation-prompt", b"{\"prompt\":\"x\"}").code, 0);
    }
}

#[test]
fn another_users_file_is_refused_and_root_reads_the_owners() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let root = with("max-backups = 3\n");
    chown(root.file(FILE), Some(4343), None).unwrap();
    root.run("state get .n").expect(6).saying("belongs to uid 4343");
    // the root is that user's, too
    chown(root.path(), Some(4343), None).unwrap();
    assert_eq!(setting(&root.run("config --json").expect(0), "max-backups").0, json!(3));
    // another user's own file says nothing to root
    write(&root.file(USERS), "audit-log = '/etc/crontab'\n");
    chown(root.file(USERS), Some(4343), None).unwrap();
    assert_eq!(setting(&root.run("config --json").expect(0), "audit-log").1, "environment");
    let ran = Ran::of(
        root.command().args(["config", "--json"]).env_remove("AUDIT_LOG").output().unwrap(),
    );
    assert_eq!(setting(&ran, "audit-log").1, "default");
}

#[test]
fn the_users_own_file_may_be_a_link() {
    let root = Sandbox::initialized();
    write(&root.file("dotfiles/state.toml"), "lock-exit = 9\n");
    fs::create_dir_all(root.file(".user/pipeline-state")).unwrap();
    symlink(root.file("dotfiles/state.toml"), root.file(USERS)).unwrap();
    assert_eq!(setting(&root.run("config --json").expect(0), "lock-exit").0, json!(9));
    fs::remove_file(root.file("dotfiles/state.toml")).unwrap();
    assert_eq!(setting(&root.run("config --json").expect(0), "lock-exit").0, json!(2));
}

#[test]
#[cfg(not(feature = "etcd"))]
fn a_roots_store_counts_once_it_is_trusted() {
    let root = with(STORE);
    for command in ["state set a=b", "state get .n", "state status", "lock acquire a"] {
        root.run(command).expect(6).saying("not trusted yet").saying("config trust");
    }
    let hook = root.feed("hook skill-activation-prompt", b"{\"prompt\":\"x\"}");
    assert_eq!((hook.code, hook.stdout.as_str(), hook.stderr.as_str()), (0, "", ""));
    let standing = |root: &Sandbox| {
        let ran = root.run("config --json").expect(0);
        ran.json()["files"][0]["standing"].as_str().unwrap().to_owned()
    };
    assert_eq!(standing(&root), "untrusted");
    root.run("config trust").expect(0).showing("etcd://h1:2379/p");
    assert_eq!(standing(&root), "used");
    root.run("state get .n").expect(5).saying("no `etcd` feature");
    root.run("state set a=b").expect(5);
    assert_eq!(root.revision(), 4);
    // a change is another file
    write(&root.file(FILE), "store = 'etcd://elsewhere/p'\n");
    root.run("state get .n").expect(6);
    write(&root.file(FILE), STORE);
    root.run("state get .n").expect(5);
    // a record that others may have written proves nothing
    let record = root.file(".user/pipeline-state/trusted").read_dir().unwrap().next().unwrap();
    fs::set_permissions(record.unwrap().path(), fs::Permissions::from_mode(0o666)).unwrap();
    root.run("state get .n").expect(6);
}

#[test]
#[cfg(not(feature = "etcd"))]
fn a_copy_of_a_trusted_root_is_not_trusted() {
    let root = with(STORE);
    root.ok("config trust");
    let copy = root.file("copy");
    fs::create_dir(&copy).unwrap();
    fs::copy(root.file(FILE), copy.join(FILE)).unwrap();
    root.run("--root copy state get .n").expect(6);
    root.run("--root . state get .n").expect(5);
}

#[test]
#[cfg(not(feature = "etcd"))]
fn a_store_of_option_or_environment_is_refused_by_this_build() {
    let root = Sandbox::with_history();
    root.run("--store etcd://h/p state set a=b").expect(5).saying("no `etcd` feature");
    root.run("--store nonsense state get .n").expect(64);
    let run = |url: &str| {
        Ran::of(
            root.command()
                .args(["state", "get", ".n"])
                .env("PIPELINE_STORE", url)
                .output()
                .unwrap(),
        )
    };
    let ran = run("etcds://me:secret@h/p").expect(5).saying("unset PIPELINE_STORE");
    assert!(!ran.stderr.contains("secret"), "{}", ran.stderr);
    run("h:2379").expect(64).saying("PIPELINE_STORE");
    assert_eq!(run("").expect(0).stdout.trim(), "3");
    assert_eq!(root.revision(), 4);
}

#[test]
fn a_store_in_the_file_marks_a_root_and_other_settings_do_not() {
    let root = Sandbox::empty();
    let below = root.file("a/b");
    fs::create_dir_all(&below).unwrap();
    let run = |words: &str| {
        let mut command = root.command();
        Ran::of(command.current_dir(&below).args(words.split(' ')).output().unwrap())
    };
    write(&root.file(FILE), "max-backups = 3\n");
    run("state get .n").expect(1);
    let place = |ran: &Ran| setting(ran, "root").0;
    assert_eq!(place(&run("config --json")), json!(below.canonicalize().unwrap()));
    write(&root.file(FILE), STORE);
    run("state get .n").expect(6).saying("not trusted");
    assert_eq!(place(&run("config --json")), json!(root.path().canonicalize().unwrap()));
    fs::remove_file(root.file(FILE)).unwrap();
    fs::write(root.file(".workflow-state.moved"), "").unwrap();
    assert_eq!(place(&run("config --json")), json!(root.path().canonicalize().unwrap()));
}

#[test]
fn trust_needs_a_file_that_names_a_store() {
    let root = Sandbox::initialized();
    root.run("config trust").expect(5).saying("does not exist");
    write(&root.file(FILE), "max-backups = 3\n");
    root.run("config trust").expect(1).saying("names no store");
    assert!(!root.file(".user").exists());
}

/// The page's table of settings: name, whether a root's file may set it, variable.
fn documented() -> Vec<(String, bool, String)> {
    let page = include_str!("../../docs/configuration.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.map(|row| {
        let cells: Vec<&str> = row.split('|').map(|cell| cell.trim_matches([' ', '`'])).collect();
        (cells[0].to_owned(), !cells[1].is_empty(), cells[3].to_owned())
    })
    .collect()
}

#[test]
fn the_page_lists_the_settings() {
    use pipeline_state::config::setting::ALL;
    let variable = |setting: &dyn pipeline_state::config::setting::AnySetting| {
        setting.variable().unwrap_or("NO_COLOR").to_owned()
    };
    let table = ALL
        .iter()
        .map(|setting| (setting.name().to_owned(), setting.is_for_roots(), variable(*setting)));
    assert_eq!(documented(), table.collect::<Vec<_>>());
}

#[test]
#[cfg(not(feature = "etcd"))]
fn a_killed_or_failing_trust_trusts_or_not_and_the_next_one_does() {
    if !installed("strace") {
        return;
    }
    let trusting = |root: &Sandbox, options: &[&str]| {
        let mut command = strace(root, options, ["config", "trust"]);
        Ran::of(command.env("XDG_CONFIG_HOME", root.file(".user")).output().unwrap())
    };
    let root = with(STORE);
    let trace = root.file("trace");
    trusting(&root, &["-o", trace.to_str().unwrap()]).expect(0);
    let trace = fs::read_to_string(trace).unwrap();
    let calls = calls_in(&trace, root.path().to_str().unwrap());
    let changes: Vec<_> = calls.iter().filter(|call| call.changes()).collect();
    assert!(changes.len() >= 8, "{}", changes.len());
    for call in changes {
        for fault in ["signal=KILL", "error=ENOSPC", "error=EROFS"] {
            if call.name == "exit_group" && fault != "signal=KILL" {
                continue;
            }
            let root = with(STORE);
            let options = injection(&call.name, &format!("{fault}:when={}", call.nth));
            let ran = trusting(&root, &options.each_ref().map(String::as_str));
            let place = format!("{fault} at {}", call.line);
            let is_trusted = root.run("state get .n").code == 5;
            assert!(is_trusted || ran.code != 0, "{place}: {ran:?}");
            root.run("config trust").expect(0);
            root.run("state get .n").expect(5);
            let left = root.names(".user/pipeline-state/trusted");
            assert_eq!(left.len(), 1, "{place}: {left:?}");
        }
    }
}
