//! The protocol with deliberate faults: each of them makes the tests of this folder fail.
//!
//! The recording is rewritten as if the calls had been reordered or were missing.

use std::collections::BTreeSet;

use super::explore::{Mutant, Until};
use super::recorder::{Event, Recording};
use super::{
    Job, aborting, beginning_a_guard, restoring, restoring_into, three_changes, with_new_lineage,
};

/// Moves the first event with these words, and the following ones with `also`, to the place before
/// another.
fn move_before(recording: &mut Recording, moved: &str, before: &str) {
    let find = |words: &str, from: usize| {
        let at = recording.words.iter().skip(from).position(|known| known.starts_with(words));
        at.map(|at| at + from)
    };
    let to = find(before, 0)
        .unwrap_or_else(|| panic!("{before} is not recorded: {:#?}", recording.words));
    let from = find(moved, to)
        .unwrap_or_else(|| panic!("{moved} is not recorded after it: {:#?}", recording.words));
    let (event, words) = (recording.events.remove(from), recording.words.remove(from));
    recording.events.insert(to, event);
    recording.words.insert(to, words);
}

/// The words of the first rename or exchange of such a staged file, whatever the number of its
/// writer's lock.
fn renaming(recording: &Recording, what: &str) -> String {
    let is_it = |words: &&String| {
        let staged = words.split_once(' ').is_some_and(|(call, names)| {
            ["rename", "exchange"].contains(&call) && names.starts_with("\".pipeline-state-")
        });
        staged && words.contains(&format!("-{what}.tmp\" "))
    };
    recording.words.iter().find(is_it).unwrap().clone()
}

fn without(recording: &mut Recording, is_gone: impl Fn(&str) -> bool) {
    let kept: BTreeSet<usize> =
        (0..recording.words.len()).filter(|at| !is_gone(&recording.words[*at])).collect();
    let mut numbers = 0..;
    recording.events.retain(|_| kept.contains(&numbers.next().unwrap()));
    let mut numbers = 0..;
    recording.words.retain(|_| kept.contains(&numbers.next().unwrap()));
}

/// Leaves out the next event with these words after the first one that `is_place` selects.
fn leave_out_next(recording: &mut Recording, gone: &str, is_place: impl Fn(&str) -> bool) {
    let place = recording.words.iter().position(|words| is_place(words)).unwrap();
    let next = recording.words[place..].iter().position(|words| words.starts_with(gone)).unwrap();
    recording.words.remove(place + next);
    recording.events.remove(place + next);
}

fn rewritten(rewrite: fn(&mut Recording)) -> Mutant {
    Mutant { rewrite, ..Mutant::NONE }
}

#[test]
fn a_commit_that_does_not_sync_its_file_is_caught() {
    three_changes()
        .is_caught(rewritten(|recording| without(recording, |words| words.starts_with("sync "))));
}

#[test]
fn a_commit_that_does_not_sync_its_directory_is_caught() {
    three_changes().is_caught(rewritten(|recording| {
        without(recording, |words| words.starts_with("sync_dir "))
    }));
}

#[test]
fn a_commit_that_renames_the_live_file_away_is_caught() {
    three_changes().is_caught(rewritten(|recording| {
        let is_commit = |words: &String| {
            words.starts_with("rename") && words.ends_with("\".workflow-state.json\"")
        };
        let at = recording.words.iter().position(is_commit).unwrap();
        let Event::Named(namings) = &recording.events[at] else { panic!("no rename") };
        let (directory, name, _) = namings[1].clone();
        recording.events.insert(at, Event::Named(vec![(directory, name, None)]));
        recording.words.insert(at, "renamed away".to_owned());
    }));
}

#[test]
fn a_commit_that_is_acknowledged_before_its_directory_is_synced_is_caught() {
    three_changes().is_caught(rewritten(|recording| {
        move_before(recording, "acknowledged", "sync_dir pipeline")
    }));
}

#[test]
fn a_mirror_that_is_put_in_place_before_the_commit_is_caught() {
    three_changes().is_caught(rewritten(|recording| {
        let (mirror, commit) = (renaming(recording, "mirror"), renaming(recording, "state"));
        move_before(recording, &mirror, &commit);
    }));
}

#[test]
fn an_intent_that_is_put_in_place_after_the_swap_is_caught() {
    restoring().is_caught(rewritten(|recording| {
        for _ in 0..2 {
            move_before(recording, "exchange", "rename \"intent.draft\"");
        }
    }));
}

#[test]
fn a_file_that_is_copied_into_a_tree_before_the_intent_is_caught() {
    restoring_into().is_caught(rewritten(|recording| {
        move_before(recording, "rename \"rules.json\" \"rules.json\"", "rename \"intent.draft\"");
    }));
}

#[test]
fn an_abort_that_puts_a_tree_back_before_its_intent_is_caught() {
    aborting().is_caught(rewritten(|recording| {
        move_before(recording, "exchange", "rename \"intent.draft\"")
    }));
}

#[test]
fn a_fresh_beginning_that_removes_a_backup_before_its_intent_is_caught() {
    with_new_lineage().is_caught(rewritten(|recording| {
        let is_pinned =
            |words: &&String| words.starts_with("unlink") && words.contains("manual-first");
        let removal = recording.words.iter().find(is_pinned).unwrap().clone();
        move_before(recording, &removal, "rename \"fresh.draft\"");
    }));
}

#[test]
fn a_fresh_beginning_that_commits_before_its_intent_is_caught() {
    with_new_lineage().is_caught(rewritten(|recording| {
        let is_staging =
            |words: &String| words.starts_with("create") && words.contains("-state.tmp");
        let staged = recording.words.iter().position(is_staging).unwrap();
        let mut commit = recording.words[staged..staged + 3].to_vec(); // created, written, synced
        commit.push(renaming(recording, "state"));
        commit.iter().for_each(|words| move_before(recording, words, "rename \"fresh.draft\""));
    }));
}

#[test]
fn a_guard_whose_record_is_not_synced_is_caught() {
    beginning_a_guard().is_caught(rewritten(|recording| {
        leave_out_next(recording, "sync ", |words| words.contains("-guard.tmp"));
    }));
}

#[test]
fn a_guard_whose_directory_is_not_synced_is_caught() {
    beginning_a_guard().is_caught(rewritten(|recording| {
        let placed = renaming(recording, "guard");
        leave_out_next(recording, "sync_dir ", |words| words == placed);
    }));
}

#[test]
fn healing_from_backups_before_the_mirror_is_caught() {
    let job = three_changes();
    assert_eq!(job.survive_destruction(Mutant::NONE), Vec::<String>::new());
    let blind = Mutant { blind_to: Some("mirror.json"), ..Mutant::NONE };
    assert!(!job.survive_destruction(blind).is_empty(), "the fault was not caught");
}

/// The syncs of a job that are unnecessary for these trees.
fn idle_syncs(job: &Job) -> Vec<String> {
    let (recording, views) = job.record();
    let syncs =
        (0..recording.events.len()).filter(|at| matches!(recording.events[*at], Event::Synced(_)));
    let is_idle = |at: &usize| {
        let mut broken = recording.clone();
        broken.events.remove(*at);
        broken.words.remove(*at);
        job.search(&broken, &views, Mutant::NONE, Until::TheFirst).violations.is_empty()
    };
    syncs.filter(is_idle).map(|at| recording.words[at].clone()).collect()
}

#[test]
fn no_sync_of_a_commit_can_be_left_out() {
    assert_eq!(idle_syncs(&three_changes()), [] as [&str; 0]);
}
