//! Commit, mirror, heal and restore of the real store, two writers and a reader at a time, in every
//! order of their calls with few preemptions: P1 to P4 hold in each.
//!
//! All orders with one preemption are tried, and a fixed sample with two; `PROOFS=all` tries all of
//! those, too. Locks with a record are not contended here, since all actors are one process and so
//! one owner: see `tests/lock_model`.

mod schedule;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pipeline_state::audit::Audit;
use pipeline_state::fs::Disk;
use pipeline_state::store::change::Outcome;
use pipeline_state::store::checkpoint::catalog::Which;
use pipeline_state::store::fresh::InitMode;
use pipeline_state::store::options::WriteOptions;
use pipeline_state::store::{FileStore, Settings};
use serde_json::Value;

use self::schedule::{Chooser, Diced, Exhaustive, Job, Run, is_alone, run};
use crate::effort::is_exhaustive;
use crate::races::increment;
use crate::races::settings_in;
use crate::sandbox::{Sandbox, make_old};

/// The results of an actor.
#[derive(Debug, Default)]
struct Told {
    committed: Option<u64>,
    /// Revision and `.n` of each read, in order.
    read: Vec<(u64, i64)>,
}

fn store(root: &Path, disk: Disk) -> FileStore {
    let settings = Settings { lock_timeout: Duration::from_secs(3600), ..settings_in(root) };
    let audit = Audit::new(disk.clone(), root.join("audit.log"), root);
    FileStore::new(disk, settings, audit).reporting_absence()
}

fn increments(root: &Path, disk: Disk) -> Told {
    committed(increment(&store(root, disk)))
}

fn committed(outcome: pipeline_state::error::Result<Outcome>) -> Told {
    match outcome.unwrap() {
        Outcome::Committed { revision, .. } => {
            Told { committed: Some(revision.get()), ..Told::default() }
        }
        other => panic!("{other:?}"),
    }
}

fn reads_twice(root: &Path, disk: Disk) -> Told {
    let store = store(root, disk);
    let read = |_| {
        let served = store.read().unwrap();
        let whole: Value = serde_json::from_slice(&served.bytes).unwrap();
        assert_eq!(whole, *served.value);
        (whole["metadata"]["revision"].as_u64().unwrap(), whole["n"].as_i64().unwrap_or(-1))
    };
    Told { committed: None, read: (0..2).map(read).collect() }
}

fn restores(root: &Path, disk: Disk) -> Told {
    let restored = store(root, disk).restores().restore(
        &Which::Latest(None),
        &WriteOptions { group: "recover", ..WriteOptions::of("restore") },
    );
    Told { committed: Some(restored.unwrap().revision), ..Told::default() }
}

fn begins(root: &Path, disk: Disk) -> Told {
    store(root, disk).init(InitMode::Continue, &WriteOptions::of("init")).unwrap();
    Told::default()
}

/// An initial root, its actors, and the final condition.
struct Scenario<'a> {
    what: &'a str,
    start: &'a Path,
    jobs: &'a [Job<Told>],
    check: &'a dyn Fn(&Path, &[Told]),
    /// Number of orders with two preemptions.
    sample: u64,
}

