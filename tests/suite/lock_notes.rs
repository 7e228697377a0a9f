//! The holder of an flock, where the kernel does not name it: by the note in the lock file.

use std::cell::Cell;
use std::fs::{self, File};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use crate::observed::{Fault, Observed};
use pipeline_state::audit::Audit;
use pipeline_state::fs::Disk;
use pipeline_state::store::{FileStore, Settings};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::faults::store;
use crate::permitted::is_permitted;
use crate::races::increment;
use crate::sandbox::{BINARY, Ran, Sandbox};

const STATE_LOCK: &str = ".locks/state.lock";

fn first_line(path: &Path) -> String {
    fs::read_to_string(path).unwrap().lines().next().unwrap_or_default().to_owned()
}

/// The state's flock, held by this process, with this note.
fn held(root: &Sandbox, note: &str) -> File {
    let file = File::open(root.file(STATE_LOCK)).unwrap();
    flock(&file, FlockOperation::LockExclusive).unwrap();
    fs::write(root.file(STATE_LOCK), note).unwrap();
    file
}

/// Runs a script of bash, `$B` is the program, in namespaces of its own; `None` where that is not
/// permitted.
fn apart(root: &Sandbox, flags: &[&str], script: &str) -> Option<Ran> {
    if !is_permitted("unshare", &[flags, &["mount", "--bind", "/dev/null", "/proc/locks"]].concat())
    {
        return None;
    }
    let mut command = root.program("unshare");
    command.args(flags).args(["bash", "-euc", script]).env("B", BINARY);
    Some(Ran::of(command.output().unwrap()))
}

/// A store on this disk that waits for nothing.
fn impatient(root: &Sandbox, disk: Disk) -> FileStore {
    let settings =
        Settings { lock_timeout: Duration::ZERO, ..store(root, Disk::real()).settings().clone() };
    FileStore::new(disk, settings, Audit::new(Disk::real(), root.file("audit.log"), root.path()))
}

#[test]
fn each_holder_writes_its_pid_over_the_note_of_the_last() {
    let root = Sandbox::initialized();
    for (words, file) in [("state set a=b", STATE_LOCK), ("lock clean", ".locks/.gate")] {
        fs::write(root.file(file), "4000000000\n").unwrap();
        let child = root.spawn(words);
        let pid = child.id().to_string();
        Ran::of(child.wait_with_output().unwrap()).expect(0);
        assert_eq!(first_line(&root.file(file)), pid, "{words}");
    }
}

#[test]
fn a_note_that_cannot_be_written_is_no_failure() {
    let root = Sandbox::initialized();
    let was_locked = Rc::new(Cell::new(false));
    let disk = Disk::new(Rc::new(Observed::new(move |call| match call.name {
        "write" if was_locked.take() => Fault::Fails(Errno::NOSPC),
        "lock" => {
            was_locked.set(true);
            Fault::None
        }
        _ => Fault::None,
    })));
    let note = first_line(&root.file(STATE_LOCK));
    increment(&store(&root, disk)).unwrap();
    assert_eq!(
        (root.document()["n"].as_u64(), first_line(&root.file(STATE_LOCK))),
        (Some(1), note)
    );
}

#[test]
fn where_the_kernel_lists_no_holder_the_note_of_one_that_has_the_file_open_names_it() {
    let root = Sandbox::initialized();
    let me = std::process::id();
    let commit = "mount --bind /dev/null /proc/locks; $B --lock-timeout 0 state set a=b";
    let status = "mount --bind /dev/null /proc/locks; $B state status --json | jq -c .state_lock";
    let lock = held(&root, &format!("{me}\n4000000000\n"));
    let Some(ran) = apart(&root, &["-m"], commit) else { return };
    ran.expect(2)
        .saying(&format!("; held; last taken by process {me} ("))
        .saying(&format!("hint: ps -fp {me}"));
    let ran = apart(&root, &["-m"], status).unwrap().expect(0);
    assert_eq!(
        (&ran.json()["owner"]["pid"], &ran.json()["known_by"]),
        (&me.into(), &"lock_file".into())
    );
    // One that lives and has not locked it, one that has ended, none, and no number.
    for note in [
        std::os::unix::process::parent_id().to_string(),
        "4000000".into(),
        String::new(),
        "x".into(),
    ] {
        fs::write(root.file(STATE_LOCK), &note).unwrap();
        let ran = apart(&root, &["-m"], commit).unwrap().expect(2);
        let ran = ran.saying("; held by a process that cannot be named from here");
        assert!(ran.stderr.contains("hint: pipeline-state state status"), "{note}: {}", ran.stderr);
        let ran = apart(&root, &["-m"], status).unwrap().expect(0);
        assert_eq!(
            (&ran.json()["owner"]["pid"], &ran.json()["known_by"]),
            (&().into(), &"nothing".into()),
            "{note}"
        );
    }
    drop(lock);
    assert_eq!(
        apart(&root, &["-m"], status).unwrap().expect(0).stdout,
        "null\n",
        "the test leaves it free"
    );
}

#[test]
fn in_another_pid_namespace_no_process_of_the_same_number_is_named() {
    let root = Sandbox::initialized();
    let _lock = held(&root, "1\n"); // in a namespace of its own that is its first process
    let flags = ["-fp", "--mount-proc"];
    let Some(ran) =
        apart(&root, &flags, "$B --lock-timeout 0 state set a=b || [ $? = 2 ]; $B state status")
    else {
        return;
    };
    assert_eq!(ran.code, 0, "{ran:?}");
    ran.saying("held by a process that cannot be named")
        .showing("held by a process that cannot be named");
}

#[test]
fn a_test_of_the_lock_by_another_command_fails_no_command_that_does_not_wait() {
    let root = Sandbox::initialized();
    let lock = File::open(root.file(STATE_LOCK)).unwrap();
    let mut tries = 0;
    let disk = Disk::new(Rc::new(Observed::new(move |call| {
        if call.name == "lock" {
            tries += 1;
            let now = if tries == 1 { FlockOperation::LockShared } else { FlockOperation::Unlock };
            flock(&lock, now).unwrap();
        }
        Fault::None
    })));
    increment(&impatient(&root, disk)).unwrap();
    assert_eq!(root.document()["n"], 1);
    let _held = held(&root, "");
    let error = increment(&impatient(&root, Disk::real())).unwrap_err();
    assert_eq!(error.code() as u8, 2, "{error}");
}
