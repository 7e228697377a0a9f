//! The commands, on a store of a cluster.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Output, Stdio};
use std::time::Instant;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::server::Server;
use crate::stores::Place;

/// A host with a directory of its own; its commands use the store at a place.
pub struct Host {
    pub place: Place,
    pub dir: TempDir,
}

impl Host {
    pub fn new() -> Self {
        Self { place: Place::new(), dir: tempfile::tempdir().unwrap() }
    }

    pub fn initialized() -> Self {
        let host = Self::new();
        host.ok(&["state", "init"]);
        host
    }

    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pipeline-state"));
        command
            .args(words)
            .current_dir(&self.dir)
            .env("HOME", self.dir.path())
            .env("XDG_CONFIG_HOME", self.dir.path().join(".user"))
            .env("AUDIT_LOG", self.dir.path().join("audit.log"))
            .env("PIPELINE_STORE", &self.place.url);
        for name in ["STATE_FILE", "PIPELINE_ROOT", "PIPELINE_OWNER_PID", "PIPELINE_LOCK_TOKEN"] {
            command.env_remove(name);
        }
        command
    }

    pub fn run(&self, words: &[&str]) -> Output {
        self.command(words).stdin(Stdio::null()).output().unwrap()
    }

    pub fn ok(&self, words: &[&str]) -> String {
        let output = self.run(words);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words:?}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn json(&self, words: &[&str]) -> Value {
        serde_json::from_str(&self.ok(&[&["--json"], words].concat())).unwrap()
    }

    /// The exit code and the kind of the error.
    pub fn fails(&self, words: &[&str]) -> (i32, String) {
        let output = self.run(&[&["--json"], words].concat());
        let errors = String::from_utf8(output.stderr).unwrap();
        let error: Value = serde_json::from_str(errors.lines().last().unwrap()).unwrap();
        (output.status.code().unwrap(), error["error"]["kind"].as_str().unwrap().to_owned())
    }

    /// Runs `state write` with a document.
    fn write(&self, document: &str) -> Output {
        let mut child = self
            .command(&["state", "write", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(document.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }
}

#[test]
fn a_pipeline_runs_on_a_store_as_it_does_on_files() {
    let host = Host::initialized();
    host.ok(&["state", "set", "phase=build", "n:=1"]);
    host.ok(&["state", "update", ".n += 1", "--reason", "count"]);
    host.ok(&["state", "complete", "lint", "test"]);
    host.ok(&["state", "signal", "READY", "--metadata", r#"{"by":"me"}"#]);
    assert_eq!(host.ok(&["state", "get", ".n"]), "2\n");
    assert_eq!(host.ok(&["state", "phase"]), "build\n");
    host.ok(&["state", "phase", "deploy"]);
    assert_eq!(host.json(&["state", "get", ".completedTasks"]), json!(["lint", "test"]));
    assert_eq!(host.json(&["state", "validate"])["valid"], true);
    let history = host.json(&["state", "history"]);
    assert_eq!(history.as_array().unwrap().len(), 6);
    assert_eq!(history[3]["reason"], "count");
    assert_eq!(history[0]["command"], "state phase");
    let differences = host.json(&["state", "diff"]);
    assert!(differences.to_string().contains("deploy"), "{differences}");
    assert_eq!(host.json(&["state", "undo"])["to"], 5);
    assert_eq!(host.ok(&["state", "phase"]), "build\n");
    let made = host.json(&["state", "backup", "keep"]);
    let backups = host.json(&["state", "backups"]);
    assert!(backups.as_array().unwrap().iter().any(|it| it["name"] == made["file"]));
    host.ok(&["state", "recover", "--to-revision", "2"]);
    assert_eq!(host.ok(&["state", "get", ".n"]), "1\n");
    let status = host.json(&["state", "status"]);
    assert_eq!((&status["health"], &status["revision"]), (&json!("healthy"), &json!(8)));
    assert!(std::fs::read_to_string(host.dir.path().join("audit.log")).unwrap().contains("count"));
    // Nothing but the log is on this host.
    let files = std::fs::read_dir(host.dir.path()).unwrap();
    assert_eq!(files.map(|file| file.unwrap().file_name()).collect::<Vec<_>>(), ["audit.log"]);
}

#[test]
fn a_document_made_from_an_older_one_is_a_conflict() {
    let host = Host::initialized();
    let stale = host.ok(&["state", "read"]);
    assert!(host.write(&stale.replace("\"phase\": \"", "\"phase\": \"x")).status.success());
    assert_eq!(host.write(&stale).status.code(), Some(75));
}

#[test]
fn init_fresh_begins_a_lineage_and_keeps_the_state_before_it() {
    let host = Host::initialized();
    host.ok(&["state", "set", "phase=old"]);
    assert_eq!(host.fails(&["state", "init", "--fresh"]).0, 64);
    host.ok(&["state", "init", "--fresh", "--yes"]);
    assert_ne!(host.ok(&["state", "phase"]), "old\n");
    assert_eq!(host.fails(&["state", "undo"]), (1, "not_found".to_owned()));
    // Damage is not healed from the lineage before.
    host.place.put("state", "{ half");
    assert_eq!(host.fails(&["state", "read"]).0, 3);
    host.ok(&["state", "recover", "pre-fresh"]);
    assert_eq!(host.ok(&["state", "phase"]), "old\n");
}

#[test]
fn an_edit_is_committed_and_a_foreign_one_adopted() {
    let host = Host::initialized();
    host.ok(&["state", "set", "phase=a"]);
    let mut edit = host.command(&["state", "edit"]);
    assert!(edit.env("EDITOR", r#"sed -i 's/"a"/"b"/'"#).status().unwrap().success());
    assert_eq!(host.ok(&["state", "phase"]), "b\n");
    let text = String::from_utf8(host.place.value("state").unwrap()).unwrap();
    host.place.put("state", text.replace("\"b\"", "\"c\""));
    assert_eq!(host.fails(&["state", "get", ".phase"]), (3, "foreign_edit".to_owned()));
    host.ok(&["state", "adopt"]);
    assert_eq!(host.ok(&["state", "phase"]), "c\n");
    // What cannot be mended is named; no hint takes the address for a file.
    for text in ["<<<<<<< HEAD\n=======\n>>>>>>> x\n", "{\"a\":1}", "{ half", ""] {
        host.place.put("state", text);
        let refused = host.run(&["--json", "state", "set", "n:=1", "--dry-run"]);
        let error = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(refused.status.code(), Some(3), "{error}");
        assert!(error.contains("state recover") && !error.contains("EDITOR"), "{error}");
    }
    let lost = host.run(&["state", "recover"]);
    assert!(String::from_utf8(lost.stderr).unwrap().contains("IS LOST"));
}

#[test]
fn wait_returns_when_another_host_commits_and_watch_shows_each_revision() {
    let host = Host::initialized();
    let mut watch = host
        .command(&["state", "watch", ".metadata.revision"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "1");
    let mut wait = host.command(&["state", "wait", ".n == 3", "--timeout", "60"]).spawn().unwrap();
    for n in 1..=3 {
        host.ok(&["state", "set", &format!("n:={n}")]);
    }
    assert!(wait.wait().unwrap().success());
    for revision in ["2", "3", "4"] {
        assert_eq!(lines.next().unwrap().unwrap(), revision);
    }
    watch.kill().unwrap();
    watch.wait().unwrap();
}

#[test]
fn a_state_file_and_a_store_exclude_each_other() {
    let host = Host::initialized();
    let (code, kind) = host.fails(&["--state-file", "x.json", "state", "read"]);
    assert_eq!((code, kind.as_str()), (64, "usage"));
}

#[test]
fn reports_and_the_doctor_work_on_a_store() {
    let host = Host::initialized();
    host.ok(&["state", "set", "phase=build"]);
    let status = host.json(&["recover", "status"]);
    assert_eq!((&status["health"], &status["revision"]), (&json!("healthy"), &json!(2)));
    let metrics = host.json(&["recover", "metrics"]);
    assert_eq!((&metrics["commits"], &metrics["revision"]), (&json!(2), &json!(2)), "{metrics}");
    assert!(host.ok(&["report", "-o", "-"]).contains("state set"));
    assert_eq!(host.json(&["recover", "doctor"])["findings"], json!([]));
    host.place.put("state", "{ half");
    let ran = host.command(&["--json", "recover", "doctor"]).output().unwrap();
    let found: Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert_eq!((ran.status.code(), &found["findings"][0]["subject"]), (Some(3), &json!("state")));
    host.ok(&["recover", "doctor", "--fix"]);
    assert_eq!(host.ok(&["state", "get", ".metadata.revision"]), "3\n");
}

#[test]
fn plain_text_over_a_network_and_an_unchecked_server_are_warned_of() {
    let host = Host::new();
    let mut init = host.command(&["state", "init"]);
    let ran = init.env("PIPELINE_STORE", "etcd://203.0.113.1:2379").env("LOCK_TIMEOUT", "1");
    let ran = ran.output().unwrap();
    let errors = String::from_utf8(ran.stderr).unwrap();
    assert!(errors.contains("203.0.113.1:2379 can be read and changed on the way"), "{errors}");
    assert_eq!(ran.status.code(), Some(8), "{errors}");
    let mut init = host.command(&["state", "init"]);
    init.env("PIPELINE_STORE", "etcds://127.0.0.1:1").env("LOCK_TIMEOUT", "0");
    let ran = init.env("ETCDCTL_INSECURE_SKIP_TLS_VERIFY", "1").output().unwrap();
    let errors = String::from_utf8(ran.stderr).unwrap();
    assert!(errors.contains("any server is taken for a member"), "{errors}");
}

#[test]
fn a_watched_status_of_locks_follows_other_hosts() {
    let host = Host::initialized();
    let mut watch = host
        .command(&["--json", "lock", "status", "--watch"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains(r#""held":0"#));
    // Until this test ends.
    host.ok(&["lock", "acquire", "x", "--owner-pid", &std::process::id().to_string()]);
    assert!(lines.next().unwrap().unwrap().contains(r#""held":1"#));
    watch.kill().unwrap();
    watch.wait().unwrap();
}

#[test]
fn the_doctor_ends_as_other_commands_do_where_a_login_is_refused() {
    let server = Server::start("http", &[]);
    server.client().status().unwrap();
    for words in ["user add root:root", "user grant-role root root", "auth enable"] {
        server.etcdctl(&words.split(' ').collect::<Vec<_>>());
    }
    let host = Host { place: Place::at(server.url()), dir: tempfile::tempdir().unwrap() };
    assert_eq!(host.fails(&["state", "read"]), (6, "permission_denied".to_owned()));
    assert_eq!(host.fails(&["recover", "doctor"]), (6, "permission_denied".to_owned()));
    let found = host.run(&["--json", "recover", "doctor"]).stdout;
    let found: Value = serde_json::from_slice(&found).unwrap();
    let remedy = found["findings"][0]["remedy"].as_str().unwrap();
    assert!(remedy.contains("ETCDCTL_USER"), "{remedy}");
}

#[test]
fn the_doctor_names_the_members_that_do_not_answer() {
    let host = Host::initialized();
    let url = host.place.url.replace("etcd://", "etcd://127.0.0.1:1,");
    let mut doctor = host.command(&["--json", "recover", "doctor"]);
    let ran = doctor.env("PIPELINE_STORE", url).env("LOCK_TIMEOUT", "1").output().unwrap();
    let found: Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert_eq!((ran.status.code(), &found["findings"][0]["subject"]), (Some(8), &json!("members")));
    assert_eq!(found["findings"].as_array().unwrap().len(), 1);
}

#[test]
fn every_command_ends_with_8_soon_after_a_cluster_does_not_answer() {
    let host = Host::new();
    let start = Instant::now();
    let commands = [
        &["state", "set", "n:=1"][..],
        &["state", "wait", ".n", "--timeout", "1"],
        &["state", "watch"],
        &["state", "status"],
        &["recover", "status"],
        &["recover", "metrics"],
    ];
    let begun = commands.map(|words| {
        let mut command = host.command(words);
        command.env("PIPELINE_STORE", "etcd://127.0.0.1:1/p").env("LOCK_TIMEOUT", "1");
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    });
    let codes = begun.map(|mut child| child.wait().unwrap().code());
    assert_eq!(codes, [Some(8); 6]);
    assert!(start.elapsed().as_secs() < 30);
}

#[test]
fn checkpoints_and_restores_work_on_a_store_as_they_do_on_files() {
    let host = Host::initialized();
    let config = host.dir.path().join("config");
    std::fs::create_dir(&config).unwrap();
    std::fs::write(config.join("a"), "old").unwrap();
    host.ok(&["state", "set", "n:=1"]);
    let made = host.json(&["recover", "checkpoint", "deploy", "build", r#"{"by":"me"}"#]);
    let id = made["id"].as_str().unwrap();
    std::fs::write(config.join("a"), "new").unwrap();
    host.ok(&["state", "set", "n:=2"]);
    let listed = host.json(&["recover", "list"]);
    assert_eq!((&listed[0]["id"], &listed[0]["phase"]), (&made["id"], &json!("build")));
    let shown = host.json(&["recover", "show", id]);
    assert_eq!(shown["files"].as_array().unwrap().len(), 3);
    assert_eq!(host.json(&["recover", "verify"])[0]["valid"], true);
    let planned = host.ok(&["recover", "restore", id, "--dry-run"]);
    assert!(planned.contains("config/a"), "{planned}");
    let restored = host.json(&["recover", "restore", "--latest"]);
    assert_eq!((&restored["id"], &restored["revision"]), (&made["id"], &json!(4)));
    assert_eq!(host.ok(&["state", "get", ".n"]), "1\n");
    assert_eq!(std::fs::read(config.join("a")).unwrap(), b"old");
    assert_eq!(host.json(&["recover", "restore", "--abort"])["undone"], false);
    assert_eq!(host.json(&["recover", "cleanup", "0"])["removed"], json!([id]));
    let left = restored["pre_restore"].as_str().unwrap();
    assert_eq!(host.json(&["recover", "remove", left])["removed"], json!([left]));
    assert_eq!(host.ok(&["recover", "list"]), "no checkpoints\n");
    assert_eq!(host.fails(&["recover", "restore", "--latest"]), (1, "not_found".to_owned()));
}

#[test]
fn a_state_is_pushed_used_by_others_and_pulled() {
    let host = Host::new();
    let url = host.place.url.clone();
    let local = |words: &[&str]| {
        let mut command = host.command(words);
        let output = command.env_remove("PIPELINE_STORE").stdin(Stdio::null()).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    };
    local(&["state", "init"]);
    local(&["state", "set", "n:=1"]);
    let owner = std::process::id().to_string();
    let hold = ["--json", "lock", "acquire", "deploy", "0", "--owner-pid", &owner];
    assert_eq!(local(&hold).0, 0);
    let (code, _, errors) = local(&["state", "push", &url]);
    assert!(code == 2 && errors.contains("locks are held (deploy)"), "{code}: {errors}");
    assert_eq!(local(&["lock", "release", "deploy", "--owner-pid", &owner]).0, 0);
    let (code, printed, errors) = local(&["--json", "state", "push", &url]);
    assert_eq!(code, 0, "{errors}");
    let moved: Value = serde_json::from_str(&printed).unwrap();
    let fields: Vec<_> = moved.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(fields, ["store", "lineage", "revision", "backups", "signals"]);
    assert_eq!((&moved["store"], &moved["revision"]), (&json!(url), &json!(2)));
    let (code, _, errors) = local(&["state", "get", ".n"]);
    assert_eq!(code, 3);
    assert!(errors.contains(&format!("export PIPELINE_STORE={url}")), "{errors}");
    // Locks are granted where the state is.
    let (code, _, errors) = local(&hold);
    assert!(code == 3 && errors.contains("\"moved\""), "{code}: {errors}");
    host.ok(&["state", "update", ".n += 1"]);
    assert_eq!(host.fails(&["state", "push", &url, "--abort"]), (3, "moved".to_owned()));
    assert_eq!(host.json(&["state", "pull", "--abort"])["taken_back"], false);
    let (code, printed, errors) = local(&["state", "pull"]);
    assert_eq!(code, 0, "{errors}");
    assert!(printed.starts_with("State brought back from"), "{printed}");
    assert_eq!(local(&["state", "get", ".n"]).1, "2\n");
    let (code, granted, _) = local(&hold);
    let granted: Value = serde_json::from_str(&granted).unwrap();
    assert!(code == 0 && granted["token"].as_u64() > Some(1), "{granted}");
    assert_eq!(host.fails(&["state", "read"]), (3, "moved".to_owned()));
    assert_eq!(host.fails(&["lock", "acquire", "deploy", "0"]), (3, "moved".to_owned()));
    assert_eq!(local(&["state", "validate"]).0, 0);
    let log = std::fs::read_to_string(host.dir.path().join("audit.log")).unwrap();
    assert!(log.contains("state-manager/push: moved"), "{log}");
}

#[test]
fn hints_of_a_push_are_for_the_root_and_those_of_a_new_lineage_for_its_backup() {
    let host = Host::new();
    let url = &host.place.url;
    let pushed = host.run(&["state", "push", url]);
    let errors = String::from_utf8(pushed.stderr).unwrap();
    assert!(errors.contains("env -u PIPELINE_STORE pipeline-state state init"), "{errors}");
    host.ok(&["state", "init"]);
    let begun = host.ok(&["state", "init", "--fresh", "--yes"]);
    let backup = host.json(&["state", "backups"])[0]["name"].as_str().unwrap().to_owned();
    let back = format!("The way back: pipeline-state --store {url} state recover {backup}");
    assert!(begun.contains(&back), "{begun}");
    host.place.put("state", "torn");
    let begun = host.json(&["state", "init", "--fresh", "--yes"]);
    let kept = begun["archived_state"].as_str().unwrap();
    assert!(kept.starts_with(&host.place.key("corrupt/corrupt-")), "{kept}");
}

#[test]
fn handle_8_says_of_each_member_whether_it_answers() {
    let host = Host::initialized();
    let (head, tail) = host.place.url.split_once("://").unwrap();
    let both = format!("{head}://127.0.0.1:1,{tail}");
    let run = |url: &str| {
        let mut command = host.command(&["--json", "recover", "handle", "8"]);
        command.env("PIPELINE_STORE", url).env("LOCK_TIMEOUT", "2").output().unwrap()
    };
    let output = run(&both);
    assert_eq!(output.status.code(), Some(0));
    let handled: Value = serde_json::from_slice(&output.stdout).unwrap();
    let done = handled["done"].as_array().unwrap();
    assert!(done[0].as_str().unwrap().starts_with("127.0.0.1:1 does not: "), "{done:?}");
    assert!(done[1].as_str().unwrap().ends_with(" answers"), "{done:?}");
    let output = run("etcd://127.0.0.1:1/p");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(host.json(&["recover", "handle", "3"])["try_again"], true);
    let retried = host.run(&["recover", "retry", "-n", "2", "--base-delay", "0", "--", "false"]);
    assert_eq!(retried.status.code(), Some(1));
    host.ok(&["recover", "retry", "--", "true"]);
    host.ok(&["recover", "degrade", "slow", "reports"]);
    assert_eq!(host.json(&["recover", "degraded", "reports"])["disabled"], true);
}

#[test]
fn a_checkpoint_waits_for_a_script_that_holds_config_unless_it_is_its_own() {
    let host = Host::initialized();
    // It ends with this test: its input does.
    let mut other =
        Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let acquire = |pid: u32| {
        host.ok(&["lock", "acquire", "config", "0", "--owner-pid", &pid.to_string()]);
    };
    acquire(other.id());
    let soon = |words: &[&str]| {
        let mut command = host.command(words);
        command.env("LOCK_TIMEOUT", "1").stdin(Stdio::null()).output().unwrap().status.code()
    };
    assert_eq!(soon(&["recover", "checkpoint", "now"]), Some(2));
    assert_eq!(host.ok(&["recover", "list"]), "no checkpoints\n");
    other.kill().unwrap();
    other.wait().unwrap();
    // The keeper of its lease has seen it.
    host.ok(&["recover", "checkpoint", "then"]);
    acquire(std::process::id());
    host.ok(&["recover", "checkpoint", "own"]);
    host.ok(&["recover", "restore", "--latest", "own"]);
}
