//! Keys of locks with values that this program cannot read: of a newer one, damaged, put by hand.

use std::process::Stdio;

use pipeline_state::error::Kind;
use pipeline_state::etcd::txn::put_with_lease;
use pipeline_state::lock::Mode::{Exclusive, Shared};
use pipeline_state::lock::{BreakTarget, Standing};

use crate::commands::Host;
use crate::holders::{Script, name};
use crate::server::shared;
use crate::stores::{Place, set};

/// Values as a newer program, a damage or a person may leave them; the last is a grant, cut off.
const VALUES: [&str; 5] = ["?", "", "{}", r#"{"format":2,"grant":{"owners":[]}}"#, r#"{"grant":{"#];

#[test]
fn an_unreadable_grant_is_held_until_an_operator_breaks_it() {
    for value in VALUES {
        let (place, one) = (Place::new(), Script::new());
        let locks = place.locks();
        place.put("hold/deploy/x", value);
        let refused = one.try_lock(&locks, "deploy", Shared).unwrap_err();
        let key = place.key("hold/deploy/x");
        assert_eq!(
            refused.message,
            format!(
                "not acquired within 0.0 s: deploy: held by an unknown owner (the key {key} has a \
                 value that this program cannot read)"
            )
        );
        assert!(format!("{:?}", refused.hints).contains("lock break deploy --force"));
        let standing = locks.check(&name("deploy")).unwrap();
        assert_eq!(standing, Standing::Unknown("damaged record".to_owned()));
        let entry = locks.list().unwrap().remove(0);
        assert!(entry.command.contains(&key) && entry.token.is_some(), "{entry:?}");
        assert_eq!(one.release(&locks, "deploy").unwrap_err().kind, Kind::NotOwner);
        locks.break_lock(&name("deploy"), BreakTarget::All).unwrap();
        one.try_lock(&locks, "deploy", Exclusive).unwrap();
    }
}

#[test]
fn the_doctor_says_how_to_break_a_grant_that_no_lease_ends() {
    let host = Host::initialized();
    let mut one = std::process::Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
    host.ok(&["lock", "acquire", "build", "--owner-pid", &one.id().to_string()]);
    let found = || -> serde_json::Value {
        let doctor = host.run(&["--json", "recover", "doctor"]);
        serde_json::from_slice::<serde_json::Value>(&doctor.stdout).unwrap()["findings"].clone()
    };
    assert_eq!(found(), serde_json::json!([]));
    let token = host.place.put("hold/deploy/x", "?").to_string();
    let finding = found()[0].clone();
    assert_eq!(finding["subject"], "locks", "{finding}");
    let typed = format!("lock break deploy --token {token}");
    assert!(finding.to_string().contains(&typed), "{finding}");
    host.ok(&typed.split(' ').collect::<Vec<_>>());
    assert_eq!(found(), serde_json::json!([]));
    one.kill().unwrap();
    one.wait().unwrap();
}

#[test]
fn an_unreadable_waiter_blocks_no_lock_and_no_commit_and_is_reported() {
    for value in VALUES {
        let (place, one) = (Place::initialized(), Script::new());
        let locks = place.locks();
        place.put("wait/deploy/x", value);
        place.put("wait/state/x", value);
        one.try_lock(&locks, "deploy", Exclusive).unwrap();
        set(&place.store(), "n", 1).unwrap();
        locks.list().unwrap();
        let warnings = locks.take_warnings();
        for key in ["wait/deploy/x", "wait/state/x"].map(|key| place.key(key)) {
            let is_it = |text: &&String| text.contains(&key) && text.contains("`lock clean`");
            assert!(warnings.iter().any(|text| is_it(&text)), "{warnings:?}");
        }
        assert_eq!(locks.clean().unwrap(), 2);
        assert!(place.below("wait/").is_empty());
    }
}

#[test]
fn a_place_that_a_lease_ends_is_left_to_it() {
    let place = Place::new();
    let client = shared().client();
    client.grant(0x61, std::time::Duration::from_secs(600)).unwrap();
    place.edit(vec![put_with_lease(place.key("wait/deploy/x"), "?", 0x61)]);
    assert_eq!(place.locks().clean().unwrap(), 0);
    assert_eq!(place.below("wait/").len(), 1);
    client.revoke(0x61).unwrap();
}

#[test]
fn an_owner_with_a_key_that_no_lease_ends_gets_a_lease() {
    let (place, one) = (Place::new(), Script::new());
    let locks = place.locks();
    one.lock(&locks, "a", Exclusive).unwrap();
    one.release(&locks, "a").unwrap();
    let owner = place.below("owner/").remove(0);
    shared().client().revoke(owner.lease).unwrap();
    let key = String::from_utf8(owner.key.to_vec()).unwrap();
    place.put(key.strip_prefix(&place.key("")).unwrap(), "?");
    one.lock(&locks, "a", Exclusive).unwrap();
    assert_ne!(place.below("hold/a/")[0].lease, 0);
}
