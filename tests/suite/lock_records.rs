//! A record that is damaged or of unknown format never counts as a free lock.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::{Value, json};

use crate::owners::{Owner, Waiting};
use crate::sandbox::Sandbox;
use crate::sandbox::until;
use crate::script::forged;

/// Expects the lock to be held by an unknown holder until it is broken; its waiters get it then.
#[track_caller]
fn expect_kept_until_broken(sandbox: &Sandbox, what: &str) {
    let (shown, code) = sandbox.check("n");
    assert!(shown.starts_with("unknown:") && code == 0, "{what}: {shown} {code}");
    assert_eq!(sandbox.rows()[0]["status"], "damaged", "{what}");
    assert_eq!(sandbox.check("n"), (shown, code), "{what}: a check changes nothing");
    let put_aside = sandbox
        .bash("$PIPELINE_BINARY lock acquire n 0")
        .expect(2)
        .saying("was put aside as .locks/.torn-n-");
    assert!(
        put_aside.stderr.contains("hint: pipeline-state lock break n --force"),
        "{what}: {put_aside:?}"
    );
    let (shown, code) = sandbox.check("n");
    assert!(shown.starts_with("unknown:") && code == 0, "{what}: {shown} {code}");
    assert_eq!(sandbox.ok("lock clean"), "Cleaned 0 stale locks", "{what}");
    let mut waiter = sandbox.waiter("n");
    sandbox.ok("lock break n --force");
    assert_eq!(waiter.line(), "got 0", "{what}");
}

#[test]
fn a_record_cut_short_anywhere_is_kept_until_it_is_broken() {
    let sandbox = Sandbox::initialized();
    let _holder = sandbox.holder("n");
    let record = fs::read(sandbox.record_of("n")).unwrap();
    assert!(record.ends_with(b"}\n"));
    for length in 0..record.len() {
        sandbox.put_record("n", &record[..length]);
        let (shown, code) = sandbox.check("n");
        assert!(shown.starts_with("unknown:") && code == 0, "{length}: {shown} {code}");
        assert!(!sandbox.is_free("n"), "{length}");
    }
    let kept = sandbox.names(".locks").into_iter().filter(|name| name.starts_with(".torn-n-"));
    let mut kept: Vec<Vec<u8>> =
        kept.map(|name| fs::read(sandbox.file(".locks").join(name)).unwrap()).collect();
    kept.sort_by_key(Vec::len);
    let wanted: Vec<Vec<u8>> = (0..record.len()).map(|length| record[..length].to_vec()).collect();
    assert!(kept == wanted, "evidence of each is kept: {} of {}", kept.len(), wanted.len());
}

