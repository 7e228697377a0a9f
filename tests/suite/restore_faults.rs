//! Checkpoints and restores with each of their file-system calls failing, in one process.

use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::observed::{Fault, Observed};
use pipeline_state::error::{Kind, Result};
use pipeline_state::fs::Disk;
use pipeline_state::name::Name;
use pipeline_state::store::FileStore;
use pipeline_state::store::checkpoint::Snapshot;
use pipeline_state::store::checkpoint::catalog::Which;
use pipeline_state::store::fresh::InitMode;
use pipeline_state::store::options::WriteOptions;
use pipeline_state::store::restore::Aborted;
use rustix::io::Errno;
use serde_json::json;

use crate::crash::explore::write_z;
use crate::faults::{InjectedFault, Lasting, Manner, store};
use crate::sandbox::Sandbox;
use crate::snapshots::{Whole, assert_tidy, restored, twin, with_small_checkpoint};
use crate::strace::in_parallel;

const FAULTS: [(Errno, u8, Lasting, Manner); 5] = [
    (Errno::IO, 1, Lasting::Once, Manner::Fails),
    (Errno::IO, 1, Lasting::EverAfter, Manner::Fails),
    (Errno::IO, 1, Lasting::Once, Manner::HappensAndFails),
    (Errno::NOSPC, 7, Lasting::EverAfter, Manner::Fails),
    (Errno::ACCESS, 6, Lasting::Once, Manner::Fails),
];

/// Runs an operation with its 1st, 2nd, 3rd … call failing, each time in a root of its own, until
/// one run ends without the fault; `check` examines the result.
fn failing_at_every_call(
    start: &Sandbox,
    run: fn(&FileStore) -> Result<()>,
    check: impl Fn(&Sandbox, InjectedFault, &Result<()>, &str) + Sync,
) {
    let faults =
        FAULTS.map(|(errno, code, lasting, manner)| InjectedFault { errno, code, lasting, manner });
    let count = AtomicUsize::new(0);
    // every fault at one call in eight: together they cover each call
    let cases: Vec<(usize, InjectedFault)> =
        (0..8).flat_map(|lane| faults.map(|fault| (lane, fault))).collect();
    in_parallel(&cases, |(lane, fault)| {
        for nth in (1 + lane..).step_by(8) {
            let root = twin(start);
            let (disk, hit) = fault.disk(nth);
            let result = run(&store(&root, disk));
            let Some(call) = hit.borrow().clone() else {
                assert!(result.is_ok(), "{result:?}");
                return;
            };
            count.fetch_add(1, Ordering::Relaxed);
            check(
                &root,
                *fault,
                &result,
                &format!("{fault:?} at call {nth}, {call:?}: {result:?}"),
            );
        }
    });
    println!("{} failures", count.into_inner());
}

/// The next writer writes, and clears all leftovers of the failure.
fn next_writer(root: &Sandbox, place: &str) {
    write_z(&store(root, Disk::real()))
        .unwrap_or_else(|error| panic!("the next writer fails: {error}: {place}"));
    assert_tidy(root, place);
}

fn restore(store: &FileStore) -> Result<()> {
    let which = Which::Latest(Some(Name::parse("operation", "good")?));
    store
        .restores()
        .restore(&which, &WriteOptions { group: "recover", ..WriteOptions::of("restore") })
        .map(|_| ())
}

/// A failure has the code of the disk's error, unless its effect is unknown.
fn assert_right_code(fault: InjectedFault, result: &Result<()>, place: &str) {
    if let Err(error) = result {
        let unknown = error.kind == Kind::DurabilityUnknown;
        assert!(
            unknown || error.code() as u8 == fault.code || fault.manner == Manner::HappensAndFails,
            "{place}"
        );
    }
}

