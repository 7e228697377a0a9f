//! P1: the order of calls that an acknowledgement depends on.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::observed::{Call, Fault, Observed};
use pipeline_state::audit::Audit;
use pipeline_state::fs::Disk;
use pipeline_state::name::Name;
use pipeline_state::store::checkpoint::Snapshot;
use pipeline_state::store::checkpoint::catalog::Which;
use pipeline_state::store::options::WriteOptions;
use pipeline_state::store::{FileStore, Settings};
use rustix::io::Errno;
use serde_json::json;

use crate::races::{increment, settings_in, store_on};
use crate::sandbox::Sandbox;

/// The changing calls of one commit, with the names of their files.
fn calls_of_a_commit(sandbox: &Sandbox) -> Vec<String> {
    let calls: Rc<RefCell<Vec<String>>> = Rc::default();
    let seen = calls.clone();
    let disk = Disk::new(Rc::new(Observed::new(move |call: &Call| {
        if call.changes() {
            let name = call
                .path
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default();
            let what = ["-state.tmp", "-mirror.tmp"]
                .into_iter()
                .find(|end| name.ends_with(end))
                .unwrap_or(&name);
            seen.borrow_mut().push(format!("{} {what}", call.name).trim().to_owned());
        }
        Fault::None
    })));
    increment(&store_on(sandbox, disk)).unwrap();
    calls.take()
}

#[test]
fn sync_precedes_rename_and_a_durable_rename_acknowledgement() {
    let sandbox = Sandbox::with_history();
    let directory = sandbox.path().file_name().unwrap().to_string_lossy().into_owned();
    let calls = calls_of_a_commit(&sandbox);
    let backup = calls.iter().find(|call| call.starts_with("link state-")).unwrap().clone();
    assert_eq!(
        calls,
        [
            "write", // the pid in the lock file
            "create -state.tmp",
            "write",
            "sync",
            "create -mirror.tmp",
            "write",
            &backup,
            "rename .workflow-state.json",
            &format!("sync_dir {directory}"),
            "exchange mirror.json", // ext4 would write it out at once for a rename
            "unlink -mirror.tmp",
            "write", // the journal's line
            "write", // the audit line
        ]
    );
}

#[test]
fn a_sync_that_fails_is_never_repeated_and_never_acknowledged() {
    for (which, kind) in [(1, "io"), (2, "durability_unknown")] {
        let sandbox = Sandbox::with_history();
        let (syncs, failed) = (Rc::new(RefCell::new(0)), which);
        let counted = syncs.clone();
        let disk = Disk::new(Rc::new(Observed::new(move |call: &Call| {
            if call.name == "sync" || call.name == "sync_dir" {
                *counted.borrow_mut() += 1;
                if *counted.borrow() == failed {
                    return Fault::Fails(Errno::IO);
                }
            }
            Fault::None
        })));
        let error = increment(&store_on(&sandbox, disk)).unwrap_err();
        assert_eq!((error.kind.name(), error.code() as u8), (kind, 1));
        assert_eq!(*syncs.borrow(), which, "nothing was synced after the failure");
        assert_eq!(sandbox.document()["n"], if which == 1 { 3 } else { 4 });
        sandbox.ok("state set later=yes");
        assert!(sandbox.debris().is_empty());
    }
}

#[test]
fn the_live_files_name_is_synced_before_a_new_mirror() {
    let sandbox = Sandbox::with_history();
    std::fs::remove_file(sandbox.mirror()).unwrap();
    let directory = sandbox.path().file_name().unwrap().to_string_lossy().into_owned();
    let calls = calls_of_a_commit(&sandbox);
    let place = |what: &str| {
        calls.iter().position(|call| call == what).unwrap_or_else(|| panic!("{what}: {calls:?}"))
    };
    assert!(place("sync") < place(&format!("sync_dir {directory}")));
    assert!(place(&format!("sync_dir {directory}")) < place("rename mirror.json"), "{calls:?}");
    assert!(place("rename mirror.json") < place("rename .workflow-state.json"), "{calls:?}");
}

/// Unsynced files, and directories with unsynced names.
#[derive(Default)]
struct Unsynced {
    files: BTreeSet<PathBuf>,
    directories: BTreeSet<PathBuf>,
    last: PathBuf,
}

impl Unsynced {
    fn note(&mut self, call: &Call) {
        let parent = |path: &Path| path.parent().unwrap().to_owned();
        match call.name {
            "create" => {
                self.files.insert(call.path.clone());
                self.last = call.path.clone();
            }
            "sync" => drop(self.files.remove(&self.last)),
            "sync_dir" => drop(self.directories.remove(&call.path)),
            // a removed file need not be on the disk
            "unlink" | "remove_dir" => {
                self.files.retain(|path| !path.starts_with(&call.path));
                self.directories.retain(|path| !path.starts_with(&call.path));
            }
            _ => {}
        }
        // lock records need not outlive a power cut: their owners do not
        self.files.retain(|file| !parent(file).ends_with(".locks"));
        if ["create", "make_dir", "symlink", "rename", "exchange", "unlink", "remove_dir", "link"]
            .contains(&call.name)
        {
            self.directories.insert(parent(&call.path));
        }
    }

