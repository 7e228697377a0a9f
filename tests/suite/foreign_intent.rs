//! The record of an interrupted restore in another root than its own: no command carries it out.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::rc::Rc;

use crate::observed::{Fault, Observed};
use pipeline_state::document::seal::{verified, with_digest};
use pipeline_state::fs::Disk;
use pipeline_state::name::Name;
use pipeline_state::store::checkpoint::catalog::Which;
use pipeline_state::store::options::WriteOptions;
use rustix::io::Errno;
use serde_json::json;

use crate::faults::store;
use crate::sandbox::Sandbox;
use crate::snapshots::{Whole, assert_tidy, restored, with_small_checkpoint};

const INTENT: &str = ".checkpoints/.in-progress/intent.json";

/// A root with an intent to restore `good`, and nothing replaced yet.
fn decided() -> Sandbox {
    let root = with_small_checkpoint();
    let disk = Disk::new(Rc::new(Observed::new(|call| match call.name {
        "exchange" => Fault::Fails(Errno::IO),
        _ => Fault::None,
    })));
    let which = Which::Latest(Some(Name::parse("operation", "good").unwrap()));
    store(&root, disk).restores().restore(&which, &WriteOptions::of("restore")).unwrap_err();
    root
}

/// A copy as `cp -a` makes it, without regard to intents.
pub fn copy(root: &Sandbox) -> Sandbox {
    let copy = Sandbox::empty();
    let from = format!("{}/.", root.path().display());
    assert!(Command::new("cp").args(["-a", &from]).arg(copy.path()).status().unwrap().success());
    copy
}

/// Everything but logs and locks.
fn contents(root: &Sandbox) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let locks = root.file(".locks");
    root.snapshot().into_iter().filter(|(path, _)| !path.starts_with(&locks)).collect()
}

/// Reads continue, writers refuse, nothing changes; an abort drops the record, and writers write
/// again.
#[track_caller]
fn is_left_alone_until_it_is_dropped(root: &Sandbox, options: &str, why: &str) {
    let before = contents(root);
    let read =
        root.run(&format!("{options} state get .n")).expect(0).saying("the live state is served");
    assert_eq!((read.stdout.as_str(), read.stderr.lines().count()), ("7\n", 1), "{read:?}");
    for words in
        ["state set z:=1", "state init", "recover checkpoint x", "recover restore --latest good"]
    {
        let refused = root.run(&format!("{options} --json {words}"));
        assert_eq!(refused.code, 3, "{words}: {}", refused.stderr);
        let error = refused.expect_json_error("foreign_intent");
        assert!(error["message"].as_str().unwrap().contains(why), "{words}: {error}");
        assert!(
            error["hint"].as_str().unwrap().contains("recover restore --abort"),
            "{words}: {error}"
        );
    }
    root.run(&format!("{options} state status")).expect(0).saying(why);
    assert!(
        root.run(&format!("{options} recover doctor"))
            .expect(3)
            .stdout
            .contains("recover restore --abort")
    );
    assert_eq!(contents(root), before, "something was touched");
    let aborted = root.run(&format!("{options} --json recover restore --abort")).expect(0).json();
    assert_eq!(aborted["undone"], false);
    root.ok(&format!("{options} state set z:=1"));
    assert_eq!(root.document()["n"], 7);
    assert_tidy(root, why);
    assert_eq!(
        root.run(&format!("{options} --json recover restore --abort")).expect(0).json()["aborted"],
        json!(null)
    );
}

#[test]
fn a_copy_of_an_interrupted_root_is_read_and_written_only_after_an_abort() {
    let root = decided();
    is_left_alone_until_it_is_dropped(&copy(&root), "", "written for another root");
    // the next command finishes the original
    let new = restored(&root);
    root.run("state get .n").expect(0).saying("was finished");
    assert_eq!(Whole::of(&root), new);
}

#[test]
fn a_moved_root_is_still_the_one_it_was() {
    let (root, shelter) = (decided(), Sandbox::empty());
    let moved = shelter.file("moved");
    fs::rename(root.path(), &moved).unwrap();
    shelter
        .run(&format!("--root {} state get .n", moved.display()))
        .expect(0)
        .saying("was finished");
    fs::rename(moved, root.path()).unwrap();
}

#[test]
fn an_intent_for_another_config_root_is_compared_and_not_followed() {
    let (root, other) = (decided(), Sandbox::empty());
    fs::create_dir(other.file("config")).unwrap();
    fs::write(other.file("config/mine"), "mine").unwrap();
    let options =
        format!("--root {} --state-file {}", other.path().display(), root.state().display());
    is_left_alone_until_it_is_dropped(&root, &options, "was written for the config/ of");
    assert_eq!(fs::read_to_string(other.file("config/mine")).unwrap(), "mine");
}

/// The record of the first release: a path instead of identities.
fn rewrite_as_of_the_first_release(root: &Sandbox, config_root: Option<&Path>) {
    let mut intent = verified(&fs::read(root.file(INTENT)).unwrap()).unwrap();
    let fields = intent.as_object_mut().unwrap();
    for later in ["root", "configPath"] {
        fields.shift_remove(later).unwrap();
    }
    for swap in ["config", "signals"] {
        fields[swap].as_object_mut().unwrap().shift_remove("manner").unwrap();
    }
    fields["version"] = 1.into();
    fields["configRoot"] = json!(config_root);
    fs::write(root.file(INTENT), with_digest(intent).unwrap()).unwrap();
}

#[test]
fn an_intent_of_the_first_release_moves_nothing_where_its_path_leads() {
    let (root, victim) = (decided(), Sandbox::empty());
    let staged = root.names(".").into_iter().find(|name| name.ends_with("-config")).unwrap();
    fs::create_dir(victim.file("config")).unwrap();
    fs::create_dir(victim.file(&staged)).unwrap();
    fs::write(victim.file("config/mine"), "mine").unwrap();
    let before = victim.snapshot();
    rewrite_as_of_the_first_release(&root, Some(victim.path()));
    is_left_alone_until_it_is_dropped(&root, "", "an earlier release wrote it");
    assert_eq!(victim.snapshot(), before, "the record was followed");
}
