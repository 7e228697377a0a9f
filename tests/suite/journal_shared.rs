//! The journal of many writers, of copies, and of other users: complete, and of its root only.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::process::Child;

use pipeline_state::journal::{DIRECTORY, JOURNAL, ROTATED_AT};

use crate::journal_faults::{fill, read};
use crate::sandbox::{Ran, Sandbox, installed};
use crate::script::is_root;

const WRITERS: usize = 8;
const ROUNDS: usize = 10;

#[test]
fn a_rotation_by_many_counts_each_grant_and_commit_once() {
    let root = Sandbox::initialized();
    let journal = root.file(DIRECTORY).join(JOURNAL);
    let writer = |number| {
        let script = format!(
            "for n in $(seq {ROUNDS}); do \"$PIPELINE_BINARY\" -q lock run l{number} -- \
             \"$PIPELINE_BINARY\" -q --lock-timeout 300 state set k{number}:=$n || exit; done"
        );
        root.program("bash").args(["-c", &script]).spawn().unwrap()
    };
    let mut writers: Vec<Child> = (0..WRITERS).map(writer).collect();
    let (mut rotations, mut commits) = (0, 0);
    while writers.iter_mut().any(|writer| writer.try_wait().unwrap().is_none()) {
        // between the two renames there is none
        if fs::metadata(&journal).is_ok_and(|stat| stat.len() < ROTATED_AT) {
            fill(&root);
            rotations += 1;
        }
        let counted = read(&root).totals().count();
        assert!(counted >= commits, "{counted} after {commits}");
        commits = counted;
    }
    for writer in writers {
        Ran::of(writer.wait_with_output().unwrap()).expect(0);
    }
    assert!(rotations > 2, "{rotations}");
    let totals = read(&root).totals();
    assert_eq!(totals.count(), 1 + (WRITERS * ROUNDS) as u64);
    for number in 0..WRITERS {
        assert_eq!(totals.locks[&format!("l{number}")].granted, ROUNDS as u64);
    }
    assert_eq!(root.revision(), totals.count());
}

/// The revisions of `history`, newest first, all with the command that committed them.
fn history(ran: Ran) -> Vec<(u64, String)> {
    let rows = ran.expect(0).json();
    let row = |row: &serde_json::Value| {
        (row["revision"].as_u64().unwrap(), row["command"].as_str().unwrap().to_owned())
    };
    rows.as_array().unwrap().iter().map(row).collect()
}

fn revisions(root: &Sandbox) -> Vec<u64> {
    let rows = history(root.run("state history --json"));
    rows.into_iter().map(|(revision, _)| revision).collect()
}

#[test]
fn worktrees_and_clones_have_journals_of_their_own() {
    if !installed("git") {
        return;
    }
    let root = Sandbox::with_history();
    let (worktree, clone) = (Sandbox::empty(), Sandbox::empty());
    let git = format!(
        "git init -q . && git config user.name n && git config user.email e && \
         git commit -q --allow-empty -m one && \
         git worktree add -q {} && git clone -q . {}",
        worktree.path().display(),
        clone.path().display()
    );
    root.bash(&git).expect(0);
    for own in [&worktree, &clone] {
        own.ok("state init");
        own.ok("state set n:=1");
        assert_eq!(revisions(own), [2, 1]);
    }
    root.ok("state set n:=4");
    for one in [&root, &worktree, &clone] {
        let _ = fs::remove_file(one.file("audit.log")); // a reboot
    }
    assert_eq!(revisions(&root), [5, 4, 3, 2, 1]);
    let lineages = [&root, &worktree, &clone].map(|one| {
        let lineages: BTreeSet<String> =
            read(one).commits().map(|commit| commit.lineage.to_string()).collect();
        assert_eq!(lineages.len(), 1);
        lineages
    });
    assert_eq!(lineages.iter().flatten().collect::<BTreeSet<_>>().len(), 3);
}

#[test]
fn a_copy_of_another_user_continues_the_journal_on_its_own() {
    if !is_root() {
        return;
    }
    let (root, theirs) = (Sandbox::with_history(), Sandbox::empty());
    let copy =
        format!("cp -a . {0} && rm {0}/audit.log && chown -R 65534 {0}", theirs.path().display());
    root.bash(&copy).expect(0);
    // one audit log, of the first user, as by default
    let their = |words: &str| {
        let mut command = theirs.command();
        command.env("AUDIT_LOG", root.file("audit.log")).uid(65534).gid(65534);
        Ran::of(command.args(words.split(' ')).output().unwrap())
    };
    if their("--version").code != 0 {
        eprintln!("the binary cannot be run by another user here: that is not tested");
        return;
    }
    their("state set n:=9").expect(0);
    root.ok("state set n:=4");
    fs::remove_file(root.file("audit.log")).unwrap();
    assert_eq!(history(their("state history --json")).len(), 5);
    assert_eq!(revisions(&root), [5, 4, 3, 2, 1]);
    let last = |root: &Sandbox| read(root).commits().last().unwrap().origin.owner.uid;
    assert_eq!((last(&root), last(&theirs)), (0, 65534));
}
