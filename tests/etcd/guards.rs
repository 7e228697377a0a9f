//! `recover guard` on a store of a cluster.

use std::process::Stdio;

use pipeline_state::store::guard::{OnRecord, Standing};
use pipeline_state::store::remote::RemoteStore;
use serde_json::json;

use crate::commands::Host;
use crate::stores::set;

/// A host with a state and a file of `config/`.
fn host() -> Host {
    let host = Host::initialized();
    std::fs::create_dir(host.dir.path().join("config")).unwrap();
    configure(&host, "old");
    host.ok(&["state", "set", "n:=1"]);
    host
}

fn configure(host: &Host, content: &str) {
    std::fs::write(host.dir.path().join("config/a"), content).unwrap();
}

fn configured(host: &Host) -> String {
    std::fs::read_to_string(host.dir.path().join("config/a")).unwrap()
}

fn on_record(host: &Host) -> Vec<OnRecord> {
    host.place.store().guards().list().unwrap()
}

/// Runs a script under a guard; its exit code, and what was said.
fn guard(host: &Host, script: &str) -> (i32, String) {
    let program = env!("CARGO_BIN_EXE_pipeline-state");
    let mut command = host.command(&["recover", "guard", "deploy", "--", "sh", "-ec", script]);
    let output = command.env("P", program).stdin(Stdio::null()).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn what_a_guarded_command_changed_stays_if_it_succeeds_and_goes_if_it_fails() {
    let host = host();
    let change = "\"$P\" set n:=2 -q; \"$P\" state signal ready -q; echo new >config/a";
    assert_eq!(guard(&host, &format!("{change}; exit 7")).0, 7);
    assert_eq!((host.ok(&["get", ".n"]), configured(&host)), ("1\n".into(), "old".into()));
    assert_eq!(host.json(&["get", ".signals"]), json!({}));
    assert!(on_record(&host).is_empty() && host.place.value("signal/ready").is_none());
    let (code, said) = guard(&host, change);
    assert_eq!(code, 0, "{said}");
    assert_eq!((host.ok(&["get", ".n"]), configured(&host)), ("2\n".into(), "new\n".into()));
    assert!(on_record(&host).is_empty());
    let history = host.json(&["state", "history", "-n", "10"]);
    let commands = history.as_array().unwrap().iter().map(|it| it["command"].as_str().unwrap());
    assert!(commands.into_iter().any(|command| command == "recover restore"));
}

/// The same, while another script does something.
fn guard_while(host: &Host, before: &str, others: impl FnOnce(&RemoteStore)) -> (i32, String) {
    let ready = host.dir.path().join("ready");
    let script = format!("{before}; touch ready; while [ -e ready ]; do sleep 0.05; done; exit 1");
    std::thread::scope(|scope| {
        let guarded = scope.spawn(|| guard(host, &script));
        while !ready.exists() {
            std::thread::yield_now();
        }
        others(&host.place.elsewhere().store());
        std::fs::remove_file(ready).unwrap();
        guarded.join().unwrap()
    })
}

#[test]
fn the_commits_of_others_are_kept() {
    let host = host();
    let change = "\"$P\" set mine:=1 n:=5 -q; echo new >config/a";
    let (code, said) = guard_while(&host, change, |other| {
        set(other, "theirs", 1).unwrap();
    });
    assert!(code == 1 && said.contains("was put back as revision 5"), "{said}");
    let state = host.json(&["state", "read"]);
    assert_eq!((&state["n"], &state["theirs"], state.get("mine")), (&json!(1), &json!(1), None));
    assert_eq!(configured(&host), "old");
    assert!(on_record(&host).is_empty());
}

#[test]
fn a_conflict_with_others_leaves_the_guard_on_record_until_it_is_decided() {
    let host = host();
    let id = || on_record(&host)[0].id.clone();
    let fail = || {
        guard_while(&host, "\"$P\" set n:=2 -q", |other| {
            set(other, "n", 3).unwrap();
        })
    };
    let (code, said) = fail();
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("others changed what it changed") && said.contains("--forget"), "{said}");
    assert!(matches!(on_record(&host)[0].standing, Standing::Unrestored(_)));
    assert_eq!(host.fails(&["recover", "remove", &id()]), (1, "in_use".into()));
    let doctor = host.run(&["--json", "recover", "doctor"]);
    let found: serde_json::Value = serde_json::from_slice(&doctor.stdout).unwrap();
    assert_eq!(found["findings"][0]["subject"], "guards", "{found}");
    let warned = host.run(&["set", "x:=1"]);
    assert!(String::from_utf8_lossy(&warned.stderr).contains("did not put everything back"));
    host.ok(&["recover", "guard", "--forget", &id()]);
    assert!(on_record(&host).is_empty());
    assert_eq!(fail().0, 3);
    let restored = host.run(&["recover", "restore", &id(), "--yes"]);
    assert!(restored.status.success() && restored.stderr.is_empty(), "{restored:?}");
    assert!(on_record(&host).is_empty(), "a restore puts back what the guard did not");
}

#[test]
fn a_guard_that_is_killed_stays_on_record_and_one_that_runs_is_not_forgotten() {
    let host = host();
    let mut guarded = host
        .command(&["recover", "guard", "deploy", "--", "sh", "-c", "echo; exec cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut begun = [0];
    std::io::Read::read_exact(guarded.stdout.as_mut().unwrap(), &mut begun).unwrap();
    let status = host.json(&["recover", "status"]);
    let id = status["guards"][0]["id"].as_str().unwrap();
    assert_eq!(status["guards"][0]["standing"], "running");
    let forget = ["recover", "guard", "--forget", id];
    assert_eq!(host.fails(&forget), (1, "not_owner".into()));
    guarded.kill().unwrap();
    guarded.wait().unwrap();
    assert_eq!(host.json(&["recover", "status"])["guards"][0]["standing"], "killed");
    // Another host cannot know.
    let elsewhere = host.place.elsewhere().store().guards().list().unwrap();
    assert_eq!(elsewhere[0].standing, Standing::Unknown);
    host.ok(&forget);
    assert_eq!(host.fails(&forget), (1, "not_found".into()));
}
