//! The journal: a line for each commit, in the root, of this root only.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use pipeline_state::fs::Disk;
use pipeline_state::journal::changes::Change;
use pipeline_state::journal::{Commit, Journal};

use pipeline_state::journal::event::REASON_LIMIT;

use crate::sandbox::Sandbox;

fn journal(root: &Sandbox) -> PathBuf {
    root.file(".state-backups/journal.jsonl")
}

fn commits(root: &Sandbox) -> Vec<Commit> {
    let disk = Disk::real();
    let dir = disk.open_root(&root.file(".state-backups")).unwrap();
    let events = Journal::new(&disk, &dir).read();
    assert!(events.damaged == 0 && events.problem.is_none());
    events.commits().cloned().collect()
}

/// A copy of a root at another path, with everything in it.
fn copied(root: &Sandbox) -> Sandbox {
    let copy = Sandbox::empty();
    let from = format!("{}/.", root.path().display());
    let status = root.program("cp").args(["-a", &from]).arg(copy.path()).status().unwrap();
    assert!(status.success());
    fs::remove_file(copy.file("audit.log")).unwrap();
    copy
}

#[test]
fn a_commits_line_has_its_author_reason_and_changes() {
    let root = Sandbox::initialized();
    let script = root.file("deploy.sh");
    let reason = "Émile says:\n \"go\"";
    let body = "#!/bin/sh\n\"$PIPELINE_BINARY\" state set phase=built note=secret --reason \"$1\" \
                -q\nexit 0\n";
    fs::write(&script, body).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    assert!(root.program(&script).args([reason, "an-argument"]).status().unwrap().success());
    let all = commits(&root);
    let commit = all.last().unwrap();
    assert_eq!((all.len(), commit.revision.get(), commit.command.as_str()), (2, 2, "state set"));
    assert_eq!(commit.reason.as_deref(), Some(reason));
    assert_eq!(
        (commit.origin.owner.program.as_str(), commit.origin.owner.uid),
        ("deploy.sh", rustix::process::geteuid().as_raw())
    );
    assert_eq!(commit.digest.as_str(), root.document()["metadata"]["digest"]);
    let changes = &commit.changes.as_ref().unwrap().list;
    let phase =
        |change: &Change| matches!(change, Change::Phase { new: Some(new), .. } if new == "built");
    assert!(
        changes.iter().any(phase) && changes.contains(&Change::Path(".note".into())),
        "{changes:?}"
    );
    let text = fs::read_to_string(journal(&root)).unwrap();
    assert!(!text.contains("secret") && !text.contains("an-argument"), "{text}");
    assert_eq!(fs::metadata(journal(&root)).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn history_is_the_journals_without_any_audit_log() {
    let root = Sandbox::initialized();
    root.ok("state set n:=1 --reason nightly");
    fs::remove_file(root.file("audit.log")).unwrap();
    let rows = root.run("state history --json").expect(0).json();
    assert_eq!((&rows[0]["reason"], &rows[0]["command"]), (&"nightly".into(), &"state set".into()));
    assert_eq!((&rows[1]["revision"], &rows[1]["command"]), (&1.into(), &"state init".into()));
}

#[test]
fn a_revision_whose_writer_died_is_shown_from_its_backup() {
    let root = Sandbox::with_history();
    root.ok("state set n:=4");
    for log in [journal(&root), root.file("audit.log")] {
        let text = fs::read_to_string(&log).unwrap();
        let lines: Vec<&str> = text
            .lines()
            .filter(|line| !line.contains("\"revision\":4,") && !line.contains(" revision=4 "))
            .collect();
        fs::write(&log, lines.join("\n") + "\n").unwrap();
    }
    let rows = root.run("state history --json").expect(0).json();
    assert_eq!(
        (&rows[1]["revision"], &rows[1]["command"], &rows[1]["pid"]),
        (&4.into(), &None::<u8>.into(), &None::<u8>.into())
    );
    assert!(root.ok("state history").lines().nth(2).unwrap().contains(" -"));
}

#[test]
fn a_copy_and_its_original_do_not_read_each_others_revisions() {
    let root = Sandbox::with_history();
    let copy = copied(&root);
    // one audit log for all, as by default
    let in_copy = |words: &str| {
        let mut command = copy.command();
        command.env("AUDIT_LOG", root.file("audit.log")).args(words.split(' ')).output().unwrap()
    };
    for n in 4..9 {
        assert!(in_copy(&format!("state set n:={n}")).status.success());
    }
    root.overwrite(""); // destroyed
    let healed = root.run("state get .n").expect(0);
    assert_eq!(
        (healed.stdout.trim(), healed.stderr.contains("IS LOST")),
        ("3", false),
        "{}",
        healed.stderr
    );
    assert_eq!(root.document()["metadata"]["revision"], 5);
    assert_eq!(root.run("state history --json").expect(0).json().as_array().unwrap().len(), 5);
    // without a journal, by the path in the audit log
    fs::remove_file(journal(&root)).unwrap();
    root.overwrite("");
    let healed = root.run("state get .n").expect(0);
    assert!(!healed.stderr.contains("IS LOST"), "{}", healed.stderr);
    assert_eq!(root.document()["metadata"]["revision"], 6);
}

#[test]
fn a_revision_of_this_root_that_is_lost_is_named() {
    let root = Sandbox::with_history();
    fs::remove_file(root.file("audit.log")).unwrap();
    for name in fs::read_dir(root.file(".state-backups")).unwrap() {
        let path = name.unwrap().path();
        if path.ends_with("mirror.json") {
            fs::remove_file(path).unwrap();
        }
    }
    root.overwrite("");
    let healed = root.run("state get .n").expect(0);
    assert!(
        healed.stderr.contains("REVISION 4 OF") && healed.stderr.contains("IS LOST"),
        "{}",
        healed.stderr
    );
    assert_eq!(root.document()["metadata"]["revision"], 5, "its number does not come twice");
}

#[test]
fn an_older_root_gets_its_journal_from_init() {
    let root = Sandbox::with_history();
    fs::remove_file(journal(&root)).unwrap();
    root.ok("state set n:=4 --reason before");
    assert!(!journal(&root).exists(), "only init makes it");
    root.ok("state init");
    root.ok("state set n:=5");
    assert_eq!(commits(&root).iter().map(|commit| commit.revision.get()).collect::<Vec<_>>(), [6]);
    let rows = root.run("state history --json").expect(0).json();
    assert_eq!(
        (&rows[1]["revision"], &rows[1]["reason"]),
        (&5.into(), &"before".into()),
        "from the audit log"
    );
}

#[test]
fn a_journal_that_cannot_be_written_warns_and_stops_nothing() {
    let root = Sandbox::initialized();
    fs::hard_link(journal(&root), root.file("second-name")).unwrap();
    let ran = root.run("state set n:=1").expect(0);
    assert!(ran.stderr.contains("the journal has no line of this"), "{}", ran.stderr);
    assert_eq!((root.document()["n"].clone(), commits(&root).len()), (1.into(), 1));
}

#[test]
fn fresh_starts_a_lineage_in_the_same_journal() {
    let root = Sandbox::with_history();
    root.ok("state init --fresh --yes");
    let all = commits(&root);
    assert_eq!(all.len(), 5);
    assert_ne!(all[4].lineage, all[3].lineage);
    assert_eq!(root.run("state history --json").expect(0).json().as_array().unwrap().len(), 1);
}

#[test]
fn a_reason_is_kept_whole_or_refused() {
    let root = Sandbox::initialized();
    let longest = "é".repeat(REASON_LIMIT / 2);
    root.run_args(&["state", "set", "a=b", "--reason", &longest]).expect(0);
    assert_eq!(root.run("state history --json").expect(0).json()[0]["reason"], longest);
    let before = root.revision();
    for words in
        [&["state", "set", "a=c"][..], &["recover", "degrade", "slow"], &["state", "backup"]]
    {
        let too_long = format!("{longest}.");
        let ran = root.run_args(&[words, &["--reason", &too_long]].concat());
        if ran.code != 64 {
            ran.expect(4).saying("the reason has 1025 bytes, and 1024 is the limit");
        }
    }
    assert_eq!(root.revision(), before);
}
