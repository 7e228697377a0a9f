//! A command dies, and then the live file is damaged or `config/` is edited before the next
//! command. Nothing that was acknowledged is lost, and nothing is half done.

use std::fs;
use std::rc::Rc;

use crate::observed::{Call, Fault, Observed};
use pipeline_state::fs::Disk;
use pipeline_state::name::Name;
use pipeline_state::store::checkpoint::catalog::Which;
use pipeline_state::store::fresh::InitMode;
use pipeline_state::store::options::WriteOptions;
use rustix::io::Errno;

use crate::faults::store;
use crate::foreign_intent::copy;
use crate::sandbox::Sandbox;
use crate::snapshots::with_small_checkpoint;

/// A disk that fails from the call `is_last` on: for the files the command died there.
fn dies_at(is_last: impl Fn(&Call) -> bool + 'static) -> Disk {
    let mut is_dead = false;
    Disk::new(Rc::new(Observed::new(move |call| {
        is_dead |= is_last(call);
        if is_dead { Fault::Fails(Errno::IO) } else { Fault::None }
    })))
}

/// A root whose `init --fresh` died at this call; the newest revision was `set v=newest`.
fn fresh_that_died(is_last: impl Fn(&Call) -> bool + 'static) -> Sandbox {
    let root = Sandbox::with_history();
    root.ok("state set v=newest");
    let _ = store(&root, dies_at(is_last)).init(InitMode::Fresh, &WriteOptions::of("init"));
    assert!(root.file(".checkpoints/.in-progress/intent.json").exists());
    root
}

/// A root whose restore of `good` died at this call.
fn restore_that_died(is_last: impl Fn(&Call) -> bool + 'static) -> Sandbox {
    let root = with_small_checkpoint();
    let which = Which::Latest(Some(Name::parse("operation", "good").unwrap()));
    let _ = store(&root, dies_at(is_last)).restores().restore(&which, &WriteOptions::of("restore"));
    root
}

fn is_archives_rename(call: &Call) -> bool {
    call.name == "rename" && call.path.to_string_lossy().contains("/archive-")
}

fn is_commit(call: &Call) -> bool {
    call.name == "rename" && call.path.ends_with(".workflow-state.json")
}

#[test]
fn a_new_lineage_of_another_root_is_not_carried_out() {
    let theirs = fresh_that_died(is_commit);
    let copied = copy(&theirs);
    let read = copied.run("state get .v").expect(0).saying("the live state is served");
    assert_eq!(read.stdout, "newest\n");
    copied.run("state set z:=1").expect(3).saying("recover restore --abort");

    let mine = Sandbox::with_history();
    mine.ok("state set v=mine");
    let place = ".checkpoints/.in-progress";
    fs::create_dir_all(mine.file(place)).unwrap();
    for name in theirs.names(place) {
        fs::copy(theirs.file(place).join(&name), mine.file(place).join(&name)).unwrap();
    }
    assert_eq!(mine.run("state get .v").expect(0).stdout, "mine\n");
    mine.run("state validate").expect(0);
    mine.ok("recover restore --abort");
    mine.ok("state set z:=1");
    assert_eq!(mine.ok("state get .v"), "mine");
}

#[test]
fn damage_after_a_killed_init_fresh_loses_no_old_revision() {
    for damage in ["", "{\"phase\": \"edited\", \"n\": 1}\n"] {
        let root = fresh_that_died(is_archives_rename);
        root.overwrite(damage);
        root.run("state get .phase");
        root.run("state recover");
        root.ok("state set later:=1");
        let archive = root.shelf("archive-").remove(0);
        let kept = root.names(&format!(".state-backups/{archive}"));
        let is_newest = |name: &String| {
            let path = root.file(".state-backups").join(&archive).join(name);
            fs::read_to_string(path).is_ok_and(|text| text.contains("newest"))
        };
        assert!(kept.iter().any(is_newest), "{kept:?}");
    }
}

#[test]
fn damage_after_a_killed_restore_undoes_no_half_of_it() {
    let root =
        restore_that_died(|call| call.name == "unlink" && call.path.ends_with("intent.json"));
    root.overwrite("");
    assert_eq!(root.ok("state get .n"), "3");
    root.ok("state set later:=1");
    assert_eq!(fs::read_to_string(root.file("config/rules.json")).unwrap(), "{\"a\": 1}\n");
    assert_eq!(root.ok("state get .n"), "3");
}

