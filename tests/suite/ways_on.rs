//! P6: the suggested next step works, and leads on.

use std::fs;

use crate::checkpoint::checkpoint;
use crate::documents::reseal;
use crate::sandbox::{Ran, Sandbox};

/// A state with a valid checkpoint of it, and no copy of the document except the live file.
fn without_copies() -> Sandbox {
    let root = Sandbox::initialized();
    root.ok("state phase build");
    root.ok("recover checkpoint good");
    root.ok("state phase deploy");
    for name in root.names(".state-backups") {
        fs::remove_file(root.file(".state-backups").join(name)).unwrap();
    }
    root
}

fn damaged() -> Sandbox {
    let root = without_copies();
    root.overwrite("bad");
    root
}

fn gone() -> Sandbox {
    let root = without_copies();
    fs::remove_file(root.state()).unwrap();
    root
}

/// The suggested commands, best first, without the program's name and the reasons.
fn named(told: &str) -> Vec<String> {
    let commands = told
        .lines()
        .filter_map(|line| line.split_once("pipeline-state ").map(|(_, command)| command));
    commands.map(|command| command.split("   #").next().unwrap().to_owned()).collect()
}

fn hints(ran: &Ran) -> Vec<String> {
    named(
        &ran.stderr
            .lines()
            .filter(|line| line.starts_with("hint: "))
            .collect::<Vec<_>>()
            .join("\n"),
    )
}

#[test]
fn where_only_a_checkpoint_is_left_every_command_names_its_restore_first() {
    for root in [damaged(), gone()] {
        let before = root.snapshot();
        for words in [
            "state phase",
            "state phase x",
            "state recover",
            "state init",
            "state validate",
            "recover checkpoint x",
        ] {
            let ran = root.run(words).expect(3);
            assert_eq!(
                hints(&ran),
                ["recover restore --latest", "state init --fresh"],
                "{words}: {}",
                ran.stderr
            );
        }
        let found = root.run("recover doctor").expect(3).stdout;
        assert_eq!(named(&found)[0], "recover restore --latest", "{found}");
        let status = root.ok("recover status");
        assert!(status.contains("next: pipeline-state recover restore --latest"), "{status}");
        let unlocked = |files: Vec<(std::path::PathBuf, Vec<u8>)>| {
            files
                .into_iter()
                .filter(|(path, _)| !path.to_string_lossy().contains(".locks"))
                .collect::<Vec<_>>()
        };
        assert!(unlocked(root.snapshot()) == unlocked(before), "nothing was touched");
        root.ok("recover restore --latest");
        assert_eq!((root.ok("state phase").as_str(), root.revision()), ("build", 4));
    }
}

#[test]
fn a_state_without_a_copy_is_handled_from_a_checkpoint() {
    for code in [3, 4] {
        for root in [damaged(), gone()] {
            let told = root.run(&format!("recover handle {code}")).expect(0).stdout;
            assert!(
                told.contains("-good was restored, and what was there is checkpoint-"),
                "{told}"
            );
            assert_eq!(root.ok("state phase"), "build");
        }
    }
    // a state with a copy is restored from that, and no checkpoint changes
    let root = Sandbox::with_history();
    root.ok("recover checkpoint good");
    root.overwrite("bad");
    let told = root.run("recover handle 4").stdout;
    assert_eq!(named(&told)[0], "state recover", "{told}");
}

#[test]
fn init_does_not_replace_checkpoints_and_init_fresh_keeps_them() {
    let root = gone();
    let kept = root.names(".checkpoints");
    let status = root.run("state status").expect(3).stdout;
    assert!(status.contains("missing") && !status.contains("not initialized"), "{status}");
    root.run("state init").expect(3).saying("its history is here");
    assert!(!root.state().exists());
    root.ok("state init --fresh");
    assert_eq!((root.names(".checkpoints"), root.ok("state phase").as_str()), (kept, "pre-init"));
    root.ok("recover restore --latest");
    assert_eq!(root.ok("state phase"), "build");
}

#[test]
fn a_sealed_state_that_breaks_the_rules_has_a_remedy() {
    let root = Sandbox::with_history();
    root.ok("recover checkpoint good");
    let broken = fs::read_to_string(root.state())
        .unwrap()
        .replace("\"completedTasks\": []", "\"completedTasks\": 33");
    root.overwrite(reseal(&broken));
    let ran = root.run("state read").expect(4);
    assert_eq!(hints(&ran), ["state recover", "recover handle 4"], "{}", ran.stderr);
    assert!(ran.stderr.contains("state adopt"), "by hand it takes that, too: {}", ran.stderr);
    let twin = crate::snapshots::twin(&root);
    root.ok("state recover");
    twin.run("recover handle 4").expect(0);
    assert_eq!((&root.document()["n"], &twin.document()["n"]), (&3.into(), &3.into()));
}

#[test]
fn an_edit_is_answered_with_both_ways_on_also_by_the_doctor() {
    let root = Sandbox::with_history();
    root.overwrite(fs::read_to_string(root.state()).unwrap().replace("\"n\": 3", "\"n\": 33"));
    let found = root.run("recover doctor").expect(3).stdout;
    assert_eq!(named(&found), ["state adopt", "state recover"], "{found}");
    assert_eq!(found.matches("\nhint: ").count(), 2, "{found}");
    // with one way on there is no choice
    root.overwrite(
        fs::read_to_string(root.state())
            .unwrap()
            .replace("\"completedTasks\": []", "\"completedTasks\": 3"),
    );
    let told = root.run("state read").expect(3).stderr;
    assert!(told.contains("state recover   # discard it"), "{told}");
}

#[test]
fn a_damaged_checkpoint_is_answered_with_a_valid_one() {
    let root = Sandbox::initialized();
    root.ok("recover checkpoint sound");
    root.ok("recover checkpoint spoilt");
    let (sound, spoilt) = (checkpoint(&root, "sound"), checkpoint(&root, "spoilt"));
    fs::write(spoilt.join("state.json"), "x").unwrap();
    let id = |path: &std::path::Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    let removal = format!("rm -rI {}   # it cannot be restored", spoilt.display());
    for words in ["recover verify".to_owned(), format!("recover verify {}", id(&spoilt))] {
        let told = root.run(&words).expect(3).stderr;
        assert!(told.contains(&removal) && !told.contains("recover verify"), "{told}");
    }
    let ran = root.run("recover restore --latest").expect(3);
    assert_eq!(hints(&ran), [format!("recover restore {}", id(&sound))]);
    assert!(ran.stderr.contains(&removal), "{}", ran.stderr);
    root.ok(&hints(&ran)[0]);
}

#[test]
fn a_restore_of_nothing_names_both_ways_to_say_what() {
    Sandbox::initialized()
        .run("recover restore")
        .expect(64)
        .saying("<ID|--latest")
        .saying("recover restore --help");
}
