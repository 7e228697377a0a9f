//! The races of §4 and §5, each forced.

use std::cell::Cell;
use std::fs;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::observed::{Call, Fault, Observed};
use pipeline_state::audit::Audit;
use pipeline_state::fs::Disk;
use pipeline_state::store::change::Outcome;
use pipeline_state::store::layout::STATE_FILE;
use pipeline_state::store::options::WriteOptions;
use pipeline_state::store::{AutoRecover, FileStore, ForeignEdits, Settings};
use rustix::io::Errno;
use serde_json::Value;

use crate::sandbox::{Ran, Sandbox};

/// A store in this root, on a disk that reports its calls.
pub fn store_on(sandbox: &Sandbox, disk: Disk) -> FileStore {
    let audit = Audit::new(disk.clone(), sandbox.file("audit.log"), sandbox.path());
    FileStore::new(disk, settings_in(sandbox.path()), audit)
}

/// The settings of a root with the defaults of most options.
pub fn settings_in(root: &Path) -> Settings {
    Settings {
        directory: root.to_owned(),
        file_name: STATE_FILE.into(),
        root: root.to_owned(),
        lock_timeout: Duration::from_secs(30),
        max_backups: 5,
        backup_days: 7,
        max_checkpoints: 20,
        checkpoint_days: 7,
        auto_recover: AutoRecover::Yes,
        foreign_edits: ForeignEdits::Refuse,
        lock_env: Default::default(),
    }
}

/// A disk that runs `interfere` once, just before the first call of this name.
fn interrupted(name: &'static str, interfere: impl Fn() + 'static) -> Disk {
    let done = Cell::new(false);
    Disk::new(Rc::new(Observed::new(move |call: &Call| {
        if call.name == name && !done.replace(true) {
            interfere();
        }
        Fault::None
    })))
}

pub fn increment(store: &FileStore) -> pipeline_state::error::Result<Outcome> {
    store.change(&WriteOptions::of("update"), &mut |base| {
        let mut value = base.draft();
        let n = value["n"].as_u64().unwrap_or(0);
        value["n"] = (n + 1).into();
        Ok(value.into())
    })
}

#[test]
fn a_writer_with_a_removed_lock_starts_over_and_loses_no_update() {
    for when in ["create", "link", "fstat"] {
        let sandbox = Rc::new(Sandbox::with_history());
        let other = sandbox.clone();
        let disk = interrupted(when, move || {
            fs::remove_dir_all(other.file(".locks")).unwrap();
            other.ok("state update .n+=10");
        });
        assert!(
            matches!(increment(&store_on(&sandbox, disk)), Ok(Outcome::Committed { .. })),
            "{when}"
        );
        assert_eq!(sandbox.document()["n"], 14, "{when}");
        assert_eq!(sandbox.revision(), 6, "{when}");
        assert!(sandbox.debris().is_empty(), "{when}");
    }
}

#[test]
fn on_a_full_disk_a_reader_serves_the_copy_and_removes_nothing() {
    let sandbox = Sandbox::with_history();
    sandbox.overwrite("garbage");
    let before = sandbox.snapshot();
    let disk = Disk::new(Rc::new(Observed::new(|call: &Call| {
        if call.name == "create" { Fault::Fails(Errno::NOSPC) } else { Fault::None }
    })));
    let store = store_on(&sandbox, disk);
    assert_eq!(store.read().unwrap().value["n"], 3);
    assert!(store.take_warnings().iter().any(|warning| warning.contains("mirror.json is served")));
    assert_eq!(sandbox.snapshot(), before);
}

#[test]
fn a_change_is_not_acknowledged_in_a_root_that_was_moved_away() {
    for instead in ["another root", "a link to one"] {
        let outer = Rc::new(Sandbox::empty());
        fs::create_dir(outer.file("root")).unwrap();
        outer.ok("--root root state init");
        let root = Rc::new(outer.file("root"));
        let (moved, aside, within) = (root.clone(), outer.file("aside"), outer.clone());
        let disk = interrupted("link", move || {
            fs::rename(&*moved, &aside).unwrap();
            match instead {
                "another root" => fs::create_dir(&*moved).unwrap(),
                _ => {
                    fs::create_dir(within.file("target")).unwrap();
                    std::os::unix::fs::symlink("target", &*moved).unwrap();
                }
            }
            within.ok("--root root state init");
        });
        let settings = Settings { directory: root.to_path_buf(), ..settings_in(outer.path()) };
        let audit = Audit::new(disk.clone(), outer.file("audit.log"), &root);
        increment(&FileStore::new(disk, settings, audit)).unwrap();
        assert_eq!(outer.ok("--root root state get .n"), "1", "{instead}");
        assert_eq!(outer.run("--root aside state get .n").code, 1, "{instead}: nothing went there");
    }
}