#[test]
fn an_abort_keeps_what_was_written_into_config_after_the_exchange() {
    let root = restore_that_died(|call| call.name == "exchange" && call.path.ends_with(".signals"));
    assert_eq!(fs::read_to_string(root.file("config/rules.json")).unwrap(), "{\"a\": 1}\n");
    fs::write(root.file("config/rules.json"), "precious").unwrap();
    root.run("recover restore --abort").expect(0).saying("config.before-restore-");
    let kept = root.names("").into_iter().find(|name| name.starts_with("config.before-restore-"));
    let kept = root.file(kept.unwrap()).join("rules.json");
    assert_eq!(fs::read_to_string(kept).unwrap(), "precious");
    assert_eq!(fs::read_to_string(root.file("config/rules.json")).unwrap(), "{\"a\": 2}\n");
}

#[test]
fn an_abort_after_damage_finishes_a_restore_whose_state_was_committed() {
    for damage in ["", "{\"phase\": \"edited\", \"n\": 1}\n"] {
        let root =
            restore_that_died(|call| call.name == "unlink" && call.path.ends_with("intent.json"));
        root.overwrite(damage);
        root.ok("recover restore --abort");
        root.run("state recover");
        assert_eq!(root.ok("state get .n"), "3");
        assert_eq!(fs::read_to_string(root.file("config/rules.json")).unwrap(), "{\"a\": 1}\n");
    }
}

#[test]
fn an_abort_in_a_moved_root_keeps_the_archive_of_the_old_lineage() {
    let moved = copy(&fresh_that_died(is_archives_rename));
    moved.ok("recover restore --abort");
    moved.ok("state set later:=1");
    let archive = moved.shelf("archive-").remove(0);
    let kept = moved.names(&format!(".state-backups/{archive}")).into_iter().any(|name| {
        let path = moved.file(".state-backups").join(&archive).join(name);
        fs::read_to_string(path).is_ok_and(|text| text.contains("newest"))
    });
    assert!(kept);
}

#[test]
fn a_new_lineage_without_its_archive_leaves_the_mirror_of_the_old_one() {
    let root = fresh_that_died(|call| {
        ["rename", "exchange"].contains(&call.name) && call.path.ends_with("mirror.json")
    });
    let staged = root.shelf(".pipeline-state-restore-").remove(0);
    fs::remove_dir_all(root.file(".state-backups").join(staged)).unwrap();
    root.run("state set later:=1").expect(3).saying("state recover");
    assert!(fs::read_to_string(root.mirror()).unwrap().contains("newest"));
    root.ok("state recover");
    assert_eq!(root.ok("state get .v"), "newest");
}

#[test]
fn an_abort_of_a_damaged_record_keeps_an_archive_in_progress() {
    let root = fresh_that_died(is_archives_rename);
    fs::write(root.file(".checkpoints/.in-progress/intent.json"), "{}").unwrap();
    root.run("recover restore --abort").expect(0).saying("archive-kept-");
    assert_eq!(root.shelf("archive-kept-").len(), 1);
}

#[test]
fn an_edit_of_a_tree_that_was_copied_into_undoes_no_half_of_a_killed_restore() {
    for next in ["state get .n", "recover restore --abort"] {
        let root = with_small_checkpoint();
        let is_tree =
            |path: &std::path::Path| path.ends_with("config") || path.ends_with(".signals");
        let mut is_dead = false;
        let disk = Disk::new(Rc::new(Observed::new(move |call| {
            is_dead |= call.name == "unlink" && call.path.ends_with("intent.json");
            match call.name {
                _ if is_dead => Fault::Fails(Errno::IO),
                "exchange" => Fault::Fails(Errno::XDEV),
                "rename" if call.from.as_deref().is_some_and(is_tree) => Fault::Fails(Errno::XDEV),
                _ => Fault::None,
            }
        })));
        let which = Which::Latest(Some(Name::parse("operation", "good").unwrap()));
        let _ = store(&root, disk).restores().restore(&which, &WriteOptions::of("restore"));
        assert!(root.file(".checkpoints/.in-progress/intent.json").exists());
        fs::write(root.file("config/rules.json"), "edited").unwrap();
        root.ok(next);
        assert_eq!(root.ok("state get .n"), "3");
        assert_eq!(fs::read_to_string(root.file("config/rules.json")).unwrap(), "edited");
        assert!(!root.file("config/new").exists(), "{next}");
    }
}
