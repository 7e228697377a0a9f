//! Access control lists, and the rights of other users, in a checkpoint and after its restore.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;
use std::process::Command;
use std::rc::Rc;

use crate::observed::{Fault, Observed};
use pipeline_state::fs::Disk;
use pipeline_state::store::checkpoint::catalog::Which;
use pipeline_state::store::options::WriteOptions;
use rustix::io::Errno;

use crate::races::store_on;
use crate::sandbox::{Sandbox, installed};

fn set_acl(options: &[&str], path: &Path) -> bool {
    let done = Command::new("setfacl").args(options).arg(path).status().unwrap().success();
    if !done {
        assert!(
            std::env::var_os("CI").is_none(),
            "no access control lists here, and in CI nothing is skipped"
        );
        eprintln!("the file system knows no access control lists: they are not tested");
    }
    done
}

fn acl(path: &Path) -> String {
    let output = Command::new("getfacl")
        .args(["--numeric", "--omit-header", "-p"])
        .arg(path)
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap().lines().collect::<Vec<_>>().join(",")
}

/// A root with lists on `config/` and a file in it: one that gives, one that denies, a default.
fn with_lists() -> Option<Sandbox> {
    let root = Sandbox::with_history();
    for dir in ["config", "config/sub"] {
        fs::create_dir(root.file(dir)).unwrap();
    }
    for name in ["given", "denied", "plain"] {
        fs::write(root.file("config").join(name), name).unwrap();
    }
    fs::set_permissions(root.file("config/given"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(root.file("config/denied"), fs::Permissions::from_mode(0o644)).unwrap();
    let done = set_acl(&["-m", "u:1001:rw"], &root.file("config/given"))
        && set_acl(&["-m", "u:1002:---"], &root.file("config/denied"))
        && set_acl(&["-m", "g:7:rwx", "-d", "-m", "u:1003:rwx"], &root.file("config/sub"));
    done.then_some(root)
}

fn lists(root: &Sandbox) -> Vec<String> {
    let files = ["config", "config/given", "config/denied", "config/plain", "config/sub"];
    files.iter().map(|name| acl(&root.file(name))).collect()
}

#[test]
fn a_restore_brings_back_the_lists_and_no_others() {
    if !installed("setfacl") {
        return;
    }
    let Some(root) = with_lists() else { return };
    let before = lists(&root);
    assert!(before[1].contains("user:1001:rw-"), "{before:?}");
    root.run("recover guard op -- false");
    assert_eq!(lists(&root), before, "nothing had changed");
    for name in ["given", "denied", "sub"] {
        assert!(set_acl(&["-b"], &root.file("config").join(name)));
    }
    // a root's ACL grants others access; a staged file drops it
    assert!(set_acl(&["-d", "-m", "u:1009:rwx"], root.path()));
    assert!(set_acl(&["-m", "u:1004:rwx"], &root.file("config/plain")));
    root.ok("recover restore --latest op");
    assert_eq!(lists(&root), before);
    root.run("recover verify").expect(0);
}

#[test]
fn without_acl_support_no_user_gains_access() {
    if !installed("setfacl") {
        return;
    }
    let Some(root) = with_lists() else { return };
    root.ok("recover checkpoint good");
    let disk = Disk::new(Rc::new(Observed::new(|call| match call.name {
        "set_acl" => Fault::Fails(Errno::OPNOTSUPP),
        _ => Fault::None,
    })));
    store_on(&root, disk)
        .restores()
        .restore(&Which::Latest(None), &WriteOptions::of("restore"))
        .unwrap();
    let mode = |name: &str| fs::metadata(root.file("config").join(name)).unwrap().mode() & 0o7777;
    assert_eq!((mode("given"), mode("denied"), mode("plain")), (0o600, 0o600, 0o644));
    assert!(!acl(&root.file("config/given")).contains("1001"));
    root.run("state set n:=9").expect(0);
}

#[test]
fn an_unreadable_list_stops_a_checkpoint_and_a_failing_one_a_restore() {
    let root = Sandbox::with_history();
    fs::create_dir(root.file("config")).unwrap();
    fs::write(root.file("config/f"), "f").unwrap();
    root.ok("recover checkpoint good");
    for call in ["acl", "remove_acl"] {
        let disk = Disk::new(Rc::new(Observed::new(move |made| match made.name == call {
            true => Fault::Fails(Errno::IO),
            false => Fault::None,
        })));
        let failed = store_on(&root, disk)
            .restores()
            .restore(&Which::Latest(None), &WriteOptions::of("restore"))
            .unwrap_err();
        assert!(failed.message.contains("access control list"), "{}", failed.message);
        assert_eq!(fs::read_to_string(root.file("config/f")).unwrap(), "f");
        root.run("state set a=b").expect(0);
    }
}

#[test]
fn setgid_and_sticky_directories_are_kept_without_those_bits() {
    let root = Sandbox::with_history();
    fs::create_dir(root.file("config")).unwrap();
    fs::write(root.file("config/f"), "f").unwrap();
    for bits in [0o2775, 0o1777, 0o3770] {
        fs::set_permissions(root.file("config"), fs::Permissions::from_mode(bits)).unwrap();
        root.ok("recover checkpoint bits");
        root.run("recover verify").expect(0);
        root.ok("recover restore --latest bits");
        assert_eq!(fs::metadata(root.file("config")).unwrap().mode() & 0o7777, bits & 0o777);
    }
    // in a shared project the new directory is created like any other
    fs::set_permissions(root.path(), fs::Permissions::from_mode(0o2700)).unwrap();
    root.ok("recover restore --latest bits");
    assert_eq!(fs::metadata(root.file("config")).unwrap().mode() & 0o7777, 0o2770);
    root.run("state set n:=9").expect(0);
}

#[test]
fn a_checkpoint_with_a_file_of_another_user_is_refused() {
    if rustix::process::geteuid().as_raw() != 0 {
        eprintln!("not root: other users' files are not tested");
        return;
    }
    let root = Sandbox::with_history();
    fs::create_dir(root.file("config")).unwrap();
    fs::write(root.file("config/f"), "f").unwrap();
    root.ok("recover checkpoint good");
    let id = root.names(".checkpoints").remove(0);
    for part in ["config/f", "config", "state.json", "manifest.json", ""] {
        let path = root.file(".checkpoints").join(&id).join(part);
        chown(&path, Some(4242), None).unwrap();
        root.run(&format!("recover verify {id}")).expect(6).saying("belongs to user 4242");
        root.run(&format!("recover restore {id}")).expect(6);
        chown(&path, Some(0), None).unwrap();
    }
    root.run(&format!("recover verify {id}")).expect(0);
}

#[test]
fn init_has_git_ignore_the_side_directories() {
    let root = Sandbox::initialized();
    let sides = [".locks", ".state-backups", ".signals", ".checkpoints"];
    for side in sides {
        let file = root.file(side).join(".gitignore");
        assert_eq!(fs::read_to_string(&file).unwrap(), "*\n", "{side}");
        fs::remove_file(&file).unwrap();
        root.ok("state init");
        assert_eq!(fs::read_to_string(&file).unwrap(), "*\n", "{side}");
        fs::write(&file, "").unwrap(); // by a writer that was killed
        root.ok("state init");
        assert_eq!(fs::read_to_string(&file).unwrap(), "*\n", "{side}");
        fs::write(&file, "!mine\n").unwrap();
        root.ok("state init");
        assert_eq!(fs::read_to_string(&file).unwrap(), "!mine\n", "{side}: a user's file stays");
    }
    root.ok("state signal GO");
    root.ok("recover checkpoint good");
    root.ok("recover restore --latest");
    assert_eq!(root.ok("recover doctor"), "No problems found");
    assert_eq!(root.names(".checkpoints").len(), 2);
    for side in sides {
        assert!(root.file(side).join(".gitignore").exists(), "{side}");
    }
}