impl Scenario<'_> {
    fn try_all(&self) {
        let began = Instant::now();
        let all = is_exhaustive();
        let mut exhaustive = Exhaustive::new(if all { 2 } else { 1 });
        let (mut count, mut longest) = (0, 0);
        loop {
            longest = longest.max(self.try_one(&mut exhaustive));
            count += 1;
            if !exhaustive.advance() {
                break;
            }
        }
        let sample = if all { 0 } else { self.sample };
        for seed in 0..sample {
            self.try_one(&mut Diced::new(seed, 2, longest));
        }
        let bound = if all { "two" } else { "one" };
        println!(
            "{}: all {count} orders of up to {longest} calls with at most {bound} preemption(s), \
             and {sample} with two; {:.1?}",
            self.what,
            began.elapsed()
        );
    }

    /// Tries one order; returns its number of calls.
    fn try_one(&self, chooser: &mut dyn Chooser) -> usize {
        let root = Sandbox::empty();
        copy(self.start, root.path());
        let Run { told, steps } = run(root.path(), self.jobs, chooser);
        let is_well = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for told in &told {
                assert!(
                    told.read.is_sorted_by_key(|(revision, _)| *revision),
                    "it went backwards: {:?}",
                    told.read
                );
            }
            let live = document(root.path(), ".workflow-state.json");
            let mirror = document(root.path(), ".state-backups/mirror.json");
            assert_eq!(mirror, live, "the mirror is what was committed last");
            (self.check)(root.path(), &told);
        }));
        if let Err(panic) = is_well {
            let steps: Vec<String> =
                steps.iter().map(|(actor, call)| format!("{actor}: {call}")).collect();
            println!("{}: {told:?}\n{}", self.what, steps.join("\n"));
            std::panic::resume_unwind(panic);
        }
        steps.len()
    }
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir(&target).unwrap();
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).unwrap();
            make_old(&target); // old enough that no reader waits for an editor
        }
    }
}

fn document(root: &Path, name: &str) -> Value {
    serde_json::from_slice(&fs::read(root.join(name)).unwrap()).unwrap()
}

fn shelf(root: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries =
        fs::read_dir(root.join(".state-backups")).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(prefix)).collect()
}

fn revision(document: &Value) -> u64 {
    document["metadata"]["revision"].as_u64().unwrap()
}

/// The acknowledged revisions, sorted.
fn acknowledged(told: &[Told]) -> Vec<u64> {
    let mut revisions: Vec<u64> = told.iter().filter_map(|told| told.committed).collect();
    revisions.sort_unstable();
    revisions
}

#[test]
fn two_increments_both_count_and_a_reader_sees_each_whole() {
    if !is_alone() {
        return;
    }
    let start = Sandbox::with_history();
    let check = |root: &Path, told: &[Told]| {
        let live = document(root, ".workflow-state.json");
        assert_eq!((live["n"].as_i64(), revision(&live)), (Some(5), 6));
        assert_eq!(acknowledged(told), [5, 6], "no gap, none twice");
        let read = told.iter().flat_map(|told| &told.read);
        assert!(
            read.clone().all(|(revision, n)| *n + 1 == i64::try_from(*revision).unwrap()),
            "{told:?}"
        );
        for lost in [4, 5] {
            let kept = shelf(root, "state-")
                .into_iter()
                .filter(|path| path.to_str().unwrap().contains(&format!("-r{lost}-")));
            assert_eq!(kept.count(), 1, "the backup of revision {lost}");
        }
    };
    let jobs: &[Job<Told>] = &[increments, increments, reads_twice];
    Scenario {
        what: "two increments and a reader",
        start: start.path(),
        jobs,
        check: &check,
        sample: 200,
    }
    .try_all();
}

#[test]
fn damage_that_two_readers_and_a_writer_meet_is_healed_once() {
    if !is_alone() {
        return;
    }
    let start = Sandbox::with_history();
    start.overwrite("garbage");
    let check = |root: &Path, told: &[Told]| {
        let live = document(root, ".workflow-state.json");
        assert_eq!(
            (live["n"].as_i64(), revision(&live)),
            (Some(4), 6),
            "healed as revision 5, and changed"
        );
        assert_eq!(acknowledged(told), [6]);
        // before it is healed, a read may serve the copy to be restored
        let is_one = |(revision, n): &(u64, i64)| matches!((revision, n), (4 | 5, 3) | (6, 4));
        assert!(told.iter().flat_map(|told| &told.read).all(is_one), "{told:?}");
        let kept = shelf(root, "corrupt-");
        assert_eq!(kept.len(), 1, "the evidence, once");
        assert_eq!(fs::read(&kept[0]).unwrap(), b"garbage");
    };
    let jobs: &[Job<Told>] = &[reads_twice, increments, reads_twice];
    Scenario { what: "healing", start: start.path(), jobs, check: &check, sample: 100 }.try_all();
}