    /// True if anything of this tree is not durable.
    fn has(&self, tree: &Path) -> bool {
        self.files.iter().chain(&self.directories).any(|path| path.starts_with(tree))
    }
}

/// A disk that checks the order of syncs of a restore, and records the steps.
fn checked(root: &Sandbox) -> (Disk, Rc<RefCell<Vec<&'static str>>>) {
    let at = |name: &str| root.file(name);
    let (staging, top, shelf) =
        (at(".checkpoints/.in-progress"), root.path().to_owned(), at(".checkpoints"));
    let steps: Rc<RefCell<Vec<&str>>> = Rc::default();
    let (seen, mut unsynced) = (steps.clone(), Unsynced::default());
    let disk = Disk::new(Rc::new(Observed::new(move |call: &Call| {
        let is_staged = |path: &Path| path.to_string_lossy().contains(".pipeline-state-restore-");
        // parents of exchanged trees: the root, and another directory that holds `config/`
        let named_durably = || {
            !unsynced.directories.contains(&top)
                && !unsynced.directories.contains(&top.join("project"))
        };
        let is_done = seen.borrow().contains(&"done");
        let step = match call.name {
            "rename" if call.path.parent() == Some(&shelf) => {
                assert!(
                    !unsynced.has(call.from.as_ref().unwrap()),
                    "a checkpoint is named before it is on the disk"
                );
                "checkpoint"
            }
            "rename" if call.path.ends_with("intent.json") => {
                let waits =
                    unsynced.files.iter().chain(&unsynced.directories).any(|path| is_staged(path));
                assert!(!waits && named_durably(), "decided before what is staged is on the disk");
                assert!(unsynced.files.is_empty(), "{:?}", unsynced.files);
                "intent"
            }
            "exchange" if !call.path.ends_with("mirror.json") => {
                assert!(
                    !unsynced.directories.contains(&staging),
                    "swapped before the intent is on the disk"
                );
                "swap"
            }
            "rename" if call.path.ends_with(".workflow-state.json") => "state",
            "unlink" if call.path.ends_with("intent.json") => {
                assert!(named_durably(), "the intent goes before what it speaks of is on the disk");
                "done"
            }
            "unlink" | "remove_dir" if is_staged(&call.path) && is_done => {
                assert!(
                    !unsynced.directories.contains(&staging),
                    "the old goes before the intent is gone for good"
                );
                "cleared"
            }
            _ => "",
        };
        if !step.is_empty() && seen.borrow().last() != Some(&step) {
            seen.borrow_mut().push(step);
        }
        unsynced.note(call);
        Fault::None
    })));
    (disk, steps)
}

const GOOD: Which = Which::Latest(None);

#[test]
fn a_restore_syncs_all_before_its_intent_and_any_exchange() {
    let root = crate::snapshots::with_small_checkpoint();
    let (disk, steps) = checked(&root);
    store_on(&root, disk).restores().restore(&GOOD, &WriteOptions::of("restore")).unwrap();
    assert_eq!(*steps.borrow(), ["checkpoint", "intent", "swap", "state", "done", "cleared"]);
}

#[test]
fn it_is_so_where_the_configuration_lies_elsewhere() {
    let root = Sandbox::with_history();
    std::fs::create_dir_all(root.file("project/config")).unwrap();
    let settings = Settings { root: root.file("project"), ..settings_in(root.path()) };
    let audit = || Audit::new(Disk::real(), root.file("audit.log"), root.path());
    let operation = Name::parse("operation", "good").unwrap();
    let snapshot = Snapshot { operation, phase: None, metadata: json!({}) };
    FileStore::new(Disk::real(), settings.clone(), audit())
        .checkpoints()
        .create(&snapshot)
        .unwrap();
    let (disk, steps) = checked(&root);
    FileStore::new(disk, settings, audit())
        .restores()
        .restore(&GOOD, &WriteOptions::of("restore"))
        .unwrap();
    assert_eq!(*steps.borrow(), ["checkpoint", "intent", "swap", "state", "done", "cleared"]);
}

#[test]
fn an_undo_is_as_durable_as_the_restore() {
    let root = crate::snapshots::with_small_checkpoint();
    let mut exchanges = 0;
    let dying = Disk::new(Rc::new(Observed::new(move |call: &Call| {
        exchanges += usize::from(call.name == "exchange");
        if call.name == "exchange" && exchanges > 1 { Fault::Fails(Errno::IO) } else { Fault::None }
    })));
    store_on(&root, dying).restores().restore(&GOOD, &WriteOptions::of("restore")).unwrap_err();
    std::fs::remove_dir_all(root.file(".pipeline-state-restore-1-signals")).unwrap();
    let (disk, steps) = checked(&root);
    assert_eq!(store_on(&root, disk).read().unwrap().value["n"], 7);
    assert_eq!(*steps.borrow(), ["intent", "swap", "state", "done", "cleared"]);
}