#[test]
fn a_foreign_entry_in_a_records_place_is_kept_until_a_break() {
    let place = |what: &str| {
        let sandbox = Sandbox::initialized();
        let holder = sandbox.holder("n");
        let path = sandbox.record_of("n");
        let record = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        match what {
            "nothing in it" => fs::write(&path, "").unwrap(),
            "NULs" => fs::write(&path, vec![0; record.len()]).unwrap(),
            "half of it NULs" => fs::write(&path, [&record[..100], &[0; 300]].concat()).unwrap(),
            "no JSON" => fs::write(&path, "locked by bob\n").unwrap(),
            "no UTF-8" => fs::write(&path, b"{\"version\":1,\"holders\":\"\xff\"}").unwrap(),
            "another JSON" => fs::write(&path, r#"{"holders":[],"waiters":[]}"#).unwrap(),
            "a list" => fs::write(&path, "[]").unwrap(),
            "no holders" => fs::write(&path, r#"{"version":1,"waiters":[]}"#).unwrap(),
            "a token of none" => {
                fs::write(&path, &record).unwrap();
                sandbox.forge("n", |record| record["holders"][0]["token"] = json!(-1));
            }
            "a directory" => fs::create_dir(&path).unwrap(),
            "a link" => symlink("../.workflow-state.json", &path).unwrap(),
            "a link to nothing" => symlink("nowhere", &path).unwrap(),
            "a pipe" => assert!(sandbox.program("mkfifo").arg(&path).status().unwrap().success()),
            what => unreachable!("{what}"),
        }
        (sandbox, holder)
    };
    for what in [
        "nothing in it",
        "NULs",
        "half of it NULs",
        "no JSON",
        "no UTF-8",
        "another JSON",
        "a list",
        "no holders",
        "a token of none",
        "a directory",
        "a link",
        "a link to nothing",
        "a pipe",
    ] {
        let (sandbox, _holder) = place(what);
        let state = fs::read(sandbox.state()).unwrap();
        expect_kept_until_broken(&sandbox, what);
        assert_eq!(fs::read(sandbox.state()).unwrap(), state, "{what}");
    }
}

#[test]
fn a_record_torn_during_a_wait_is_kept_until_a_break() {
    let sandbox = Sandbox::initialized();
    let holder = sandbox.holder("n");
    let mut waiter = sandbox.waiter("n");
    sandbox.put_record("n", b"{");
    until("quarantine", || sandbox.rows().iter().any(|row| row["status"] == "unknown"));
    sandbox.await_row("waiting", waiter.pid());
    holder.kill();
    assert!(sandbox.check("n").0.starts_with("unknown:"));
    sandbox.ok("lock break n --force");
    assert_eq!(waiter.line(), "got 0");
}

#[test]
fn a_state_whose_record_is_torn_is_not_written_but_read() {
    let sandbox = Sandbox::with_history();
    sandbox.put_record("state", b"\0\0\0\0");
    let before = fs::read(sandbox.state()).unwrap();
    sandbox.run("state set a=b --lock-timeout 0").expect(2).saying("lock break state --force");
    sandbox.ok("state read");
    assert_eq!(fs::read(sandbox.state()).unwrap(), before);
    sandbox.ok("lock break state --force");
    sandbox.ok("state set a=b");
}

fn another_boot(record: &mut Value) {
    record["boot"] = json!("11111111-2222-3333-4444-555555555555");
}

/// Records are not synced, so a record made just before a power cut may be empty (on ext4 and XFS
/// it is). Its owner died with the power.
#[test]
fn a_record_torn_by_a_power_cut_is_free_after_the_reboot() {
    let torn = |boot: &str| {
        let sandbox = Sandbox::with_history();
        sandbox.holder("n").kill();
        let reserved = sandbox.file(".locks/.reserved");
        if boot == "another" {
            fs::write(&reserved, forged(&reserved, another_boot)).unwrap();
        }
        for (name, bytes) in [("n", ""), ("m", "\0\0\0\0"), ("state", "{\"version\":1,\"hol")] {
            sandbox.put_record(name, bytes.as_bytes());
        }
        sandbox
    };
    for first in [
        "state set a=b --lock-timeout 0",
        "lock acquire n 0",
        "lock acquire other 0",
        "lock run m -- true",
        "lock clean",
    ] {
        let sandbox = torn("another");
        assert_eq!(sandbox.check("n"), ("unlocked".to_owned(), 1), "every reader sees it");
        sandbox.bash(&format!("$PIPELINE_BINARY {first} && true")).expect(0);
        sandbox.bash("$PIPELINE_BINARY lock acquire m,n,state 0 && true").expect(0);
        sandbox.ok("state set c=d");
    }
    let sandbox = torn("this");
    for words in ["state set a=b --lock-timeout 0", "lock acquire n 0", "lock acquire m 0"] {
        sandbox.bash(&format!("$PIPELINE_BINARY {words}")).expect(2).saying("an unknown owner");
    }
}

/// If the boot of a record is unknown, its owner may live.
#[test]
fn a_torn_record_of_an_unknown_boot_is_not_free() {
    let sandbox = Sandbox::with_history();
    sandbox.holder("n").kill();
    let reserved = sandbox.file(".locks/.reserved");
    let (whole, earlier) = (fs::read(&reserved).unwrap(), forged(&reserved, another_boot));
    let of_this_boot = String::from_utf8(whole).unwrap();
    let boot = of_this_boot.split("\"boot\": \"").nth(1).unwrap();
    let other = if boot.starts_with('0') { '1' } else { '0' };
    sandbox.put_record("n", b"");
    fs::write(&reserved, of_this_boot.replace(boot, &format!("{other}{}", &boot[1..]))).unwrap();
    assert!(sandbox.check("n").0.starts_with("unknown:"));
    fs::write(&reserved, earlier).unwrap();
    assert_eq!(sandbox.check("n").0, "unlocked");
}

#[test]
fn the_substitute_of_a_torn_record_has_its_own_token() {
    for counter in ["there", "removed"] {
        let sandbox = Sandbox::initialized();
        drop(sandbox.holder("n"));
        if counter == "removed" {
            fs::remove_file(sandbox.file(".locks/.tokens")).unwrap();
        }
        for name in ["n", "m", "o"] {
            sandbox.put_record(name, b"torn");
        }
        sandbox.bash("$PIPELINE_BINARY lock acquire n,m,o 0").expect(2);
        let mut tokens: Vec<u64> =
            sandbox.rows().iter().map(|row| row["token"].as_u64().unwrap()).collect();
        sandbox.ok("lock break n --force");
        let holder = sandbox.holder("n");
        tokens.extend(
            sandbox
                .rows()
                .iter()
                .filter(|row| row["lock"] == "n")
                .map(|row| row["token"].as_u64().unwrap()),
        );
        let last = *tokens.last().unwrap();
        assert!(tokens[..3].iter().all(|token| *token < last), "{counter}: {tokens:?}");
        tokens.sort_unstable();
        tokens.dedup();
        assert_eq!(tokens.len(), 4, "{counter}: {tokens:?}");
        drop(holder);
    }
}

#[test]
fn a_newer_programs_record_is_refused_and_left_alone() {
    let sandbox = Sandbox::with_history();
    let holders = ["n", "state"].map(|name| sandbox.holder(name));
    for name in ["n", "state"] {
        sandbox.forge(name, |record| *record = json!({"version": 2, "owners": record["holders"]}));
    }
    let before = sandbox.snapshot();
    for words in [
        "acquire n 0",
        "acquire other,n 0",
        "release n",
        "release n --token 1",
        "break n --force",
        "renew n --ttl 5",
        "run n -- touch ran",
    ] {
        let ran = sandbox.run(&format!("lock {words}")).expect(4);
        assert!(ran.stderr.contains("version 2: a newer program wrote it"), "{words}: {ran:?}");
    }
    let (shown, code) = sandbox.check("n");
    assert!(
        shown.starts_with("unknown:") && shown.ends_with("a newer program wrote it") && code == 0,
        "{shown}"
    );
    assert_eq!(sandbox.rows()[0]["status"], "damaged");
    sandbox.run("lock clean").expect(0).saying("n was left as it is");
    sandbox.run("state set a=b").expect(4).saying("a newer program wrote it");
    sandbox.run("state set a=b --fence n:1").expect(4);
    sandbox.ok("state read");
    assert!(!sandbox.file("ran").exists());
    let other: Vec<_> =
        sandbox.snapshot().into_iter().filter(|file| !before.contains(file)).collect();
    assert!(other.is_empty(), "{other:?}");
    drop(holders);
}

#[test]
fn fields_of_a_later_version_are_no_damage() {
    let sandbox = Sandbox::initialized();
    let holder = sandbox.holder("n");
    sandbox.forge("n", |record: &mut Value| {
        record["extra"] = json!(1);
        record["holders"][0]["extra"] = json!({});
    });
    assert_eq!(sandbox.check("n"), (format!("locked:exclusive:{}", holder.pid()), 0));
    let ran = sandbox.bash("$PIPELINE_BINARY lock acquire n 0");
    ran.expect(2);
}

/// Each of these used to make a record that could not be read back: a lock that could not be
/// released.
#[test]
fn an_owner_may_note_any_json_with_a_lock() {
    let sandbox = Sandbox::initialized();
    let deep = format!("{}1{}", "{\"a\":".repeat(128), "}".repeat(128));
    let token_of_numbers = r#"{"x":{"$serde_json::private::Number":"abc"},"n":1.50}"#;
    for noted in [deep.as_str(), token_of_numbers, r#"{"$serde_json::private::Number":"12"}"#] {
        let pid = std::process::id().to_string();
        sandbox.run_args(&["lock", "acquire", "n", "0", noted, "--owner-pid", &pid]).expect(0);
        assert_eq!(sandbox.check("n"), (format!("locked:exclusive:{pid}"), 0), "{noted}");
        let listed = sandbox.ok("lock list --json");
        assert!(listed.contains(noted), "{noted} is not in {listed}");
        sandbox.ok(&format!("lock release n --owner-pid {pid}"));
    }
}

#[test]
fn the_last_token_is_an_error_with_a_way_on() {
    let sandbox = Sandbox::initialized();
    let _holder = sandbox.holder("n");
    sandbox.forge("n", |record| record["holders"][0]["token"] = json!(u64::MAX));
    for name in [".tokens", ".reserved"] {
        fs::remove_file(sandbox.file(".locks").join(name)).unwrap();
    }
    let ran = sandbox.bash("$PIPELINE_BINARY lock acquire other 0").expect(1).saying("used up");
    let hint = ran.stderr.lines().find_map(|line| line.strip_prefix("hint: mv")).unwrap();
    sandbox.bash(&format!("mv{hint} && exec $PIPELINE_BINARY lock acquire other 0")).expect(0);
}

#[test]
fn a_waiter_of_an_earlier_version_goes_first() {
    let sandbox = Sandbox::initialized();
    let (holder, earlier, later) = (Owner::new(), Owner::new(), Owner::new());
    sandbox.ok(&format!("lock acquire n --owner-pid {}", holder.pid()));
    let mut earlier = Waiting::in_queue(&sandbox, "n", &earlier);
    sandbox.put_waiters_into_record("n");
    let mut later = Waiting::in_queue(&sandbox, "n", &later);
    sandbox.ok(&format!("lock release n --owner-pid {}", holder.pid()));
    until("one is served", || earlier.has_ended() || later.has_ended());
    earlier.ended().expect(0);
    assert!(!later.has_ended());
}

#[test]
fn a_queue_that_is_a_link_is_refused_and_strange_names_in_it_wait_for_nothing() {
    let sandbox = Sandbox::initialized();
    sandbox.ok("lock acquire n --owner-pid 1");
    fs::create_dir_all(sandbox.file(".locks/.queue/n/a directory")).unwrap();
    fs::write(sandbox.file(".locks/.queue/n/0000000001.xh"), "").unwrap();
    sandbox.ok("lock release n --owner-pid 1");
    sandbox.ok("lock acquire n --owner-pid 1");
    let outside = tempfile::tempdir().unwrap();
    fs::remove_dir_all(sandbox.file(".locks/.queue")).unwrap();
    symlink(outside.path(), sandbox.file(".locks/.queue")).unwrap();
    sandbox.run("lock acquire m 0 --json --owner-pid 1").expect_json_error("unsafe_path");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
}
