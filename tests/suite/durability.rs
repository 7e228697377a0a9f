//! P1: the order of calls that an acknowledgement rests on.

use std::cell::RefCell;
use std::rc::Rc;

use pipeline_state::fs::Disk;
use pipeline_state::fs::observed::{Call, Fate, Observed};
use rustix::io::Errno;

use crate::races::{increment, store_on};
use crate::sandbox::Sandbox;

/// The changing calls of one commit, with the names of the files they are about.
fn calls_of_a_commit(sandbox: &Sandbox) -> Vec<String> {
    let calls: Rc<RefCell<Vec<String>>> = Rc::default();
    let seen = calls.clone();
    let disk = Disk::new(Rc::new(Observed::new(move |call: &Call| {
        if call.changes() {
            let name = call.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let what = ["-state.tmp", "-mirror.tmp"].into_iter().find(|end| name.ends_with(end)).unwrap_or(&name);
            seen.borrow_mut().push(format!("{} {what}", call.name).trim().to_owned());
        }
        Fate::Proceeds
    })));
    increment(&store_on(sandbox, disk)).unwrap();
    calls.take()
}

#[test]
fn acknowledged_means_synced_before_it_was_named_and_named_durably_before_it_was_acknowledged() {
    let sandbox = Sandbox::with_history();
    let directory = sandbox.path().file_name().unwrap().to_string_lossy().into_owned();
    let calls = calls_of_a_commit(&sandbox);
    let backup = calls.iter().find(|call| call.starts_with("link state-")).unwrap().clone();
    assert_eq!(
        calls,
        [
            "create -state.tmp",
            "write",
            "sync",
            "create -mirror.tmp",
            "write",
            &backup,
            "rename .workflow-state.json",
            &format!("sync_dir {directory}"),
            "rename mirror.json",
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
                    return Fate::Fails(Errno::IO);
                }
            }
            Fate::Proceeds
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
fn before_a_mirror_is_made_anew_the_live_files_own_name_is_synced() {
    let sandbox = Sandbox::with_history();
    std::fs::remove_file(sandbox.mirror()).unwrap();
    let directory = sandbox.path().file_name().unwrap().to_string_lossy().into_owned();
    let calls = calls_of_a_commit(&sandbox);
    let place = |what: &str| calls.iter().position(|call| call == what).unwrap_or_else(|| panic!("{what}: {calls:?}"));
    assert!(place("sync") < place(&format!("sync_dir {directory}")));
    assert!(place(&format!("sync_dir {directory}")) < place("rename mirror.json"), "{calls:?}");
    assert!(place("rename mirror.json") < place("rename .workflow-state.json"), "{calls:?}");
}