#[test]
fn a_restore_whose_calls_fail_is_of_all_three_or_of_none_and_ok_means_all() {
    let start = with_small_checkpoint();
    let (old, new) = (Whole::of(&start), restored(&start));
    failing_at_every_call(&start, restore, |root, fault, result, place| {
        assert_right_code(fault, result, place);
        let real = store(root, Disk::real());
        let read = real.read().unwrap_or_else(|error| panic!("a bad read: {error}: {place}"));
        let found = Whole::with(root, &read.bytes);
        assert!(found == old || found == new, "a mix: {place}\n{found:#?}");
        assert!(
            found == new || result.is_err(),
            "success is reported, but not the change: {place}"
        );
        // a failure that still leads to the restore must announce that
        let decided = result.as_ref().is_err_and(|error| error.message.contains("decided"));
        assert!(
            found == old || result.is_ok() || decided,
            "failure is reported, but there is a change: {place}"
        );
        next_writer(root, place);
    });
}

/// A root with an intent to restore `good` and nothing exchanged yet, and the expected result: the
/// first exchange fails.
fn with_decided_restore() -> (Sandbox, Whole) {
    let start = with_small_checkpoint();
    let new = restored(&start);
    let disk = Disk::new(Rc::new(Observed::new(|call| match call.name {
        "exchange" => Fault::Fails(Errno::IO),
        _ => Fault::None,
    })));
    let error = restore(&store(&start, disk)).unwrap_err();
    assert!(error.message.contains("is decided, and the next command finishes it"), "{error}");
    (start, new)
}

/// The write is part of the restored state or missing, and the restore is never half done.
#[test]
fn a_failing_writer_finishes_the_restore_or_writes_nothing() {
    let (start, new) = with_decided_restore();
    let write = |store: &FileStore| {
        let outcome = store.change(&WriteOptions::of("set"), &mut |base| {
            assert_eq!(base.value["n"], 3, "it is made to what is restored");
            let mut value = (*base.value).clone();
            value["y"] = json!(1);
            Ok(value.into())
        });
        outcome.map(drop)
    };
    failing_at_every_call(&start, write, |root, fault, result, place| {
        let unknown = result.as_ref().is_err_and(|error| error.kind == Kind::DurabilityUnknown);
        let real = store(root, Disk::real());
        let read = real.read().unwrap_or_else(|error| panic!("a bad read: {error}: {place}"));
        assert!(Whole::with(root, &read.bytes) == new, "{place}");
        let is_written = read.value.get("y").is_some();
        assert!(is_written || result.is_err(), "acknowledged and lost: {place}");
        let doubtful = unknown || fault.manner == Manner::HappensAndFails;
        assert!(!is_written || result.is_ok() || doubtful, "refused and written: {place}");
        root.ok("state set z:=1");
        assert_tidy(root, place);
    });
}

#[test]
fn a_failing_reader_finishes_the_restore_or_reports_why() {
    let (start, new) = with_decided_restore();
    let read = |store: &FileStore| store.read().map(|served| assert_eq!(served.value["n"], 3));
    failing_at_every_call(&start, read, |root, _, _, place| {
        let real = store(root, Disk::real());
        let read = real.read().unwrap_or_else(|error| panic!("a bad read: {error}: {place}"));
        assert!(Whole::with(root, &read.bytes) == new, "{place}");
        next_writer(root, place);
    });
}

#[test]
fn three_renames_replace_an_exchange_and_survive_any_kill() {
    let start = with_small_checkpoint();
    let new = restored(&start);
    for dies_at in 0..8 {
        let root = twin(&start);
        let (mut exchanged, mut renames) = (false, 0);
        let disk = Disk::new(Rc::new(Observed::new(move |call| {
            exchanged |= call.name == "exchange";
            renames += usize::from(exchanged && call.name == "rename");
            match call.name {
                "exchange" => Fault::Fails(Errno::INVAL),
                _ if dies_at > 0 && renames >= dies_at => Fault::Fails(Errno::IO),
                _ => Fault::None,
            }
        })));
        let result = restore(&store(&root, disk));
        assert_eq!(result.is_ok(), dies_at == 0, "{dies_at}: {result:?}");
        assert_eq!(root.ok("state get .n"), "3", "{dies_at}");
        assert!(Whole::of(&root) == new, "{dies_at}");
        root.ok("state set y:=1");
        assert_tidy(&root, "by renames");
    }
}

