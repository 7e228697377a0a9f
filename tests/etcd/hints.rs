//! Hints, pasted into another shell.

use std::process::Command;

use serde_json::Value;

use crate::commands::Host;

/// What `command` suggests first.
fn hint(command: &mut Command) -> String {
    let said = command.output().unwrap();
    let error: Value = serde_json::from_slice(&said.stderr).unwrap();
    error["error"]["hint"].as_str().unwrap_or_else(|| panic!("{error}")).to_owned()
}

/// Runs a hint in a shell that knows of no store.
fn paste(host: &Host, hint: &str) {
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_pipeline-state"));
    let path = format!("{}:/usr/bin:/bin", program.parent().unwrap().display());
    let mut shell = Command::new("sh");
    shell.args(["-c", hint]).current_dir(&host.dir).env_clear().env("PATH", path);
    shell.env("AUDIT_LOG", host.dir.path().join("audit.log"));
    // That of another cluster.
    shell.env("ETCDCTL_ENDPOINTS", "127.0.0.1:1").env("ETCDCTL_API", "3");
    let ran = shell.output().unwrap();
    assert!(ran.status.success(), "{hint}: {ran:?}");
}

#[test]
fn a_hint_is_about_the_store_that_the_option_or_the_variable_named() {
    let by_option = Host::new();
    let url = by_option.place.url.clone();
    let mut get = by_option.command(&["--json", "--store", &url, "state", "get", ".phase"]);
    let pasted = hint(get.env_remove("PIPELINE_STORE"));
    let by_variable = Host::new();
    for (host, pasted) in [
        (&by_option, pasted),
        (&by_variable, hint(&mut by_variable.command(&["--json", "state", "get", ".phase"]))),
    ] {
        assert!(pasted.contains("state init"), "{pasted}");
        paste(host, &pasted);
        assert_eq!(host.ok(&["state", "phase"]), "pre-init\n");
        assert!(!host.dir.path().join(".workflow-state.json").exists());
    }
}

#[test]
fn a_state_that_was_brought_back_is_looked_for_in_files() {
    let host = Host::new();
    let url = host.place.url.clone();
    for words in [&["state", "init"][..], &["state", "push", &url], &["state", "pull", &url]] {
        let mut local = host.command(words);
        assert!(local.env_remove("PIPELINE_STORE").status().unwrap().success(), "{words:?}");
    }
    for mut get in [
        host.command(&["--json", "state", "get", ".phase"]),
        host.command(&["--json", "--store", &url, "state", "get", ".phase"]),
    ] {
        paste(&host, &hint(&mut get));
    }
}

#[test]
fn etcdctl_is_called_on_the_cluster_that_was_asked() {
    let host = Host::initialized();
    let backup = "backup/state-20260101-000000-r1-x.json";
    host.place.put(backup, "garbage");
    let found = host.run(&["--json", "recover", "doctor"]);
    let found: Value = serde_json::from_slice(&found.stdout).unwrap();
    let remedy = found["findings"][0]["remedy"].as_str().unwrap();
    paste(&host, remedy);
    assert_eq!(host.place.value(backup), None, "{remedy}");

    let away = "etcd://127.0.0.1:1,[::1]:1/p";
    let endpoints = "ETCDCTL_ENDPOINTS='127.0.0.1:1,[::1]:1' etcdctl endpoint health ";
    for words in
        [&["--json", "--store", away, "state", "get", ".n"][..], &["--json", "state", "push", away]]
    {
        let root = Host::new();
        let mut local = root.command(&["state", "init"]);
        assert!(local.env_remove("PIPELINE_STORE").status().unwrap().success());
        let hint = hint(root.command(words).env("LOCK_TIMEOUT", "0"));
        assert!(hint.starts_with(endpoints), "{hint}");
    }
}