#[test]
fn a_restore_and_a_change_come_one_after_the_other() {
    if !is_alone() {
        return;
    }
    let start = Sandbox::initialized();
    start.ok("state set n:=1");
    start.ok("recover checkpoint good");
    start.ok("state set n:=10");
    let check = |root: &Path, told: &[Told]| {
        let live = document(root, ".workflow-state.json");
        assert_eq!(acknowledged(told), [4, 5], "no gap, none twice");
        assert_eq!(revision(&live), 5);
        let expected = if told[0].committed == Some(4) { 2 } else { 1 };
        assert_eq!(live["n"], expected, "{told:?}");
        let is_one = |(revision, n): &(u64, i64)| {
            matches!((revision, n), (3, 10) | (4, 1 | 11) | (5, 1 | 2))
        };
        assert!(told.iter().flat_map(|told| &told.read).all(is_one), "{told:?}");
    };
    let jobs: &[Job<Told>] = &[restores, increments, reads_twice];
    Scenario { what: "restore", start: start.path(), jobs, check: &check, sample: 30 }.try_all();
}

#[test]
fn two_that_begin_at_once_begin_one_history() {
    if !is_alone() {
        return;
    }
    let start = Sandbox::empty();
    let check = |root: &Path, _: &[Told]| {
        let live = document(root, ".workflow-state.json");
        assert_eq!(revision(&live), 1, "one of them found it there");
    };
    let jobs: &[Job<Told>] = &[begins, begins];
    Scenario { what: "init", start: start.path(), jobs, check: &check, sample: 100 }.try_all();
}

/// A writer that reads before it takes the lock.
fn adds_ten_to_what_it_read_before(root: &Path, disk: Disk) -> Told {
    let store = store(root, disk);
    let read = store.read().unwrap().value.into_value();
    committed(store.change(&WriteOptions::of("update"), &mut |_| {
        let mut value = read.clone();
        value["n"] = (value["n"].as_u64().unwrap() + 10).into();
        Ok(value.into())
    }))
}

/// A writer that replaces a damaged file with the mirror, without the lock.
fn heals_by_hand(root: &Path, disk: Disk) -> Told {
    let dir = disk.open_root(root).unwrap();
    let shelf = disk.open_dir(&dir, ".state-backups").unwrap();
    let live = disk.read(&dir, ".workflow-state.json", 1 << 20).unwrap().unwrap();
    if live.bytes == b"garbage" {
        let mirror = disk.read(&shelf, "mirror.json", 1 << 20).unwrap().unwrap();
        fs::write(root.join("by-hand"), mirror.bytes).unwrap();
        disk.rename(dir.entry("by-hand"), dir.entry(".workflow-state.json")).unwrap();
    }
    Told::default()
}

/// Allowed final values of `.n`.
fn sums(start: &Sandbox, jobs: &[Job<Told>]) -> Vec<i64> {
    let mut exhaustive = Exhaustive::new(1);
    let mut sums = BTreeSet::new();
    loop {
        let root = Sandbox::empty();
        copy(start.path(), root.path());
        run(root.path(), jobs, &mut exhaustive);
        sums.insert(document(root.path(), ".workflow-state.json")["n"].as_i64().unwrap());
        if !exhaustive.advance() {
            return sums.into_iter().collect();
        }
    }
}

#[test]
fn an_update_that_is_lost_for_want_of_a_lock_is_found() {
    if !is_alone() {
        return;
    }
    let start = Sandbox::with_history();
    assert_eq!(
        sums(&start, &[adds_ten_to_what_it_read_before, increments]),
        [13, 14],
        "13: the increment is lost"
    );
    start.overwrite("garbage");
    assert_eq!(sums(&start, &[heals_by_hand, increments]), [3, 4], "3: the increment is lost");
}
