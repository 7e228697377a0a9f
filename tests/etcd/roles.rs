//! Users with a role for one prefix, as docs/cluster.md recommends it.

use std::process::{Output, Stdio};

use serde_json::Value;

use crate::commands::Host;
use crate::server::Server;
use crate::stores::Place;

/// Users of a cluster: one may read and write a prefix, and one only read it.
fn cluster() -> Server {
    let server = Server::start("http", &[]);
    server.client().status().unwrap();
    for words in [
        "role add ci",
        "role grant-permission ci --prefix=true readwrite /ci/project/",
        "role add look",
        "role grant-permission look --prefix=true read /ci/project/",
        "user add runner:secret",
        "user grant-role runner ci",
        "user add reader:secret",
        "user grant-role reader look",
        "user add root:root",
        "user grant-role root root",
        "auth enable",
    ] {
        server.etcdctl(&words.split(' ').collect::<Vec<_>>());
    }
    server
}

fn host(server: &Server, prefix: &str) -> Host {
    let url = format!("etcd://127.0.0.1:{}{prefix}", server.port);
    Host { place: Place::at(url), dir: tempfile::tempdir().unwrap() }
}

fn run(host: &Host, user: &str, words: &[&str]) -> Output {
    let mut command = host.command(words);
    command
        .env("ETCDCTL_USER", user)
        .env("ETCDCTL_PASSWORD", "secret")
        .env("PIPELINE_LEASE_TTL", "60");
    command.stdin(Stdio::null()).output().unwrap()
}

fn ok(host: &Host, user: &str, line: &str) {
    let words: Vec<&str> = line.split(' ').collect();
    let output = run(host, user, &words);
    assert!(output.status.success(), "{user} {line}: {output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!said.contains("allow"), "{user} {line}: {said}");
}

/// The exit code and the kind of the error.
fn refused(host: &Host, user: &str, line: &str) -> (i32, String) {
    let words: Vec<&str> = ["--json"].into_iter().chain(line.split(' ')).collect();
    let output = run(host, user, &words);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let error: Value = serde_json::from_str(said.lines().last().unwrap_or_default())
        .unwrap_or_else(|_| panic!("{user} {line}: {output:?}"));
    let (kind, hint) = (&error["error"]["kind"], error["error"]["hint"].to_string());
    let is_of_role = hint.contains("its role has readwrite on the prefix");
    assert_eq!(kind == "permission_denied", is_of_role, "{user} {line}: {said}");
    (output.status.code().unwrap(), kind.as_str().unwrap().to_owned())
}

#[test]
fn a_role_for_the_prefix_is_enough() {
    let server = cluster();
    let host = host(&server, "/ci/project/a");
    let beside = host.place.url.replace("/a", "/b");
    let program = env!("CARGO_BIN_EXE_pipeline-state");
    for line in [
        "state init",
        "state set n:=1",
        "state get .n",
        "state signal ready",
        "status",
        "state status",
        "state history",
        "recover doctor",
        &format!("lock run a -- {program} set n:=2"),
        "recover checkpoint one",
        "recover restore --latest --yes",
        "recover guard deploy -- true",
        "state pull",
        &format!("state push {beside}"),
    ] {
        ok(&host, "runner", line);
    }
    // What is above and may be read is looked at all the same.
    let below = self::host(&server, "/ci/project/b/c");
    assert_eq!(refused(&below, "runner", "state init"), (1, "exists".to_owned()));
}

#[test]
fn a_role_that_only_reads_is_served_and_refused_with_what_to_check() {
    let server = cluster();
    let host = host(&server, "/ci/project/a");
    ok(&host, "runner", "state init");
    ok(&host, "runner", "recover checkpoint one");
    for line in [
        "state read",
        "state get .phase",
        "status",
        "state status",
        "state history",
        "state backups",
        "state validate",
        "lock list",
        "recover status",
        "recover list",
        "recover doctor",
        "recover metrics",
    ] {
        ok(&host, "reader", line);
    }
    for line in [
        "state set n:=1",
        "state init --fresh --yes",
        "state signal ready",
        "state backup",
        "lock acquire a",
        "lock run a -- true",
        "recover checkpoint two",
        "recover restore --latest --yes",
        "recover guard deploy -- true",
        "state pull",
    ] {
        assert_eq!(refused(&host, "reader", line), (6, "permission_denied".to_owned()), "{line}");
    }
    let elsewhere = self::host(&server, "/ci/other");
    for line in ["state read", "state init", "status"] {
        assert_eq!(
            refused(&elsewhere, "runner", line),
            (6, "permission_denied".to_owned()),
            "{line}"
        );
    }
}