/// A file that a process without locks creates meanwhile must not block the restore, and is not
/// lost.
#[test]
fn files_added_to_config_during_a_restore_are_kept() {
    let start = with_small_checkpoint();
    let new = restored(&start);
    let root = twin(&start);
    let (config, mut exchanges) = (root.file("config"), 0);
    let disk = Disk::new(Rc::new(Observed::new(move |call| {
        if call.name == "exchange" {
            exchanges += 1;
            if exchanges == 1 {
                std::fs::write(config.join("late"), "late").unwrap();
                drop(std::os::unix::net::UnixListener::bind(config.join("socket")).unwrap());
            }
            return if exchanges == 2 { Fault::Fails(Errno::IO) } else { Fault::None };
        }
        Fault::None
    })));
    restore(&store(&root, disk)).unwrap_err();
    root.run("state read").expect(0).saying("was edited while it was being replaced");
    assert!(Whole::of(&root) == new);
    let kept = root
        .names(".")
        .into_iter()
        .find(|name| name.starts_with("config.before-restore-"))
        .unwrap();
    assert_eq!(std::fs::read_to_string(root.file(kept).join("late")).unwrap(), "late");
    root.ok("state set y:=1");
    assert_tidy(&root, "kept");
}

/// A disk on which neither `config/` nor `.signals/` can be renamed, and the `nth` change after the
/// intent fails.
fn merged(nth: usize) -> Disk {
    let (mut decided, mut changes) = (false, 0);
    Disk::new(Rc::new(Observed::new(move |call| {
        let is_tree =
            |path: &std::path::Path| path.ends_with("config") || path.ends_with(".signals");
        let renames_tree = call.from.as_deref().is_some_and(is_tree) || call.name == "exchange";
        if renames_tree && ["rename", "exchange"].contains(&call.name) {
            return Fault::Fails(Errno::XDEV);
        }
        changes += usize::from(decided && call.changes());
        decided |= call.name == "rename" && call.path.ends_with("intent.json");
        if nth > 0 && changes == nth { Fault::Fails(Errno::IO) } else { Fault::None }
    })))
}

#[test]
fn a_failed_restore_file_by_file_is_finished_or_aborted() {
    let start = with_small_checkpoint();
    let (old, new) = (Whole::of(&start), restored(&start));
    let root = twin(&start);
    restore(&store(&root, merged(0))).unwrap();
    assert!(Whole::of(&root) == new, "file by file it is the same");
    assert_tidy(&root, "file by file");
    for nth in 1.. {
        let root = twin(&start);
        let Err(error) = restore(&store(&root, merged(nth))) else {
            println!("{nth} changes failed");
            break;
        };
        let place = format!("change {nth}: {error}");
        let aborted = twin(&root);
        let real = store(&root, merged(0));
        let read = real.read().unwrap_or_else(|error| panic!("a bad read: {error}: {place}"));
        assert!(Whole::with(&root, &read.bytes) == new, "{place}");
        next_writer(&root, &place);
        let found = store(&aborted, merged(0)).restores().abort().unwrap();
        let wanted = if matches!(found, Aborted::Nothing) { &new } else { &old };
        let whole = Whole::of(&aborted);
        assert_eq!(whole.state, wanted.state, "{place}");
        let print = |tree: &Option<pipeline_state::tree::Listing>| {
            tree.as_ref().map(|tree| tree.fingerprint())
        };
        assert_eq!(print(&whole.config), print(&wanted.config), "{place}: {found:?}");
        assert_eq!(print(&whole.signals), print(&wanted.signals), "{place}: {found:?}");
        next_writer(&aborted, &place);
    }
}

