//! The journal's lines of locks, checkpoints, restores, guards, retries and failures.

use std::fs;

use pipeline_state::fs::Disk;
use pipeline_state::journal::event::{
    CheckpointStep, Event, GuardStep, LockStep, RestoreStep, RetryStep,
};
use pipeline_state::journal::{Journal, OLD_JOURNAL, ROTATED_AT};

use crate::owners::Owner;
use crate::sandbox::Sandbox;

fn events(root: &Sandbox) -> Vec<Event> {
    let disk = Disk::real();
    let dir = disk.open_root(&root.file(".state-backups")).unwrap();
    let events = Journal::new(&disk, &dir).read();
    assert!(events.damaged == 0 && events.problem.is_none());
    events.list
}

fn lock_steps(root: &Sandbox) -> Vec<(LockStep, Option<u64>)> {
    let step = |event: &Event| match event {
        Event::Lock(event) => Some((event.step, event.token)),
        _ => None,
    };
    events(root).iter().filter_map(step).collect()
}

#[test]
fn a_lock_is_granted_waited_for_and_given_back_on_record() {
    let root = Sandbox::initialized();
    let (one, two) = (Owner::new(), Owner::new());
    root.ok(&format!("lock acquire a,b --owner-pid {}", one.pid()));
    root.run(&format!("lock acquire a 0.1 --owner-pid {}", two.pid())).expect(2);
    root.ok(&format!("lock release a --owner-pid {}", one.pid()));
    root.ok("lock break b --force");
    assert_eq!(
        lock_steps(&root),
        [
            (LockStep::Granted, Some(1)),
            (LockStep::Granted, Some(2)),
            (LockStep::TimedOut, None),
            (LockStep::Released, Some(1)),
            (LockStep::Broken, Some(2)),
        ]
    );
    let all = events(&root);
    let Some(Event::Lock(late)) = all
        .iter()
        .find(|event| matches!(event, Event::Lock(event) if event.step == LockStep::TimedOut))
    else {
        unreachable!("it is among the steps")
    };
    assert_eq!((late.origin.owner.pid, late.lock.as_str()), (two.pid(), "a"));
    assert!(late.waited >= 0.1, "{late:?}");
    let blocker = &late.blockers[0].party;
    assert_eq!((blocker.pid, blocker.token), (Some(one.pid()), Some(1)));
    let text = fs::read_to_string(root.file(".state-backups/journal.jsonl")).unwrap();
    let grants = text.lines().filter(|line| line.contains("\"granted\""));
    assert_eq!(grants.count(), 2);
}

#[test]
fn a_grant_that_ends_with_its_owner_is_on_record_once_that_is_found() {
    let root = Sandbox::initialized();
    let owner = Owner::new();
    root.ok(&format!("lock acquire a --owner-pid {}", owner.pid()));
    drop(owner);
    root.ok("lock run a -- true");
    let expected = [
        (LockStep::Granted, Some(1)),
        (LockStep::OwnerDied, Some(1)),
        (LockStep::Granted, Some(2)),
        (LockStep::Released, Some(2)),
    ];
    assert_eq!(lock_steps(&root), expected);
}

#[test]
fn counting_a_grant_again_is_no_event_and_a_root_without_a_journal_gets_none() {
    let root = Sandbox::initialized();
    let owner = Owner::new();
    for words in ["acquire a", "acquire a --reentrant", "release a", "release a"] {
        root.ok(&format!("lock {words} --owner-pid {}", owner.pid()));
    }
    assert_eq!(lock_steps(&root).len(), 2);
    fs::remove_file(root.file(".state-backups/journal.jsonl")).unwrap();
    root.ok(&format!("lock acquire a --owner-pid {}", owner.pid()));
    assert!(!root.file(".state-backups/journal.jsonl").exists());
}

#[test]
fn recovery_and_refusals_are_on_record() {
    let root = Sandbox::initialized();
    root.ok("recover checkpoint before");
    root.ok("state set n:=1");
    root.run("recover restore --latest --yes").expect(0);
    assert_eq!(root.run("recover guard step -- false").code, 1);
    root.run("recover guard step -- true").expect(0);
    assert_eq!(root.run("recover retry --retries 2 --base-delay 0 -- false").code, 1);
    root.run("state set phase:=5").expect(4);
    root.run("lock release none").expect(1);
    let all = events(&root);
    let has = |what: &str, is_it: &dyn Fn(&Event) -> bool| {
        assert!(all.iter().any(is_it), "{what}: {all:#?}");
    };
    has("made", &|event| match event {
        Event::Checkpoint(it) => it.step == CheckpointStep::Made && it.lineage.is_some(),
        _ => false,
    });
    has("restored", &|event| match event {
        Event::Restore(it) => it.step == RestoreStep::Restored && it.revision == Some(3),
        _ => false,
    });
    has("guard failed", &|event| match event {
        Event::Guard(it) => it.step == GuardStep::Ended && it.code == Some(1),
        _ => false,
    });
    has(
        "guard put back",
        &|event| matches!(event, Event::Guard(it) if it.step == GuardStep::Restored),
    );
    has("guard", &|event| matches!(event, Event::Guard(it) if it.code == Some(0)));
    has("retry", &|event| match event {
        Event::Retry(it) => {
            (it.step, it.attempts, it.program.as_str()) == (RetryStep::Failed, Some(2), "false")
        }
        _ => false,
    });
    has(
        "refusal",
        &|event| matches!(event, Event::Failure(it) if it.command == "state set" && it.code == 4),
    );
    has(
        "lock refusal",
        &|event| matches!(event, Event::Failure(it) if it.command == "lock release"),
    );
}

#[test]
fn a_lock_command_rotates_the_journal_that_it_filled_and_no_counter_falls() {
    let root = Sandbox::initialized();
    root.ok("lock run a -- true");
    let path = root.file(".state-backups/journal.jsonl");
    let padding = vec![b'\n'; usize::try_from(ROTATED_AT).unwrap()];
    let text = [fs::read(&path).unwrap(), padding].concat();
    fs::write(&path, text).unwrap();
    root.ok("lock run a -- true");
    assert!(root.file(format!(".state-backups/{OLD_JOURNAL}")).exists());
    assert!(fs::metadata(&path).unwrap().len() < 1 << 14);
    fs::remove_file(root.file(format!(".state-backups/{OLD_JOURNAL}"))).unwrap();
    root.ok("lock run a -- true");
    let disk = Disk::real();
    let dir = disk.open_root(&root.file(".state-backups")).unwrap();
    let totals = Journal::new(&disk, &dir).read().totals();
    assert_eq!((totals.count(), totals.locks["a"].granted, totals.lock_waits.count), (1, 3, 3));
}
