//! `recover handle`: a strategy for each exit code.

use std::fs;

use crate::doctor::*;
use crate::sandbox::{Sandbox, make_old};

#[test]
fn each_code_has_a_strategy_with_a_report_and_a_next_step() {
    let root = in_order();
    for (code, worth, next) in [
        (0, 0, None),
        (1, 1, Some("recover status")),
        (2, 0, None),
        (3, 0, None),
        (4, 1, Some("state validate -")),
        (5, 1, Some("recover doctor")),
        (6, 1, Some("recover doctor")),
        (7, 0, Some("recover cleanup 1")),
        (8, 0, Some("recover retry -n 5 -- COMMAND")),
        (9, 0, Some("recover retry -n 3 -- COMMAND")),
        (10, 0, Some("recover retry -n 3 -- COMMAND")),
        (64, 1, Some("--help")),
        (99, 1, Some("recover status")),
    ] {
        let ran = root.run_args(&[
            "recover",
            "handle",
            &code.to_string(),
            "--operation",
            "step",
            "--message",
            "it broke",
        ]);
        assert_eq!((ran.code, ran.stderr.as_str()), (worth, ""), "{code}: {}", ran.stdout);
        let next = next.map_or_else(String::new, |next| format!("next: pipeline-state {next}"));
        assert!(ran.stdout.contains(&next), "{code}: {}", ran.stdout);
        for command in
            ran.stdout.lines().filter_map(|line| line.strip_prefix("next: pipeline-state "))
        {
            let words: Vec<&str> = command
                .split(' ')
                .take_while(|word| word.chars().all(|c| c.is_ascii_lowercase() || c == '-'))
                .collect();
            assert_eq!(
                root.run(&format!("{} --help", words[..words.len().min(2)].join(" "))).code,
                0,
                "{command}"
            );
        }
        let log = fs::read_to_string(root.file(".error-recovery.log")).unwrap();
        let line = log.lines().last().unwrap();
        assert!(
            line.ends_with(&format!(" error-recovery/step: it broke (code: {code})")),
            "{line}"
        );
    }
    root.run("recover handle 256").expect(64);
    root.run("recover handle two").expect(64);
}

#[test]
fn a_lock_timeout_is_handled_by_dropping_dead_holders() {
    let root = in_order();
    root.bash("\"$PIPELINE_BINARY\" lock acquire dead -q; :").expect(0);
    let ran = root.run("recover handle 2").expect(0);
    assert!(ran.stdout.starts_with("LOCK_TIMEOUT: 1 stale lock removed"), "{}", ran.stdout);
    assert_eq!(root.run("lock check dead").stdout, "unlocked\n");
}

#[test]
fn corruption_is_handled_from_the_newest_copy_but_not_an_edit() {
    let root = in_order();
    fs::remove_file(root.state()).unwrap();
    assert!(
        root.run("recover handle 3")
            .expect(0)
            .stdout
            .contains("the state was missing; it was restored from mirror.json")
    );
    assert_eq!(root.document()["n"], 3);
    root.overwrite(fs::read_to_string(root.state()).unwrap().replace("\"n\": 3", "\"n\": 33"));
    let edited = fs::read(root.state()).unwrap();
    let ran = root.run("recover handle 3");
    assert_eq!(ran.code, 1);
    assert!(ran.stdout.contains("next: pipeline-state state adopt"), "{}", ran.stdout);
    assert_eq!(fs::read(root.state()).unwrap(), edited);
}

#[test]
fn invalid_input_restores_nothing_and_an_invalid_state_a_checkpoint() {
    let root = in_order();
    let before = root.snapshot();
    root.feed("state write -", b"{}").expect(4);
    assert_eq!(root.run("recover handle 4").code, 1);
    assert_eq!(root.snapshot(), before);

    // an unsealed state that breaks the rules, beside a checkpoint
    let kept = Sandbox::holding(
        r#"{"phase": "a", "completedTasks": [], "signals": {}, "lastActivation": ""}"#,
    );
    kept.ok("recover checkpoint good");
    for copies in kept.shelf("") {
        fs::remove_file(kept.file(".state-backups").join(copies)).unwrap();
    }
    kept.overwrite(
        r#"{"phase": ["no"], "completedTasks": 3, "signals": {}, "lastActivation": ""}"#,
    );
    make_old(&kept.state());
    kept.run("state read").expect(4);
    let ran = kept.run("recover handle 4 --operation other").expect(0);
    assert!(ran.stdout.contains("-good was restored"), "{}", ran.stdout);
    assert_eq!(kept.ok("state phase"), "a");
}

#[test]
fn a_full_disk_is_handled_by_removing_all_automatic_backups_but_two() {
    let root = in_order();
    root.ok("state backup mine");
    let kept = root.shelf("corrupt-").len() + root.shelf("mirror").len();
    root.run("recover handle 7").expect(0);
    let (pinned, automatic): (Vec<_>, Vec<_>) =
        root.shelf("state-").into_iter().partition(|name| name.contains("manual"));
    assert_eq!((pinned.len(), automatic.len()), (1, 2));
    assert_eq!(root.shelf("corrupt-").len() + root.shelf("mirror").len(), kept);
    assert_eq!(root.names(".checkpoints").len(), 2);
}