#[test]
fn edits_during_a_restore_file_by_file_are_kept() {
    let start = with_small_checkpoint();
    let new = restored(&start);
    let root = twin(&start);
    let config = root.file("config");
    let disk = Disk::new(Rc::new(Observed::new(move |call| {
        let is_tree =
            |path: &std::path::Path| path.ends_with("config") || path.ends_with(".signals");
        if call.name == "rename" && call.path.ends_with("intent.json") {
            std::fs::write(config.join("rules.json"), "edited").unwrap();
        }
        match call.name {
            "rename" if call.from.as_deref().is_some_and(is_tree) => Fault::Fails(Errno::XDEV),
            _ => Fault::None,
        }
    })));
    let restoring = store(&root, disk);
    restore(&restoring).unwrap();
    assert!(
        restoring
            .take_warnings()
            .iter()
            .any(|warning| warning.contains("was edited while it was being replaced"))
    );
    assert!(Whole::of(&root) == new);
    let kept = root
        .names(".")
        .into_iter()
        .find(|name| name.starts_with("config.before-restore-"))
        .unwrap();
    assert_eq!(std::fs::read_to_string(root.file(kept).join("rules.json")).unwrap(), "edited");
    assert_tidy(&root, "kept");
}

#[test]
fn a_checkpoint_whose_calls_fail_is_complete_or_absent() {
    let start = with_small_checkpoint();
    let old = Whole::of(&start);
    let make = |store: &FileStore| {
        let operation = Name::parse("operation", "again")?;
        store
            .checkpoints()
            .create(&Snapshot { operation, phase: None, metadata: json!({}) })
            .map(|_| ())
    };
    failing_at_every_call(&start, make, |root, fault, result, place| {
        assert_right_code(fault, result, place);
        let made = root.names(".checkpoints").iter().any(|id| id.ends_with("-again"));
        assert!(made || result.is_err(), "{place}");
        let unknown = result.as_ref().is_err_and(|error| error.kind == Kind::DurabilityUnknown);
        assert!(
            !made || result.is_ok() || unknown || fault.manner == Manner::HappensAndFails,
            "{place}"
        );
        let real = store(root, Disk::real());
        real.checkpoints()
            .ids()
            .unwrap()
            .iter()
            .for_each(|id| real.checkpoints().verify(id).unwrap());
        next_writer(root, place);
        assert!(Whole::of(root) == old, "{place}");
    });
}

#[test]
fn a_failed_init_fresh_keeps_the_state_or_begins() {
    let start = with_small_checkpoint();
    start.ok("state signal GO");
    let begin =
        |store: &FileStore| store.init(InitMode::Fresh, &WriteOptions::of("init")).map(|_| ());
    failing_at_every_call(&start, begin, |root, fault, result, place| {
        assert_right_code(fault, result, place);
        let real = store(root, Disk::real());
        let read = real.read().unwrap_or_else(|error| panic!("a bad read: {error}: {place}"));
        let has_begun = read.value.get("n").is_none();
        assert!(has_begun || result.is_err(), "acknowledged and not done: {place}");
        assert!(has_begun || root.file(".signals/GO.json").exists(), "a signal is gone: {place}");
        next_writer(root, place);
        let live = root.document();
        let has_begun = live.get("n").is_none();
        let archives = root.shelf("archive-");
        assert_eq!(archives.len(), usize::from(has_begun), "{archives:?}: {place}");
        if has_begun {
            assert!(root.names(&format!(".state-backups/{}", archives[0])).len() > 4, "{place}");
            assert!(!root.file(".signals/GO.json").exists(), "{place}");
        }
        root.overwrite("");
        let healed =
            real.read().unwrap_or_else(|error| panic!("it has no copies: {error}: {place}"));
        assert_eq!(healed.value.get("n"), live.get("n"), "{place}");
    });
}
