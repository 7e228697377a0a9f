//! P5: which owners count as dead, which as alive, and which as unknown.

use std::fs;

use serde_json::{Value, json};

use crate::sandbox::Sandbox;
use crate::script::Script;

/// A changed field, and its change.
type Forgery<'a> = (&'a str, &'a dyn Fn(&mut Value));

/// A lock that a living script holds, with a changed record.
fn forged(change: impl Fn(&mut Value)) -> (Sandbox, Script) {
    let sandbox = Sandbox::initialized();
    let script = sandbox.holder("n");
    sandbox.forge("n", change);
    (sandbox, script)
}

fn place<'a>(record: &'a mut Value, field: &str) -> &'a mut Value {
    &mut record["holders"][0]["owner"]["place"][field]
}

#[test]
fn an_owner_that_is_certainly_dead_holds_nothing() {
    let other_start = |record: &mut Value| record["holders"][0]["owner"]["start"] = json!(1);
    let no_process = |record: &mut Value| record["holders"][0]["owner"]["pid"] = json!(i32::MAX);
    let other_boot = |record: &mut Value| {
        *place(record, "boot") = json!("an earlier one");
        record["holders"][0]["since"] = json!("2001-01-02T03:04:05.678Z");
    };
    let mut forgeries: Vec<Forgery<'_>> =
        vec![("a pid used again", &other_start), ("none", &no_process)];
    let (sandbox, _script) = forged(|_| {});
    let is_local = !sandbox.run("lock status --json").expect(0).json()["shared_file_system"]
        .as_bool()
        .unwrap();
    if is_local && fs::read_to_string("/etc/machine-id").is_ok_and(|id| !id.trim().is_empty()) {
        forgeries.push(("another boot", &other_boot));
    } else {
        eprintln!(
            "no machine id or no local file system: what an earlier boot left is not judged dead \
             here"
        );
    }
    for (what, forgery) in forgeries {
        let (sandbox, _script) = forged(forgery);
        assert_eq!(sandbox.check("n"), ("stale".to_owned(), 1), "{what}");
        assert_eq!(sandbox.rows()[0]["status"], "stale", "{what}");
        assert!(sandbox.is_free("n"), "{what}");
        let (sandbox, _script) = forged(forgery);
        assert_eq!(sandbox.ok("lock clean"), "Cleaned 1 stale lock", "{what}");
        assert_eq!(sandbox.check("n"), ("unlocked".to_owned(), 1), "{what}");
        assert!(!sandbox.record_of("n").exists(), "{what}");
    }
}

#[test]
fn an_owner_of_unknown_status_keeps_its_lock_until_a_break() {
    let elsewhere = |record: &mut Value| {
        *place(record, "boot") = json!("another");
        *place(record, "machine") = json!("another");
        *place(record, "host") = json!("far.example");
    };
    let no_machine = |record: &mut Value| {
        *place(record, "boot") = json!("another");
        *place(record, "machine") = json!("");
    };
    let other_namespace = |record: &mut Value| *place(record, "pid_namespace") = json!(1);
    let forgeries: [Forgery<'_>; 3] = [
        ("another machine", &elsewhere),
        ("a machine without a name", &no_machine),
        ("another pid namespace", &other_namespace),
    ];
    for (what, forgery) in forgeries {
        let (sandbox, script) = forged(forgery);
        let pid = script.pid();
        drop(script);
        let (shown, code) = sandbox.check("n");
        let place = sandbox.rows()[0]["place"].as_str().unwrap().to_owned();
        assert_eq!((shown, code), (format!("unknown:exclusive:{pid} in {place}"), 0), "{what}");
        assert_eq!(sandbox.rows()[0]["status"], "unknown", "{what}");
        assert_eq!(sandbox.ok("lock clean"), "Cleaned 0 stale locks", "{what}");
        sandbox
            .bash("$PIPELINE_BINARY lock acquire n 0")
            .expect(2)
            .saying("hint: pipeline-state lock break n --force");
        let mut waiter = sandbox.waiter("n");
        sandbox.ok("lock break n --force");
        assert_eq!(waiter.line(), "got 0", "{what}");
    }
}

#[test]
fn of_those_that_share_a_lock_only_the_dead_are_cleaned_away() {
    let sandbox = Sandbox::initialized();
    let mut scripts = [(); 3]
        .map(|()| sandbox.script("bash", "$B lock acquire n shared 0 -q; echo held; read -r _; :"));
    for script in &mut scripts {
        script.until("held");
    }
    let [dead, alive, unknown] = scripts;
    let pids = [dead.pid(), alive.pid(), unknown.pid()];
    sandbox.forge("n", |record| {
        for holder in record["holders"].as_array_mut().unwrap() {
            if holder["owner"]["pid"] == json!(unknown.pid()) {
                holder["owner"]["place"]["pid_namespace"] = json!(1);
            }
        }
    });
    dead.kill();
    assert_eq!(sandbox.ok("lock clean"), "Cleaned 1 stale lock");
    let statuses = |pid: u32| {
        let rows = sandbox.rows();
        rows.iter()
            .find(|row| row["owner"]["pid"] == pid)
            .map(|row| row["status"].as_str().unwrap().to_owned())
    };
    assert_eq!(pids.map(statuses), [None, Some("held".to_owned()), Some("unknown".to_owned())]);
    assert!(!sandbox.is_free("n"));
}

#[test]
fn start_times_of_another_time_namespace_are_not_compared() {
    let (sandbox, script) = forged(|record| {
        *place(record, "time_namespace") = json!(1);
        record["holders"][0]["owner"]["start"] = json!(1);
    });
    assert!(
        sandbox
            .check("n")
            .0
            .starts_with(&format!("unknown:exclusive:{} in another time namespace", script.pid()))
    );
    script.kill();
    assert_eq!(sandbox.check("n"), ("stale".to_owned(), 1), "no process, nothing to compare");
}

#[test]
fn a_time_to_live_ends_only_grants_of_unknown_status() {
    let sandbox = Sandbox::initialized();
    let mut script =
        sandbox.script("bash", "$B lock acquire n --ttl 0.001; echo held; read -r _; :");
    script.until("held");
    let expired = |record: &mut Value| record["holders"][0]["expires"] = json!(1.0);
    sandbox.forge("n", expired);
    assert_eq!(
        sandbox.check("n"),
        (format!("locked:exclusive:{}", script.pid()), 0),
        "its owner lives"
    );
    assert!(!sandbox.is_free("n"));
    assert_eq!(sandbox.ok("lock clean"), "Cleaned 0 stale locks");
    let unknown = |record: &mut Value| *place(record, "pid_namespace") = json!(1);
    sandbox.forge("n", unknown);
    assert_eq!(sandbox.check("n"), ("stale".to_owned(), 1));
    assert!(sandbox.is_free("n"));
    // a waiter also waits for the end of a time to live that has not passed yet
    let in_time = |record: &mut Value| {
        unknown(record);
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_secs_f64();
        record["holders"][0]["expires"] = json!(now + 0.5);
    };
    let _holder = sandbox.holder("n");
    sandbox.forge("n", in_time);
    assert_eq!(sandbox.waiter("n").line(), "got 0");
}