#[test]
fn a_writer_never_commits_under_a_removed_lock() {
    let sandbox = Rc::new(Sandbox::with_history());
    let other = sandbox.clone();
    let disk = interrupted("link", move || fs::remove_dir_all(other.file(".locks")).unwrap());
    increment(&store_on(&sandbox, disk)).unwrap();
    assert!(sandbox.file(".locks/state.lock").exists(), "it took the lock again");
    assert_eq!((sandbox.document()["n"].clone(), sandbox.revision()), (4.into(), 5));
}

#[test]
fn an_unreadable_copy_stops_healing_from_an_older_one() {
    for (errno, code) in [(Errno::IO, 1), (Errno::ACCESS, 6), (Errno::MFILE, 10)] {
        let sandbox = Sandbox::with_history();
        sandbox.overwrite("garbage");
        let before = sandbox.snapshot();
        let disk = Disk::new(Rc::new(Observed::new(move |call: &Call| {
            if call.name == "open" && call.path.ends_with("mirror.json") {
                Fault::Fails(errno)
            } else {
                Fault::None
            }
        })));
        let store = store_on(&sandbox, disk);
        assert_eq!(store.read().unwrap_err().code() as u8, code);
        assert_eq!(increment(&store).unwrap_err().code() as u8, code);
        assert_eq!(sandbox.snapshot(), before);
        assert_eq!(sandbox.run("state read").expect(0).json()["n"], 3);
    }
}

#[test]
fn a_file_edited_in_place_under_a_writer_is_not_overwritten() {
    let sandbox = Rc::new(Sandbox::with_history());
    let path = sandbox.state();
    let disk = interrupted("link", move || {
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace("pre-init", "by-hand")).unwrap();
    });
    let error = increment(&store_on(&sandbox, disk)).unwrap_err();
    assert_eq!(error.code() as u8, 3);
    assert_eq!(sandbox.document()["phase"], "by-hand");
    assert!(sandbox.debris().is_empty());
}

#[test]
fn a_second_writer_waits_for_the_first_and_both_count() {
    let sandbox = Rc::new(Sandbox::with_history());
    let (other, child) = (sandbox.clone(), Rc::new(Cell::new(None)));
    let started = child.clone();
    let disk = interrupted("rename", move || {
        let child = other.spawn("state update .n+=10");
        wait_until_asleep(child.id());
        started.set(Some(child));
    });
    increment(&store_on(&sandbox, disk)).unwrap();
    Ran::of(child.take().unwrap().wait_with_output().unwrap()).expect(0);
    assert_eq!(sandbox.document()["n"], 14);
}

/// Returns when a process sleeps in a system call: it depends on other processes now.
fn wait_until_asleep(pid: u32) {
    loop {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let state = stat.rsplit(") ").next().unwrap().chars().next().unwrap();
        let call = fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
        // numbers of other architectures are not needed: the test runs where CI does
        let waits = ["7 ", "271 ", "73 ", "202 "].iter().any(|number| call.starts_with(number));
        if state == 'Z' || (state == 'S' && waits) {
            return;
        }
        std::thread::yield_now();
    }
}

#[test]
fn an_editor_that_truncates_and_then_writes_is_waited_for_by_every_reader() {
    let sandbox = Sandbox::with_history();
    let content = fs::read(sandbox.state()).unwrap();
    // on a machine too slow to start eight readers within a second, an attempt proves nothing
    for attempt in 0.. {
        let truncated = Instant::now();
        fs::write(sandbox.state(), "").unwrap();
        let readers: Vec<_> = (0..8).map(|_| sandbox.spawn("state read")).collect();
        readers.iter().for_each(|reader| wait_until_asleep(reader.id()));
        let in_time = truncated.elapsed() < Duration::from_millis(900);
        fs::write(sandbox.state(), &content).unwrap();
        let answers = readers.into_iter().map(|reader| Ran::of(reader.wait_with_output().unwrap()));
        let answers: Vec<Value> = answers.map(|ran| ran.expect(0).json()).collect();
        assert!(answers.iter().all(|answer| answer["n"] == 3));
        if in_time {
            assert_eq!(fs::read(sandbox.state()).unwrap(), content, "it was not healed");
            assert!(sandbox.shelf("corrupt-").is_empty());
            return;
        }
        assert!(attempt < 20, "this machine never starts eight processes within a second");
        sandbox.run("state recover");
        fs::write(sandbox.state(), &content).unwrap();
        fs::write(sandbox.mirror(), &content).unwrap();
    }
}

#[test]
fn eight_readers_that_meet_damage_heal_it_once() {
    let sandbox = Sandbox::with_history();
    sandbox.overwrite("garbage");
    let readers: Vec<_> = (0..8).map(|_| sandbox.spawn("state read")).collect();
    for reader in readers {
        assert_eq!(Ran::of(reader.wait_with_output().unwrap()).expect(0).json()["n"], 3);
    }
    assert_eq!(sandbox.revision(), 5);
    assert_eq!(sandbox.shelf("corrupt-").len(), 1);
}

