//! What a guard decides is carried out under the lock under which it is decided.

use std::cell::Cell;
use std::fs;
use std::path::Path;
use std::rc::Rc;

use pipeline_state::fs::Disk;
use pipeline_state::name::Name;
use pipeline_state::store::checkpoint::Snapshot;
use pipeline_state::store::guard::Settlement;
use pipeline_state::store::options::WriteOptions;
use serde_json::json;

use crate::faults::store;
use crate::guard::*;
use crate::observed::{Call, Fault, Observed};
use crate::sandbox::Sandbox;

/// True if another process could take the state lock now.
fn is_state_free(root: &Path) -> bool {
    let lock = fs::File::open(root.join(".locks/state.lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_ok()
}

#[test]
fn the_verdict_and_its_rollback_share_one_lock() {
    for others in [false, true] {
        let root = Sandbox::with_history();
        let real = store(&root, Disk::real());
        let snapshot = Snapshot {
            operation: Name::parse("operation", "g").unwrap(),
            phase: None,
            metadata: json!({}),
        };
        let begun = real.guards().begin(&snapshot).unwrap();
        for (field, value) in [("n", 99), ("theirs", 1)] {
            let set = |document: &mut serde_json::Value| document[field] = value.into();
            // a recovery is never the guard's change
            let command = if others && field == "theirs" { "recover" } else { "set" };
            let change = real.change(&WriteOptions::of(command), &mut |base| {
                let mut document = base.draft();
                set(&mut document);
                Ok(document.into())
            });
            change.unwrap();
        }
        let (is_settled, released) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(false)));
        let (judged, seen, free) = (Cell::new(false), is_settled.clone(), released.clone());
        let at = root.path().to_owned();
        let disk = Disk::new(Rc::new(Observed::new(move |call: &Call| {
            if call.path.ends_with("journal.jsonl") && !seen.get() {
                judged.set(true);
            }
            if judged.get() && call.changes() && is_state_free(&at) {
                free.set(true);
            }
            // now the guard is no longer on record, and the locks are released
            let name = call
                .path
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default();
            if call.name == "unlink" && name.starts_with("guard-") {
                judged.set(false);
                seen.set(true);
            }
            Fault::None
        })));
        let settled = store(&root, disk)
            .guards()
            .settle_failed(&begun.record, &WriteOptions::of("restore"))
            .unwrap();
        let is_put_back = matches!(settled, Settlement::PutBack { .. });
        assert_eq!(
            (is_put_back, is_settled.get(), released.get()),
            (others, true, false),
            "{settled:?}"
        );
        assert_eq!(root.document()["n"], 3);
        assert_eq!(root.document()["theirs"], if others { json!(1) } else { json!(null) });
        root.run("recover doctor").expect(0);
    }
}

#[test]
fn an_edit_that_a_guarded_commit_seals_stays_and_its_own_change_is_put_back() {
    let root = Sandbox::with_history();
    let script = format!(
        "sed 's/\"phase\": \"[^\"]*\"/\"phase\": \"by-hand\"/' .workflow-state.json >edited\n\
         touch -d '1 minute ago' edited\nmv edited .workflow-state.json\n\
         STATE_FOREIGN_EDITS=accept {SET} mine=1"
    );
    let (ran, _) = start(&root, "deploy", "", &script, 7).go_on(&root);
    assert_eq!(ran.code, 7, "{}", ran.stderr);
    let document = root.document();
    assert_eq!((&document["phase"], &document["mine"]), (&json!("by-hand"), &json!(null)));
    let history = root.run("state history --json").json();
    let commands: Vec<_> =
        history.as_array().unwrap().iter().take(3).map(|row| row["command"].clone()).collect();
    assert_eq!(
        commands,
        ["recover restore", "state set", "state adopt"],
        "the edit has a line of its own"
    );
}