#[test]
fn a_repeated_revision_number_is_distinguished_by_its_digest() {
    let sandbox = Sandbox::with_history();
    let copy = sandbox.ok("state read");
    // both would remember a revision 4
    fs::remove_file(sandbox.file("audit.log")).unwrap();
    fs::remove_file(sandbox.file(".state-backups/journal.jsonl")).unwrap();
    sandbox.overwrite("");
    fs::write(sandbox.mirror(), "").unwrap();
    sandbox.ok("state read");
    assert_eq!(
        (sandbox.revision(), sandbox.document()["n"].clone()),
        (4, 2.into()),
        "revision 4 was made again"
    );
    sandbox.feed("state write -", copy.as_bytes()).expect(75).saying("but with digest");
    assert_eq!(sandbox.document()["n"], 2);
}

#[test]
fn a_second_state_file_in_one_directory_is_refused() {
    let sandbox = Sandbox::with_history();
    let second = |words: &str| {
        let mut command = sandbox.command();
        Ran::of(command.env("STATE_FILE", "second.json").args(words.split(' ')).output().unwrap())
    };
    let before = sandbox.snapshot();
    for words in [
        "state init",
        "state init --fresh",
        "state read",
        "state set a=b",
        "state recover",
        "state status",
    ] {
        second(words).expect(4).saying(".workflow-state.json").saying("directory of its own");
    }
    fs::copy(sandbox.state(), sandbox.file("second.json")).unwrap();
    for words in ["state read", "state set a=b", "state validate"] {
        second(words).expect(4);
    }
    fs::remove_file(sandbox.file("second.json")).unwrap();
    assert_eq!(sandbox.snapshot(), before);
}

#[test]
fn a_dead_writers_files_are_cleared_by_the_next_one() {
    let sandbox = Sandbox::with_history();
    let inode = std::os::unix::fs::MetadataExt::ino(
        &fs::metadata(sandbox.file(".locks/state.lock")).unwrap(),
    );
    for name in [
        format!(".pipeline-state-{inode}-state.tmp"),
        format!(".state-backups/.pipeline-state-{inode}-mirror.tmp"),
        ".state-backups/.pipeline-state-1-backup.tmp".to_owned(),
    ] {
        fs::write(sandbox.file(name), "half").unwrap();
    }
    let dead_link = sandbox.file(".state-backups/state-20990101-000000-r4-dead.json");
    fs::hard_link(sandbox.state(), &dead_link).unwrap();
    sandbox.ok("state set n:=9");
    assert!(sandbox.debris().is_empty());
    assert!(!dead_link.exists());
    // another lock's leftovers are removed when the lock is created again, and by `init`
    fs::write(sandbox.file(".pipeline-state-1-state.tmp"), "half").unwrap();
    fs::remove_dir_all(sandbox.file(".locks")).unwrap();
    sandbox.ok("state set n:=10");
    assert!(sandbox.debris().is_empty());
    fs::write(sandbox.file(".pipeline-state-1-state.tmp"), "half").unwrap();
    sandbox.ok("state init");
    assert!(sandbox.debris().is_empty());
}

#[test]
fn a_lagging_mirror_is_renewed_before_the_next_commit() {
    for (what, mirror) in [("absent", None), ("older", Some("older")), ("garbage", Some("garbage"))]
    {
        let sandbox = Sandbox::with_history();
        match mirror {
            None => fs::remove_file(sandbox.mirror()).unwrap(),
            Some("older") => {
                let old =
                    sandbox.shelf("state-").into_iter().find(|name| name.contains("-r3-")).unwrap();
                fs::copy(sandbox.file(".state-backups").join(old), sandbox.mirror())
                    .map(|_| ())
                    .unwrap();
            }
            Some(text) => fs::write(sandbox.mirror(), text).unwrap(),
        }
        sandbox.ok("state init");
        assert!(same(&sandbox.mirror(), &sandbox.state()), "{what}");
        sandbox.run("state validate").expect(0);
    }
    let sandbox = Sandbox::with_history();
    fs::remove_file(sandbox.mirror()).unwrap();
    fs::hard_link(sandbox.state(), sandbox.mirror()).unwrap();
    sandbox.ok("state init");
    fs::write(sandbox.state(), "destroyed in place").unwrap();
    crate::sandbox::make_old(&sandbox.state());
    assert_eq!(
        sandbox.run("state read").expect(0).json()["n"],
        3,
        "the mirror was an inode of its own"
    );
}

fn same(a: &Path, b: &Path) -> bool {
    fs::read(a).unwrap() == fs::read(b).unwrap()
}

#[test]
fn a_seal_between_two_reads_is_no_foreign_edit() {
    let sandbox = Rc::new(Sandbox::holding(
        r#"{"phase":"old","completedTasks":[],"signals":{},"lastActivation":""}"#,
    ));
    sandbox.ok("lock list"); // directories of locks may exist; there is no history yet
    let other = sandbox.clone();
    // the live file was read, and its neighbours are read next
    let disk = interrupted("open_root", move || drop(other.ok("state init")));
    let served = store_on(&sandbox, disk).read().unwrap();
    assert_eq!(served.value["metadata"]["revision"], 1);
}
